"""What an allowed borrower can do to a lender: have as many workers as were offered, and no more at any time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from swarmp2p.ray_bridge import lender as lender_module
from swarmp2p.ray_bridge.events import (
    JoinSecret,
    LeaseCommand,
    Need,
    Offer,
    StartWorker,
    StopWorker,
    WorkerFailed,
)
from swarmp2p.ray_bridge.lender import Lender
from swarmp2p.scopes import cancel_scope, start
from tests.ray_bridge.keys import lease_id, peer


class _Worker:
    async def died(self) -> str:
        await trio.sleep_forever()
        raise AssertionError


class _Machine:
    """Workers that take as long to stop as the test says. most: that there were at the same time."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self.stopping = trio.Event()

    @asynccontextmanager
    async def start_worker(self, *_: object, **__: object) -> AsyncGenerator[_Worker, None]:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            yield _Worker()
        finally:
            with cancel_scope(shield=True):
                await self.stopping.wait()
            self.running -= 1


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> _Machine:
    machine = _Machine()
    monkeypatch.setattr(lender_module, "start_worker", machine.start_worker)
    return machine


def order(number: int) -> StartWorker:
    return StartWorker(lease_id(number), peer(1), JoinSecret("127.0.0.1:6379", "token"), Need())


async def test_workers_that_are_taken_and_returned_at_once_do_not_pile_up(machine: _Machine) -> None:
    posted: list[LeaseCommand] = []
    lender = Lender(Offer(max_leases=2), "lender", None, posted.append)
    async with trio.open_nursery() as nursery:
        await start(nursery, lender.run)
        for number in range(20):
            lender.handle(order(number))
            await trio.testing.wait_all_tasks_blocked()
            lender.handle(StopWorker(lease_id(number), "returned"))
            await trio.testing.wait_all_tasks_blocked()
        machine.stopping.set()
        await lender.idle()
        nursery.cancel_scope.cancel()
    assert machine.most == 2
    assert machine.running == 0
    assert len([command for command in posted if isinstance(command, WorkerFailed)]) == 20


async def test_a_lease_id_that_comes_again_while_its_worker_stops_harms_nobody(machine: _Machine) -> None:
    """The engine remembers 1,024 finished leases; a borrower can push one out of its memory within a second."""
    lender = Lender(Offer(max_leases=2), "lender", None, lambda command: None)
    async with trio.open_nursery() as nursery:
        await start(nursery, lender.run)
        for _ in range(3):
            lender.handle(order(1))
            await trio.testing.wait_all_tasks_blocked()
            lender.handle(StopWorker(lease_id(1), "returned"))
        machine.stopping.set()
        await lender.idle()
        assert machine.running == 0
        nursery.cancel_scope.cancel()
