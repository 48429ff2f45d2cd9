"""What every network promises; run over each of them by a subclass with a `world` fixture."""

from __future__ import annotations

import pytest
import trio

from swarmp2p.engine import Message, PeerDown, PeerUp, Received, Speaks, Undeliverable
from swarmp2p.errors import DialError, ProtocolUnsupported
from swarmp2p.identity import Identity, PeerId
from swarmp2p.transport.network import PeerStream
from tests.transport.station import PATIENCE_S, Station, World
from tests.transport.toy import MAX_BYTES, Answer, Ask, Shout, Tell


def answering(station: Station) -> None:
    """Answer each Ask with its own text, at once."""

    def answer(sender: PeerId, message: Message) -> None:
        if isinstance(message, Ask):
            station.network.send(sender, Answer(message.id, message.text))

    station.on_message = answer


async def echo(stream: PeerStream) -> None:
    """Send back what comes, and end where it ends."""
    while data := await stream.receive_some():
        await stream.send_all(data)
    await stream.send_eof()


async def read_all(stream: PeerStream) -> bytes:
    received = b""
    with trio.fail_after(PATIENCE_S):
        while data := await stream.receive_some():
            received += data
    return received


class NetworkConformance:
    """Messages and connections."""

    async def test_the_first_send_connects_and_both_sides_learn_of_it_once(self, world: World) -> None:
        alice, bob = await world.pair()
        alice.network.send(bob.peer, Shout(b"hello"))
        assert await bob.next(Received) == Received(alice.peer, Shout(b"hello"))
        up = await alice.next(PeerUp)
        assert up.peer == bob.peer
        assert set(up.addresses) & set(bob.network.addresses)
        assert up.outbound
        assert up.remote in bob.network.addresses
        up = await bob.next(PeerUp)
        assert up.peer == alice.peer
        assert not up.outbound
        assert up.remote[:5] in {address[:5] for address in alice.network.addresses}, "its host, at any port"
        bob.network.send(alice.peer, Shout(b"and back"))
        assert await alice.message() == Shout(b"and back")
        assert not alice.events
        assert not bob.events

    async def test_peer_up_comes_before_the_first_message(self, world: World) -> None:
        alice, bob = await world.pair()
        alice.network.send(bob.peer, Ask(1, b"?"))
        alice.network.send(bob.peer, Shout(b"!"))
        await bob.settled(lambda: len(bob.events) == 3)
        assert isinstance(bob.events[0], PeerUp)

    async def test_the_dialled_side_learns_where_the_dialler_listens(self, world: World) -> None:
        alice, bob = await world.station("alice"), await world.station("bob")
        alice.knows(bob)
        await alice.network.dial_peer(bob.peer)
        up = await bob.next(PeerUp)
        assert set(up.addresses) >= set(alice.network.addresses)

    async def test_a_reply_carries_the_id_of_its_request(self, world: World) -> None:
        alice, bob = await world.pair()
        alice.network.send(bob.peer, Ask(4711, b"what?"))
        asked = await bob.message()
        assert isinstance(asked, Ask)
        bob.network.send(alice.peer, Answer(asked.id, b"this"))
        assert await alice.message() == Answer(4711, b"this")

    async def test_requests_of_two_peers_with_the_same_ids_are_kept_apart(self, world: World) -> None:
        alice, bob = await world.pair()
        carol = await world.station("carol")
        carol.knows(bob)
        answering(bob)
        for number in range(20):
            alice.network.send(bob.peer, Ask(number, b"alice %d" % number))
            carol.network.send(bob.peer, Ask(number, b"carol %d" % number))
        for station, name in ((alice, b"alice"), (carol, b"carol")):
            got = [await station.message() for _ in range(20)]
            assert sorted(got, key=lambda one: one.id if isinstance(one, Answer) else -1) == [
                Answer(number, b"%s %d" % (name, number)) for number in range(20)
            ]
        ids = [event.message.id for event in bob.events if isinstance(event, Received) and _is_ask(event)]  # type: ignore[attr-defined]
        assert len(set(ids)) == 40

    async def test_replies_given_in_another_order_find_their_requests(self, world: World) -> None:
        alice, bob = await world.pair()
        for number in range(10):
            alice.network.send(bob.peer, Ask(number, b"%d" % number))
        asked = [await bob.message() for _ in range(10)]
        for ask in reversed(asked):
            assert isinstance(ask, Ask)
            bob.network.send(alice.peer, Answer(ask.id, ask.text))
        got = [await alice.message() for _ in range(10)]
        assert {one.id: one.text for one in got if isinstance(one, Answer)} == {
            number: b"%d" % number for number in range(10)
        }

    async def test_a_second_reply_to_one_request_goes_nowhere(self, world: World) -> None:
        alice, bob = await world.pair()
        alice.network.send(bob.peer, Ask(1, b"a"))
        asked = await bob.message()
        assert isinstance(asked, Ask)
        bob.network.send(alice.peer, Answer(asked.id, b"first"))
        bob.network.send(alice.peer, Answer(asked.id, b"second"))
        bob.network.send(alice.peer, Answer(987654, b"never asked"))
        assert await alice.message() == Answer(1, b"first")
        answering(bob)
        alice.network.send(bob.peer, Ask(2, b"b"))
        assert await alice.message() == Answer(2, b"b")

    async def test_a_request_without_reply_disturbs_none_with(self, world: World) -> None:
        alice, bob = await world.pair()

        def respond(sender: PeerId, message: Message) -> None:
            if isinstance(message, Ask | Tell):  # an echo to a Tell, as some implementations send it
                bob.network.send(sender, Answer(message.id, message.text))

        bob.on_message = respond
        for number in range(5):
            alice.network.send(bob.peer, Tell(100 + number, b"tell"))
            alice.network.send(bob.peer, Ask(number, b"ask %d" % number))
        got = [await alice.message() for _ in range(5)]
        assert sorted(one.text for one in got if isinstance(one, Answer)) == [
            b"ask %d" % number for number in range(5)
        ]
        await bob.settled(
            lambda: (
                sum(isinstance(one, Received) and isinstance(one.message, Tell) for one in bob.events) == 5
            )
        )

    async def test_messages_arrive_in_order(self, world: World) -> None:
        alice, bob = await world.pair()
        for number in range(200):
            alice.network.send(bob.peer, Shout(b"%d" % number))
        assert [await bob.message() for _ in range(200)] == [Shout(b"%d" % number) for number in range(200)]

    async def test_the_largest_message_passes(self, world: World) -> None:
        alice, bob = await world.pair()
        answering(bob)
        large = bytes(range(256)) * (MAX_BYTES // 256)
        alice.network.send(bob.peer, Ask(1, large))
        alice.network.send(bob.peer, Shout(large))
        assert await alice.message() == Answer(1, large)
        await bob.settled(lambda: Received(alice.peer, Shout(large)) in bob.events)

    async def test_a_protocol_that_is_not_served_any_more_is_told_and_refused(self, world: World) -> None:
        alice, bob = await world.pair()
        answering(bob)
        alice.network.send(bob.peer, Ask(1, b"one"))
        assert await alice.message() == Answer(1, b"one")
        await alice.next(PeerUp)
        await bob.next(PeerUp)
        await bob.next(Received)
        bob.network.serve("ask", serving=False)
        assert await alice.next(Speaks) == Speaks(bob.peer, "ask", serving=False)
        alice.network.send(bob.peer, Ask(2, b"two"))
        assert await alice.next(Undeliverable) == Undeliverable(bob.peer, "ask", (2,), unsupported=True)
        answering(alice)
        bob.network.send(alice.peer, Ask(3, b"three"))  # asking goes on
        assert await bob.message() == Answer(3, b"three")
        bob.network.serve("ask", serving=True)
        assert await alice.next(Speaks) == Speaks(bob.peer, "ask", serving=True)
        answering(bob)
        await alice.next(Received)  # what bob asked
        alice.network.send(bob.peer, Ask(4, b"four"))
        assert await alice.message() == Answer(4, b"four")
        assert not alice.events

    async def test_who_is_dialled_learns_what_the_dialler_does_not_serve(self, world: World) -> None:
        alice, bob = await world.pair()
        alice.network.serve("ask", serving=False)
        alice.network.send(bob.peer, Shout(b"hello"))
        assert await bob.message() == Shout(b"hello")
        assert await bob.next(Speaks) == Speaks(alice.peer, "ask", serving=False)
        assert (await bob.next(PeerUp)).peer == alice.peer

    async def test_without_an_address_a_send_comes_back_as_peer_down(self, world: World) -> None:
        alice = await world.station("alice")
        stranger = Identity(b"s" * 32).peer_id
        alice.network.send(stranger, Shout(b"anybody?"))
        alice.network.send(stranger, Ask(1, b"anybody?"))
        assert (await alice.next(PeerDown)).peer == stranger
        assert not alice.events

    async def test_a_peer_that_has_gone_comes_back_as_peer_down_and_can_return(self, world: World) -> None:
        alice, bob = await world.pair()
        addresses = bob.network.addresses
        await bob.stop()
        alice.network.introduce(bob.peer, addresses)
        alice.network.send(bob.peer, Shout(b"lost"))
        assert (await alice.next(PeerDown)).peer == bob.peer
        again = await world.station("bob")
        alice.knows(again)
        alice.network.send(again.peer, Shout(b"found"))
        assert await again.message() == Shout(b"found")
        assert (await alice.next(PeerUp)).peer == again.peer

    async def test_a_crash_is_noticed_and_a_restart_with_the_same_id_is_a_new_connection(
        self, world: World
    ) -> None:
        alice, bob = await world.pair()
        answering(bob)
        alice.network.send(bob.peer, Ask(1, b"one"))
        assert await alice.message() == Answer(1, b"one")
        await alice.next(PeerUp)
        await bob.stop()
        assert (await alice.next(PeerDown)).peer == bob.peer
        again = await world.station("bob")
        answering(again)
        alice.knows(again)
        alice.network.send(again.peer, Ask(2, b"two"))
        assert await alice.message() == Answer(2, b"two")
        assert (await alice.next(PeerUp)).peer == again.peer
        assert not alice.events

    async def test_disconnect_tells_both_sides_once_and_a_send_connects_again(self, world: World) -> None:
        alice, bob = await world.pair()
        alice.network.send(bob.peer, Shout(b"1"))
        await bob.message()
        await alice.next(PeerUp)
        await bob.next(PeerUp)
        alice.network.disconnect(bob.peer)
        assert (await alice.next(PeerDown)).peer == bob.peer
        assert (await bob.next(PeerDown)).peer == alice.peer
        alice.network.disconnect(bob.peer)  # nothing to close: nothing happens
        bob.network.send(alice.peer, Shout(b"2"))
        assert await alice.message() == Shout(b"2")
        assert (await alice.next(PeerUp)).peer == bob.peer
        assert (await bob.next(PeerUp)).peer == alice.peer
        assert not alice.events
        assert not bob.events

    async def test_what_is_sent_as_soon_as_a_peer_went_down_connects_again(self, world: World) -> None:
        alice, bob = await world.pair()
        alice.network.send(bob.peer, Shout(b"1"))
        assert await bob.message() == Shout(b"1")
        alice.on_down = lambda peer: alice.network.send(peer, Shout(b"2"))
        bob.network.disconnect(alice.peer)
        assert await bob.message() == Shout(b"2")
        kinds = [type(event) for event in alice.events if not isinstance(event, Speaks)]
        assert kinds == [PeerUp, PeerDown, PeerUp]

    async def test_two_dials_that_cross_lose_nothing(self, world: World) -> None:
        alice, bob = await world.pair()
        answering(alice)
        answering(bob)
        for number in range(20):
            alice.network.send(bob.peer, Shout(b"a%d" % number))
            bob.network.send(alice.peer, Shout(b"b%d" % number))
            alice.network.send(bob.peer, Ask(number, b"a%d" % number))
            bob.network.send(alice.peer, Ask(number, b"b%d" % number))
        for station, mine, theirs in ((alice, b"a", b"b"), (bob, b"b", b"a")):
            await station.settled(lambda station=station: len(station.events) == 61)  # type: ignore[misc]
            assert [event for event in station.events if isinstance(event, PeerUp | PeerDown)] == [
                station.events[0]
            ]
            messages = [event.message for event in station.events if isinstance(event, Received)]
            assert [one.text for one in messages if isinstance(one, Shout)] == [
                b"%s%d" % (theirs, number) for number in range(20)
            ]
            assert sorted(one.text for one in messages if isinstance(one, Answer)) == sorted(
                b"%s%d" % (mine, number) for number in range(20)
            )

    async def test_what_is_sent_before_there_is_a_connection_arrives_in_order(self, world: World) -> None:
        alice, bob = await world.pair()
        for number in range(100):
            alice.network.send(bob.peer, Shout(b"%d" % number))
        assert [await bob.message() for _ in range(100)] == [Shout(b"%d" % number) for number in range(100)]

    async def test_a_flood_is_dropped_where_the_queue_is_full_and_never_blocks(self, world: World) -> None:
        alice, bob = await world.pair()
        for number in range(20_000):
            alice.network.send(bob.peer, Shout(b"%d" % number))
        received: list[bytes] = []
        while not received or received[-1] != b"last":
            alice.network.send(bob.peer, Shout(b"last"))
            message = await bob.message()
            assert isinstance(message, Shout)
            received.append(message.text)
        numbers = [int(text) for text in received if text != b"last"]
        assert numbers == sorted(numbers)
        assert len(numbers) < 20_000


class StreamConformance:
    """Embedders' own streams."""

    async def test_streams_carry_bytes_both_ways(self, world: World) -> None:
        alice, bob = await world.pair()
        bob.network.set_handler("/mine/1.0.0", echo)
        stream = await alice.network.open_stream(bob.peer, "/mine/1.0.0")
        assert (stream.peer, stream.protocol) == (bob.peer, "/mine/1.0.0")
        await stream.send_all(b"hello")
        with trio.fail_after(PATIENCE_S):
            assert await stream.receive_some() == b"hello"
        await stream.send_all(b"bye")
        await stream.send_eof()
        assert await read_all(stream) == b"bye"
        await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()

    async def test_much_data_waits_for_a_slow_reader(self, world: World) -> None:
        alice, bob = await world.pair()
        bob.network.set_handler("/mine/1.0.0", echo)
        stream = await alice.network.open_stream(bob.peer, "/mine/1.0.0")
        payload = bytes(range(256)) * 8192  # 2 MiB: eight windows

        async def write() -> None:
            await stream.send_all(payload)
            await stream.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            assert await read_all(stream) == payload

    async def test_a_protocol_nobody_serves_is_refused(self, world: World) -> None:
        alice, bob = await world.pair()
        with pytest.raises(ProtocolUnsupported, match="does not speak /nope"):
            await alice.network.open_stream(bob.peer, "/nope/1.0.0")
        bob.network.set_handler("/nope/1.0.0", echo)
        await (await alice.network.open_stream(bob.peer, "/nope/1.0.0")).aclose()
        bob.network.remove_handler("/nope/1.0.0")
        with pytest.raises(ProtocolUnsupported):
            await alice.network.open_stream(bob.peer, "/nope/1.0.0")

    async def test_a_stream_to_nobody_is_a_dial_error(self, world: World) -> None:
        alice = await world.station("alice")
        with pytest.raises(DialError):
            await alice.network.open_stream(Identity(b"s" * 32).peer_id, "/mine/1.0.0")

    async def test_a_handler_that_raises_ends_its_own_stream_and_nothing_else(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        alice, bob = await world.pair()
        answering(bob)

        async def broken(stream: PeerStream) -> None:
            await stream.receive_some()
            raise ZeroDivisionError("an embedder's bug")

        bob.network.set_handler("/broken/1.0.0", broken)
        bob.network.set_handler("/mine/1.0.0", echo)
        good = await alice.network.open_stream(bob.peer, "/mine/1.0.0")
        bad = await alice.network.open_stream(bob.peer, "/broken/1.0.0")
        await bad.send_all(b"go")
        with pytest.raises(trio.BrokenResourceError):
            await read_all(bad)
        await good.send_all(b"still here")
        with trio.fail_after(PATIENCE_S):
            assert await good.receive_some() == b"still here"
        alice.network.send(bob.peer, Ask(1, b"?"))
        assert await alice.message() == Answer(1, b"?")
        assert "an embedder's bug" in caplog.text

    async def test_a_stream_is_closed_when_its_handler_returns(self, world: World) -> None:
        alice, bob = await world.pair()

        async def brief(stream: PeerStream) -> None:
            await stream.send_all(b"that was all")

        bob.network.set_handler("/brief/1.0.0", brief)
        stream = await alice.network.open_stream(bob.peer, "/brief/1.0.0")
        assert await read_all(stream) == b"that was all"

    async def test_a_crash_breaks_the_streams(self, world: World) -> None:
        alice, bob = await world.pair()
        bob.network.set_handler("/mine/1.0.0", echo)
        stream = await alice.network.open_stream(bob.peer, "/mine/1.0.0")
        await stream.send_all(b"x")
        await bob.stop()
        with pytest.raises(trio.BrokenResourceError):
            await read_all(stream)
            await read_all(stream)


def _is_ask(event: Received) -> bool:
    return isinstance(event.message, Ask)
