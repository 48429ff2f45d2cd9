"""The borrower's role: leases that this peer asks for and holds. States, messages and times: see lease.py."""

from __future__ import annotations

import math
from random import Random

from ..engine import NetworkOutput, Send
from ..errors import BadMessage, UsageError
from ..identity import PeerId
from .auth import LeaseKeys, NotAuthentic, check_agreement, secret_problem
from .events import (
    ClosePath,
    CommitGang,
    Journal,
    JournalRecord,
    LeaseActive,
    LeaseEnded,
    LeaseGranted,
    LeaseHeld,
    LeaseId,
    LeaseNotice,
    LeaseOutput,
    LeaseQueued,
    LeaseRefusal,
    LeaseSilent,
    OpenPath,
    PathFailed,
    RequestLease,
    Role,
)
from .farewells import Farewells
from .finished import Finished
from .forms import Forms, in_first_form, too_new
from .gangs import Gangs
from .lease_config import LeaseConfig
from .messages import (
    Agreement,
    Challenge,
    Notice,
    Queued,
    Refuse,
    Release,
    Renew,
    Renewed,
    Started,
    tidy,
)
from .signed_lease import SignedLease
from .taken_lease import GRANTED, Pace, TakenLease, TakenState, as_read, resumed

Outputs = list[NetworkOutput | LeaseOutput]
Answer = Queued | Challenge | Agreement | Refuse | Started | Renewed | Notice | Release


