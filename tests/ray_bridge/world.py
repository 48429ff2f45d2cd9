"""A small world for lease engines: virtual time, a bad network, workers and paths that may fail, crashes.

`Ledger` checks each engine's outputs as they come; `World` runs several engines against each other, keeps their
journals over restarts, and checks what only the whole can show: that a lease has one worker in all its life, and that
of a gang all stand or none.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from swarmp2p.engine import NetworkEvent, NetworkOutput, PeerDown, PeerUp, Received, Send, Tick
from swarmp2p.identity import PeerId
from swarmp2p.ray_bridge.events import (
    ClosePath,
    CommitGang,
    JoinSecret,
    Journal,
    JournalRecord,
    LeaseActive,
    LeaseCommand,
    LeaseEnded,
    LeaseGranted,
    LeaseHeld,
    LeaseId,
    LeaseNotice,
    LeaseOutput,
    LeaseRefusal,
    LeaseSilent,
    Lend,
    Need,
    OpenPath,
    PathFailed,
    PathUp,
    RequestLease,
    RestoreLeases,
    Role,
    StartWorker,
    StopWorker,
    WorkerFailed,
    WorkerStarted,
)
from swarmp2p.ray_bridge.lease import GivenState, LeaseConfig, Leases, TakenState
from swarmp2p.ray_bridge.messages import LeaseMessage, Release
from swarmp2p.ray_bridge.wire import encode, lease_protocol

from .keys import SECRET, VERSIONS, cheap_keys

DECODE = lease_protocol().decode
UNWRITTEN = (
    GivenState.QUEUED,
    GivenState.CHALLENGED,
    TakenState.REQUESTING,
    TakenState.QUEUED,
    TakenState.HELD,
)
"""States in which nothing was agreed on that has to survive a crash."""


def secret_of(lease: LeaseId) -> JoinSecret:
    """A join secret that shows which lease it was given for."""
    return JoinSecret(SECRET.address, lease.hex())


@dataclass(slots=True)
class Ledger:
    """What one engine's outputs have to add up to. lend: its terms, while it lends."""

    lend: Lend | None = None
    paths: set[LeaseId] = field(default_factory=set)
    closed: set[LeaseId] = field(default_factory=set)
    workers: dict[LeaseId, Need] = field(default_factory=dict)
    stopped: set[LeaseId] = field(default_factory=set)
    granted: dict[LeaseId, Role] = field(default_factory=dict)
    active: set[LeaseId] = field(default_factory=set)
    ended: set[LeaseId] = field(default_factory=set)
    refused: set[LeaseId] = field(default_factory=set)
    requested: dict[LeaseId, PeerId] = field(default_factory=dict)
    held: dict[LeaseId, None] = field(default_factory=dict)
    gangs: dict[bytes, list[LeaseId]] = field(default_factory=dict)
    committed: dict[bytes, tuple[LeaseId, ...]] = field(default_factory=dict)
    whole: set[bytes] = field(default_factory=set)

    def note(self, output: NetworkOutput | LeaseOutput) -> None:
        """Check one output against all before it."""
        match output:
            case OpenPath(lease=lease, role=role):
                assert lease not in self.paths | self.closed, "a path is opened once"
                assert self.granted.get(lease) is role, "only granted leases have paths"
                self.paths.add(lease)
            case ClosePath(lease=lease):
                assert lease in self.paths, "only an open path is closed"
                assert lease not in self.workers, "a worker is stopped before its path goes"
                self.paths.remove(lease)
                self.closed.add(lease)
            case StartWorker():
                self._start(output)
            case StopWorker(lease=lease):
                assert lease in self.workers, "only a started worker is stopped"
                del self.workers[lease]
                self.stopped.add(lease)
            case LeaseGranted(lease=lease, role=role):
                assert lease not in self.granted, "a lease is granted once"
                assert lease not in self.refused, "what was refused is not granted"
                self.granted[lease] = role
            case LeaseActive(lease=lease, role=role):
                assert self.granted.get(lease) is role, "only what was granted becomes active"
                assert lease not in self.active | self.ended, "once, and before the end"
                self.active.add(lease)
            case LeaseEnded(lease=lease, role=role):
                assert self.granted.get(lease) is role, "only what was granted ends"
                assert lease not in self.ended, "once"
                assert lease not in self.paths, "its path is closed"
                assert lease not in self.workers, "its worker is stopped"
                self.ended.add(lease)
            case LeaseHeld(lease=lease):
                assert lease not in self.granted, "what is granted is not held back"
                self.held[lease] = None
            case LeaseNotice(lease=lease, role=role):
                assert self.granted.get(lease) is role, "only of what was granted"
                assert lease not in self.ended, "before its end"
            case LeaseRefusal(lease=lease):
                assert lease not in self.granted, "what was granted is not refused"
                assert lease not in self.refused, "once"
                self.refused.add(lease)
            case _:
                pass

    def _start(self, order: StartWorker) -> None:
        lease = order.lease
        assert lease not in self.workers.keys() | self.stopped, "a worker is started once"
        assert lease in self.paths, "over a path that stands"
        assert order.secret == secret_of(lease), "with the secret that was given for this lease"
        assert self.lend is not None
        assert self.lend.allow is None or order.borrower in self.lend.allow, "for whom the owner allowed"
        self.workers[lease] = order.need
        assert len(self.workers) <= self.lend.offer.max_leases, "no more leases than offered"
        assert sum(need.cpus for need in self.workers.values()) <= self.lend.offer.cpus, (
            "no CPU is lent twice"
        )

    def commit(self, gang: bytes, standing: dict[LeaseId, GivenState | TakenState]) -> None:
        """CommitGang is about to come: what is held is taken, all or none."""
        if gang not in self.committed:
            members = self.gangs.get(gang, [])
            self.committed[gang] = tuple(one for one in members if standing.get(one) is TakenState.HELD)

    def check_gangs(self, standing: dict[LeaseId, GivenState | TakenState]) -> None:
        """Until all of a gang were active, all stand or none."""
        for gang, members in self.committed.items():
            if gang in self.whole:
                continue
            left = [lease for lease in members if lease in standing]
            assert not left or len(left) == len(members), "all of a gang, or none"
            if members and self.active.issuperset(members):
                self.whole.add(gang)

    def all_over(self) -> None:
        """Nothing is left, and every request had exactly one end."""
        assert not self.paths
        assert not self.workers
        assert set(self.granted) == self.ended
        for lease in self.requested:
            assert (lease in self.refused) != (lease in self.ended), "refused or ended, and not both"


