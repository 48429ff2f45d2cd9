"""Lease messages as frames: one msgpack map each, with the message's name under "type".

`/swarm/lease/1.0.0`: each side opens one stream to the other and writes; four-byte lengths. A map has exactly
the fields of its message: an unknown one is refused, since a lease must mean the same to both sides. Whatever
needs more than this gets the next protocol version.
"""

from __future__ import annotations

from typing import Any, Final, assert_never, cast

from ..engine import Message
from ..errors import BadMessage
from ..fields import Fields
from ..identity import PeerId
from ..signed import pack_map, unpack_map
from ..wire import Exchange, Framing, WireProtocol
from .events import Need, Versions
from .messages import (
    LEASE_ID_BYTES,
    MAX_COUNT,
    MAX_ENVELOPE_BYTES,
    MAX_LEASE_S,
    MAX_MEMORY_BYTES,
    MAX_NAME_CHARS,
    MAX_REASON_CHARS,
    MAX_RETRY_S,
    MAX_SEQUENCE,
    MIN_LEASE_S,
    NONCE_BYTES,
    AnyLeaseMessage,
    Challenge,
    Grant,
    LeaseRequest,
    Proof,
    Refuse,
    Release,
    Renew,
    Renewed,
    Started,
)

LEASE_PROTOCOL_ID: Final = "/swarm/lease/1.0.0"
MAX_FRAME_BYTES: Final = 16 * 1024


def lease_protocol() -> WireProtocol:
    """How lease messages go over libp2p streams."""
    return WireProtocol(
        name="lease",
        ids=(LEASE_PROTOCOL_ID,),
        exchange=Exchange.MESSAGES,
        framing=Framing.U32,
        max_frame_bytes=MAX_FRAME_BYTES,
        encode=encode,
        decode=decode,
    )


def request_fields(request: LeaseRequest) -> dict[str, Any]:
    """A request as a flat map: what is sent, and what both sides' signatures cover."""
    need, versions = request.need, request.versions
    return {
        "lease": request.lease,
        "cluster": request.cluster,
        "cpus": float(need.cpus),
        "gpus": float(need.gpus),
        "memory_bytes": need.memory_bytes,
        "kind": need.kind,
        "region": need.region,
        "ray": versions.ray,
        "python": versions.python,
        "swarmp2p": versions.swarmp2p,
    }


def read_request(fields: Fields) -> LeaseRequest:
    """The inverse of request_fields; raises BadMessage."""
    return LeaseRequest(
        fields.data("lease", LEASE_ID_BYTES, LEASE_ID_BYTES),
        Need(
            fields.number("cpus", 0, MAX_COUNT),
            fields.number("gpus", 0, MAX_COUNT),
            fields.integer("memory_bytes", 0, MAX_MEMORY_BYTES),
            fields.text("kind", MAX_NAME_CHARS),
            fields.text("region", MAX_NAME_CHARS),
        ),
        Versions(
            fields.text("ray", MAX_NAME_CHARS),
            fields.text("python", MAX_NAME_CHARS),
            fields.text("swarmp2p", MAX_NAME_CHARS),
        ),
        fields.text("cluster", MAX_NAME_CHARS),
    )


def encode(message: Message) -> bytes:
    """The frame body of a lease message."""
    return pack_map(_to_map(cast(AnyLeaseMessage, message)))


def decode(sender: PeerId, data: bytes, message_id: int) -> Message:
    """The message in a frame body; raises BadMessage for anything but what `encode` makes."""
    del sender, message_id
    return read_message(data)


def _to_map(message: AnyLeaseMessage) -> dict[str, Any]:
    lease = message.lease
    match message:
        case LeaseRequest():
            return {"type": "request", **request_fields(message)}
        case Challenge(nonce=nonce):
            return {"type": "challenge", "lease": lease, "nonce": nonce}
        case Proof(envelope=envelope):
            return {"type": "proof", "lease": lease, "envelope": envelope}
        case Grant(envelope=envelope):
            return {"type": "grant", "lease": lease, "envelope": envelope}
        case Refuse(reason=reason, retry_after_s=retry_after_s):
            return {"type": "refuse", "lease": lease, "reason": reason, "retry_after_s": retry_after_s}
        case Started():
            return {"type": "started", "lease": lease}
        case Renew(sequence=sequence):
            return {"type": "renew", "lease": lease, "sequence": sequence}
        case Renewed(sequence=sequence, lease_s=lease_s, started=started):
            return {
                "type": "renewed",
                "lease": lease,
                "sequence": sequence,
                "lease_s": lease_s,
                "started": started,
            }
        case Release(reason=reason):
            return {"type": "release", "lease": lease, "reason": reason}
        case _:
            assert_never(message)


def read_message(data: bytes) -> AnyLeaseMessage:
    """`decode` without the arguments that lease messages do not need."""
    fields = Fields(unpack_map(data, MAX_FRAME_BYTES))
    kind = fields.text("type", MAX_NAME_CHARS)
    message: AnyLeaseMessage
    if kind == "request":
        message = read_request(fields)
        fields.done()
        return message
    lease = fields.data("lease", LEASE_ID_BYTES, LEASE_ID_BYTES)
    match kind:
        case "challenge":
            message = Challenge(lease, fields.data("nonce", NONCE_BYTES, NONCE_BYTES))
        case "proof":
            message = Proof(lease, fields.data("envelope", 1, MAX_ENVELOPE_BYTES))
        case "grant":
            message = Grant(lease, fields.data("envelope", 1, MAX_ENVELOPE_BYTES))
        case "refuse":
            message = Refuse(
                lease,
                fields.text("reason", MAX_REASON_CHARS),
                fields.optional_number("retry_after_s", 0, MAX_RETRY_S),
            )
        case "started":
            message = Started(lease)
        case "renew":
            message = Renew(lease, fields.integer("sequence", 1, MAX_SEQUENCE))
        case "renewed":
            message = Renewed(
                lease,
                fields.integer("sequence", 1, MAX_SEQUENCE),
                fields.number("lease_s", MIN_LEASE_S, MAX_LEASE_S),
                fields.flag("started"),
            )
        case "release":
            message = Release(lease, fields.text("reason", MAX_REASON_CHARS))
        case _:
            raise BadMessage(f"no lease message is called {kind!r}")
    fields.done()
    return message
