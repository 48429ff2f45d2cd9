"""Framing: whatever way the bytes are cut, the same frames come out; bad lengths are refused early."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.errors import BadMessage
from swarmp2p.transport.framing import FrameBuffer, decode_uvarint, encode_frame, encode_uvarint
from swarmp2p.wire import Framing

framings = st.sampled_from(list(Framing))


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, b"\x00"),
        (1, b"\x01"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (300, b"\xac\x02"),
        (16384, b"\x80\x80\x01"),
    ],
)
def test_varints_are_those_of_the_multiformats_specification(value: int, encoded: bytes) -> None:
    assert encode_uvarint(value) == encoded
    assert decode_uvarint(encoded) == (value, len(encoded))


@given(st.integers(0, 2**35 - 1), st.binary(max_size=3))
def test_varint_roundtrip(value: int, rest: bytes) -> None:
    encoded = encode_uvarint(value)
    assert decode_uvarint(b"?" + encoded + rest, 1) == (value, 1 + len(encoded))
    assert decode_uvarint(encoded[:-1]) is None


@given(framings, st.lists(st.binary(max_size=300), max_size=8), st.data())
def test_any_split_gives_the_same_frames(framing: Framing, bodies: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(encode_frame(body, framing) for body in bodies)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    buffer = FrameBuffer(framing, 300)
    received: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += buffer.feed(stream[start:end])
    assert received == bodies
    assert not buffer.partial


@given(framings, st.binary(min_size=1, max_size=100), st.data())
def test_a_cut_off_frame_is_noticed(framing: Framing, body: bytes, data: st.DataObject) -> None:
    frame = encode_frame(body, framing)
    buffer = FrameBuffer(framing, 100)
    assert buffer.feed(frame[: data.draw(st.integers(1, len(frame) - 1))]) == []
    assert buffer.partial


@pytest.mark.parametrize("framing", list(Framing))
def test_the_largest_frame_passes_and_one_byte_more_does_not(framing: Framing) -> None:
    assert FrameBuffer(framing, 1000).feed(encode_frame(bytes(1000), framing)) == [bytes(1000)]
    buffer = FrameBuffer(framing, 1000)
    with pytest.raises(BadMessage, match="1001 bytes where at most 1000"):
        buffer.feed(encode_frame(bytes(1001), framing)[:5])  # its length alone is enough
    with pytest.raises(BadMessage, match="1001"):
        buffer.feed(b"")  # stays broken


@pytest.mark.parametrize(
    "junk", [b"\x80\x00", b"\x81\x80\x00", b"\xff\xff\xff\xff\xff\x01", b"\x80\x80\x80\x80\x80"]
)
def test_overlong_varints_are_refused(junk: bytes) -> None:
    with pytest.raises(BadMessage, match="varint"):
        FrameBuffer(Framing.UVARINT, 1 << 30).feed(junk)


@given(framings, st.lists(st.binary(max_size=200), max_size=20))
def test_junk_raises_bad_message_or_stays_within_the_bound(framing: Framing, chunks: list[bytes]) -> None:
    buffer = FrameBuffer(framing, 64)
    for chunk in chunks:
        try:
            bodies = buffer.feed(chunk)
        except BadMessage:
            continue
        assert all(len(body) <= 64 for body in bodies)
        assert buffer.buffered <= 64 + 5
