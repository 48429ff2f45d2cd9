"""One lease at its lender: its state, its ends, and what the lender signs of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from ..identity import PeerId
from ..providers import DEFAULT_KIND, KINDS
from ..signed import pack_map
from .auth import LeaseKeys, Terms, check_proof, make_agreement, request_digest
from .events import JoinSecret, JournalRecord, LeaseId, Lend, Role
from .lease_config import LeaseConfig
from .messages import MAX_NOTICE_S, MIN_LEASE_S, LeaseRequest, Proof, Renewed
from .policy import Permission
from .signed_lease import SignedLease
from .standing import Standing, agreement_digest, make_standing
from .waste import Account
from .wire import request_fields


class GivenState(Enum):
    """Where a lease stands at its lender."""

    QUEUED = "queued"
    """There is no room; the request waits for its turn (lease_queue.py). Nothing is set aside."""

    CHALLENGED = "challenged"
    """The borrower has not proven who it is. Not granted yet; resources are set aside, if it may be waited for."""

    OPENING = "opening"
    """Granted; the traffic path is being made."""

    STARTING = "starting"
    """The worker is being started."""

    ACTIVE = "active"
    """The worker has joined."""


WITH_WORKER = (GivenState.STARTING, GivenState.ACTIVE)


@dataclass(slots=True)
class GivenLease:
    """A lease or reservation.

    since: when the challenge was made. firm: whether resources are set aside for it. account: who answers for it,
    should it end unproven (waste.py).
    until: end of the challenge, then of the term; a renewal moves it. start_by: when the worker must have joined.
    ends: what no renewal moves: the end of the permission, or of a notice; end_reason: which. warn_at: when the
    borrower is to be told of it; inf once it was, and while there is nothing to tell.
    secret: kept from the proof to the worker's start. sequence: of the newest renewal. standing: what was signed for
    it, once the worker runs. proof: what the borrower signed.
    """

    borrower: PeerId
    request: LeaseRequest
    permission: Permission
    nonce: bytes
    since: float
    until: float
    firm: bool
    account: Account
    state: GivenState = GivenState.CHALLENGED
    start_by: float = math.inf
    ends: float = math.inf
    end_reason: str = ""
    warn_at: float = math.inf
    warned: bool = False
    lease_s: float = 0.0
    isolation: str = ""
    node_ip: str = ""
    ports: tuple[int, int] = (0, 0)
    proof: bytes = field(default=b"", repr=False)
    agreement: bytes = field(default=b"", repr=False)
    standing: bytes = field(default=b"", repr=False)
    secret: JoinSecret | None = None
    sequence: int = 0

    @property
    def lease(self) -> LeaseId:
        return self.request.lease

    @property
    def due(self) -> float:
        return min(self.until, self.start_by, self.ends, self.warn_at)

    def left_s(self, now: float) -> float:
        """Length of a term from now, as the borrower may count on it."""
        return max(MIN_LEASE_S, min(self.lease_s, self.ends - now))

    def agree(
        self,
        permission: Permission,
        lend: Lend,
        keys: LeaseKeys,
        lender: PeerId,
        config: LeaseConfig,
        now: float,
    ) -> None:
        """Begin the term, and sign what was agreed on. Sets everything but the secret."""
        row = KINDS.get(lend.offer.kind, KINDS[DEFAULT_KIND])
        self.state = GivenState.OPENING
        self.permission, self.ends = permission, permission.until
        if permission.until < math.inf:
            self.end_reason = "its grant is over"
            self.warn_at = permission.until - row.notice_s
        self.lease_s = row.lease_s if config.lease_s is None else config.lease_s
        self.node_ip, self.isolation = lend.offer.node_ip, lend.offer.isolation
        self.until, self.start_by = now + self.lease_s, now + config.start_timeout_s
        left_s = self.left_s(now)
        terms = Terms(
            lease=self.lease,
            lender=lender,
            borrower=self.borrower,
            digest=request_digest(self.request),
            cluster=self.request.cluster,
            need=self.request.need,
            node_ip=self.node_ip,
            issued=now,
            expires=now + left_s,
            lease_s=left_s,
            isolation=self.isolation,
            versions=None if self.request.form == 1 else lend.versions,
            lent_as="" if self.request.form == 1 else lend.offer.kind,
        )
        self.agreement = make_agreement(keys, terms)

    def open_proof(
        self, proof: Proof, keys: LeaseKeys, lender: PeerId, config: LeaseConfig, now: float
    ) -> JoinSecret:
        """What a proof carries; raises NotAuthentic when it does not answer this lease's challenge."""
        challenge = (self.request, self.nonce, lender, self.borrower)
        secret = check_proof(keys, proof.envelope, *challenge, now, config.clock_error_s)
        self.proof = proof.envelope
        return secret

    def sign(self, keys: LeaseKeys, lender: PeerId, now: float) -> None:
        """Sign what stands, once the worker runs, for a borrower that can read it."""
        if self.state is not GivenState.ACTIVE or self.request.form == 1:
            return
        standing = Standing(
            lease=self.lease,
            lender=lender,
            borrower=self.borrower,
            agreement=agreement_digest(self.agreement),
            node_ip=self.node_ip,
            ports=self.ports,
            sequence=self.sequence,
            issued=now,
            expires=min(self.until, self.ends),
        )
        self.standing = make_standing(keys, standing)

    def renewed(self, now: float) -> Renewed:
        """The answer to the newest renewal."""
        warned = self.warned and self.request.form > 1
        return Renewed(
            self.lease,
            self.sequence,
            self.left_s(now),
            self.state is GivenState.ACTIVE,
            self.standing,
            min(MAX_NOTICE_S, max(0.0, self.ends - now)) if warned else None,
            self.end_reason if warned else "",
        )

    def record(self) -> JournalRecord:
        """What a restarted lender must know of it."""
        return JournalRecord(
            self.lease,
            Role.LENDER,
            self.borrower,
            self.request.cluster,
            self.request.need,
            self.state.value,
            self.agreement,
            self.sequence,
            self.until,
            b"",
            pack_map(request_fields(self.request)),
            self.proof,
        )

    def signed(self, lender: PeerId) -> SignedLease:
        """What both sides have signed."""
        request = pack_map(request_fields(self.request))
        return SignedLease(lender, self.borrower, request, self.proof, self.agreement, self.standing)
