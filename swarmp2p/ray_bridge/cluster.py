"""A borrower's cluster: its Ray head and the workers that other peers lend to it.

`Cluster` hires until it has as many workers as wanted, and again whenever a lease ends. It decides nothing
about leases (lease.py), about whom to ask (recruit.py, gossip/balancer.py), nor how many workers are wanted where that
follows Ray's demand (elastic.py); it connects them to the head.
"""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import trio

from ..errors import NotEnoughWorkers
from ..identity import PeerId
from ..scopes import cancel_scope
from .cluster_events import ClusterEvent, ClusterEventKind, ClusterEvents, ClusterLog
from .demand import Bundle, ClusterState
from .elastic import MOST_WORKERS, Ask, Elastic, Held
from .environment import borrowers_environment
from .events import (
    NO_ISOLATION,
    CommitGang,
    EndLease,
    JournalRecord,
    LeaseActive,
    LeaseCommand,
    LeaseEnded,
    LeaseGranted,
    LeaseHeld,
    LeaseId,
    LeaseNotice,
    LeaseOutput,
    LeaseQueued,
    LeaseRefusal,
    LeaseSilent,
    Need,
    OpenPath,
    PathUp,
    RequestLease,
    RestoreLeases,
    Versions,
)
from .gcs import Gcs
from .head import HeadRestart, RayHead
from .muster import Muster
from .recruit import Candidate, Recruiter
from .signed_lease import SignedLease

_LOOK_AGAIN_S = 1.0  # between searches while workers are missing
_GCS_EVERY_S = 0.25  # between two looks at Ray's demand, 0.5 ms each
_DRAIN_S = 5.0  # how long Ray may take to say whether it drains a node
_SHAPES_AT_ONCE = 8  # different needs looked for in one go
_RELEASE_S = 5.0  # how long closing waits for lenders to confirm; leases that do not end by then expire
_QUEUE_S = (
    600.0  # how long a request may wait at a lender that is full; it is taken back when it is not needed
)
_MAX_SEEN = 1024  # providers told of as found


@dataclass(frozen=True, slots=True)
class LeasedWorker:
    """A worker that runs. node_ip: its Ray node's address. path: how traffic goes there, "direct" or "overlay".
    path_reason: why, in words. isolation: what keeps its tasks from the lender's machine, as the lender signed it:
    "jail", or "none". signed: the lease under both signatures, as it stands now; `signed.check()` says what it binds,
    and `signed.to_bytes()` shows it to others."""

    lease: LeaseId
    peer: PeerId
    node_ip: str
    path: str = "direct"
    path_reason: str = ""
    isolation: str = NO_ISOLATION
    signed: SignedLease | None = field(default=None, repr=False)


Candidates = Callable[[Ask, bool], Awaitable[Sequence[tuple[Candidate, str]]]]
"""Returns providers for a worker, best first, each with a word on its load; True to search for them anew, instead of
going by those known."""


