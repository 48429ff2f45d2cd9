"""Small protocols for network tests: one with requests, one with messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from swarmp2p.engine import Message, Reply, Request
from swarmp2p.errors import BadMessage
from swarmp2p.identity import PeerId
from swarmp2p.wire import Exchange, Framing, WireProtocol

MAX_BYTES = 100_000


@dataclass(frozen=True, slots=True)
class Ask(Request):
    """Wants an Answer with the same text."""

    protocol: ClassVar[str] = "ask"
    text: bytes = b""


@dataclass(frozen=True, slots=True)
class Tell(Request):
    """Wants no answer."""

    protocol: ClassVar[str] = "ask"
    expects_reply: ClassVar[bool] = False
    text: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer(Reply):
    """To an Ask."""

    protocol: ClassVar[str] = "ask"
    text: bytes = b""


@dataclass(frozen=True, slots=True)
class Shout(Message):
    """To whoever listens."""

    protocol: ClassVar[str] = "shout"
    text: bytes = b""


def _encode(message: Message) -> bytes:
    match message:
        case Ask(text=text):
            return b"?" + text
        case Tell(text=text):
            return b"." + text
        case Answer(text=text):
            return b"!" + text
        case Shout(text=text):
            return b"#" + text
        case _:
            raise AssertionError(message)


def _decode(sender: PeerId, body: bytes, number: int) -> Message:
    del sender
    if body[:1] == b"?":
        return Ask(number, body[1:])
    if body[:1] == b".":
        return Tell(number, body[1:])
    raise BadMessage("neither Ask nor Tell")


def _decode_reply(sender: PeerId, body: bytes, number: int) -> Message:
    del sender
    if body[:1] == b"!":
        return Answer(number, body[1:])
    raise BadMessage("no Answer")


def _decode_shout(sender: PeerId, body: bytes, number: int) -> Message:
    del sender, number
    if body[:1] == b"#":
        return Shout(body[1:])
    raise BadMessage("no Shout")


ASK = WireProtocol(
    "ask",
    ("/toy/ask/1.0.0",),
    Exchange.REQUESTS,
    Framing.UVARINT,
    MAX_BYTES,
    _encode,
    _decode,
    _decode_reply,
)
SHOUT = WireProtocol(
    "shout",
    ("/toy/shout/1.1.0", "/toy/shout/1.0.0"),
    Exchange.MESSAGES,
    Framing.U32,
    MAX_BYTES,
    _encode,
    _decode_shout,
)
TOYS = (ASK, SHOUT)
