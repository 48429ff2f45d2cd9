"""Stateful test: the network is a bag of messages from which anything may be taken, in any order, at any time,
as often as wanted, also long after its lease ended or its sender died."""

from __future__ import annotations

from collections import Counter, deque
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from swarmp2p.engine import NetworkEvent, PeerDown, Received, Send, Tick
from swarmp2p.identity import PeerId
from swarmp2p.ray_bridge.events import (
    EndLease,
    LeaseCommand,
    LeaseId,
    Lend,
    Need,
    Offer,
    OpenPath,
    PathFailed,
    PathUp,
    RequestLease,
    StartWorker,
    StopLending,
    WorkerFailed,
    WorkerStarted,
)
from swarmp2p.ray_bridge.lease import LeaseConfig, Leases
from swarmp2p.ray_bridge.messages import LeaseMessage

from .keys import VERSIONS, cheap_keys, lease_id, peer
from .world import Ledger, secret_of

PEERS = (peer(1), peer(2), peer(3))  # all lend; the first may not borrow
CONFIG = LeaseConfig(lease_s=20.0, max_finished=3, max_half_open_per_peer=2, max_taken=4)
TERMS = Lend(Offer(cpus=2, max_leases=2), VERSIONS, frozenset(PEERS[1:]))
LONGEST_S = CONFIG.start_timeout_s + CONFIG.step_timeout_s + 20.0
SEEN: Counter[str] = Counter()  # outputs by name, so that a test can tell whether anything happened

SOMEBODY = st.sampled_from(PEERS)
PAIR = st.permutations(PEERS).map(lambda order: (order[0], order[1]))
ANY = st.integers(0, 1_000_000)


class Bag(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.engines: dict[PeerId, Leases] = {}
        self.ledgers: dict[PeerId, Ledger] = {}
        self.births = 0
        self.leases: list[LeaseId] = []
        self.sent: list[tuple[PeerId, Send]] = []  # every message ever
        self.next: deque[tuple[PeerId, NetworkEvent | LeaseCommand]] = (
            deque()
        )  # what would come in good order

    @initialize()
    def begin(self) -> None:
        for one in PEERS:
            self.start(one)

    def start(self, one: PeerId) -> None:
        self.births += 1
        self.engines[one] = Leases(one, cheap_keys(one, self.births), Random(self.births), CONFIG)
        self.ledgers[one] = Ledger(TERMS)
        self.feed(one, TERMS)

    def feed(self, one: PeerId, event: NetworkEvent | LeaseCommand) -> None:
        for output in self.engines[one].handle(event, self.now):
            self.ledgers[one].note(output)
            SEEN[type(output).__name__] += 1
            match output:
                case Send(to=to, message=message):
                    self.sent.append((one, output))
                    self.next.append((to, Received(one, message)))
                case OpenPath(lease=lease):
                    self.next.append((one, PathUp(lease)))
                case StartWorker(lease=lease):
                    self.next.append((one, WorkerStarted(lease)))
                case _:
                    pass

    @rule(pair=PAIR, cpus=st.sampled_from((0.5, 1, 2)), steps=st.integers(0, 12))
    def request(self, pair: tuple[PeerId, PeerId], cpus: float, steps: int) -> None:
        """One asks another, and for a while all goes well."""
        borrower, lender = pair
        lease = lease_id(len(self.leases) + 1)
        self.leases.append(lease)
        self.ledgers[borrower].requested[lease] = lender
        self.feed(
            borrower, RequestLease(lease, lender, Need(cpus=cpus), VERSIONS, secret_of(lease), "cluster")
        )
        self.go_on(steps)

    @rule(steps=st.integers(1, 20))
    def go_on(self, steps: int) -> None:
        """What is due in good order happens."""
        for _ in range(min(steps, len(self.next))):
            self.feed(*self.next.popleft())

    @precondition(lambda self: self.next)
    @rule(place=ANY)
    def lose(self, place: int) -> None:
        del self.next[place % len(self.next)]

    @precondition(lambda self: self.sent)
    @rule(place=ANY)
    def repeat(self, place: int) -> None:
        sender, send = self.sent[place % len(self.sent)]
        self.feed(send.to, Received(sender, send.message))

    @precondition(lambda self: self.sent)
    @rule(place=ANY, liar=SOMEBODY, hearer=SOMEBODY)
    def lie(self, place: int, liar: PeerId, hearer: PeerId) -> None:
        """A peer says to somebody what another peer once said, as its own words."""
        message = self.sent[place % len(self.sent)][1].message
        assert isinstance(message, LeaseMessage)
        self.feed(hearer, Received(liar, message))

    @rule(one=SOMEBODY, seconds=st.sampled_from((0.1, 0.5, 1.0, 4.0, 15.0, 70.0)))
    def wait(self, one: PeerId, seconds: float) -> None:
        self.now += seconds
        self.feed(one, Tick())

    @rule(one=SOMEBODY)
    def tick_when_due(self, one: PeerId) -> None:
        deadline = self.engines[one].deadline()
        if deadline < float("inf"):
            self.now = max(self.now, deadline)
            self.feed(one, Tick())
            assert self.engines[one].deadline() > self.now

    @rule(one=SOMEBODY, other=SOMEBODY)
    def down(self, one: PeerId, other: PeerId) -> None:
        self.feed(one, PeerDown(other))

    @precondition(lambda self: self.leases)
    @rule(one=SOMEBODY, place=ANY, what=st.sampled_from(("up", "no path", "started", "died", "end")))
    def command(self, one: PeerId, place: int, what: str) -> None:
        lease = self.leases[place % len(self.leases)]
        commands: dict[str, LeaseCommand] = {
            "up": PathUp(lease),
            "no path": PathFailed(lease, "no\nroute"),
            "started": WorkerStarted(lease),
            "died": WorkerFailed(lease, "exit 1"),
            "end": EndLease(lease, "done"),
        }
        self.feed(one, commands[what])

    @rule(one=SOMEBODY)
    def stop_and_lend_again(self, one: PeerId) -> None:
        self.feed(one, StopLending("for a moment"))
        assert not self.ledgers[one].workers
        self.feed(one, TERMS)

    @rule(one=SOMEBODY)
    def crash(self, one: PeerId) -> None:
        self.start(one)

    @invariant()
    def nobody_holds_more_than_there_is(self) -> None:
        for one, engine in self.engines.items():
            assert len(engine.states()) <= TERMS.offer.max_leases + CONFIG.max_taken
            assert set(self.ledgers[one].workers) <= set(engine.states()), "no worker without a lease"

    def teardown(self) -> None:
        """Nobody hears anything any more: everything ends by itself."""
        began = self.now
        for one, engine in self.engines.items():
            self.now = began
            while engine.deadline() < float("inf"):
                self.now = max(self.now, engine.deadline())
                assert self.now <= began + LONGEST_S, "no lease without an end"
                self.feed(one, Tick())
            assert engine.states() == {}
            self.ledgers[one].all_over()


def test_nothing_in_the_bag_breaks_a_promise() -> None:
    SEEN.clear()
    run_state_machine_as_test(Bag, settings=settings(max_examples=300, stateful_step_count=50, deadline=None))
    for name in ("LeaseGranted", "StartWorker", "LeaseActive", "LeaseEnded"):
        assert SEEN[name] >= 5, f"a machine that hardly gets to a worker proves little: {SEEN}"
