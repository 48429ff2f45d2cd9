"""Bytes that the partner did not send there: none is believed, and the session goes on over another stream."""

from collections.abc import Callable
from random import Random

import pytest

from swarmp2p.transport.overlay import crypto
from swarmp2p.transport.overlay.carrier import Carrier
from swarmp2p.transport.overlay.config import SessionConfig
from swarmp2p.transport.overlay.crypto import Chain, Greeting, answer
from swarmp2p.transport.overlay.events import Dropped, Established
from swarmp2p.transport.overlay.faults import Untrue
from swarmp2p.transport.overlay.records import RECORD_MOST
from swarmp2p.transport.overlay.session import Session

from .wire import SECRET, Pair, connected

Change = Callable[[Random, list[bytes], int], bytes]


def forge(rng: Random, genuine: list[bytes], at: int) -> bytes:
    """A record of the right shape made of random bytes."""
    return genuine[at][:6] + rng.randbytes(len(genuine[at]) - 6)


def flip(rng: Random, genuine: list[bytes], at: int) -> bytes:
    """One bit is another."""
    changed = bytearray(genuine[at])
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def splice(rng: Random, genuine: list[bytes], at: int) -> bytes:
    """One record's head with another's body."""
    other = genuine[rng.choice([n for n in range(len(genuine)) if n != at])]
    cut = rng.randrange(1, min(len(other), len(genuine[at])))
    return genuine[at][:cut] + other[cut:]


def replay(rng: Random, genuine: list[bytes], at: int) -> bytes:
    """An earlier record again."""
    return genuine[rng.randrange(at)]


def skip(rng: Random, genuine: list[bytes], at: int) -> bytes:
    """A later record before its turn."""
    return genuine[rng.randrange(at + 1, len(genuine))]


def truncate(rng: Random, genuine: list[bytes], at: int) -> bytes:
    """A record that ends early, and the one that follows it."""
    return genuine[at][: rng.randrange(len(genuine[at]))] + genuine[at + 1]


def shrink(rng: Random, genuine: list[bytes], at: int) -> bytes:
    """A record with a head that fits what is left of it."""
    kept = rng.randrange(24, len(genuine[at]) - 5)
    return kept.to_bytes(2, "big") + genuine[at][2:3] + bytes(3) + genuine[at][6 : 6 + kept]


CHANGES: tuple[Change, ...] = (forge, flip, splice, replay, skip, truncate, shrink)


def test_a_hundred_thousand_changed_records_are_rejected_and_confuse_nobody() -> None:
    """Whole sessions, over one carrier connection. At each of ten places in a stream of records, 10,000 changed ones
    come in the place of the genuine one. Each time all that is told is that the connection is given up, and nothing of
    the session has changed: it is wound back to before, and after 10,000 of them takes the genuine record and all that
    follow it. (That another connection goes on where the first one ended: the tests below.)"""
    rng = Random(7)
    rest = rng.randbytes(RECORD_MOST)  # so that no length, however changed, leaves a record waiting for more
    pair, foreign = connected(), connected(seed=2)
    sent, genuine = flights(pair, rng)
    _, others = flights(foreign, rng)
    session, carrier = pair.b.session, pair.b.carrier
    assert carrier is not None
    attempts = 0
    pair.b.feed(genuine[0], pair.now)
    for at in range(1, 11):
        before = Snapshot(session, carrier)
        for number in range(10_000):
            change = CHANGES[number % len(CHANGES)]
            changed = others[at] if number == 0 else change(rng, genuine, at)
            if genuine[at].startswith(changed) or changed.startswith(genuine[at]):
                changed = genuine[at][:-1] + bytes([genuine[at][-1] ^ 1])
            events = carrier.receive(changed, pair.now)
            if not carrier.closed:
                assert events == [], change.__name__
                events = carrier.receive(rest, pair.now)
            assert [type(event) for event in events] == [Dropped], change.__name__
            assert carrier.closed
            assert carrier.outgoing(1 << 16, pair.now) == []
            assert carrier.receive(genuine[at], pair.now) == []
            before.restore()
            attempts += 1
        pair.b.feed(genuine[at], pair.now)
    pair.b.feed(b"".join(genuine[11:]), pair.now)
    assert attempts == 100_000
    assert pair.b.got == sent
    assert (pair.b.dropped, pair.b.ended) == ([], None)
    pair.settle()
    assert (pair.a.dropped, pair.a.ended) == ([], None)


