"""Lending and borrowing in virtual time: real leases over the in-memory network, Ray's processes replaced."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import trio
from trio.testing import MockClock

from swarmp2p.choosing import Choosing
from swarmp2p.errors import HeadFailed, NotEnoughWorkers, UsageError, WorkerNotStarted
from swarmp2p.gossip.balancer import Affinity, Choice, Placement, Spread, Strength, choose
from swarmp2p.gossip.load_signal import LoadSignal
from swarmp2p.gossip.load_table import LoadEntry
from swarmp2p.identity import PeerId
from swarmp2p.market import ClusterSize, _placement, cluster_size  # pyright: ignore[reportPrivateUsage]
from swarmp2p.peer import Peer
from swarmp2p.ray_bridge.cluster import Cluster
from swarmp2p.ray_bridge.cluster_events import ClusterEventKind
from swarmp2p.ray_bridge.elastic import Ask
from swarmp2p.ray_bridge.environment import driver_environment
from swarmp2p.ray_bridge.events import JoinSecret, Need, Offer, Versions
from swarmp2p.ray_bridge.head import HeadRestart
from swarmp2p.ray_bridge.package_index import PipSettings
from swarmp2p.ray_bridge.recruit import Candidate, Recruiter
from swarmp2p.ray_bridge.signed_lease import SignedLease
from swarmp2p.scopes import cancel_scope
from swarmp2p.scouting import Scout
from tests.test_peer import Swarm

VERSIONS = Versions(ray="2.60.0", python="3.11", swarmp2p="0.1.0")


class FakeHead:
    """A head whose processes are only said to run."""

    address = "127.77.0.1:6379"
    log_path = Path("head.log")
    secret = JoinSecret(address, "token")

    def __init__(self) -> None:
        self.dead = trio.Event()

    async def gcs_ready(self) -> None:
        await trio.sleep(1)

    async def ready(self) -> None:
        await trio.sleep(2)

    async def restarted(self, after: int = 0) -> HeadRestart:
        await self.dead.wait()
        if not after:
            return HeadRestart(1, "somebody stopped it", drivers=False)
        await trio.sleep(3)
        raise HeadFailed("it does not start any more", "head.log")

    def driver_environment(self) -> dict[str, str]:
        return driver_environment(self.secret)


class FakeWorker:
    def __init__(self) -> None:
        self.dead = trio.Event()

    async def died(self) -> str:
        await self.dead.wait()
        return "it crashed"


@dataclass
class Ray:
    """What stands in for Ray: heads and workers as they are now. problem: why workers do not start. start_s: how long
    they take."""

    heads: list[FakeHead] = field(default_factory=list)
    workers: dict[str, FakeWorker] = field(default_factory=dict)
    secrets: list[JoinSecret] = field(default_factory=list)
    versions: Versions = VERSIONS
    problem: str = ""
    start_s: float = 3.0
    rtts_s: list[float] = field(default_factory=list[float])
    pip: PipSettings = field(default_factory=partial(PipSettings, "https://index.example/simple"))

    @asynccontextmanager
    async def start_head(
        self, *, rtt_s: Callable[[], float], **settings: object
    ) -> AsyncGenerator[FakeHead, None]:
        self.rtts_s.append(rtt_s())
        head = FakeHead()
        self.heads.append(head)
        try:
            yield head
        finally:
            self.heads.remove(head)

    async def ask_pip(self) -> PipSettings:
        return self.pip

    async def no_jailer(self, offer: Offer) -> None:
        """Workers that are none need no jail."""

    @asynccontextmanager
    async def start_worker(
        self,
        secret: JoinSecret,
        *,
        need: Need,
        node_ip: str,
        labels: Mapping[str, str],
        directory: Path | None,
        ports: Sequence[int],
        cell: object,
        jail: object,
        warm: object,
    ) -> AsyncGenerator[FakeWorker, None]:
        await trio.sleep(self.start_s)
        if self.problem:
            raise WorkerNotStarted(self.problem, "worker.log")
        self.secrets.append(secret)
        peer = labels["swarmp2p.peer"]
        worker = self.workers[peer] = FakeWorker()
        try:
            yield worker
        finally:
            if self.workers.get(peer) is worker:  # else a later one of the same lender's
                del self.workers[peer]


class FakeGcs:
    """Ray's answers to being asked to drain nodes. problem: why it does not. busy: nodes that are not idle."""

    drained: ClassVar[list[tuple[bytes, bool, float]]] = []
    busy: ClassVar[set[bytes]] = set()
    problem = ""

    def __init__(self, *arguments: object) -> None:
        pass

    async def run(self) -> None:
        await trio.sleep_forever()

    async def drain(self, lease: bytes, *, idle: bool, ends: float = 0.0, why: str, timeout_s: float) -> str:
        self.drained.append((lease, idle, ends))
        await trio.sleep(0.1)
        return "a task runs there" if idle and lease in self.busy else self.problem


