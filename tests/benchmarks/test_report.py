"""What benchmarks share: figures, ratios, the object they print, and sides in processes of their own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import report
from benchmarks.report import (
    Meter,
    Side,
    SideFailed,
    memory_mb,
    percentile,
    ratios,
    read_side,
    result,
    rounded,
    run_side,
    tell_side,
    versions,
)


def test_percentiles_lie_between_neighbours() -> None:
    values = [4.0, 1.0, 3.0, 2.0]
    assert percentile(values, 0.0) == 1.0
    assert percentile(values, 0.5) == 2.5
    assert percentile(values, 1.0) == 4.0
    assert percentile([7.0], 0.95) == 7.0


def test_of_no_values_there_is_no_percentile() -> None:
    with pytest.raises(ValueError, match="measure at least one"):
        percentile([], 0.5)


@given(st.lists(st.floats(0, 1e9), min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_percentiles_grow_with_their_share(values: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    tolerance = 1e-6 * max(values)
    assert min(values) - tolerance <= percentile(values, low)
    assert percentile(values, low) <= percentile(values, high) + tolerance
    assert percentile(values, high) <= max(values) + tolerance


def test_ratios_are_to_the_best_peer() -> None:
    ours = {"p50_ms": 2.0, "finds_per_s": 30.0, "ours_alone": 1.0}
    peers = {"a": {"p50_ms": 8.0, "finds_per_s": 10.0}, "b": {"p50_ms": 4.0, "finds_per_s": 5.0}}
    assert ratios(ours, peers) == {"p50_ms": 0.5, "finds_per_s": 3.0}


def test_there_is_no_ratio_to_nothing() -> None:
    assert ratios({"finds_per_s": 30.0, "other": 1.0}, {"a": {"finds_per_s": 0.0}}) == {}


def test_figures_have_four_digits() -> None:
    assert [rounded(value) for value in (0.000123456, 12.3456, 123456.0, 0.0)] == [
        0.0001235,
        12.35,
        123500.0,
        0.0,
    ]


def test_a_result_has_the_form_that_all_benchmarks_share() -> None:
    sides = {
        "ours": Side({"p50_ms": 2.00001}, {"finds": 9}),
        "py-libp2p": Side({"p50_ms": 8.0}, {"finds": 3}),
    }
    found = result("dht", {"nodes": 32}, ["trio"], sides)
    assert list(found) == ["benchmark", "setup", "versions", "ours", "peers", "ratio"]
    assert found["benchmark"] == "dht"
    assert found["setup"] == {
        "nodes": 32,
        "cores": os.cpu_count(),
        "ours": {"finds": 9},
        "py-libp2p": {"finds": 3},
    }
    assert (found["ours"], found["peers"]) == ({"p50_ms": 2.0}, {"py-libp2p": {"p50_ms": 8.0}})
    assert found["ratio"] == {"p50_ms": 0.25}
    assert json.loads(json.dumps(found)) == found


def test_versions_name_what_is_missing() -> None:
    found = versions("trio", "no-such-package")
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["trio"][0].isdigit()
    assert found["no-such-package"] == "not installed"


def test_a_side_is_read_as_it_was_told(capsys: pytest.CaptureFixture[str]) -> None:
    side = Side({"p50_ms": 1.5}, {"finds": 3.0, "load": "high"})
    tell_side(side)
    assert read_side(capsys.readouterr().out.strip()) == side


@pytest.mark.parametrize(
    "line", ["", "no json", "[]", '{"figures": 1, "setup": {}}', '{"figures": {"a": "b"}}']
)
def test_other_lines_are_no_result(line: str) -> None:
    with pytest.raises(SideFailed, match="no result"):
        read_side(line)


@pytest.fixture
def side_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A benchmark of which one side is the file that is returned; it is run from a tree of its own."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").touch()
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    return tmp_path / "benchmarks" / "made_up.py"


def test_a_side_runs_in_a_process_of_its_own(side_of: Path) -> None:
    side_of.write_text(
        "import json, os, sys\n"
        "assert sys.argv[1:] == ['--side', 'ours', '--nodes=3'], sys.argv\n"
        "print('progress that went astray')\n"
        "print(json.dumps({'figures': {'pid': os.getpid()}, 'setup': {'finds': 1}}))\n"
    )
    side = run_side("made_up", "ours", ["--nodes=3"], limit_s=60)
    assert side.figures["pid"] != os.getpid()
    assert set(side.setup) == {"finds", "load_average"}


def test_a_side_that_fails_is_told_as_such(side_of: Path) -> None:
    side_of.write_text('print(\'{"figures": {}, "setup": {}}\')\nraise SystemExit(3)\n')
    with pytest.raises(SideFailed, match="ours ended with status 3"):
        run_side("made_up", "ours", [], limit_s=60)


def test_a_side_may_have_a_second_attempt(side_of: Path, tmp_path: Path) -> None:
    side_of.write_text(
        "import pathlib, sys\n"
        f"tried = pathlib.Path({str(tmp_path)!r}) / 'tried'\n"
        "if not tried.exists():\n"
        "    tried.touch()\n"
        "    sys.exit(1)\n"
        'print(\'{"figures": {"a_ms": 1}, "setup": {}}\')\n'
    )
    assert run_side("made_up", "theirs", [], limit_s=60, attempts=2).figures == {"a_ms": 1.0}


def test_a_side_that_takes_too_long_is_stopped(side_of: Path) -> None:
    side_of.write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(SideFailed, match=r"stopped after 0\.2 s"):
        run_side("made_up", "ours", [], limit_s=0.2)


def test_meters_run_forwards() -> None:
    meter = Meter()
    sum(range(100_000))
    assert meter.elapsed_s > 0
    assert meter.cpu_s >= 0
    assert memory_mb() > 1
