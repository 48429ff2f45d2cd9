"""Who a borrower is, what a lender agreed to, and how the join secret travels. Pure functions over keys.

A connection already says which key the other side holds. The signatures here say more: they bind that key to
*this* lease, and can be shown to a third.

- The lender's *challenge* is 32 bytes from the system's random source, used for one lease and one answer.
- The borrower's *proof* is a map signed under "lease-proof": lease id, nonce, lender, borrower, the sha-256
  of the request, where the head is, an expiry, and the join secret in a sealed box. The nonce stops replay, the
  lender's id relaying to another lender, the digest a change of the request, and the domain any other use.
- The sealed box (X25519, only the lender can open it) repeats lease and borrower, so that a box taken from
  one borrower cannot be presented in the proof of another.
- The lender's *agreement* is a map signed under "lease-grant" (its name since the first version): both keys,
  lease id, the request's digest, its resources and labels, the lender's versions, how the worker is isolated,
  where its node listens, when it was given and until when.
- What *stands* (standing.py) is signed when the worker has joined, and at each renewal: address and ports,
  sequence and expiry. Request, proof, agreement and standing are the lease under both signatures (signed_lease.py).

Expiries are absolute. Two machines' clocks differ, so `clock_error_s` of lateness is forgiven.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from ..errors import BadMessage, SealedBoxError, SwarmError
from ..fields import Fields, is_ip
from ..identity import PeerId
from ..signed import Sign, Verify, open_signed, pack_map, sign_map, unpack_map
from .events import ISOLATIONS, NO_ISOLATION, JoinSecret, LeaseId, Need, Versions
from .messages import (
    LEASE_ID_BYTES,
    MAX_COUNT,
    MAX_ENVELOPE_BYTES,
    MAX_LEASE_S,
    MAX_MEMORY_BYTES,
    MAX_NAME_CHARS,
    MAX_NODE_IP_CHARS,
    MIN_LEASE_S,
    NONCE_BYTES,
    LeaseRequest,
)
from .wire import label_lists, read_labels, read_versions, request_fields

_PROOF_DOMAIN: Final = "lease-proof"
_AGREEMENT_DOMAIN: Final = "lease-grant"
_DIGEST_BYTES: Final = 32
_MAX_SEALED_BYTES: Final = 1024
_MAX_ADDRESS_CHARS: Final = 300
# The address goes onto a command line and the token into an environment: both are kept to what such a thing
# looks like, whoever sent them.
_ADDRESS: Final = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})")
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,512}")


@dataclass(frozen=True, slots=True)
class LeaseKeys:
    """What the lease engine does with keys; a simulation passes cheap stand-ins.

    sign, open_sealed: this peer's (Identity.sign, Identity.open_sealed; the latter raises SealedBoxError).
    verify, seal_to: identity.verify, identity.seal_to (which may raise UsageError).
    random_bytes: os.urandom. An engine's `rng` can be predicted, and a predictable challenge proves nothing.
    """

    sign: Sign
    verify: Verify
    seal_to: Callable[[PeerId, bytes], bytes]
    open_sealed: Callable[[bytes], bytes]
    random_bytes: Callable[[int], bytes]


class NotAuthentic(SwarmError):
    """A proof or an agreement is not what it must be; nothing was started, and no secret was used."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a lender signed.

    digest: of the request. node_ip: where the worker's Ray node listens, as far as that is known before its path.
    issued, expires: absolute seconds by the lender's clock. lease_s: length of the lease and of each renewal, in
    seconds. isolation: JAIL or NO_ISOLATION. versions: the lender's; None in form 1, which says neither. lent_as: the
    lender's provider kind, where `need` may say any.
    """

    lease: LeaseId
    lender: PeerId
    borrower: PeerId
    digest: bytes
    cluster: str
    need: Need
    node_ip: str
    issued: float
    expires: float
    lease_s: float
    isolation: str = NO_ISOLATION
    versions: Versions | None = None
    lent_as: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a borrower signed. digest: of the request. head: host:port of its head's GCS; "" in form 1, which does not
    say it in the clear. expires: absolute seconds, of the proof."""

    lease: LeaseId
    nonce: bytes
    lender: PeerId
    borrower: PeerId
    digest: bytes
    sealed: bytes = field(repr=False)
    expires: float
    head: str


def request_digest(request: LeaseRequest) -> bytes:
    """The sha-256 that stands for a request in signatures."""
    return hashlib.sha256(pack_map(request_fields(request))).digest()


