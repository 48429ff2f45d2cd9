"""WireGuard keys: one for each cluster. Pure.

An identity's Ed25519 key could be converted to the X25519 that WireGuard needs, but a key that does two things is
only as safe as the worse of them, and nothing that it protected could be forgotten. So a member makes a key when it
joins a cluster and keeps it in memory alone: who may know more than the public half is that process, `wg`, and the
interface, as long as the cluster lives. Whose it is others know from the member's facts (../mesh/facts.py), which its
identity signs for this cluster and this membership.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Final

import nacl.public

KEY_BYTES: Final = 32


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


def as_text(key: bytes) -> str:
    """A key as `wg` writes it: base64."""
    return base64.b64encode(key).decode()