def flights(pair: Pair, rng: Random) -> tuple[dict[int, bytes], list[bytes]]:
    """What the initiator sends on two channels, and the 12 records of that."""
    sent: dict[int, bytes] = {}
    made: list[bytes] = []
    channels = [pair.a.session.open(1, pair.now) for _ in range(2)]
    for number in range(12):
        channel = channels[number % 2]
        assert channel is not None
        data = rng.randbytes(rng.choice((10, 300, 9_000)))
        pair.a.session.send(channel, data)
        sent[channel] = sent.get(channel, b"") + data
        made.append(pair.a.out(1, pair.now))
    assert all(made)
    return sent, made


class Snapshot:
    """A session and its carrier connection as they are between two records. Giving a connection up may change what the
    carrier is and that it is the session's: no more is wound back, the rest has to be the same."""

    def __init__(self, session: Session, carrier: Carrier) -> None:
        self._session, self._carrier = session, carrier
        self._attributes = {name: getattr(carrier, name) for name in Carrier.__slots__}
        self._buffer = carrier._buffer  # pyright: ignore[reportPrivateUsage]
        self._lies = bytes(self._buffer.view[self._buffer.start : self._buffer.end])
        self._seen = self._look()

    def _look(self) -> object:
        """What a record that is believed changes."""
        session = self._session
        channels = session._channels  # pyright: ignore[reportPrivateUsage]
        return (
            session._received,  # pyright: ignore[reportPrivateUsage]
            tuple(session._events),  # pyright: ignore[reportPrivateUsage]
            session._pulse.silent_at,  # pyright: ignore[reportPrivateUsage]
            (session.over, session.kept_bytes, session.queued, session.rtt_s),
            [(each.number, each.credit, each.allowance, each.held) for each in channels.values()],
        )

    def restore(self) -> None:
        """Undo, after seeing that there is nothing else to undo."""
        session = self._session
        assert session._carriers == {}  # pyright: ignore[reportPrivateUsage]
        assert session._present is None  # pyright: ignore[reportPrivateUsage]
        assert self._look() == self._seen
        for name, value in self._attributes.items():
            setattr(self._carrier, name, value)
        self._buffer.start, self._buffer.end = 0, len(self._lies)
        self._buffer.view[: len(self._lies)] = self._lies
        session._carriers[self._carrier.number] = self._carrier  # pyright: ignore[reportPrivateUsage]
        session._present = self._carrier  # pyright: ignore[reportPrivateUsage]


def test_ten_thousand_forged_first_hellos_change_nothing() -> None:
    rng = Random(3)
    ours, theirs = Chain(SECRET), Chain(SECRET)
    genuine = Greeting(ours, rng, aes=True).first
    for number in range(10_000):
        changed = bytearray(genuine)
        if number % 2:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        else:
            changed[22:] = rng.randbytes(len(changed) - 22)
        with pytest.raises(Untrue):
            answer(theirs, bytes(changed), rng, aes=True)
    assert theirs.epoch == 0
    answer(theirs, genuine, rng, aes=True)


def test_forged_hellos_of_late_epochs_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has seen a session's tag may send them; the way to the last epoch is gone once."""
    steps = 0

    def counted(key: bytes, data: bytes) -> bytes:
        nonlocal steps
        steps += data == b"next"
        return prf(key, data)

    prf = crypto._prf  # pyright: ignore[reportPrivateUsage]
    ours, theirs = Chain(SECRET), Chain(SECRET)
    monkeypatch.setattr(crypto, "_prf", counted)
    last = [Greeting(ours, Random(1), aes=True).first for _ in range(crypto.EPOCHS_AHEAD_MOST)][-1]
    steps = 0
    for number in range(1000):
        with pytest.raises(Untrue):
            answer(theirs, last[:-1] + bytes([last[-1] ^ 1 + number % 255]), Random(1), aes=True)
    assert steps == crypto.EPOCHS_AHEAD_MOST
    answer(theirs, last, Random(1), aes=True)
    assert theirs.epoch == crypto.EPOCHS_AHEAD_MOST
    assert theirs.at(theirs.epoch) == ours.at(ours.epoch)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", range(30))
