"""Who wastes what is set aside for it: how long it keeps others from a machine, and that it shuts nobody out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.engine import Received, Send, Tick
from swarmp2p.identity import PeerId
from swarmp2p.ray_bridge.auth import make_proof
from swarmp2p.ray_bridge.events import (
    EndLease,
    LeaseActive,
    LeaseEnded,
    LeaseGranted,
    LeaseRefusal,
    Lend,
    Need,
    Offer,
)
from swarmp2p.ray_bridge.lease import LeaseConfig, Leases
from swarmp2p.ray_bridge.messages import FORM, Challenge, LeaseRequest, Proof, Refuse, Release, Renew
from swarmp2p.ray_bridge.waste import Waste

from . import granted
from .keys import SECRET, VERSIONS, cheap_keys, lease_id, peer, real_identity
from .two import LENDER, sent
from .world import Weather, World

MALLORY, ALICE, BOB = peer(3), peer(4), peer(5)
CONFIG = LeaseConfig(lease_s=60.0)
GANG = b"g" * 16
STEP_S = 0.5


def bound_s(config: LeaseConfig, of_s: float) -> float:
    """What waste.py promises, beside the coarseness of the probes here."""
    return config.waste_s + config.hold_s + of_s * config.waste_forgotten + 2 * STEP_S


# The table ----------------------------------------------------------------------------------------------------


def test_one_lost_proof_is_forgiven_and_two_are_not() -> None:
    waste = Waste(CONFIG)
    waste.charge(ALICE, 0.0, CONFIG.challenge_timeout_s)
    assert waste.trusts(ALICE, 5.0, 5.0)
    waste.charge(ALICE, 5.0, 10.0)
    assert not waste.trusts(ALICE, 10.0, 10.0)
    assert waste.trusts(BOB, 10.0, 10.0)
    assert waste.trusts(ALICE, 60.0, 60.0)


def test_however_much_was_wasted_it_is_forgiven_within_five_minutes() -> None:
    waste = Waste(CONFIG)
    for _ in range(100):
        waste.charge(ALICE, 0.0, 10.0)
    assert not waste.trusts(ALICE, 297.0, 297.0)
    assert waste.trusts(ALICE, 299.0, 299.0)


def test_accounts_are_bounded() -> None:
    waste = Waste(replace(CONFIG, max_strangers=2))
    for number in range(3, 9):
        waste.charge(peer(number), 0.0, 10.0)
    assert len(waste) == 2
    assert waste.trusts(peer(6), 10.0, 10.0)
    assert not waste.trusts(peer(8), 10.0, 10.0)


# How long room is kept ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Attacked:
    """A lender, whom attackers ask again and again, and a peer of another account that tries whether there is room."""

    engine: Leases
    asking: list[PeerId]
    fair: PeerId
    fair_cpus: float = 1
    now: float = granted.NOW
    kept_s: float = 0.0
    asked: int = 0
    open: dict[bytes, tuple[PeerId, float]] = field(default_factory=dict)

    def ask(self, who: PeerId, need: Need, gang: bytes = b"", grants: tuple[bytes, ...] = ()) -> bool:
        """Ask, and never prove. Returns whether a challenge came."""
        self.asked += 1
        asked = LeaseRequest(lease_id(self.asked), need, VERSIONS, "c", gang, grants, form=FORM)
        answers = sent(self.engine.handle(Received(who, asked), self.now))
        if isinstance(answers[0], Challenge):
            self.open[asked.lease] = who, self.now
            return True
        return False

    def release(self, after_s: float, renews: bool = False) -> None:
        """Take back what was asked for so long ago, or say that it is a lease."""
        for lease, (who, since) in list(self.open.items()):
            if self.now - since >= after_s:
                del self.open[lease]
                ends = Renew(lease, 1) if renews else Release(lease, "no more")
                self.engine.handle(Received(who, ends), self.now)

    def step(self) -> None:
        """See whether there is room; then time passes."""
        if self.ask(self.fair, Need(cpus=self.fair_cpus)):
            self.release_fair()
        else:
            self.kept_s += STEP_S
        self.now += STEP_S
        self.engine.handle(Tick(), self.now)

    def release_fair(self) -> None:
        lease, _ = self.open.popitem()
        self.engine.handle(Received(self.fair, Release(lease, "it was a try")), self.now)


def attacked() -> Attacked:
    engine = Leases(LENDER, cheap_keys(LENDER), Random(1), CONFIG)
    engine.handle(Lend(Offer(cpus=4, max_leases=8), VERSIONS, frozenset({MALLORY, ALICE, BOB})), granted.NOW)
    return Attacked(engine, [MALLORY], BOB)


@pytest.mark.parametrize("renews", [False, True])
@pytest.mark.parametrize(
    ("after_s", "gang", "cpus"),
    [
        (0.5, b"", 4),
        (4.5, b"", 4),
        (60.0, b"", 4),
        (60.0, b"", 2),
        (0.5, GANG, 4),
        (9.5, GANG, 4),
        (60.0, GANG, 2),
    ],
)
def test_who_asks_again_and_again_keeps_room_a_twelfth_of_the_time(
    after_s: float, gang: bytes, cpus: float, renews: bool
) -> None:
    """By letting reservations run out, or ending them before; all of the machine, or bit by bit."""
    one, seconds = attacked(), 400.0
    while one.now < granted.NOW + seconds:
        one.release(after_s, renews)
        for _ in range(2):
            one.ask(MALLORY, Need(cpus=cpus), gang)
        one.step()
    assert one.kept_s <= bound_s(CONFIG, seconds)
    assert one.kept_s > 1.0, "it was an attack"


def test_the_next_is_not_kept_because_the_one_before_is_not_over_yet() -> None:
    """Half of the machine, and then the other half: who needs more than a half finds no room all the while."""
    one = attacked()
    one.fair_cpus, seconds = 3, 22.0
    while one.now < granted.NOW + seconds:
        if (one.now - granted.NOW) % 9.5 == 0.0:
            one.ask(MALLORY, Need(cpus=2), GANG)
        one.step()
    assert one.kept_s <= bound_s(CONFIG, seconds)


def test_a_grant_that_ends_before_the_proof_wastes_as_well() -> None:
    """ALICE passes her grant on to herself, until just then."""
    engine, other, now = granted.lender(max_leases=1), granted.BOB, granted.NOW
    fair = granted.grant(other).envelopes
    one, kept_s = Attacked(engine, [], other.peer_id), 0.0
    for number in range(60):
        terms = replace(granted.TERMS, expires=now + 5.0)
        chain = granted.grant().narrow(granted.ALICE, granted.ALICE.peer_id, terms, now)
        asked = granted.request(1000 + number, chain)
        challenge = granted.answers(granted.send(engine, granted.ALICE.peer_id, asked, now))[0]
        assert isinstance(challenge, Challenge)
        now = one.now = now + 4.5
        if not one.ask(other.peer_id, Need(), grants=fair):
            kept_s += 4.5
        else:
            one.release_fair()
        late = granted.prove(granted.ALICE, asked, challenge.nonce, now)
        assert isinstance(granted.answers(granted.send(engine, granted.ALICE.peer_id, late, now))[0], Refuse)
    assert 4.5 <= kept_s <= bound_s(CONFIG, now - granted.NOW)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 2, 4]),
            st.booleans(),
            st.one_of(st.none(), st.floats(0.0, 10.0)),
            st.integers(1, 20),
        ),
        max_size=30,
    )
)
def test_whatever_one_account_does_it_keeps_no_more(
    moves: list[tuple[float, bool, float | None, int]],
) -> None:
    one = attacked()
    for cpus, gang, after_s, steps in moves:
        if after_s is not None:
            one.release(after_s)
        one.ask(MALLORY, Need(cpus=cpus), GANG if gang else b"")
        for _ in range(steps):
            one.step()
    assert one.kept_s <= bound_s(CONFIG, one.now - granted.NOW)


def test_many_keys_under_one_grant_have_one_account() -> None:
    """ALICE passes her grant on to a new key for every attempt; OTHER has one of the same owner."""
    engine, other = granted.lender(max_leases=1), granted.BOB
    mine = granted.grant()
    keys = [real_identity(number).peer_id for number in range(20, 60)]
    chains = {key: mine.narrow(granted.ALICE, key, granted.TERMS, granted.NOW).envelopes for key in keys}
    fair = granted.grant(other).envelopes
    one, seconds, number = Attacked(engine, keys, other.peer_id), 300.0, 0
    while one.now < granted.NOW + seconds:
        for _ in range(2):
            number += 1
            key = keys[number % len(keys)]
            one.ask(key, Need(), GANG, chains[key])
        if one.ask(other.peer_id, Need(), grants=fair):
            one.release_fair()
        else:
            one.kept_s += STEP_S
        one.now += STEP_S
        engine.handle(Tick(), one.now)
    assert one.kept_s <= bound_s(CONFIG, seconds)


# Who is shut out ----------------------------------------------------------------------------------------------


def spoiled(borrower: PeerId = ALICE) -> Leases:
    """A lender of one CPU, at which this borrower has wasted a lot."""
    engine = Leases(LENDER, cheap_keys(LENDER), Random(1), CONFIG)
    engine.handle(Lend(Offer(cpus=1), VERSIONS, frozenset({ALICE, BOB})), 0.0)
    for number in (101, 102):
        engine.handle(Received(borrower, asking(number)), (number - 101) * 5.0)
        engine.handle(Tick(), (number - 100) * 5.0)
    assert engine.states() == {}
    return engine


def asking(number: int, gang: bytes = b"", queue_s: float = 0.0) -> LeaseRequest:
    return LeaseRequest(lease_id(number), Need(), VERSIONS, "c", gang, queue_s=queue_s)


def challenge(engine: Leases, who: PeerId, asked: LeaseRequest, now: float) -> Challenge:
    answer = sent(engine.handle(Received(who, asked), now))[0]
    assert isinstance(answer, Challenge), answer
    return answer


def proof(who: PeerId, asked: LeaseRequest, nonce: bytes, now: float) -> Proof:
    return Proof(asked.lease, make_proof(cheap_keys(who), asked, nonce, LENDER, who, SECRET, now + 5.0))


def proven(engine: Leases, who: PeerId, asked: LeaseRequest, nonce: bytes, now: float) -> bool:
    outputs = engine.handle(Received(who, proof(who, asked, nonce, now)), now)
    return any(isinstance(output, LeaseGranted) for output in outputs)


def test_who_wasted_has_what_is_free_when_its_proof_comes() -> None:
    engine, asked = spoiled(), asking(1)
    nonce = challenge(engine, ALICE, asked, 10.0).nonce
    assert proven(engine, ALICE, asked, nonce, 14.0)


def test_nothing_is_kept_for_who_wasted() -> None:
    engine, late, soon = spoiled(), asking(1), asking(2)
    nonces = challenge(engine, ALICE, late, 10.0).nonce, challenge(engine, BOB, soon, 11.0).nonce
    assert proven(engine, BOB, soon, nonces[1], 12.0)
    (refusal,) = sent(engine.handle(Received(ALICE, proof(ALICE, late, nonces[0], 13.0)), 13.0))
    assert isinstance(refusal, Refuse)
    assert refusal.retry_after_s == 5.0


def test_what_is_kept_for_another_later_on_does_not_count_against_it() -> None:
    engine, asked, later = spoiled(), asking(1), asking(2)
    nonces = challenge(engine, ALICE, asked, 10.0).nonce, challenge(engine, BOB, later, 11.0).nonce
    assert proven(engine, ALICE, asked, nonces[0], 12.0)
    assert isinstance(sent(engine.handle(Received(BOB, proof(BOB, later, nonces[1], 13.0)), 13.0))[0], Refuse)


def test_in_a_queue_it_has_its_turn_and_so_has_the_next() -> None:
    engine = spoiled()
    held = asking(1)
    nonce = challenge(engine, BOB, held, 10.0).nonce
    assert proven(engine, BOB, held, nonce, 10.0)
    for number, who in ((2, ALICE), (3, BOB)):
        engine.handle(Received(who, asking(number, queue_s=60.0)), 11.0)
    outputs = engine.handle(Received(BOB, Release(held.lease, "done")), 12.0)
    challenged = [out.to for out in outputs if isinstance(out, Send) and isinstance(out.message, Challenge)]
    assert challenged == [ALICE, BOB]


def test_a_flood_of_reservations_that_keep_nothing_is_bounded_and_shuts_nobody_out() -> None:
    engine = Leases(LENDER, cheap_keys(LENDER), Random(1), CONFIG)
    engine.handle(Lend(Offer(cpus=1), VERSIONS, None), 0.0)
    for number in (1, 2):
        engine.handle(Received(peer(100 + number), asking(number)), (number - 1) * 5.0)
        engine.handle(Tick(), number * 5.0)
    told: list[PeerId] = []
    for number in range(80):
        outputs = engine.handle(Received(peer(20 + number), asking(1000 + number)), 10.0)
        told += [out.to for out in outputs if isinstance(out, Send) and isinstance(out.message, Refuse)]
        assert len(engine.states()) <= CONFIG.max_half_open
    assert told == [peer(20 + number) for number in range(16)], "the oldest goes, and is told"
    asked = asking(5000)
    nonce = challenge(engine, ALICE, asked, 10.0).nonce
    assert proven(engine, ALICE, asked, nonce, 10.2)


# The simulator ------------------------------------------------------------------------------------------------


def hammered(seed: int, loss: float, gang: bytes) -> World:
    """Forty strangers ask a lender of one lease for it, two every second, and never answer. All strangers have one
    account, also who is fair."""
    world = World(seed, Weather(loss=loss, copies=0.1, delay_s=(0.01, 0.3), tells_down=0.0))
    world.add(LENDER, Lend(Offer(cpus=1, max_leases=1), VERSIONS, None))
    attackers = [peer(number) for number in range(50, 90)]
    for one in attackers:
        world.add_mute(one)
    world.add(ALICE)
    for number in range(400):
        who = attackers[number % len(attackers)]
        asked = LeaseRequest(world.rng.randbytes(16), Need(), VERSIONS, "c", gang, queue_s=600.0)
        world.say_later(number * 0.5, who, LENDER, asked)
    return world


@pytest.mark.parametrize("gang", [b"", GANG])
def test_a_fair_borrower_among_forty_that_waste_gets_its_lease(gang: bytes) -> None:
    """Though it shares their account and a tenth of its messages are lost: within 35 s of their first attempt, and
    within 5 s once they are known, for each seed."""
    for seed in range(6):
        world = hammered(seed, 0.1, gang)
        waited: list[float] = []
        for began in (1.0, 60.0, 100.0):
            world.run(began)
            while True:
                lease = world.request(ALICE, LENDER, queue_s=30.0)
                while not world.nodes[ALICE].ledger.active.issuperset({lease}):
                    world.run(world.now + 0.25)
                    if lease in world.nodes[ALICE].ledger.refused:
                        break
                else:
                    break
            waited.append(
                next(at for at, out in world.outputs(ALICE, lease) if isinstance(out, LeaseGranted)) - began
            )
            world.feed(ALICE, EndLease(lease, "done"))
        assert waited[0] <= 35.0
        assert max(waited[1:]) <= 5.0
        world.run(300.0)


def test_a_borrower_behind_a_bad_network_is_not_shut_out() -> None:
    """With every third message lost, and the lender's only worker to be had: sixty leases, one after the other."""
    world = World(1, Weather(loss=0.33, copies=0.1, delay_s=(0.05, 0.6), tells_down=0.0))
    world.add(LENDER, Lend(Offer(cpus=1, max_leases=1), VERSIONS, None))
    world.add(ALICE)
    refused = 0
    for _ in range(60):
        lease = world.request(ALICE, LENDER)
        world.run(world.now + 30.0)
        outputs = [output for _, output in world.outputs(ALICE, lease)]
        refused += isinstance(outputs[-1], LeaseRefusal)
        assert any(isinstance(output, LeaseActive | LeaseEnded | LeaseRefusal) for output in outputs)
        world.feed(ALICE, EndLease(lease, "done"))
        world.run(world.now + 70.0)  # a lost farewell costs a term
    assert refused <= 3
