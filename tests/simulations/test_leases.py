"""Leases between whole nodes in the simulator: a lossy network, crashes and restarts with journals on both sides."""

from __future__ import annotations

from collections import Counter
from random import Random

from simulations.swarm import Swarm
from swarmp2p.identity import PeerId
from swarmp2p.node import NodeOutput
from swarmp2p.ray_bridge.events import (
    CommitGang,
    Journal,
    JournalRecord,
    LeaseEnded,
    LeaseGranted,
    LeaseHeld,
    LeaseId,
    Lend,
    Need,
    Offer,
    OpenPath,
    PathUp,
    RequestLease,
    RestoreLeases,
    Role,
    StartWorker,
    StopWorker,
    Versions,
    WorkerStarted,
)
from swarmp2p.transport.link import UniformLink
from tests.ray_bridge.keys import SECRET

LENDERS, BORROWERS = 4, 4
VERSIONS = Versions("2.60.0", "3.11", "0.1.0")
TERMS = Lend(Offer(cpus=2, max_leases=2), VERSIONS, None)
LENGTH_S = 300.0


class Scenario:
    """Lenders and borrowers of one swarm, their workers and journals. Checks while it goes on."""

    def __init__(self, seed: int) -> None:
        self.swarm = Swarm(LENDERS + BORROWERS, seed, UniformLink(0.03, loss=0.05))
        self.lenders, self.borrowers = self.swarm.peers[:LENDERS], self.swarm.peers[LENDERS:]
        self.rng = Random(seed)
        self.workers: dict[PeerId, set[LeaseId]] = {peer: set() for peer in self.lenders}
        self.journals: dict[PeerId, dict[LeaseId, JournalRecord]] = {peer: {} for peer in self.swarm.peers}
        self.started: set[LeaseId] = set()
        self.down: set[PeerId] = set()
        self.counts: Counter[str] = Counter()
        for kind in (OpenPath, StartWorker, StopWorker, LeaseGranted, LeaseEnded, LeaseHeld, Journal):
            self.swarm.listen(kind, self.output)
        for peer in self.swarm.peers:
            for other in self.swarm.peers:
                if other != peer:
                    self.swarm.sim.connect(peer, other)
        for peer in self.lenders:
            self.swarm.sim.post(peer, TERMS)

    def output(self, now: float, peer: PeerId, output: NodeOutput) -> None:
        """Act as a driver would, and check."""
        sim = self.swarm.sim
        self.counts[type(output).__name__] += 1
        match output:
            case OpenPath(lease=lease, role=Role.LENDER):
                sim.post(peer, PathUp(lease), 0.1)
            case StartWorker(lease=lease):
                assert lease not in self.started, "a lease has one worker in all its life"
                self.started.add(lease)
                self.workers[peer].add(lease)
                assert len(self.workers[peer]) <= TERMS.offer.max_leases, "nothing is lent twice"
                sim.post(peer, WorkerStarted(lease), 1.0)
            case StopWorker(lease=lease):
                self.workers[peer].remove(lease)
            case LeaseHeld(lease=lease):
                sim.post(peer, CommitGang(self.gang_of(lease)), 0.3)
            case Journal(lease=lease, record=None):
                self.journals[peer].pop(lease, None)
            case Journal(lease=lease, record=record):
                assert record is not None
                self.journals[peer][lease] = record
            case _:
                pass

    @staticmethod
    def gang_of(lease: LeaseId) -> bytes:
        return lease[:15] + b"g"

    def step(self) -> None:
        """Something happens."""
        sim, rng = self.swarm.sim, self.rng
        peer = rng.choice(self.swarm.peers)
        if peer in self.down:
            self.down.remove(peer)
            self.swarm.start(peer)
            if peer in self.workers:
                sim.post(peer, RestoreLeases(tuple(self.journals[peer].values())))
                sim.post(peer, TERMS)
            else:
                sim.post(peer, RestoreLeases(tuple(self.journals[peer].values()), rng.random() < 0.7))
            for other in self.swarm.peers:
                if other != peer and other not in self.down:
                    sim.connect(peer, other)
        elif rng.random() < 0.25:
            self.down.add(peer)
            if peer in self.workers:
                self.workers[peer].clear()  # they die with it
            sim.crash(peer, rng.choice((None, 0.1)))
        elif peer in self.borrowers:
            stem, together = rng.randbytes(15), rng.choice((1, 1, 2, 3))
            for number in range(together):
                lease = stem + bytes([number])
                gang = self.gang_of(lease) if together > 1 else b""
                queue_s = rng.choice((0.0, 20.0))
                lender = rng.choice(self.lenders)
                secret = SECRET
                sim.post(peer, RequestLease(lease, lender, Need(), VERSIONS, secret, "c", gang, (), queue_s))

    def run(self) -> None:
        while self.swarm.sim.now < LENGTH_S:
            self.step()
            self.swarm.sim.run(self.swarm.sim.now + self.rng.uniform(0.5, 6.0))
        for peer in self.borrowers:
            if peer not in self.down:
                self.swarm.sim.crash(peer)
                self.down.add(peer)
        self.swarm.sim.run(self.swarm.sim.now + 100.0)  # no borrower is left: a term is 60 s
        for peer in self.lenders:
            assert not self.workers[peer], "no worker without a lease, and no lease without an end"
            if peer not in self.down:
                assert self.swarm.node(peer).leases.states() == {}
                assert self.journals[peer] == {}


def test_whole_nodes_never_lend_twice_and_every_lease_ends() -> None:
    counts: Counter[str] = Counter()
    for seed in range(4):
        scenario = Scenario(seed)
        scenario.run()
        counts += scenario.counts
    assert counts["StartWorker"] > 50, counts
    assert counts["StopWorker"] > 10, counts
    assert counts["LeaseHeld"] > 10, counts


def test_the_same_seed_gives_the_same_leases() -> None:
    runs = [Scenario(7), Scenario(7)]
    for scenario in runs:
        scenario.run()
    assert runs[0].counts == runs[1].counts
