"""Circuit relay v2 and DCUtR on the wire (libp2p's specs, relay/circuit-v2.md and relay/DCUtR.md).

py-libp2p's protobuf classes; each message behind its length as a varint, at most 4 KiB of it. A stream on which both
sides agreed becomes the relayed connection itself, so that what comes behind a message must not be swallowed.
"""

from __future__ import annotations

from typing import Final, TypeVar

from google.protobuf.message import DecodeError
from libp2p.relay.circuit_v2.pb import circuit_pb2 as pb
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch

from ..envelope import open_envelope, seal_envelope
from ..errors import BadMessage
from ..identity import PeerId
from ..signed import Sign, Verify
from ..wire import Framing
from .framing import decode_uvarint, encode_frame, encode_uvarint
from .multistream import propose
from .muxer import MuxedStream
from .pipe import Limit

HOP_ID: Final = "/libp2p/circuit/relay/0.2.0/hop"
STOP_ID: Final = "/libp2p/circuit/relay/0.2.0/stop"
PUNCH_ID: Final = "/libp2p/dcutr"
MAX_BYTES: Final = 4096
"""Of one message, as the specs say."""

_VOUCHER_DOMAIN: Final = b"libp2p-relay-rsvp"
_VOUCHER_TYPE: Final = b"\x03\x02"

Told = TypeVar("Told", pb.HopMessage, pb.StopMessage, HolePunch)


async def hear(stream: MuxedStream, kind: type[Told]) -> Told:
    """The next message; what comes behind it stays to be read. Raises BadMessage, trio.BrokenResourceError."""
    buffer = b""
    while True:
        chunk = await stream.read()
        if not chunk:
            raise BadMessage(f"{stream.protocol or 'relay'}: the stream ended before a message")
        buffer += chunk
        header = decode_uvarint(buffer)
        if header is None:
            continue
        size, start = header
        if size > MAX_BYTES:
            raise BadMessage(f"{stream.protocol or 'relay'}: a message of {size} bytes")
        if len(buffer) >= start + size:
            break
    if len(buffer) > start + size:
        stream.unread(buffer[start + size :])
    try:
        return kind.FromString(buffer[start : start + size])
    except DecodeError:
        raise BadMessage(f"{stream.protocol or 'relay'}: no such message") from None


def tell(stream: MuxedStream, message: pb.HopMessage | pb.StopMessage | HolePunch) -> None:
    """Send a message."""
    stream.push(encode_frame(message.SerializeToString(), Framing.UVARINT))


async def ask(stream: MuxedStream, protocol: str, question: Told) -> Told:
    """The first exchange on a new stream: agree on the protocol, send a message, and have the answer.

    Raises ProtocolUnsupported, BadMessage, trio.BrokenResourceError.
    """
    stream.protocol = await propose(stream, [protocol])
    tell(stream, question)
    return await hear(stream, type(question))


def put_limit(message: pb.HopMessage | pb.StopMessage, limit: Limit) -> None:
    """Say what a relay allows, as far as it does not allow everything."""
    if limit.duration_s:
        message.limit.duration = limit.duration_s
    if limit.data_bytes:
        message.limit.data = limit.data_bytes


def limit_of(message: pb.HopMessage | pb.StopMessage) -> Limit | None:
    """What a relay allows, where it says that it does not allow everything."""
    if not message.HasField("limit"):
        return None
    limit = Limit(message.limit.duration, message.limit.data)
    return limit if limit.duration_s or limit.data_bytes else None


def peer_of(message: pb.HopMessage | pb.StopMessage) -> PeerId:
    """Whom it names. Raises BadMessage."""
    try:
        return PeerId.from_bytes(message.peer.id)
    except ValueError:
        raise BadMessage("relay: a message without a peer") from None


def status_name(status: int) -> str:
    """For messages to people."""
    known = pb.Status.DESCRIPTOR.values_by_number.get(status)
    return f"status {status}" if known is None else known.name.lower().replace("_", " ")


def seal_voucher(relay: PeerId, peer: PeerId, expires: int, sign: Sign) -> bytes:
    """A relay's signed word that it serves a peer. expires: Unix time in seconds."""
    return seal_envelope(relay, _VOUCHER_DOMAIN, _VOUCHER_TYPE, _voucher(relay, peer, expires), sign)


def check_voucher(voucher: bytes, relay: PeerId, peer: PeerId, expires: int, verify: Verify) -> None:
    """Raises BadMessage when it is not that relay's word for that peer and time."""
    signer, payload = open_envelope(voucher, _VOUCHER_DOMAIN, _VOUCHER_TYPE, verify, "a reservation voucher")
    if signer != relay or payload != _voucher(relay, peer, expires):
        raise BadMessage("a reservation voucher for another reservation")


def _voucher(relay: PeerId, peer: PeerId, expires: int) -> bytes:
    """Voucher{relay = 1, peer = 2, expiration = 3} in its one canonical form, so that it needs not be parsed."""
    ends = ((b"\x0a", relay), (b"\x12", peer))
    return b"".join(
        [*(tag + encode_uvarint(len(one)) + one for tag, one in ends), b"\x18", encode_uvarint(expires)]
    )
