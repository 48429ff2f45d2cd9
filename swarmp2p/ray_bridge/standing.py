"""What stands: the lender's signed word on a lease whose worker runs. Pure functions over keys.

An agreement (auth.py) is signed before anybody knows where the worker will listen, and says only the first term's end.
This says the rest, anew at each renewal: the worker's address and block of ports, the sequence of the renewal, and
until when the lease stands with it. It carries the digest of the agreement, so that both can be shown together to a
third.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from ..errors import BadMessage
from ..fields import Fields, is_ip
from ..identity import PeerId
from ..signed import Verify, open_signed, sign_map
from .auth import LeaseKeys, NotAuthentic
from .events import LeaseId
from .messages import LEASE_ID_BYTES, MAX_ENVELOPE_BYTES, MAX_NODE_IP_CHARS, MAX_SEQUENCE

_DOMAIN: Final = "lease-standing"
_DIGEST_BYTES: Final = 32
_MAX_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class Standing:
    """What a lender signed of a lease that runs.

    agreement: sha-256 of the agreement's envelope. node_ip: where the worker's Ray node listens. ports: first and
    count of those that it may listen at; (0, 0) for any. sequence: of the newest renewal, 0 before the first. issued,
    expires: absolute seconds by the lender's clock.
    """

    lease: LeaseId
    lender: PeerId
    borrower: PeerId
    agreement: bytes
    node_ip: str
    ports: tuple[int, int]
    sequence: int
    issued: float
    expires: float


def agreement_digest(envelope: bytes) -> bytes:
    """What stands for an agreement in a standing."""
    return hashlib.sha256(envelope).digest()


def make_standing(keys: LeaseKeys, standing: Standing) -> bytes:
    """The lender's signed word."""
    first, count = standing.ports
    fields = {
        "lease": standing.lease,
        "lender": standing.lender,
        "borrower": standing.borrower,
        "agreement": standing.agreement,
        "node_ip": standing.node_ip,
        "port": first,
        "ports": count,
        "sequence": standing.sequence,
        "issued": standing.issued,
        "expires": standing.expires,
    }
    return sign_map(_DOMAIN, fields, keys.sign)


def read_standing(envelope: bytes, lender: PeerId, verify: Verify) -> Standing:
    """What `lender` signed, whoever shows it; raises NotAuthentic when it did not."""
    try:
        fields = Fields(open_signed(_DOMAIN, envelope, lender, verify, MAX_ENVELOPE_BYTES))
        standing = Standing(
            lease=fields.data("lease", LEASE_ID_BYTES, LEASE_ID_BYTES),
            lender=fields.peer("lender"),
            borrower=fields.peer("borrower"),
            agreement=fields.data("agreement", _DIGEST_BYTES, _DIGEST_BYTES),
            node_ip=fields.text("node_ip", MAX_NODE_IP_CHARS),
            ports=(fields.integer("port", 0, _MAX_PORT), fields.integer("ports", 0, _MAX_PORT)),
            sequence=fields.integer("sequence", 0, MAX_SEQUENCE),
            issued=fields.time("issued"),
            expires=fields.time("expires"),
        )
        fields.done()
    except BadMessage as problem:
        raise NotAuthentic(f"what stands cannot be accepted: {problem}") from None
    if standing.lender != lender or not is_ip(standing.node_ip):
        raise NotAuthentic("what stands names another lender than the one that signed it, or no IP address")
    return standing


def check_standing(
    keys: LeaseKeys, envelope: bytes, lease: LeaseId, lender: PeerId, borrower: PeerId, agreement: bytes
) -> Standing:
    """What stands of exactly this lease; raises NotAuthentic otherwise. agreement: the envelope that was accepted."""
    standing = read_standing(envelope, lender, keys.verify)
    if (standing.lease, standing.borrower) != (lease, borrower):
        raise NotAuthentic("what stands is another lease")
    if standing.agreement != agreement_digest(agreement):
        raise NotAuthentic("what stands rests on another agreement")
    return standing
