"""Credit, turns and windows: no channel holds up another, and nothing exceeds its bound."""

import tracemalloc
from random import Random

import pytest

from swarmp2p.transport.overlay import frames
from swarmp2p.transport.overlay.config import SessionConfig
from swarmp2p.transport.overlay.events import Data
from swarmp2p.transport.overlay.session import Session

from .wire import Pair, connected


def opened(session: Session, count: int, now: float) -> list[int]:
    channels = [session.open(1, now) for _ in range(count)]
    assert None not in channels
    return [channel for channel in channels if channel is not None]


def test_one_stalled_channel_of_200_costs_the_others_nothing() -> None:
    pair = connected()
    channels = opened(pair.a.session, 200, pair.now)
    stalled = channels[70]
    pair.b.greedy = False
    piece = bytes(1 << 15)
    for _ in range(120):
        pair.now += 0.01
        for channel in channels:
            while pair.a.session.room(channel) >= len(piece):
                pair.a.session.send(channel, piece)
        pair.b.feed(pair.a.out(1 << 20, pair.now), pair.now)
        for event in pair.b.events:
            if isinstance(event, Data) and event.channel != stalled:
                pair.b.session.consumed(event.channel, len(event.data))
        pair.b.events.clear()
        pair.a.feed(pair.b.out(1 << 20, pair.now), pair.now)
    brought = {channel: len(pair.b.got[channel]) for channel in channels}
    assert brought.pop(stalled) == SessionConfig().first_window_bytes
    assert sum(brought.values()) > 120e6
    assert min(brought.values()) > 0.9 * max(brought.values())


def test_a_small_message_overtakes_200_bulk_transfers() -> None:
    pair = connected()
    channels = opened(pair.a.session, 201, pair.now)
    for channel in channels[:200]:
        while room := pair.a.session.room(channel):
            pair.a.session.send(channel, bytes(min(room, 1 << 16)))
    pair.b.feed(pair.a.out(20 << 20, pair.now), pair.now)  # each had its first turn, and has more to send
    assert pair.a.session.queued > 10 << 20
    pair.a.session.send(channels[200], b"now")
    pair.b.feed(pair.a.out(1, pair.now), pair.now)
    assert pair.b.got[channels[200]] == b"now"


def test_control_goes_before_data() -> None:
    pair = connected()
    one, two = opened(pair.a.session, 2, pair.now)
    pair.a.session.send(one, bytes(1 << 17))
    pair.a.session.reset(two)
    third = pair.a.session.open(9, pair.now)
    assert third is not None
    pair.b.feed(pair.a.out(1, pair.now), pair.now)
    assert [channel for channel, _ in pair.b.opened] == [one, two, third]
    assert pair.b.reset == [two]


def test_small_messages_share_records() -> None:
    pair = connected()
    channels = opened(pair.a.session, 100, pair.now)
    pair.settle()
    for channel in channels:
        pair.a.session.send(channel, bytes(64))
    assert pair.a.carrier is not None
    out = pair.a.carrier.outgoing(1 << 20, pair.now)
    assert len(out) == 1
    assert len(out[0]) == 6 + 8 + 16 + 100 * (7 + 64)


@pytest.mark.parametrize("rtt_s", [0.05, 0.15])
def test_a_window_grows_until_it_carries_100_mb_a_second(rtt_s: float) -> None:
    """One flight each round trip, so the window alone sets the pace."""
    pair = Pair(now=0.0)
    pair.connect()
    for _ in range(3):
        crossing = pair.a.out(1 << 20, pair.now), pair.b.out(1 << 20, pair.now)
        pair.now += rtt_s / 2
        pair.b.feed(crossing[0], pair.now)
        pair.a.feed(crossing[1], pair.now)
    (channel,) = opened(pair.a.session, 1, pair.now)
    flights: list[int] = []
    for _ in range(11):
        before = len(pair.b.got.get(channel, b""))
        for _ in range(40):
            while room := pair.a.session.room(channel):
                pair.a.session.send(channel, bytes(min(room, 1 << 18)))
            pair.b.feed(pair.a.out(1 << 20, pair.now), pair.now)
        pair.a.session.roomy()
        flights.append(len(pair.b.got[channel]) - before)
        pair.now += rtt_s / 2
        back = pair.b.out(1 << 20, pair.now)
        pair.now += rtt_s / 2
        pair.a.feed(back, pair.now)
    assert flights[0] == SessionConfig().first_window_bytes
    assert flights[-1] >= min(100e6 * rtt_s, 15e6)


def test_a_window_does_not_grow_for_a_slow_reader() -> None:
    pair = connected()
    pair.b.greedy = False
    (channel,) = opened(pair.a.session, 1, pair.now)
    for _ in range(200):
        pair.now += 0.01
        while room := pair.a.session.room(channel):
            pair.a.session.send(channel, bytes(room))
        pair.settle()
        pair.b.session.consumed(channel, 10_000)
    unread = len(pair.b.got[channel]) - 200 * 10_000
    assert unread <= SessionConfig().first_window_bytes


