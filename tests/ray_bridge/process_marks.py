"""Finding every process of a tree, also those that wiped their environment or detached."""

from __future__ import annotations

import os
from collections.abc import Callable

import psutil
import trio

from swarmp2p.ray_bridge.processes import Process, descendants, look
from swarmp2p.ray_bridge.tree import TREE_VARIABLE


def marked(mark: str) -> list[int]:
    """Processes that carry the mark, and their descendants."""
    found = dict[int, None]()
    for process in psutil.process_iter():
        try:
            if process.environ().get(TREE_VARIABLE) == mark:
                found[process.pid] = None
                found.update((child.pid, None) for child in descendants(process.pid))
        except psutil.Error:
            continue
    return [pid for pid in found if look(pid) is not None]


def family(pid: int) -> list[Process]:
    """A process and its descendants."""
    process = look(pid)
    assert process is not None
    return [process, *descendants(pid)]


def living(of: list[Process]) -> list[int]:
    """Those that are still there."""
    return [
        process.pid for process in of if (now := look(process.pid)) is not None and now.start == process.start
    ]


async def until(true: Callable[[], bool]) -> None:
    """Wait until something is so, looking 50 times a second; fails after 20 s."""
    with trio.fail_after(20):
        while not true():  # noqa: ASYNC110  other processes set no events
            await trio.sleep(0.02)


async def all_gone(mark: str, of: list[Process] | None = None) -> None:
    """Wait until nothing that carries the mark, or is in the list, lives."""
    await until(lambda: not marked(mark) and not living(of or []))


def plasma_files() -> set[str]:
    """Ray's shared memory that still has a name."""
    return {name for name in os.listdir("/dev/shm") if name.startswith("plasma")}
