"""What leases leave in a lender's and a borrower's memory once they are over: nothing, not even for Python's collector.

Garbage in cycles stays until the collector looks at everything there is, which in a peer is after some thirty thousand
further objects; a hundred leases made as much, and the lender's memory had grown by 9 MB until then.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from swarmp2p.scopes import background_nursery
from swarmp2p.transport.mesh.members import MemberId
from swarmp2p.transport.overlay.plane import CarrierUp, PlaneEvent
from tests.test_market import Ray
from tests.test_market import ray as ray
from tests.test_peer import Swarm

_LEASES = 3
_OURS = (
    *("swarmp2p.lender_paths", "swarmp2p.lending", "swarmp2p.paths", "swarmp2p.ray_bridge", "swarmp2p.ready"),
    *("swarmp2p.transport.mesh", "swarmp2p.transport.overlay"),
)
"""Modules of which a lease has objects."""


class Part:
    """A cell, or a zygote: it lives until it is ended, and everybody may wait for its end."""

    namespaces = (0, 0)
    sockets = None
    jail = None

    @property
    def tree(self) -> Part:
        """The zygote's processes, whose end is its own."""
        return self

    async def died(self) -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()
        raise AssertionError


class MadeUpPlane:
    """It has a connection with everybody with whom it is to have a session."""

    endpoints = ()

    def __init__(self, on_event: Callable[[PlaneEvent], None]) -> None:
        self.on_event = on_event

    async def belong(
        self, member: bytes, listen: Sequence[str], on_event: Callable[[PlaneEvent], None]
    ) -> None:
        self.on_event = on_event

    async def session(self, target: MemberId, *arguments: object) -> None:
        self.on_event(CarrierUp(target, "tcp"))

    async def obey(self, *arguments: object) -> None:
        pass

    serve = unserve = listen = unlisten = aim = drop = obey


@asynccontextmanager
async def open_part(*arguments: object, **settings: object) -> AsyncGenerator[Part, None]:
    yield Part()


@asynccontextmanager
async def open_plane(
    member: bytes, *, on_event: Callable[[PlaneEvent], None], **settings: object
) -> AsyncGenerator[MadeUpPlane, None]:
    async with background_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        yield MadeUpPlane(on_event)


@pytest.fixture
def overlay(ray: Ray, monkeypatch: pytest.MonkeyPatch) -> Ray:
    """Workers on the overlay, started by zygotes that are ready, without a process."""
    monkeypatch.setattr("swarmp2p.lending.WARM", 1)
    monkeypatch.setattr("swarmp2p.ready.open_cell", open_part)
    monkeypatch.setattr("swarmp2p.ready.open_warm", open_part)
    monkeypatch.setattr("swarmp2p.ready.open_plane", open_plane)
    monkeypatch.setattr("swarmp2p.head_paths.open_plane", open_plane)
    return ray


@pytest.fixture
def collector_off() -> Generator[None, None, None]:
    gc.disable()
    yield
    gc.enable()


def held() -> Counter[type]:
    """Objects of leases that are alive, by their class."""
    kinds = Counter(type(each) for each in gc.get_objects())
    return Counter({kind: count for kind, count in kinds.items() if str(kind.__module__).startswith(_OURS)})


async def test_leases_that_are_over_leave_nothing(
    autojump_clock: MockClock, overlay: Ray, collector_off: None
) -> None:
    """The same with Ray and real processes, a hundred times: benchmarks.bridge, cycles."""
    async with (
        Swarm().of(2) as (borrower, lender),
        lender.lend(allow=None, paths=["overlay"]) as lending,
    ):

        async def lease() -> None:
            await lending.until_ready()
            async with borrower.borrow(paths=["overlay"]) as cluster:
                (worker,) = cluster.workers
                assert worker.path == "overlay"
            await trio.sleep(10)  # farewells are said
            overlay.secrets.clear()

        await lease()
        gc.collect()
        before = held()
        for _ in range(_LEASES):
            await lease()
        found = gc.collect()
        more = held() - before
    assert found < 10 * _LEASES, "objects that only the collector can free: 850 a lease once"
    assert all(count < _LEASES for count in more.values()), more
