"""Bytes that the partner did not send there: none is believed, and the session goes on over another stream."""

from collections.abc import Callable
from random import Random

import pytest

from swarmp2p.transport.overlay.config import SessionConfig
from swarmp2p.transport.overlay.crypto import Chain, Cipher, Direction, Greeting, answer
from swarmp2p.transport.overlay.events import Dropped, Established
from swarmp2p.transport.overlay.faults import Untrue
from swarmp2p.transport.overlay.records import (
    COUNTED,
    RECORD_MOST,
    ReceiveBuffer,
    Record,
    RecordReader,
    RecordWriter,
)

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


def records(secret: bytes, count: int, rng: Random) -> list[bytes]:
    writing = RecordWriter(Direction(secret, Cipher.AES_256_GCM), SessionConfig(), 0.0)
    made: list[bytes] = []
    for number in range(count):
        out: list[bytes] = []
        body = rng.randbytes(rng.randrange(1, 200)) if rng.random() < 0.5 else None
        writing.seal(rng.choice((0, COUNTED)), number, rng.randbytes(rng.randrange(20, 100)), body, out, 0.0)
        made.append(b"".join(out))
    return made


def test_a_hundred_thousand_changed_records_open_never_and_harm_nothing() -> None:
    """Each attempt meets a reader at the n-th of 12 records; after it, that reader opens the genuine one."""
    rng = Random(7)
    rest = rng.randbytes(RECORD_MOST)  # so that no length, however changed, leaves a record waiting for more
    genuine = records(SECRET, 12, rng)
    foreign = records(bytes(32), 12, rng)
    attempts = 0
    for at in range(1, 11):
        direction = Direction(SECRET, Cipher.AES_256_GCM)
        buffer = ReceiveBuffer()
        reading = RecordReader(direction, buffer)
        for record in genuine[:at]:
            assert taken(reading, buffer, record) is not None
        for number in range(10_000):
            change = CHANGES[number % len(CHANGES)]
            changed = foreign[at] if number == 0 else change(rng, genuine, at)
            if genuine[at].startswith(changed) or changed.startswith(genuine[at]):
                changed = genuine[at][:-1] + bytes([genuine[at][-1] ^ 1])
            attempts += 1
            with pytest.raises(Untrue):
                if taken(reading, buffer, changed) is None:
                    taken(reading, buffer, rest)
                    pytest.fail(f"{change.__name__} waits for more than any record has")
            buffer.start = buffer.end = 0
            reading.needed = 0
        assert taken(reading, buffer, genuine[at]) is not None
    assert attempts == 100_000


def taken(reading: RecordReader, buffer: ReceiveBuffer, data: bytes) -> Record | None:
    """One record, after all of `data`."""
    rest = memoryview(data)
    while rest:
        room = buffer.free(reading.needed)
        size = min(len(room), len(rest))
        room[:size] = rest[:size]
        buffer.end += size
        rest = rest[size:]
        if (record := reading.next()) is not None:
            return record
    return None


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
