"""All or nothing: gangs at their borrower, what lenders hold for them, and two that are after the same machines."""

from __future__ import annotations

from random import Random

from swarmp2p.engine import PeerDown, Received, Tick
from swarmp2p.identity import PeerId
from swarmp2p.ray_bridge.events import (
    CommitGang,
    EndLease,
    LeaseEnded,
    LeaseHeld,
    LeaseRefusal,
    Lend,
    Need,
    Offer,
    RequestLease,
    WorkerFailed,
)
from swarmp2p.ray_bridge.gangs import GangPause
from swarmp2p.ray_bridge.lease import GivenState, TakenState
from swarmp2p.ray_bridge.messages import Challenge, LeaseRequest, Proof

from .keys import SECRET, VERSIONS, lease_id, peer
from .two import borrower, lender, sent, told
from .world import Weather, World

GANG = b"g" * 16
LENDERS = tuple(peer(number) for number in range(10, 16))
ALICE, BOB = peer(3), peer(4)
TERMS = Lend(Offer(cpus=1, max_leases=1), VERSIONS, None)


def request(number: int) -> LeaseRequest:
    return LeaseRequest(lease_id(number), Need(), VERSIONS, "c", GANG)


def asking(number: int, provider: PeerId) -> RequestLease:
    return RequestLease(lease_id(number), provider, Need(), VERSIONS, SECRET, "c", GANG)


def world_of(lenders: int, *borrowers: PeerId, weather: Weather | None = None, seed: int = 1) -> World:
    world = World(seed, weather or Weather())
    for one in LENDERS[:lenders]:
        world.add(one, TERMS)
    for one in borrowers:
        world.add(one)
    return world


def kinds(world: World, who: PeerId) -> list[str]:
    """What a borrower was told, in order, without the journal."""
    skip = ("Journal", "OpenPath", "ClosePath")
    return [
        type(output).__name__
        for _, peer_, output in world.log
        if peer_ == who and type(output).__name__ not in skip
    ]


def test_no_proof_leaves_before_the_gang_is_committed() -> None:
    engine = borrower()
    for number in (1, 2):
        engine.handle(asking(number, LENDERS[number]), 0.0)
        outputs = engine.handle(Received(LENDERS[number], Challenge(lease_id(number), bytes(32))), 0.1)
        assert told(outputs) == [LeaseHeld(lease_id(number), LENDERS[number])]
        assert sent(outputs) == []
    assert set(engine.states().values()) == {TakenState.HELD}
    outputs = engine.handle(CommitGang(GANG), 1.0)
    assert [type(message) for message in sent(outputs)] == [Proof, Proof]
    assert engine.handle(CommitGang(GANG), 1.0) == [], "once"
    (late,) = told(engine.handle(asking(3, LENDERS[3]), 1.0))
    assert isinstance(late, LeaseRefusal)
    assert "complete already" in late.reason


def test_all_of_a_gang_or_none() -> None:
    world = world_of(3, ALICE)
    for one in LENDERS[:3]:
        world.request(ALICE, one, gang=GANG)
    world.run(1.0)
    assert kinds(world, ALICE) == ["LeaseHeld"] * 3
    world.commit(ALICE, GANG)
    world.run(20.0)
    assert kinds(world, ALICE)[3:] == ["LeaseGranted"] * 3 + ["LeaseActive"] * 3
    assert [record.gang for record in world.nodes[ALICE].journal.values()] == [b""] * 3, (
        "by itself from now on"
    )
    leases = list(world.nodes[ALICE].engine.states())
    world.feed(ALICE, EndLease(leases[0], "enough"))
    world.run(30.0)
    assert len(world.nodes[ALICE].engine.states()) == 2, "once all were active, each goes on by itself"


def test_one_that_fails_before_all_are_active_ends_all() -> None:
    world = world_of(3, ALICE)
    leases = [world.request(ALICE, one, gang=GANG) for one in LENDERS[:3]]
    world.run(1.0)
    world.commit(ALICE, GANG)
    world.run(1.5)
    world.feed(LENDERS[1], WorkerFailed(leases[1], "no memory"))
    world.run(2.0)
    ends = [output for _, who, output in world.log if who == ALICE and isinstance(output, LeaseEnded)]
    assert len(ends) == 3
    assert "another of its gang ended: the lender ended it: the worker failed: no memory" in ends[1].reason
    assert all(not world.nodes[one].engine.states() for one in LENDERS[:3])


def test_who_was_asked_to_spare_is_let_go_at_the_commit() -> None:
    world = world_of(4, ALICE)
    for one in LENDERS[:3]:
        world.request(ALICE, one, gang=GANG)
    world.run(1.0)
    world.crash(LENDERS[3])
    spare = world.request(ALICE, LENDERS[3], gang=GANG)
    world.commit(ALICE, GANG)
    (refusal,) = [output for _, output in world.outputs(ALICE, spare)]
    assert isinstance(refusal, LeaseRefusal)
    assert refusal.reason == "its gang was complete without it"
    world.run(20.0)
    assert kinds(world, ALICE).count("LeaseActive") == 3


