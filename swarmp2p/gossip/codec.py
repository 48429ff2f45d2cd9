"""Pubsub's frames where the same bytes come and go many times.

Each message reaches a peer from several of its mesh, as the same bytes, and leaves for several, as one Rpc object.
A codec remembers what it has just decoded and encoded: of a message's five copies, four then cost one look-up.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from ..engine import Message
from ..identity import PeerId
from ..wire import Exchange, Framing, WireProtocol
from .events import GossipMessage
from .messages import MAX_RPC_BYTES, PUBSUB, Rpc
from .wire import IDS, decode, encode, parse_message

_KEPT: Final = 256
"""Results in each of two generations: what a few thousand messages a second bring between the first copy and the
last. With those of at most _KEPT_BYTES that makes 1 MiB a peer, if others choose what we remember."""

_KEPT_BYTES: Final = 1024

Value = TypeVar("Value")


class _Recent(Generic[Value]):
    """The latest _KEPT to 2 * _KEPT entries that were put in."""

    __slots__ = ("_new", "_old")

    def __init__(self) -> None:
        self._new: dict[bytes, Value] = {}
        self._old: dict[bytes, Value] = {}

    def get(self, key: bytes) -> Value | None:
        """What was put in under this key, if it is still there."""
        found = self._new.get(key)
        return self._old.get(key) if found is None else found

    def put(self, key: bytes, value: Value) -> None:
        """Remember a value. Long keys are not kept."""
        if len(key) > _KEPT_BYTES:
            return
        if len(self._new) >= _KEPT:
            self._old, self._new = self._new, {}
        self._new[key] = value


class Codec:
    """wire.encode and wire.decode of one peer, with a memory. Same results, and the same errors."""

    __slots__ = ("_frame", "_messages", "_rpc", "_rpcs")

    def __init__(self) -> None:
        self._rpc: Message | None = None  # encoded last
        self._frame = b""
        self._rpcs = _Recent[Rpc]()  # those that hold one message and nothing else
        self._messages = _Recent[GossipMessage]()

    def encode(self, message: Message) -> bytes:
        """See wire.encode. Engines send one Rpc to many peers in a row."""
        if message is not self._rpc:
            self._frame = encode(message)
            self._rpc = message
        return self._frame

    def decode(self, sender: PeerId, body: bytes, _id: int = 0) -> Rpc:
        """See wire.decode."""
        rpc = self._rpcs.get(body)
        if rpc is None:
            rpc = decode(sender, body, _id, self._message)
            if len(rpc.publish) == 1 and rpc == Rpc(publish=rpc.publish):
                self._rpcs.put(body, rpc)
        return rpc

    def _message(self, raw: bytes) -> GossipMessage:
        message = self._messages.get(raw)
        if message is None:
            message = parse_message(raw)
            self._messages.put(raw, message)
        return message


def pubsub_protocol(ids: tuple[str, ...] = IDS) -> WireProtocol:
    """The wire protocol of `Rpc`, for one peer. ids: preferred first."""
    codec = Codec()
    return WireProtocol(
        PUBSUB, ids, Exchange.MESSAGES, Framing.UVARINT, MAX_RPC_BYTES, codec.encode, codec.decode
    )
