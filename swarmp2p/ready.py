"""What a lender has ready before there is a lease: cells, planes and zygotes; and how they are made when none is ready.

A worker on a path of its own needs a cell, the network that it lives in; a plane, which moves that network's traffic;
and, in the cell, a zygote, from which its Ray node is forked, jailed if it is to be. All of that is the same for every
borrower. What is the lease's own comes last: the plane's member and doors, the head's address and token.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import trio

from .ray_bridge.cells import Cell, open_cell
from .ray_bridge.environment import lender_environment
from .ray_bridge.events import Need
from .ray_bridge.jailer import Jailer
from .ray_bridge.pool import REST_S, Pool, Sizes
from .ray_bridge.warm import WarmNode, open_warm
from .scopes import TaskStatus
from .transport.overlay.plane import Ended, Plane, PlaneEvent, open_plane

WARM: Final = 1
"""Workers that a lender keeps ready at least."""

READY_BYTES: Final = 100 << 20
"""Memory of a worker that is kept ready."""

_MOST: Final = 8
_PART: Final = 32  # of this machine's memory goes to those that are ready, beyond the first


@dataclass(slots=True)
class Ready:
    """What a worker is started with; made by `Stock`. cell, plane: both or none. warm: None to start it cold."""

    cell: Cell | None = None
    plane: Plane | None = None
    warm: WarmNode | None = None
    _broken: trio.Event = field(default_factory=trio.Event)
    _reason: str = ""

    async def died(self) -> str:
        """Until a part of it has ended by itself, before it was used. Returns why."""
        async with trio.open_nursery() as nursery:
            if self.cell is not None:
                nursery.start_soon(self._watch, self.cell)
            if self.warm is not None:
                nursery.start_soon(self._watch, self.warm.tree)
            await self._broken.wait()
            nursery.cancel_scope.cancel()
        return self._reason

    def hear(self, event: PlaneEvent) -> None:
        """What the plane says before it has a member."""
        if isinstance(event, Ended):
            self._break(event.reason)

    async def _watch(self, part: Cell | WarmNode) -> None:
        self._break(await part.died())

    def _break(self, reason: str) -> None:
        self._reason = reason
        self._broken.set()


class Stock:
    """What one lender has ready; `run` owns it."""

    def __init__(self, jailer: Jailer | None, direct: bool, sizes: Sizes, rest_s: float = REST_S) -> None:
        """jailer: whoever makes jails; None lends without. direct: whether the lender allows direct paths, whose
        workers have no cell. rest_s: see Pool."""
        self._jailer = jailer
        # by whether it has a cell and a plane
        self._pool = Pool[bool, Ready](sizes, self._warm, not direct, rest_s)

    @property
    def ready(self) -> int:
        """How many wait."""
        return self._pool.ready

    async def until_ready(self, count: int = 1) -> None:
        """Wait until so many wait."""
        await self._pool.until_ready(count)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep it filled until cancelled; all of it is ended before this returns."""
        await self._pool.run(task_status=task_status)

    @asynccontextmanager
    async def take(self, need: Need, *, celled: bool) -> AsyncGenerator[Ready, None]:
        """What a worker is started with, for the length of the context. Raises NoCell and PlaneRefused."""
        async with AsyncExitStack() as stack:
            ready = None
            if self._jailer is None or self._jailer.fits(need):
                ready = await stack.enter_async_context(self._pool.take(celled))
            if ready is None:
                ready = await stack.enter_async_context(open_ready(celled))
            yield ready

    @asynccontextmanager
    async def _warm(self, celled: bool) -> AsyncGenerator[Ready, None]:
        jail = None if self._jailer is None else await trio.to_thread.run_sync(self._jailer.spare)
        async with open_ready(celled) as ready:
            enter = () if ready.cell is None else ready.cell.namespaces
            async with open_warm(lender_environment(), enter=enter, jail=jail) as ready.warm:
                yield ready


def stock_sizes(least: int, leases: int, machine_bytes: int) -> Sizes:
    """How much a lender of so many leases keeps ready: more than the least after several were leased at a time, as far
    as a small part of the machine's memory goes. least: 0 for never any."""
    if least == 0:
        return Sizes(0, 0, 0)
    most = max(least, min(leases, _MOST, machine_bytes // _PART // READY_BYTES))
    return Sizes(least, most, total=max(leases, most))


@asynccontextmanager
async def open_ready(celled: bool) -> AsyncGenerator[Ready, None]:
    """What a worker needs, without a zygote."""
    ready = Ready()
    async with AsyncExitStack() as stack:
        if celled:
            ready.cell = await stack.enter_async_context(open_cell())
            ready.plane = await stack.enter_async_context(
                open_plane(b"", listen=(), cell=ready.cell.sockets, on_event=ready.hear)
            )
        yield ready