def test_before_the_commit_one_that_refuses_does_not_concern_the_others() -> None:
    world = world_of(3, ALICE, BOB)
    world.request(BOB, LENDERS[0])
    world.run(10.0)
    for one in LENDERS[:3]:
        world.request(ALICE, one, gang=GANG)
    world.run(11.0)
    assert sorted(kinds(world, ALICE)) == ["LeaseHeld", "LeaseHeld", "LeaseRefusal"]


def test_what_is_not_committed_is_let_go_by_both_sides() -> None:
    world = world_of(2, ALICE)
    leases = [world.request(ALICE, one, gang=GANG) for one in LENDERS[:2]]
    world.run(7.9)
    assert len(world.nodes[ALICE].engine.states()) == 2
    world.run(8.2)
    for lease in leases:
        last = world.outputs(ALICE, lease)[-1][1]
        assert isinstance(last, LeaseRefusal)
        assert last.reason == "its gang did not come together within 8 s"
    assert all(not world.nodes[one].engine.states() for one in LENDERS[:2])


def test_a_hold_is_no_longer_for_being_asked_again() -> None:
    engine = lender(Offer(cpus=1))
    for now in range(10):
        engine.handle(Received(ALICE, request(1)), float(now))
    assert engine.states() == {lease_id(1): GivenState.CHALLENGED}
    engine.handle(Tick(), 10.0)
    assert engine.states() == {}


def test_a_lender_that_is_lost_while_it_holds_is_found_out() -> None:
    world = world_of(2, ALICE, weather=Weather(delay_s=(0.01, 0.02)))
    leases = [world.request(ALICE, one, gang=GANG) for one in LENDERS[:2]]
    world.run(1.0)
    world.crash(LENDERS[0])
    world.run(4.0)
    assert isinstance(world.outputs(ALICE, leases[0])[-1][1], LeaseRefusal)
    assert world.nodes[ALICE].engine.states() == {leases[1]: TakenState.HELD}


def test_a_lender_whose_connection_broke_goes_on_holding() -> None:
    world = world_of(1, ALICE)
    world.request(ALICE, LENDERS[0], gang=GANG)
    world.run(1.0)
    for _ in range(5):
        world.feed(ALICE, PeerDown(LENDERS[0]))
        world.run(world.now + 0.5)
    world.commit(ALICE, GANG)
    world.run(20.0)
    assert kinds(world, ALICE)[-1] == "LeaseActive"


def test_half_a_gang_does_not_come_back_after_a_restart() -> None:
    world = world_of(2, ALICE)
    for one in LENDERS[:2]:
        world.request(ALICE, one, gang=GANG)
    world.run(1.0)
    world.commit(ALICE, GANG)
    world.run(1.5)
    assert set(world.nodes[ALICE].engine.states().values()) == {TakenState.STARTING}
    world.crash(ALICE)
    world.restart(ALICE, resume=True)
    assert world.nodes[ALICE].engine.states() == {}
    world.run(2.0)
    assert all(not world.nodes[one].engine.states() for one in LENDERS[:2])


def compete(seed: int, borrowers: int, lenders: int, size: int) -> tuple[float, int]:
    """Borrowers that each want `size` of the same lenders, all at once; each gives its gang back a second after it is
    whole. Returns when the last one had its own, and how many attempts all needed."""
    world = World(seed, Weather(delay_s=(0.01, 0.1)))
    for one in LENDERS[:lenders]:
        world.add(one, TERMS)
    rng, attempts = Random(seed), 0
    pauses = {peer(30 + number): GangPause(Random(seed * 100 + number)) for number in range(borrowers)}
    begins = dict.fromkeys(pauses, 0.0)
    trying: dict[PeerId, tuple[bytes, list[bytes]]] = {}
    for one in pauses:
        world.add(one)
    left = dict.fromkeys(pauses)
    while left and world.now < 1000.0:
        world.run(world.now + 0.05)
        for one in list(left):
            ledger = world.nodes[one].ledger
            if one not in trying and world.now >= begins[one]:
                attempts += 1
                gang = rng.randbytes(16)
                chosen = rng.sample(LENDERS[:lenders], size)
                trying[one] = gang, [world.request(one, lender, gang=gang) for lender in chosen]
            if one not in trying:
                continue
            gang, leases = trying[one]
            if any(lease in ledger.refused | ledger.ended for lease in leases):
                for lease in leases:
                    world.feed(one, EndLease(lease, "its gang does not come together"))
                del trying[one]
                begins[one] = world.now + pauses[one].next_s()
            elif ledger.active.issuperset(leases):
                for lease in leases:
                    world.feed(one, EndLease(lease, "done"))
                del left[one]
            elif ledger.held.keys() >= set(leases):
                world.commit(one, gang)
    assert not left, f"seed {seed}: {len(left)} gangs never came together"
    return world.now, attempts


def test_gangs_after_the_same_machines_all_come_together() -> None:
    """Two that want all four of four lenders, and five that want three of five: neither blocks the other for good."""
    for seed in range(8):
        ended, _ = compete(seed, borrowers=2, lenders=4, size=4)
        assert ended < 60.0
        ended, _ = compete(seed, borrowers=5, lenders=5, size=3)
        assert ended < 200.0


def test_pauses_grow_to_a_bound() -> None:
    pause = GangPause(Random(1))
    pauses = [pause.next_s() for _ in range(200)]
    assert max(pauses[:1]) <= 0.5
    assert max(pauses) <= 16.0
    assert max(pauses) > 15.0
