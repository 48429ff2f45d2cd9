"""Lease messages as frames: one msgpack map each, with the message's name under "type".

`/swarm/lease/1.1.0`: each side opens one stream to the other and writes; four-byte lengths. A map has exactly
the fields of its message: an unknown one is refused, since a lease must mean the same to both sides. What
`/swarm/lease/1.0.0` did not have is left out where it has no value, so that the same encoding serves both:
a peer that speaks only that gets requests of form 1 (messages.py), and nothing but its fields after them.
"""

from __future__ import annotations

from typing import Any, Final, assert_never, cast

from ..engine import Message
from ..errors import BadMessage
from ..fields import Fields
from ..identity import PeerId
from ..signed import pack_map, unpack_map
from ..wire import Exchange, Framing, WireProtocol
from .events import LeaseId, Need, Versions
from .messages import (
    FORM,
    GANG_BYTES,
    LEASE_ID_BYTES,
    MAX_COUNT,
    MAX_ENVELOPE_BYTES,
    MAX_GRANT_BYTES,
    MAX_GRANTS,
    MAX_LABELS,
    MAX_LEASE_S,
    MAX_MEMORY_BYTES,
    MAX_NAME_CHARS,
    MAX_NOTICE_S,
    MAX_POSITION,
    MAX_QUEUE_S,
    MAX_REASON_CHARS,
    MAX_RETRY_S,
    MAX_SEQUENCE,
    MIN_LEASE_S,
    MIN_QUEUE_S,
    NONCE_BYTES,
    Agreement,
    AnyLeaseMessage,
    Challenge,
    LeaseRequest,
    Notice,
    Proof,
    Queued,
    Refuse,
    Release,
    Renew,
    Renewed,
    Started,
)

LEASE_PROTOCOL_ID: Final = "/swarm/lease/1.1.0"
FIRST_PROTOCOL_ID: Final = "/swarm/lease/1.0.0"
MAX_FRAME_BYTES: Final = 16 * 1024


def lease_protocol() -> WireProtocol:
    """How lease messages go over libp2p streams."""
    return WireProtocol(
        name="lease",
        ids=(LEASE_PROTOCOL_ID, FIRST_PROTOCOL_ID),
        exchange=Exchange.MESSAGES,
        framing=Framing.U32,
        max_frame_bytes=MAX_FRAME_BYTES,
        encode=encode,
        decode=decode,
    )


