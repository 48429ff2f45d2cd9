"""Silence: found in time, never found wrongly. All in virtual time."""

from collections import deque
from collections.abc import Callable
from random import Random

import pytest

from swarmp2p.transport.overlay.config import SessionConfig
from swarmp2p.transport.overlay.frames import Heart
from swarmp2p.transport.overlay.heart import Pulse

from .wire import Pair, Side

Delay = Callable[[float, Random], float]


class Line:
    """One direction of a stream, like TCP: in order; a late piece holds up what follows it.

    rate: bytes/s. room: bytes that the sockets and the network hold; the sender is asked for no more.
    """

    def __init__(self, delay: Delay, rng: Random, rate: float, room: int) -> None:
        self.delay, self.rng, self.rate, self.room = delay, rng, rate, room
        self.queue: deque[tuple[float, bytes]] = deque()
        self.queued = 0
        self.sent_at = self.arrives_at = 0.0

    def put(self, data: bytes, now: float) -> None:
        for at in range(0, len(data), 10_000):
            piece = data[at : at + 10_000]
            self.sent_at = max(now, self.sent_at) + len(piece) / self.rate
            self.arrives_at = max(self.arrives_at, self.sent_at + self.delay(now, self.rng))
            self.queue.append((self.arrives_at, piece))
            self.queued += len(piece)

    def due(self, now: float) -> bytes | None:
        if self.queue and self.queue[0][0] <= now:
            self.queued -= len(self.queue[0][1])
            return self.queue.popleft()[1]
        return None


class Run:
    """Two sessions over two lines, in virtual time. busy: the initiator sends as much as it may."""

    def __init__(self, delay: Delay, seed: int = 1, rate: float = 1e9, room: int = 4 << 20) -> None:
        rng = Random(seed)
        self.pair = Pair(seed=seed, now=0.0)
        self.pair.connect()
        self.to_b, self.to_a = (Line(delay, rng, rate, room) for _ in range(2))
        self.now = 0.0
        self.channel: int | None = None
        self.cut = False
        self.heard: dict[int, float] = {}
        self.ended_at: dict[int, float] = {}

    def until(self, end: float) -> None:
        a, b = self.pair.sides
        while True:
            self.turn(a, self.to_a, self.to_b)
            self.turn(b, self.to_b, self.to_a)
            times = [line.queue[0][0] for line in (self.to_a, self.to_b) if line.queue]
            times += [side.session.deadline() for side in (a, b)]
            self.now = max(self.now, min(times))
            if self.now > end:
                self.now = self.pair.now = end
                return

    def turn(self, side: Side, ins: Line, outs: Line) -> None:
        now = self.pair.now = self.now
        while (data := ins.due(now)) is not None:
            if not self.cut:
                self.heard[id(side)] = now
                side.feed(data, now)
        side.take(side.session.tick(now))
        if side.ended is not None:
            self.ended_at.setdefault(id(side), now)
        if self.channel is not None and side is self.pair.a:
            while (room := side.session.room(self.channel)) > 0:
                side.session.send(self.channel, bytes(min(room, 1 << 18)))
        while outs.queued < outs.room and (data := side.out(1 << 16, now)):
            outs.put(data, now)


def jitter(rng: Random) -> float:
    return 0.075 + rng.uniform(0.0, 0.04)


def bursts(now: float, rng: Random) -> float:
    """75 ms and jitter; one piece in 60 takes up to 1.2 s more, as when TCP sends it again twice."""
    return jitter(rng) + (rng.uniform(0.2, 1.2) if rng.random() < 1 / 60 else 0.0)


def test_an_hour_at_150_ms_with_jitter_and_bursts_accuses_nobody() -> None:
    run = Run(bursts, seed=11)
    run.until(3600.0)
    assert run.ended_at == {}
    for side in run.pair.sides:
        assert 0.15 <= side.session.rtt_s < 0.2


@pytest.mark.parametrize("seed", range(20))
def test_silence_is_found_within_the_limit_and_not_before(seed: int) -> None:
    rng = Random(seed)
    run = Run(lambda now, rng: jitter(rng), seed=seed)
    run.until(rng.uniform(3.0, 8.0))
    run.cut = True
    run.until(run.now + 10.0)
    for side in run.pair.sides:
        silence_s = run.ended_at[id(side)] - run.heard[id(side)]
        assert 1.5 < silence_s <= 1.5 + 3 * 2 * 0.115
        assert side.ended == f"the partner has been silent for {silence_s:.1f} s"


