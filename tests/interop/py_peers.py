"""py-libp2p's KadDHT as the other party of a test, and how to wait for what others do in the background."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio
from libp2p.abc import IHost
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from multiaddr.multiaddr import Multiaddr

from benchmarks.libp2p_hosts import libp2p_host, where
from swarmp2p.identity import PeerId

IPFS: Final = "/ipfs/kad/1.0.0"
PATIENCE_S: Final = 60.0
_POLL_S: Final = 0.02


@dataclass
class PyPeer:
    """One py-libp2p node."""

    host: IHost
    dht: KadDHT

    @property
    def id(self) -> PeerId:
        return PeerId.from_bytes(self.host.get_id().to_bytes())

    @property
    def address(self) -> str:
        return str(self.host.get_addrs()[0])

    def provides(self, key: bytes, provider: PeerId) -> bool:
        """Whether this node holds a provider's record."""
        return provider in {one.peer_id.to_bytes() for one in self.dht.provider_store.get_providers(key)}

    async def find(self, key: bytes) -> set[PeerId]:
        """The providers of a key."""
        found = await self.dht.find_providers(key.hex())
        return {PeerId.from_bytes(one.peer_id.to_bytes()) for one in found}

    async def join(self, address: object) -> None:
        """Dial another node, at an address that ends in /p2p/<id>, and look oneself up through it."""
        info = where(Multiaddr(str(address)))
        await self.host.connect(info)
        await self.dht.add_peer(info.peer_id)
        await self.dht.peer_routing.find_closest_peers_network(self.host.get_id().to_bytes())


@asynccontextmanager
async def py_peer() -> AsyncGenerator[PyPeer, None]:
    """A node that listens on loopback and serves the DHT while the context is open."""
    async with libp2p_host() as host:
        yield PyPeer(host, KadDHT(host, DHTMode.SERVER))


async def until(condition: Callable[[], bool | Awaitable[object]]) -> None:
    """Wait for something that another implementation does in the background and tells nobody of."""
    with trio.fail_after(PATIENCE_S):
        while True:
            outcome = condition()
            if outcome if isinstance(outcome, bool) else await outcome:
                return
            await trio.sleep(_POLL_S)
