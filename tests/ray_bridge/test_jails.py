"""Real jails: who one is in them, that they end whole and in order, and what is said where there can be none."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swarmp2p.errors import NoJail
from swarmp2p.ray_bridge import jails, launch, processes, supervisor
from swarmp2p.ray_bridge.inside import INSIDE_USER
from swarmp2p.ray_bridge.jail import Jail, Limits
from swarmp2p.ray_bridge.jails import in_jail, jail_problem, next_user, this_system, worker_jail
from swarmp2p.ray_bridge.tree import Tree, open_tree

from .process_marks import family, living, until

PROBLEM = jail_problem()
needs_jail = pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))

WHO = """
import json, os
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({"said": {
    "ids": [os.getuid(), os.getgid(), os.getgroups()],
    "capabilities": [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")],
    "privileges": status["NoNewPrivs"].strip(),
    "host": os.uname().nodename,
    "cwd": os.getcwd(),
    "root": sorted(os.listdir("/")),
    "descriptors": len(os.listdir("/proc/self/fd")),
    "environment": sorted(os.environ),
}}))
"""

# Says when it is asked to end, and does so in order; its child does neither.
ORDERLY = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, lambda *_: 0); time.sleep(99)"])
def end(*_):
    os.write(1, b'{"ended": "in order"}\\n')  # the first line may still be being printed
    os._exit(7)
signal.signal(signal.SIGTERM, end)
print('{"up": true}', flush=True)
while True:
    time.sleep(99)
"""


def small(**more: Any) -> Jail:
    """A jail with little room."""
    room = {"scratch_bytes": 8 << 20, "shared_bytes": 8 << 20, "limits": Limits(256 << 20, 64)}
    return replace(worker_jail(cpus=1, memory_bytes=1 << 20, store_bytes=1 << 20), **{**room, **more})


@asynccontextmanager
async def jailed(
    code: str, tmp_path: Path, *arguments: str, jail: Jail | None = None
) -> AsyncGenerator[Tree, None]:
    """A Python program in a jail, under its supervisor."""
    command = [sys.executable, "-I", "-S", "-c", code, *arguments]
    with in_jail(jail or small(), command, {}) as (inside, environment, bounds):
        async with open_tree(
            inside, environment=environment, log_path=tmp_path / "log", bounds=bounds
        ) as tree:
            yield tree


async def said(tree: Tree) -> Any:
    await tree.wait()
    return await tree.told("said")


@needs_jail
async def test_a_worker_is_nobody_with_no_right_and_sees_few_things(tmp_path: Path) -> None:
    async with jailed(WHO, tmp_path) as jail:
        found = await said(jail)
    assert found["ids"] in ([INSIDE_USER, INSIDE_USER, groups] for groups in ([], [INSIDE_USER], [65534]))
    assert found["capabilities"] == [0] * 5
    assert found["privileges"] == "1"
    assert found["host"] == "worker"
    assert found["cwd"] == "/tmp/work"
    assert set(found["root"]) <= {
        "bin", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "opt", "proc", "root", "sbin", "tmp", "usr",
        *(Path(shown).parts[1] for shown in (*this_system().shown, this_system().package)),
    }  # fmt: skip
    assert found["descriptors"] == 4  # standard input, output, error, and the one that reads the directory
    assert "XDG_RUNTIME_DIR" not in found["environment"]


@needs_jail
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: sudo -E env PATH=$PATH python -m pytest")
async def test_a_lent_device_is_there_with_its_group_and_others_are_not(tmp_path: Path) -> None:
    directory = Path(tempfile.mkdtemp(dir="/var/tmp"))  # shut, and not below what a jail has of its own
    lent, kept = directory / "lent", directory / "kept"
    for node in (lent, kept):
        os.mknod(node, stat.S_IFCHR | 0o660, os.makedev(1, 9))  # stands in for a GPU: /dev/urandom's numbers
        os.chown(node, 0, 4321)
    code = """
import json, os, sys
try:
    os.chmod(sys.argv[1], 0o666)
except PermissionError:
    print(json.dumps({"said": [os.path.exists(path) and len(open(path, "rb", 0).read(4)) for path in sys.argv[1:]]}))
"""
    jail = small(devices=(str(lent),), groups=(4321,))
    mode = lent.stat().st_mode
    try:
        async with jailed(code, tmp_path, str(lent), str(kept), jail=jail) as tree:
            assert await said(tree) == [4, False]
        assert lent.stat().st_mode == mode  # the node there is this one
    finally:
        shutil.rmtree(directory)


@needs_jail
async def test_a_jail_ends_in_order_when_it_is_asked_to(tmp_path: Path) -> None:
    async with jailed(ORDERLY, tmp_path) as jail:
        assert await jail.told("up")
        everyone = family(jail.pid)
        assert len(everyone) == 5  # the supervisor, bubblewrap's two, the command, and its child
        await jail.stop(20.0)
        assert await jail.told("ended") == "in order"
    assert not living(everyone)


