"""What a lender has ready: cells, planes and zygotes, jailed or not; they end whole, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from swarmp2p.ray_bridge.cells import cell_problem
from swarmp2p.ray_bridge.events import Need, Offer
from swarmp2p.ray_bridge.jailer import Jailer, open_jailer
from swarmp2p.ray_bridge.jails import jail_problem
from swarmp2p.ray_bridge.pool import Sizes
from swarmp2p.ray_bridge.processes import descendants, look, send_signal
from swarmp2p.ready import Stock, stock_sizes
from swarmp2p.scopes import background_nursery, start

from .ray_bridge.process_marks import all_gone, family, plasma_files, until

PROBLEM = trio.run(cell_problem) or jail_problem()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))]


def test_a_small_machine_keeps_one_ready_and_a_large_one_no_more_than_it_lends() -> None:
    assert stock_sizes(1, 8, 1 << 30) == Sizes(1, 1, 8)
    assert stock_sizes(1, 8, 16 << 30) == Sizes(1, 5, 8)
    assert stock_sizes(1, 3, 1 << 40) == Sizes(1, 3, 3)
    assert stock_sizes(1, 64, 1 << 40) == Sizes(1, 8, 64)
    assert stock_sizes(0, 8, 1 << 40) == Sizes(0, 0, 0)


@asynccontextmanager
async def open_stock(jailer: Jailer | None = None, direct: bool = False) -> AsyncGenerator[Stock, None]:
    with trio.fail_after(100):
        async with background_nursery() as nursery:
            stock = Stock(jailer, direct, Sizes(1, 1, 1), rest_s=0)
            await start(nursery, stock.run)
            await stock.until_ready()
            yield stock


def left() -> tuple[int, int, int]:
    """What there is of this process's: descriptors, processes and private directories."""
    return (
        len(os.listdir("/proc/self/fd")),
        len(descendants(os.getpid())),
        len(os.listdir(tempfile.gettempdir())),
    )


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Generator[None, None, None]:
    """A folder for temporary files that nobody else uses, with a path as short as Ray's sockets want it."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


async def test_what_is_taken_ends_whole_and_another_is_made() -> None:
    jailer = await open_jailer(Offer(cpus=2, max_leases=2))
    assert jailer is not None
    async with open_stock(jailer) as stock:
        async with stock.take(Need(), celled=True) as ready:
            assert ready.cell is not None
            assert ready.plane is not None
            assert ready.warm is not None
            assert ready.warm.jail is not None
            everyone, mark = family(ready.warm.tree.pid), ready.warm.tree.mark
            cell, plane, directory = ready.cell.pid, ready.plane.pid, ready.warm.directory
            assert len(everyone) >= 4  # supervisor, bubblewrap and its child, zygote
            networks = {os.readlink(f"/proc/{pid}/ns/net") for pid in (cell, everyone[-1].pid)}
            assert len(networks) == 1
            assert networks != {os.readlink("/proc/self/ns/net")}
            async with stock.take(Need(), celled=True) as other:
                assert other.warm is not ready.warm
                assert other.cell is not None
                assert other.cell.pid != cell
        await all_gone(mark, everyone)
        assert look(cell) is None
        assert look(plane) is None
        assert not directory.exists()
        await stock.until_ready()
        async with stock.take(Need(cpus=2), celled=True) as large:
            assert large.cell is not None
            assert large.warm is None, "a spare jail has an even part of what is lent"
        assert stock.ready == 1


async def test_what_is_ready_and_dies_is_replaced() -> None:
    async with open_stock() as stock:
        before = descendants(os.getpid())
        [cell] = [
            each
            for each in before
            if "cell.py" in _command(each.pid) and "supervisor" not in _command(each.pid)
        ]
        send_signal(cell, signal.SIGKILL)
        await until(lambda: stock.ready == 0)
        await until(lambda: not [each for each in before if look(each.pid) is not None])
        await stock.until_ready()


async def test_taken_and_given_up_again_and_again_nothing_is_left(temporary: None) -> None:
    """The same with leases and tasks, a hundred times: benchmarks.bridge, cycles."""
    async with open_stock() as stock:
        first, shared = left(), plasma_files()
        for _ in range(3):
            async with stock.take(Need(), celled=True) as ready:
                assert ready.warm is not None
            await stock.until_ready()
        await until(lambda: left() == first and plasma_files() <= shared)
    await until(lambda: not descendants(os.getpid()))
    assert os.listdir(tempfile.gettempdir()) == []
