"""A lease under both signatures, to be shown to a third. Pure functions over keys.

    request --digest--> proof (borrower signs)
       '------digest--> agreement (lender signs) --digest--> standing (lender signs, anew at each renewal)

The request says what was asked for: cluster, resources, kind, region, labels, the borrower's versions, grants. The
proof says that this borrower asked exactly this of this lender, and where its head is. The agreement says that the
lender gives it, with its own versions, isolation, start and first term; the standing, where the worker listens, at
which ports, and until when. In the proof is the join secret, too, sealed to the lender: others cannot read it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from ..errors import BadMessage
from ..fields import Fields
from ..identity import PeerId, verify
from ..signed import Verify, pack_map, unpack_map
from .auth import NotAuthentic, Terms, read_agreement, read_proof
from .messages import MAX_ENVELOPE_BYTES, LeaseRequest
from .standing import Standing, agreement_digest, read_standing
from .wire import MAX_FRAME_BYTES, read_request

_MAX_BYTES: Final = 2 * MAX_FRAME_BYTES


@dataclass(frozen=True, slots=True)
class LeaseFacts:
    """What two peers signed. head: host:port of the head that the worker joins; "" from peers of the first form.
    standing: None as long as the worker has not joined, and from peers of the first form."""

    request: LeaseRequest
    head: str
    terms: Terms
    standing: Standing | None


@dataclass(frozen=True, slots=True)
class SignedLease:
    """The signed parts of a lease. standing: the newest; b"" as long as the worker has not joined."""

    lender: PeerId
    borrower: PeerId
    request: bytes
    proof: bytes
    agreement: bytes
    standing: bytes

    def check(self, verify: Verify = verify) -> LeaseFacts:
        """What both have signed; raises NotAuthentic when one of them has not. Whether it is over is the reader's to
        judge, by `terms.expires`, `standing.expires` and a clock."""
        digest = hashlib.sha256(self.request).digest()
        claim = read_proof(self.proof, self.borrower, verify)
        terms = read_agreement(self.agreement, self.lender, verify)
        try:
            fields = Fields(unpack_map(self.request, MAX_FRAME_BYTES))
            request = read_request(fields)
            fields.done()
        except BadMessage as problem:
            raise NotAuthentic(f"the request cannot be read: {problem}") from None
        if (claim.digest, claim.lender, claim.lease) != (digest, self.lender, request.lease):
            raise NotAuthentic("the borrower signed another request, or for another lender")
        if (terms.digest, terms.borrower, terms.lease) != (digest, self.borrower, request.lease):
            raise NotAuthentic("the lender agreed to another request, or with another borrower")
        if (terms.need, terms.cluster) != (request.need, request.cluster):
            raise NotAuthentic("the lender agreed to something else than was asked for")
        return LeaseFacts(request, claim.head, terms, self._standing(request, verify))

    def _standing(self, request: LeaseRequest, verify: Verify) -> Standing | None:
        if not self.standing:
            return None
        standing = read_standing(self.standing, self.lender, verify)
        if (standing.lease, standing.borrower) != (request.lease, self.borrower):
            raise NotAuthentic("what stands is another lease")
        if standing.agreement != agreement_digest(self.agreement):
            raise NotAuthentic("what stands rests on another agreement")
        return standing

    def to_bytes(self) -> bytes:
        """All of it, for whoever is to check it."""
        return pack_map(
            {
                "lender": bytes(self.lender),
                "borrower": bytes(self.borrower),
                "request": self.request,
                "proof": self.proof,
                "agreement": self.agreement,
                "standing": self.standing,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> SignedLease:
        """The inverse of to_bytes, not yet checked; raises NotAuthentic for what it did not make."""
        try:
            fields = Fields(unpack_map(data, _MAX_BYTES))
            lease = cls(
                fields.peer("lender"),
                fields.peer("borrower"),
                fields.data("request", 1, MAX_FRAME_BYTES),
                fields.data("proof", 1, MAX_ENVELOPE_BYTES),
                fields.data("agreement", 1, MAX_ENVELOPE_BYTES),
                fields.data("standing", 0, MAX_ENVELOPE_BYTES),
            )
            fields.done()
        except BadMessage as problem:
            raise NotAuthentic(f"this is no signed lease: {problem}") from None
        return lease