@needs_jail
async def test_nothing_outlives_a_jail_whose_supervisor_was_killed(tmp_path: Path) -> None:
    async with jailed(ORDERLY, tmp_path) as jail:
        assert await jail.told("up")
        everyone = family(jail.pid)
        os.kill(jail.pid, signal.SIGKILL)
        await until(lambda: not living(everyone))
        assert "killed by signal 9" in await jail.died()


@needs_jail
async def test_whoever_will_not_end_is_killed_with_the_namespace(tmp_path: Path) -> None:
    stubborn = ORDERLY.replace("os._exit(7)", "")
    async with jailed(stubborn, tmp_path) as jail:
        assert await jail.told("up")
        everyone = family(jail.pid)
        await jail.stop(0.2)
    assert not living(everyone)


async def test_what_a_task_writes_into_the_status_pipe_harms_nobody(tmp_path: Path) -> None:
    lines = ["[" * 20_000, '{"failed": "bad\\u001b[2Jnews"}', "5", '{"a":' * 5_000]
    code = f"import sys\nfor line in {lines!r}: print(line)"
    command = [sys.executable, "-I", "-S", "-c", code]
    async with open_tree(command, environment={}, log_path=tmp_path / "log") as tree:
        assert await tree.died() == "bad [2Jnews"


# Does to what it prints to whatever a file of the lender's would suffer, and prints much.
LOG_ATTACK = """
import ctypes, errno, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
KEEP_SIZE = 1
reserved = libc.fallocate(2, KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(64 << 20)), ctypes.get_errno()
try:
    os.fchmod(2, 0o4777)
except OSError:
    pass
os.write(1, json.dumps({"said": [*reserved, os.readlink("/proc/self/fd/2").partition(":")[0]]}).encode() + b"\\n")
for _ in range(int(sys.argv[1])):
    os.write(2, b"x" * 65535 + b"\\n")
os.write(2, b"the end\\n")
"""


@needs_jail
async def test_a_jail_has_no_file_of_the_lenders_in_its_hands_and_its_log_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    async with jailed(LOG_ATTACK, tmp_path, "20") as jail:
        assert await said(jail) == [-1, errno.ESPIPE, "pipe"]
        assert log.read_bytes().count(b"\n") == 21  # all of it, up to the last words
        assert "the end" in await jail.died()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    small_log = (tmp_path / "supervisor.py").absolute()
    source = Path(supervisor.__file__).read_text()
    for module in (launch, processes):
        shutil.copy(str(module.__file__), tmp_path)
    small_log.write_text(source.replace("MAX_LOG_BYTES = 16 << 20", "MAX_LOG_BYTES = 1 << 18"))
    monkeypatch.setattr(supervisor, "__file__", str(small_log))
    async with jailed(LOG_ATTACK, tmp_path, "40") as jail:
        await said(jail)
        assert log.stat().st_size <= (1 << 18) + supervisor.LOG_BYTES
        assert "the end" in await jail.died()


@needs_jail
async def test_a_jails_log_moves_where_the_lender_wants_it(tmp_path: Path) -> None:
    code = """
import os, sys, time
while True:
    os.write(2, b"again\\n")
    time.sleep(0.01)
"""
    moved = tmp_path / "a folder" / "log"
    moved.parent.mkdir()
    async with jailed(code, tmp_path) as jail:
        assert await jail.move_log(moved) is None
        await until(lambda: b"again" in moved.read_bytes())
        assert jail.log_tail(6) == b"again\n"
    assert stat.S_IMODE(moved.stat().st_mode) == 0o600


def bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Have a shell script for bwrap."""
    (tmp_path / "bwrap").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    jails.usable_system.cache_clear()


def test_where_bubblewrap_is_missing_the_problem_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    jails.usable_system.cache_clear()
    assert "apt-get install bubblewrap" in str(jail_problem())
    with pytest.raises(NoJail, match='isolation="none"'):
        this_system()


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo bubblewrap 0.6.1", "0.8 or newer"),
        ("echo nonsense", "0.8 or newer"),
        ("exit 3", "0.8 or newer"),
        ('[ "$1" = --version ] && echo bubblewrap 1.0 || exit 9', "status 9"),
        (
            '[ "$1" = --version ] && echo bubblewrap 0.11.0 || { echo "bwrap: Can\'t mount proc on /x" >&2; exit 1; }',
            "systempaths=unconfined",
        ),
    ],
)
def test_a_bubblewrap_that_does_not_serve_is_explained(
    script: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bubblewrap(tmp_path, monkeypatch, script)
    assert expected in str(jail_problem())


@pytest.mark.parametrize("place", ["/", "/home", "/root", os.path.expanduser("~"), "/tmp"])
def test_a_python_that_lies_among_the_owners_files_is_refused(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bubblewrap(tmp_path, monkeypatch, "echo bubblewrap 0.8.0")
    monkeypatch.setattr(sys, "prefix", place)
    with pytest.raises(NoJail, match="virtual environment"):
        this_system()


def test_two_workers_of_root_are_two_users() -> None:
    users = [next_user() for _ in range(64)]
    assert len(set(users)) == 64
    assert all(1879048192 <= user <= 2147483647 for user in users)
    json.dumps(users)