@asynccontextmanager
async def no_plane(*arguments: object, **settings: object) -> AsyncGenerator[SimpleNamespace, None]:
    async def serve(address: str, ports: Sequence[int]) -> None:
        pass

    async def unserve(ports: object) -> None:
        pass

    yield SimpleNamespace(endpoints=(), serve=serve, unserve=unserve)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    ray = Ray()
    monkeypatch.setattr("swarmp2p.market.start_head", ray.start_head)
    monkeypatch.setattr("swarmp2p.ray_bridge.lender.start_worker", ray.start_worker)
    monkeypatch.setattr("swarmp2p.lending.WARM", 0)  # real processes
    monkeypatch.setattr("swarmp2p.market.installed_versions", lambda: ray.versions)
    monkeypatch.setattr("swarmp2p.market.open_jailer", ray.no_jailer)
    monkeypatch.setattr("swarmp2p.head_paths.open_plane", no_plane)  # a real process, in virtual time
    monkeypatch.setattr("swarmp2p.ray_bridge.cluster.Gcs", FakeGcs)
    monkeypatch.setattr(FakeGcs, "drained", [])
    monkeypatch.setattr(FakeGcs, "busy", set[bytes]())
    monkeypatch.setattr("swarmp2p.ray_bridge.index_door.ask_pip", ray.ask_pip)
    return ray


def ids(cluster: Cluster) -> set[str]:
    return {str(worker.peer) for worker in cluster.workers}


async def test_workers_are_leased_and_released(autojump_clock: MockClock, ray: Ray) -> None:
    async with (
        Swarm().of(4) as (borrower, *lenders),
        lenders[0].lend(allow=[borrower.id]),
        lenders[1].lend(allow=[str(borrower.id)]),
        lenders[2].lend(allow=None),
    ):
        async with borrower.borrow(workers=3) as cluster:
            assert ids(cluster) == {str(lender.id) for lender in lenders} == set(ray.workers)
            assert cluster.address == FakeHead.address
            assert cluster.environment["RAY_ADDRESS"] == FakeHead.address
            assert {worker.path for worker in cluster.workers} == {"direct"}
            assert ray.secrets == [FakeHead.secret] * 3  # unsealed by each lender
        await trio.sleep(0.1)
        assert ray.workers == {}
        assert ray.heads == []


async def test_a_package_index_with_a_password_is_left_out_and_said(
    autojump_clock: MockClock, ray: Ray
) -> None:
    ray.pip = PipSettings("", "", {"global.index-url": "https://me:secret@index.example/simple"})
    kind = ClusterEventKind.PACKAGES
    async with Swarm().of(1) as (borrower,):
        with pytest.raises(UsageError, match="no package index"):
            borrower.borrow(index="index.example")
        async with borrower.borrow(min_workers=0) as cluster:
            await trio.sleep(1)
        (event,) = (event for event in cluster.past_events if event.kind is kind)
        assert event.peer == borrower.id
        assert "borrow(index=...)" in event.reason
        assert "secret" not in event.reason
        async with borrower.borrow(min_workers=0, index="https://me:secret@index.example/simple") as cluster:
            await trio.sleep(1)
        assert not any(event.kind is kind for event in cluster.past_events)


