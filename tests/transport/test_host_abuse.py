"""What a peer can send: it is counted, it ends at most its own stream or connection, and nothing grows."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.engine import PeerDown, Received
from swarmp2p.errors import BadMessage, SwarmError
from swarmp2p.identity import PeerId
from swarmp2p.transport.framing import encode_frame
from swarmp2p.transport.host import Host, HostConfig
from swarmp2p.transport.muxer import MuxedConnection
from swarmp2p.transport.network import PeerStream
from swarmp2p.wire import Framing, WireProtocol
from tests.transport.network_conformance import answering
from tests.transport.rawpeer import raw_peer, raw_stream, read_until, rest_of, tcp_to
from tests.transport.station import PATIENCE_S, Station, named
from tests.transport.test_host_network import HostWorld
from tests.transport.toy import ASK, MAX_BYTES, SHOUT, TOYS, Answer, Ask, Shout

ASK_ID, SHOUT_ID = ASK.ids[0], SHOUT.ids[0]
LISTEN = ["/ip4/127.0.0.1/tcp/0"]
MALLORY = named("mallory").peer_id


@pytest.fixture
def world(nursery: trio.Nursery) -> HostWorld:
    return HostWorld(nursery)


def host_of(station: Station) -> Host:
    assert isinstance(station.network, Host)
    return station.network


async def victim(world: HostWorld, config: HostConfig | None = None) -> Station:
    host = Host(named("victim"), LISTEN, TOYS, config or HostConfig(bad_messages=1_000_000))
    station = await world.station("victim", host)
    answering(station)
    return station


async def still_answers(connection: MuxedConnection) -> None:
    stream = await raw_stream(connection, ASK_ID)
    stream.push(encode_frame(b"?still there", Framing.UVARINT))
    assert await read_until(stream, 13) == encode_frame(b"!still there", Framing.UVARINT)
    stream.finish()
    assert await rest_of(stream) == b""


@pytest.mark.parametrize(
    ("protocol", "nonsense"),
    [
        (ASK_ID, encode_frame(b"no such request", Framing.UVARINT)),
        (ASK_ID, encode_frame(b"", Framing.UVARINT)),
        (ASK_ID, b"\xff\xff\xff\xff\xff\xff"),  # no length
        (ASK_ID, b"\x80\x00"),  # an overlong one
        (ASK_ID, encode_frame(bytes(MAX_BYTES + 1), Framing.UVARINT)[:10]),
        (SHOUT_ID, encode_frame(b"no such message", Framing.U32)),
        (SHOUT_ID, b"\xff\xff\xff\xff"),
    ],
)
async def test_nonsense_resets_its_stream_and_is_counted(
    world: HostWorld, protocol: str, nonsense: bytes
) -> None:
    station = await victim(world)
    async with raw_peer(station.network) as connection:
        good = await raw_stream(connection, ASK_ID)
        bad = await raw_stream(connection, protocol)
        bad.push(nonsense)
        assert await rest_of(bad) is None
        good.push(encode_frame(b"?fine", Framing.UVARINT))
        assert await read_until(good, 6) == encode_frame(b"!fine", Framing.UVARINT)
        await still_answers(connection)
        (count,) = host_of(station).stats.bad.values()
        assert count == 1


@pytest.mark.parametrize(("protocol", "framing"), [(ASK_ID, Framing.UVARINT), (SHOUT_ID, Framing.U32)])
async def test_a_message_that_is_cut_off_is_counted(
    world: HostWorld, protocol: str, framing: Framing
) -> None:
    station = await victim(world)
    async with raw_peer(station.network) as connection:
        stream = await raw_stream(connection, protocol)
        stream.push(encode_frame(b"?never finished", framing)[:-1])
        stream.finish()
        assert await rest_of(stream) is None
        await still_answers(connection)
        assert list(host_of(station).stats.bad.values()) == [1]


async def test_a_negotiation_of_nonsense_is_counted_and_resets_its_stream(world: HostWorld) -> None:
    station = await victim(world)
    async with raw_peer(station.network) as connection:
        for nonsense in (b"\x00", b"\x13/multistream/9.9.9\n", b"\xff\xff\xff\xff\xff\xff", b"\x02\xff\n"):
            stream = connection.open()
            stream.push(nonsense)
            assert await rest_of(stream) is None
        await still_answers(connection)
        assert list(host_of(station).stats.bad.values()) == [4]


async def test_who_sends_too_much_nonsense_is_disconnected(world: HostWorld) -> None:
    station = await victim(world, HostConfig(bad_messages=3))
    async with raw_peer(station.network) as connection:
        for _ in range(3):
            stream = await raw_stream(connection, ASK_ID)
            stream.push(encode_frame(b"nonsense", Framing.UVARINT))
            await rest_of(stream)
        with trio.fail_after(PATIENCE_S):
            await connection.closed.wait()
        await station.next(PeerDown, MALLORY)
    async with raw_peer(station.network, "somebody else") as connection:
        await still_answers(connection)


junk = st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([b"?", b"\x01?", b"\x00\x00\x00\x02#x"])))


@pytest.mark.parametrize(
    "protocol", [ASK_ID, SHOUT_ID, "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/mine/1.0.0", ""]
)
def test_junk_on_any_protocol_harms_nobody_else(protocol: str) -> None:
    """One host for all of hypothesis's examples; a good request between them."""

    async def run(examples: list[list[bytes]]) -> None:
        async with _running_victim() as station, raw_peer(station.network) as connection:
            for pieces in examples:
                stream = await raw_stream(connection, protocol) if protocol else connection.open()
                for piece in pieces:
                    stream.push(piece)
                if len(pieces) % 2:
                    stream.finish()
                    await rest_of(stream)
                else:
                    stream.reset()
            await still_answers(connection)
            assert connection.session.streams <= 4

    @settings(max_examples=12, deadline=None)
    @given(st.lists(junk, max_size=8))
    def property_(examples: list[list[bytes]]) -> None:
        trio.run(run, examples)

    property_()


