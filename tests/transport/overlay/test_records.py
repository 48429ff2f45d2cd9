"""Records: sealed on one side, opened on the other in their place alone."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.transport.overlay.config import SessionConfig
from swarmp2p.transport.overlay.crypto import Cipher, Direction
from swarmp2p.transport.overlay.faults import Untrue
from swarmp2p.transport.overlay.records import (
    BODY_MOST,
    BUFFER_MOST,
    CONTROL_MOST,
    COUNTED,
    FRAMES_AT,
    RECORD_MOST,
    ReceiveBuffer,
    Record,
    RecordReader,
    RecordWriter,
)

SECRET = bytes(range(32))
Content = tuple[bool, int, bytes, bytes | None]


def writer(config: SessionConfig | None = None, secret: bytes = SECRET) -> RecordWriter:
    return RecordWriter(Direction(secret, Cipher.AES_256_GCM), config or SessionConfig(), 0.0)


def reader(secret: bytes = SECRET) -> tuple[RecordReader, ReceiveBuffer]:
    buffer = ReceiveBuffer()
    return RecordReader(Direction(secret, Cipher.AES_256_GCM), buffer), buffer


def sealed(writing: RecordWriter, content: Content, now: float = 0.0) -> bytes:
    out: list[bytes] = []
    size = writing.seal(COUNTED if content[0] else 0, *content[1:], out, now)
    assert size == sum(map(len, out))
    return b"".join(out)


def content(record: Record) -> Content:
    return record.counted, record.received, record.control[FRAMES_AT:], record.body


def fed(reading: RecordReader, buffer: ReceiveBuffer, data: bytes) -> list[Content]:
    """What opens when `data` arrives in reads as large as the buffer has room."""
    opened: list[Content] = []
    rest = memoryview(data)
    while rest:
        room = buffer.free(reading.needed)
        assert len(room) > 0
        size = min(len(room), len(rest))
        room[:size] = rest[:size]
        buffer.end += size
        rest = rest[size:]
        while (record := reading.next()) is not None:
            opened.append(content(record))
    return opened


contents = st.lists(
    st.tuples(
        st.booleans(),
        st.integers(0, 2**64 - 1),
        st.binary(max_size=100),
        st.none() | st.binary(min_size=1, max_size=300),
    ),
    max_size=12,
)


@given(contents, st.lists(st.integers(1, 700), max_size=30))
def test_records_open_in_order_however_the_stream_is_cut(several: list[Content], cuts: list[int]) -> None:
    writing, (reading, buffer) = writer(), reader()
    stream = b"".join(sealed(writing, each) for each in several)
    opened: list[Content] = []
    for size in cuts:
        opened += fed(reading, buffer, stream[:size])
        stream = stream[size:]
    opened += fed(reading, buffer, stream)
    assert opened == several


def test_the_largest_record_fits_the_buffer() -> None:
    writing, (reading, buffer) = writer(), reader()
    largest: Content = True, 2**64 - 1, bytes(CONTROL_MOST - FRAMES_AT), bytes(BODY_MOST)
    stream = sealed(writing, largest)
    assert len(stream) == RECORD_MOST
    assert fed(reading, buffer, 20 * b"" + stream + sealed(writing, largest)) == [largest, largest]
    assert len(buffer.raw) <= BUFFER_MOST


def test_a_buffer_grows_to_its_bound_and_moves_little() -> None:
    rng = Random(1)
    writing, (reading, buffer) = writer(), reader()
    assert len(buffer.raw) <= 1 << 14
    several: list[Content] = [
        (True, number, b"", rng.randbytes(rng.choice((1, 1000, 1 << 16, 1 << 18)))) for number in range(200)
    ]
    assert fed(reading, buffer, b"".join(sealed(writing, each) for each in several)) == several
    assert len(buffer.raw) <= BUFFER_MOST


@pytest.mark.parametrize(
    "head",
    [
        (23, 0),  # shorter than what every control part has
        (CONTROL_MOST + 17, 0),
        (30, 16),  # a body of tag alone
        (30, BODY_MOST + 17),
        (30, 4 << 24),  # flags nobody knows
    ],
)
def test_a_head_out_of_bounds_is_refused_at_once(head: tuple[int, int]) -> None:
    reading, buffer = reader()
    with pytest.raises(Untrue, match="out of bounds"):
        fed(reading, buffer, head[0].to_bytes(2, "big") + head[1].to_bytes(4, "big"))


@pytest.mark.parametrize(
    "config", [SessionConfig(rekey_bytes=1000), SessionConfig(rekey_records=3), SessionConfig(rekey_s=2.5)]
)
def test_keys_change_by_volume_count_and_time(config: SessionConfig) -> None:
    writing, (reading, buffer) = writer(config), reader()
    several: list[Content] = [(True, number, bytes(50), bytes(200)) for number in range(40)]
    opened: list[Content] = []
    for now, each in enumerate(several):
        opened += fed(reading, buffer, sealed(writing, each, float(now)))
    assert opened == several
    stuck = RecordWriter(Direction(SECRET, Cipher.AES_256_GCM), SessionConfig(), 0.0)
    for each in several:
        sealed(stuck, each)
    with pytest.raises(Untrue):  # its key would still be the first
        fed(reading, buffer, sealed(stuck, several[0]))


def test_nonces_never_repeat_under_a_key() -> None:
    seen: dict[tuple[int, bytes], None] = {}

    class Noting(Direction):
        """Notes what it seals under which of its keys."""

        keys = 0

        def _load(self) -> None:
            super()._load()
            sealing, key = self.encrypt, self.keys
            self.keys += 1

            def note(nonce: bytes, data: bytes, head: bytes | None) -> bytes:
                assert (key, nonce) not in seen
                seen[key, nonce] = None
                return sealing(nonce, data, head)

            self.encrypt = note  # type: ignore[assignment]

    writing = RecordWriter(Noting(SECRET, Cipher.AES_256_GCM), SessionConfig(rekey_records=5), 0.0)
    for number in range(100):
        sealed(writing, (True, number, b"x", b"y" if number % 2 else None))
    assert len(seen) == 150
    assert len(dict.fromkeys(key for key, _ in seen)) == 17
