"""Snapshots of the load table: how a newcomer gets a full view in one round trip.

The reply holds the providers' own signed pubsub messages, so that whoever passes them on cannot change them.
Protocol /swarm/loads/1.0.0, frames of msgpack: the request a map {"max": n}, the reply a list of messages as
they were published. With "shard" in it, a text of 0 and 1, only providers of that shard are asked for
(load_shards.py); earlier versions skip that and send all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgpack

from ..engine import Message, Reply, Request
from ..errors import BadMessage
from ..identity import PeerId
from ..signed import pack_map, unpack_map
from ..wire import Exchange, Framing, WireProtocol
from .events import GossipMessage
from .load_shards import is_shard
from .wire import encode_message, parse_message

LOADS: Final = "loads"
"""Name of the WireProtocol that carries snapshots."""

MAX_SNAPSHOT: Final = 2000
"""Most messages in one reply; a larger table is sampled."""

MAX_REPLY_BYTES: Final = 1 << 20
_MAX_REQUEST_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class LoadsRequest(Request):
    """Ask for a peer's load table. most: entries wanted; 0 for the connection alone. shard: of which providers, "" for
    all."""

    protocol: ClassVar[str] = LOADS
    most: int = MAX_SNAPSHOT
    shard: str = ""


@dataclass(frozen=True, slots=True)
class LoadsReply(Reply):
    """The newest message of each provider, at most as many as asked for; empty when the peer was asked too
    often. Signatures are not checked yet."""

    protocol: ClassVar[str] = LOADS
    messages: tuple[GossipMessage, ...] = ()


def loads_protocol() -> WireProtocol:
    """The wire protocol of LoadsRequest and LoadsReply."""
    return WireProtocol(
        LOADS,
        ("/swarm/loads/1.0.0",),
        Exchange.REQUESTS,
        Framing.U32,
        MAX_REPLY_BYTES,
        encode,
        decode_request,
        decode_reply,
        _MAX_REQUEST_BYTES,
    )


def encode(message: Message) -> bytes:
    """Either message as a frame body."""
    if isinstance(message, LoadsRequest):
        return pack_map({"max": message.most} | ({"shard": message.shard} if message.shard else {}))
    assert isinstance(message, LoadsReply)
    packed: Any = msgpack.packb([encode_message(each) for each in message.messages], use_bin_type=True)
    return bytes(packed)


def decode_request(_sender: PeerId, body: bytes, request_id: int) -> LoadsRequest:
    """Raises BadMessage."""
    fields = unpack_map(body, _MAX_REQUEST_BYTES)
    most, shard = fields.get("max"), fields.get("shard", "")
    if type(most) is not int or most < 0:
        raise BadMessage('a request for loads without a number "max"')
    if shard and not (isinstance(shard, str) and is_shard(shard)):
        raise BadMessage("a request for loads of something that is no shard")
    return LoadsRequest(request_id, min(most, MAX_SNAPSHOT), shard or "")


def decode_reply(_sender: PeerId, body: bytes, request_id: int) -> LoadsReply:
    """Raises BadMessage."""
    if len(body) > MAX_REPLY_BYTES:
        raise BadMessage("a snapshot of loads that is too long")
    try:
        parts = msgpack.unpackb(body, raw=False, max_array_len=MAX_SNAPSHOT)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as problem:
        raise BadMessage(f"not msgpack: {type(problem).__name__}") from None
    if not isinstance(parts, list) or not all(isinstance(part, bytes) for part in parts):
        raise BadMessage("not a list of messages")
    return LoadsReply(request_id, tuple([parse_message(part) for part in parts]))