def test_a_changed_stream_is_dropped_and_the_session_resumes(change: Change, seed: int) -> None:
    rng = Random(seed)
    pair = connected(seed=seed)
    channel = pair.a.session.open(1, pair.now)
    assert channel is not None
    sent = b""
    flights: list[bytes] = []
    for _ in range(8):
        data = rng.randbytes(rng.choice((10, 300, 20_000)))
        pair.a.session.send(channel, data)
        sent += data
        flights.append(pair.a.out(1, pair.now))
    at = rng.randrange(1, 7)
    for flight in flights[:at]:
        pair.b.feed(flight, pair.now)
    before = bytes(pair.b.got[channel])
    changed = change(rng, flights, at)
    if changed == flights[at]:
        changed = changed[:-1] + bytes([changed[-1] ^ 1])
    pair.b.feed(changed, pair.now)
    while pair.b.carrier is not None:
        pair.b.feed(rng.randbytes(100_000), pair.now)
    assert pair.b.got[channel] == before
    assert len(pair.b.dropped) == 1
    pair.connect()
    pair.settle()
    assert pair.b.got[channel] == sent
    assert (pair.a.ended, pair.b.ended) == (None, None)


def test_a_repeated_flight_is_dropped() -> None:
    pair = connected()
    channel = pair.a.session.open(1, pair.now)
    assert channel is not None
    pair.a.session.send(channel, b"once")
    flight = pair.a.out(1 << 16, pair.now)
    pair.b.feed(flight + flight, pair.now)
    assert pair.b.got == {channel: b"once"}
    assert "forged, repeated or out of its place" in pair.b.dropped[0]


def test_a_stream_reflected_or_recorded_proves_nothing() -> None:
    pair = connected()
    recorded: list[bytes] = []
    pair.connect()
    recorded.append(pair.a.out(1 << 16, pair.now))
    pair.b.feed(recorded[0], pair.now)
    answered = pair.b.out(1 << 16, pair.now)
    pair.a.feed(answered, pair.now)
    recorded.append(pair.a.out(1 << 16, pair.now))
    pair.b.feed(recorded[1], pair.now)

    # All that the initiator sent then, again: its epoch is over.
    stranger = pair.b.session.attach(pair.now)
    events = stranger.receive(b"".join(recorded), pair.now)
    assert [type(event) for event in events] == [Dropped]
    # What the responder answers, to an initiator that begins anew: its keys are others.
    pair.a.carrier = pair.a.session.attach(pair.now)
    pair.a.out(1 << 16, pair.now)
    pair.a.feed(answered, pair.now)
    assert "forged" in pair.a.dropped[-1]
    # The initiator's own hello, back: no second hello begins like this.
    pair.a.carrier = pair.a.session.attach(pair.now)
    pair.a.feed(pair.a.out(1 << 16, pair.now), pair.now)
    assert "version" in pair.a.dropped[-1]
    # After all of that the two still find each other.
    pair.connect()
    pair.settle()
    assert pair.a.session.open(1, pair.now) is not None
    pair.settle()
    assert pair.b.opened


def test_strangers_streams_leave_the_present_one_alone() -> None:
    pair = connected()
    rng = Random(5)
    strangers = [pair.b.session.attach(pair.now) for _ in range(50)]
    assert sum(not stranger.closed for stranger in strangers) == SessionConfig().unproven_most
    for stranger in strangers:
        stranger.receive(pair.b.session.tag + rng.randbytes(500), pair.now)
        assert stranger.closed
        assert stranger.outgoing(1 << 16, pair.now) == []
    channel = pair.a.session.open(1, pair.now)
    assert channel is not None
    pair.a.session.send(channel, b"still here")
    pair.settle()
    assert pair.b.got == {channel: b"still here"}


def test_a_stream_that_proves_nothing_is_dropped_in_time() -> None:
    pair = Pair()
    stranger = pair.b.session.attach(pair.now)
    stranger.receive(pair.b.session.tag, pair.now)
    assert pair.b.session.deadline() == pair.now + SessionConfig().handshake_s
    events = pair.b.session.tick(pair.now + SessionConfig().handshake_s)
    assert [type(event) for event in events] == [Dropped]
    assert stranger.closed


def test_nothing_is_believed_before_both_have_proven_themselves() -> None:
    """A responder that was only sent a true first hello (by whom, it cannot know) opens nothing and says nothing."""
    pair = Pair()
    pair.connect()
    channel = pair.b.session.open(1, pair.now)
    assert channel is not None
    pair.b.session.send(channel, b"secret")
    pair.b.feed(pair.a.out(1 << 16, pair.now), pair.now)
    first = pair.b.out(1 << 16, pair.now)
    assert len(first) < 80
    assert pair.b.out(1 << 16, pair.now) == b""
    assert not [event for event in pair.b.events if isinstance(event, Established)]
