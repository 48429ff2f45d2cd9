"""benchmarks/bridge.py: its options and bars; a small run of it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from benchmarks import bridge
from benchmarks.report import ROOT
from tests.lab.requirements import require


def test_by_default_much_is_measured() -> None:
    options = bridge.parse([])
    assert options.leases == 20
    assert options.failovers == 10
    assert options.cycles == 100
    assert options.workers == 8
    assert options.sides == ["ours", "ray-start"]


@pytest.mark.parametrize("argument", ["--scenario=nothing", "--sides=ray-start", "--leases=0"])
def test_others_are_refused(argument: str) -> None:
    with pytest.raises(SystemExit):
        bridge.parse([argument])


def test_bars_are_of_what_was_measured() -> None:
    found = {bar.metric: bar for bar in bridge.bars({"workers": 8.0, "failover_p95_s": 4.1, "other": 1.0}, 8)}
    assert list(found) == ["failover_p95_s", "workers"]
    assert found["workers"].judge({"workers": 8.0})["passed"]
    assert not found["failover_p95_s"].judge({"failover_p95_s": 4.1})["passed"]


@pytest.mark.slow
def test_heads_and_a_failover_are_measured() -> None:
    require()
    options = ["--scenario=head,failover", "--sides=ours", "--heads=1", "--failovers=1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bridge", "--settle-s=0.5", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert list(found) == ["benchmark", "setup", "versions", "ours", "peers", "ratio", "bars"]
    ours = found["ours"]
    assert ours["actor_kept"] == 1.0
    times = {"head_resume_s", "whole_head_resume_s", "failover_p95_s"}
    assert all(0 < ours[metric] < 120 for metric in times)
    assert times <= set(found["bars"])
