"""What a killed peer leaves behind is ended by the next one: real processes, killed with SIGKILL. Nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from swarmp2p.ray_bridge.ledger import Entered, Here, TreeEntry, open_ledger
from swarmp2p.ray_bridge.orphans import end_orphans, members
from swarmp2p.ray_bridge.processes import all_processes, look
from swarmp2p.ray_bridge.tree import TREE_VARIABLE, open_tree
from swarmp2p.storage.journal import Journal, journal_path, open_journal, read_journal

from .process_marks import living, until

# A peer that opens a tree whose command starts two others: one keeps the environment, the other wipes it, and both
# outlive it when it is killed.
PEER = """
import sys, trio
from pathlib import Path
from swarmp2p.ray_bridge.node_tree import private_directory
from swarmp2p.ray_bridge.tree import open_tree
from swarmp2p.storage.journal import open_journal

async def main():
    directory = private_directory()
    command = ["/bin/bash", "-c", "sleep 600 & (exec -c sleep 601) & wait"]
    async with open_journal(sys.argv[1]), open_tree(
        command, environment={"PATH": "/usr/bin:/bin"}, log_path=directory / "log", cwd=directory, remove=(directory,)
    ) as tree:
        print(tree.pid, tree.mark, directory, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@contextmanager
def killed_peer(state: Path, *, supervisor_too: bool) -> Generator[tuple[TreeEntry, list[int]], None, None]:
    """A peer that is killed; what its journal says, and the processes that its tree consisted of."""
    with subprocess.Popen(
        [sys.executable, "-c", PEER, str(state)], stdout=subprocess.PIPE, text=True
    ) as peer:
        assert peer.stdout is not None
        pid, mark, directory = peer.stdout.readline().split()
        try:
            (entry,) = read_journal(journal_path(state)).trees
            assert (entry.mark, entry.pid, entry.directories) == (mark, int(pid), (directory,))
            while len(members(entry, all_processes())) < 4:
                pass
            tree = [process.pid for process in members(entry, all_processes())]
        finally:
            if supervisor_too:
                os.kill(int(pid), signal.SIGSTOP)  # it must not see its parent's end
            peer.kill()
            peer.wait()
            if supervisor_too:
                os.kill(int(pid), signal.SIGKILL)
    yield entry, tree


@contextmanager
def sleeper(
    *, cwd: Path | str = "/", env: dict[str, str] | None = None
) -> Generator[subprocess.Popen[bytes], None, None]:
    """Somebody else's process that sleeps, a session of its own."""
    with subprocess.Popen(["/bin/sleep", "600"], start_new_session=True, cwd=cwd, env=env) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_who_opens_the_journal_next_ends_what_is_left(tmp_path: Path) -> None:
    with killed_peer(tmp_path / "state", supervisor_too=True) as (entry, tree):
        await until(lambda: look(entry.pid) is None)
        await until(lambda: sum(look(pid) is not None for pid in tree) == 2)  # bash dies with its supervisor
        left = [process for process in map(look, tree) if process is not None]
        assert Path(entry.directories[0]).exists()
        with sleeper(cwd=entry.directories[0]) as other:
            async with open_journal(tmp_path / "state") as journal:
                assert journal is not None
                assert not living(left)
                assert not Path(entry.directories[0]).exists()
                assert read_journal(journal.path).trees == ()
            assert look(other.pid) is not None, "another's process with the same name, in the same place"


async def test_a_supervisor_that_lives_ends_its_tree_in_order(tmp_path: Path) -> None:
    with killed_peer(tmp_path / "state", supervisor_too=False) as (entry, tree):
        assert end_orphans([entry]) == ()
        assert [pid for pid in tree if look(pid) is not None] == []


async def test_trees_of_who_lives_are_not_orphans(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path / "journal"))
    with open_ledger(journal):
        async with open_tree(
            ["sleep", "600"], environment=dict(os.environ), log_path=tmp_path / "log"
        ) as tree:
            (entry,) = read_journal(journal.path).trees
            assert end_orphans([entry]) == (entry,)
            assert look(tree.pid) is not None
            assert (entry.owner, entry.pid, entry.here) == (os.getpid(), tree.pid, Here.now())
        assert read_journal(journal.path).trees == ()
        with pytest.raises(OSError):
            async with open_tree([], environment={}, log_path=tmp_path / "log", cwd=tmp_path / "nowhere"):
                pytest.fail("it was opened")
        assert read_journal(journal.path).trees == ()
    journal.close()


async def test_numbers_that_are_used_again_name_nobody(tmp_path: Path) -> None:
    """Another process with the recorded pid; a session of that number; another boot; another pid namespace."""
    (tmp_path / "gone").mkdir()
    with sleeper(cwd=tmp_path / "gone") as stranger:
        process = look(stranger.pid)
        assert process is not None
        entry = TreeEntry(
            "0" * 16, Here.now(), 0, 0, (str(tmp_path / "gone"),), process.pid, process.start - 1
        )
        assert members(entry, all_processes()) == []
        same = replace(entry, start=process.start)
        assert [member.pid for member in members(same, all_processes())] == [process.pid]
        assert end_orphans([replace(same, here=Here("another boot", same.here.namespace))]) == ()
        assert end_orphans([replace(same, here=replace(same.here, namespace=1)), entry]) == ()
        assert look(stranger.pid) is not None
        assert not (tmp_path / "gone").exists(), "their directories are named by no numbers"


async def test_a_tree_is_found_before_its_supervisor_was_known(tmp_path: Path) -> None:
    """Killed between the start of the supervisor and the note of its pid: the mark finds it."""
    mark = "0123456789abcdef"
    with sleeper(env={TREE_VARIABLE: mark}) as child:
        await until(
            lambda: Path(f"/proc/{child.pid}/environ").read_bytes().startswith(TREE_VARIABLE.encode())
        )
        entry = TreeEntry(mark, Here.now(), 0, 0, ())
        await trio.to_thread.run_sync(end_orphans, [entry])
        assert child.wait() == -signal.SIGKILL


def test_what_is_no_directory_of_ours_is_left_alone(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (tmp_path / "link").symlink_to(kept)
    (tmp_path / "file").touch()
    places = tuple(str(tmp_path / name) for name in ("link", "file", "none"))
    assert end_orphans([TreeEntry("0" * 16, Here.now(), 0, 0, places)]) == ()
    assert kept.exists()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").exists()


def test_without_a_ledger_nothing_is_entered(tmp_path: Path) -> None:
    entered = Entered("0" * 16, [tmp_path])
    entered.runs(os.getpid())
    entered.over()


def test_a_process_that_restarts_inside_of_an_old_tree_lives_on() -> None:
    me = look(os.getpid())
    assert me is not None
    entry = TreeEntry("0" * 16, Here.now(), 0, 0, (), me.pid, me.start)
    assert me.pid not in [member.pid for member in members(entry, all_processes())]