class Taken:
    """All leases that this peer holds or asks for."""

    def __init__(
        self, peer: PeerId, keys: LeaseKeys, rng: Random, config: LeaseConfig, finished: Finished
    ) -> None:
        self._peer, self._keys = peer, keys
        self._config, self._finished = config, finished
        self._leases: dict[LeaseId, TakenLease] = {}
        self._gangs = Gangs()
        self._forms = Forms(config)
        self._pace = Pace(config, rng)
        self._farewells = Farewells(config)

    def __contains__(self, lease: LeaseId) -> bool:
        return lease in self._leases

    def states(self) -> dict[LeaseId, TakenState]:
        """A snapshot."""
        return {lease: taken.state for lease, taken in self._leases.items()}

    def signed(self, lease: LeaseId) -> SignedLease | None:
        """What both sides have signed of a granted lease."""
        taken = self._leases.get(lease)
        return taken.signed(self._peer) if taken is not None and taken.agreement else None

    def deadline(self) -> float:
        """When `tick` has something to do."""
        due = min((taken.due(self._pace) for taken in self._leases.values()), default=math.inf)
        return min(due, self._farewells.deadline())

    def part(self, now: float) -> Outputs:
        """Say again what lenders may have missed. To be called after every event; mostly does nothing."""
        return [*self._farewells.tick(now)]

    # What the application says ------------------------------------------------------------------------------

    def request(self, command: RequestLease, now: float) -> Outputs:
        """Ask a provider. What could not be sent, or not be answered, is refused here and now."""
        lease, provider = command.lease, command.provider
        if lease in self._leases:
            return []
        try:
            problem = self._request_problem(command)
            request = as_read(command)
            if self._forms.first_only(provider):
                problem = problem or too_new(request)
                request = in_first_form(request)
        except BadMessage as bad:
            problem = f"the request cannot be sent: {bad}"
        else:
            if problem is None:
                taken = TakenLease(
                    lease=lease,
                    provider=provider,
                    need=request.need,
                    cluster=request.cluster,
                    form=request.form,
                    request=request,
                    secret=command.secret,
                    message=request,
                    first_sent=now,
                    next_send=now,
                    heard=now,
                    silent_by=now + self._config.step_timeout_s,
                )
                self._leases[lease] = taken
                if command.gang:
                    self._gangs.add(command.gang, lease)
                return [taken.send(self._pace, now)]
        return [LeaseRefusal(lease, provider, problem, None)]

    def commit(self, command: CommitGang, now: float) -> Outputs:
        """Take what is held for a gang, and let go of what is still asked for."""
        members = [self._leases[lease] for lease in self._gangs.members(command.gang)]
        if self._gangs.committed(command.gang):
            return []
        out: Outputs = []
        for taken in members:
            if taken.state is not TakenState.HELD:
                out += self._end(taken, "its gang was complete without it")
        self._gangs.commit(command.gang)
        for taken in members:
            if taken.lease in self._leases:  # the first that fails ends them all
                out += self._prove(taken, taken.nonce, now)
        return out

    def restore(self, record: JournalRecord, resume: bool, now: float) -> Outputs:
        """A lease of an earlier life: release it, or find out whether it stands."""
        if record.lease in self._leases:
            return []
        resume = resume and len(self._leases) < self._config.max_taken
        taken = resumed(record, self._peer, self._keys.verify, self._pace, now) if resume else None
        if taken is None:
            reason = "the borrower restarted"
            self._finished.add(record.lease, record.peer, reason)
            return [self._farewells.add(record.lease, record.peer, reason), Journal(record.lease, None)]
        self._leases[record.lease] = taken
        return [self._journal(taken), taken.send(self._pace, now)]

    def path_failed(self, command: PathFailed) -> Outputs:
        """The lease's traffic has no way. (That it has one is known once the worker has joined.)"""
        taken = self._leases[command.lease]
        if taken.state not in GRANTED:
            return []
        return self._end(taken, f"the traffic path failed: {command.reason}")

    def end(self, lease: LeaseId, reason: str) -> Outputs:
        """End one lease, or take a request back."""
        return self._end(self._leases[lease], reason)

    def doubt(self, lender: PeerId, now: float) -> Outputs:
        """A lender is suspected: renewals that it was not asked for yet are due now. From then on it is the lender's
        own silence that counts, as ever."""
        return [
            taken.send(self._pace, now)
            for taken in list(self._leases.values())
            if taken.provider == lender and taken.state in GRANTED and taken.message is None
        ]

    # What others say ----------------------------------------------------------------------------------------

    def speaks(self, peer: PeerId, first_form_only: bool, now: float) -> Outputs:
        """What a connected peer understands. A request that it could not read is put in other words, or given up."""
        self._forms.learn(peer, first_form_only)
        out: Outputs = []
        if not first_form_only:
            return out
        for taken in [taken for taken in self._leases.values() if taken.provider == peer]:
            if taken.state is not TakenState.REQUESTING or taken.form == 1 or taken.request is None:
                continue
            problem = too_new(taken.request)
            if problem is not None:
                out += self._end(taken, problem, tell=False)
                continue
            taken.message = taken.request = in_first_form(taken.request)
            taken.form = 1
            out.append(taken.send(self._pace, now))
        return out

    def receive(self, sender: PeerId, message: Answer, now: float) -> Outputs:
        """A lender's message. What a state does not expect changes nothing."""
        taken = self._leases.get(message.lease)
        if taken is None or taken.provider != sender:
            if isinstance(message, Release):
                self._farewells.heard(sender, message.lease)
            if isinstance(message, Refuse | Release):
                return []
            return [*self._finished.answer(sender, message.lease, now)]
        match taken.state, message:
            case TakenState.REQUESTING | TakenState.QUEUED, Queued(position=position):
                return self._queued(taken, position, now)
            case TakenState.REQUESTING | TakenState.QUEUED, Challenge(nonce=nonce):
                return self._challenged(taken, nonce, now)
            case TakenState.HELD, Challenge(nonce=nonce):
                taken.nonce, taken.message = nonce, None  # asked again since its connection closed
                taken.hear(self._pace, now)
                return []
            case (
                TakenState.REQUESTING | TakenState.QUEUED | TakenState.HELD | TakenState.PROVING,
                Refuse(reason=reason, retry_after_s=retry_after_s),
            ):
                return self._end(taken, reason, tell=False, retry_after_s=retry_after_s)
            case TakenState.PROVING, Agreement(envelope=envelope):
                return self._granted(taken, envelope, now)
            case TakenState.STARTING, Started(envelope=envelope):
                return self._activate(taken, now) if self._stands(taken, envelope) else []
            case TakenState.STARTING | TakenState.ACTIVE | TakenState.RESUMING, Renewed():
                return self._renewed(taken, message, now)
            case TakenState.STARTING | TakenState.ACTIVE, Notice(left_s=left_s, reason=reason):
                return self._noticed(taken, now + left_s, reason)
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
        for lease in [taken.lease for taken in self._leases.values() if taken.provider == peer]:
            taken = self._leases.get(lease)
            if taken is None:
                continue  # it was of a gang that ended with the one before
            taken.downs += 1
            if taken.downs > self._config.redials:
                out += self._end(
                    taken, "the lender cannot be reached: its connection closed and dialling it failed"
                )
                continue
            taken.silent_by = min(taken.silent_by, now + self._config.confirm_s)
            out.append(taken.send(self._pace, now))
        return out

    def expire(self, now: float) -> Outputs:
        """End what no answer can save any more."""
        out: Outputs = []
        for taken in list(self._leases.values()):
            if taken.last_by > now or taken.lease not in self._leases:
                continue
            if taken.ends <= now:
                out += self._end(taken, f"the lender took it back: {taken.end_reason}")
            elif taken.expires <= now:
                out += self._end(taken, "it expired: no renewal was answered in time")
            elif taken.start_by <= now:
                out += self._end(taken, f"its worker did not start within {self._config.start_timeout_s:g} s")
            elif taken.state is TakenState.HELD:
                out += self._end(taken, f"its gang did not come together within {self._config.gang_s:g} s")
            else:
                out += self._end(taken, "it waited in the lender's queue as long as it was to")
        return out

    def tick(self, now: float) -> Outputs:
        """Send what is due, and end what is over."""
        out = self.expire(now)
        for taken in [taken for taken in self._leases.values() if taken.due(self._pace) <= now]:
            if taken.lease not in self._leases:
                continue
            if taken.silence_counts(self._pace) and taken.silent_by <= now:
                out += self._end(taken, f"the lender did not answer for {now - taken.heard:.1f} s")
            else:
                out.append(taken.send(self._pace, now))
                if taken.state is TakenState.ACTIVE and taken.silence_counts(self._pace) and not taken.silent:
                    taken.silent = True
                    out.append(LeaseSilent(taken.lease, taken.provider, True))
        return out

    # Inside -------------------------------------------------------------------------------------------------

    def _request_problem(self, command: RequestLease) -> str | None:
        if command.provider == self._peer:
            return "a peer cannot lease from itself"
        if command.lease in self._finished:
            return "its lease id was used before; choose a new one at random"
        if len(self._leases) >= self._config.max_taken:
            return f"this peer holds or asks for {self._config.max_taken} leases already; end one first"
        if command.gang and self._gangs.committed(command.gang):
            return "its gang is complete already; ask for it by itself, or for a new gang"
        return secret_problem(command.secret)

    def _queued(self, taken: TakenLease, position: int, now: float) -> Outputs:
        assert taken.request is not None
        if taken.request.queue_s <= 0:
            return []
        if taken.state is TakenState.REQUESTING:
            taken.state = TakenState.QUEUED
            taken.give_up_at = taken.first_sent + taken.request.queue_s + self._config.step_timeout_s
        taken.hear(self._pace, now)
        taken.next_send = now + self._config.renew_interval_s
        if position == taken.position:
            return []
        taken.position = position
        return [LeaseQueued(taken.lease, taken.provider, position)]

    def _challenged(self, taken: TakenLease, nonce: bytes, now: float) -> Outputs:
        if not self._gangs.of(taken.lease):
            return self._prove(taken, nonce, now)
        taken.state, taken.nonce, taken.message = TakenState.HELD, nonce, None
        taken.give_up_at = now + self._config.gang_s
        taken.hear(self._pace, now)
        return [LeaseHeld(taken.lease, taken.provider)]

    def _prove(self, taken: TakenLease, nonce: bytes, now: float) -> Outputs:
        """Answer a challenge, once: a repeated one gets the same proof again when its time comes."""
        try:
            proof = taken.proof(nonce, self._peer, self._keys, now + self._config.step_timeout_s)
        except UsageError as problem:
            return self._end(taken, str(problem))
        taken.state, taken.give_up_at = TakenState.PROVING, math.inf
        taken.message, taken.first_sent = proof, now
        taken.hear(self._pace, now)
        return [self._journal(taken), taken.send(self._pace, now)]

    def _granted(self, taken: TakenLease, envelope: bytes, now: float) -> Outputs:
        config = self._config
        assert taken.request is not None
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
        taken.request, taken.message = None, None
        return self._begin(taken, now)

    def _begin(self, taken: TakenLease, now: float) -> Outputs:
        taken.start_by = now + self._config.start_timeout_s + self._config.step_timeout_s
        taken.hear(self._pace, now)
        return [
            self._journal(taken),
            LeaseGranted(
                taken.lease, Role.BORROWER, taken.provider, taken.expires, taken.agreement, taken.need
            ),
            OpenPath(taken.lease, taken.provider, Role.BORROWER),
        ]

    def _renewed(self, taken: TakenLease, message: Renewed, now: float) -> Outputs:
        if not isinstance(taken.message, Renew) or message.sequence != taken.message.sequence:
            return []  # a late copy, or an answer to what was not asked
        if message.started and not self._stands(taken, message.envelope):
            return []
        taken.expires, taken.message = taken.first_sent + message.lease_s, None
        out: Outputs = []
        if taken.state is TakenState.RESUMING:
            taken.state = TakenState.STARTING
            out += self._begin(taken, now)
        if message.notice_s is not None:
            out += self._noticed(taken, taken.first_sent + message.notice_s, message.notice)
        if message.started and taken.state is TakenState.STARTING:
            return out + self._activate(taken, now)
        taken.hear(self._pace, now)
        if taken.silent:
            taken.silent = False
            out.append(LeaseSilent(taken.lease, taken.provider, False))
        return out

    def _stands(self, taken: TakenLease, envelope: bytes) -> bool:
        """Whether the lender signed that the worker runs, and where. The first form has no such thing."""
        return taken.form == 1 or taken.stands(envelope, self._peer, self._keys)

    def _activate(self, taken: TakenLease, now: float) -> Outputs:
        taken.state, taken.start_by = TakenState.ACTIVE, math.inf
        taken.hear(self._pace, now)
        # of a gang that has come together each one is written down as a lease by itself
        together = self._gangs.active(taken.lease) or (taken.lease,)
        return [
            *(self._journal(self._leases[lease]) for lease in together),
            LeaseActive(taken.lease, Role.BORROWER, taken.provider, taken.node_ip, taken.isolation),
        ]

    def _noticed(self, taken: TakenLease, ends: float, reason: str) -> Outputs:
        """It will end, whatever is renewed. What is told again can only bring that nearer; by how much messages were
        under way, nobody is told."""
        if ends >= taken.ends:
            return []
        nearer = taken.ends - ends > self._config.silence_s
        taken.ends, taken.end_reason = ends, reason
        return [LeaseNotice(taken.lease, Role.BORROWER, taken.provider, ends, reason)] if nearer else []

    def _journal(self, taken: TakenLease) -> Journal:
        taken.journaled = True
        return Journal(taken.lease, taken.record(self._gangs.of(taken.lease)))

    def _end(
        self, taken: TakenLease, reason: str, *, tell: bool = True, retry_after_s: float | None = None
    ) -> Outputs:
        """End a lease or request, and with it a gang that was committed. The only way out."""
        out: Outputs = []
        if tell and taken.journaled:  # it may stand at the lender
            out.append(self._farewells.add(taken.lease, taken.provider, reason))
        elif tell:
            out.append(Send(taken.provider, Release(taken.lease, tidy(reason))))
        if taken.state in GRANTED:
            out.append(ClosePath(taken.lease))
            out.append(LeaseEnded(taken.lease, Role.BORROWER, taken.provider, reason))
        else:
            out.append(LeaseRefusal(taken.lease, taken.provider, reason, retry_after_s))
        if taken.journaled:
            out.append(Journal(taken.lease, None))
        del self._leases[taken.lease]
        self._finished.add(taken.lease, taken.provider, reason)
        for lease in self._gangs.ended(taken.lease):
            out += self._end(self._leases[lease], f"another of its gang ended: {reason}")
        return out
