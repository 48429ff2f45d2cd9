"""A peer of the DHT that answers every question with what a test wants."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import trio
from multiaddr.multiaddr import Multiaddr

from swarmp2p.dht.wire import DEFAULT_PROTOCOL_ID
from swarmp2p.errors import SwarmError
from swarmp2p.queries import with_peer
from swarmp2p.scopes import start
from swarmp2p.transport.framing import encode_frame
from swarmp2p.transport.muxer import MuxedStream
from swarmp2p.wire import Framing
from tests.transport.rawpeer import RawServer


@asynccontextmanager
async def lying_dht_peer(answer: Callable[[], bytes]) -> AsyncGenerator[Multiaddr, None]:
    """Its address. answer: the frame body that every request gets."""

    async def lie(stream: MuxedStream) -> None:
        try:
            while True:
                await server.frame(stream, Framing.UVARINT)
                stream.push(encode_frame(answer(), Framing.UVARINT))
        except (SwarmError, trio.BrokenResourceError, trio.TooSlowError):
            stream.reset()

    async def serve() -> None:
        while True:
            nursery.start_soon(lie, await server.stream())

    server = RawServer("mallory", DEFAULT_PROTOCOL_ID)
    async with trio.open_nursery() as nursery:
        await start(nursery, server.run)
        nursery.start_soon(serve)
        yield with_peer(server.addresses[0], server.peer)
        nursery.cancel_scope.cancel()
