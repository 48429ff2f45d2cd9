"""What Go, Rust and JavaScript nodes do on DHT streams, done to a peer of ours over real connections: many requests
on one stream, many streams at once, requests that are too long, and silence."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
import trio

from swarmp2p import Peer, open_peer
from swarmp2p.dht.messages import FindNode, FoundNodes
from swarmp2p.dht.wire import dht_protocol
from swarmp2p.opening import DEFAULT_DHT_PROTOCOL
from swarmp2p.transport.framing import FrameBuffer, encode_frame
from swarmp2p.transport.host import Host
from swarmp2p.transport.muxer import MuxedConnection, MuxedStream
from swarmp2p.wire import Framing
from tests.transport.rawpeer import raw_peer, raw_stream, rest_of
from tests.transport.station import PATIENCE_S

WIRE = dht_protocol(DEFAULT_DHT_PROTOCOL)
MAX_REPLY_BYTES = 16 * 1024  # rust-libp2p's limit unless told otherwise


@pytest.fixture
async def peer() -> AsyncGenerator[Peer, None]:
    async with open_peer() as first, open_peer(bootstrap=first.addresses):
        yield first


def host_of(peer: Peer) -> Host:
    network = peer._network  # pyright: ignore[reportPrivateUsage]
    assert isinstance(network, Host)
    return network


def question(number: int) -> bytes:
    return encode_frame(WIRE.encode(FindNode(number, b"\x12\x20" + bytes([number]) * 32)), Framing.UVARINT)


async def answers(stream: MuxedStream, count: int) -> list[FoundNodes]:
    buffer, bodies = FrameBuffer(Framing.UVARINT, MAX_REPLY_BYTES), list[bytes]()
    with trio.fail_after(PATIENCE_S):
        while len(bodies) < count:
            chunk = await stream.read()
            assert chunk, "the stream ended early"
            bodies += buffer.feed(chunk)
    assert len(bodies) == count
    assert WIRE.decode_reply is not None
    replies = [WIRE.decode_reply(stream.peer, body, 0) for body in bodies]
    assert all(isinstance(reply, FoundNodes) for reply in replies)
    return [reply for reply in replies if isinstance(reply, FoundNodes)]


async def still_answers(connection: MuxedConnection) -> None:
    stream = await raw_stream(connection, DEFAULT_DHT_PROTOCOL)
    stream.push(question(1))
    (reply,) = await answers(stream, 1)
    assert reply.closer
    stream.reset()


async def test_eight_requests_in_one_write_are_answered_in_order(peer: Peer) -> None:
    async with raw_peer(host_of(peer)) as connection:
        stream = await raw_stream(connection, DEFAULT_DHT_PROTOCOL)
        stream.push(b"".join(question(number) for number in range(8)))
        await answers(stream, 8)
        for number in range(5):  # and one after the other, on the same stream
            stream.push(question(number))
            await answers(stream, 1)


async def test_a_request_in_single_bytes_is_answered(peer: Peer) -> None:
    async with raw_peer(host_of(peer)) as connection:
        stream = await raw_stream(connection, DEFAULT_DHT_PROTOCOL)
        for byte in question(1):
            stream.push(bytes([byte]))
            await trio.lowlevel.checkpoint()
        await answers(stream, 1)


async def test_forty_streams_at_once_from_one_peer(peer: Peer) -> None:
    async with raw_peer(host_of(peer)) as connection:
        streams = [await raw_stream(connection, DEFAULT_DHT_PROTOCOL) for _ in range(40)]
        for stream in streams:
            stream.push(question(1))
        for stream in streams:
            await answers(stream, 1)


async def test_a_request_too_long_resets_its_stream_and_no_other(peer: Peer) -> None:
    async with raw_peer(host_of(peer)) as connection:
        good = await raw_stream(connection, DEFAULT_DHT_PROTOCOL)
        bad = await raw_stream(connection, DEFAULT_DHT_PROTOCOL)
        bad.push(encode_frame(bytes(WIRE.max_frame_bytes + 1), Framing.UVARINT)[:100])
        assert await rest_of(bad) is None
        good.push(question(1))
        await answers(good, 1)
        await still_answers(connection)


async def test_an_asker_that_ends_its_half_gets_its_answers(peer: Peer) -> None:
    """go-libp2p closes its writing half of streams that it keeps for one request."""
    async with raw_peer(host_of(peer)) as connection:
        stream = await raw_stream(connection, DEFAULT_DHT_PROTOCOL)
        stream.push(question(1) + question(2))
        stream.finish()
        await answers(stream, 2)
        assert await rest_of(stream) == b""
        await still_answers(connection)
