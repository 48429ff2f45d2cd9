"""A network with somebody who listens to it: what conformance tests drive."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import trio

from swarmp2p.engine import (
    Certified,
    Congested,
    Located,
    Message,
    NetworkEvent,
    PeerDown,
    PeerUp,
    Reachable,
    Received,
    Speaks,
    Undeliverable,
)
from swarmp2p.identity import Identity, PeerId
from swarmp2p.scopes import TaskStatus, start
from swarmp2p.transport.network import PeerNetwork

PATIENCE_S = 30.0
Event = TypeVar("Event", PeerUp, PeerDown, Received, Undeliverable, Speaks, Certified, Congested, Located)


def named(name: str) -> Identity:
    """The same name gives the same key."""
    return Identity(name.encode().ljust(32, b"."))


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for something that no event tells of."""
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.001)


class Station:
    """One peer. events: everything delivered and not yet taken. reachable: what was told of that."""

    def __init__(self, identity: Identity, network: PeerNetwork) -> None:
        self.identity, self.network = identity, network
        self.events: deque[NetworkEvent] = deque()
        self.reachable: list[bool] = []
        self.on_message: Callable[[PeerId, Message], None] | None = None
        self.on_down: Callable[[PeerId], None] | None = None
        self._news = trio.Event()
        self._scope = trio.move_on_after(math.inf)
        self._stopped = trio.Event()

    @property
    def peer(self) -> PeerId:
        return self.network.peer_id

    def knows(self, *others: Station) -> None:
        """Introduce others to this peer."""
        for other in others:
            self.network.introduce(other.peer, other.network.addresses)

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        with self._scope:
            await self.network.run(self._deliver, task_status=task_status)
        self._stopped.set()

    async def stop(self) -> None:
        """End the peer, as a crash would, and wait until it is gone."""
        self._scope.cancel()
        with trio.fail_after(PATIENCE_S):
            await self._stopped.wait()

    def _deliver(self, event: NetworkEvent) -> None:
        if isinstance(event, Reachable):
            self.reachable.append(event.reachable)
            return
        if isinstance(event, Received) and self.on_message is not None:
            self.on_message(event.sender, event.message)
        if isinstance(event, PeerDown) and self.on_down is not None:
            self.on_down(event.peer)
        self.events.append(event)
        self._news.set()

    async def next(self, kind: type[Event], peer: PeerId | None = None) -> Event:
        """The next event of a kind; those before it of other kinds stay."""
        with trio.fail_after(PATIENCE_S):
            while True:
                for event in self.events:
                    if isinstance(event, kind) and peer in (
                        None,
                        event.sender if isinstance(event, Received) else event.peer,
                    ):
                        self.events.remove(event)
                        return event
                self._news = trio.Event()
                await self._news.wait()

    async def message(self) -> Message:
        """The next message."""
        return (await self.next(Received)).message

    async def settled(self, condition: Callable[[], bool]) -> None:
        """Wait until something delivered makes the condition true."""
        with trio.fail_after(PATIENCE_S):
            while not condition():
                self._news = trio.Event()
                await self._news.wait()


class World(ABC):
    """Makes peers that can reach each other."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery

    @abstractmethod
    def network(self, identity: Identity) -> PeerNetwork:
        """A network that does not run yet."""

    async def station(self, name: str, network: PeerNetwork | None = None) -> Station:
        """Start a peer; the same name gives the same key."""
        identity = named(name)
        station = Station(identity, network or self.network(identity))
        await start(self.nursery, station.run)
        return station

    async def pair(self) -> tuple[Station, Station]:
        """Two peers that know each other's addresses and are not connected."""
        alice, bob = await self.station("alice"), await self.station("bob")
        alice.knows(bob)
        bob.knows(alice)
        return alice, bob