@pytest.mark.parametrize("one_way_s", [0.0001, 0.005, 0.15, 0.4])
def test_the_limit_follows_the_round_trip_time(one_way_s: float) -> None:
    run = Run(lambda now, rng: one_way_s)
    run.until(5.0)
    run.cut = True
    run.until(20.0)
    for side in run.pair.sides:
        silence_s = run.ended_at[id(side)] - run.heard[id(side)]
        assert silence_s == pytest.approx(1.5 + 6 * one_way_s, abs=0.001)


def test_heartbeats_behind_seconds_of_bulk_accuse_nobody() -> None:
    """2 MB/s with 8 MB on the way: a heartbeat takes four seconds to arrive."""
    run = Run(lambda now, rng: jitter(rng), rate=2e6, room=8 << 20)
    run.until(1.0)
    run.channel = run.pair.a.session.open(1, run.now)
    run.until(40.0)
    assert run.ended_at == {}
    assert len(run.pair.b.got[1]) > 60e6
    assert run.pair.a.session.rtt_s > 0.15  # what is measured


def test_a_record_that_takes_seconds_accuses_nobody() -> None:
    """40 kB/s: one record of bulk takes six seconds, and its bytes are the only sign of life meanwhile."""
    run = Run(lambda now, rng: jitter(rng), rate=4e4, room=1 << 16)
    run.until(1.0)
    run.channel = run.pair.a.session.open(1, run.now)
    run.until(60.0)
    assert run.ended_at == {}
    assert len(run.pair.b.got[1]) > 2e6


def test_an_idle_session_says_little() -> None:
    run = Run(lambda now, rng: jitter(rng))
    run.until(10.0)
    out = sum(len(piece) for _, piece in run.to_b.queue)
    assert out <= 2 * 70
    assert run.pair.a.session.deadline() > 10.0


def test_a_process_that_was_stopped_does_not_accuse() -> None:
    run = Run(lambda now, rng: jitter(rng))
    run.until(5.0)
    b = run.pair.b
    for gap_s in (3.0, 30.0, 3000.0):
        now = run.now = run.now + gap_s
        b.take(b.session.tick(now))  # before what has come meanwhile is read
        assert b.ended is None
        assert now < b.session.deadline() + 0.3
    # From here on it runs, and nothing comes: then it does find silence.
    while b.ended is None:
        now = b.session.deadline()
        b.take(b.session.tick(now))
    assert 1.0 < now - run.now < 2.5


def test_a_new_stream_within_the_limit_resumes_and_after_it_is_too_late() -> None:
    for pause_s, ended in ((1.9, False), (2.3, True)):
        run = Run(lambda now, rng: 0.075)
        run.until(5.0)
        cut_at = run.now
        run.pair.cut()
        for line in (run.to_a, run.to_b):
            line.queue.clear()
        run.until(cut_at + pause_s - 0.3)
        run.pair.connect()
        run.until(cut_at + 10.0)
        assert bool(run.ended_at) is ended


def test_a_session_without_any_stream_ends() -> None:
    pair = Pair(now=0.0)
    assert pair.a.session.deadline() == SessionConfig().establish_s
    pair.a.take(pair.a.session.tick(SessionConfig().establish_s))
    assert pair.a.ended == "no carrier connection proved itself within 15 s"


def test_the_smallest_round_trip_of_the_last_seconds_counts() -> None:
    pulse = Pulse(0.0, SessionConfig())
    for tenth in range(400):
        now = tenth / 10
        pulse.measure(0.1 if now < 20 else 0.3, now)
        assert pulse.rtt_s == pytest.approx(0.1 if now < 30 else pulse.rtt_s)
    assert pulse.rtt_s == pytest.approx(0.3)


def test_a_partner_cannot_stretch_the_limit_without_end() -> None:
    pulse = Pulse(0.0, SessionConfig())
    pulse.heart_came(Heart(1, 1, 0), 5000.0)
    assert pulse.silent_at <= 1.5 + 3 * 3.0
    pulse.heart_came(Heart(1, 2**63, 2**63), 5000.0)  # nor make it negative
    assert pulse.silent_at >= 1.5


def test_a_record_that_never_ends_is_no_life() -> None:
    pulse = Pulse(0.0, SessionConfig())
    now = 0.0
    while now < pulse.silent_at:
        now += 0.25
        pulse.ran(now)
        pulse.bytes_came(now)
        assert now < 60.0
