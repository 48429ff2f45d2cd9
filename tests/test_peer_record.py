"""Signed peer records: libp2p's RFC 0002 (envelopes) and RFC 0003 (records), and py-libp2p's of them."""

from __future__ import annotations

import nacl.signing
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.envelope import consume_envelope
from libp2p.peer.id import ID
from libp2p.peer.peer_record import PeerRecord as TheirRecord
from libp2p.peer.peerstore import create_signed_peer_record
from multiaddr.multiaddr import Multiaddr

from swarmp2p import peer_record_pb2 as pb
from swarmp2p.engine import PeerInfo
from swarmp2p.errors import BadMessage
from swarmp2p.identity import Identity, verify
from swarmp2p.peer_record import MAX_ADDRESSES, MAX_RECORD_BYTES, PeerRecord, open_record, seal_record

ALICE, BOB = Identity(b"a" * 32), Identity(b"b" * 32)
PLACE = Multiaddr("/ip4/192.0.2.1/tcp/4001").to_bytes()
SEALED = seal_record(ALICE.peer_id, (PLACE,), 7, ALICE.sign)


def reseal(payload: bytes, signer: Identity = ALICE, payload_type: bytes = b"\x03\x01") -> bytes:
    """An envelope around anything, signed as if it were a record."""
    signed = b"".join(
        len(part).to_bytes(1, "big") + part for part in (b"libp2p-peer-record", payload_type, payload)
    )
    key = b"\x08\x01\x12\x20" + (signer.peer_id.public_key or b"")
    return pb.Envelope(
        public_key=key, payload_type=payload_type, payload=payload, signature=signer.sign(signed)
    ).SerializeToString()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=64), max_size=MAX_ADDRESSES, unique=True),
    st.integers(0, 2**64 - 1),
)
def test_what_is_sealed_can_be_opened(addresses: list[bytes], seq: int) -> None:
    sealed = seal_record(ALICE.peer_id, addresses, seq, ALICE.sign)
    assert open_record(sealed, verify, ALICE.peer_id) == PeerRecord(
        PeerInfo(ALICE.peer_id, tuple(addresses)), seq
    )


def test_py_libp2p_opens_ours() -> None:
    envelope, record = consume_envelope(SEALED, "libp2p-peer-record")
    assert isinstance(record, TheirRecord)
    assert record.peer_id == ID(bytes(ALICE.peer_id))
    assert [address.to_bytes() for address in record.addrs] == [PLACE]
    assert record.seq == 7
    assert envelope.public_key.to_bytes() == ALICE.peer_id.public_key


def test_we_open_py_libp2ps() -> None:
    keys = create_new_key_pair(BOB.seed)
    theirs = create_signed_peer_record(ID(bytes(BOB.peer_id)), [Multiaddr(PLACE)], keys.private_key)
    assert open_record(theirs.marshal_envelope(), verify).info == PeerInfo(BOB.peer_id, (PLACE,))


def test_a_key_other_than_the_peers_is_refused() -> None:
    """RFC 0003: the peer id must be that of the envelope's key."""
    open_record(SEALED, verify, ALICE.peer_id)
    with pytest.raises(BadMessage, match="in place of"):
        open_record(SEALED, verify, BOB.peer_id)
    foreign = pb.PeerRecord(peer_id=bytes(BOB.peer_id), seq=1).SerializeToString()
    with pytest.raises(BadMessage, match="another peer"):
        open_record(reseal(foreign), verify)


def test_every_part_is_signed() -> None:
    """RFC 0002: "a signature of all fields except public_key"; and no other key's signature will do."""
    other_type = pb.Envelope.FromString(SEALED)
    other_type.payload_type = b"\x03\x02"
    other_payload = pb.Envelope.FromString(SEALED)
    other_payload.payload += b"\x10\x08"  # another seq
    other_key = pb.Envelope.FromString(SEALED)
    other_key.public_key = b"\x08\x01\x12\x20" + (BOB.peer_id.public_key or b"")
    other_signature = pb.Envelope.FromString(SEALED)
    other_signature.signature = bytes(64)
    for forged in (other_type, other_payload, other_key, other_signature):
        with pytest.raises(BadMessage):
            open_record(forged.SerializeToString(), verify)


def test_the_signature_is_of_the_domain() -> None:
    """RFC 0002, "Domain separation": what was signed for another purpose is refused."""
    payload = pb.Envelope.FromString(SEALED).payload
    signed = b"".join(
        len(part).to_bytes(1, "big") + part for part in (b"libp2p-other-stuff", b"\x03\x01", payload)
    )
    forged = pb.Envelope.FromString(SEALED)
    forged.signature = ALICE.sign(signed)
    with pytest.raises(BadMessage, match="did not sign"):
        open_record(forged.SerializeToString(), verify)


def test_the_payload_is_not_read_before_its_signature_holds() -> None:
    """RFC 0003: "the envelope MUST be discarded without deserializing"."""
    garbage = pb.Envelope.FromString(reseal(b"\xff\xff"))
    with pytest.raises(BadMessage, match="no peer record"):
        open_record(garbage.SerializeToString(), verify)
    garbage.signature = bytes(64)
    with pytest.raises(BadMessage, match="did not sign"):
        open_record(garbage.SerializeToString(), verify)


def test_other_kinds_of_keys_and_of_payloads_are_refused() -> None:
    rsa = pb.Envelope.FromString(SEALED)
    rsa.public_key = b"\x08\x00\x12\x02ab"
    with pytest.raises(BadMessage, match="Ed25519"):
        open_record(rsa.SerializeToString(), verify)
    with pytest.raises(BadMessage, match="something else"):
        open_record(reseal(b"", payload_type=b"/libp2p/routing-state-record"), verify)


def test_long_records_are_neither_made_nor_read() -> None:
    many = tuple(bytes([number]) * 500 for number in range(1, 40))
    sealed = seal_record(ALICE.peer_id, many, 1, ALICE.sign)
    assert len(sealed) <= MAX_RECORD_BYTES
    assert open_record(sealed, verify).info.addresses == many[:7]
    with pytest.raises(BadMessage, match="4097 bytes"):
        open_record(bytes(4097), verify)
    short = tuple(bytes([number]) for number in range(1, 40))
    assert (
        len(open_record(seal_record(ALICE.peer_id, short, 1, ALICE.sign), verify).info.addresses)
        == MAX_ADDRESSES
    )


def test_only_the_named_signer_is_asked() -> None:
    key = nacl.signing.SigningKey(ALICE.seed)
    asked: list[bytes] = []

    def check(peer: bytes, data: bytes, signature: bytes) -> bool:
        asked.append(peer)
        key.verify_key.verify(data, signature)
        return True

    open_record(SEALED, check)
    assert asked == [ALICE.peer_id]
