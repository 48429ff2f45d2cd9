"""`swarmp2p lend` by the clock of its owner, and what cannot be lent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_cli import fails

# Lends by a clock that stands until the file says another time.
BY_A_CLOCK = """
import sys
from datetime import datetime
from pathlib import Path
from swarmp2p import lend_command
from swarmp2p.cli import main
clock = Path(sys.argv[1])
lend_command._owners_time = lambda: datetime.fromisoformat("2026-05-04T" + clock.read_text())
lend_command._CLOCK_EVERY_S = 0.05
sys.exit(main(sys.argv[2:]))
"""


def test_hours_begin_and_end_by_the_owners_clock(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("21:00:00")

    def at(time: str) -> None:
        (tmp_path / "next").write_text(time)
        (tmp_path / "next").replace(clock)

    options = ["lend", "--json", "--exit-on-eof", "--allow-anyone", "--isolation", "none"]
    options += ["--hours", "22-8", "--notice", "5m"]
    command = [sys.executable, "-c", BY_A_CLOCK, str(clock), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as lender:
        assert lender.stdin is not None
        assert lender.stdout is not None

        def said() -> str:
            assert lender.stdout is not None
            event = json.loads(lender.stdout.readline())
            return str(event["event"]) + str(event.get("until", "")).replace("2026-05-04 ", " until ")

        assert said() == "resting until 22:00:00"
        at("22:00:00")
        assert said() == "lending"
        at("07:55:00")
        assert said() == "notice until 08:00:00"
        at("08:00:00")
        assert said() == "resting until 22:00:00"
        at("23:00:00")
        assert said() == "lending"
        lender.stdin.close()
        assert lender.wait(30) == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--memory", "much"], "write 8G, 512M"),
        (["--hours", "night"], "write 22:00-08:00"),
        (["--notice", "soon"], "write 90s, 30m"),
        (["--label", "fast"], "write NAME=VALUE"),
        (["--leases", "0"], "max_leases"),
    ],
)
def test_what_cannot_be_lent(capsys: pytest.CaptureFixture[str], options: list[str], told: str) -> None:
    assert told in fails(capsys, 2, "lend", *options)


def test_with_json_a_failure_is_an_event_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    from swarmp2p.cli import main

    assert main(["lend", "--json", "--kind", "toaster"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["error"] == "UsageError"
    assert "no provider kind 'toaster'" in printed.err
