"""Keys for tests: cheap stand-ins that keep the properties the engine relies on, and real ones."""

from __future__ import annotations

import hashlib
from random import Random

from swarmp2p.errors import SealedBoxError
from swarmp2p.identity import Identity, PeerId, seal_to, verify
from swarmp2p.ray_bridge.auth import LeaseKeys
from swarmp2p.ray_bridge.events import JoinSecret, Need, Versions
from swarmp2p.ray_bridge.messages import LeaseRequest

SECRET = JoinSecret("127.0.0.1:6379", "s3cret-token")
VERSIONS = Versions(ray="2.60.0", python="3.11", swarmp2p="0.1.0")


def peer(number: int) -> PeerId:
    """A peer id that no real key belongs to."""
    return PeerId.from_public_key(bytes([number]) * 32)


def lease_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def request(number: int = 1, need: Need | None = None) -> LeaseRequest:
    return LeaseRequest(lease_id(number), need or Need(), VERSIONS, "test-cluster")


def _signature(signer: PeerId, data: bytes) -> bytes:
    return hashlib.sha512(signer + b"|" + data).digest()


def _cheap_verify(signer: PeerId, data: bytes, signature: bytes) -> bool:
    return signature == _signature(signer, data)


def _cheap_seal(target: PeerId, data: bytes) -> bytes:
    return hashlib.sha256(target + b"|" + data).digest() + data


def cheap_keys(owner: PeerId, seed: int = 0) -> LeaseKeys:
    """Hashes in place of signatures and boxes: any change of a byte is found out, nothing is hidden."""

    def open_sealed(box: bytes) -> bytes:
        if _cheap_seal(owner, box[32:]) != box:
            raise SealedBoxError("not for this peer")
        return box[32:]

    return LeaseKeys(
        sign=lambda data: _signature(owner, data),
        verify=_cheap_verify,
        seal_to=_cheap_seal,
        open_sealed=open_sealed,
        random_bytes=Random(f"{owner}{seed}").randbytes,
    )


def real_identity(number: int) -> Identity:
    return Identity(bytes([number]) * 32)


def real_keys(identity: Identity, seed: int = 0) -> LeaseKeys:
    """PyNaCl's, with repeatable challenges."""
    return LeaseKeys(identity.sign, verify, seal_to, identity.open_sealed, Random(seed).randbytes)
