"""py-libp2p hosts as good as their settings make them: what benchmarks and interop tests compare with."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from libp2p import new_host
from libp2p.abc import IHost
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.network.config import ConnectionConfig
from libp2p.peer.peerinfo import PeerInfo, info_from_p2p_addr
from multiaddr.multiaddr import Multiaddr

LOOPBACK: Final = Multiaddr("/ip4/127.0.0.1/tcp/0")


def _connections() -> ConnectionConfig:
    """Its auto-connector would dial a small swarm towards a full mesh, at any time."""
    return ConnectionConfig(min_connections=0, low_watermark=0, auto_connect_interval=1e9)


@asynccontextmanager
async def libp2p_host(seed: bytes | None = None) -> AsyncGenerator[IHost, None]:
    """A host that listens on loopback while the context is open. seed: 32 bytes of its key; random by default.

    Its log is switched off: it warns of each stream that is closed, which costs time.
    """
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)
    key = None if seed is None else create_new_key_pair(seed)
    host = new_host(key_pair=key, connection_config=_connections())
    async with host.run(listen_addrs=[LOOPBACK]):
        yield host


def where(host: IHost) -> PeerInfo:
    """Where a host can be dialled."""
    return info_from_p2p_addr(host.get_addrs()[0])
