"""What all scripts share: a picture that cannot be drawn is known at once, and Ctrl-C leaves no traceback."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from benchmarks import report as benchmarks_report
from simulations import report


@pytest.mark.parametrize("name", ["missing/picture.png", "picture.txt", "picture", "."])
def test_a_picture_that_cannot_be_drawn_is_refused_before_the_run(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(SystemExit) as ended:
        report.parser_for("simulations.x", None).parse_args(["--png", str(tmp_path / name)])
    assert ended.value.code == 2
    assert "--png" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_numbers_are_finite(capsys: pytest.CaptureFixture[str]) -> None:
    parser = report.parser_for("simulations.x", None)
    parser.add_argument("--rate", type=report.finite)
    assert parser.parse_args(["--rate", "0.5"]).rate == 0.5
    for wrong in ("nan", "inf", "x"):
        with pytest.raises(SystemExit) as ended:
            parser.parse_args(["--rate", wrong])
        assert ended.value.code == 2
        assert f"'{wrong}'" in capsys.readouterr().err


def test_a_picture_is_written_over_only_at_the_end(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "old.png"
    picture.write_bytes(b"old")
    for name in ("old.png", "new.png"):
        options = report.parser_for("simulations.x", None).parse_args(["--png", str(tmp_path / name)])
        assert options.png == str(tmp_path / name)
    assert picture.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [picture]


def interrupted() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("script", [report.script, benchmarks_report.script])
def test_ctrl_c_is_a_status_and_no_traceback(script: object) -> None:
    assert callable(script)
    with pytest.raises(SystemExit) as ended:
        script(interrupted)
    assert ended.value.code == 130
    script(lambda: None)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("dht_attack", ["--nodes", "80", "10"]),
        ("dht_attack", ["--lookups", "0"]),
        ("dht_service", ["--nodes", "39"]),
        ("dht_service", ["--providers", "0"]),
        ("dht_service", ["--limit", "-1"]),
        ("dht_service", ["--nodes", "50", "--announcers", "51"]),
    ],
)
def test_a_size_that_shows_nothing_is_wrong_usage(
    name: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"simulations.{name}").main(arguments)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err