def request_fields(request: LeaseRequest) -> dict[str, Any]:
    """A request as a flat map: what is sent, and what both sides' signatures cover."""
    need, versions = request.need, request.versions
    fields: dict[str, Any] = {
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
    if request.form == 1:
        return fields
    fields["form"] = request.form
    if need.labels:
        fields["labels"] = label_lists(need.labels)
    if request.gang:
        fields["gang"] = request.gang
    if request.grants:
        fields["grants"] = list(request.grants)
    if request.queue_s:
        fields["queue_s"] = float(request.queue_s)
    return fields


def read_request(fields: Fields) -> LeaseRequest:
    """The inverse of request_fields; raises BadMessage."""
    lease = fields.data("lease", LEASE_ID_BYTES, LEASE_ID_BYTES)
    form = fields.integer("form", FORM, FORM) if fields.has("form") else 1
    newer = form > 1
    return LeaseRequest(
        lease,
        Need(
            fields.number("cpus", 0, MAX_COUNT),
            fields.number("gpus", 0, MAX_COUNT),
            fields.integer("memory_bytes", 0, MAX_MEMORY_BYTES),
            fields.text("kind", MAX_NAME_CHARS),
            fields.text("region", MAX_NAME_CHARS),
            read_labels(fields) if newer else (),
        ),
        read_versions(fields),
        fields.text("cluster", MAX_NAME_CHARS),
        fields.data("gang", GANG_BYTES, GANG_BYTES) if newer and fields.has("gang") else b"",
        _read_grants(fields) if newer and fields.has("grants") else (),
        fields.number("queue_s", MIN_QUEUE_S, MAX_QUEUE_S) if newer and fields.has("queue_s") else 0.0,
        form,
    )


def read_versions(fields: Fields) -> Versions:
    """Versions among other fields; raises BadMessage."""
    return Versions(
        fields.text("ray", MAX_NAME_CHARS),
        fields.text("python", MAX_NAME_CHARS),
        fields.text("swarmp2p", MAX_NAME_CHARS),
    )


def label_lists(labels: tuple[tuple[str, str], ...]) -> list[list[str]]:
    """Labels as they are packed."""
    return [[name, value] for name, value in labels]


def read_labels(fields: Fields) -> tuple[tuple[str, str], ...]:
    """The inverse of label_lists, under "labels", which may be left out; raises BadMessage."""
    if not fields.has("labels"):
        return ()
    labels: list[tuple[str, str]] = []
    for item in _some(fields, "labels", MAX_LABELS):
        pair = Fields({"label": item}).items("label", 2)
        texts = Fields(dict(zip(("name", "value"), pair, strict=False)))
        labels.append((texts.text("name", MAX_NAME_CHARS), texts.text("value", MAX_NAME_CHARS)))
    return tuple(labels)


def _some(fields: Fields, key: str, most: int) -> list[Any]:
    """A list that would be left out if it were empty: each message has one encoding."""
    items = fields.items(key, most)
    if not items:
        raise BadMessage(f"{key} is empty")
    return items


def _read_grants(fields: Fields) -> tuple[bytes, ...]:
    links = _some(fields, "grants", MAX_GRANTS)
    return tuple(Fields({"grant": link}).data("grant", 1, MAX_GRANT_BYTES) for link in links)


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
        case Agreement(envelope=envelope):
            return {"type": "grant", "lease": lease, "envelope": envelope}
        case Queued(position=position):
            return {"type": "queued", "lease": lease, "position": position}
        case Notice(left_s=left_s, reason=reason):
            return {"type": "notice", "lease": lease, "left_s": left_s, "reason": reason}
        case Refuse(reason=reason, retry_after_s=retry_after_s):
            return {"type": "refuse", "lease": lease, "reason": reason, "retry_after_s": retry_after_s}
        case Started(envelope=envelope):
            return {"type": "started", "lease": lease, **({"envelope": envelope} if envelope else {})}
        case Renew(sequence=sequence):
            return {"type": "renew", "lease": lease, "sequence": sequence}
        case Renewed():
            return {"type": "renewed", **_renewed_fields(message)}
        case Release(reason=reason):
            return {"type": "release", "lease": lease, "reason": reason}
        case _:
            assert_never(message)


def _renewed_fields(message: Renewed) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "lease": message.lease,
        "sequence": message.sequence,
        "lease_s": message.lease_s,
        "started": message.started,
    }
    if message.envelope:
        fields["envelope"] = message.envelope
    if message.notice_s is not None:
        fields["notice_s"], fields["notice"] = message.notice_s, message.notice
    return fields


def _read_renewed(lease: LeaseId, fields: Fields) -> Renewed:
    warned = fields.has("notice_s")
    return Renewed(
        lease,
        fields.integer("sequence", 1, MAX_SEQUENCE),
        fields.number("lease_s", MIN_LEASE_S, MAX_LEASE_S),
        fields.flag("started"),
        _read_envelope(fields),
        fields.number("notice_s", 0, MAX_NOTICE_S) if warned else None,
        fields.text("notice", MAX_REASON_CHARS) if warned else "",
    )


def _read_envelope(fields: Fields) -> bytes:
    return fields.data("envelope", 1, MAX_ENVELOPE_BYTES) if fields.has("envelope") else b""


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
            message = Agreement(lease, fields.data("envelope", 1, MAX_ENVELOPE_BYTES))
        case "refuse":
            message = Refuse(
                lease,
                fields.text("reason", MAX_REASON_CHARS),
                fields.optional_number("retry_after_s", 0, MAX_RETRY_S),
            )
        case "started":
            message = Started(lease, _read_envelope(fields))
        case "queued":
            message = Queued(lease, fields.integer("position", 1, MAX_POSITION))
        case "notice":
            message = Notice(
                lease, fields.number("left_s", 0, MAX_NOTICE_S), fields.text("reason", MAX_REASON_CHARS)
            )
        case "renew":
            message = Renew(lease, fields.integer("sequence", 1, MAX_SEQUENCE))
        case "renewed":
            message = _read_renewed(lease, fields)
        case "release":
            message = Release(lease, fields.text("reason", MAX_REASON_CHARS))
        case _:
            raise BadMessage(f"no lease message is called {kind!r}")
    fields.done()
    return message
