"""The lender's role: leases that this peer gives. States, messages and times: see lease.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import assert_never

from ..engine import NetworkOutput, Send
from ..identity import PeerId
from ..providers import DEFAULT_KIND, KINDS
from .auth import LeaseKeys, NotAuthentic, Terms, check_proof, make_agreement, request_digest
from .events import (
    ClosePath,
    JoinSecret,
    LeaseActive,
    LeaseEnded,
    LeaseGranted,
    LeaseId,
    LeaseOutput,
    Lend,
    OpenPath,
    PathFailed,
    PathUp,
    Revoke,
    Role,
    StartWorker,
    StopLending,
    StopWorker,
    WorkerFailed,
    WorkerStarted,
)
from .finished import Finished
from .grants import Grant
from .lease_config import LeaseConfig
from .messages import (
    MIN_LEASE_S,
    NONCE_BYTES,
    Agreement,
    Challenge,
    LeaseRequest,
    Proof,
    Refuse,
    Release,
    Renew,
    Renewed,
    Started,
    tidy,
)
from .policy import Permission, Permit, Refusal, admit, permission
from .standing import Standing, agreement_digest, make_standing

Outputs = list[NetworkOutput | LeaseOutput]


class GivenState(Enum):
    """Where a lease stands at its lender."""

    CHALLENGED = "challenged"
    """Resources are set aside; the borrower has not proven who it is. Not granted yet."""

    OPENING = "opening"
    """Granted; the traffic path is being made."""

    STARTING = "starting"
    """The worker is being started."""

    ACTIVE = "active"
    """The worker has joined."""


_WITH_WORKER = (GivenState.STARTING, GivenState.ACTIVE)


@dataclass(slots=True)
class _Given:
    """A lease or reservation.

    until: end of the challenge, then of the lease. start_by: when the worker must have joined.
    secret: kept from the proof to the worker's start. sequence: of the newest renewal. standing: what was signed for
    it, once the worker runs. lease_s: usual length of a term. term_s: of the current one, shorter when the permission
    ends before.
    """

    borrower: PeerId
    request: LeaseRequest
    nonce: bytes
    until: float
    state: GivenState = GivenState.CHALLENGED
    start_by: float = math.inf
    lease_s: float = 0.0
    term_s: float = 0.0
    permission: Permission = field(default_factory=Permission)
    isolation: str = ""
    node_ip: str = ""
    ports: tuple[int, int] = (0, 0)
    agreement: bytes = b""
    standing: bytes = b""
    secret: JoinSecret | None = None
    sequence: int = 0

    @property
    def lease(self) -> LeaseId:
        return self.request.lease

    @property
    def due(self) -> float:
        return min(self.until, self.start_by)


class Given:
    """All leases that this peer gives, and the reservations for those it may give."""

    def __init__(
        self,
        peer: PeerId,
        keys: LeaseKeys,
        config: LeaseConfig,
        finished: Finished,
        permit: Permit = permission,
    ) -> None:
        self._permit = permit
        self._peer, self._keys, self._config, self._finished = peer, keys, config, finished
        self._lend: Lend | None = None
        self._leases: dict[LeaseId, _Given] = {}

    def __contains__(self, lease: LeaseId) -> bool:
        return lease in self._leases

    def states(self) -> dict[LeaseId, GivenState]:
        """A snapshot."""
        return {lease: given.state for lease, given in self._leases.items()}

    def deadline(self) -> float:
        """When `tick` has something to do."""
        return min((given.due for given in self._leases.values()), default=math.inf)

    # What others say ----------------------------------------------------------------------------------------

    def receive(self, sender: PeerId, message: LeaseRequest | Proof | Renew | Release, now: float) -> Outputs:
        """A borrower's message. What a state does not expect changes nothing."""
        given = self._leases.get(message.lease)
        if given is None or given.borrower != sender:
            return self._strange(sender, message, now)
        match given.state, message:
            case GivenState.CHALLENGED, LeaseRequest() if message == given.request:
                return [Send(sender, Challenge(given.lease, given.nonce))]
            case GivenState.CHALLENGED, Proof():
                return self._prove(given, message, now)
            case GivenState.CHALLENGED, Renew():
                # It holds a lease that was lost here; the reservation came from a late copy of its request.
                self._forget(given, "the lender restarted and does not know the lease")
                return [*self._finished.answer(sender, given.lease, now)]
            case GivenState.CHALLENGED, Release():
                self._forget(given, "the borrower took its request back")
                return []
            case _, LeaseRequest():
                return []
            case _, Proof():
                return [Send(sender, Agreement(given.lease, given.agreement))]
            case _, Renew(sequence=sequence):
                return self._renew(given, sequence, now)
            case _, Release(reason=reason):
                return self._end(given, f"the borrower ended it: {reason}", tell=False)

    def down(self, peer: PeerId, now: float) -> Outputs:
        """The connection to a borrower closed; maybe it is gone: its leases' terms shrink till it renews."""
        for given in self._leases.values():
            if given.borrower == peer and given.state is not GivenState.CHALLENGED:
                given.until = min(given.until, now + self._config.orphan_grace_s)
        return []

    def tick(self, now: float) -> Outputs:
        """Let go of what is due."""
        out: Outputs = []
        for given in [given for given in self._leases.values() if given.due <= now]:
            if given.state is GivenState.CHALLENGED:
                self._forget(given, f"no proof came within {self._config.challenge_timeout_s:g} s")
            elif given.permission.until <= now:
                out += self._end(given, "its grant is over")
            elif given.until <= now:
                out += self._end(given, "the borrower did not renew it in time")
            else:
                what = "path" if given.state is GivenState.OPENING else "worker"
                out += self._end(given, f"the {what} was not ready within {self._config.start_timeout_s:g} s")
        return out

    # What the application says ------------------------------------------------------------------------------

    def lend(self, terms: Lend) -> Outputs:
        """Lend on these terms from now on."""
        self._lend = terms
        return []

    def stop_lending(self, command: StopLending) -> Outputs:
        """Lend nothing, and end what was given."""
        self._lend = None
        out: Outputs = []
        for given in list(self._leases.values()):
            if given.state is GivenState.CHALLENGED:
                out += self._refuse(given, command.reason, None)
            else:
                out += self._end(given, command.reason)
        return out

    def revoke(self, command: Revoke) -> Outputs:
        """End what rests on grants, or is held by borrowers, that do not count any more."""
        return self.end_where(
            lambda borrower, grant: (
                command.reason
                if borrower in command.borrowers
                or (grant is not None and any(link.id in command.grants for link in grant.links))
                else None
            )
        )

    def end_where(self, reason: Callable[[PeerId, Grant | None], str | None]) -> Outputs:
        """End the leases, and take the reservations back, for which there is a reason; by borrower and grant."""
        out: Outputs = []
        for lease, given in list(self._leases.items()):
            why = reason(given.borrower, given.permission.grant)
            if why is not None:
                out += self.end(lease, why)
        return out

    def path_up(self, command: PathUp) -> Outputs:
        """Start the worker, once."""
        given = self._leases[command.lease]
        if given.state is not GivenState.OPENING:
            return []
        assert given.secret is not None
        secret, given.secret = given.secret, None
        given.state = GivenState.STARTING
        return [StartWorker(given.lease, given.borrower, secret, given.request.need)]

    def worker_started(self, command: WorkerStarted, now: float) -> Outputs:
        """The lease is in use."""
        given = self._leases[command.lease]
        if given.state is not GivenState.STARTING:
            return []
        given.state, given.start_by = GivenState.ACTIVE, math.inf
        given.node_ip, given.ports = command.node_ip or given.node_ip, command.ports
        self._sign(given, now)
        return [
            Send(given.borrower, Started(given.lease, given.standing)),
            LeaseActive(given.lease, Role.LENDER, given.borrower, given.node_ip, given.isolation),
        ]

    def fail(self, command: PathFailed | WorkerFailed) -> Outputs:
        """What carries the lease broke."""
        given = self._leases[command.lease]
        match command:
            case PathFailed(reason=reason):
                happened = given.state is not GivenState.CHALLENGED
                reason = f"the traffic path failed: {reason}"
            case WorkerFailed(reason=reason):
                happened = given.state in _WITH_WORKER
                reason = f"the worker failed: {reason}"
            case _:
                assert_never(command)
        return self._end(given, reason) if happened else []

    def end(self, lease: LeaseId, reason: str) -> Outputs:
        """End one lease, or take a reservation back."""
        given = self._leases[lease]
        if given.state is GivenState.CHALLENGED:
            return self._refuse(given, reason, None)
        return self._end(given, reason)

    # Inside -------------------------------------------------------------------------------------------------

    def _strange(
        self, sender: PeerId, message: LeaseRequest | Proof | Renew | Release, now: float
    ) -> Outputs:
        """A message about a lease that this sender does not hold here."""
        match message:
            case LeaseRequest():
                return self._consider(sender, message, now)
            case Proof() | Renew():
                return [*self._finished.answer(sender, message.lease, now)]
            case Release():
                return []
            case _:
                assert_never(message)

    def _consider(self, borrower: PeerId, request: LeaseRequest, now: float) -> Outputs:
        lease, config = request.lease, self._config
        if lease in self._finished:
            return [*self._finished.answer(borrower, lease, now)]
        verdict = self._admit(request, borrower, list(self._leases.values()), now)
        if isinstance(verdict, Refusal):
            return [Send(borrower, Refuse(lease, tidy(verdict.reason), verdict.retry_after_s))]
        if lease in self._leases:
            return [Send(borrower, Refuse(lease, "this lease id is in use; choose one at random", None))]
        waiting = [given.borrower for given in self._leases.values() if given.state is GivenState.CHALLENGED]
        if len(waiting) >= config.max_half_open or waiting.count(borrower) >= config.max_half_open_per_peer:
            return [Send(borrower, Refuse(lease, "too many requests are under way", config.retry_after_s))]
        nonce = self._keys.random_bytes(NONCE_BYTES)
        self._leases[lease] = _Given(
            borrower, request, nonce, now + config.challenge_timeout_s, permission=verdict
        )
        return [Send(borrower, Challenge(lease, nonce))]

    def _admit(
        self, request: LeaseRequest, borrower: PeerId, others: list[_Given], now: float
    ) -> Permission | Refusal:
        taken, standing = [other.request.need for other in others], [other.permission for other in others]
        wait_s = self._config.retry_after_s
        return admit(self._lend, request, borrower, taken, now, wait_s, self._permit, standing)

    def _prove(self, given: _Given, proof: Proof, now: float) -> Outputs:
        """A proof arrived: check it, check the owner's terms again (they may have changed), then agree."""
        config = self._config
        try:
            secret = check_proof(
                self._keys,
                proof.envelope,
                given.request,
                given.nonce,
                self._peer,
                given.borrower,
                now,
                config.clock_error_s,
            )
        except NotAuthentic as wrong:
            return self._refuse(given, str(wrong), None)
        others = [other for other in self._leases.values() if other is not given]
        verdict = self._admit(given.request, given.borrower, others, now)
        if isinstance(verdict, Refusal):
            return self._refuse(given, verdict.reason, verdict.retry_after_s)
        given.permission = verdict
        assert self._lend is not None, "admit() lets nothing pass while nothing is lent"
        return self._agree(given, secret, self._lend, now)

    def _agree(self, given: _Given, secret: JoinSecret, lend: Lend, now: float) -> Outputs:
        lease_s = self._config.lease_s
        if lease_s is None:
            lease_s = KINDS.get(lend.offer.kind, KINDS[DEFAULT_KIND]).lease_s
        given.state, given.secret = GivenState.OPENING, secret
        given.lease_s, given.node_ip, given.isolation = lease_s, lend.offer.node_ip, lend.offer.isolation
        given.until, given.start_by = self._extend(given, now), now + self._config.start_timeout_s
        given.agreement = make_agreement(
            self._keys,
            Terms(
                lease=given.lease,
                lender=self._peer,
                borrower=given.borrower,
                digest=request_digest(given.request),
                cluster=given.request.cluster,
                need=given.request.need,
                node_ip=given.node_ip,
                issued=now,
                expires=given.until,
                lease_s=given.term_s,
                isolation=given.isolation,
                versions=None if given.request.form == 1 else lend.versions,
            ),
        )
        need = given.request.need
        return [
            Send(given.borrower, Agreement(given.lease, given.agreement)),
            LeaseGranted(given.lease, Role.LENDER, given.borrower, given.until, given.agreement, need),
            OpenPath(given.lease, given.borrower, Role.LENDER),
        ]

    def _renew(self, given: _Given, sequence: int, now: float) -> Outputs:
        """Each sequence number extends the term once; a repeated one is only answered again."""
        if sequence < given.sequence:
            return []
        if sequence > given.sequence:
            given.sequence, given.until = sequence, self._extend(given, now)
            self._sign(given, now)
        started = given.state is GivenState.ACTIVE
        left_s = max(MIN_LEASE_S, given.term_s)
        return [Send(given.borrower, Renewed(given.lease, sequence, left_s, started, given.standing))]

    @staticmethod
    def _extend(given: _Given, now: float) -> float:
        """The end of the term that begins now: never after what the lease rests on."""
        given.term_s = min(given.lease_s, given.permission.until - now)
        return now + given.term_s

    def _sign(self, given: _Given, now: float) -> None:
        """Sign what stands, once the worker runs, for a borrower that can read it."""
        if given.state is not GivenState.ACTIVE or given.request.form == 1:
            return
        standing = Standing(
            given.lease,
            self._peer,
            given.borrower,
            agreement_digest(given.agreement),
            given.node_ip,
            given.ports,
            given.sequence,
            now,
            given.until,
        )
        given.standing = make_standing(self._keys, standing)

    def _refuse(self, given: _Given, reason: str, retry_after_s: float | None) -> Outputs:
        """End a reservation."""
        self._forget(given, reason)
        return [Send(given.borrower, Refuse(given.lease, tidy(reason), retry_after_s))]

    def _end(self, given: _Given, reason: str, *, tell: bool = True) -> Outputs:
        """End a granted lease. The only way out of OPENING, STARTING and ACTIVE."""
        out: Outputs = []
        if given.state in _WITH_WORKER:
            out.append(StopWorker(given.lease, reason))
        out.append(ClosePath(given.lease))
        if tell:
            out.append(Send(given.borrower, Release(given.lease, tidy(reason))))
        out.append(LeaseEnded(given.lease, Role.LENDER, given.borrower, reason))
        self._forget(given, reason)
        return out

    def _forget(self, given: _Given, reason: str) -> None:
        del self._leases[given.lease]
        self._finished.add(given.lease, given.borrower, reason)