def secret_problem(secret: JoinSecret) -> str | None:
    """Why a join secret cannot be used; None when it can."""
    match = _ADDRESS.fullmatch(secret.address)
    if match is None or not 0 < int(match[1]) < 65536:
        return "the head's address is not host:port"
    if _TOKEN.fullmatch(secret.token) is None:
        return "the head's token is not 1 to 512 printable ASCII characters without spaces"
    return None


def make_proof(
    keys: LeaseKeys,
    request: LeaseRequest,
    nonce: bytes,
    lender: PeerId,
    borrower: PeerId,
    secret: JoinSecret,
    expires: float,
) -> bytes:
    """The borrower's answer to a challenge. Raises UsageError when the lender's id holds no usable key."""
    box = pack_map(
        {"lease": request.lease, "borrower": borrower, "address": secret.address, "token": secret.token}
    )
    fields: dict[str, Any] = {
        "lease": request.lease,
        "nonce": nonce,
        "lender": lender,
        "borrower": borrower,
        "request": request_digest(request),
        "sealed": keys.seal_to(lender, box),
        "expires": expires,
    }
    if request.form > 1:
        fields["head"] = secret.address
    return sign_map(_PROOF_DOMAIN, fields, keys.sign)


def read_proof(envelope: bytes, borrower: PeerId, verify: Verify) -> Claim:
    """What `borrower` signed, whoever shows it; raises NotAuthentic when it did not."""
    try:
        fields = Fields(open_signed(_PROOF_DOMAIN, envelope, borrower, verify, MAX_ENVELOPE_BYTES))
        claim = Claim(
            lease=fields.data("lease", LEASE_ID_BYTES, LEASE_ID_BYTES),
            nonce=fields.data("nonce", NONCE_BYTES, NONCE_BYTES),
            lender=fields.peer("lender"),
            borrower=fields.peer("borrower"),
            digest=fields.data("request", _DIGEST_BYTES, _DIGEST_BYTES),
            sealed=fields.data("sealed", 1, _MAX_SEALED_BYTES),
            expires=fields.time("expires"),
            head=fields.text("head", _MAX_ADDRESS_CHARS) if fields.has("head") else "",
        )
        fields.done()
    except BadMessage as problem:
        raise NotAuthentic(f"the proof cannot be accepted: {problem}") from None
    if claim.borrower != borrower:
        raise NotAuthentic("the proof was made for other peers than these two")
    return claim


def check_proof(
    keys: LeaseKeys,
    envelope: bytes,
    request: LeaseRequest,
    nonce: bytes,
    lender: PeerId,
    borrower: PeerId,
    now: float,
    clock_error_s: float,
) -> JoinSecret:
    """The join secret inside a proof that answers exactly this challenge; raises NotAuthentic otherwise.

    The reason is told to the borrower, so it names what does not fit and nothing that it did not send.
    """
    claim = read_proof(envelope, borrower, keys.verify)
    if claim.lender != lender:
        raise NotAuthentic("the proof was made for other peers than these two")
    if claim.lease != request.lease or claim.nonce != nonce:
        raise NotAuthentic("the proof answers another challenge; ask for a new lease")
    if claim.digest != request_digest(request):
        raise NotAuthentic("the proof covers another request than the one that was made")
    _check_expiry("proof", claim.expires, now, clock_error_s)
    secret = _open_secret(keys, claim.sealed, claim.lease, borrower)
    if request.form > 1 and claim.head != secret.address:
        raise NotAuthentic("the proof says another address of the head than the join secret")
    return secret


def _open_secret(keys: LeaseKeys, sealed: bytes, lease: LeaseId, borrower: PeerId) -> JoinSecret:
    try:
        fields = Fields(unpack_map(keys.open_sealed(sealed), _MAX_SEALED_BYTES))
        bound = fields.data("lease", LEASE_ID_BYTES, LEASE_ID_BYTES), fields.peer("borrower")
        secret = JoinSecret(fields.text("address", _MAX_ADDRESS_CHARS), fields.text("token", 512))
        fields.done()
    except (SealedBoxError, BadMessage):
        raise NotAuthentic("the join secret was not sealed to this lender, or was altered") from None
    if bound != (lease, borrower):
        raise NotAuthentic("the join secret was sealed for another lease")
    problem = secret_problem(secret)
    if problem is not None:
        raise NotAuthentic(f"the join secret cannot be used: {problem}")
    return secret


