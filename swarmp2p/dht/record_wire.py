"""The record protocol: asking a provider for its own signed record of a service.

Used where a peer of another implementation held the provider record and passed it on without the service record.
Frames are msgpack maps: {"service": name} and {"record": envelope}, the latter empty for none.
"""

from __future__ import annotations

from typing import Final

from ..engine import Message, Reply, Request
from ..errors import BadMessage
from ..identity import PeerId
from ..signed import pack_map, unpack_map
from ..wire import Exchange, Framing, WireProtocol
from .messages import FoundRecord, GetRecord
from .records import MAX_ENVELOPE_BYTES, is_service_name

RECORD_PROTOCOL_ID: Final = "/swarm/record/1.0.0"
_MAX_FRAME_BYTES: Final = 1024


def record_protocol() -> WireProtocol:
    """The record protocol."""
    return WireProtocol(
        name="record",
        ids=(RECORD_PROTOCOL_ID,),
        exchange=Exchange.REQUESTS,
        framing=Framing.U32,
        max_frame_bytes=_MAX_FRAME_BYTES,
        encode=encode,
        decode=decode,
        decode_reply=decode_reply,
    )


def encode(message: Message) -> bytes:
    """The msgpack form of a request or reply of protocol "record"."""
    match message:
        case GetRecord(_, service):
            return pack_map({"service": service})
        case FoundRecord(_, envelope):
            return pack_map({"record": envelope})
        case _:
            raise TypeError(f"not a message of the record protocol: {message!r}")


def decode(sender: PeerId, body: bytes, id: int) -> Request:
    """A request."""
    service = unpack_map(body, _MAX_FRAME_BYTES).get("service")
    if not isinstance(service, str) or not is_service_name(service):
        raise BadMessage("a record request without a usable service name")
    return GetRecord(id, service)


def decode_reply(sender: PeerId, body: bytes, id: int) -> Reply:
    """A reply; the envelope in it is not verified yet."""
    envelope = unpack_map(body, _MAX_FRAME_BYTES).get("record")
    if not isinstance(envelope, bytes) or len(envelope) > MAX_ENVELOPE_BYTES:
        raise BadMessage("a record reply without a usable envelope")
    return FoundRecord(id, envelope)
