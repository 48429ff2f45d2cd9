"""How two members agree on a secret that nobody between them learns. Pure functions over keys.

    initiator                                    responder
       | offer:  round, X25519 ephemeral ----------> |
       | <------- answer: round, its own ephemeral,  |
       |          sha-256 of the offer               |
       | <------- again: round (asks for the next)   |

Each is a map that its sender's identity signed under "mesh-pairing", naming the cluster, both member ids, both peers
and an expiry; so it is worth nothing in another cluster, between others, or later. The secret is

    HKDF-SHA-256(ikm = X25519(ephemerals), salt = sha-256(offer ‖ answer), info = cluster, initiator, responder)

*Authentic*: only who signs for both peers' identities can make a pair agree on what it knows; the head, which passes
these on, can drop them and no more. *Forward secret*: ephemerals are used once and forgotten; an identity's key that
is stolen later opens nothing. *Replay-proof*: a round is taken once, and only if it is higher than any before; what is
repeated gets the same answer again. Rounds begin at the time in milliseconds, so they also grow over a restart.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

import nacl.bindings
import nacl.exceptions

from ...errors import BadMessage
from ...fields import Fields
from ...identity import PeerId
from ...signed import Sign, Verify, open_signed, sign_map
from .members import MEMBER_ID_BYTES, MemberId
from .messages import MAX_PAIRING_BYTES

SECRET_BYTES: Final = 32
MAX_ROUND: Final = 1 << 53
_KEY_BYTES: Final = 32
_DIGEST_BYTES: Final = 32
_DOMAIN: Final = "mesh-pairing"
_INFO: Final = b"swarmp2p mesh pair 1\0"


@dataclass(frozen=True, slots=True)
class MeshKeys:
    """What the mesh engine does with keys; a simulation passes cheap stand-ins.

    sign: Identity.sign. verify: identity.verify. random_bytes: os.urandom: ephemerals are made from it.
    """

    sign: Sign
    verify: Verify
    random_bytes: Callable[[int], bytes]


class Step(Enum):
    """What a statement is; see the module's docstring."""

    OFFER = "offer"
    ANSWER = "answer"
    AGAIN = "again"


@dataclass(frozen=True, slots=True)
class Between:
    """Who speaks to whom. Reversed for the other direction."""

    cluster: MemberId
    source: MemberId
    source_peer: PeerId
    target: MemberId
    target_peer: PeerId

    @property
    def reversed(self) -> Between:
        return Between(self.cluster, self.target, self.target_peer, self.source, self.source_peer)


@dataclass(frozen=True, slots=True)
class Statement:
    """One step. key: the ephemeral's public half; empty in `again`. offer: digest of the answered offer, or empty."""

    step: Step
    round: int
    key: bytes = b""
    offer: bytes = b""


def new_ephemeral(keys: MeshKeys) -> tuple[bytes, bytes]:
    """(private, public), 32 bytes each."""
    private = keys.random_bytes(_KEY_BYTES)
    return private, bytes(nacl.bindings.crypto_scalarmult_base(private))


def sign_statement(between: Between, statement: Statement, expires: float, sign: Sign) -> bytes:
    """The envelope of a statement. expires: absolute seconds, as an engine's `now`."""
    return sign_map(
        _DOMAIN,
        {
            "step": statement.step.value,
            "cluster": between.cluster,
            "source": between.source,
            "target": between.target,
            "target_peer": bytes(between.target_peer),
            "round": statement.round,
            "key": statement.key,
            "offer": statement.offer,
            "expires": float(expires),
        },
        sign,
    )


def read_statement(envelope: bytes, between: Between, now: float, late_s: float, verify: Verify) -> Statement:
    """The statement in an envelope; raises BadMessage unless its source signed it for this target, and it has not
    expired more than `late_s` seconds ago (two machines' clocks differ)."""
    fields = Fields(open_signed(_DOMAIN, envelope, between.source_peer, verify, MAX_PAIRING_BYTES))
    for name, value in (("cluster", between.cluster), ("source", between.source), ("target", between.target)):
        if fields.data(name, MEMBER_ID_BYTES, MEMBER_ID_BYTES) != value:
            raise BadMessage(f"a pairing with another {name}")
    if fields.peer("target_peer") != between.target_peer:
        raise BadMessage("a pairing with another peer")
    if fields.time("expires") + late_s < now:
        raise BadMessage("a pairing that has expired")
    name = fields.text("step", 16)
    steps = {step.value: step for step in Step}
    if name not in steps:
        raise BadMessage(f"no step of a pairing is called {name!r}")
    step = steps[name]
    key_bytes = 0 if step is Step.AGAIN else _KEY_BYTES
    digest_bytes = _DIGEST_BYTES if step is Step.ANSWER else 0
    statement = Statement(
        step,
        fields.integer("round", 0, MAX_ROUND),
        fields.data("key", key_bytes, key_bytes),
        fields.data("offer", digest_bytes, digest_bytes),
    )
    fields.done()
    return statement


def digest(envelope: bytes) -> bytes:
    """What stands for an offer in its answer."""
    return hashlib.sha256(envelope).digest()


def agree(private: bytes, public: bytes, offer: bytes, answer: bytes, initiator: Between) -> bytes | None:
    """The pair's secret, the same for both; None for a public key that leads to none.

    offer, answer: envelopes. initiator: as the initiator sees it.
    """
    try:
        shared = bytes(nacl.bindings.crypto_scalarmult(private, public))
    except (nacl.exceptions.CryptoError, RuntimeError):  # of low order: everybody would know the result
        return None
    info = _INFO + initiator.cluster + initiator.source + initiator.target
    return _hkdf(shared, hashlib.sha256(digest(offer) + digest(answer)).digest(), info)


def _hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """HKDF-SHA-256 (RFC 5869) for one block of 32 bytes."""
    extracted = hmac.digest(salt, secret, "sha256")
    return hmac.digest(extracted, info + b"\1", "sha256")
