"""Lending and borrowing: connects the lease engine of a peer to real Ray workers and heads.

Decisions are elsewhere: lease.py (who gets a lease, when it ends), balancer.py (who is best), recruit.py (whom
to ask next). Here is what joins them: one lending at a time, any number of clusters.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import trio

from .begun_head import BegunHead
from .choosing import Choosing
from .cluster_memory import ClusterMemory
from .errors import UsageError
from .gossip.balancer import ANYWHERE, Placement
from .gossip.load import FollowLoads, LoadTable, UnfollowLoads
from .gossip.placement import Distance
from .granting import Granting
from .head_paths import HeadPaths, open_head_paths
from .identity import PeerId
from .lending import RAY_SERVICE, Lending, peer_set
from .node import NodeCommand
from .paths import DEFAULT_PATHS, Paths
from .providers import KINDS, RankBy
from .ray_bridge.cluster import Cluster
from .ray_bridge.elastic import MOST_WORKERS, Ask, Elastic, ElasticConfig
from .ray_bridge.environment import applied
from .ray_bridge.events import (
    ClosePath,
    JournalRecord,
    LeaseId,
    LeaseOutput,
    LeaseRefusal,
    Need,
    Offer,
    OpenPath,
    StopLending,
)
from .ray_bridge.grants import Grant
from .ray_bridge.head import RayHead, start_head
from .ray_bridge.head_state import open_head_state
from .ray_bridge.index_door import IndexDoor, open_index_door
from .ray_bridge.jailer import open_jailer
from .ray_bridge.muster import Muster
from .ray_bridge.package_index import DEFAULT_INDEX, IndexWanted
from .ray_bridge.policy import check_need, check_offer
from .ray_bridge.recruit import Candidate, Recruiter
from .ray_bridge.signed_lease import SignedLease
from .ray_bridge.versions import installed_versions
from .scopes import background_nursery, cancel_scope, start
from .scouting import Scout
from .snapshots.giving import Giving
from .snapshots.holders import Holders
from .snapshotting import Snapshots, check_snapshots
from .transport.mesh.events import Invited, MeshFailed, MeshOutput, Paired, Planned
from .transport.mesh.members import Carrier
from .transport.overlay.carrier_streams import PROTOCOL as CARRIER_PROTOCOL

if TYPE_CHECKING:
    from .peer import Peer

_ROUND_TRIPS: Final = 1000.0  # what a lease of an edge kind is used for, weighed against waiting; a guess

_PATHS_S: Final = 10.0  # for the paths to workers that are gone on with


class Market:
    """The lending and borrowing side of one peer; routes the lease engine's outputs to either."""

    def __init__(
        self,
        peer: Peer,
        post: Callable[[NodeCommand], None],
        loads: LoadTable,
        choosing: Choosing,
        granting: Granting,
        claim: Callable[[str], tuple[JournalRecord, ...]],
        signed: Callable[[LeaseId], SignedLease | None],
        state: Path | None = None,
    ) -> None:
        """claim: leases of a cluster, by its name, that an earlier run of this peer took. signed: a lease under both
        signatures, while it stands. state: the peer's state file, beside which it keeps others' snapshots."""
        self._granting, self._claim, self._signed = granting, claim, signed
        self._snapshots = Snapshots(peer, state)
        self._peer, self._post, self._loads, self._choosing = peer, post, loads, choosing
        self._lending: Lending | None = None
        self._paths = Paths(peer, post)
        self._clusters: list[Cluster] = []
        self._led: dict[Cluster, HeadPaths] = {}
        self._recruiters: list[Recruiter] = []  # theirs
        self._carried = False

    def output(self, output: LeaseOutput | MeshOutput) -> None:
        """Take an output of the lease engine, or of the mesh engine."""
        if isinstance(output, Planned | Paired):
            self._paths.output(output)
            return
        for cluster in self._clusters:
            if cluster.concerns(output.lease):
                if isinstance(output, OpenPath | ClosePath | MeshFailed):
                    self._led[cluster].handle(output)
                if isinstance(output, Invited | MeshFailed):
                    return
                cluster.handle(output)
                return
        if self._lending is not None and not isinstance(output, LeaseRefusal):
            self._lending.output(output)

    @asynccontextmanager
    async def follow_loads(self) -> AsyncGenerator[LoadTable, None]:
        """See Peer.follow_loads."""
        self._post(FollowLoads())
        try:
            yield self._loads
        finally:
            self._post(UnfollowLoads())

    @asynccontextmanager
    async def lend(
        self,
        offer: Offer,
        allow: Iterable[PeerId | str] | None,
        logs: Path | None,
        paths: tuple[Carrier, ...] = DEFAULT_PATHS,
        grantors: frozenset[PeerId] = frozenset(),
        snapshots_bytes: int = 0,
    ) -> AsyncGenerator[Lending, None]:
        """See Peer.lend."""
        if self._lending is not None:
            raise UsageError(
                "this peer lends already; close that first, or change it with `allow`. Nothing was changed"
            )
        check_offer(offer)
        versions, allowed = installed_versions(), peer_set(allow)
        jailer = await open_jailer(offer)
        if self._lending is not None:  # somebody was faster
            raise UsageError("this peer lends already. Nothing was changed")
        if jailer is not None:  # a worker on a direct path is in this machine's network
            paths = tuple(path for path in paths if path is not Carrier.DIRECT)
        if not paths:
            raise UsageError(
                'a jailed worker takes no direct path: allow "overlay", or lend with isolation="none". '
                "Nothing was changed"
            )
        lending = Lending(
            self._peer,
            self._post,
            offer,
            versions,
            allowed,
            logs,
            self._paths,
            paths,
            jailer,
            grantors,
            self._signed,
            snapshots_bytes > 0,
        )
        lending.signal()  # raises UsageError for what no signal can say
        self._lending = lending
        self._take_carriers()
        try:
            async with (
                self._granting.heeding(grantors, lending.learn),
                self._snapshots.keeping(snapshots_bytes, lending),
                background_nursery() as nursery,
                self.follow_loads(),
            ):
                await start(nursery, lending.run)
                try:
                    async with self._peer.announce(RAY_SERVICE, lending.attributes()) as announcement:
                        lending.announcement = announcement
                        yield lending
                finally:
                    self._post(StopLending())
                    with cancel_scope(shield=True):
                        await lending.ended()  # bounded in time
        finally:
            self._lending = None

    @asynccontextmanager
    async def borrow(
        self,
        need: Need,
        workers: int | tuple[int, int],
        min_workers: int | None,
        timeout_s: float,
        lenders: frozenset[PeerId] | None,
        logs: Path | None,
        placement: Placement | None = None,
        paths: tuple[Carrier, ...] = DEFAULT_PATHS,
        idle_s: float = 60.0,
        gang: bool = False,
        grants: Iterable[Grant | str] | Grant | None = None,
        orders: bool = False,
        state: Path | None = None,
        begun: BegunHead | None = None,
        snapshots: int = 0,
        restore: bool = False,
        index: IndexWanted = DEFAULT_INDEX,
    ) -> AsyncGenerator[Cluster, None]:
        """See Peer.borrow."""
        check_snapshots(state, snapshots, restore)
        size = cluster_size(workers, min_workers)
        rng = random.Random(os.urandom(16))
        check_need(need)
        versions = installed_versions()
        scout = Scout(self._peer, self._loads, self._choosing, versions, lenders)
        post = self._granting.showing(grants, scout.grantors, self._post)
        self._take_carriers()
        recruiter = Recruiter(0 if orders else size.least)

        def rtt_s() -> float:
            return self._farthest(
                recruiter.providers() or lenders or [entry.provider for entry in self._loads]
            )

        restored = await self._snapshots.restore(state, timeout_s) if restore else None
        async with (
            self._snapshots.one_cluster(snapshots),
            self._led_head(begun, state, need, paths, logs, rtt_s, restored is None, index) as (
                (head, memory, door),
                led,
            ),
            self.follow_loads(),
            background_nursery() as nursery,
        ):

            async def candidates(ask: Ask, search: bool) -> Sequence[tuple[Candidate, str]]:
                if search:
                    await scout.search()
                return await scout.candidates(
                    ask, recruiter, self._outstanding(), self._place(ask.need, recruiter, placement)
                )

            cluster = Cluster(
                head,
                need,
                recruiter,
                versions,
                candidates,
                post,
                self._peer.now,
                led.path,
                None if orders else size.elastic(need, idle_s),
                Muster(size.least if gang else 0, rng),
                orders,
                memory.name,
                self._signed,
            )
            giving: Giving | None = None
            self._led[cluster] = led
            self._clusters.append(cluster)
            self._recruiters.append(recruiter)
            try:
                nursery.start_soon(_watch, head, cluster, self._peer.id)
                nursery.start_soon(door.say_left_out, partial(cluster.index_told, self._peer.id))
                if restored is not None:
                    cluster.restored(restored.holder, restored.text)
                if snapshots and state is not None and begun is None:
                    holders = Holders(snapshots, rng)
                    cluster.follow_snapshots(holders.have)
                    giving = self._snapshots.giving(holders, state.absolute(), cluster.snapshot_told)
                    nursery.start_soon(giving.run)
                former = self._claim(memory.name) if led.resumes else ()
                if former:
                    cluster.adopt(former)
                nursery.start_soon(cluster.run)
                await cluster.wait_for_workers(size.first, timeout_s)
                await head.ready()
                with trio.move_on_after(_PATHS_S):
                    await led.stand(record.lease for record in former)
                with applied(cluster.environment):
                    yield cluster
            finally:
                with cancel_scope(shield=True):  # both are bounded in time
                    async with trio.open_nursery() as ending:
                        ending.start_soon(cluster.release)
                        if giving is not None and cluster.withdraws_snapshots:
                            ending.start_soon(giving.withdraw)
                self._clusters.remove(cluster)
                del self._led[cluster]
                self._recruiters.remove(recruiter)

    @asynccontextmanager
    async def _led_head(
        self,
        begun: BegunHead | None,
        state: Path | None,
        need: Need,
        paths: tuple[Carrier, ...],
        logs: Path | None,
        rtt_s: Callable[[], float],
        workers: bool,
        index: IndexWanted,
    ) -> AsyncGenerator[tuple[tuple[RayHead, ClusterMemory, IndexDoor], HeadPaths], None]:
        """A head with its paths: the one that was begun, or another. workers: whether those of a head before may be
        there yet."""
        if begun is not None:
            async with open_head_paths(self._paths, need, paths, begun.memory, begun=True) as led:
                yield (begun.head, begun.memory, begun.door), led
            return
        async with (
            open_head_state(state) as kept,
            open_head_paths(self._paths, need, paths, memory := ClusterMemory.of(kept)) as led,
            open_index_door(led.index_port, kept.token, index) as door,
            start_head(
                directory=logs,
                ports=led.ports,
                rtt_s=rtt_s,
                state=kept,
                resumes=led.resumes and workers,
                index_port=door.port,
            ) as head,
        ):
            yield (head, memory, door), led

    def _farthest(self, peers: Iterable[PeerId]) -> float:
        """The longest round trip to any of them, in seconds, as coordinates predict it; 0 when nobody knows."""
        return max((self._peer.distance(peer) or 0.0 for peer in peers), default=0.0)

    def _take_carriers(self) -> None:
        """Serve libp2p streams of members that cannot dial one another's planes."""
        if not self._carried:
            self._carried = True
            self._peer.handle(CARRIER_PROTOCOL, self._paths.streams.handle)

    def _outstanding(self) -> dict[PeerId, int]:
        """This peer's leases, of all its clusters, that the lenders' signals cannot count yet."""

        def heard(provider: PeerId) -> float:
            entry = self._loads.get(provider)
            return -math.inf if entry is None else entry.arrived

        counts: dict[PeerId, int] = {}
        for recruiter in self._recruiters:
            for provider, count in recruiter.unseen(heard).items():
                counts[provider] = counts.get(provider, 0) + count
        return counts

    def _place(self, need: Need, recruiter: Recruiter, placement: Placement | None) -> Placement:
        """Where the next worker should be: places that the cluster's other workers have count as used."""
        placement = placement or _placement(need, self._peer.distance)
        if not placement.spreads:
            return placement
        held = [self._loads.get(provider) for provider in recruiter.providers()]
        return placement.beside([entry for entry in held if entry is not None])


