"""Streams keep trio's rules for streams, over libp2p's muxer and in memory; and much data passes a slow wire."""

from __future__ import annotations

import math
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
import trio.testing

from swarmp2p.identity import PeerId
from swarmp2p.transport.memory_streams import stream_pair
from swarmp2p.transport.muxer import MuxedConnection, MuxedStream
from swarmp2p.transport.network import PeerStream
from swarmp2p.transport.secure import SecureChannel
from swarmp2p.transport.streams import Libp2pStream
from swarmp2p.transport.tcp import TcpPipe
from tests.transport.station import PATIENCE_S, named

ALICE, BOB = named("alice").peer_id, named("bob").peer_id


class PlainChannel:
    """A SecureChannel without its cipher."""

    def __init__(self, pipe: TcpPipe, peer: PeerId) -> None:
        self.pipe, self.peer = pipe, peer
        self.push, self.unread, self.read = pipe.push, pipe.unread, pipe.receive

    @property
    def unsent(self) -> int:
        return self.pipe.unsent


class Wire:
    """Two connected muxers, over sockets with small buffers."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname())
            accepted, _ = server.accept()
        self._accepted: trio.MemoryReceiveChannel[MuxedStream]
        send, self._accepted = trio.open_memory_channel[MuxedStream](math.inf)
        self.here = self._connection(client, BOB, True, lambda stream: None)
        self.there = self._connection(accepted, ALICE, False, send.send_nowait)

    def _connection(
        self, sock: socket.socket, peer: PeerId, is_client: bool, on_stream: Callable[[MuxedStream], None]
    ) -> MuxedConnection:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        channel = cast(SecureChannel, PlainChannel(TcpPipe(sock, is_client), peer))
        return MuxedConnection(channel, is_client, 64, on_stream, self._nursery)

    async def accepted(self) -> MuxedStream:
        return await self._accepted.receive()

    async def pair(self) -> tuple[Libp2pStream, Libp2pStream]:
        ours = self.here.open()
        ours.push(b"?")
        theirs = await self._accepted.receive()
        assert await theirs.read() == b"?"
        return Libp2pStream(ours), Libp2pStream(theirs)


@asynccontextmanager
async def running_wire() -> AsyncGenerator[Wire, None]:
    async with trio.open_nursery() as nursery:
        wire = Wire(nursery)
        nursery.start_soon(wire.here.run)
        nursery.start_soon(wire.there.run)
        yield wire
        nursery.cancel_scope.cancel()


Maker = Callable[[], Awaitable[tuple[PeerStream, PeerStream]]]


async def clogged(pair: tuple[PeerStream, PeerStream]) -> tuple[PeerStream, PeerStream]:
    """Write until nothing more is taken."""

    async def write(stream: PeerStream) -> None:
        while True:
            await stream.send_all(bytes(65_536))

    async with trio.open_nursery() as nursery:
        for stream in pair:
            nursery.start_soon(write, stream)
        await trio.testing.wait_all_tasks_blocked(0.02)
        nursery.cancel_scope.cancel()
    return pair


async def check(maker: Maker) -> None:
    async def clogged_maker() -> tuple[PeerStream, PeerStream]:
        return await clogged(await maker())

    await trio.testing.check_half_closeable_stream(cast(Any, maker), cast(Any, clogged_maker))


async def test_memory_streams_keep_trios_rules() -> None:
    async def maker() -> tuple[PeerStream, PeerStream]:
        return stream_pair(ALICE, BOB, "/mine/1.0.0")

    await check(maker)


async def test_libp2p_streams_keep_trios_rules() -> None:
    async with running_wire() as wire:
        await check(wire.pair)


async def test_much_data_on_many_streams_passes_a_narrow_wire() -> None:
    sizes = [0, 1, 100_000, 700_000, 300_000]
    async with running_wire() as wire:
        pairs = [await wire.pair() for _ in sizes]
        received: dict[int, bytes] = {}

        async def write(stream: PeerStream, number: int) -> None:
            await stream.send_all(bytes([number % 256]) * sizes[number % 100])
            await stream.send_eof()

        async def read(stream: PeerStream, number: int) -> None:
            data = bytearray()
            async for chunk in stream:
                data += chunk
            received[number] = bytes(data)

        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for number, (ours, theirs) in enumerate(pairs):
                    nursery.start_soon(write, ours, number)
                    nursery.start_soon(read, theirs, number)
                    nursery.start_soon(write, theirs, 100 + number)
                    nursery.start_soon(read, ours, 100 + number)
        assert received == {
            start + number: bytes([start + number]) * size
            for start in (0, 100)
            for number, size in enumerate(sizes)
        }


async def test_a_small_message_does_not_wait_behind_a_large_one() -> None:
    async with running_wire() as wire:
        (large, sink), (small, ear) = await wire.pair(), await wire.pair()

        async def flood() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await large.send_all(bytes(3_000_000))  # nobody reads it

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await small.send_all(b"quick")
            with trio.fail_after(PATIENCE_S):
                assert await ear.receive_some() == b"quick"
            sink.reset()


async def test_a_writer_that_is_cancelled_does_not_harm_the_connection() -> None:
    async with running_wire() as wire:
        (large, sink), (small, ear) = await wire.pair(), await wire.pair()
        with trio.move_on_after(0.01):
            await large.send_all(bytes(3_000_000))
        await small.send_all(b"fine")
        with trio.fail_after(PATIENCE_S):
            assert await ear.receive_some() == b"fine"
        large.reset()
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(PATIENCE_S):
            while await sink.receive_some():
                pass


async def test_closing_what_nobody_reads_resets_it_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("swarmp2p.transport.streams._CLOSE_TIMEOUT_S", 0.05)
    async with running_wire() as wire:
        ours, theirs = await wire.pair()
        with trio.move_on_after(0.05):
            await ours.send_all(bytes(3_000_000))
        with trio.fail_after(PATIENCE_S):
            await ours.aclose()
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(PATIENCE_S):
            while await theirs.receive_some():
                pass