async def test_a_lease_is_shown_to_a_third_under_both_signatures(autojump_clock: MockClock, ray: Ray) -> None:
    need = Need(cpus=1, kind="data-centre", region="eu", labels=(("gpu", "a100"),))
    offer = Offer(cpus=4, kind="data-centre", region="eu", labels=(("gpu", "a100"), ("rack", "7")))
    async with (
        Swarm().of(2) as (borrower, lender),
        lender.lend(offer, allow=None) as lending,
        borrower.borrow(need) as cluster,
    ):
        await trio.sleep(3)  # it has been renewed since
        (worker,), (given,) = cluster.workers, lending.leases
        assert worker.signed is not None
        for shown in (worker.signed, given):
            facts = SignedLease.from_bytes(shown.to_bytes()).check()
            request, terms, standing = facts.request, facts.terms, facts.standing
            assert standing is not None
            assert (terms.lender, terms.borrower) == (lender.id, borrower.id)
            assert (request.cluster, request.need, terms.lent_as) == (cluster.name, need, "data-centre")
            assert request.versions == terms.versions == ray.versions
            assert (facts.head, terms.isolation) == (FakeHead.address, worker.isolation)
            assert standing.node_ip == worker.node_ip
            assert standing.sequence >= 1
            assert terms.issued < standing.issued <= borrower.now() < standing.expires


async def test_a_lender_refuses_whom_its_owner_does_not_name_until_told_to_accept(
    autojump_clock: MockClock, ray: Ray
) -> None:
    async with (
        Swarm().of(2) as (borrower, lender),
        lender.lend(allow=()) as lending,
        borrower.borrow(workers=1, min_workers=0) as cluster,
    ):
        await trio.sleep(5)
        assert cluster.workers == ()
        ((refuser, reason),) = cluster.refusals
        assert (refuser, "has not allowed" in reason) == (lender.id, True)
        await lending.allow([borrower.id])
        await cluster.wait_for_workers(1, timeout_s=15)
        assert lending.borrowers == (borrower.id,)


async def test_a_worker_that_dies_is_replaced_by_another_provider(
    autojump_clock: MockClock, ray: Ray
) -> None:
    async with (
        Swarm().of(3) as (borrower, *lenders),
        lenders[0].lend(allow=[borrower.id]),
        lenders[1].lend(allow=[borrower.id]),
        borrower.borrow(workers=1) as cluster,
    ):
        (first,) = ids(cluster)
        ray.workers[first].dead.set()
        await trio.sleep(15)
        (second,) = ids(cluster)
        assert second != first
        events = cluster.events()
        kinds = [(await anext(events)).kind for _ in range(9)]
        await events.aclose()
        assert kinds.count(ClusterEventKind.ACTIVE) == 2
        assert kinds.count(ClusterEventKind.ENDED) == 1


async def test_a_lender_that_vanishes_is_noticed_and_replaced(autojump_clock: MockClock, ray: Ray) -> None:
    swarm = Swarm()
    async with swarm.of(3) as (borrower, first, second):
        async with first.lend(allow=[borrower.id]), borrower.borrow(workers=1) as cluster:
            async with second.lend(allow=[borrower.id]):
                assert ids(cluster) == {str(first.id)}
                swarm.partition.split(dict.fromkeys((borrower.id, second.id), 0))
                await trio.sleep(20)
                assert ids(cluster) == {str(second.id)}
                await trio.sleep(60)
                assert set(ray.workers) == {str(second.id)}  # the one cut off let go by itself


async def test_a_lender_that_falls_silent_is_replaced_for_as_long_as_it_is(
    autojump_clock: MockClock, ray: Ray
) -> None:
    swarm = Swarm()
    async with swarm.of(3) as (borrower, first, second):
        async with first.lend(allow=[borrower.id]), borrower.borrow(workers=1) as cluster:
            async with second.lend(allow=[borrower.id]) as lending:
                await trio.sleep(5)
                began = trio.current_time()
                swarm.partition.split(dict.fromkeys((borrower.id, second.id), 0))
                while not lending.borrowers:
                    await lending.changed()
                assert trio.current_time() < began + 2.2
                swarm.partition.heal()
                await trio.sleep(10)
                assert ids(cluster) == {str(first.id)} == set(ray.workers)
                assert lending.borrowers == ()


async def test_of_a_lender_and_its_stand_in_the_one_goes_that_is_idle_first(
    autojump_clock: MockClock, ray: Ray
) -> None:
    swarm, ray.start_s = Swarm(), 0.1
    async with swarm.of(3) as (borrower, first, second):
        async with first.lend(allow=[borrower.id]), borrower.borrow(workers=1) as cluster:
            async with second.lend(allow=[borrower.id]):
                await trio.sleep(5)
                FakeGcs.busy.update(worker.lease for worker in cluster.workers)
                swarm.partition.split(dict.fromkeys((borrower.id, second.id), 0))
                with trio.fail_after(3):
                    while len(cluster.workers) < 2:  # noqa: ASYNC110  nobody says when
                        await trio.sleep(0.1)
                FakeGcs.busy.update(worker.lease for worker in cluster.workers)  # its task has moved there
                swarm.partition.heal()
                await trio.sleep(10)
                assert ids(cluster) == {str(first.id), str(second.id)}
                FakeGcs.busy -= {worker.lease for worker in cluster.workers if worker.peer == first.id}
                await trio.sleep(10)
                assert ids(cluster) == {str(second.id)} == set(ray.workers)