@asynccontextmanager
async def _running_victim() -> AsyncGenerator[Station, None]:
    async with trio.open_nursery() as nursery:
        world = HostWorld(nursery)
        station = await victim(world)

        async def upper(stream: PeerStream) -> None:
            async for data in stream:
                await stream.send_all(data.upper())

        station.network.set_handler("/mine/1.0.0", upper)
        yield station
        await station.stop()


@settings(max_examples=10, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=5), st.integers(0, 3))
def test_junk_before_and_during_the_handshake_harms_nobody(chunks: list[bytes], stage: int) -> None:
    greeting = [b"", b"\x13/multistream/1.0.0\n", b"\x07/noise\n", b"\x00\x20" + bytes(32)]

    async def run() -> None:
        async with _running_victim() as station:
            pipe = await tcp_to(station.network)
            pipe.push(b"".join(greeting[: stage + 1]))
            for chunk in chunks:
                pipe.push(chunk)
            pipe.shut()
            async with raw_peer(station.network) as connection:
                await still_answers(connection)

    trio.run(run)


async def test_a_tampered_packet_ends_the_connection(world: HostWorld) -> None:
    station = await victim(world)
    async with raw_peer(station.network) as connection:
        await still_answers(connection)
        connection._channel.pipe.push(b"\x00\x20" + bytes(32))  # pyright: ignore[reportPrivateUsage]
        with trio.fail_after(PATIENCE_S):
            await connection.closed.wait()
    async with raw_peer(station.network) as connection:
        await still_answers(connection)


async def test_broken_yamux_ends_the_connection(world: HostWorld) -> None:
    station = await victim(world)
    async with raw_peer(station.network) as connection:
        await still_answers(connection)
        connection._channel.push(b"\x07" * 12)  # pyright: ignore[reportPrivateUsage]
        with trio.fail_after(PATIENCE_S):
            await connection.closed.wait()
        await station.next(PeerDown, MALLORY)


async def test_a_silent_handshake_is_given_up(world: HostWorld) -> None:
    station = await victim(world, HostConfig(dial_timeout_s=0.3, handshakes=2))
    pipes = [await tcp_to(station.network) for _ in range(4)]
    async with raw_peer(station.network) as connection:  # waits for two of them to be given up
        await still_answers(connection)
    for pipe in pipes:
        with trio.fail_after(PATIENCE_S):
            assert await pipe.receive() == b""
        pipe.shut()


async def test_a_stream_without_a_protocol_is_given_up(world: HostWorld) -> None:
    station = await victim(world, HostConfig(negotiate_timeout_s=0.05))
    async with raw_peer(station.network) as connection:
        stream = connection.open()
        stream.push(b"\x13/multi")
        assert await rest_of(stream) is None


async def test_a_second_stream_of_messages_replaces_the_first(world: HostWorld) -> None:
    station = await victim(world)
    async with raw_peer(station.network) as connection:
        first = await raw_stream(connection, SHOUT_ID)
        first.push(encode_frame(b"#one", Framing.U32))
        assert await station.message() == Shout(b"one")
        second = await raw_stream(connection, SHOUT.ids[1])
        second.push(encode_frame(b"#two", Framing.U32))
        assert await station.message() == Shout(b"two")
        assert await rest_of(first) is None


