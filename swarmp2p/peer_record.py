"""Signed peer records: where a peer can be dialled, vouched for by itself, whoever hands it on.

A `PeerRecord` (libp2p specs, RFC 0003) in a signed envelope (envelope.py). Domain and type are those that go-, js-,
rust- and py-libp2p use; the RFC's own are of an earlier draft. Identify carries a peer's own record, and PRUNE those of
others (gossipsub 1.1, "Peer exchange").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from . import peer_record_pb2 as pb
from .engine import Address, PeerInfo
from .envelope import MAX_ENVELOPE_BYTES, open_envelope, seal_envelope
from .errors import BadMessage
from .identity import PeerId
from .signed import Sign, Verify

MAX_RECORD_BYTES: Final = MAX_ENVELOPE_BYTES

MAX_ADDRESSES: Final = 16
"""Addresses that are read of one record, and written into one."""

_DOMAIN: Final = b"libp2p-peer-record"
_PAYLOAD_TYPE: Final = b"\x03\x01"  # multicodec libp2p-peer-record


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """What a peer says of itself. seq: the record with the highest one counts; no more can be read out of it."""

    info: PeerInfo
    seq: int


def seal_record(peer: PeerId, addresses: Iterable[Address], seq: int, sign: Sign) -> bytes:
    """The envelope of a record of an Ed25519 peer, signed by it; the first 16 addresses that fit."""
    record = pb.PeerRecord(peer_id=peer, seq=seq)
    room = MAX_RECORD_BYTES - 256  # for all but the addresses
    for address in list(addresses)[:MAX_ADDRESSES]:
        room -= len(address) + 6
        if room < 0:
            break
        record.addresses.add(multiaddr=address)
    return seal_envelope(peer, _DOMAIN, _PAYLOAD_TYPE, record.SerializeToString(), sign)


def open_record(envelope: bytes, verify: Verify, peer: PeerId | None = None) -> PeerRecord:
    """The record in an envelope. peer: whose it must be; anybody's by default.

    Raises BadMessage when it is malformed, too long, forged, another peer's, or signed with a key of a kind that we
    cannot check. The payload is not looked into before its signature holds (RFC 0003, "Certification").
    """
    signer, payload = open_envelope(envelope, _DOMAIN, _PAYLOAD_TYPE, verify, "a peer record")
    if peer is not None and signer != peer:
        raise BadMessage(f"a peer record of {signer.short} in place of {peer.short}'s")
    try:
        record = pb.PeerRecord.FromString(payload)
    except DecodeError:
        raise BadMessage(f"{signer.short} signed what is no peer record") from None
    if record.peer_id != signer:
        raise BadMessage(f"{signer.short} signed a record of another peer")
    addresses = [info.multiaddr for info in record.addresses[:MAX_ADDRESSES] if info.multiaddr]
    return PeerRecord(PeerInfo(signer, tuple(dict.fromkeys(addresses))), record.seq)