async def test_a_lender_that_closes_tells_its_borrower(autojump_clock: MockClock, ray: Ray) -> None:
    async with Swarm().of(2) as (borrower, lender), borrower.borrow(workers=1, min_workers=0) as cluster:
        async with lender.lend(allow=[borrower.id]):
            await cluster.wait_for_workers(1)
        await trio.sleep(0.1)
        assert cluster.workers == ()
        assert ray.workers == {}
        assert any("stopped lending" in reason for _, reason in cluster.refusals)


async def test_a_borrower_that_is_cancelled_leaves_no_worker(autojump_clock: MockClock, ray: Ray) -> None:
    swarm = Swarm()
    scope = cancel_scope()

    async def borrow(address: str) -> None:
        with scope:
            async with swarm.peer(1, (address,)) as borrower, borrower.borrow(workers=1):
                assert len(ray.workers) == 1
                scope.cancel()
                await trio.sleep_forever()

    async with swarm.peer(0) as lender, lender.lend(allow=None) as lending:
        await borrow(str(lender.addresses[0]))
        await trio.sleep(0.1)  # it was told: no need to wait for the lease's term
        assert ray.workers == {}
        assert lending.borrowers == ()


async def test_too_few_lenders_is_told_with_their_reasons(autojump_clock: MockClock, ray: Ray) -> None:
    async with Swarm().of(3) as (borrower, refuser, lender), refuser.lend(allow=()), lender.lend(allow=None):
        with pytest.raises(NotEnoughWorkers, match="leased 1 of 2 workers") as caught:
            async with borrower.borrow(workers=2, timeout_s=20):
                pass
        assert [peer for peer, _ in caught.value.refusals] == [str(refuser.id)]
        await trio.sleep(0.1)
        assert ray.workers == {}
        assert ray.heads == []


async def test_only_named_lenders_are_asked(autojump_clock: MockClock, ray: Ray) -> None:
    async with Swarm().of(3) as (borrower, stranger, friend):
        async with (
            stranger.lend(Offer(cpus=64), allow=None),
            friend.lend(allow=None),
            borrower.borrow(workers=1, lenders=[str(friend.id)]) as cluster,
        ):
            assert ids(cluster) == {str(friend.id)}
            ray.workers[str(friend.id)].dead.set()
            await trio.sleep(30)
            assert ids(cluster) <= {str(friend.id)}


