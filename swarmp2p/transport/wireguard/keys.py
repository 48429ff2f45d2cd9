"""WireGuard keys: one for each cluster, and the identity's signature that says whose it is. Pure.

An identity's Ed25519 key could be converted to the X25519 that WireGuard needs, but a key that does two things is
only as safe as the worse of them, and nothing that it protected could be forgotten. So a member makes a key when it
joins a cluster, keeps it in memory alone, and signs a statement of it: who may know more than the public half is that
process, `wg`, and the interface, as long as the cluster lives.

    statement = sign_map("wireguard", {cluster, member, key, expires})

The domain, the cluster and the member make it useless in any other place: one that was seen in another cluster, or
is of another member of this one, is refused.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Final

import nacl.public

from ...errors import BadMessage
from ...identity import PeerId
from ...signed import Sign, Verify, open_signed, sign_map

KEY_BYTES: Final = 32
ID_BYTES: Final = 16  # of a cluster, and of a member

MAX_STATEMENT_BYTES: Final = 256
"""Of a signed statement, which takes 190 bytes."""

CLOCK_ERROR_S: Final = 30.0
"""How long after its expiry a statement is still taken: clocks differ."""

_DOMAIN: Final = "wireguard"
_NO_KEY: Final = bytes(KEY_BYTES)


@dataclass(frozen=True, slots=True)
class WireGuardKey:
    """An X25519 key pair. The private half is in no repr and is never written to a file or a command line."""

    private: bytes = field(repr=False)
    public: bytes

    @classmethod
    def generate(cls) -> WireGuardKey:
        """A new one from the system's random source."""
        key = nacl.public.PrivateKey.generate()
        return cls(bytes(key), bytes(key.public_key))


def make_statement(cluster: bytes, member: bytes, key: bytes, expires: float, sign: Sign) -> bytes:
    """An identity's word that a member of a cluster uses this public key until `expires`, seconds since the epoch.

    At most MAX_STATEMENT_BYTES long.
    """
    assert len(cluster) == len(member) == ID_BYTES
    assert len(key) == KEY_BYTES
    fields = {"cluster": cluster, "member": member, "key": key, "expires": float(expires)}
    return sign_map(_DOMAIN, fields, sign)


def check_statement(
    statement: bytes, signer: PeerId, cluster: bytes, member: bytes, now: float, verify: Verify
) -> bytes:
    """The public key in a statement; raises BadMessage unless `signer` made it for this member of this cluster.

    now: seconds since the epoch.
    """
    fields = open_signed(_DOMAIN, statement, signer, verify, MAX_STATEMENT_BYTES)
    key, expires = fields.get("key"), fields.get("expires")
    if fields.get("cluster") != cluster or fields.get("member") != member:
        raise BadMessage("a WireGuard key of another cluster or member")
    if not isinstance(key, bytes) or len(key) != KEY_BYTES or key == _NO_KEY:
        raise BadMessage("no WireGuard key in its statement")
    if not isinstance(expires, float) or not now <= expires + CLOCK_ERROR_S:  # `not`: also for NaN
        raise BadMessage("a WireGuard key whose statement is over")
    return key


def as_text(key: bytes) -> str:
    """A key as `wg` writes it: base64."""
    return base64.b64encode(key).decode()