def test_all_windows_grow_within_one_budget() -> None:
    config = SessionConfig(first_window_bytes=1 << 16, growth_most_bytes=1 << 18)
    pair = connected(config)
    channels = opened(pair.a.session, 20, pair.now)
    for _ in range(50):
        for channel in channels:
            while room := pair.a.session.room(channel):
                pair.a.session.send(channel, bytes(room))
        pair.settle()
    pair.b.greedy = False
    before = sum(map(len, pair.b.got.values()))
    for _ in range(50):
        for channel in channels:
            while room := pair.a.session.room(channel):
                pair.a.session.send(channel, bytes(room))
        pair.settle()
    assert sum(map(len, pair.b.got.values())) - before <= 20 * (1 << 16) + (1 << 18)


def test_what_is_queued_is_bounded_and_nobody_is_left_out() -> None:
    config = SessionConfig(queue_most_bytes=50_000, queues_most_bytes=200_000, queue_least_bytes=5000)
    pair = Pair(config)  # no stream: nothing leaves
    channels = opened(pair.a.session, 100, pair.now)
    for _ in range(3):
        for channel in channels:
            pair.a.session.send(channel, bytes(pair.a.session.room(channel)))
    assert pair.a.session.queued <= 200_000 + 50_000 + 100 * 5000
    pair.connect()
    pair.settle()
    assert min(len(got) for got in pair.b.got.values()) >= 5000
    assert len(pair.b.got) == 100
    assert sorted(pair.a.session.roomy()) == channels
    assert min(pair.a.session.room(channel) for channel in channels) == 50_000


def test_roomy_names_each_channel_once_when_it_has_room() -> None:
    pair = connected(SessionConfig(first_window_bytes=1000))
    pair.b.greedy = False
    (channel,) = opened(pair.a.session, 1, pair.now)
    pair.a.session.send(channel, bytes(1000))
    assert pair.a.session.room(channel) == 0
    pair.settle()
    assert pair.a.session.roomy() == []
    pair.now += 1.0  # a slow reader: its window does not grow
    pair.b.take(pair.b.session.tick(pair.now))
    pair.b.session.consumed(channel, 600)
    pair.settle()
    assert pair.a.session.roomy() == [channel]
    assert pair.a.session.roomy() == []
    assert pair.a.session.room(channel) == 600


def test_more_than_room_is_our_own_bug() -> None:
    pair = connected(SessionConfig(first_window_bytes=1000))
    (channel,) = opened(pair.a.session, 1, pair.now)
    with pytest.raises(ValueError, match="ask room"):
        pair.a.session.send(channel, bytes(1001))
    pair.a.session.send(channel, bytes(1000))
    pair.settle()
    with pytest.raises(ValueError, match="cannot be consumed"):
        pair.b.session.consumed(channel, 1001)


def test_half_closed_channels_end_when_both_are_done() -> None:
    pair = connected()
    pair.b.greedy = False
    (channel,) = opened(pair.a.session, 1, pair.now)
    pair.a.session.send(channel, b"question")
    pair.a.session.finish(channel)
    pair.settle()
    assert pair.b.got == {channel: b"question"}
    assert pair.b.finished == [channel]
    pair.b.session.send(channel, b"answer")
    pair.b.session.finish(channel)
    pair.settle()
    assert pair.a.got == {channel: b"answer"}
    assert pair.a.finished == [channel]
    assert pair.a.session.open_channels == 0
    assert pair.b.session.open_channels == 1  # until what came is consumed
    pair.b.session.consumed(channel, len(b"question"))
    assert pair.b.session.open_channels == 0


def test_a_reset_drops_what_was_not_sent_and_frees_both_sides() -> None:
    pair = connected()
    (channel,) = opened(pair.a.session, 1, pair.now)
    pair.settle()
    pair.a.session.send(channel, bytes(100_000))
    pair.a.session.reset(channel)
    assert pair.a.session.queued == 0
    pair.b.session.send(channel, b"crossing")
    pair.settle()
    assert pair.b.reset == [channel]
    assert pair.a.got == {}
    assert [side.session.open_channels for side in pair.sides] == [0, 0]
    for side in pair.sides:  # late words about a channel that is gone do nothing
        side.session.send(channel, b"late")
        side.session.finish(channel)
        side.session.consumed(channel, 5)
        side.session.reset(channel)
        assert side.session.room(channel) == 0
    pair.settle()
    assert [side.ended for side in pair.sides] == [None, None]


def test_channels_above_the_most_are_reset() -> None:
    pair = Pair(SessionConfig(channels_most=50), SessionConfig(channels_most=30))
    pair.connect()
    channels = opened(pair.a.session, 50, pair.now)
    assert pair.a.session.open(1, pair.now) is None
    for channel in channels:
        pair.a.session.send(channel, b"early")
    pair.settle()
    assert pair.a.reset == channels[30:]
    assert pair.b.session.open_channels == 30


def test_too_much_held_resets_the_channel_that_holds_most() -> None:
    pair = connected(SessionConfig(held_most_bytes=100_000))
    pair.b.greedy = False
    channels = opened(pair.a.session, 5, pair.now)
    for channel, size in zip(channels, (10_000, 30_000, 20_000, 30_001, 20_000), strict=True):
        pair.a.session.send(channel, bytes(size))
    pair.settle()
    assert pair.b.reset == [channels[3]]
    assert pair.a.reset == [channels[3]]
    assert pair.b.session.open_channels == 4


