"""Leases: an agreement between two peers that a Ray worker runs, which always ends.

Theory of operation. The *borrower's* messages drive everything: each is sent again every `retry_s` until it
is answered, each can be repeated without harm, and the *lender* only answers. So a lost, repeated, late or
reordered message costs time and nothing else, and no lender needs timers to send again. What a lender says of
its own accord (Challenge to one who waited, Started, Notice, Release) is said once; if it is lost, its answer to the
next message says the same. A borrower's Release is said again
until it is answered, a few times (farewells.py).

Borrower (taken.py, taken_lease.py)::

                     Challenge                    Agreement                Started, or Renewed that says so
    REQUESTING ------------------------> PROVING ----------> STARTING ----------------------------> ACTIVE
      |   ^ |  Queued     Challenge        ^ |                  |  repeats Renew                       |
      |   '-|---------> QUEUED ------------+ |                  |                                      |
      |     | Challenge,  |                | |                  | Release, silence, unreachable,       |
      |     | of a gang   v     CommitGang | |                  | expiry, path failed, EndLease, end   |
      |     '-----------> HELD ------------' |                  | of a notice, another of its gang     |
      | Refuse, Release, silence, unreachable| agreement not    | ended; not started in time           |
      | EndLease; its queue or hold is over  | authentic        v                                      v
      v                                      v                 (over: ClosePath, LeaseEnded)
     (over: LeaseRefusal)

    RESUMING (a journal's lease, after a restart) -- Renewed --> STARTING or ACTIVE; else (over: LeaseRefusal)

Lender (given.py, given_lease.py, lease_queue.py, room.py)::

     LeaseRequest, allowed, and there is room: it is set aside
        |                 Proof, and the terms still allow it   PathUp            WorkerStarted
        +----> CHALLENGED -------------------------> OPENING -------> STARTING -----------------> ACTIVE
        |        |    ^                                 |  OpenPath     |  StartWorker             |
        | full   |    | room, and its turn              | not renewed in time, Release, EndLease,  |
        v        |    |                                 | StopLending, end of its grant or of a    |
     QUEUED -----|----'                                 | notice, revoked, path or worker failed,  |
        |        |                                      | not started in time                      |
        | Release, silence, its time is over            |               |                          |
        v        v  bad or no proof, EndLease           v               v                          v
       (over: Refuse, or silence)         (over: StopWorker if it was to start, ClosePath, LeaseEnded)

Who may. The owner's terms and the grants that a request brings (policy.py, grant_book.py) are asked when the request
comes, when its turn in the queue does, and when the proof does. Nothing is started before a proof (auth.py) has been
checked that this borrower made for this lease, this challenge and this lender. A peer that is not allowed learns that,
and nothing about what is lent.

What binds. Request and proof, by the borrower's key: cluster, resources, kind, region, labels, versions, grants, gang.
Agreement, by the lender's: both keys, the request's digest, its own versions, isolation, start and first term.
Standing, by the lender's, when the worker runs and at each renewal: address, ports, sequence, expiry. The head's side
of the address is in the proof, and its ports are in the invitation to the cluster's mesh, which the borrower signs.
`Leases.signed` hands out all of it (signed_lease.py).

Deadlines. A challenge holds for `challenge_timeout_s`, a gang's for `hold_s` at its lender and `gang_s` at its
borrower. A path and a worker have `start_timeout_s`. Who waits in a queue repeats that every `renew_interval_s`, is
forgotten after `queue_silence_s`, and waits `queue_s` at most. A lender lets go `lease_s` after the last renewal that
it saw; a borrower `lease_s` after *sending* the last renewal that was answered, which is earlier, so it never counts
on a worker that its lender has given up. A notice, or the end of a grant, is an end that renewals do not move: each
side lets go at it. These ends need no message. Sooner ends: silence (a renewal a second; about 3 s without an answer),
and the closed connection. `PeerDown` may be a passing fault: the borrower renews at once, which dials again, and gives
up when that failed twice, or `confirm_s` later; the lender shortens the term to `orphan_grace_s` until it is renewed.
So a killed lender is noticed in milliseconds when TCP tells, in 2 to 3 s when it does not.

Gangs (gangs.py). Of a gang all are wanted or none. Each lender sets its worker aside; CommitGang proves all that are
held at once, and takes back what is only asked for. Until all are active the end of one is the end of all.

Nothing is kept hostage (waste.py): a reservation ends by itself, and for those who let many come to nothing none is
kept any more: they have what is free when their proof comes. So one of them keeps a machine from the others for some
seconds, and after that for a twelfth of the time.

Restarts. Both sides have written down (Journal) what stands before anything is said or started that relies on it. A
lender's workers end with it, and RestoreLeases has it tell the borrowers; a borrower's are released, or renewed with
sequences above all that it may have sent. Without a journal a peer that restarted knows no leases; it answers whatever
comes about one with Release, and its partner ends. Lease ids are never used twice: both sides remember the last ones
that ended, so that a late copy of a request does not revive them; and if they forgot, its challenge is answered by
Release.

Outputs come in pairs: ClosePath exactly once after each OpenPath, StopWorker after each StartWorker,
LeaseEnded after each LeaseGranted, and Journal(None) after the first Journal of a lease, on each side. A request ends
in exactly one of LeaseRefusal (never granted on this side) or LeaseEnded. A path or a worker that reports after that is
not listened to any more.

Commands that do not fit a lease's state, or name no lease, change nothing. Terms that are over are ended before
any event is looked at, so nothing outlives its time because a Tick was late; silence is judged after it, so
that an answer which waited for a busy process still counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import assert_never

from ..engine import (
    Certified,
    Congested,
    Engine,
    Located,
    Message,
    NetworkEvent,
    NetworkOutput,
    PeerDown,
    PeerUp,
    Reachable,
    Received,
    Send,
    Speaks,
    Tick,
    Undeliverable,
)
from ..identity import PeerId
from .auth import LeaseKeys
from .events import (
    CommitGang,
    Doubt,
    EndLease,
    LearnRevocations,
    LeaseCommand,
    LeaseId,
    LeaseOutput,
    LeaseRefusal,
    Lend,
    PathFailed,
    PathUp,
    RequestLease,
    RestoreLeases,
    Revoke,
    Role,
    StopLending,
    TakeBack,
    WorkerFailed,
    WorkerStarted,
)
from .finished import Finished
from .given import Given
from .given_lease import GivenState
from .grant_book import GrantBook
from .grants import Grant
from .lease_config import LeaseConfig
from .messages import (
    Agreement,
    Challenge,
    LeaseMessage,
    LeaseRequest,
    Notice,
    Proof,
    Queued,
    Refuse,
    Release,
    Renew,
    Renewed,
    Started,
)
from .signed_lease import SignedLease
from .taken import Taken
from .taken_lease import TakenState
from .wire import FIRST_PROTOCOL_ID

__all__ = ["GivenState", "LeaseConfig", "Leases", "TakenState"]

Outputs = list[NetworkOutput | LeaseOutput]


class Leases(Engine[LeaseCommand, LeaseOutput]):
    """The lease engine, both roles."""

    def __init__(
        self,
        peer: PeerId,
        keys: LeaseKeys,
        rng: Random,
        config: LeaseConfig | None = None,
    ) -> None:
        """peer: this peer; `keys` are its. rng: spreads renewals in time, nothing that must be secret."""
        config = config or LeaseConfig()
        self._finished = Finished(config)
        self._book = GrantBook(peer, keys.verify, config.clock_error_s)
        self._given = Given(peer, keys, config, self._finished, self._book.permit)
        self._taken = Taken(peer, keys, rng, config, self._finished)
        self._deadline = min(self._given.deadline(), self._taken.deadline())

    def deadline(self) -> float:
        return self._deadline

    def states(self) -> dict[LeaseId, GivenState | TakenState]:
        """Every lease, request and reservation that stands; for people and tests."""
        return {**self._given.states(), **self._taken.states()}

    def signed(self, lease: LeaseId) -> SignedLease | None:
        """What both sides have signed of a lease that stands, with the newest standing; None before the agreement and
        after the end."""
        return self._given.signed(lease) or self._taken.signed(lease)

    def handle(self, event: NetworkEvent | LeaseCommand, now: float) -> Sequence[NetworkOutput | LeaseOutput]:
        out: Outputs = []
        late = self._deadline <= now
        if late:
            out += self._given.tick(now)
            out += self._taken.expire(now)
        out += self._take(event, now)
        if late:
            out += self._taken.tick(now)
        out += self._given.serve(now)
        out += self._taken.part(now)
        self._deadline = min(self._given.deadline(), self._taken.deadline())
        return out

    def _take(self, event: NetworkEvent | LeaseCommand, now: float) -> Outputs:
        given, taken = self._given, self._taken
        match event:
            case Received(sender=sender, message=message):
                return self._receive(sender, message, now)
            case PeerDown(peer=peer):
                return given.down(peer, now) + taken.down(peer, now)
            case Speaks(peer=peer, protocol=LeaseMessage.protocol, serving=serving, id=agreed):
                return taken.speaks(peer, serving and agreed == FIRST_PROTOCOL_ID, now)
            case PeerUp(peer=peer):
                return taken.speaks(peer, False, now)
            case Tick() | Certified() | Undeliverable() | Speaks() | Congested() | Reachable() | Located():
                return []
            case Lend(grantors=grantors):
                self._book.revoked.keep(grantors)
                return given.lend(event)
            case LearnRevocations(owner=owner, envelope=envelope):
                return self._learn(owner, envelope)
            case StopLending():
                return given.stop_lending(event)
            case RequestLease(lease=lease, provider=provider):
                if lease in given:
                    return [
                        LeaseRefusal(lease, provider, "its lease id is in use; choose one at random", None)
                    ]
                return taken.request(event, now)
            case EndLease(lease=lease, reason=reason):
                if lease in given:
                    return given.end(lease, reason)
                return taken.end(lease, reason) if lease in taken else []
            case PathUp(lease=lease):
                return given.path_up(event) if lease in given else []
            case WorkerStarted(lease=lease):
                return given.worker_started(event, now) if lease in given else []
            case WorkerFailed(lease=lease):
                return given.fail(event) if lease in given else []
            case CommitGang():
                return taken.commit(event, now)
            case TakeBack(lease=lease):
                return given.take_back(event, now) if lease is None or lease in given else []
            case Revoke():
                return given.end_where(lambda borrower, grant: _revoked(event, borrower, grant))
            case RestoreLeases(records=records, resume=resume):
                out: Outputs = []
                for record in records:
                    if record.role is Role.LENDER:
                        out += given.restore(record)
                    else:
                        out += taken.restore(record, resume, now)
                return out
            case Doubt(peer=peer):
                return taken.doubt(peer, now)
            case PathFailed(lease=lease):
                if lease in given:
                    return given.fail(event)
                return taken.path_failed(event) if lease in taken else []
            case _:
                assert_never(event)

    def _learn(self, owner: PeerId, envelope: bytes) -> Outputs:
        told = self._book.learn(owner, envelope)
        if told is None:
            return []
        return self._given.end_where(lambda borrower, grant: self._book.voids(told, grant, borrower))

    def _receive(self, sender: PeerId, message: Message, now: float) -> Outputs:
        match message:
            case LeaseRequest(lease=lease) if lease in self._taken:
                # Only a lender whom we asked can know this id; commands name leases by id alone.
                return [Send(sender, Refuse(lease, "this lease id is in use; choose one at random", None))]
            case LeaseRequest() | Proof() | Renew():
                return self._given.receive(sender, message, now)
            case Queued() | Challenge() | Agreement() | Refuse() | Started() | Renewed() | Notice():
                return self._taken.receive(sender, message, now)
            case Release(lease=lease):
                if lease in self._given:
                    return self._given.receive(sender, message, now)
                return self._taken.receive(sender, message, now)
            case _:
                return []  # another engine's


def _revoked(command: Revoke, borrower: PeerId, grant: Grant | None) -> str | None:
    """Why a lease ends by a Revoke; None if it stays."""
    named = grant is not None and any(link.id in command.grants for link in grant.links)
    return command.reason if named or borrower in command.borrowers else None
