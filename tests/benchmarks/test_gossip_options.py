"""Wrong options end a benchmark before it begins."""

from __future__ import annotations

import pytest

from benchmarks import gossip
from benchmarks.gossip_scenarios import JS


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rate", "nan"], "finite"),
        (["--seconds", "inf"], "finite"),
        (["--settle", "-1"], "at least 0"),
        (["--coalesce-ms", "-1"], "at least 0"),
        (["--runs", "0"], "above 0"),
        (["--nodes", "5", "--degree", "3"], "even number"),
        (["--sides", "theirs"], "--sides are"),
    ],
)
def test_wrong_options_are_refused(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        gossip.parse(options)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_what_is_not_installed_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacking(side: str) -> str:
        return "js-libp2p is not installed" if side == JS else ""

    monkeypatch.setattr(gossip, "missing", lacking)
    with pytest.raises(SystemExit) as ended:
        gossip.parse([])
    assert ended.value.code == 2
    assert "js-libp2p is not installed" in capsys.readouterr().err
    assert gossip.parse(["--sides", "ours"]).sides == ["ours"]
    assert gossip.parse(["--scenario", "memory"]).scenario == "memory"  # of ours alone
