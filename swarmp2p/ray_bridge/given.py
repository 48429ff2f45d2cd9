"""The lender's role: leases that this peer gives. States, messages and times: see lease.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import assert_never

from ..engine import NetworkOutput, Send
from ..identity import PeerId
from .auth import LeaseKeys, NotAuthentic
from .events import (
    ClosePath,
    Journal,
    JournalRecord,
    LeaseActive,
    LeaseEnded,
    LeaseGranted,
    LeaseId,
    LeaseNotice,
    LeaseOutput,
    Lend,
    OpenPath,
    PathFailed,
    PathUp,
    Role,
    StartWorker,
    StopLending,
    StopWorker,
    TakeBack,
    WorkerFailed,
    WorkerStarted,
)
from .finished import Finished
from .given_lease import WITH_WORKER, GivenLease, GivenState
from .grants import Grant
from .lease_config import LeaseConfig
from .lease_queue import LeaseQueue
from .messages import (
    MAX_NOTICE_S,
    NONCE_BYTES,
    Agreement,
    Challenge,
    LeaseRequest,
    Notice,
    Proof,
    Queued,
    Refuse,
    Release,
    Renew,
    Started,
    tidy,
)
from .policy import Permission, Permit, Refusal
from .room import Room
from .signed_lease import SignedLease

Outputs = list[NetworkOutput | LeaseOutput]
Asked = LeaseRequest | Proof | Renew | Release


class Given:
    """All leases that this peer gives, the reservations for those it may give, and the requests that wait."""

    def __init__(
        self, peer: PeerId, keys: LeaseKeys, config: LeaseConfig, finished: Finished, permit: Permit
    ) -> None:
        self._peer, self._keys, self._config, self._finished = peer, keys, config, finished
        self._leases: dict[LeaseId, GivenLease] = {}
        self._room = Room(self._leases, permit, config)
        self._queue = LeaseQueue(config)
        self._freed = False  # something may fit that did not

    def __contains__(self, lease: LeaseId) -> bool:
        return lease in self._leases or self._queue.get(lease) is not None

    def states(self) -> dict[LeaseId, GivenState]:
        """A snapshot."""
        waiting = dict.fromkeys(self._queue.leases(), GivenState.QUEUED)
        return {**waiting, **{lease: given.state for lease, given in self._leases.items()}}

    def signed(self, lease: LeaseId) -> SignedLease | None:
        """What both sides have signed of a granted lease."""
        given = self._leases.get(lease)
        return given.signed(self._peer) if given is not None and given.agreement else None

    def deadline(self) -> float:
        """When `tick` has something to do."""
        return min([given.due for given in self._leases.values()] + [self._queue.deadline()])

    # What others say ----------------------------------------------------------------------------------------

    def receive(self, sender: PeerId, message: Asked, now: float) -> Outputs:
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
                # It holds a lease that was lost here; the reservation came from a late copy of its request. Or it
                # says so to be rid of one.
                self._room.waste(given, now)
                self._forget(given, "the lender restarted and does not know the lease")
                return [*self._finished.answer(sender, given.lease, now)]
            case GivenState.CHALLENGED, Release():
                self._room.waste(given, now)
                self._forget(given, "the borrower took its request back")
                return []
            case _, LeaseRequest():
                return []
            case _, Proof():
                return [Send(sender, Agreement(given.lease, given.agreement))]
            case _, Renew(sequence=sequence):
                return self._renew(given, sequence, now)
            case _, Release(reason=reason):
                return self._end(
                    given, f"the borrower ended it: {reason}"
                )  # and is told, once, that it is heard

    def down(self, peer: PeerId, now: float) -> Outputs:
        """The connection to a borrower closed; maybe it is gone: its leases' terms shrink till it renews."""
        for given in self._leases.values():
            if given.borrower == peer and given.state is not GivenState.CHALLENGED:
                given.until = min(given.until, now + self._config.orphan_grace_s)
        return []

    def tick(self, now: float) -> Outputs:
        """Let go of what is due, and warn of what will be."""
        out: Outputs = []
        for given in [given for given in self._leases.values() if given.due <= now]:
            if given.state is GivenState.CHALLENGED:
                self._room.waste(given, now)
                self._forget(given, "no proof came in time")
            elif given.ends <= now:
                out += self._end(given, given.end_reason)
            elif given.until <= now:
                out += self._end(given, "the borrower did not renew it in time")
            elif given.start_by <= now:
                what = "path" if given.state is GivenState.OPENING else "worker"
                out += self._end(given, f"the {what} was not ready within {self._config.start_timeout_s:g} s")
            else:
                out += self._warn(given, now)
        for waiting in self._queue.overdue(now):
            reason = f"there was no room within {now - waiting.since:.0f} s"
            out += self._give_up(waiting.lease, Refusal(reason, self._config.retry_after_s))
        return out

    def serve(self, now: float) -> Outputs:
        """Challenge those who wait and have room now. To be called after every event; mostly does nothing."""
        out: Outputs = []
        while self._freed and len(self._queue):
            self._freed = False
            for waiting in self._queue.firsts():
                verdict = self._room.admit(waiting.request, waiting.borrower, now)
                if isinstance(verdict, Permission):
                    if self._room.crowded(waiting.borrower):
                        continue
                    self._queue.remove(waiting.lease, served=True)
                    out += self._challenge(waiting.request, waiting.borrower, verdict, now)
                    self._freed = True  # its borrower's next one may fit, too
                elif not verdict.room:
                    out += self._give_up(
                        waiting.lease, verdict
                    )  # else it would keep others from what there is
                    self._freed = True
                elif self._queue.aged(waiting, now):
                    break
        self._freed = False
        return out

    # What the application says ------------------------------------------------------------------------------

    def lend(self, terms: Lend) -> Outputs:
        """Lend on these terms from now on."""
        self._room.lend, self._freed = terms, True
        return []

    def stop_lending(self, command: StopLending) -> Outputs:
        """Lend nothing, and end what was given."""
        self._room.lend, self._freed = None, True
        return [output for lease in list(self._leases) for output in self.end(lease, command.reason)]

    def take_back(self, command: TakeBack, now: float) -> Outputs:
        """Give notice: of one lease, or of all, and then lend nothing more."""
        if command.lease is None:
            self._room.lend, self._freed = None, True
            leases = list(self._leases)
        else:
            leases = [command.lease]
        out: Outputs = []
        notice_s = min(command.notice_s, MAX_NOTICE_S)
        for lease in leases:
            given = self._leases.get(lease)
            if given is None or given.state is GivenState.CHALLENGED or not notice_s > 0:
                out += self.end(lease, command.reason)
            elif now + notice_s < given.ends:
                given.ends, given.end_reason = now + notice_s, tidy(command.reason)
                out += self._warn(given, now)
        return out

    def end_where(self, reason: Callable[[PeerId, Grant | None], str | None]) -> Outputs:
        """End the leases, and take the reservations back, for which there is a reason; by borrower and grant. Who waits
        is judged anew at once."""
        self._freed = True
        out: Outputs = []
        for lease, given in list(self._leases.items()):
            why = reason(given.borrower, given.permission.grant)
            if why is not None:
                out += self.end(lease, why)
        return out

    def restore(self, record: JournalRecord) -> Outputs:
        """A lease of an earlier life. Its worker is gone: the borrower is told, and nobody can revive it."""
        reason = "the lender restarted"
        self._finished.add(record.lease, record.peer, reason)
        return [Send(record.peer, Release(record.lease, reason)), Journal(record.lease, None)]

    def path_up(self, command: PathUp) -> Outputs:
        """Start the worker, once."""
        given = self._leases.get(command.lease)
        if given is None or given.state is not GivenState.OPENING:
            return []
        assert given.secret is not None
        secret, given.secret = given.secret, None
        given.state = GivenState.STARTING
        return [
            Journal(given.lease, given.record()),
            StartWorker(given.lease, given.borrower, secret, given.request.need),
        ]

    def worker_started(self, command: WorkerStarted, now: float) -> Outputs:
        """The lease is in use."""
        given = self._leases.get(command.lease)
        if given is None or given.state is not GivenState.STARTING:
            return []
        given.state, given.start_by = GivenState.ACTIVE, math.inf
        given.node_ip, given.ports = command.node_ip or given.node_ip, command.ports
        given.sign(self._keys, self._peer, now)
        return [
            Journal(given.lease, given.record()),
            Send(given.borrower, Started(given.lease, given.standing)),
            LeaseActive(given.lease, Role.LENDER, given.borrower, given.node_ip, given.isolation),
        ]

    def fail(self, command: PathFailed | WorkerFailed) -> Outputs:
        """What carries the lease broke."""
        given = self._leases.get(command.lease)
        if given is None:
            return []
        match command:
            case PathFailed(reason=reason):
                happened = given.state is not GivenState.CHALLENGED
                reason = f"the traffic path failed: {reason}"
            case WorkerFailed(reason=reason):
                happened = given.state in WITH_WORKER
                reason = f"the worker failed: {reason}"
            case _:
                assert_never(command)
        return self._end(given, reason) if happened else []

    def end(self, lease: LeaseId, reason: str) -> Outputs:
        """End one lease, or take a reservation back, or refuse who waits. Nothing for what is not there."""
        given = self._leases.get(lease)
        if given is None:
            return self._give_up(lease, Refusal(reason)) if self._queue.get(lease) else []
        if given.state is GivenState.CHALLENGED:
            return self._refuse(given, Refusal(reason))
        return self._end(given, reason)

    # Inside: before the agreement ---------------------------------------------------------------------------

    def _strange(self, sender: PeerId, message: Asked, now: float) -> Outputs:
        """A message about a lease that this sender does not hold here. It may wait for it."""
        waiting = self._queue.get(message.lease)
        waits = waiting is not None and waiting.borrower == sender
        match message:
            case LeaseRequest() if waits and waiting is not None:
                if message == waiting.request:
                    waiting.heard = now
                    return [Send(sender, Queued(waiting.lease, self._queue.position(waiting.lease)))]
                return []
            case LeaseRequest():
                return self._consider(sender, message, now)
            case Proof() | Renew():
                if waits:  # as for a reservation: it holds a lease that was lost here
                    self._drop(message.lease, "the lender restarted and does not know the lease")
                return [*self._finished.answer(sender, message.lease, now)]
            case Release():
                if waits:
                    self._drop(message.lease, "the borrower took its request back")
                return []
            case _:
                assert_never(message)

    def _consider(self, borrower: PeerId, request: LeaseRequest, now: float) -> Outputs:
        lease, config = request.lease, self._config
        if lease in self._finished:
            return [*self._finished.answer(borrower, lease, now)]
        verdict = self._room.admit(request, borrower, now)
        if isinstance(verdict, Permission):
            if lease in self:
                verdict = Refusal("this lease id is in use; choose one at random")
            elif self._room.crowded(borrower):
                verdict = Refusal("too many requests are under way", config.retry_after_s)
            elif not self._queue.before(borrower, now):
                return self._challenge(request, borrower, verdict, now)
            else:
                verdict = Refusal("others wait before it", config.retry_after_s, room=True)
        if verdict.room and request.queue_s > 0 and lease not in self:
            if self._queue.add(borrower, request, now):
                return [Send(borrower, Queued(lease, self._queue.position(lease)))]
            verdict = Refusal("its queue is full", config.retry_after_s)
        return [Send(borrower, Refuse(lease, tidy(verdict.reason), self._room.retry_after_s(verdict, now)))]

    def _challenge(
        self, request: LeaseRequest, borrower: PeerId, permitted: Permission, now: float
    ) -> Outputs:
        """Set aside what was asked for, for a short while."""
        held_s = self._config.hold_s if request.gang else self._config.challenge_timeout_s
        nonce, account = self._keys.random_bytes(NONCE_BYTES), self._room.account(borrower, permitted)
        firm = self._room.trusts(account, now)
        given = GivenLease(borrower, request, permitted, nonce, now, now + held_s, firm, account)
        self._leases[request.lease] = given
        out: Outputs = [Send(borrower, Challenge(request.lease, nonce))]
        superfluous = self._room.superfluous()
        if superfluous is not None:
            self._room.waste(superfluous, now)
            out += self._refuse(
                superfluous, Refusal("too many others have asked since", self._config.retry_after_s)
            )
        return out

    def _prove(self, given: GivenLease, proof: Proof, now: float) -> Outputs:
        """A proof arrived: check it, check the owner's terms again (they may have changed), then agree."""
        try:
            secret = given.open_proof(proof, self._keys, self._peer, self._config, now)
        except NotAuthentic as wrong:
            self._room.waste(given, now)
            return self._refuse(given, Refusal(str(wrong)))
        verdict = self._room.admit(given.request, given.borrower, now, but=given)
        if isinstance(verdict, Refusal):
            if not verdict.room:  # such as a grant that it passed on to itself for just so long
                self._room.waste(given, now)
            retry_after_s = self._room.retry_after_s(verdict, now)
            return self._refuse(given, Refusal(verdict.reason, retry_after_s))
        lend = self._room.lend
        assert lend is not None, "nothing is admitted while nothing is lent"
        given.secret = secret
        given.agree(verdict, lend, self._keys, self._peer, self._config, now)
        self._freed = True  # one challenge less is under way
        need = given.request.need
        expires = min(given.until, given.ends)
        return [
            Journal(given.lease, given.record()),
            Send(given.borrower, Agreement(given.lease, given.agreement)),
            LeaseGranted(given.lease, Role.LENDER, given.borrower, expires, given.agreement, need),
            OpenPath(given.lease, given.borrower, Role.LENDER),
        ]

    def _refuse(self, given: GivenLease, why: Refusal) -> Outputs:
        """End a reservation."""
        self._forget(given, why.reason)
        return [Send(given.borrower, Refuse(given.lease, tidy(why.reason), why.retry_after_s))]

    def _give_up(self, lease: LeaseId, why: Refusal) -> Outputs:
        """Refuse a request that waits."""
        borrower = self._drop(lease, why.reason)
        return [Send(borrower, Refuse(lease, tidy(why.reason), why.retry_after_s))]

    def _drop(self, lease: LeaseId, reason: str) -> PeerId:
        waiting = self._queue.get(lease)
        assert waiting is not None
        self._queue.remove(lease)
        self._finished.add(lease, waiting.borrower, reason)
        self._freed = True
        return waiting.borrower

    # Inside: after it ---------------------------------------------------------------------------------------

    def _renew(self, given: GivenLease, sequence: int, now: float) -> Outputs:
        """Each sequence number extends the term once; a repeated one is only answered again."""
        if sequence < given.sequence:
            return []
        if sequence > given.sequence:
            given.sequence, given.until = sequence, now + given.lease_s
            given.sign(self._keys, self._peer, now)
        return [Send(given.borrower, given.renewed(now))]

    def _warn(self, given: GivenLease, now: float) -> Outputs:
        """Tell both sides when the lease will end, whatever is renewed."""
        given.warned, given.warn_at = True, math.inf
        notice = LeaseNotice(given.lease, Role.LENDER, given.borrower, given.ends, given.end_reason)
        if given.request.form == 1:
            return [notice]
        left_s = max(0.0, given.ends - now)
        return [Send(given.borrower, Notice(given.lease, left_s, given.end_reason)), notice]

    def _end(self, given: GivenLease, reason: str) -> Outputs:
        """End a granted lease. The only way out of OPENING, STARTING and ACTIVE."""
        out: Outputs = []
        if given.state in WITH_WORKER:
            out.append(StopWorker(given.lease, reason))
        out.append(ClosePath(given.lease))
        out.append(Send(given.borrower, Release(given.lease, tidy(reason))))
        out.append(LeaseEnded(given.lease, Role.LENDER, given.borrower, reason))
        out.append(Journal(given.lease, None))
        self._forget(given, reason)
        return out

    def _forget(self, given: GivenLease, reason: str) -> None:
        del self._leases[given.lease]
        self._finished.add(given.lease, given.borrower, reason)
        self._freed = True
