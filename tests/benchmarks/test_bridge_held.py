"""What benchmarks/bridge.py counts as held: each of its counters sees what is leaked on purpose."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.bridge_fleet import held

# Says when it stands, and when it has leaked: descriptors, a socket, shared memory, a file, and an orphan that is in
# no tree of its own any more.
LEAKS = """
import os, socket, subprocess, sys, tempfile
print(flush=True)
sys.stdin.readline()
kept = [open("/dev/null"), socket.socket(), tempfile.TemporaryFile(dir="/dev/shm"), bytearray(64 << 20)]
tempfile.NamedTemporaryFile(delete=False)
orphan = "import sys, time; sys.stdin.readline()"
command = [sys.executable, "-c", orphan]
if os.fork() == 0:
    subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    os._exit(0)
os.wait()
print(flush=True)
sys.stdin.readline()
"""


def test_every_counter_sees_a_leak() -> None:
    with tempfile.TemporaryDirectory(prefix="b") as name:
        leaking = subprocess.Popen(
            [sys.executable, "-c", LEAKS],
            env={**os.environ, "TMPDIR": name},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with leaking:  # closes its input, at which it and the orphan end
            assert leaking.stdin is not None
            assert leaking.stdout is not None
            leaking.stdout.readline()
            before = held(leaking.pid, Path(name))
            leaking.stdin.write(b"leak\n")
            leaking.stdin.flush()
            leaking.stdout.readline()
            after = held(leaking.pid, Path(name))
    assert (before.processes, after.processes) == (1, 2)
    assert (before.sockets, after.sockets) == (0, 1)
    assert after.descriptors >= before.descriptors + 3
    assert (before.shm, after.shm) == (0, 1)
    assert (before.files, after.files) == (0, 1)
    assert after.memory_mb > before.memory_mb + 60
    assert len(after.largest) == 2
    assert float(after.largest[0].split()[-1]) > 60