def _placement(need: Need, distance: Distance) -> Placement:
    """Of kinds that are meant to be near, the nearest come first; distances stand for regions, too."""
    row = KINDS.get(need.kind)
    if row is None or row.rank_by is RankBy.LOAD:
        return ANYWHERE
    return Placement(distance=distance, distance_weight=_ROUND_TRIPS)


@dataclass(frozen=True, slots=True)
class ClusterSize:
    """least, most: workers. first: how many are waited for."""

    least: int
    most: int
    first: int

    def elastic(self, need: Need, idle_s: float) -> Elastic | None:
        """What decides how many there are; None for a cluster of one size."""
        return (
            None if self.least == self.most else Elastic(need, ElasticConfig(self.least, self.most, idle_s))
        )


def cluster_size(workers: object, min_workers: object = None) -> ClusterSize:
    """From borrow's arguments; raises UsageError that says how they should be."""
    if isinstance(workers, tuple | list):
        bounds = tuple(cast("Sequence[object]", workers))
        match bounds:
            case (int(least), int(most)) if 0 <= least <= most and 1 <= most <= MOST_WORKERS:
                pass
            case _:
                raise UsageError(
                    f"workers=(2, 16) has from 2 to 16 of them, {MOST_WORKERS} at most; not {workers!r}"
                )
    elif isinstance(workers, int) and workers >= 1:
        least = most = workers
    else:
        raise UsageError(f"workers is a count of at least 1, or two such as (2, 16), not {workers!r}")
    first = least if min_workers is None else min_workers
    if not isinstance(first, int) or not 0 <= first <= least:
        raise UsageError(f"min_workers is between 0 and workers ({least}), not {first!r}")
    return ClusterSize(least, most, first)


async def _watch(head: RayHead, cluster: Cluster, own: PeerId) -> None:
    """Tell when the head was started again; raise HeadFailed when it cannot be."""
    restart = await head.restarted()
    while True:
        cluster.head_restarted(own, restart)
        restart = await head.restarted(restart.number)
