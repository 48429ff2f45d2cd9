"""Ids, addresses and signatures of simulated peers, made without keys or sockets."""

from __future__ import annotations

from hashlib import blake2b
from zlib import crc32

from ..engine import Address
from ..identity import PeerId
from ..signed import Sign


def sim_address(index: int) -> Address:
    """A made-up binary multiaddr: /ip4/10.x.y.z/tcp/4001, one for each index below 2^24."""
    return b"\x04\x0a" + (index & 0xFFFFFF).to_bytes(3, "big") + b"\x06\x0f\xa1"


def sim_peer(index: int) -> PeerId:
    """The PeerId of a simulated peer: shaped like an Ed25519 peer's, but nobody has its key."""
    return PeerId.from_public_key(
        blake2b(index.to_bytes(8, "big"), digest_size=32, person=b"swarmp2p sim").digest()
    )


def sim_sign(peer: PeerId) -> Sign:
    """A cheap stand-in for Identity.sign: 64 bytes that tell peers and data apart, and no secret.

    Real signature checks (54 µs each) would cap a simulation at 19,000 messages a second.
    """
    name = bytes(peer)[-32:]

    def sign(data: bytes) -> bytes:
        return name + crc32(data).to_bytes(32, "big")

    return sign


def sim_verify(peer: PeerId, data: bytes, signature: bytes) -> bool:
    """The stand-in for identity.verify that goes with `sim_sign`."""
    return signature == bytes(peer)[-32:] + crc32(data).to_bytes(32, "big")