def make_agreement(keys: LeaseKeys, terms: Terms) -> bytes:
    """The lender's signed agreement."""
    need = terms.need
    fields: dict[str, Any] = {
        "lease": terms.lease,
        "lender": terms.lender,
        "borrower": terms.borrower,
        "request": terms.digest,
        "cluster": terms.cluster,
        "cpus": float(need.cpus),
        "gpus": float(need.gpus),
        "memory_bytes": need.memory_bytes,
        "kind": need.kind,
        "region": need.region,
        "node_ip": terms.node_ip,
        "issued": terms.issued,
        "expires": terms.expires,
        "lease_s": terms.lease_s,
    }
    versions = terms.versions
    if versions is not None:
        fields |= {
            "isolation": terms.isolation,
            "lent_as": terms.lent_as,
            "ray": versions.ray,
            "python": versions.python,
            "swarmp2p": versions.swarmp2p,
        }
        if need.labels:
            fields["labels"] = label_lists(need.labels)
    return sign_map(_AGREEMENT_DOMAIN, fields, keys.sign)


def read_agreement(envelope: bytes, lender: PeerId, verify: Verify) -> Terms:
    """The terms that `lender` signed, whoever shows them; raises NotAuthentic when it did not."""
    try:
        fields = Fields(open_signed(_AGREEMENT_DOMAIN, envelope, lender, verify, MAX_ENVELOPE_BYTES))
        newer = fields.has("isolation")
        terms = Terms(
            lease=fields.data("lease", LEASE_ID_BYTES, LEASE_ID_BYTES),
            lender=fields.peer("lender"),
            borrower=fields.peer("borrower"),
            digest=fields.data("request", _DIGEST_BYTES, _DIGEST_BYTES),
            cluster=fields.text("cluster", MAX_NAME_CHARS),
            need=Need(
                fields.number("cpus", 0, MAX_COUNT),
                fields.number("gpus", 0, MAX_COUNT),
                fields.integer("memory_bytes", 0, MAX_MEMORY_BYTES),
                fields.text("kind", MAX_NAME_CHARS),
                fields.text("region", MAX_NAME_CHARS),
                read_labels(fields) if newer else (),
            ),
            node_ip=fields.text("node_ip", MAX_NODE_IP_CHARS),
            issued=fields.time("issued"),
            expires=fields.time("expires"),
            lease_s=fields.number("lease_s", MIN_LEASE_S, MAX_LEASE_S),
            isolation=fields.choice("isolation", ISOLATIONS) if newer else NO_ISOLATION,
            versions=read_versions(fields) if newer else None,
            lent_as=fields.text("lent_as", MAX_NAME_CHARS) if newer else "",
        )
        fields.done()
    except BadMessage as problem:
        raise NotAuthentic(f"the agreement cannot be accepted: {problem}") from None
    if terms.lender != lender:
        raise NotAuthentic("the agreement names another lender than the one that signed it")
    if not is_ip(terms.node_ip):
        raise NotAuthentic("the agreement's node address is no IP address")
    return terms


def check_agreement(
    keys: LeaseKeys,
    envelope: bytes,
    request: LeaseRequest,
    lender: PeerId,
    borrower: PeerId,
    now: float,
    clock_error_s: float,
) -> Terms:
    """The terms of an agreement that answers exactly this request; raises NotAuthentic otherwise."""
    terms = read_agreement(envelope, lender, keys.verify)
    if terms.borrower != borrower:
        raise NotAuthentic("the agreement was given to another borrower")
    if terms.lease != request.lease or terms.digest != request_digest(request):
        raise NotAuthentic("the agreement is for another request")
    if request.form > 1 and terms.versions is None:
        raise NotAuthentic("the agreement does not say how the worker is isolated, nor the lender's versions")
    if terms.need != request.need or terms.cluster != request.cluster:
        raise NotAuthentic("the agreement's terms are not what was asked for")
    _check_expiry("agreement", terms.expires, now, clock_error_s)
    return terms


def _check_expiry(what: str, expires: float, now: float, clock_error_s: float) -> None:
    late_s = now - expires
    if late_s > clock_error_s:
        raise NotAuthentic(
            f"the {what} expired {late_s:.0f} s ago by this machine's clock; "
            "if it was just made, set both machines' clocks"
        )
