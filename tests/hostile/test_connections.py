"""What many, or stubborn, connections cost a peer."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio
from multiaddr.multiaddr import Multiaddr

from swarmp2p.gossip.load_wire import loads_protocol
from swarmp2p.transport.framing import encode_frame
from swarmp2p.transport.host import Host, HostConfig
from swarmp2p.transport.tcp import TcpListener, TcpPipe, dial_tcp
from swarmp2p.transport.yamux import WINDOW_BYTES
from swarmp2p.wire import Framing
from tests.transport.network_conformance import answering
from tests.transport.rawpeer import raw_peer, raw_stream, read_until, rest_of
from tests.transport.station import PATIENCE_S, eventually, named
from tests.transport.test_host_network import HostWorld
from tests.transport.toy import ASK, TOYS, Answer, Ask

LISTEN = ["/ip4/127.0.0.1/tcp/0"]
ASK_ID = ASK.ids[0]


@pytest.fixture
def world(nursery: trio.Nursery) -> HostWorld:
    return HostWorld(nursery)


async def test_replies_that_nobody_reads_are_not_piled_up(world: HostWorld) -> None:
    """Every stream of every connection may hold as much: a machine's memory is gone with 50 connections of 60 streams
    where it is 1 MiB each."""
    host = Host(named("victim"), LISTEN, TOYS)
    answering(await world.station("victim", host))
    size = 10_000
    async with raw_peer(host) as connection, raw_peer(host, "other") as other:
        deaf = await raw_stream(connection, ASK_ID)
        for _ in range(300):
            deaf.push(encode_frame(b"?" + bytes(size), Framing.UVARINT))
        stream = await raw_stream(other, ASK_ID)
        for _ in range(100):  # time for the victim to take as many requests as it will
            stream.push(encode_frame(b"?still there", Framing.UVARINT))
            await read_until(stream, 13)
        sent = host.stats.sent - 100
        assert WINDOW_BYTES < sent * size < WINDOW_BYTES + 100_000


async def test_connections_that_come_in_leave_room_for_those_that_go_out(world: HostWorld) -> None:
    host = Host(named("victim"), LISTEN, TOYS, HostConfig(max_connections=4))
    await world.station("victim", host)
    friend = await world.station("friend")
    async with AsyncExitStack() as stack:
        for number in range(3):
            await stack.enter_async_context(raw_peer(host, f"flood {number}"))
        await eventually(lambda: host.connections == 3)
        refused = await stack.enter_async_context(raw_peer(host, "flood 3"))
        with trio.fail_after(PATIENCE_S):
            await refused.closed.wait()
            await host.dial_peer(friend.peer, friend.network.addresses)


async def test_a_request_may_be_shorter_than_its_reply(world: HostWorld) -> None:
    """Sixty streams with an unfinished question of 1 MiB each, for as long as somebody likes, are no way to ask."""
    loads = loads_protocol()
    host = Host(named("victim"), LISTEN, [loads])
    await world.station("victim", host)
    async with raw_peer(host) as connection:
        stream = await raw_stream(connection, loads.ids[0])
        stream.push((loads.max_frame_bytes).to_bytes(4, "big"))
        assert await rest_of(stream) is None
    assert dict(host.stats.bad) == {named("mallory").peer_id: 1}


async def test_connections_that_say_nothing_make_room_for_others() -> None:
    listener = TcpListener(Multiaddr("/ip4/127.0.0.1/tcp/0"))
    served: list[TcpPipe] = []

    async def wait_for_a_word(pipe: TcpPipe) -> None:
        served.append(pipe)
        await pipe.receive()

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.serve, wait_for_a_word, nursery, 2, 0.0)
            silent = [await dial_tcp(*listener.bound) for _ in range(5)]
            await eventually(lambda: len(served) == 5)
            assert [await pipe.receive() for pipe in silent[:3]] == [b"", b"", b""]
            listener.shut()
            nursery.cancel_scope.cancel()
    for pipe in (*silent, *served):
        pipe.shut()


async def test_streams_opened_and_reset_at_once_are_a_few_and_no_more(world: HostWorld) -> None:
    host = Host(named("victim"), LISTEN, TOYS, HostConfig(control_per_s=100.0, control_burst=500))
    answering(await world.station("victim", host))
    async with raw_peer(host) as flood, raw_peer(host, "other") as other:
        for _ in range(200):  # a SYN and an RST each
            stream = flood.open()
            stream.push(b"\x13")
            stream.reset()
        stream = await raw_stream(flood, ASK_ID)
        stream.push(encode_frame(b"?fine", Framing.UVARINT))
        assert await read_until(stream, 6) == encode_frame(b"!fine", Framing.UVARINT)
        for _ in range(2000):
            flood.session.ping()
            flood.flush()
        with trio.fail_after(PATIENCE_S):
            await flood.closed.wait()
        stream = await raw_stream(other, ASK_ID)
        stream.push(encode_frame(b"?fine", Framing.UVARINT))
        assert await read_until(stream, 6) == encode_frame(b"!fine", Framing.UVARINT)


async def test_with_too_many_connections_those_go_that_were_no_use(world: HostWorld) -> None:
    config = HostConfig(high_connections=5, low_connections=4, grace_s=0.0, sweep_s=0.02)
    host = Host(named("victim"), LISTEN, TOYS, config)
    victim = await world.station("victim", host)
    friend, idle = await world.station("friend"), await world.station("idle")
    answering(friend)
    victim.knows(friend, idle)
    host.send(friend.peer, Ask(1, b"useful"))
    assert await victim.message() == Answer(1, b"useful")
    await host.dial_peer(idle.peer)
    host.protect(idle.peer, protected=True)
    async with AsyncExitStack() as stack:
        for number in range(8):  # they ask, which is no use to us
            connection = await stack.enter_async_context(raw_peer(host, f"stranger {number}"))
            stream = connection.open()
            stream.push(b"?")
        await eventually(lambda: host.stats.trimmed > 0 and host.connections <= 5)
        assert {friend.peer, idle.peer} <= set(host.connected)
    host.send(friend.peer, Ask(2, b"again"))
    assert await victim.message() == Answer(2, b"again")
