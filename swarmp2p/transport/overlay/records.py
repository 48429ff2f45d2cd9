"""Records: the pieces that a carrier connection carries once both hellos are through.

    control bytes    2   length of the sealed control part, tag included
    flags            1   1: counted (kept and sent again until acknowledged); 2: the key changes after it
    body bytes       3   length of the sealed body, tag included; 0: no body
    control part         AEAD(received 8 || frames), with these six bytes as associated data
    body                 AEAD(bytes of one channel)

Integers are big-endian. The nonce of the n-th record under a key (from 0) is 2n for its control part and 2n + 1
for its body, as 12 bytes; so a record opens at its place alone: not again, not earlier, not later, not in the
other direction, not on another connection. Lengths and flags are bound by the control part, and the body's
length by its own tag.

`received` counts the counted records that the sender of this record has taken so far in the whole session.

The body is sealed apart from the frames that announce it, so that bulk goes from the local connection's buffer
into the cipher, and out of it into the other local connection, without a copy on the way.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidTag

from .crypto import Direction
from .faults import Untrue

if TYPE_CHECKING:
    from .config import SessionConfig

SEAL_BYTES = 16
CONTROL_MOST = 48 << 10
BODY_MOST = 256 << 10
COUNTED = 1
REKEY = 2

_HEAD = struct.Struct(">HI")
_RECEIVED = struct.Struct(">Q")
HEAD_BYTES = _HEAD.size
RECORD_MOST = HEAD_BYTES + CONTROL_MOST + BODY_MOST + 2 * SEAL_BYTES
_CONTROL_LEAST = _RECEIVED.size + SEAL_BYTES

_FIRST_BUFFER = 16 << 10
BUFFER_MOST = 1 << 20


class Record(NamedTuple):
    """An opened record. frames: bytes from `frames_at` on."""

    counted: bool
    received: int
    control: bytes
    body: bytes | None


FRAMES_AT = _RECEIVED.size


class RecordWriter:
    """Seals one direction of one carrier connection."""

    __slots__ = ("_bytes", "_config", "_direction", "_rekey_at", "_sealed")

    def __init__(self, direction: Direction, config: SessionConfig, now: float) -> None:
        self._direction = direction
        self._config = config
        self._sealed = 0  # parts sealed under this key: two a record
        self._bytes = 0
        self._rekey_at = now + config.rekey_s

    def seal(
        self,
        flags: int,
        received: int,
        frames: bytes,
        body: bytes | memoryview | None,
        out: list[bytes],
        now: float,
    ) -> int:
        """Append the record's buffers to `out`; how many bytes they have."""
        nonce = self._sealed
        self._sealed = nonce + 2
        body_bytes = 0 if body is None else len(body) + SEAL_BYTES
        self._bytes += body_bytes + len(frames)
        due = (
            self._bytes >= self._config.rekey_bytes
            or nonce >= 2 * self._config.rekey_records
            or now >= self._rekey_at
        )
        if due:
            flags |= REKEY
        direction = self._direction
        control_bytes = len(frames) + _CONTROL_LEAST
        head = _HEAD.pack(control_bytes, flags << 24 | body_bytes)
        sealed = direction.encrypt(nonce.to_bytes(12, "big"), _RECEIVED.pack(received) + frames, head)
        out.append(head + sealed)
        if body is not None:
            out.append(direction.encrypt((nonce + 1).to_bytes(12, "big"), body, None))
        if due:
            direction.rekey()
            self._sealed = self._bytes = 0
            self._rekey_at = now + self._config.rekey_s
        return HEAD_BYTES + control_bytes + body_bytes


class ReceiveBuffer:
    """Where a carrier connection's bytes arrive and lie until a record is complete; at most 1 MiB.

    It begins with 16 KiB, and doubles whenever one read has filled it.
    """

    __slots__ = ("end", "raw", "start", "view")

    def __init__(self) -> None:
        self.raw = bytearray(_FIRST_BUFFER)
        self.view = memoryview(self.raw)
        self.start = 0
        self.end = 0

    def free(self, needed: int) -> memoryview:
        """Where the next bytes go: never empty; room for a record of `needed` bytes from `start` on."""
        size = len(self.raw)
        filled = self.end == size
        if self.start == self.end:
            self.start = self.end = 0
        start, end = self.start, self.end
        if needed > size or (filled and size < BUFFER_MOST):
            self._resize(max(needed, min(2 * size, BUFFER_MOST)))
        elif start and size - end < max(needed - (end - start), size // 4):
            self.view[: end - start] = self.view[start:end]
            self.start, self.end = 0, end - start
        return self.view[self.end :]

    def _resize(self, size: int) -> None:
        raw = bytearray(size)
        kept = self.end - self.start
        raw[:kept] = self.view[self.start : self.end]
        self.raw, self.view = raw, memoryview(raw)
        self.start, self.end = 0, kept

    def take(self, size: int) -> bytes | None:
        """The next `size` bytes, or None when fewer have come."""
        if self.end - self.start < size:
            return None
        self.start += size
        return bytes(self.view[self.start - size : self.start])


class RecordReader:
    """Opens one direction of one carrier connection.

    needed: bytes from the buffer's start on that the next record takes, as far as is known.
    """

    __slots__ = ("_buffer", "_direction", "_opened", "needed")

    def __init__(self, direction: Direction, buffer: ReceiveBuffer) -> None:
        self._direction = direction
        self._buffer = buffer
        self._opened = 0
        self.needed = 0

    def next(self) -> Record | None:
        """The next record; None: more bytes are needed. Raises Untrue: nothing that follows can be believed."""
        buffer = self._buffer
        start = buffer.start
        have = buffer.end - start
        if have < HEAD_BYTES:
            self.needed = HEAD_BYTES
            return None
        control_bytes, rest = _HEAD.unpack_from(buffer.raw, start)
        body_bytes = rest & 0xFFFFFF
        flags = rest >> 24
        if (
            flags > COUNTED | REKEY
            or not _CONTROL_LEAST <= control_bytes <= CONTROL_MOST + SEAL_BYTES
            or (body_bytes and not SEAL_BYTES < body_bytes <= BODY_MOST + SEAL_BYTES)
        ):
            raise Untrue("a record's head is out of bounds")
        needed = HEAD_BYTES + control_bytes + body_bytes
        if have < needed:
            self.needed = needed
            return None
        nonce = self._opened
        direction = self._direction
        view = buffer.view[start : start + needed]
        body_at = HEAD_BYTES + control_bytes
        try:
            control = direction.decrypt(
                nonce.to_bytes(12, "big"), view[HEAD_BYTES:body_at], view[:HEAD_BYTES]
            )
            body = (
                direction.decrypt((nonce + 1).to_bytes(12, "big"), view[body_at:], None)
                if body_bytes
                else None
            )
        except InvalidTag:
            raise Untrue("a record is forged, repeated or out of its place") from None
        self._opened = nonce + 2
        buffer.start = start + needed
        self.needed = HEAD_BYTES
        if flags & REKEY:
            direction.rekey()
            self._opened = 0
        return Record(bool(flags & COUNTED), _RECEIVED.unpack_from(control)[0], control, body)
