"""Sessions: channels over carrier connections that come and go."""

from random import Random

import pytest

from swarmp2p.transport.overlay.config import SessionConfig

from .wire import Pair, connected


def test_data_follows_an_open_in_the_first_flight() -> None:
    pair = connected()
    channel = pair.a.session.open(6379, pair.now)
    assert channel == 1
    pair.a.session.send(channel, b"hello")
    pair.b.feed(pair.a.out(1 << 16, pair.now), pair.now)
    assert pair.b.opened == [(1, 6379)]
    assert pair.b.got == {1: b"hello"}


def test_channels_opened_before_the_first_stream_carry_data_once_it_stands() -> None:
    pair = Pair()
    one, two = pair.a.session.open(1, pair.now), pair.b.session.open(2, pair.now)
    assert one == 1
    assert two == 2
    pair.a.session.send(one, b"from a")
    pair.b.session.send(two, b"from b")
    pair.connect()
    pair.settle()
    assert pair.b.got == {1: b"from a"}
    assert pair.a.got == {2: b"from b"}


@pytest.mark.parametrize("aes", [(True, True), (True, False), (False, True), (False, False)])
def test_every_mix_of_machines_finds_a_cipher(aes: tuple[bool, bool]) -> None:
    pair = Pair(SessionConfig(aes=aes[0]), SessionConfig(aes=aes[1]))
    pair.connect()
    channel = pair.a.session.open(1, pair.now)
    assert channel is not None
    pair.a.session.send(channel, bytes(100_000))
    pair.settle()
    assert pair.b.got == {1: bytes(100_000)}


def test_bulk_comes_whole_through_small_windows() -> None:
    pair = connected(SessionConfig(first_window_bytes=1000, window_most_bytes=5000))
    data = Random(2).randbytes(100_000)
    channel = pair.b.session.open(1, pair.now)
    assert channel is not None
    at = 0
    while at < len(data):
        size = pair.b.session.room(channel)
        pair.b.session.send(channel, data[at : at + size])
        at += size
        pair.settle()
    pair.b.session.finish(channel)
    pair.settle()
    assert pair.a.got == {channel: data}
    assert pair.a.finished == [channel]


def test_a_cut_loses_nothing_and_doubles_nothing() -> None:
    pair = connected()
    data = Random(3).randbytes(3_000_000)
    channel = pair.a.session.open(1, pair.now)
    assert channel is not None
    at = 0
    while at < len(data):
        size = pair.a.session.room(channel)
        pair.a.session.send(channel, data[at : at + size])
        at += size
        flight = pair.a.out(1 << 20, pair.now)
        pair.b.feed(flight[: len(flight) // 3], pair.now)  # the rest is lost with the stream
        pair.connect()
        pair.settle()
    pair.a.session.finish(channel)
    pair.settle()
    assert pair.b.got == {channel: data}
    assert pair.b.finished == [channel]
    assert pair.a.ended is None
    assert pair.b.ended is None


def test_large_pieces_of_several_channels_are_cut_and_come_in_order() -> None:
    pair = connected()
    rng = Random(4)
    sent: dict[int, bytes] = {}
    for _ in range(3):
        channel = pair.a.session.open(1, pair.now)
        assert channel is not None
        pieces = [rng.randbytes(size) for size in (100_000, 70, 60_000, 30_000, 40_000, 20_000)]
        for piece in pieces:
            pair.a.session.send(channel, piece)
        pair.a.session.finish(channel)
        sent[channel] = b"".join(pieces)
    pair.settle()
    assert pair.b.got == sent
    assert sorted(pair.b.finished) == sorted(sent)


def test_a_responder_takes_nothing_more_from_the_old_stream_once_a_new_one_is_true() -> None:
    """It has said what it received: what the old stream still brings will come again on the new one."""
    pair = connected()
    channel = pair.a.session.open(1, pair.now)
    assert channel is not None
    pair.a.session.send(channel, b"once")
    late = pair.a.out(1 << 16, pair.now)
    old = pair.b.carrier
    assert old is not None
    for side in pair.sides:
        side.carrier = side.session.attach(pair.now)
    pair.b.feed(pair.a.out(1 << 16, pair.now), pair.now)
    assert old.closed
    assert old.receive(late, pair.now) == []
    assert pair.b.got == {}
    pair.settle()
    assert pair.b.got == {channel: b"once"}


def test_a_stream_that_never_proved_itself_takes_nothing_away() -> None:
    """The responder's new stream, before its first hello has come, leaves the old one working."""
    pair = connected()
    old, channel = pair.b.carrier, pair.a.session.open(1, pair.now)
    assert old is not None
    assert channel is not None
    pair.b.session.attach(pair.now)
    pair.a.session.send(channel, b"still")
    pair.settle()
    assert pair.b.got == {channel: b"still"}
    assert not old.closed
