"""Cells: nothing but `lo` inside, sockets come out, processes go in, and nothing is left."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
import trio

from swarmp2p.errors import NoCell
from swarmp2p.ray_bridge import cell as program
from swarmp2p.ray_bridge import launch, processes
from swarmp2p.ray_bridge.cell import COUNTS
from swarmp2p.ray_bridge.cells import Cell, cell_problem, open_cell
from swarmp2p.ray_bridge.tree import open_tree
from tests.lab import escape

from .cell_client import listening, sockets_of
from .process_marks import all_gone, family, living, until

AS_ROOT = os.geteuid() == 0

PROBLEM = trio.run(cell_problem)
pytestmark = pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))

# Tries to reach addresses, host:port each; says which errors there were.
PROBE = """
import json, os, socket, sys
found = {}
for place in sys.argv[1:]:
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
        found[place] = 0
    except socket.gaierror:
        found[place] = -1
    except OSError as problem:
        found[place] = problem.errno
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
ids = [os.getuid(), os.getgid()]
interfaces = [name for _, name in socket.if_nameindex()]
capabilities = int(status["CapEff"], 16) | int(status["CapPrm"], 16)
bits = [bit for bit in range(64) if capabilities >> bit & 1]
print(json.dumps({"said": {"found": found, "interfaces": interfaces, "ids": ids, "bits": bits}}))
"""

# Runs a script in a program of its own: what execve(2) may give is given then.
AGAIN = """
import subprocess, sys
raise SystemExit(subprocess.run([sys.executable, "-I", "-S", *sys.argv[1:]]).returncode)
"""

# A peer with a cell and a process in it, to be killed.
PEER = '''
import os, sys, trio
from pathlib import Path
from swarmp2p.ray_bridge.cells import open_cell
from swarmp2p.ray_bridge.tree import open_tree

async def main():
    async with open_cell() as cell:
        log, enter = Path(sys.argv[1]), cell.namespaces
        command = ["sh", "-c", """echo '{"up": true}'; exec sleep 1000"""]
        async with open_tree(command, environment=os.environ, log_path=log, enter=enter) as tree:
            await tree.told("up")
            print(cell.mark, cell.pid, tree.mark, tree.pid, flush=True)
            await trio.sleep_forever()

trio.run(main)
'''

both_ways = pytest.mark.parametrize(
    "user_namespace",
    [
        True,
        pytest.param(
            False,
            marks=pytest.mark.skipif(
                not AS_ROOT, reason="needs root: sudo -E env PATH=$PATH python -m pytest"
            ),
        ),
    ],
)


async def inside(cell: Cell, tmp_path: Path, code: str, *arguments: str) -> dict[str, object]:
    """Run Python in a cell; returns what it prints."""
    async with open_tree(
        [sys.executable, "-I", "-S", "-c", code, *arguments],
        environment={},
        log_path=tmp_path / "log",
        enter=cell.namespaces,
    ) as tree:
        await tree.wait()
        said = await tree.told("said")
        assert isinstance(said, dict)
        return cast("dict[str, object]", said)


@both_ways
async def test_nothing_but_what_was_made_inside_can_be_reached(user_namespace: bool, tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as outside:
        port = outside.getsockname()[1]
        async with open_cell(user_namespace=user_namespace) as cell:
            with listening(cell.sockets, "127.64.0.1", 20000) as made:
                own = [str(made.getsockname()[0]) + ":20000"]
                closed = [f"{ip}:{port}" for ip in ("127.0.0.1", "127.64.0.1", "127.77.0.1")]
                elsewhere = [f"{ip}:{port}" for ip in (*host_addresses(), "192.0.2.1", "1.1.1.1")]
                said = await inside(cell, tmp_path, PROBE, *own, *closed, *elsewhere, "example.com:80")
                assert said["found"] == {
                    own[0]: 0,
                    **dict.fromkeys(closed, errno.ECONNREFUSED),
                    **dict.fromkeys(elsewhere, errno.ENETUNREACH),
                    "example.com:80": -1,
                }
                assert select.select([made], [], [], 0)[0]
                with pytest.raises(ConnectionRefusedError):  # and nobody outside reaches what listens inside
                    socket.create_connection(("127.64.0.1", 20000))
            assert said["interfaces"] == ["lo"]
            assert said["ids"] == [os.getuid(), os.getgid()]
            assert set(cast("list[int]", said["bits"])) <= set(launch.KEPT if AS_ROOT else ())


def host_addresses() -> Sequence[str]:
    """Addresses of this machine that are not loopback's."""
    found = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
    return sorted({str(entry[4][0]) for entry in found if not str(entry[4][0]).startswith("127.")})


@both_ways
async def test_nobody_inside_gets_out_or_changes_the_network(user_namespace: bool, tmp_path: Path) -> None:
    async with open_cell(user_namespace=user_namespace) as cell:
        outside = [str(pid) for pid in (1, os.getpid(), os.getppid(), cell.pid)]
        said = await inside(cell, tmp_path, AGAIN, escape.__file__, *outside)
        assert said == {"done": [], "privileges": "1"}


