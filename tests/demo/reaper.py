"""Runs a command, signals it at a moment of its story, and reports which processes it leaves behind.

    python -m tests.demo.reaper [--at TEXT --signal NUMBER] -- COMMAND...

This process is the subreaper of all that the command starts: whatever outlives its parent becomes a child of
this one, so that nothing can hide. Prints one JSON object: the status, the output, and what was left.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import time

import psutil

from swarmp2p.ray_bridge.launch import PR_SET_CHILD_SUBREAPER, prctl

_SETTLE_S = 10.0  # supervisors whose peer was killed may need a moment more than the command itself


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--at", default="")
    parser.add_argument("--signal", type=int, default=signal.SIGTERM)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    process = subprocess.Popen(
        options.command[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    lines: list[str] = []
    signalled = False
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if options.at and options.at in line and not signalled:
            process.send_signal(options.signal)
            signalled = True
    status = process.wait()
    left = descendants()
    deadline = time.monotonic() + _SETTLE_S
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = descendants()
    print(json.dumps({"status": status, "signalled": signalled, "lines": lines, "left": left}))
    for pid in [int(line.split()[0]) for line in left]:
        os.kill(pid, signal.SIGKILL)


def descendants() -> list[str]:
    """pid and command line of every living descendant; the dead are reaped."""
    found: list[str] = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {' '.join(process.cmdline())[:200]}")
            elif process.ppid() == os.getpid():
                os.waitpid(process.pid, 0)
        except (psutil.NoSuchProcess, ChildProcessError):
            continue
    return found


if __name__ == "__main__":
    main()
