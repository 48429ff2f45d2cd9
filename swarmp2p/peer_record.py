"""Signed peer records: where a peer can be dialled, vouched for by itself, whoever hands it on.

A `PeerRecord` (libp2p specs, RFC 0003) in a signed envelope (RFC 0002). The signature covers three strings, each
behind its length as a varint: domain, payload type, payload. Domain and type are those that go-, js-, rust- and
py-libp2p use; the RFC's own are of an earlier draft. Identify carries a peer's own record, and PRUNE those of others
(gossipsub 1.1, "Peer exchange").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from . import peer_record_pb2 as pb
from .engine import Address, PeerInfo
from .errors import BadMessage
from .identity import PeerId
from .signed import Sign, Verify

MAX_RECORD_BYTES: Final = 4096
"""Longer ones are not taken. One with eight addresses has 300 bytes; go-libp2p allows 8 KiB in identify."""

MAX_ADDRESSES: Final = 16
"""Addresses that are read of one record, and written into one."""

_DOMAIN: Final = b"libp2p-peer-record"
_PAYLOAD_TYPE: Final = b"\x03\x01"  # multicodec libp2p-peer-record
# PublicKey{Type: Ed25519 (1), Data: 32 bytes}
_ED25519_KEY: Final = bytes.fromhex("08011220")


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """What a peer says of itself. seq: the record with the highest one counts; no more can be read out of it."""

    info: PeerInfo
    seq: int


def seal_record(peer: PeerId, addresses: Iterable[Address], seq: int, sign: Sign) -> bytes:
    """The envelope of a record of an Ed25519 peer, signed by it; the first 16 addresses that fit."""
    key = peer.public_key
    assert key is not None, "only Ed25519 peers sign"
    record = pb.PeerRecord(peer_id=peer, seq=seq)
    room = MAX_RECORD_BYTES - 256  # for all but the addresses
    for address in list(addresses)[:MAX_ADDRESSES]:
        room -= len(address) + 6
        if room < 0:
            break
        record.addresses.add(multiaddr=address)
    payload = record.SerializeToString()
    return pb.Envelope(
        public_key=_ED25519_KEY + key,
        payload_type=_PAYLOAD_TYPE,
        payload=payload,
        signature=sign(_signing_bytes(payload)),
    ).SerializeToString()


def open_record(envelope: bytes, verify: Verify, peer: PeerId | None = None) -> PeerRecord:
    """The record in an envelope. peer: whose it must be; anybody's by default.

    Raises BadMessage when it is malformed, too long, forged, another peer's, or signed with a key of a kind that we
    cannot check. The payload is not looked into before its signature holds (RFC 0003, "Certification").
    """
    if len(envelope) > MAX_RECORD_BYTES:
        raise BadMessage(f"a peer record of {len(envelope)} bytes, where {MAX_RECORD_BYTES} are allowed")
    try:
        sealed = pb.Envelope.FromString(envelope)
    except DecodeError:
        raise BadMessage("a peer record that is no envelope") from None
    key = sealed.public_key
    if not key.startswith(_ED25519_KEY) or len(key) != len(_ED25519_KEY) + 32:
        raise BadMessage("a peer record signed with a key that is not Ed25519")
    signer = PeerId.from_public_key(key[len(_ED25519_KEY) :])
    if peer is not None and signer != peer:
        raise BadMessage(f"a peer record of {signer.short} in place of {peer.short}'s")
    if sealed.payload_type != _PAYLOAD_TYPE:
        raise BadMessage("an envelope with something else than a peer record")
    if not verify(signer, _signing_bytes(sealed.payload), sealed.signature):
        raise BadMessage(f"a peer record that {signer.short} did not sign")
    try:
        record = pb.PeerRecord.FromString(sealed.payload)
    except DecodeError:
        raise BadMessage(f"{signer.short} signed what is no peer record") from None
    if record.peer_id != signer:
        raise BadMessage(f"{signer.short} signed a record of another peer")
    addresses = [info.multiaddr for info in record.addresses[:MAX_ADDRESSES] if info.multiaddr]
    return PeerRecord(PeerInfo(signer, tuple(dict.fromkeys(addresses))), record.seq)


def _signing_bytes(payload: bytes) -> bytes:
    """RFC 0002, "Signature Production"."""
    return b"".join(part for text in (_DOMAIN, _PAYLOAD_TYPE, payload) for part in (_length(text), text))


def _length(text: bytes) -> bytes:
    """As a varint; two bytes hold what MAX_RECORD_BYTES allows."""
    size = len(text)
    return bytes((size,)) if size < 0x80 else bytes((size & 0x7F | 0x80, size >> 7))