async def test_a_head_is_told_how_far_its_workers_may_be(
    autojump_clock: MockClock, ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Swarm().of(3) as (borrower, near, far), near.lend(allow=None), far.lend(allow=None):
        distances = {near.id: 0.02, far.id: 0.15}

        def distance(_: Peer, peer: PeerId, other: PeerId | None = None) -> float | None:
            return distances.get(peer)

        monkeypatch.setattr(Peer, "distance", distance)
        async with borrower.borrow(workers=1, lenders=[near.id]):
            pass
        async with borrower.borrow(workers=2, lenders=[near.id, far.id]):
            pass
        assert ray.rtts_s == [0.02, 0.15]


async def test_no_lender_at_all(autojump_clock: MockClock, ray: Ray) -> None:
    async with Swarm().of(2) as (borrower, _):
        with pytest.raises(NotEnoughWorkers, match="no provider was found"):
            async with borrower.borrow(timeout_s=5):
                pass


async def test_another_version_is_refused_with_the_command_that_helps(
    autojump_clock: MockClock, ray: Ray
) -> None:
    async with Swarm().of(2) as (borrower, lender), lender.lend(allow=None):
        ray.versions = Versions(ray="2.59.1", python="3.12", swarmp2p="0.1.0")
        with pytest.raises(NotEnoughWorkers) as caught:
            async with borrower.borrow(timeout_s=10):
                pass
        ((_, reason),) = caught.value.refusals
        assert "2.60.0" in reason
        assert "2.59.1" in reason
        assert "pip install" in reason


async def test_a_worker_that_does_not_start_is_told(autojump_clock: MockClock, ray: Ray) -> None:
    ray.problem = "the head refused its token"
    async with Swarm().of(2) as (borrower, lender), lender.lend(allow=None):
        with pytest.raises(NotEnoughWorkers, match="the head refused its token"):
            async with borrower.borrow(timeout_s=10):
                pass


async def test_traffic_does_not_leave_the_machine_unencrypted(autojump_clock: MockClock, ray: Ray) -> None:
    offer = Offer(node_ip="192.0.2.1")
    async with (
        Swarm().of(2) as (borrower, lender),
        lender.lend(offer, allow=None, paths=["direct"]),
    ):
        with pytest.raises(NotEnoughWorkers, match="unencrypted"):
            async with borrower.borrow(timeout_s=10):
                pass
        assert ray.secrets == []


async def test_a_head_that_was_started_again_is_told_and_one_that_cannot_be_ends_the_body(
    autojump_clock: MockClock, ray: Ray
) -> None:
    async with Swarm().of(2) as (borrower, lender), lender.lend(allow=None):
        with pytest.raises(HeadFailed, match="it does not start any more"):
            async with borrower.borrow() as cluster:
                ray.heads[0].dead.set()
                await trio.sleep(1)
                last = cluster.past_events[-1]
                assert (last.kind, last.peer) == (ClusterEventKind.HEAD_RESTARTED, borrower.id)
                assert last.reason == (
                    "somebody stopped it; drivers have to call ray.shutdown() and ray.init()"
                )
                await trio.sleep_forever()
        await trio.sleep(0.1)
        assert ray.workers == {}


async def test_two_clusters_share_the_lenders(autojump_clock: MockClock, ray: Ray) -> None:
    async with (
        Swarm().of(3) as (borrower, *lenders),
        lenders[0].lend(allow=None),
        lenders[1].lend(allow=None),
    ):
        async with borrower.borrow(workers=1) as first, borrower.borrow(workers=1) as second:
            assert ids(first) | ids(second) == {str(lender.id) for lender in lenders}


async def test_arguments_are_checked(autojump_clock: MockClock, ray: Ray) -> None:
    async with Swarm().of(1) as (peer,):
        for workers, least in ((0, None), (2, 3), (2, -1)):
            with pytest.raises(UsageError):
                async with peer.borrow(workers=workers, min_workers=least):
                    pass
        with pytest.raises(UsageError, match="no peer id"):
            async with peer.lend(allow=["somebody"]):
                pass
        async with peer.lend(allow=None):
            with pytest.raises(UsageError, match="lends already"):
                async with peer.lend(allow=None):
                    pass
        async with peer.lend(allow=None):
            pass  # and lending once does not prevent lending again


async def test_a_peer_does_not_lease_from_itself(autojump_clock: MockClock, ray: Ray) -> None:
    async with Swarm().of(2) as (peer, _), peer.lend(allow=None):
        with pytest.raises(NotEnoughWorkers, match="no provider was found"):
            async with peer.borrow(timeout_s=5):
                pass


async def test_while_it_borrows_a_process_is_a_driver_of_its_cluster(
    autojump_clock: MockClock, ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    async with Swarm().of(1) as (borrower,), borrower.borrow(workers=1, min_workers=0) as cluster:
        assert os.environ["RAY_ADDRESS"] == cluster.address
        assert os.environ["RAY_AUTH_MODE"] == "token"
    assert "RAY_ADDRESS" not in os.environ


async def test_whoever_asks_gets_every_event_from_the_beginning_until_the_cluster_is_closed(
    autojump_clock: MockClock, ray: Ray
) -> None:
    async with Swarm().of(2) as (borrower, lender), lender.lend(allow=[borrower.id]):
        async with borrower.borrow(workers=1) as cluster:
            async with aclosing(cluster.events()) as events:
                assert (await anext(events)).kind is ClusterEventKind.FOUND
        kinds = [event.kind async for event in cluster.events]
    assert [kind.value for kind in kinds] == ["found", "asked", "granted", "active", "ended"]
    assert [event.kind for event in cluster.past_events] == kinds


def test_of_edge_kinds_the_nearest_come_first() -> None:
    near, far, unknown = (PeerId.from_public_key(number.to_bytes(32, "big")) for number in range(3))
    distances = {near: 0.005, far: 0.2}
    entries = [
        LoadEntry(peer, LoadSignal(cpus_free=1, kind="edge-provider"), 0.0) for peer in (far, unknown, near)
    ]
    need = Need(kind="edge-provider")
    placement = _placement(need, distances.get)
    for seed in range(10):
        ranked = choose(entries, need, 1.0, random.Random(seed), placement=placement)
        assert [choice.provider for choice in ranked] == [near, far, unknown]
    assert (
        _placement(Need(kind="gpu-cluster"), distances.get)
        == _placement(Need(), distances.get)
        == Placement()
    )


async def test_a_lender_that_has_just_filled_up_is_not_asked(autojump_clock: MockClock, ray: Ray) -> None:
    """Its signal of the lease is on the way for up to half a second; the probe's answer knows of it."""
    offer = Offer(cpus=4, max_leases=1)
    async with (
        Swarm().of(4) as (borrower, rival, *lenders),
        lenders[0].lend(offer, allow=None) as lending,
        lenders[1].lend(offer, allow=None),
        borrower.follow_loads(),
    ):
        await trio.sleep(5)
        named = [lenders[0].id]
        async with rival.borrow(workers=1, lenders=named):
            full = lending.signal()
            assert full.cpus_free == 0
            # What the borrower knows of it is from before.
            entry = borrower.loads.get(lenders[0].id)
            assert entry is not None
            await lenders[0].set_load(lending.signal())
            async with borrower.borrow(workers=1) as cluster:
                asked = [event.peer for event in cluster.past_events if event.kind is ClusterEventKind.ASKED]
                assert asked == [lenders[1].id]


async def test_who_finds_all_lenders_full_waits_in_their_queues_and_is_served_in_turn(
    autojump_clock: MockClock, ray: Ray
) -> None:
    offer = Offer(max_leases=1)
    async with (
        Swarm().of(5) as (first, second, third, lender, other),
        lender.lend(offer, allow=None),
        other.lend(offer, allow=None) as others,
    ):
        order: list[int] = []
        granted: list[float] = []
        served = trio.Event()

        async def wait(number: int, borrower: Peer) -> None:
            async with borrower.borrow(workers=1, timeout_s=100) as cluster:
                order.append(number)
                served.set()
                granted.extend(
                    event.at for event in cluster.past_events if event.kind is ClusterEventKind.GRANTED
                )
                kinds = [event.kind for event in cluster.past_events]
                assert ClusterEventKind.QUEUED in kinds
                assert ClusterEventKind.REFUSED in kinds, "where it is not needed any more, it is taken back"
                await trio.sleep(10)

        async with trio.open_nursery() as nursery:
            async with first.borrow(workers=2):
                await trio.sleep(5)
                nursery.start_soon(wait, 2, second)
                await trio.sleep(10)
                nursery.start_soon(wait, 3, third)
                await trio.sleep(10)
                assert order == []
                others.take_back(0.0)  # so that the first borrower's end leaves room for one
            began = lender.now()
            await served.wait()
            assert granted[0] - began < 0.3, "nobody has to ask again to be served"
            assert order == [2]
        assert order == [2, 3]
        await trio.sleep(0.1)
        assert ray.workers == {}


async def test_a_lender_tells_what_a_further_lease_would_get(autojump_clock: MockClock, ray: Ray) -> None:
    """Not by shares: what is left is what the others did not ask for, while there may be another."""
    offer = Offer(cpus=6, memory_bytes=1 << 30, max_leases=3)
    async with Swarm().of(2) as (borrower, lender), lender.lend(offer, allow=None) as lending:

        def free() -> tuple[float, int, int]:
            signal = lending.signal()
            return signal.cpus_free, signal.memory_free_bytes, signal.leases

        await trio.sleep(5)
        assert free() == (6, 1 << 30, 0)
        async with borrower.borrow(Need(cpus=1)), borrower.borrow(Need(cpus=4, memory_bytes=1 << 29)):
            assert free() == (1, 1 << 29, 2)
            async with borrower.borrow(Need(cpus=0.5)):
                assert free() == (0, 0, 3)  # half a CPU is left, and no lease to give it to
        await trio.sleep(5)
        assert free() == (6, 1 << 30, 0)


async def test_own_leases_count_before_signals_show_them(autojump_clock: MockClock, ray: Ray) -> None:
    """Four clusters of one worker, opened at once, of four lenders: one each, though no signal says so yet."""
    async with Swarm().of(5) as (borrower, *lenders), AsyncExitStack() as stack:
        for lender in lenders:
            await stack.enter_async_context(lender.lend(Offer(cpus=4, max_leases=4), allow=None))
        await stack.enter_async_context(borrower.follow_loads())
        await trio.sleep(5)
        used: list[str] = []
        for _ in range(4):
            cluster = await stack.enter_async_context(borrower.borrow(workers=1))
            used += ids(cluster)
        assert sorted(used) == sorted(str(lender.id) for lender in lenders)


async def test_workers_are_placed_where_the_borrower_wants_them(autojump_clock: MockClock, ray: Ray) -> None:
    regions = ("eu", "eu", "eu", "us")
    async with Swarm().of(5) as (borrower, *lenders), AsyncExitStack() as stack:
        for lender, region in zip(lenders, regions, strict=True):
            await stack.enter_async_context(lender.lend(Offer(cpus=4, region=region), allow=None))
        await stack.enter_async_context(borrower.follow_loads())
        await trio.sleep(5)
        placement = Placement(spreads=[Spread()])
        async with borrower.borrow(workers=2, placement=placement) as cluster:
            assert str(lenders[3].id) in ids(cluster)
            ray.workers[str(lenders[3].id)].dead.set()  # the only one elsewhere: the rest must do
            await trio.sleep(8)
            assert len(ids(cluster)) == 2
        forbidden = Placement([Affinity(Strength.FORBID, regions=frozenset({"eu"}))])
        async with borrower.borrow(workers=1, placement=forbidden) as cluster:
            assert ids(cluster) == {str(lenders[3].id)}


async def test_what_the_balancer_is_told(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, ray: Ray
) -> None:
    told: list[tuple[Any, dict[str, Any]]] = []
    real = Choosing.choose

    async def choose(self: Choosing, *arguments: Any, **named: Any) -> list[Choice]:
        told.append((arguments[3], named))
        return await real(self, *arguments, **named)

    monkeypatch.setattr(Choosing, "choose", choose)
    async with (
        Swarm().of(3) as (borrower, first, second),
        first.lend(Offer(region="eu"), allow=None),
        second.lend(Offer(region="us"), allow=None),
        borrower.follow_loads(),
    ):
        await trio.sleep(5)
        recruiter, market = Recruiter(2), borrower._market  # pyright: ignore[reportPrivateUsage]
        recruiter.asked(b"lease", Candidate(first.id, 1))
        market._recruiters.append(recruiter)  # pyright: ignore[reportPrivateUsage]
        scout = Scout(borrower, market._loads, market._choosing, VERSIONS, None)  # pyright: ignore[reportPrivateUsage]
        await scout.search()
        place = market._place(Need(), recruiter, Placement(spreads=[Spread()]))  # pyright: ignore[reportPrivateUsage]
        outstanding = market._outstanding()  # pyright: ignore[reportPrivateUsage]
        found = await scout.candidates(Ask(Need()), recruiter, outstanding, place)
        assert [candidate.provider for candidate, _ in found] == [second.id, first.id]
        ((outstanding, named),) = told
        assert outstanding == {first.id: 1}
        assert named["placement"].spreads[0].used == {"eu": 1}
        assert named["probes"] == 2
        assert [named["probed"](peer.id) for peer in (first, second)] == [False, True]


async def test_one_lender_gives_several_workers_when_there_are_too_few_others(
    autojump_clock: MockClock, ray: Ray
) -> None:
    offer = Offer(cpus=4, max_leases=4)
    async with (
        Swarm().of(3) as (borrower, *lenders),
        lenders[0].lend(offer, allow=None),
        lenders[1].lend(offer, allow=None),
        borrower.borrow(workers=5) as cluster,
    ):
        counts = [sum(worker.peer == lender.id for worker in cluster.workers) for lender in lenders]
        assert sorted(counts) == [2, 3]
        assert len({worker.lease for worker in cluster.workers}) == 5


async def test_an_elastic_cluster_begins_with_its_least(autojump_clock: MockClock, ray: Ray) -> None:
    async with (
        Swarm().of(4) as (borrower, *lenders),
        lenders[0].lend(allow=None),
        lenders[1].lend(allow=None),
        lenders[2].lend(allow=None),
    ):
        async with borrower.borrow(workers=(2, 3)) as cluster:
            assert len(cluster.workers) == 2
            await trio.sleep(20)
            assert len(cluster.workers) == 2


def test_sizes_that_make_no_sense() -> None:
    assert cluster_size(3) == ClusterSize(3, 3, 3)
    assert cluster_size((0, 5)) == ClusterSize(0, 5, 0)
    assert cluster_size([2, 5], 1) == ClusterSize(2, 5, 1)
    for workers in (0, "3", (3, 2), (1,), (1, 2, 3), (0, 0), (1, 1000), 1.5, None):
        with pytest.raises(UsageError, match="workers"):
            cluster_size(workers)
    with pytest.raises(UsageError, match="min_workers"):
        cluster_size((2, 5), 3)


async def test_a_worker_whose_lender_wants_it_back_is_drained_and_replaced_before_it_ends(
    autojump_clock: MockClock, ray: Ray
) -> None:
    async with (
        Swarm().of(3) as (borrower, *lenders),
        lenders[0].lend(allow=None) as lending,
        borrower.borrow(workers=1) as cluster,
        lenders[1].lend(allow=None),
    ):
        (worker,) = cluster.workers
        notice = trio.current_time()
        lending.take_back(20.0, "its owner is back")
        await cluster.wait_for_workers(2)
        assert trio.current_time() < notice + 10
        ((lease, idle, ends),) = FakeGcs.drained
        assert (lease, idle) == (worker.lease, False)
        assert 15 < ends - borrower.now() < 20
        await trio.sleep(25)
        assert ids(cluster) == {str(lenders[1].id)} == set(ray.workers)
        kinds = [event.kind.value for event in cluster.past_events]
        last = ["drained", "active", "ended"]
        assert [kind for kind in kinds if kind in last] == ["active", *last]
        (drained,) = (event for event in cluster.past_events if event.kind is ClusterEventKind.DRAINED)
        assert drained.reason == "its owner is back: drained"


async def test_a_gang_is_had_whole_or_not_at_all(autojump_clock: MockClock, ray: Ray) -> None:
    async with (
        Swarm().of(4) as (borrower, *lenders),
        lenders[0].lend(allow=None) as first,
        lenders[1].lend(allow=None) as second,
    ):
        async with borrower.borrow(workers=3, min_workers=0, gang=True) as cluster:
            for _ in range(300):
                await trio.sleep(0.1)
                assert not ray.workers
                assert (first.borrowers, second.borrowers) == ((), ()), "nothing is granted"
            async with lenders[2].lend(allow=None):
                await cluster.wait_for_workers(3, timeout_s=60)
                assert len(set(ids(cluster))) == 3
                ray.workers[str(lenders[0].id)].dead.set()
                await cluster.wait_for_workers(2)
                await trio.sleep(30)
                assert len(ids(cluster)) == 3, "one that is lost later is replaced by itself"


async def test_of_two_gangs_that_hold_what_the_other_lacks_each_gets_its_turn(
    autojump_clock: MockClock, ray: Ray
) -> None:
    async with Swarm().of(6) as (one, other, *lenders), AsyncExitStack() as stack:
        for lender in lenders:
            await stack.enter_async_context(lender.lend(allow=None))
        done: list[Peer] = []

        async def borrow(peer: Peer) -> None:
            async with peer.borrow(workers=3, gang=True, timeout_s=600) as cluster:
                assert len(cluster.workers) == 3
                await trio.sleep(20)
                assert len(cluster.workers) == 3
                done.append(peer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(borrow, one)
            nursery.start_soon(borrow, other)
        assert len(done) == 2


async def test_the_cheapest_is_taken_and_who_costs_too_much_is_not(
    autojump_clock: MockClock, ray: Ray
) -> None:
    prices = {"eu": 3.0, "us": 1.0, "moon": None}
    async with Swarm().of(4) as (borrower, *lenders), AsyncExitStack() as stack:
        for lender, region in zip(lenders, prices, strict=True):
            await stack.enter_async_context(lender.lend(Offer(region=region), allow=None))
        await stack.enter_async_context(borrower.follow_loads())
        await trio.sleep(5)
        placement = Placement(price=lambda entry: prices[entry.signal.region], price_weight=60.0)
        async with borrower.borrow(workers=1, placement=placement) as cluster:
            assert ids(cluster) == {str(lenders[1].id)}
            ray.workers[str(lenders[1].id)].dead.set()
            await trio.sleep(8)
            assert ids(cluster) == {str(lenders[0].id)}
    with pytest.raises(UsageError, match="price"):
        Placement(price=3.0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
