"""Yamux: two sessions talk through bytes cut anywhere; and one session is told nonsense."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.transport.yamux import WINDOW_BYTES, Session, Stream, YamuxError

SYN, ACK, FIN, RST = 1, 2, 4, 8
DATA, WINDOW, PING, GO_AWAY = 0, 1, 2, 3


def frame(kind: int, flags: int, number: int, length: int, body: bytes = b"", version: int = 0) -> bytes:
    return struct.pack("!BBHII", version, kind, flags, number, length) + body


def pump(a: Session, b: Session) -> None:
    """Carry bytes both ways until both are quiet."""
    while True:
        there, back = a.take(65_519), b.take(65_519)
        if not there and not back:
            return
        b.receive(there)
        a.receive(back)


def pair(max_inbound: int = 64) -> tuple[Session, Session]:
    return Session(True, max_inbound), Session(False, max_inbound)


def opened(a: Session, b: Session, hello: bytes = b"hello") -> tuple[Stream, Stream]:
    ours = a.open()
    a.write(ours, hello)
    pump(a, b)
    theirs = b.accepted.pop()
    assert theirs.unread == hello
    theirs.unread.clear()
    b.grant(theirs, len(hello))
    return ours, theirs


def test_a_stream_opens_with_its_first_bytes_and_ends_on_both_sides() -> None:
    a, b = pair()
    ours, theirs = opened(a, b)
    b.write(theirs, b"world")
    b.finish(theirs)
    pump(a, b)
    assert ours.unread == b"world"
    assert ours.eof
    assert (a.streams, b.streams) == (1, 1)
    a.finish(ours)
    pump(a, b)
    assert theirs.eof
    assert (a.streams, b.streams) == (0, 0)
    assert not ours.broken
    assert not theirs.broken


def test_frames_are_those_of_the_specification() -> None:
    a, b = pair()
    stream = a.open()
    a.write(stream, b"hi")
    assert a.take(1000) == frame(DATA, SYN, 1, 2, b"hi")
    a.write(stream, b"ho")
    a.finish(stream)
    assert a.take(1000) == frame(DATA, FIN, 1, 2, b"ho")
    b.receive(frame(DATA, SYN, 1, 0))
    b.write(b.accepted[0], b"re")
    assert b.take(1000) == frame(DATA, ACK, 1, 2, b"re")
    b.ping()
    assert b.take(1000) == frame(PING, SYN, 0, 1)
    b.go_away()
    assert b.take(1000) == frame(GO_AWAY, 0, 0, 0)
    assert b.open().id == 2
    assert a.open().id == 3


def test_a_writer_stops_at_the_window_until_the_reader_takes() -> None:
    a, b = pair()
    ours, theirs = opened(a, b)
    a.write(ours, bytes(3 * WINDOW_BYTES))
    pump(a, b)
    assert len(theirs.unread) == WINDOW_BYTES - 5  # the greeting's bytes were not granted again yet
    received = 0
    while theirs.unread:
        received += len(theirs.unread)
        b.grant(theirs, len(theirs.unread))
        theirs.unread.clear()
        pump(a, b)
    assert received == 3 * WINDOW_BYTES
    assert not ours.unsent


def test_a_window_that_was_widened_stays_wide_and_is_never_narrowed() -> None:
    a, b = pair()
    ours, theirs = opened(a, b)
    b.widen(theirs, 4 * WINDOW_BYTES)
    b.widen(theirs, WINDOW_BYTES)
    for _ in range(3):
        a.write(ours, bytes(5 * WINDOW_BYTES))
        pump(a, b)
        came = len(theirs.unread)
        # what was read and is not granted again yet is less than half a window
        assert 2 * WINDOW_BYTES < came <= 4 * WINDOW_BYTES
        theirs.unread.clear()
        b.grant(theirs, came)
    assert not ours.broken


def test_a_stream_that_ended_is_not_widened() -> None:
    a, b = pair()
    ours, theirs = opened(a, b)
    a.finish(ours)
    pump(a, b)
    b.widen(theirs, 4 * WINDOW_BYTES)
    assert b.take(1000) == b""


def test_small_reads_send_few_window_updates() -> None:
    a, b = pair()
    _, theirs = opened(a, b)
    for _ in range(1000):
        b.grant(theirs, 100)
    assert b.take(100_000) == b""


def test_streams_take_turns() -> None:
    a, b = pair()
    large, small = a.open(), a.open()
    a.write(large, bytes(200_000))
    a.write(small, b"me too")
    b.receive(a.take(65_519))
    assert [bytes(stream.unread[:6]) for stream in b.accepted] == [bytes(6), b"me too"]


def test_a_reset_breaks_both_ends_and_drops_what_waited() -> None:
    a, b = pair()
    ours, theirs = opened(a, b)
    a.write(ours, bytes(10 * WINDOW_BYTES))
    b.reset(theirs)
    pump(a, b)
    assert ours.broken
    assert theirs.broken
    assert not ours.unsent
    assert (a.streams, b.streams) == (0, 0)


def test_a_stream_that_was_reset_before_its_first_byte_leaves_no_trace() -> None:
    a, b = pair()
    stream = a.open()
    a.write(stream, b"x")
    a.reset(stream)
    assert a.take(1000) == b""
    assert a.streams == 0
    assert b.streams == 0


def test_an_abandoned_stream_still_sends_and_takes_no_more() -> None:
    a, b = pair()
    ours, theirs = opened(a, b)
    a.write(ours, b"last words")
    a.abandon(ours)
    b.write(theirs, b"nobody listens")
    pump(a, b)
    assert theirs.unread == b"last words"
    assert theirs.eof
    assert not ours.unread
    assert a.streams == 0
    b.write(theirs, b"nor now")
    pump(a, b)
    assert theirs.broken  # it is told to stop


def test_streams_beyond_the_limit_are_reset() -> None:
    a, b = pair(max_inbound=3)
    streams = [a.open() for _ in range(5)]
    for stream in streams:
        a.write(stream, b"x")
    pump(a, b)
    assert len(b.accepted) == b.streams == 3
    assert [stream.broken for stream in streams] == [False] * 3 + [True] * 2
    b.reset(b.accepted[0])
    a.write(a.open(), b"room again")
    pump(a, b)
    assert b.streams == 3


def test_pings_are_answered() -> None:
    a, b = pair()
    a.ping()
    pump(a, b)
    assert a.pongs == 1
    b.receive(frame(PING, SYN, 0, 4711))
    assert b.take(100) == frame(PING, ACK, 0, 4711)


def test_go_away_is_noticed_and_close_breaks_all_streams() -> None:
    a, b = pair()
    ours, theirs = opened(a, b)
    b.go_away()
    pump(a, b)
    assert a.gone_away
    a.close()
    assert ours.broken
    assert not theirs.broken


@pytest.mark.parametrize(
    "nonsense",
    [
        frame(DATA, 0, 1, 0, version=1),
        frame(4, 0, 0, 0),
        frame(DATA, SYN, 2, 0),  # an even id is the server's to give
        frame(DATA, SYN, 0, 0),
        frame(DATA, SYN, 1, 0) * 2,  # opened twice
        frame(DATA, SYN, 1, WINDOW_BYTES + 1),
        frame(DATA, SYN | FIN, 1, 0) + frame(DATA, 0, 1, 1, b"x"),  # after its end
        frame(DATA, 0, 99, WINDOW_BYTES + 1),
        frame(WINDOW, SYN, 1, 0xFFFFFFFF),
        frame(PING, SYN, 0, 1) * 10_000,  # and the answers are not read
        frame(DATA, 0, 99, 1, b"x") * 10_000,
    ],
)
def test_nonsense_ends_the_connection(nonsense: bytes) -> None:
    with pytest.raises(YamuxError):
        Session(False, 64).receive(nonsense)


@given(st.lists(st.binary(max_size=100), max_size=20))
def test_junk_raises_nothing_else(chunks: list[bytes]) -> None:
    session = Session(False, 4)
    for chunk in chunks:
        try:
            session.receive(chunk)
        except YamuxError:
            return
        assert session.streams <= 4


frames = st.builds(
    frame,
    st.sampled_from([DATA, DATA, WINDOW, PING]),
    st.sampled_from([0, SYN, ACK, FIN, RST, SYN | FIN, SYN | RST]),
    st.integers(0, 9),
    st.integers(0, 40),
    st.binary(max_size=40),
)


@settings(deadline=None)
@given(st.lists(st.tuples(frames, st.integers(20, 1000), st.booleans()), max_size=30))
def test_plausible_junk_stays_within_bounds(junk: list[tuple[bytes, int, bool]]) -> None:
    session = Session(False, 4)
    seen: list[Stream] = []
    for piece, size, act in junk:
        try:
            session.receive(piece)
        except YamuxError:
            break
        seen += session.accepted
        session.accepted.clear()
        if seen and act:
            stream = seen[size % len(seen)]
            (session.reset, session.abandon, session.finish)[size % 3](stream)
        session.take(size)
        assert session.streams <= 4
        assert all(len(stream.unread) <= WINDOW_BYTES for stream in seen)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60_000)), max_size=30),
    st.lists(st.integers(200, 70_000), min_size=1, max_size=20),
)
def test_whatever_the_cuts_every_stream_carries_its_bytes(
    writes: list[tuple[int, int]], sizes: list[int]
) -> None:
    a, b = pair()
    ours = [a.open() for _ in range(4)]
    sent = [bytearray() for _ in ours]
    received: dict[int, bytearray] = {}
    for index, (number, size) in enumerate(writes):
        piece = bytes([index % 256]) * size
        a.write(ours[number], piece)
        sent[number] += piece
    for stream in ours:
        a.finish(stream)
    turn = 0
    streams: list[Stream] = []
    while a.streams:
        turn += 1
        assert turn < 10_000, "no progress"
        out = a.take(sizes[turn % len(sizes)])
        cut = len(out) * (turn % 7) // 7
        b.receive(out[:cut])
        b.receive(out[cut:])
        streams += b.accepted
        b.accepted.clear()
        for stream in streams:
            if stream.unread:
                received.setdefault(stream.id, bytearray()).extend(stream.unread)
                b.grant(stream, len(stream.unread))
                stream.unread.clear()
            if stream.eof:
                b.finish(stream)
        a.receive(b.take(100_000))
    assert b.streams == 0
    assert [received.get(stream.id, bytearray()) for stream in ours] == sent
