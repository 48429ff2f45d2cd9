"""The two DHTs that benchmarks/dht.py compares, behind one interface: a swarm of nodes in one process, over real
libp2p connections on loopback."""

from __future__ import annotations

import hashlib
import resource
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Final

from libp2p.abc import IHost
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT

from swarmp2p.errors import LookupFailed
from swarmp2p.identity import Identity
from swarmp2p.opening import DEFAULT_LISTEN, node_protocols, open_peer
from swarmp2p.peer import Peer
from swarmp2p.transport.config import HostConfig
from swarmp2p.transport.host import Host

from .libp2p_hosts import libp2p_host, where
from .report import memory_mb, say

HOLDERS: Final = 20
"""Peers that hold each record: k of the kad-dht spec, and what both sides are set to."""


_SHARE_OF_DESCRIPTORS: Final = 0.7


class Node(ABC):
    """One node of a DHT."""

    id: bytes

    @abstractmethod
    async def provide(self, key: bytes) -> bool:
        """Store a provider record; whether anybody took it."""

    @abstractmethod
    async def find_first(self, key: bytes) -> bytes | None:
        """The id of the provider that is known first, or None."""

    @abstractmethod
    async def holders(self, key: bytes) -> set[bytes]:
        """Ids of those who may hold a record that this node stored: no finder is chosen among them."""

    @abstractmethod
    async def refresh(self) -> None:
        """Refresh the routing table."""


class Ours(Node):
    """A peer of this library."""

    def __init__(self, peer: Peer, ids: Sequence[bytes]) -> None:
        """ids: of all nodes."""
        self.id, self._peer, self._ids = bytes(peer.id), peer, ids

    async def provide(self, key: bytes) -> bool:
        try:
            return await self._peer.dht.provide(key) > 0
        except LookupFailed:
            return False

    async def find_first(self, key: bytes) -> bytes | None:
        async with self._peer.dht.find_providers(key, limit=1) as found:
            async for provider in found:
                return bytes(provider.id)
        return None

    async def holders(self, key: bytes) -> set[bytes]:
        """Those where the record belongs, and those where the provider believes that it belongs."""
        target = hashlib.sha256(key).digest()
        others = [one for one in self._ids if one != self.id]
        nearest = sorted(others, key=lambda one: _distance(hashlib.sha256(one).digest(), target))[:HOLDERS]
        believed = await self._peer.dht.closest(key)
        return {self.id, *nearest, *(bytes(one.id) for one in believed)}

    async def refresh(self) -> None:
        await self._peer.dht.refresh()


class Theirs(Node):
    """py-libp2p's KadDHT. Its service does not run: that only refreshes and republishes every ten minutes."""

    def __init__(self, host: IHost, everybody: Sequence[Theirs]) -> None:
        self.id = host.get_id().to_bytes()
        self.host, self.dht, self._everybody = host, KadDHT(host, DHTMode.SERVER), everybody

    async def join(self, first: IHost) -> None:
        """Connect to the first node and look oneself up."""
        await self.host.connect(where(first))
        await self.dht.add_peer(first.get_id())
        await self.look_itself_up()

    async def look_itself_up(self) -> None:
        """The part of a refresh that makes a node known to its neighbours."""
        await self.dht.peer_routing.find_closest_peers_network(self.id)

    async def provide(self, key: bytes) -> bool:
        return await self.dht.provider_store.provide(key)

    async def find_first(self, key: bytes) -> bytes | None:
        found = await self.dht.provider_store.find_providers(key, count=1)
        # It keeps what it found as a record of its own; the next find is to ask the network again.
        self.dht.provider_store.providers.pop(key, None)
        return found[0].peer_id.to_bytes() if found else None

    async def holders(self, key: bytes) -> set[bytes]:
        return {one.id for one in self._everybody if one.dht.provider_store.get_providers(key)}

    async def refresh(self) -> None:
        await self.dht.refresh_routing_table()


class Swarm:
    """Nodes that have joined. host_mb: memory that each further node took."""

    def __init__(self, nodes: Sequence[Node], host_mb: float) -> None:
        self.nodes, self.host_mb = nodes, host_mb


def _peer_of_many(count: int, first: Peer | None = None) -> AbstractAsyncContextManager[Peer]:
    """One of `count` peers that share this process's file descriptors: where they would not suffice for the usual
    192 connections each, a peer closes its least useful ones earlier. (Each end of a connection takes one.)"""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    usual = HostConfig()
    high = min(usual.high_connections, int(_SHARE_OF_DESCRIPTORS * limit / count))
    config = replace(usual, high_connections=high, low_connections=high * 5 // 6, grace_s=5.0)
    identity = Identity.generate()
    host = Host(identity, DEFAULT_LISTEN, node_protocols(), config)
    bootstrap = () if first is None else first.addresses
    return open_peer(identity=identity, network=host, bootstrap=bootstrap)


@asynccontextmanager
async def our_swarm(count: int) -> AsyncGenerator[Swarm, None]:
    """Peers of this library, all of which know only the first."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(_peer_of_many(count))
        before_mb = memory_mb()
        peers = [first]
        for _ in range(count - 1):
            peers.append(await stack.enter_async_context(_peer_of_many(count, first)))
            if len(peers) % 32 == 0:
                say(f"{len(peers)} of {count} peers joined")
        say(
            f"{count} peers joined, with {sum(len(peer.dht.table) for peer in peers) / count:.0f} in each table"
        )
        ids = [bytes(peer.id) for peer in peers]
        yield Swarm([Ours(peer, ids) for peer in peers], (memory_mb() - before_mb) / (count - 1))


@asynccontextmanager
async def their_swarm(count: int) -> AsyncGenerator[Swarm, None]:
    """py-libp2p hosts; those who joined early look themselves up again, since they met few others then."""
    async with AsyncExitStack() as stack:
        nodes: list[Theirs] = []
        first = await stack.enter_async_context(libp2p_host())
        nodes.append(Theirs(first, nodes))
        before_mb = memory_mb()
        for number in range(1, count):
            nodes.append(Theirs(await stack.enter_async_context(libp2p_host()), nodes))
            await nodes[-1].join(first)
            if number % 8 == 0:
                say(f"{number + 1} of {count} py-libp2p hosts joined")
        for node in nodes:
            await node.look_itself_up()
        say(f"{count} py-libp2p hosts joined and looked themselves up again")
        yield Swarm(nodes, (memory_mb() - before_mb) / (count - 1))


def _distance(one: bytes, other: bytes) -> int:
    return int.from_bytes(one, "big") ^ int.from_bytes(other, "big")