@dataclass(frozen=True, slots=True)
class Weather:
    """What may go wrong.

    loss, copies: probability that a message is lost, or comes twice. delay_s: least and greatest, drawn for
    each copy, so messages overtake each other. tells_down: probability that a peer's death, or a message to
    the dead, is told by PeerDown. flaps: of a PeerDown without reason, for each message. trouble: probability
    that a path or a worker fails, hangs, or dies.
    """

    loss: float = 0.0
    copies: float = 0.0
    delay_s: tuple[float, float] = (0.01, 0.01)
    tells_down: float = 1.0
    flaps: float = 0.0
    trouble: float = 0.0


@dataclass(slots=True)
class _Node:
    engine: Leases
    ledger: Ledger
    lend: Lend | None
    journal: dict[LeaseId, JournalRecord] = field(default_factory=dict)
    up: bool = True
    incarnation: int = 0
    tick_at: float = float("inf")


class World:
    """Engines, a network and time. log: every output of every engine, in order."""

    def __init__(self, seed: int, weather: Weather, config: LeaseConfig | None = None) -> None:
        self.rng, self.weather = Random(seed), weather
        self.config = config or LeaseConfig(lease_s=60.0)
        self.now = 0.0
        self.nodes: dict[PeerId, _Node] = {}
        self.log: list[tuple[float, PeerId, LeaseOutput]] = []
        self.releases = 0
        self.started: dict[LeaseId, PeerId] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def add(self, peer: PeerId, lend: Lend | None = None) -> None:
        self.nodes[peer] = _Node(self._engine(peer), Ledger(lend), lend)
        if lend is not None:
            self.feed(peer, lend)

    def add_mute(self, peer: PeerId) -> None:
        """A peer that hears nothing, and says only what `say` has it say."""
        self.add(peer)
        self.nodes[peer].up = False

    def say_later(self, delay_s: float, peer: PeerId, to: PeerId, message: LeaseMessage) -> None:
        """Have a peer say whatever it likes, over the network."""
        self._later(delay_s, lambda: self._send(peer, Send(to, message)))

    def _engine(self, peer: PeerId) -> Leases:
        return Leases(
            peer, cheap_keys(peer, self.rng.getrandbits(32)), Random(self.rng.random()), self.config
        )

    def request(
        self,
        borrower: PeerId,
        lender: PeerId,
        need: Need | None = None,
        gang: bytes = b"",
        queue_s: float = 0.0,
    ) -> LeaseId:
        lease = self.rng.randbytes(16)
        ledger = self.nodes[borrower].ledger
        ledger.requested[lease] = lender
        if gang:
            ledger.gangs.setdefault(gang, []).append(lease)
        secret = secret_of(lease)
        asked = RequestLease(lease, lender, need or Need(), VERSIONS, secret, "cluster", gang, (), queue_s)
        self.feed(borrower, asked)
        return lease

    def commit(self, borrower: PeerId, gang: bytes) -> None:
        """Take what is held for a gang."""
        node = self.nodes[borrower]
        if node.up:
            node.ledger.commit(gang, node.engine.states())
            self.feed(borrower, CommitGang(gang))

    def commit_later(self, borrower: PeerId, gang: bytes, delay_s: float) -> None:
        """The same in a while, if the borrower lives as long."""
        incarnation = self.nodes[borrower].incarnation

        def commit() -> None:
            if self.nodes[borrower].incarnation == incarnation:
                self.commit(borrower, gang)

        self._later(delay_s, commit)

    def crash(self, peer: PeerId) -> None:
        """Kill a node with its workers and paths. Nothing is said by it; others may hear of it."""
        node = self.nodes[peer]
        node.up = False
        node.incarnation += 1
        for other in self.nodes:
            if other != peer and self.rng.random() < self.weather.tells_down:
                self._later(self.rng.uniform(*self.weather.delay_s), self._deliverer(other, PeerDown(peer)))

    def restart(self, peer: PeerId, resume: bool | None = None) -> None:
        """A new engine, with what its journal holds: to be resumed or not; None for a journal that was lost."""
        node = self.nodes[peer]
        before = {lease: gang for gang, leases in node.ledger.gangs.items() for lease in leases}
        whole = node.ledger.whole
        node.engine, node.ledger = self._engine(peer), Ledger(node.lend)
        node.up, node.tick_at = True, float("inf")
        records, node.journal = tuple(node.journal.values()), {}
        if resume is not None and records:
            node.journal = {record.lease: record for record in records}
            self.feed(peer, RestoreLeases(records, resume))
            for lease in node.engine.states():
                assert before.get(lease) is None or before[lease] in whole, "half a gang is not resumed"
        if node.lend is not None:
            self.feed(peer, node.lend)
        for other in self.nodes:
            if other != peer:
                self._later(self.rng.uniform(*self.weather.delay_s), self._deliverer(other, PeerUp(peer)))

    def feed(self, peer: PeerId, event: NetworkEvent | LeaseCommand) -> None:
        """Give one event to one engine, now."""
        node = self.nodes[peer]
        if not node.up:
            return
        outputs = node.engine.handle(event, self.now)
        for output in outputs:
            if isinstance(output, Journal):
                if output.record is None:
                    assert output.lease in node.journal, "only what was written down is forgotten"
                    del node.journal[output.lease]
                else:
                    node.journal[output.lease] = output.record
        states = node.engine.states()
        for lease, state in states.items():
            assert (lease in node.journal) is (state not in UNWRITTEN), "what stands is written down"
        assert set(node.journal) <= set(states), "and nothing else"
        for output in outputs:
            node.ledger.note(output)
            if isinstance(output, StartWorker):
                assert output.lease not in self.started, "one worker in all the life of a lease"
                self.started[output.lease] = peer
            if isinstance(output, Send):
                self._send(peer, output)
            else:
                assert not isinstance(output, NetworkOutput)
                self.log.append((self.now, peer, output))
                self._act(peer, output)
        node.ledger.check_gangs(states)
        deadline = node.engine.deadline()
        if isinstance(event, Tick):
            assert deadline > self.now, "a due Tick moves the deadline past now"
        if deadline != node.tick_at:
            node.tick_at = deadline
            if deadline < float("inf"):
                self._at(deadline, self._ticker(peer, node.incarnation, deadline))

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._queue and self._queue[0][0] <= until:
            self.now, _, action = heapq.heappop(self._queue)
            action()
        self.now = until

    def settle(self) -> None:
        """Cut every link for as long as any lease can last; then nothing may be left anywhere."""
        self.weather = Weather(loss=1.0, tells_down=0.0)
        config = self.config
        self.run(self.now + max(config.lease_s or 0.0, config.start_timeout_s + config.step_timeout_s) + 10)
        for node in self.nodes.values():
            if node.up:
                assert node.engine.states() == {}
                assert node.engine.deadline() == float("inf")
                node.ledger.all_over()

    def outputs(self, peer: PeerId, lease: LeaseId) -> list[tuple[float, LeaseOutput]]:
        """What an engine said about a lease, and when."""
        return [
            (at, output)
            for at, who, output in self.log
            if who == peer and output.lease == lease and not isinstance(output, Journal | LeaseSilent)
        ]

    # Inside -----------------------------------------------------------------------------------------------

    def _at(self, time: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (time, self._count, action))

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        self._at(self.now + delay_s, action)

    def _ticker(self, peer: PeerId, incarnation: int, deadline: float) -> Callable[[], None]:
        def tick() -> None:
            node = self.nodes[peer]
            if node.incarnation == incarnation and node.tick_at == deadline:
                node.tick_at = float("inf")
                self.feed(peer, Tick())

        return tick

    def _deliverer(self, peer: PeerId, event: NetworkEvent | LeaseCommand) -> Callable[[], None]:
        return lambda: self.feed(peer, event)

    def _locally(self, peer: PeerId, delay_s: float, command: LeaseCommand) -> None:
        """A command that dies with the process which would post it."""
        incarnation = self.nodes[peer].incarnation

        def post() -> None:
            if self.nodes[peer].incarnation == incarnation:
                self.feed(peer, command)

        self._later(delay_s, post)

    def _send(self, source: PeerId, send: Send) -> None:
        if isinstance(send.message, Release):
            self.releases += 1
        weather, rng, target = self.weather, self.rng, send.to
        frame = encode(send.message)
        message = DECODE(source, frame, 0)
        assert message == send.message, "what is sent is what is read"

        def arrive() -> None:
            if self.nodes[target].up:
                self.feed(target, Received(source, message))
            elif rng.random() < self.weather.tells_down:
                self._later(rng.uniform(*self.weather.delay_s), self._deliverer(source, PeerDown(target)))

        if rng.random() < weather.flaps:
            self._later(rng.uniform(*weather.delay_s), self._deliverer(source, PeerDown(target)))
        for _ in range(2 if rng.random() < weather.copies else 1):
            if rng.random() >= weather.loss:
                self._later(rng.uniform(*weather.delay_s), arrive)

    def _act(self, peer: PeerId, output: LeaseOutput) -> None:
        """Paths and workers, as a driver would run them."""
        rng, trouble = self.rng, self.rng.random() < self.weather.trouble
        match output:
            case OpenPath(lease=lease):
                if not trouble:
                    self._locally(peer, rng.uniform(0, 0.2), PathUp(lease))
                elif rng.random() < 0.5:
                    self._locally(peer, rng.uniform(0, 20), PathFailed(lease, "no route"))
            case StartWorker(lease=lease):
                if not trouble or rng.random() < 0.3:
                    self._locally(peer, rng.uniform(1, 8), WorkerStarted(lease))
                if trouble and rng.random() < 0.7:
                    self._locally(peer, rng.uniform(0, 30), WorkerFailed(lease, "it died"))
            case StopWorker(lease=lease):
                self._locally(peer, rng.uniform(0, 2), WorkerFailed(lease, "the worker was stopped"))
            case _:
                pass
