"""Length-prefixed frames, without I/O: bytes in any pieces -> whole frame bodies.

A reader makes one `FrameBuffer` per stream, feeds it whatever chunks arrive and gets the complete bodies
back. What a peer sends can at most fill one frame of the allowed size: a longer announcement, or a length
that is no canonical varint, raises BadMessage before anything is buffered for it.
"""

from __future__ import annotations

from typing import Final

from ..errors import BadMessage
from ..wire import Framing

# A length of up to 2**35 - 1; far above any max_frame_bytes. Multiformats' unsigned-varint allows 9 bytes.
_MAX_VARINT_BYTES: Final = 5
_U32_BYTES: Final = 4


def encode_uvarint(value: int) -> bytes:
    """The unsigned varint of a number: seven bits a byte, least significant first (multiformats)."""
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def decode_uvarint(data: bytes | bytearray, start: int = 0) -> tuple[int, int] | None:
    """(value, index after it) of the varint at `start`, or None when more bytes are needed.

    Raises BadMessage for more than five bytes, and for one that is longer than its value needs: two encodings
    of one length would be two forms of one message.
    """
    value = 0
    for count in range(_MAX_VARINT_BYTES):
        if start + count >= len(data):
            return None
        byte = data[start + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            if byte == 0 and count:
                raise BadMessage("frame length is an overlong varint")
            return value, start + count + 1
    raise BadMessage(f"frame length is a varint of more than {_MAX_VARINT_BYTES} bytes")


def encode_frame(body: bytes, framing: Framing) -> bytes:
    """The body with its length in front."""
    match framing:
        case Framing.UVARINT:
            return encode_uvarint(len(body)) + body
        case Framing.U32:
            return len(body).to_bytes(_U32_BYTES, "big") + body


class FrameBuffer:
    """Collects the bytes of one stream and cuts them into frame bodies.

    max_frame_bytes: longest body allowed. At most that many bytes (and a length) wait inside between calls.
    """

    __slots__ = ("_broken", "_buffer", "_framing", "_max")

    def __init__(self, framing: Framing, max_frame_bytes: int) -> None:
        self._framing = framing
        self._max = max_frame_bytes
        self._buffer = bytearray()
        self._broken: str | None = None

    @property
    def buffered(self) -> int:
        """Bytes of an unfinished frame that wait inside."""
        return len(self._buffer)

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and not ended: an end of the stream here cuts a message off."""
        return bool(self._buffer)

    def feed(self, chunk: bytes) -> list[bytes]:
        """The bodies that are complete with this chunk, in order.

        Raises BadMessage for a length that is too large or malformed, now and at every later call: the stream
        has lost its place and must be reset. Bodies before the bad length in the same chunk are lost with it.
        """
        if self._broken is not None:
            raise BadMessage(self._broken)
        data: bytes | bytearray = chunk
        if self._buffer:
            self._buffer += chunk
            data = self._buffer
        bodies: list[bytes] = []
        start, end = 0, len(data)
        try:
            while start < end:
                header = self._length(data, start)
                if header is None:
                    break
                length, body = header
                if length > self._max:
                    raise BadMessage(f"frame of {length} bytes where at most {self._max} are allowed")
                if body + length > end:
                    break
                bodies.append(bytes(data[body : body + length]))
                start = body + length
        except BadMessage as problem:
            self._broken = str(problem)
            self._buffer.clear()
            raise
        if data is self._buffer:
            del self._buffer[:start]
        else:
            self._buffer += data[start:]
        return bodies

    def _length(self, data: bytes | bytearray, start: int) -> tuple[int, int] | None:
        if self._framing is Framing.UVARINT:
            return decode_uvarint(data, start)
        body = start + _U32_BYTES
        if body > len(data):
            return None
        return int.from_bytes(data[start:body], "big"), body
