"""py-libp2p hosts as good as their settings make them: what benchmarks and interop tests compare with."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, cast

from libp2p import new_host
from libp2p.abc import IHost, IRawConnection
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.network.config import ConnectionConfig
from libp2p.network.swarm import Swarm
from libp2p.peer.peerinfo import PeerInfo, info_from_p2p_addr
from libp2p.transport.tcp.tcp import TCP
from multiaddr.multiaddr import Multiaddr

LOOPBACK: Final = Multiaddr("/ip4/127.0.0.1/tcp/0")


def _connections() -> ConnectionConfig:
    """Nobody is dialled for the sake of numbers."""
    return ConnectionConfig(min_connections=0, low_watermark=0, auto_connect_interval=1e9)


class _Tcp(TCP):
    """Remembers what it dialled: a host that closes leaves those sockets to the garbage collector."""

    def __init__(self) -> None:
        super().__init__()
        self.dialled: list[IRawConnection] = []

    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        connection = await super().dial(maddr)
        self.dialled.append(connection)
        return connection


@asynccontextmanager
async def libp2p_host(seed: bytes | None = None) -> AsyncGenerator[IHost, None]:
    """A host that listens on loopback while the context is open. seed: 32 bytes of its key; random by default.

    Its log is switched off: it warns of each stream that is closed, which costs time.
    """
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)
    key = None if seed is None else create_new_key_pair(seed)
    tcp = _Tcp()
    host = new_host(key_pair=key, connection_config=_connections(), transports=[tcp])
    try:
        async with host.run(listen_addrs=[LOOPBACK]):
            # It would dial a small swarm towards a full mesh, whenever a connection closes: half of the most that
            # there may be is what it aims at, whatever the least is.
            await cast(Swarm, host.get_network()).auto_connector.stop()
            yield host
    finally:
        for connection in tcp.dialled:
            await connection.close()


def where(target: IHost | Multiaddr) -> PeerInfo:
    """Where a host, or the peer at a multiaddr that ends in /p2p/<id>, can be dialled."""
    return info_from_p2p_addr(target if isinstance(target, Multiaddr) else target.get_addrs()[0])
