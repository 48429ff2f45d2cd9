"""The demo as a user runs it: separate processes, real libp2p, real Ray, a real SIGKILL."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

DEMO = (sys.executable, "-m", "swarmp2p", "demo", "--plain")


def run(*command: str, at: str = "", number: int = 0) -> dict[str, Any]:
    """Run a command to its end, signalled at a line of its output, under the eyes of reaper.py."""
    when = ["--at", at, "--signal", str(number)] if at else []
    done = subprocess.run(
        [sys.executable, "-m", "tests.demo.reaper", *when, "--", *command],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_everything_that_the_demo_promises_happens_and_nothing_is_left() -> None:
    report = run(*DEMO, "--json")
    assert report["left"] == []
    figures = json.loads(report["lines"][-1])
    assert (report["status"], figures["problems"]) == (0, []), "\n".join(report["lines"])
    assert figures["first_task_s"] > 0
    assert figures["third_worker_s"] > 0
    assert figures["kill_to_replacement_s"] > 0
    assert any("refused: its owner has not allowed" in line for line in report["lines"])
    assert Path(figures["logs"], "borrower.log").is_file()


def test_a_script_of_the_users_own_runs_on_the_cluster(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import ray, time\n"
        "ray.init(log_to_driver=False)\n"
        "@ray.remote(max_retries=-1)\n"
        "def double(x):\n"
        "    time.sleep(0.5)\n"
        "    return 2 * x\n"
        "print('sum', sum(ray.get([double.remote(x) for x in range(60)])))\n"
    )
    report = run(*DEMO, "--script", str(script))
    assert report["left"] == []
    assert report["status"] == 0, "\n".join(report["lines"])
    assert any("script: sum 3540" in line for line in report["lines"])


def test_a_script_may_be_short_and_fast_at_printing(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("for number in range(20_000): print('\\x1b[31mline', number)\n")
    report = run(*DEMO, "--script", str(script))
    assert report["left"] == []
    assert report["status"] == 0, "\n".join(report["lines"][-40:])
    assert any(line.endswith("script: line 19999") for line in report["lines"])
    assert any("the script was done before the kill" in line for line in report["lines"])


def test_a_script_that_fails_shows_why(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("raise KeyError('the user\\'s own')\n")
    report = run(*DEMO, "--script", str(script))
    assert (report["status"], report["left"]) == (1, [])
    assert any('script: KeyError: "the user\'s own"' in line for line in report["lines"])
    assert "not as promised: the script ended with status 1" in report["lines"]


@pytest.mark.parametrize(
    ("at", "number"),
    [
        ("lender-2 is up", signal.SIGTERM),
        ("lease granted, worker starts", signal.SIGINT),
        ("is killed with SIGKILL", signal.SIGINT),
    ],
)
def test_nothing_is_left_when_it_is_stopped(at: str, number: int) -> None:
    report = run(*DEMO, at=at, number=number)
    assert report["signalled"], "\n".join(report["lines"])
    assert report["left"] == []
    assert report["status"] == 128 + number
    assert "nothing is left running" in report["lines"][-1]


def test_nothing_is_left_when_the_demo_itself_is_killed() -> None:
    report = run(*DEMO, at="worker runs", number=signal.SIGKILL)
    assert report["signalled"]
    assert report["left"] == []


def test_a_script_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    report = run(*DEMO, "--script", str(tmp_path / "none.py"))
    assert report["status"] == 2
    assert len(report["lines"]) == 1
    assert "there is no script" in report["lines"][0]
