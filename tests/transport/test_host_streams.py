"""How a host uses streams: few, kept open, and renewed when they end; against a peer under the test's control."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from swarmp2p.engine import Congested, PeerDown, PeerUp, Received, Speaks, Undeliverable
from swarmp2p.scopes import start
from swarmp2p.transport.framing import encode_frame
from swarmp2p.transport.host import Host, HostConfig
from swarmp2p.transport.muxer import MuxedStream
from swarmp2p.wire import Framing
from tests.transport.rawpeer import RawServer, read_until, rest_of
from tests.transport.station import Station, eventually, named
from tests.transport.test_host_network import HostWorld
from tests.transport.toy import ASK, SHOUT, TOYS, Answer, Ask, Shout, Tell

ASK_ID = ASK.ids[0]
PATIENT = HostConfig(stall_s=1000.0)


async def scene(
    nursery: trio.Nursery, *protocols: str, config: HostConfig | None = None
) -> tuple[Station, RawServer]:
    """A host, and a server that it knows."""
    world = HostWorld(nursery)
    alice = await world.station("alice", Host(named("alice"), [], TOYS, config or PATIENT))
    server = RawServer("server", *protocols)
    await start(nursery, server.run)
    alice.network.introduce(server.peer, server.addresses)
    return alice, server


def stats_of(station: Station) -> dict[str, int]:
    assert isinstance(station.network, Host)
    return dict(station.network.stats.dropped)


def answer(stream: MuxedStream, *texts: bytes) -> None:
    stream.push(b"".join(encode_frame(b"!" + text, Framing.UVARINT) for text in texts))


async def test_requests_share_a_stream_and_replies_match_by_order(nursery: trio.Nursery) -> None:
    alice, server = await scene(nursery, ASK_ID)
    for number in range(5):
        alice.network.send(server.peer, Ask(100 + number, b"%d" % number))
    stream = await server.stream()
    assert [await server.frame(stream, Framing.UVARINT) for _ in range(5)] == [b"?%d" % n for n in range(5)]
    answer(stream, b"a", b"b")
    answer(stream, b"c", b"d", b"e")
    got = [await alice.message() for _ in range(5)]
    assert got == [Answer(100 + number, text) for number, text in enumerate((b"a", b"b", b"c", b"d", b"e"))]
    alice.network.send(server.peer, Ask(7, b"later"))
    assert await server.frame(stream, Framing.UVARINT) == b"?later"


async def test_a_request_behind_one_that_hangs_takes_another_stream(nursery: trio.Nursery) -> None:
    alice, server = await scene(nursery, ASK_ID, config=HostConfig(stall_s=0.0, request_streams=2))
    alice.network.send(server.peer, Ask(1, b"hangs"))
    first = await server.stream()
    assert await server.frame(first, Framing.UVARINT) == b"?hangs"
    alice.network.send(server.peer, Ask(2, b"quick"))
    second = await server.stream()
    assert await server.frame(second, Framing.UVARINT) == b"?quick"
    answer(second, b"quick")
    assert await alice.message() == Answer(2, b"quick")
    for number in range(3, 6):  # no third stream: those that are there are shared
        alice.network.send(server.peer, Ask(number, b"%d" % number))
    answer(first, b"at last")
    assert await alice.message() == Answer(1, b"at last")
    assert alice.events


async def test_requests_of_a_stream_that_ends_get_one_more_try(nursery: trio.Nursery) -> None:
    alice, server = await scene(nursery, ASK_ID)
    alice.network.send(server.peer, Ask(1, b"one"))
    alice.network.send(server.peer, Ask(2, b"two"))
    first = await server.stream()
    assert await server.frame(first, Framing.UVARINT) == b"?one"
    answer(first, b"one")
    assert await alice.message() == Answer(1, b"one")
    first.reset()
    second = await server.stream()
    assert await server.frame(second, Framing.UVARINT) == b"?two"
    second.reset()
    alice.network.send(server.peer, Ask(3, b"three"))
    third = await server.stream()
    assert await server.frame(third, Framing.UVARINT) == b"?three"  # not "two" a third time
    assert stats_of(alice) == {"stream lost": 1}
    assert not [event for event in alice.events if isinstance(event, PeerDown)]


async def test_an_orderly_end_of_a_stream_is_no_loss_either(nursery: trio.Nursery) -> None:
    alice, server = await scene(nursery, ASK_ID)
    alice.network.send(server.peer, Ask(1, b"one"))
    first = await server.stream()
    await server.frame(first, Framing.UVARINT)
    answer(first, b"one")
    first.finish()
    assert await alice.message() == Answer(1, b"one")
    alice.network.send(server.peer, Ask(2, b"two"))
    second = await server.stream()
    answer(second, b"two")
    assert await alice.message() == Answer(2, b"two")


async def test_idle_request_streams_are_closed(nursery: trio.Nursery) -> None:
    alice, server = await scene(nursery, ASK_ID, config=replace(PATIENT, idle_s=0.02, sweep_s=0.01))
    alice.network.send(server.peer, Ask(1, b"one"))
    stream = await server.stream()
    assert await server.frame(stream, Framing.UVARINT) == b"?one"
    answer(stream, b"one")
    assert await rest_of(stream) == b""


async def test_a_reply_that_never_comes_costs_its_stream(nursery: trio.Nursery) -> None:
    alice, server = await scene(nursery, ASK_ID, config=replace(PATIENT, reply_timeout_s=0.02, sweep_s=0.01))
    alice.network.send(server.peer, Ask(1, b"one"))
    stream = await server.stream()
    assert await server.frame(stream, Framing.UVARINT) == b"?one"
    assert await rest_of(stream) is None


@pytest.mark.parametrize("nonsense", [b"nothing", b"\xff\xff\xff\xff\xff\xff"])
async def test_a_reply_of_nonsense_is_counted_and_resets_its_stream(
    nursery: trio.Nursery, nonsense: bytes
) -> None:
    alice, server = await scene(nursery, ASK_ID)
    alice.network.send(server.peer, Ask(1, b"one"))
    stream = await server.stream()
    await server.frame(stream, Framing.UVARINT)
    stream.push(encode_frame(nonsense, Framing.UVARINT) if nonsense.isalpha() else nonsense)
    assert await rest_of(stream) is None
    assert isinstance(alice.network, Host)
    assert alice.network.stats.bad == {server.peer: 1}


async def test_a_reply_that_nobody_asked_for_is_counted(nursery: trio.Nursery) -> None:
    alice, server = await scene(nursery, ASK_ID)
    alice.network.send(server.peer, Ask(1, b"one"))
    stream = await server.stream()
    answer(stream, b"one", b"two")
    assert await alice.message() == Answer(1, b"one")
    assert await rest_of(stream) is None
    assert isinstance(alice.network, Host)
    assert alice.network.stats.bad == {server.peer: 1}


async def test_what_the_other_side_does_not_speak_is_dropped_and_not_tried_again(
    nursery: trio.Nursery,
) -> None:
    alice, server = await scene(nursery)
    alice.network.send(server.peer, Ask(1, b"one"))
    alice.network.send(server.peer, Shout(b"one"))
    await eventually(lambda: stats_of(alice) == {"unsupported": 2})
    alice.network.send(server.peer, Ask(2, b"two"))
    alice.network.send(server.peer, Shout(b"two"))
    assert stats_of(alice) == {"unsupported": 4}


async def test_requests_that_the_other_side_does_not_understand_come_back_at_once(
    nursery: trio.Nursery,
) -> None:
    alice, server = await scene(nursery)
    for number in range(3):
        alice.network.send(server.peer, Ask(number, b"?"))
    alice.network.send(server.peer, Shout(b"!"))
    told = {event.protocol: event for event in [await alice.next(Undeliverable) for _ in range(2)]}
    assert told == {
        "ask": Undeliverable(server.peer, "ask", (0, 1, 2), unsupported=True),
        "shout": Undeliverable(server.peer, "shout", (), unsupported=True),
    }
    alice.network.send(server.peer, Ask(3, b"?"))
    assert await alice.next(Undeliverable) == Undeliverable(server.peer, "ask", (3,), unsupported=True)


async def test_requests_whose_second_stream_breaks_too_come_back(nursery: trio.Nursery) -> None:
    alice, server = await scene(nursery, ASK_ID)
    alice.network.send(server.peer, Ask(1, b"one"))
    alice.network.send(server.peer, Ask(2, b"two"))
    for _ in range(2):
        stream = await server.stream()
        await server.frame_of(stream, 10)
        stream.reset()
    assert await alice.next(Undeliverable) == Undeliverable(server.peer, "ask", (1, 2))
    alice.network.send(server.peer, Ask(3, b"three"))
    third = await server.stream()
    await server.frame(third, Framing.UVARINT)
    answer(third, b"three")
    assert await alice.message() == Answer(3, b"three")


async def test_a_request_whose_reply_is_nonsense_comes_back(nursery: trio.Nursery) -> None:
    alice, server = await scene(nursery, ASK_ID)
    alice.network.send(server.peer, Ask(1, b"one"))
    stream = await server.stream()
    await server.frame(stream, Framing.UVARINT)
    stream.push(encode_frame(b"nothing", Framing.UVARINT))
    assert await alice.next(Undeliverable) == Undeliverable(server.peer, "ask", (1,))


async def test_a_request_too_many_comes_back(nursery: trio.Nursery) -> None:
    alice, server = await scene(nursery, ASK_ID, config=HostConfig(queue_messages=2))
    for number in range(3):
        alice.network.send(server.peer, Ask(number, b"?"))
    assert await alice.next(Undeliverable) == Undeliverable(server.peer, "ask", (2,))
    assert isinstance(alice.events[0], PeerUp)


async def test_messages_use_the_first_id_that_the_other_side_speaks(nursery: trio.Nursery) -> None:
    alice, server = await scene(nursery, SHOUT.ids[1])
    alice.network.send(server.peer, Shout(b"one"))
    stream = await server.stream()
    assert stream.protocol == SHOUT.ids[1]
    assert await alice.next(Speaks) == Speaks(server.peer, "shout", True, SHOUT.ids[1])
    assert await server.frame(stream, Framing.U32) == b"#one"
    alice.network.send(server.peer, Shout(b"two"))
    alice.network.send(server.peer, Shout(b"three"))
    assert await stream.read() == encode_frame(b"#two", Framing.U32) + encode_frame(b"#three", Framing.U32)


async def test_a_message_stream_that_was_reset_is_opened_again(nursery: trio.Nursery) -> None:
    alice, server = await scene(nursery, SHOUT.ids[0])
    alice.network.send(server.peer, Shout(b"one"))
    first = await server.stream()
    assert await server.frame(first, Framing.U32) == b"#one"
    first.reset()
    with trio.fail_after(30):
        while True:  # until the reset has arrived, messages go down with the stream
            alice.network.send(server.peer, Shout(b"again"))
            with trio.move_on_after(0.01):
                second = await server.stream()
                break
    assert await server.frame(second, Framing.U32) == b"#again"


async def test_answers_to_what_wants_none_are_read_and_dropped(nursery: trio.Nursery) -> None:
    alice, server = await scene(nursery, ASK_ID)
    alice.network.send(server.peer, Tell(1, b"tell"))
    telling = await server.stream()
    assert await server.frame(telling, Framing.UVARINT) == b".tell"
    alice.network.send(server.peer, Ask(2, b"ask"))
    asking = await server.stream()
    answer(telling, bytes(90_000), bytes(90_000), bytes(90_000), bytes(90_000))  # more than a window
    await telling.drained()
    answer(asking, b"ask")
    assert await alice.message() == Answer(2, b"ask")
    assert isinstance(alice.network, Host)
    assert not alice.network.stats.bad


async def test_the_engine_hears_of_a_backlog_and_of_its_end(nursery: trio.Nursery) -> None:
    """Once each, while the queue is far from full."""
    alice, server = await scene(nursery, SHOUT.ids[0])
    await alice.network.dial_peer(server.peer)
    sent = 0
    while not any(isinstance(event, Congested) for event in alice.events):
        alice.network.send(server.peer, Shout(bytes(10_000)))
        sent += 1
        assert sent < 200
        await trio.sleep(0.001)
    assert await alice.next(Congested) == Congested(server.peer, "shout", True)
    assert stats_of(alice) == {}
    stream = await server.stream()
    await read_until(stream, sent * len(encode_frame(b"#" + bytes(10_000), Framing.U32)))
    assert await alice.next(Congested) == Congested(server.peer, "shout", False)
    assert not any(isinstance(event, Congested) for event in alice.events)


async def test_a_peer_that_takes_nothing_gets_a_full_queue_and_no_more(nursery: trio.Nursery) -> None:
    config = HostConfig(queue_messages=10)
    alice, server = await scene(nursery, SHOUT.ids[0], ASK_ID, config=config)
    await alice.network.dial_peer(server.peer)
    large = bytes(90_000)
    alice.network.send(server.peer, Shout(large))
    stream = await server.stream()
    for _ in range(100):
        alice.network.send(server.peer, Shout(large))
        await trio.lowlevel.checkpoint()
    lost = stats_of(alice)["queue full"]
    assert 100 - 10 - (262_144 + 3 * 131_072) // 90_000 <= lost < 100
    size = len(encode_frame(b"#" + large, Framing.U32))
    for _ in range(101 - lost):
        assert len(await server.frame_of(stream, size)) == size


async def test_when_the_server_goes_its_requests_are_answered_by_peer_down(nursery: trio.Nursery) -> None:
    alice, server = await scene(nursery, ASK_ID)
    alice.network.send(server.peer, Ask(1, b"one"))
    stream = await server.stream()
    await server.frame(stream, Framing.UVARINT)
    server.connections[0].close()
    assert (await alice.next(PeerUp)).peer == server.peer
    assert (await alice.next(PeerDown)).peer == server.peer
    assert not [event for event in alice.events if isinstance(event, Received)]


async def test_a_peer_that_restarts_is_answered_where_it_is_now(nursery: trio.Nursery) -> None:
    """Also while the connection of its former self still stands, as one does for a while after a cut wire."""
    world = HostWorld(nursery)
    alice = await world.station("alice", Host(named("alice"), ["/ip4/127.0.0.1/tcp/0"], TOYS, PATIENT))
    former = await world.station("bob", Host(named("bob"), [], TOYS, PATIENT))
    former.knows(alice)
    former.network.send(alice.peer, Shout(b"first"))
    assert await alice.message() == Shout(b"first")
    alice.network.send(former.peer, Shout(b"to the first"))
    assert await former.message() == Shout(b"to the first")
    now = await world.station("bob", Host(named("bob"), [], TOYS, PATIENT))
    now.knows(alice)
    now.network.send(alice.peer, Shout(b"second"))
    assert await alice.message() == Shout(b"second")
    alice.network.send(now.peer, Shout(b"to the second"))
    assert await now.message() == Shout(b"to the second")
    assert not any(isinstance(event, PeerDown) for event in alice.events)
