"""A peer's run: the driver, the way into the swarm, and the way out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio

from .dht.events import Join, Restore, SaveState, SetAddresses, StateChanged
from .driver import Driver
from .engine import Address, PeerInfo
from .errors import DialError
from .joining import Joining, Targets
from .lease_journal import LeaseJournal
from .node import NodeCommand, NodeEngine, NodeOutput
from .queries import Queries
from .scopes import TaskStatus, background_nursery, cancel_scope, start
from .storage.storage import Storage
from .transport.network import PeerNetwork

_LAST_WORDS_S: Final = 0.05  # for what was posted on the way out (ends of leases) to leave


class Running:
    """Runs one peer, once. output: gets what the engine puts out. close: called when all is over."""

    def __init__(
        self,
        engine: NodeEngine,
        network: PeerNetwork,
        driver: Driver[NodeCommand, NodeOutput],
        queries: Queries,
        storage: Storage | None,
        leases: LeaseJournal,
        output: Callable[[NodeOutput], None],
        close: Callable[[], None],
    ) -> None:
        self._engine, self._network, self._driver = engine, network, driver
        self._queries, self._storage, self._leases = queries, storage, leases
        self._output, self._close = output, close

    @asynccontextmanager
    async def running(self, targets: Targets, mdns: bool) -> AsyncGenerator[None, None]:
        """Run the peer while the context is open.

        Cancelling the body does not stop the peer before the body has come to its end: leases are ended and
        announcements withdrawn on the way out, and somebody has to carry that.
        """
        self._driver.on_output = self._output
        scope = cancel_scope()

        async def drive(*, task_status: TaskStatus[None]) -> None:
            with scope:
                await self._driver.run(task_status=task_status)

        try:
            async with background_nursery() as nursery:
                if self._storage is not None:
                    self._driver.post(Restore(self._storage.entries))
                self._leases.restore()
                await start(nursery, drive)
                scope.shield = True
                try:
                    async with background_nursery() as dials:
                        await self._join(targets, dials)
                        dials.start_soon(self._leases.run)
                        if mdns:
                            await start(dials, self._join_local_peers)
                        yield
                finally:
                    with cancel_scope(shield=True):
                        await trio.sleep(_LAST_WORDS_S)
                    scope.cancel()
                    for output in self._engine.handle(SaveState(), self._driver.now()):
                        if isinstance(output, StateChanged):
                            self._output(output)
        finally:
            self._close()

    async def _join(self, targets: Targets, nursery: trio.Nursery) -> None:
        known = tuple(self._network.addresses)
        self._driver.post(SetAddresses(known))
        nursery.start_soon(self._follow_addresses, known)
        await Joining(targets, self._network.dial_peer, self._queries.run, nursery).join()

    async def _follow_addresses(self, known: tuple[Address, ...]) -> None:
        """Tell the engine when others can dial this peer elsewhere."""
        while True:
            known = await self._network.addresses_other_than(known)
            self._driver.post(SetAddresses(known))

    async def _join_local_peers(self, *, task_status: TaskStatus[None]) -> None:
        """Join through whomever multicast DNS finds, one after the other."""
        from .transport.mdns import local_peers  # zeroconf, only for those who want it

        async with local_peers(self._network.peer_id, self._network.addresses) as found:
            task_status.started()
            async for info in found:
                if info.peer in self._engine.dht.table:
                    continue
                try:
                    await self._network.dial_peer(info.peer, info.addresses)
                except DialError:
                    continue  # said by whoever is in the local network
                await self._queries.run(partial(_join_through, info))


def _join_through(info: PeerInfo, query: int) -> Join:
    return Join(query, (info,))
