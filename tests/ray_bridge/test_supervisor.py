"""The supervisor ends whole trees, however the end comes, and touches nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from swarmp2p.ray_bridge import launch, processes, supervisor
from swarmp2p.ray_bridge.node_tree import MOST_KEPT_LOGS, NodePlan, NodeTree
from swarmp2p.ray_bridge.tree import Tree, TreeEnded, open_tree

from .process_marks import all_gone, family, living, marked, until

# A command that has detached descendants which ignore SIGTERM and hold no pipe of ours; it says when they run.
DEAF = """
trap '' TERM
setsid sh -c 'trap "" TERM; sleep 1000 & wait' > /dev/null 2>&1 &
(sleep 1000 > /dev/null 2>&1 &)
echo '{"up": true}'
while true; do sleep 1000; done
"""

# The same with nobody who ignores anything.
MEEK = """
(setsid sleep 1000 > /dev/null 2>&1 &)
echo '{"up": true}'
exec sleep 1000
"""

# A process that opens a tree and forks another one that keeps all its pipes open.
HOLDER = """
import os, sys, time, trio
from pathlib import Path
from swarmp2p.ray_bridge.tree import open_tree

async def main():
    log, remove, orphans, script = sys.argv[1:]
    tree = open_tree(
        ["sh", "-c", script],
        environment=os.environ,
        log_path=Path(log),
        remove=[Path(remove)],
        remove_orphaned=[Path(orphans)],
    )
    async with tree as tree:
        await tree.told("up")
        fork = os.fork()
        if fork == 0:
            time.sleep(60)
        print(tree.mark, tree.pid, fork, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")


@asynccontextmanager
async def shell(script: str, tmp_path: Path, grace_s: float = 0.2) -> AsyncGenerator[Tree, None]:
    async with open_tree(
        ["sh", "-c", script], environment=os.environ, log_path=tmp_path / "log", grace_s=grace_s
    ) as tree:
        yield tree


@asynccontextmanager
async def alone(script: str) -> AsyncGenerator[tuple[trio.Process, list[processes.Process]], None]:
    """A supervisor that has no Tree, and whose parent is nobody to it; with all of its tree."""
    command = [sys.executable, "-I", "-S", supervisor.__file__, "--grace", "0.1", "--", "sh", "-c", script]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        await until(lambda: [name(p.pid) for p in family(process.pid)][-1] == "sleep")
        yield process, family(process.pid)
    finally:
        process.kill()
        await process.wait()


async def test_the_status_is_the_commands(tmp_path: Path) -> None:
    async with shell("exit 7", tmp_path) as tree:
        assert await tree.wait() == 7
    async with shell("kill -9 $$", tmp_path) as tree:
        assert await tree.wait() == 128 + 9


async def test_what_the_command_says_arrives(tmp_path: Path) -> None:
    async with shell(
        """echo 'no json'; echo '[1]'; echo '{"a": 1, "b": "x"}'; exec sleep 1000""", tmp_path
    ) as tree:
        assert await tree.told("b") == "x"
        assert await tree.told("a") == 1


async def test_a_command_that_ends_early_says_why(tmp_path: Path) -> None:
    async with shell("echo some reason >&2; exit 3", tmp_path) as tree:
        with pytest.raises(TreeEnded, match="ended with status 3: some reason"):
            await tree.told("up")
        assert tree.failed
    async with shell("""echo '{"failed": "no luck"}'; exit 1""", tmp_path) as tree:
        assert await tree.died() == "no luck"


async def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    async with open_tree(["/no/such/program"], environment={}, log_path=tmp_path / "log") as tree:
        assert "cannot run /no/such/program" in await tree.died()


def test_it_takes_its_two_neighbours_and_nobody_elses_module(tmp_path: Path) -> None:
    """Installed where nothing can be written; with others of the same names wherever Python might look."""
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    installed.mkdir()
    elsewhere.mkdir()
    for module in (supervisor, launch, processes):
        shutil.copy(str(module.__file__), installed)
    for decoy in (
        *(elsewhere / f"{name}.py" for name in ("beside", "launch", "processes", "select", "signal")),
        *(installed / f"{name}.py" for name in ("beside", "ctypes", "select", "signal", "struct")),
    ):
        decoy.write_text("raise SystemExit('a decoy')")
    installed.chmod(0o500)
    command = [sys.executable, "-I", "-S", str(installed / "supervisor.py"), "--", "sh", "-c", "exit 7"]
    environment = {"PYTHONPATH": str(elsewhere)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=elsewhere, env=environment) as process:
        assert process.wait(30) == 7


async def test_stop_ends_the_detached_and_the_deaf(tmp_path: Path) -> None:
    async with shell(DEAF, tmp_path) as tree:
        await tree.told("up")
        await until(lambda: len(family(tree.pid)) >= 6)
        everyone = family(tree.pid)
        await tree.stop(0.1)
        assert not living(everyone)
        assert not marked(tree.mark)
        assert await tree.died() == "it was told to stop"
        assert not tree.failed


async def test_who_listens_to_sigterm_is_not_killed(tmp_path: Path) -> None:
    script = (
        """trap 'echo in good order >&2; exit 5' TERM; echo '{"up": true}'; while true; do sleep 0.01; done"""
    )
    async with shell(script, tmp_path) as tree, trio.open_nursery() as nursery:
        await tree.told("up")
        nursery.start_soon(tree.stop, 600.0)
        with trio.move_on_after(20):  # long before half of the grace, when everybody is asked
            await tree.wait()
        if not tree.ended:
            os.kill(tree.pid, signal.SIGKILL)
        assert await tree.wait() == 5
    assert "in good order" in (tmp_path / "log").read_text()


async def test_descendants_are_asked_as_well_when_the_command_has_ended(tmp_path: Path) -> None:
    child = tmp_path / "child"
    child.write_text(
        """trap 'echo child in good order >&2; exit' TERM; echo '{"up": true}'; while true; do sleep 0.01; done"""
    )
    async with shell(f"setsid sh '{child}' & wait", tmp_path) as tree:
        await tree.told("up")
        await tree.stop(60)
    assert "child in good order" in (tmp_path / "log").read_text()


async def test_a_second_stop_may_be_more_urgent(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with shell(DEAF, tmp_path) as tree, trio.open_nursery() as nursery:
            await tree.told("up")
            nursery.start_soon(tree.stop, 600.0)
            await trio.testing.wait_all_tasks_blocked()
            await tree.stop(0)
            assert await tree.wait() >= 0  # the supervisor did it, and need not be killed


async def test_several_may_stop_a_tree_at_the_same_moment(tmp_path: Path) -> None:
    async with shell(MEEK, tmp_path) as tree:
        await tree.told("up")
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(tree.stop)
        assert tree.ended


async def test_cancellation_ends_the_tree(tmp_path: Path) -> None:
    seen: list[processes.Process] = []
    async with trio.open_nursery() as nursery, shell(DEAF, tmp_path) as tree:
        await tree.told("up")
        seen += family(tree.pid)
        nursery.cancel_scope.cancel()
        await trio.sleep(60)
    assert seen
    assert not living(seen)


async def test_orphans_end_with_the_command(tmp_path: Path) -> None:
    async with shell("(setsid sleep 1000 > /dev/null 2>&1 &); exit 4", tmp_path) as tree:
        assert await tree.wait() == 4
        assert not marked(tree.mark)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_signals_to_the_supervisor_end_the_tree(tmp_path: Path, number: int) -> None:
    async with shell(DEAF, tmp_path) as tree:
        await tree.told("up")
        everyone = family(tree.pid)
        os.kill(tree.pid, number)
        await tree.wait()
        assert not living(everyone)


async def test_a_killed_supervisor_takes_its_session_with_it(tmp_path: Path) -> None:
    for name in ("node", "kept"):
        (tmp_path / name).mkdir()
    async with open_tree(
        ["sh", "-c", "sleep 1000 & sleep 1000 & echo '{\"up\": 1}'; wait"],
        environment=os.environ,
        log_path=tmp_path / "log",
        remove=[tmp_path / "node"],
        remove_orphaned=[tmp_path / "kept"],
    ) as tree:
        await tree.told("up")
        everyone = family(tree.pid)
        os.kill(tree.pid, signal.SIGKILL)
        assert await tree.died() == "its supervisor was killed by signal 9"
        assert not living(everyone)
        assert not (tmp_path / "node").exists()
    assert (tmp_path / "kept").exists()  # its user is there, and may start another on it


async def test_the_command_dies_with_a_killed_supervisor_nobody_watches() -> None:
    async with alone("exec sleep 1000") as (process, everyone):
        process.kill()
        await process.wait()
        await until(lambda: not living(everyone))


async def test_the_end_of_standard_input_ends_the_tree() -> None:
    async with alone("setsid sleep 1000 & sleep 1000") as (process, everyone):
        assert process.stdin is not None
        await process.stdin.aclose()
        await process.wait()
        assert not living(everyone)


async def test_our_own_sudden_death_ends_the_tree(tmp_path: Path) -> None:
    directory = tmp_path / "node"
    (directory / "deep").mkdir(parents=True)
    (directory / "deep" / "file").write_text("x")
    orphans = tmp_path / "orphans"
    orphans.mkdir()
    us = await trio.lowlevel.open_process(
        [sys.executable, "-c", HOLDER, str(tmp_path / "log"), str(directory), str(orphans), MEEK],
        stdout=subprocess.PIPE,
    )
    assert us.stdout is not None
    try:
        said = b""
        while not said.endswith(b"\n"):
            said += await us.stdout.receive_some() or pytest.fail("it ended early")
        mark, pid, fork = said.decode().split()
        everyone = family(int(pid))
    finally:
        us.kill()
        await us.wait()
        await us.stdout.aclose()
    await all_gone(mark, everyone)
    assert not directory.exists()
    assert not orphans.exists()
    assert processes.look(int(fork)) is not None
    os.kill(int(fork), signal.SIGKILL)


async def test_others_are_left_alone(tmp_path: Path) -> None:
    bystander = await trio.lowlevel.open_process(["sleep", "1000"])
    try:
        seen = processes.look(bystander.pid)
        assert seen is not None
        earlier = processes.Process(seen.pid, seen.parent, seen.session, seen.start - 1)
        processes.send_signal(earlier, signal.SIGKILL)  # the pid names somebody else now
        async with shell(DEAF, tmp_path) as tree:
            await tree.told("up")
            assert bystander.pid not in {process.pid for process in processes.descendants(tree.pid)}
        assert bystander.poll() is None
    finally:
        bystander.kill()
        await bystander.wait()


async def test_an_odd_name_hides_nobody(tmp_path: Path) -> None:
    odd = tmp_path / "a) 1 2 ("
    odd.symlink_to("/bin/sleep")
    async with shell(
        f"""setsid '{odd}' 1000 > /dev/null 2>&1 & echo '{{"up": 1}}'; wait""", tmp_path
    ) as tree:
        await tree.told("up")
        await until(lambda: any(name(process.pid) == "a) 1 2 (" for process in family(tree.pid)))
    assert not marked(tree.mark)


async def test_logs_are_private(tmp_path: Path) -> None:
    async with shell("exit 0", tmp_path) as tree:
        await tree.wait()
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("arguments", [["--what", "1", "--", "true"], ["--grace", "1"], ["--"]])
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match=r"usage|no command"):
        supervisor.main(arguments)


async def test_of_nodes_that_fail_only_the_latest_logs_are_kept(tmp_path: Path) -> None:
    plan = NodePlan(node_ip="127.0.0.1", name="one", head_address="127.0.0.1:1")
    async with shell("echo why >&2; exit 1", tmp_path) as tree:
        await tree.wait()
        node = NodeTree(plan, tree, tmp_path)
        kept = [Path(node.kept_log()) for _ in range(MOST_KEPT_LOGS + 2)]
    assert [path.exists() for path in kept] == [False] * 2 + [True] * MOST_KEPT_LOGS
    assert kept[-1].read_text() == "why\n"
    for path in kept[2:]:
        path.unlink()
