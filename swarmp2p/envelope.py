"""Signed envelopes (libp2p specs, RFC 0002): a payload, what kind it is, and whose Ed25519 signature it bears.

The signature covers three strings, each behind its length as a varint: domain, payload type, payload. The domain keeps
what was signed for one purpose from being used for another.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from . import peer_record_pb2 as pb
from .errors import BadMessage
from .identity import PeerId
from .signed import Sign, Verify

MAX_ENVELOPE_BYTES: Final = 4096
"""Longer ones are not taken. A peer record with eight addresses has 300 bytes; go-libp2p allows 8 KiB in identify."""

# PublicKey{Type: Ed25519 (1), Data: 32 bytes}
_ED25519_KEY: Final = bytes.fromhex("08011220")


def seal_envelope(peer: PeerId, domain: bytes, kind: bytes, payload: bytes, sign: Sign) -> bytes:
    """An Ed25519 peer's payload, signed by it. kind: the payload's type, a multicodec."""
    key = peer.public_key
    assert key is not None, "only Ed25519 peers sign"
    return pb.Envelope(
        public_key=_ED25519_KEY + key,
        payload_type=kind,
        payload=payload,
        signature=sign(_signing_bytes(domain, kind, payload)),
    ).SerializeToString()


def open_envelope(
    envelope: bytes, domain: bytes, kind: bytes, verify: Verify, what: str
) -> tuple[PeerId, bytes]:
    """(signer, payload). what: the envelope holds, with its article, for messages to people.

    Raises BadMessage when it is malformed, too long, forged, of another type, or signed with a key of a kind that we
    cannot check. The payload was not looked into (RFC 0003, "Certification").
    """
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise BadMessage(f"{what} of {len(envelope)} bytes, where {MAX_ENVELOPE_BYTES} are allowed")
    try:
        sealed = pb.Envelope.FromString(envelope)
    except DecodeError:
        raise BadMessage(f"{what} that is no envelope") from None
    key = sealed.public_key
    if not key.startswith(_ED25519_KEY) or len(key) != len(_ED25519_KEY) + 32:
        raise BadMessage(f"{what} signed with a key that is not Ed25519")
    signer = PeerId.from_public_key(key[len(_ED25519_KEY) :])
    if sealed.payload_type != kind:
        raise BadMessage(f"an envelope with something else than {what}")
    if not verify(signer, _signing_bytes(domain, kind, sealed.payload), sealed.signature):
        raise BadMessage(f"{what} that {signer.short} did not sign")
    return signer, sealed.payload


def _signing_bytes(domain: bytes, kind: bytes, payload: bytes) -> bytes:
    """RFC 0002, "Signature Production"."""
    return b"".join(part for text in (domain, kind, payload) for part in (_length(text), text))


def _length(text: bytes) -> bytes:
    """As a varint; two bytes hold what MAX_ENVELOPE_BYTES allows."""
    size = len(text)
    return bytes((size,)) if size < 0x80 else bytes((size & 0x7F | 0x80, size >> 7))