def test_an_idle_channel_costs_less_than_2_kb() -> None:
    pair = connected()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        opened(pair.a.session, 1000, pair.now)
        pair.settle()
        pair.a.events.clear()
        pair.b.events.clear()
        pair.a.session.tick(pair.now + 0.3)
        pair.settle()
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert used / 2000 < 1000


def test_what_is_kept_is_bounded_when_nothing_is_acknowledged() -> None:
    config = SessionConfig(unacknowledged_most_bytes=1 << 20)
    pair = connected(config)
    channels = opened(pair.a.session, 50, pair.now)
    for _ in range(20):
        for channel in channels:
            pair.a.session.send(channel, bytes(pair.a.session.room(channel)))
        pair.a.out(1 << 22, pair.now)
    assert (1 << 20) <= pair.a.session.kept_bytes <= (1 << 20) + (1 << 19)
    assert pair.a.ended is None


def seal(pair: Pair, frame: bytes, body: bytes | None = None) -> bytes:
    """A true record of a partner that breaks the protocol."""
    assert pair.a.carrier is not None
    out: list[bytes] = []
    pair.a.carrier.seal(1, 0, frame, body, out, pair.now)
    return b"".join(out)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (frames.finish_frame(7), "nobody opened"),
        (frames.finish_frame(2), "nobody opened"),
        (frames.open_frame(5, 1), "opened after 1"),
        (frames.open_frame(1, 1), "opened after 1"),
        (frames.open_frame(2, 1), "opened after 1"),
        (frames.data_head(1, 5) + b"1234", "ends behind"),
        (frames.data_head(1, 2001) + bytes(2001), "more than it may"),
        (frames.finish_frame(1) + frames.data_head(1, 1) + b"1", "more than it may"),
        (2 * frames.finish_frame(1), "finishes twice"),
        (b"\x09", "no frame of type 9"),
        (frames.heart_frame(frames.Heart(1, 1, 1)), "no frame of type 7"),
    ],
)
def test_a_proven_partner_that_breaks_the_protocol_ends_the_session(frame: bytes, reason: str) -> None:
    pair = connected(SessionConfig(first_window_bytes=2000))
    opened(pair.a.session, 1, pair.now)
    pair.settle()
    pair.b.feed(seal(pair, frame), pair.now)
    assert pair.b.ended is not None
    assert reason in pair.b.ended
    assert pair.b.session.over
    assert pair.b.session.open(1, pair.now) is None
    assert pair.b.session.attach(pair.now).closed
    assert pair.b.session.deadline() == float("inf")


def test_a_partner_that_acknowledges_what_was_not_sent_ends_the_session() -> None:
    pair = connected()
    out: list[bytes] = []
    assert pair.a.carrier is not None
    pair.a.carrier.seal(0, 1, b"", None, out, pair.now)
    pair.b.feed(b"".join(out), pair.now)
    assert pair.b.ended is not None
    assert "which it cannot" in pair.b.ended


def test_a_partner_that_opens_without_end_and_reads_nothing_is_bounded() -> None:
    """Each refused open makes us say something; a partner that never takes it is through."""
    pair = connected(SessionConfig(channels_most=4, pending_most=1000))
    number = 1
    while pair.b.ended is None:
        frame = b"".join(frames.open_frame(number + 2 * n, 1) for n in range(200))
        number += 400
        pair.b.feed(seal(pair, frame), pair.now)
        assert number < 10_000
    assert "does not read" in pair.b.ended


def test_a_partner_that_reads_and_never_acknowledges_is_bounded() -> None:
    pair = connected(SessionConfig(channels_most=4, unacknowledged_most_bytes=10_000))
    rng = Random(1)
    number = 1
    while not pair.b.session.over:
        pair.b.feed(seal(pair, frames.open_frame(number, rng.randrange(65536))), pair.now)
        pair.b.out(1 << 16, pair.now)
        number += 2
        assert number < 1000
    pair.b.take(pair.b.session.tick(pair.now))
    assert pair.b.ended == "the partner acknowledges nothing"


def test_what_came_is_acknowledged_when_nothing_else_is_said() -> None:
    pair = connected()
    pair.b.greedy = False
    for channel in opened(pair.a.session, 20, pair.now):
        pair.a.session.send(channel, bytes(pair.a.session.room(channel)))
    most = 0
    while flight := pair.a.out(1 << 18, pair.now):
        pair.b.feed(flight, pair.now)
        pair.a.feed(pair.b.out(1 << 18, pair.now), pair.now)
        most = max(most, pair.a.session.kept_bytes)
    assert most < (1 << 20) + (1 << 19)
    pair.now += 0.3  # and the rest with the next heartbeat
    pair.b.take(pair.b.session.tick(pair.now))
    pair.a.feed(pair.b.out(1 << 18, pair.now), pair.now)
    assert pair.a.session.kept_bytes == 0