async def test_a_user_keeps_what_the_kernel_counts_for_each_user(tmp_path: Path) -> None:
    code = """
import ctypes, json
libc = ctypes.CDLL(None)
count = 0
while count < 100 and libc.inotify_init1(0) >= 0:
    count += 1
print(json.dumps({"said": {"watchers": count}}))
"""
    async with open_cell(user_namespace=True) as cell:
        assert (await inside(cell, tmp_path, code))["watchers"] == dict(COUNTS)["max_inotify_instances"]


async def test_many_listeners_are_quickly_made_and_two_cells_do_not_meet() -> None:
    async with open_cell() as one, open_cell() as two:
        for cell in (one, two):
            made = sockets_of(cell.sockets, 400)
            assert len({one.fileno() for one in made}) == 400
            for port, listener in enumerate(made, start=20000):
                listener.bind(("127.64.0.9", port))  # free in either
                listener.listen()
            for listener in made:
                listener.close()


async def test_nothing_is_left_of_a_cell() -> None:
    async with open_cell() as cell:
        everyone = family(cell.pid)
        descriptors = cell.namespaces
    assert not living(everyone)
    for descriptor in descriptors:
        with pytest.raises(OSError):
            os.fstat(descriptor)


async def test_a_cell_dies_with_its_killed_peer(tmp_path: Path) -> None:
    peer = await trio.lowlevel.open_process(
        [sys.executable, "-c", PEER, str(tmp_path / "log")], stdout=subprocess.PIPE
    )
    assert peer.stdout is not None
    try:
        said = b""
        while not said.endswith(b"\n"):
            said += await peer.stdout.receive_some() or pytest.fail("it ended early")
        cell_mark, cell_pid, mark, pid = said.decode().split()
        everyone = family(int(cell_pid)) + family(int(pid))
        assert len(everyone) == 3
    finally:
        peer.kill()
        await peer.wait()
        await peer.stdout.aclose()
    await all_gone(cell_mark, everyone)
    await all_gone(mark)


@both_ways
async def test_who_is_inside_dies_with_a_killed_supervisor(user_namespace: bool, tmp_path: Path) -> None:
    async with open_cell(user_namespace=user_namespace) as cell:
        async with open_tree(
            ["sleep", "1000"], environment=os.environ, log_path=tmp_path / "log", enter=cell.namespaces
        ) as tree:
            await until(lambda: len(family(tree.pid)) == 2)
            everyone = family(tree.pid)
            os.kill(tree.pid, signal.SIGKILL)
            await until(lambda: not living(everyone))
        program_of_cell = processes.look(cell.pid)
        assert program_of_cell is not None
        processes.send_signal(program_of_cell, signal.SIGKILL)
        assert await cell.died() == "it ended with status 137"


async def test_a_namespace_that_cannot_be_entered_is_an_error(tmp_path: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        async with open_tree(
            ["true"], environment=os.environ, log_path=tmp_path / "log", enter=[nothing]
        ) as tree:
            assert await tree.wait() == 127
            assert "cannot be entered" in await tree.died()
    finally:
        os.close(nothing)


async def test_a_machine_that_forbids_cells_says_what_allows_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "cell.py"
    broken.write_text(f"print({json.dumps(json.dumps({'failed': 'no, its owner forbids it'}))}, flush=True)")
    monkeypatch.setattr(program, "__file__", str(broken))
    assert await cell_problem() == "no, its owner forbids it"
    with pytest.raises(NoCell, match="its owner forbids it"):
        async with open_cell():
            pytest.fail("it stands")


@pytest.mark.parametrize(("name", "forbids", "remedy"), program.SWITCHES)
def test_each_switch_is_named(name: str, forbids: str, remedy: str, tmp_path: Path) -> None:
    switch = tmp_path / name
    switch.parent.mkdir()
    switch.write_text(f"{forbids}\n")
    problem = OSError(errno.EPERM, "Operation not permitted")
    assert remedy in program.explain(problem, tmp_path)
    switch.write_text("77\n")
    assert "seccomp" in program.explain(problem, tmp_path)
    assert "too many" in program.explain(OSError(errno.ENOSPC, "No space left"), tmp_path)


def test_the_program_says_why_it_makes_no_namespace(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(flags: int) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(program, "unshare", refuse)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        assert program.main([str(theirs.detach())]) == 1
    assert "gives no network namespace" in json.loads(capfd.readouterr().out)["failed"]


def test_a_cell_without_descriptors_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.send(b"\0\1")
        ours.send(b"\0\0")
        ours.shutdown(socket.SHUT_WR)
        with monkeypatch.context() as patched:
            patched.setattr(socket, "socket", none_left)
            program.serve(theirs)
        assert ours.recv(16) == b"e" + errno.EMFILE.to_bytes(2, "big")
        assert ours.recv(16) == b"s"


async def test_a_tree_that_says_nothing_is_no_cell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    silent = tmp_path / "cell.py"
    silent.write_text("raise SystemExit('odd')")
    monkeypatch.setattr(program, "__file__", str(silent))
    with pytest.raises(NoCell, match="odd"):
        async with open_cell():
            pytest.fail("it stands")
