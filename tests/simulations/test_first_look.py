"""The first look: all of it happens, and happens again the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache

import pytest

from simulations import first_look


@cache
def look(hash_seed: str, *arguments: str) -> str:
    """Its output in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-m", "simulations.first_look", "--nodes", "40", "--acts", "10", *arguments],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert run.stderr == ""
    return run.stdout


def report(hash_seed: str, *arguments: str) -> dict[str, object]:
    found = json.loads(look(hash_seed, *arguments).splitlines()[-1])
    assert isinstance(found, dict)
    return found


def without_wall_clock(report: dict[str, object]) -> dict[str, object]:
    return {name: report[name] for name in report if name not in ("wall_s", "engine_events_per_s")}


def test_two_runs_with_one_seed_are_the_same_whatever_the_hash_seed() -> None:
    first, second = report("1"), report("2")
    assert first["trace_hash"] == second["trace_hash"]
    assert without_wall_clock(first) == without_wall_clock(second)


def test_another_seed_is_another_run() -> None:
    assert report("1")["trace_hash"] != report("1", "--seed", "2")["trace_hash"]


def test_everything_asked_for_happens() -> None:
    found = report("1")
    assert found["joined"] == 1.0
    assert found["announced"] == found["finds"] == found["finds_succeeded"] == 10
    assert found["gossip_delivered"] == 1.0
    assert found["table_complete"] == 1.0
    assert found["records_orphaned"] == 0
    assert found["mesh_reached"] == found["mesh_mutual"] == 1.0


def test_a_table_comes_first_and_the_json_last() -> None:
    lines = look("1").splitlines()
    assert len(lines) == 1 + len(json.loads(lines[-1]))
    assert lines[0].split() == ["nodes", "40"]


def test_json_alone_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    first_look.main(["--nodes", "5", "--acts", "1", "--json"])
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert json.loads(printed)["finds_succeeded"] == 1


def test_too_few_nodes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        first_look.main(["--nodes", "1"])
    assert "two nodes" in capsys.readouterr().err
