"""No bytes from outside do more than be refused: every decoder takes them or raises its own error.

Random bytes, mutations of valid ones, and pieces of several put together. tools/fuzz does the same for longer, guided
by coverage, and with a limit on time, which no test here has.
"""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from .decoders import DECODERS, Decoder

_EVERY = pytest.mark.parametrize("decoder", DECODERS, ids=[decoder.name for decoder in DECODERS])


@st.composite
def mutants(draw: st.DrawFn, samples: tuple[bytes, ...]) -> bytes:
    """A sample with up to eight changes: bytes flipped, cut out, put in, repeated, or taken from another sample."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 8))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 8)))
        match draw(st.sampled_from(["flip", "cut", "put", "repeat", "splice", "end", "number"])):
            case "flip" if start < len(data):
                data[start] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[start:end]
            case "put":
                data[start:start] = draw(st.binary(min_size=1, max_size=8))
            case "repeat":
                data[start:start] = data[start:end] * draw(st.integers(1, 40))
            case "splice":
                other = draw(st.sampled_from(samples))
                cut = draw(st.integers(0, len(other)))
                data[start:] = other[cut:]
            case "end":
                del data[start:]
            case _:  # a length or a number at its limits
                limits = [
                    b"\xff" * 4,
                    b"\x7f\xff\xff\xff",
                    b"\xff" * 9 + b"\x01",
                    b"\x80" * 5,
                    b"\xcf" + b"\xff" * 8,
                ]
                data[start:end] = draw(st.sampled_from(limits))
    return bytes(data[: 1 << 16])


def take(decoder: Decoder, data: bytes) -> bool:
    """Whether the decoder took the bytes. Anything that it raises but its own errors is a failure."""
    try:
        decoder.run(data)
    except decoder.raises:
        return False
    return True


@_EVERY
def test_valid_bytes_are_taken(decoder: Decoder) -> None:
    assert all(take(decoder, sample) for sample in decoder.samples)


@_EVERY
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_changed_bytes_are_taken_or_refused(decoder: Decoder, data: st.DataObject) -> None:
    take(decoder, data.draw(mutants(decoder.samples)))


@_EVERY
@settings(max_examples=15, deadline=None)
@given(data=st.binary(max_size=2048))
@example(b"")
@example(b"\x91" * 2000)  # msgpack lists in lists
@example(b"\x81\xa1a" * 600)  # msgpack maps in maps
@example(b"\xdd\xff\xff\xff\xff")  # a msgpack list of 2^32 - 1
@example(b"\xc6\xff\xff\xff\xff")  # as many bytes
@example(b"\x0b" * 1000)  # protobuf groups in groups
@example(b"\x1a\xff\xff\xff\xff\x0f")  # a protobuf field of 4 GiB
@example(b"\xd6\xff\x00\x00\x00\x00")  # a msgpack timestamp
@example(b"\x36" + b"\xff" * 9 + b"\x01")  # a multiaddr's part of 2^64 - 1 bytes
def test_any_bytes_are_taken_or_refused(decoder: Decoder, data: bytes) -> None:
    take(decoder, data)


@_EVERY
def test_bytes_cut_off_anywhere_are_taken_or_refused(decoder: Decoder) -> None:
    for sample in decoder.samples:
        for length in range(len(sample)):
            take(decoder, sample[:length])


@_EVERY
def test_bytes_with_one_flipped_are_taken_or_refused(decoder: Decoder) -> None:
    for sample in decoder.samples:
        for place in range(min(len(sample), 256)):
            for value in (0x00, 0x7F, 0x80, 0xFF, sample[place] ^ 1):
                take(decoder, sample[:place] + bytes([value]) + sample[place + 1 :])