async def test_requests_that_nobody_answers_hold_up_only_their_own_stream(world: HostWorld) -> None:
    station = await victim(world, HostConfig(unanswered=4))
    station.on_message = None
    async with raw_peer(station.network) as connection:
        greedy = await raw_stream(connection, ASK_ID)
        for number in range(100):
            greedy.push(encode_frame(b"?%d" % number, Framing.UVARINT))
        await station.settled(lambda: len(station.events) == 5)  # PeerUp and four requests
        asked = [await station.message() for _ in range(4)]
        answering(station)
        await still_answers(connection)
        assert sum(isinstance(event, Received) for event in station.events) == 1  # only that one
        for ask in asked:
            assert isinstance(ask, Ask)
            station.network.send(MALLORY, Answer(ask.id, ask.text))
        answered = b"".join(encode_frame(b"!%d" % number, Framing.UVARINT) for number in range(100))
        assert await read_until(greedy, len(answered)) == answered


async def test_a_request_the_engine_never_answers_is_given_up(world: HostWorld) -> None:
    station = await victim(world, HostConfig(reply_timeout_s=0.02, sweep_s=0.01))
    station.on_message = None
    async with raw_peer(station.network) as connection:
        stream = await raw_stream(connection, ASK_ID)
        stream.push(encode_frame(b"?", Framing.UVARINT))
        asked = await station.message()
        assert isinstance(asked, Ask)
        assert await rest_of(stream) is None
        station.network.send(MALLORY, Answer(asked.id, b""))  # too late
        assert host_of(station).stats.dropped == {"late reply": 1}


async def test_more_streams_than_allowed_are_reset(world: HostWorld) -> None:
    station = await victim(world, HostConfig(max_streams=5))
    async with raw_peer(station.network) as connection:
        streams = [await raw_stream(connection, ASK_ID) for _ in range(5)]
        with pytest.raises((trio.BrokenResourceError, SwarmError)):
            await raw_stream(connection, ASK_ID)
        streams[0].reset()
        await still_answers(connection)


async def test_who_does_not_read_does_not_hold_up_others(world: HostWorld) -> None:
    station = await victim(world)

    async def flood(stream: PeerStream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await stream.send_all(bytes(100_000))

    station.network.set_handler("/flood/1.0.0", flood)
    async with raw_peer(station.network) as connection:
        stream = await raw_stream(connection, "/flood/1.0.0")
        await still_answers(connection)
        lazy = await raw_stream(connection, ASK_ID)
        for _ in range(30):
            lazy.push(encode_frame(b"?" + bytes(50_000), Framing.UVARINT))  # and reads no answer
        await still_answers(connection)
        async with raw_peer(station.network, "another") as other:
            await still_answers(other)
        stream.reset()


async def test_a_silent_connection_is_closed_and_a_living_one_is_not(world: HostWorld) -> None:
    config = HostConfig(probe_s=0.2, sweep_s=0.02)
    station = await victim(world, config)
    alice = await world.station("alice", Host(named("alice"), LISTEN, TOYS, config))
    alice.knows(station)
    await alice.network.dial_peer(station.peer)
    async with raw_peer(station.network) as connection:
        await still_answers(connection)
        connection._channel.push = lambda data: None  # type: ignore[method-assign]  # pyright: ignore
        await station.next(PeerDown, MALLORY)
    assert alice.peer in host_of(station).connected


async def test_a_decoder_with_a_bug_counts_as_a_bad_message(
    world: HostWorld, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(sender: PeerId, body: bytes, number: int) -> Ask:
        raise KeyError(body)

    buggy: WireProtocol = replace(ASK, decode=broken)
    station = await world.station("victim", Host(named("victim"), LISTEN, [buggy, SHOUT]))
    async with raw_peer(station.network) as connection:
        stream = await raw_stream(connection, ASK_ID)
        stream.push(encode_frame(b"?", Framing.UVARINT))
        assert await rest_of(stream) is None
        shout = await raw_stream(connection, SHOUT_ID)
        shout.push(encode_frame(b"#fine", Framing.U32))
        assert await station.message() == Shout(b"fine")
    assert "KeyError" in caplog.text


def test_bad_message_is_what_decoders_raise() -> None:
    assert issubclass(BadMessage, SwarmError)


async def test_who_sends_more_messages_than_anybody_needs_is_disconnected(world: HostWorld) -> None:
    config = HostConfig(messages_per_s=1.0, messages_burst=100, bad_messages=3)
    station = await victim(world, config)
    frame = encode_frame(b"#x", Framing.U32)
    async with raw_peer(host_of(station)) as flood, raw_peer(host_of(station), "other") as other:
        for _ in range(10):
            if flood.closed.is_set():
                break
            stream = await raw_stream(flood, SHOUT_ID)
            for _ in range(2):
                stream.push(frame * 100)
                await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.fail_after(PATIENCE_S):
            await flood.closed.wait()
        await still_answers(other)
