"""The borrower's role: leases that this peer asks for and holds. States, messages and times: see lease.py."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from random import Random

from ..engine import NetworkOutput, Send
from ..errors import BadMessage, UsageError
from ..fields import Fields
from ..identity import PeerId
from .auth import LeaseKeys, NotAuthentic, check_agreement, make_proof, secret_problem
from .events import (
    ClosePath,
    JoinSecret,
    LeaseActive,
    LeaseEnded,
    LeaseGranted,
    LeaseId,
    LeaseOutput,
    LeaseRefusal,
    OpenPath,
    PathFailed,
    RequestLease,
    Role,
)
from .finished import Finished
from .lease_config import LeaseConfig
from .messages import (
    Agreement,
    Challenge,
    LeaseRequest,
    Notice,
    Proof,
    Queued,
    Refuse,
    Release,
    Renew,
    Renewed,
    Started,
    tidy,
)
from .standing import check_standing
from .wire import read_request, request_fields

Outputs = list[NetworkOutput | LeaseOutput]


class TakenState(Enum):
    """Where a lease stands at its borrower."""

    REQUESTING = "requesting"
    """Asked for; sends LeaseRequest."""

    PROVING = "proving"
    """Challenged; sends Proof."""

    STARTING = "starting"
    """Granted, the worker is being started; sends Renew."""

    ACTIVE = "active"
    """The worker has joined; sends Renew."""


_GRANTED = (TakenState.STARTING, TakenState.ACTIVE)


@dataclass(slots=True)
class _Taken:
    """A lease or request.

    message: what is sent, again and again, until it is answered; each can be repeated without harm. None
        between an answered renewal and the next one. first_sent: when it was first sent. next_send: when it,
        or the next renewal, is due.
    heard: when the lender last answered. unanswered: how often something was sent since. silent_by: when its
        silence ends the lease, if so much was sent that it counts. downs: how often PeerDown came since.
    expires, start_by: ends that nothing but a renewal, or the worker's start, moves.
    """

    provider: PeerId
    request: LeaseRequest
    secret: JoinSecret | None
    message: LeaseRequest | Proof | Renew | None
    first_sent: float
    next_send: float
    heard: float
    silent_by: float
    state: TakenState = TakenState.REQUESTING
    unanswered: int = 0
    downs: int = 0
    sequence: int = 0
    agreement: bytes = b""
    isolation: str = ""
    node_ip: str = ""
    expires: float = math.inf
    start_by: float = math.inf

    @property
    def lease(self) -> LeaseId:
        return self.request.lease


class Taken:
    """All leases that this peer holds or asks for."""

    def __init__(
        self, peer: PeerId, keys: LeaseKeys, rng: Random, config: LeaseConfig, finished: Finished
    ) -> None:
        self._peer, self._keys, self._rng = peer, keys, rng
        self._config, self._finished = config, finished
        self._leases: dict[LeaseId, _Taken] = {}
        self._patience_s = {
            TakenState.REQUESTING: config.step_timeout_s,
            TakenState.PROVING: config.step_timeout_s,
            TakenState.STARTING: config.starting_silence_s,
            TakenState.ACTIVE: config.silence_s,
        }

    def __contains__(self, lease: LeaseId) -> bool:
        return lease in self._leases

    def states(self) -> dict[LeaseId, TakenState]:
        """A snapshot."""
        return {lease: taken.state for lease, taken in self._leases.items()}

    def deadline(self) -> float:
        """When `tick` has something to do."""
        return min((self._due(taken) for taken in self._leases.values()), default=math.inf)

    # What the application says ------------------------------------------------------------------------------

    def request(self, command: RequestLease, now: float) -> Outputs:
        """Ask a provider. What could not be sent, or not be answered, is refused here and now."""
        lease = command.lease
        if lease in self._leases:
            return []
        try:
            problem = self._request_problem(command)
            asked = LeaseRequest(
                lease,
                command.need,
                command.versions,
                command.cluster,
                command.gang,
                command.grants,
                command.queue_s,
            )
            # read back as the lender will read it: what it would not understand shows here
            request = read_request(Fields(request_fields(asked)))
        except BadMessage as bad:
            problem = f"the request cannot be sent: {bad}"
        else:
            if problem is None:
                silent_by = now + self._patience_s[TakenState.REQUESTING]
                taken = _Taken(command.provider, request, command.secret, request, now, now, now, silent_by)
                self._leases[lease] = taken
                return [self._send(taken, now)]
        return [LeaseRefusal(lease, command.provider, problem, None)]

    def path_failed(self, command: PathFailed) -> Outputs:
        """The lease's traffic has no way. (That it has one is known once the worker has joined.)"""
        taken = self._leases[command.lease]
        if taken.state not in _GRANTED:
            return []
        return self._end(taken, f"the traffic path failed: {command.reason}")

    def end(self, lease: LeaseId, reason: str) -> Outputs:
        """End one lease, or take a request back."""
        return self._end(self._leases[lease], reason)

    def doubt(self, lender: PeerId, now: float) -> Outputs:
        """A lender is suspected: renewals that it was not asked for yet are due now. From then on it is the lender's
        own silence that counts, as ever."""
        return [
            self._send(taken, now)
            for taken in list(self._leases.values())
            if taken.provider == lender and taken.state in _GRANTED and taken.message is None
        ]

    # What others say ----------------------------------------------------------------------------------------

    def receive(
        self,
        sender: PeerId,
        message: Queued | Challenge | Agreement | Refuse | Started | Renewed | Notice | Release,
        now: float,
    ) -> Outputs:
        """A lender's message. What a state does not expect changes nothing."""
        taken = self._leases.get(message.lease)
        if taken is None or taken.provider != sender:
            if isinstance(message, Refuse | Release):
                return []
            return [*self._finished.answer(sender, message.lease, now)]
        match taken.state, message:
            case TakenState.REQUESTING, Challenge(nonce=nonce):
                return self._prove(taken, nonce, now)
            case TakenState.REQUESTING | TakenState.PROVING, Refuse(
                reason=reason, retry_after_s=retry_after_s
            ):
                return self._end(taken, reason, tell=False, retry_after_s=retry_after_s)
            case TakenState.PROVING, Agreement(envelope=envelope):
                return self._granted(taken, envelope, now)
            case TakenState.STARTING, Started(envelope=envelope):
                return self._activate(taken, envelope, now)
            case TakenState.STARTING | TakenState.ACTIVE, Renewed():
                return self._renewed(taken, message, now)
            case _, Release(reason=reason):
                return self._end(taken, f"the lender ended it: {reason}", tell=False)
            case _:
                return []

    def down(self, peer: PeerId, now: float) -> Outputs:
        """The connection to a lender closed, or it could not be dialled.

        That may be a passing fault: what is due is sent at once, which dials again. When that failed
        `redials` times without an answer in between, the lease is over.
        """
        out: Outputs = []
        for taken in [taken for taken in self._leases.values() if taken.provider == peer]:
            taken.downs += 1
            if taken.downs > self._config.redials:
                out += self._end(
                    taken, "the lender cannot be reached: its connection closed and dialling it failed"
                )
                continue
            taken.silent_by = min(taken.silent_by, now + self._config.confirm_s)
            out.append(self._send(taken, now))
        return out

    def expire(self, now: float) -> Outputs:
        """End what no answer can save any more."""
        out: Outputs = []
        for taken in list(self._leases.values()):
            if taken.expires <= now:
                out += self._end(taken, "it expired: no renewal was answered in time")
            elif taken.start_by <= now:
                out += self._end(taken, f"its worker did not start within {self._config.start_timeout_s:g} s")
        return out

    def tick(self, now: float) -> Outputs:
        """Send what is due, and end what is over."""
        out = self.expire(now)
        for taken in [taken for taken in self._leases.values() if self._due(taken) <= now]:
            if self._silence_counts(taken) and taken.silent_by <= now:
                out += self._end(taken, f"the lender did not answer for {now - taken.heard:.1f} s")
            else:
                out.append(self._send(taken, now))
        return out

    # Inside -------------------------------------------------------------------------------------------------

    def _request_problem(self, command: RequestLease) -> str | None:
        if command.provider == self._peer:
            return "a peer cannot lease from itself"
        if command.lease in self._finished:
            return "its lease id was used before; choose a new one at random"
        if len(self._leases) >= self._config.max_taken:
            return f"this peer holds or asks for {self._config.max_taken} leases already; end one first"
        return secret_problem(command.secret)

    def _prove(self, taken: _Taken, nonce: bytes, now: float) -> Outputs:
        """Answer a challenge, once: a repeated one gets the same proof again when its time comes."""
        assert taken.secret is not None
        try:
            envelope = make_proof(
                self._keys,
                taken.request,
                nonce,
                taken.provider,
                self._peer,
                taken.secret,
                now + self._config.step_timeout_s,
            )
        except UsageError as problem:
            return self._end(taken, str(problem))
        taken.state = TakenState.PROVING
        taken.message, taken.first_sent = Proof(taken.lease, envelope), now
        self._heard(taken, now)
        return [self._send(taken, now)]

    def _granted(self, taken: _Taken, envelope: bytes, now: float) -> Outputs:
        config = self._config
        try:
            terms = check_agreement(
                self._keys, envelope, taken.request, taken.provider, self._peer, now, config.clock_error_s
            )
        except NotAuthentic as problem:
            return self._end(taken, str(problem))
        # The lender counts from later than this, so its end is never before ours.
        taken.expires = taken.first_sent + terms.lease_s
        if taken.expires <= now:
            return self._end(taken, "its agreement came when the term was over already; try again")
        taken.state, taken.node_ip, taken.secret = TakenState.STARTING, terms.node_ip, None
        taken.agreement, taken.isolation = envelope, terms.isolation
        taken.start_by = now + config.start_timeout_s + config.step_timeout_s
        taken.message = None
        self._heard(taken, now)
        return [
            LeaseGranted(taken.lease, Role.BORROWER, taken.provider, taken.expires, envelope, terms.need),
            OpenPath(taken.lease, taken.provider, Role.BORROWER),
        ]

    def _renewed(self, taken: _Taken, message: Renewed, now: float) -> Outputs:
        if not isinstance(taken.message, Renew) or message.sequence != taken.message.sequence:
            return []  # a late copy, or an answer to what was not asked
        taken.expires, taken.message = taken.first_sent + message.lease_s, None
        if message.started and taken.state is TakenState.STARTING:
            return self._activate(taken, message.envelope, now)
        self._heard(taken, now)
        return []

    def _activate(self, taken: _Taken, envelope: bytes, now: float) -> Outputs:
        if envelope:
            try:
                standing = check_standing(
                    self._keys, envelope, taken.lease, taken.provider, self._peer, taken.agreement
                )
            except NotAuthentic:
                return []
            taken.node_ip = standing.node_ip
        taken.state, taken.start_by = TakenState.ACTIVE, math.inf
        self._heard(taken, now)
        return [LeaseActive(taken.lease, Role.BORROWER, taken.provider, taken.node_ip, taken.isolation)]

    def _send(self, taken: _Taken, now: float) -> Send:
        """Send what the state asks for: the unanswered message once more, or the next renewal."""
        if taken.message is None:
            taken.sequence += 1
            taken.message, taken.first_sent = Renew(taken.lease, taken.sequence), now
        taken.unanswered += 1
        taken.next_send = now + self._config.retry_s
        if taken.unanswered == self._config.probes:
            taken.silent_by = max(taken.silent_by, taken.next_send)  # this one may be answered, too
        return Send(taken.provider, taken.message)

    def _heard(self, taken: _Taken, now: float) -> None:
        """The lender answered: all is well for a while."""
        taken.heard, taken.unanswered, taken.downs = now, 0, 0
        taken.silent_by = now + self._patience_s[taken.state]
        if taken.message is None:
            # up to a tenth sooner, so that many leases' renewals do not keep in step
            taken.next_send = now + self._config.renew_interval_s * (1.0 - 0.1 * self._rng.random())

    def _silence_counts(self, taken: _Taken) -> bool:
        return taken.unanswered >= self._config.probes

    def _due(self, taken: _Taken) -> float:
        due = min(taken.next_send, taken.expires, taken.start_by)
        return min(due, taken.silent_by) if self._silence_counts(taken) else due

    def _end(
        self, taken: _Taken, reason: str, *, tell: bool = True, retry_after_s: float | None = None
    ) -> Outputs:
        """End a lease or request. The only way out."""
        out: Outputs = []
        if tell:
            out.append(Send(taken.provider, Release(taken.lease, tidy(reason))))
        if taken.state in _GRANTED:
            out.append(ClosePath(taken.lease))
            out.append(LeaseEnded(taken.lease, Role.BORROWER, taken.provider, reason))
        else:
            out.append(LeaseRefusal(taken.lease, taken.provider, reason, retry_after_s))
        del self._leases[taken.lease]
        self._finished.add(taken.lease, taken.provider, reason)
        return out