class Cluster:
    """A Ray head and its leased workers; made by `Peer.borrow`."""

    def __init__(
        self,
        head: RayHead,
        need: Need,
        recruiter: Recruiter,
        versions: Versions,
        candidates: Candidates,
        post: Callable[[LeaseCommand], None],
        now: Callable[[], float],
        path: Callable[[LeaseId], tuple[str, str, str]] = lambda lease: ("direct", "", ""),
        elastic: Elastic | None = None,
        muster: Muster | None = None,
        orders: bool = False,
        name: str = "",
        signed: Callable[[LeaseId], SignedLease | None] = lambda lease: None,
    ) -> None:
        """path: of a lease's worker: its name, why, and the address that it has by it, or "".
        candidates: see Candidates. elastic: decides how many workers are wanted; None for as many as the recruiter
        says. muster: of a cluster that wants all of its first workers or none. orders: workers come by `order` alone.
        name: in its leases; "" for one at random. signed: a lease under both signatures."""
        self._head, self._need, self._recruiter = head, need, recruiter
        self._versions, self._candidates = versions, candidates
        self._post, self._now, self._path = post, now, path
        self._signed = signed
        self._elastic = elastic
        self._shaped = orders or elastic is not None  # it is said worker by worker what is wanted
        self._muster = muster or Muster(0, Random(0))
        self._gcs = Gcs(
            lambda: head.secret.address,
            lambda: borrowers_environment(head.driver_environment()),
            0.0 if elastic is None else _GCS_EVERY_S,
            self._follow,
        )
        least = 0 if elastic is None else elastic.config.least
        self._asks = (Ask(need),) * least  # of an elastic cluster: workers to be asked for
        self._unmeetable: tuple[Bundle, ...] = ()
        self._needs: dict[LeaseId, Need] = {}
        self._holders: Mapping[PeerId, int] = {}
        self._giving_back: dict[LeaseId, None] = {}
        self._nursery: trio.Nursery | None = None
        self._trimming = False
        self._workers: dict[LeaseId, LeasedWorker] = {}
        self._seen: dict[PeerId, None] = {}
        self._log = ClusterLog(now)
        self._changed = trio.Event()
        self._closing = False
        self.withdraws_snapshots = False
        self.name = name or os.urandom(8).hex()

    @property
    def address(self) -> str:
        """host:port of the head's GCS: what `ray.init(address)` takes, and RAY_ADDRESS."""
        return self._head.address

    @property
    def workers(self) -> tuple[LeasedWorker, ...]:
        """The workers that run now."""
        return tuple(self._placed(worker) for worker in self._workers.values())

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to use the cluster: address and token. Keep it secret."""
        return self._head.driver_environment()

    @property
    def log_directory(self) -> str:
        """Where the head's logs are."""
        return str(self._head.log_path)

    @property
    def refusals(self) -> tuple[tuple[PeerId, str], ...]:
        """Providers that declined or were lost, with the last reason of each."""
        return self._recruiter.refusals()

    @property
    def unmeetable(self) -> tuple[Bundle, ...]:
        """Of an elastic cluster: what Ray's tasks, actors and placement groups wait for in vain, for no worker could
        have it (resources and labels of your own), or not within the cluster's size."""
        return self._unmeetable

    @property
    def snapshots(self) -> dict[PeerId, float]:
        """Who holds a snapshot of the cluster, and when that was made: seconds as the peer's clock."""
        return {peer: sequence / 1000 for peer, sequence in self._holders.items()}

    def withdraw_snapshots(self) -> None:
        """Nobody is to go on with this cluster: when it ends, who holds a snapshot of it is asked to delete that, which
        takes up to 7 s where some do not answer; theirs, and those of whoever is not there, expire within a week."""
        self.withdraws_snapshots = True

    @property
    def events(self) -> ClusterEvents:
        """Every event from the cluster's beginning (at most the last 1,024), then each as it happens, until
        the cluster is closed: `async for event in cluster.events`."""
        return self._log.events

    @property
    def past_events(self) -> tuple[ClusterEvent, ...]:
        """The events so far, at most the last 1,024."""
        return self._log.past

    async def wait_for_workers(self, count: int, timeout_s: float = math.inf) -> None:
        """Wait until `count` workers run; raises NotEnoughWorkers after `timeout_s` seconds."""
        with trio.move_on_after(timeout_s):
            while len(self._workers) < count:
                await self._changed.wait()
            return
        raise NotEnoughWorkers(
            count, len(self._workers), tuple((str(peer), reason) for peer, reason in self.refusals)
        )

    # What the peer calls --------------------------------------------------------------------------------------

    def concerns(self, lease: LeaseId) -> bool:
        """Whether a lease is one of this cluster's."""
        return self._recruiter.provider(lease) is not None

    def handle(self, output: LeaseOutput) -> None:
        """Take what the lease engine says about one of this cluster's leases."""
        match output:
            case OpenPath(lease=lease):
                self._post(PathUp(lease))  # the lender's word counts, not this side's
            case LeaseGranted(lease=lease, peer=peer):
                if self._recruiter.granted(lease, self._now()):
                    self._trim()
                self._take_back(self._recruiter.not_needed(), "another lender had room first")
                self._record(ClusterEventKind.GRANTED, peer)
            case LeaseQueued(lease=lease, peer=peer, position=position):
                place = f"it is full; the request is number {position} of those that wait"
                self._recruiter.queued(lease, place)
                self._record(ClusterEventKind.QUEUED, peer, place)
            case LeaseHeld(lease=lease):
                gang = self._muster.held(lease)
                if gang:
                    self._post(CommitGang(gang))
            case LeaseActive(lease=lease, peer=peer, node_ip=node_ip, isolation=isolation):
                self._muster.active(lease)
                path, reason, address = self._path(lease)
                self._workers[lease] = LeasedWorker(lease, peer, address or node_ip, path, reason, isolation)
                self._record(ClusterEventKind.ACTIVE, peer, f"{path}: {reason}" if reason else path)
            case LeaseNotice(lease=lease, peer=peer, ends=ends, reason=reason):
                self._noticed(lease, peer, ends, reason)
            case LeaseSilent(lease=lease, silent=silent):
                self._recruiter.silent(lease, silent)
                self._trim()
                self._wake()
            case LeaseRefusal(lease=lease, provider=peer, reason=reason, retry_after_s=retry_after_s):
                self._muster.over(lease, self._now())
                given_back = lease in self._giving_back
                if given_back:  # nothing speaks against who set it aside
                    self._recruiter.ended(lease, reason, self._now(), given_back=True)
                else:
                    self._recruiter.refused(lease, reason, retry_after_s, self._now())
                need = self._needs[lease]
                self._forget(lease)
                if self._shaped and not given_back:
                    self._want((*self._asks, Ask(need)))  # of another, until GCS has told more
                self._record(ClusterEventKind.REFUSED, peer, reason)
            case LeaseEnded(lease=lease, peer=peer, reason=reason):
                self._muster.over(lease, self._now())
                self._workers.pop(lease, None)
                self._recruiter.ended(lease, reason, self._now(), lease in self._giving_back)
                self._forget(lease)
                self._record(ClusterEventKind.ENDED, peer, reason)
            case _:
                pass  # workers are the lender's affair

    def adopt(self, records: Sequence[JournalRecord]) -> None:
        """Go on with leases of an earlier process of this cluster, as far as they still stand."""
        for record in records:
            self._needs[record.lease] = record.need
            self._recruiter.asked(record.lease, Candidate(record.peer, 0))
            self._record(ClusterEventKind.ASKED, record.peer, "it gave this cluster a worker before")
        self._post(RestoreLeases(tuple(records), resume=True))

    def head_restarted(self, own: PeerId, restart: HeadRestart) -> None:
        """The head was started again. own: this peer."""
        goes_on = "drivers go on" if restart.drivers else "drivers have to call ray.shutdown() and ray.init()"
        self._record(ClusterEventKind.HEAD_RESTARTED, own, f"{restart.reason}; {goes_on}")

    def follow_snapshots(self, holders: Mapping[PeerId, int]) -> None:
        """Show who holds them. holders: by peer the sequence, milliseconds; it changes."""
        self._holders = holders

    def snapshot_told(self, peer: PeerId, reason: str) -> None:
        """A peer holds a snapshot of this cluster, or does not any more; or, of the borrower, why there is none."""
        self._record(ClusterEventKind.SNAPSHOT, peer, reason)

    def restored(self, holder: PeerId, reason: str) -> None:
        """It goes on from a snapshot."""
        self._record(ClusterEventKind.RESTORED, holder, reason)

    def index_told(self, own: PeerId, reason: str) -> None:
        """A package index of the borrower's is nothing for workers."""
        self._record(ClusterEventKind.PACKAGES, own, reason)

    def _placed(self, worker: LeasedWorker) -> LeasedWorker:
        """A worker with its path as it is now; that of one that was adopted stands only later."""
        path, reason, address = self._path(worker.lease)
        return replace(
            worker,
            node_ip=address or worker.node_ip,
            path=path,
            path_reason=reason,
            signed=self._signed(worker.lease),
        )

    def _forget(self, lease: LeaseId) -> None:
        self._needs.pop(lease, None)
        self._giving_back.pop(lease, None)

    async def run(self) -> None:
        """Keep the cluster at its size, and follow Ray's demand, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._ask_gcs)
            await self._hire()

    async def _ask_gcs(self) -> None:
        await self._head.gcs_ready()
        await self._gcs.run()

    async def _hire(self) -> None:
        # a worker that starts before GCS answers would only wait; who is there can be found out meanwhile
        self._note_found(await self._candidates(Ask(self._need), True))
        await self._head.gcs_ready()
        search = False
        while True:
            changed = self._changed
            wait_s = self._muster.waits(self._now())
            if wait_s > 0:
                with trio.move_on_after(wait_s):
                    await changed.wait()
            elif self._recruiter.missing() > 0 and not self._closing:
                enough = await self._seek(search)
                if not enough and not search:
                    search = True  # those known will not do: look for others at once
                    continue
                if not enough:
                    self._let_go()
                search = not enough
                share_s = self._recruiter.share_at() - self._now()
                with trio.move_on_after(share_s if 0 < share_s < _LOOK_AGAIN_S else _LOOK_AGAIN_S):
                    await changed.wait()
            else:
                await changed.wait()

    async def _seek(self, search: bool) -> bool:
        """Ask for the workers that are missing, as far as somebody can be asked. search: look for providers anew,
        instead of going by those known. False when there was nobody for some of them."""
        missing = self._asks if self._shaped else (Ask(self._need),) * self._recruiter.missing()
        wanted: dict[Ask, int] = {}
        for ask in missing:
            if ask in wanted or len(wanted) < _SHAPES_AT_ONCE:
                wanted[ask] = wanted.get(ask, 0) + 1
        enough = True
        for ask, count in wanted.items():
            found = await self._candidates(ask, search)
            self._note_found(found)
            enough &= self._ask(ask, count, [candidate for candidate, _ in found])
        return enough

    def _let_go(self) -> None:
        """Of what is held for a gang that nobody can complete now."""
        for lease in self._muster.give_up(self._now()):
            self._giving_back[lease] = None
            self._post(EndLease(lease, "not all of its gang could be had; it is asked for again"))

    def _noticed(self, lease: LeaseId, peer: PeerId, ends: float, reason: str) -> None:
        """A worker is about to go: another takes its place, and tasks are kept from it."""
        if lease in self._workers and not self._recruiter.is_ending(lease):
            self._recruiter.ending(lease, reason, ends)
            if self._nursery is not None:
                self._nursery.start_soon(self._drain_ending, lease, peer, ends, reason)
            self._wake()

    def _trim(self) -> None:
        """Give back what was asked for in place of a worker that is there after all: first those that do not run."""
        starting = [lease for lease in reversed(self._spare()) if lease not in self._workers]
        self._take_back(starting[: self._too_many()], "the worker that it was to replace is there again")
        if self._too_many() and self._nursery is not None and not self._trimming:
            self._trimming = True
            self._nursery.start_soon(self._trim_workers)

    async def _trim_workers(self) -> None:
        """Of workers that run, the newest that is idle: its task may have gone to either of the two, or to both."""
        while self._too_many() and not self._closing:
            for lease in reversed(self._spare()):
                if lease in self._workers and self._too_many():
                    self._giving_back[lease] = None
                    await self._drain_idle(lease)
            await trio.sleep(_LOOK_AGAIN_S)
        self._trimming = False

    def _spare(self) -> list[LeaseId]:
        return [lease for lease in self._needs if lease not in self._giving_back]

    def _too_many(self) -> int:
        return max(0, self._recruiter.surplus() - len(self._giving_back))

    def _take_back(self, leases: Sequence[LeaseId], reason: str) -> None:
        """Requests, or leases whose workers do not run yet."""
        for lease in leases:
            if lease not in self._giving_back:
                self._giving_back[lease] = None
                self._post(EndLease(lease, reason))

    async def _drain_ending(self, lease: LeaseId, peer: PeerId, ends: float, reason: str) -> None:
        """Have Ray give it no more work, and retry elsewhere what will not be done."""
        why = f"its lender takes it back: {reason}"
        problem = await self._gcs.drain(
            lease, idle=False, ends=ends, why=why, timeout_s=max(_DRAIN_S, ends - self._now())
        )
        said = f"not drained, {problem}" if problem else "drained"
        self._record(ClusterEventKind.DRAINED, peer, f"{reason}: {said}")

    def order(self, need: Need) -> None:
        """Of a cluster with orders: one more worker, as large and of the kind that this says. It is there when it is
        among `workers`; one that is lost is not replaced."""
        if len(self._asks) + len(self._needs) < MOST_WORKERS:
            self._want((*self._asks, Ask(need)))
            self._wake()

    def need(self, lease: LeaseId) -> Need | None:
        """What a lease of this cluster was asked for; None when it is over."""
        return self._needs.get(lease)

    def give_back(self, lease: LeaseId) -> None:
        """End the lease of a worker that is not needed any more, whatever runs there."""
        if lease in self._needs:
            self._giving_back[lease] = None
            self._post(EndLease(lease, "it is not needed any more"))

    # How many workers ----------------------------------------------------------------------------------------

    def _follow(self, state: ClusterState) -> None:
        """Take what GCS says of the cluster, and decide by it."""
        if self._elastic is None or self._closing:
            return
        held = [
            Held(
                lease,
                need,
                lease in self._workers,
                self._recruiter.is_ending(lease) or lease in self._giving_back,
            )
            for lease, need in self._needs.items()
        ]
        step = self._elastic.step(state, held, self._now())
        self._unmeetable = step.unmeetable
        for lease in step.idle:
            self._give_back(lease)
        if step.asks != self._asks:
            self._want(step.asks)
            self._wake()

    def _want(self, asks: tuple[Ask, ...]) -> None:
        self._asks = asks
        ending = sum(map(self._recruiter.is_ending, self._needs))
        self._recruiter.wanted = len(self._needs) - ending + len(asks)

    def _give_back(self, lease: LeaseId) -> None:
        if self._nursery is not None and lease not in self._giving_back:
            self._giving_back[lease] = None
            self._nursery.start_soon(self._drain_idle, lease)

    async def _drain_idle(self, lease: LeaseId) -> None:
        """End a lease whose worker is not needed, unless a task has come there meanwhile: Ray knows."""
        why = "it was idle"
        problem = await self._gcs.drain(lease, idle=True, why=why, timeout_s=_DRAIN_S)
        if problem:
            self._giving_back.pop(lease, None)
        else:
            self._post(EndLease(lease, why))

    async def release(self) -> None:
        """End every lease and wait a short while for the ends to be confirmed."""
        self._closing = True
        for lease in self._recruiter.leases():
            self._post(EndLease(lease, "the borrower closed its cluster"))
        with cancel_scope(shield=True), trio.move_on_after(_RELEASE_S):
            while self._recruiter.leases():
                await self._changed.wait()
        self._log.close()

    # ----------------------------------------------------------------------------------------------------------

    def _ask(self, ask: Ask, count: int, candidates: Sequence[Candidate]) -> bool:
        """Ask for so many workers. False when there is nobody left to ask for one."""
        for _ in range(count):
            if self._closing:
                return True
            provider, queue_s = self._recruiter.next(candidates, self._now()), 0.0
            if provider is None and self._queues:
                provider, queue_s = self._recruiter.next_full(candidates, self._now()), _QUEUE_S
            if provider is None:
                return self._recruiter.missing() <= 0
            lease = os.urandom(16)
            self._needs[lease] = ask.need
            self._muster.asked(lease)
            self._recruiter.asked(lease, next(c for c in candidates if c.provider == provider))
            if ask in self._asks:
                position = self._asks.index(ask)
                self._asks = self._asks[:position] + self._asks[position + 1 :]
            self._record(ClusterEventKind.ASKED, provider)
            self._post(
                RequestLease(
                    lease,
                    provider,
                    ask.need,
                    self._versions,
                    self._head.secret,
                    self.name,
                    gang=self._muster.gang,
                    queue_s=queue_s,
                )
            )
        return True

    @property
    def _queues(self) -> bool:
        """Whether requests may wait in queues. A gang's workers, set aside one by one, would wait for each other; and
        who orders workers wants to hear at once that there is none."""
        return not self._muster.gang and (self._elastic is not None or not self._shaped)

    def _note_found(self, found: Sequence[tuple[Candidate, str]]) -> None:
        for candidate, load in found:
            if candidate.provider not in self._seen and len(self._seen) < _MAX_SEEN:
                self._seen[candidate.provider] = None
                self._record(ClusterEventKind.FOUND, candidate.provider, load)

    def _record(self, kind: ClusterEventKind, peer: PeerId, reason: str = "") -> None:
        self._log.record(kind, peer, reason)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
