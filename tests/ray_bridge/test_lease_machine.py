"""Leases as hypothesis drives them: any order of commands, weather, crashes and restarts on both sides.

The checks are World's: after every event, that no lease has two workers in all its life, that no worker runs without a
lease, that the journal holds exactly what stands, that of a gang all stand or none, and that all outputs pair up; at
the end, that nothing is left once no message comes through.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, rule

from swarmp2p.engine import PeerDown
from swarmp2p.identity import PeerId
from swarmp2p.ray_bridge.events import (
    Doubt,
    EndLease,
    Lend,
    Need,
    Offer,
    Revoke,
    StopLending,
    TakeBack,
)
from swarmp2p.ray_bridge.lease import LeaseConfig

from .keys import VERSIONS, peer
from .world import Weather, World

LENDERS = (peer(1), peer(2))
BORROWERS = (peer(3), peer(4))
PEERS = (*LENDERS, *BORROWERS)
TERMS = Lend(Offer(cpus=3, max_leases=3), VERSIONS, frozenset(BORROWERS))
LESS = Lend(Offer(cpus=1, max_leases=1), VERSIONS, frozenset(BORROWERS[:1]))

lenders, borrowers, peers = st.sampled_from(LENDERS), st.sampled_from(BORROWERS), st.sampled_from(PEERS)
weathers = st.builds(
    Weather,
    loss=st.sampled_from((0.0, 0.0, 0.3, 1.0)),
    copies=st.sampled_from((0.0, 0.5)),
    delay_s=st.sampled_from(((0.0, 0.0), (0.01, 0.05), (0.0, 3.0), (0.0, 15.0))),
    tells_down=st.sampled_from((0.0, 1.0)),
    flaps=st.sampled_from((0.0, 0.1)),
    trouble=st.sampled_from((0.0, 0.3)),
)


class LeaseMachine(RuleBasedStateMachine):
    """Two lenders and two borrowers. gangs: those that were asked for and not committed."""

    gangs: Bundle[tuple[PeerId, bytes]] = Bundle("gangs")
    world: World

    @initialize(
        seed=st.integers(0, 2**32), lease_s=st.sampled_from((2.0, 30.0)), kept=st.sampled_from((1, 1024))
    )
    def begin(self, seed: int, lease_s: float, kept: int) -> None:
        self.world = World(seed, Weather(), LeaseConfig(lease_s=lease_s, max_finished=kept))
        for lender in LENDERS:
            self.world.add(lender, TERMS)
        for borrower in BORROWERS:
            self.world.add(borrower)

    @rule(
        borrower=borrowers,
        lender=lenders,
        cpus=st.sampled_from((1, 3)),
        queue_s=st.sampled_from((0.0, 2.0, 60.0)),
    )
    def ask(self, borrower: PeerId, lender: PeerId, cpus: int, queue_s: float) -> None:
        if self.world.nodes[borrower].up:
            self.world.request(borrower, lender, Need(cpus=cpus), queue_s=queue_s)

    @rule(
        target=gangs,
        borrower=borrowers,
        of=st.lists(lenders, min_size=1, max_size=3),
        gang=st.binary(min_size=16, max_size=16),
        queue_s=st.sampled_from((0.0, 20.0)),
    )
    def ask_for_gang(
        self, borrower: PeerId, of: list[PeerId], gang: bytes, queue_s: float
    ) -> tuple[PeerId, bytes]:
        for lender in of if self.world.nodes[borrower].up else ():
            self.world.request(borrower, lender, gang=gang, queue_s=queue_s)
        return borrower, gang

    @rule(gang=consumes(gangs))
    def commit(self, gang: tuple[PeerId, bytes]) -> None:
        self.world.commit(*gang)

    @rule(gang=gangs)
    def commit_more_than_once(self, gang: tuple[PeerId, bytes]) -> None:
        self.world.commit(*gang)

    @rule(one=peers, which=st.integers(0, 9))
    def end(self, one: PeerId, which: int) -> None:
        standing = sorted(self.world.nodes[one].engine.states())
        if self.world.nodes[one].up and standing:
            self.world.feed(one, EndLease(standing[which % len(standing)], "as it pleases"))

    @rule(lender=lenders, which=st.none() | st.integers(0, 9), notice_s=st.sampled_from((0.0, 1.0, 20.0)))
    def take_back(self, lender: PeerId, which: int | None, notice_s: float) -> None:
        standing = sorted(self.world.nodes[lender].engine.states())
        lease = None if which is None or not standing else standing[which % len(standing)]
        self.world.feed(lender, TakeBack(lease, notice_s, "the owner is back"))

    @rule(lender=lenders, borrower=borrowers)
    def revoke(self, lender: PeerId, borrower: PeerId) -> None:
        self.world.feed(lender, Revoke(borrowers=frozenset({borrower})))

    @rule(lender=lenders, terms=st.sampled_from((TERMS, TERMS, LESS, None)))
    def change_terms(self, lender: PeerId, terms: Lend | None) -> None:
        node = self.world.nodes[lender]
        if node.up:
            node.ledger.lend = TERMS  # leases that stand are kept, whatever is lent now
            self.world.feed(lender, terms or StopLending())

    @rule(one=peers)
    def crash(self, one: PeerId) -> None:
        if self.world.nodes[one].up:
            self.world.crash(one)

    @rule(one=peers, resume=st.sampled_from((True, True, False, None)))
    def restart(self, one: PeerId, resume: bool | None) -> None:
        if not self.world.nodes[one].up:
            self.world.restart(one, resume)

    @rule(one=peers, other=peers)
    def doubt(self, one: PeerId, other: PeerId) -> None:
        if one != other:
            self.world.feed(one, Doubt(other))
            self.world.feed(one, PeerDown(other))

    @rule(weather=weathers)
    def change_weather(self, weather: Weather) -> None:
        self.world.weather = weather

    @rule(seconds=st.sampled_from((0.02, 0.3, 1.0, 1.0, 5.0, 5.0, 30.0)))
    def wait(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()


LeaseMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestLeaseMachine = LeaseMachine.TestCase
