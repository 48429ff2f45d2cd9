"""/swarm/snapshot/1.0.0: a borrower gives its snapshot to a holder, asks for it, or takes it back. One exchange a
stream.

    borrower                                    holder
    {"op": "give", "header": envelope}   ->
                                         <-     {"answer": "send", ...}   and then the box, its size without more
    box                                  ->
                                         <-     {"answer": "kept"}
    {"op": "ask"} or {"op": "get"}       ->
                                         <-     {"answer": "kept", "header": envelope}; after "get" the box follows
    {"op": "drop", "header": envelope}   ->     delete what is as old as this, or older
                                         <-     {"answer": "none"}, or "kept" with a newer one's header

Maps are msgpack behind a length of four bytes. An answer is "send", "kept" (it is there), "none" or "refused"; with
"refused" and "kept" comes the header of what is there, with "refused" the reason. Whose snapshot is meant is who is at
the other end of the stream: nobody gives or gets another's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import trio

from ..errors import BadMessage
from ..fields import Fields
from ..signed import pack_map, unpack_map
from .form import MAX_HEADER_BYTES

PROTOCOL: Final = "/swarm/snapshot/1.0.0"

GIVE: Final = "give"
ASK: Final = "ask"
GET: Final = "get"
DROP: Final = "drop"
_OPS: Final = (GIVE, ASK, GET, DROP)

SEND: Final = "send"
KEPT: Final = "kept"
NONE: Final = "none"
REFUSED: Final = "refused"
_ANSWERS: Final = (SEND, KEPT, NONE, REFUSED)

_MAX_FRAME_BYTES: Final = 1024
_MAX_REASON_CHARS: Final = 200
_PIECE_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Wish:
    """What a borrower wants. header: for GIVE and DROP."""

    op: str
    header: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a holder says. header: of what it has. reason: why it refused."""

    answer: str
    header: bytes = b""
    reason: str = ""


def encode_wish(wish: Wish) -> bytes:
    """As a frame."""
    return _framed({"op": wish.op, "header": wish.header})


def encode_answer(answer: Answer) -> bytes:
    """As a frame."""
    return _framed(
        {"answer": answer.answer, "header": answer.header, "reason": answer.reason[:_MAX_REASON_CHARS]}
    )


def decode_wish(data: bytes) -> Wish:
    """Of a frame, without its length. Raises BadMessage."""
    fields = Fields(unpack_map(data, _MAX_FRAME_BYTES))
    wish = Wish(fields.choice("op", _OPS), fields.data("header", 0, MAX_HEADER_BYTES))
    fields.done()
    return wish


def decode_answer(data: bytes) -> Answer:
    """Of a frame, without its length. Raises BadMessage."""
    fields = Fields(unpack_map(data, _MAX_FRAME_BYTES))
    answer = Answer(
        fields.choice("answer", _ANSWERS),
        fields.data("header", 0, MAX_HEADER_BYTES),
        fields.text("reason", _MAX_REASON_CHARS),
    )
    fields.done()
    return answer


async def receive_frame(stream: trio.abc.ReceiveStream) -> bytes:
    """The next one. Raises BadMessage, also when the stream ends before, and BrokenResourceError."""
    length = int.from_bytes(await receive_exactly(stream, 4))
    if length > _MAX_FRAME_BYTES:
        raise BadMessage(f"a frame of {length} bytes, where {_MAX_FRAME_BYTES} are allowed")
    return await receive_exactly(stream, length)


async def receive_exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    """So many bytes; memory grows as they come. Raises BadMessage when the stream ends before."""
    data = bytearray()
    while len(data) < size:
        piece = await stream.receive_some(min(_PIECE_BYTES, size - len(data)))
        if not piece:
            raise BadMessage(f"the stream ended after {len(data)} of {size} bytes")
        data += piece
    return bytes(data)


def _framed(fields: dict[str, Any]) -> bytes:
    payload = pack_map(fields)
    return len(payload).to_bytes(4) + payload
