"""Lease engines against each other: a bad network, failing workers, crashes and restarts, thousands of seconds.

World checks after every event that no lease is given twice, that no worker runs without a lease, and that all
outputs pair up; `settle` that no lease is without an end. A failing case prints its seed.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swarmp2p.engine import PeerDown
from swarmp2p.ray_bridge.events import (
    EndLease,
    LeaseActive,
    LeaseEnded,
    LeaseRefusal,
    Lend,
    Need,
    Offer,
    Revoke,
    StartWorker,
    StopLending,
    StopWorker,
    TakeBack,
)
from swarmp2p.ray_bridge.lease import LeaseConfig

from .keys import VERSIONS, peer
from .world import Weather, World

LENDERS = (peer(1), peer(2))
BORROWERS = (peer(3), peer(4))
OUTSIDER = peer(5)
TERMS = Lend(Offer(cpus=2, max_leases=2), VERSIONS, frozenset(BORROWERS))
STORM = Weather(loss=0.2, copies=0.3, delay_s=(0.001, 0.8), tells_down=0.5, flaps=0.02, trouble=0.3)


def storm(seed: int, weather: Weather, config: LeaseConfig, length_s: float = 300.0) -> World:
    """Two lenders, two borrowers, one peer that is not allowed, and random commands, crashes and restarts."""
    world = World(seed, weather, config)
    chance = Random(f"storm {seed}")
    for lender in LENDERS:
        world.add(lender, TERMS)
    for borrower in (*BORROWERS, OUTSIDER):
        world.add(borrower)
    while world.now < length_s:
        world.run(world.now + chance.expovariate(0.5))
        node = chance.choice((*LENDERS, *BORROWERS))
        standing = sorted(world.nodes[node].engine.states())
        match chance.randrange(14):
            case 0 | 1 | 2 | 3:
                borrower = chance.choice((*BORROWERS, OUTSIDER))
                need = Need(cpus=chance.choice((0.5, 1, 2)))
                if world.nodes[borrower].up:
                    queue_s = chance.choice((0.0, 0.0, 20.0))
                    world.request(borrower, chance.choice(LENDERS), need, queue_s=queue_s)
            case 10 | 11:
                borrower, gang = chance.choice(BORROWERS), chance.randbytes(16)
                if world.nodes[borrower].up:
                    for _ in range(chance.choice((2, 2, 3))):
                        world.request(borrower, chance.choice(LENDERS), Need(cpus=0.5), gang)
                    world.commit_later(borrower, gang, chance.uniform(0.0, 6.0))
            case 12 if world.nodes[node].up and standing:
                world.feed(
                    node, TakeBack(chance.choice((*standing, None)), chance.choice((0.0, 8.0)), "back")
                )
            case 13 if node in LENDERS and chance.random() < 0.3:
                world.feed(node, Revoke(borrowers=frozenset({chance.choice(BORROWERS)})))
                world.feed(node, TERMS)
            case 4 if world.nodes[node].up and standing:
                world.feed(node, EndLease(chance.choice(standing), "as it pleases"))
            case 5 if world.nodes[node].up:
                world.crash(node)
            case 6 | 7 | 8 if not world.nodes[node].up:
                world.restart(node, chance.choice((True, True, False, None)))
            case 9 if node in LENDERS and chance.random() < 0.2:
                world.feed(node, StopLending())
                world.feed(node, TERMS)
            case _:
                pass
    return world


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**32),
    st.builds(
        Weather,
        loss=st.sampled_from((0.0, 0.05, 0.4)),
        copies=st.sampled_from((0.0, 0.3, 1.0)),
        delay_s=st.sampled_from(((0.0, 0.0), (0.01, 0.05), (0.0, 3.0), (0.0, 20.0))),
        tells_down=st.sampled_from((0.0, 0.5, 1.0)),
        flaps=st.sampled_from((0.0, 0.1)),
        trouble=st.sampled_from((0.0, 0.3)),
    ),
    st.builds(LeaseConfig, lease_s=st.sampled_from((2.0, 30.0)), max_finished=st.sampled_from((1, 1024))),
)
@example(1, STORM, LeaseConfig(lease_s=30.0))
def test_whatever_happens_every_lease_ends_once_and_no_worker_outlives_it(
    seed: int, weather: Weather, config: LeaseConfig
) -> None:
    storm(seed, weather, config).settle()


def test_the_storm_is_one_in_which_things_happen() -> None:
    kinds: dict[str, int] = {}
    for seed in range(5):
        world = storm(seed, STORM, LeaseConfig(lease_s=30.0))
        for _, _, output in world.log:
            kinds[type(output).__name__] = kinds.get(type(output).__name__, 0) + 1
    for kind in ("StartWorker", "StopWorker", "LeaseActive", "LeaseEnded", "LeaseRefusal", "Journal"):
        assert kinds[kind] >= 20, kinds
    for kind in ("LeaseHeld", "LeaseQueued", "LeaseNotice"):
        assert kinds[kind] >= 5, kinds


def test_an_outsider_never_gets_a_worker() -> None:
    for seed in range(5):
        world = storm(seed, STORM, LeaseConfig(lease_s=30.0))
        outsiders = [output for _, who, output in world.log if who == OUTSIDER]
        assert outsiders
        assert {type(output) for output in outsiders} == {LeaseRefusal}


def test_the_same_seed_gives_the_same_history() -> None:
    config = LeaseConfig(lease_s=30.0)
    assert storm(3, STORM, config).log == storm(3, STORM, config).log
    assert storm(3, STORM, config).log != storm(4, STORM, config).log


def test_no_release_answers_a_release() -> None:
    world = storm(2, Weather(copies=1.0, delay_s=(0.0, 0.5), flaps=0.05), LeaseConfig(lease_s=30.0))
    world.run(world.now + 200)
    before = world.releases
    world.run(world.now + 200)  # nobody asks for anything: whatever stands is renewed in peace
    assert world.releases - before < 40


def active_pair(seed: int, weather: Weather) -> tuple[World, bytes]:
    """A lease that is active on both sides."""
    world = World(seed, weather)
    world.add(LENDERS[0], TERMS)
    world.add(BORROWERS[0])
    lease = world.request(BORROWERS[0], LENDERS[0])
    world.run(20.0)
    for side in (BORROWERS[0], LENDERS[0]):
        assert [type(output) for _, output in world.outputs(side, lease)][-1] is LeaseActive
    return world, lease


def end_of(world: World, lease: bytes, side: bytes, since: float) -> float:
    """Seconds from `since` to the lease's end on one side."""
    return next(
        at - since
        for at, who, output in world.log
        if who == side and isinstance(output, LeaseEnded) and output.lease == lease
    )


def test_a_lease_lasts_while_messages_come_through() -> None:
    """One message in fifty lost, some doubled and late: ten minutes without a false end, for twenty seeds."""
    for seed in range(20):
        world, lease = active_pair(seed, Weather(loss=0.02, copies=0.1, delay_s=(0.01, 0.2)))
        world.run(600.0)
        assert not [
            output for _, output in world.outputs(BORROWERS[0], lease) if isinstance(output, LeaseEnded)
        ]


def test_a_lender_killed_without_a_word_is_noticed_within_two_to_three_seconds() -> None:
    times: list[float] = []
    for seed in range(100):
        world, lease = active_pair(seed, Weather(delay_s=(0.01, 0.05), tells_down=0.0))
        world.run(20.0 + seed / 50)
        world.crash(LENDERS[0])
        since = world.now
        world.run(since + 10)
        times.append(end_of(world, lease, BORROWERS[0], since))
    assert min(times) >= 1.8
    assert max(times) <= 3.1  # 3.0 after the last answer, which may have been under way
    assert max(times) - min(times) > 0.8  # kills at every moment between two renewals


def test_a_lender_killed_while_tcp_tells_is_noticed_at_once() -> None:
    for seed in range(20):
        world, lease = active_pair(seed, Weather(delay_s=(0.01, 0.05)))
        world.crash(LENDERS[0])
        world.run(30.0)
        assert end_of(world, lease, BORROWERS[0], 20.0) <= 0.2


def test_a_broken_connection_to_a_living_lender_ends_nothing() -> None:
    world, lease = active_pair(1, Weather(delay_s=(0.01, 0.05)))
    for _ in range(50):
        world.feed(BORROWERS[0], PeerDown(LENDERS[0]))
        world.feed(LENDERS[0], PeerDown(BORROWERS[0]))
        world.run(world.now + 1.0)
    assert set(world.nodes[BORROWERS[0]].engine.states()) == {lease}
    assert set(world.nodes[LENDERS[0]].engine.states()) == {lease}


@pytest.mark.parametrize(("tells_down", "within_s"), [(1.0, 10.1), (0.0, 60.1)])
def test_a_vanished_borrowers_worker_is_stopped(tells_down: float, within_s: float) -> None:
    world, lease = active_pair(1, Weather(tells_down=tells_down))
    world.crash(BORROWERS[0])
    world.run(100.0)
    stops = [at for at, output in world.outputs(LENDERS[0], lease) if isinstance(output, StopWorker)]
    assert len(stops) == 1
    assert stops[0] - 20.0 <= within_s


def test_a_lender_that_restarts_tells_its_borrowers() -> None:
    world, lease = active_pair(1, Weather(tells_down=0.0))
    world.crash(LENDERS[0])
    world.restart(LENDERS[0])
    world.run(30.0)
    assert end_of(world, lease, BORROWERS[0], 20.0) <= 1.1  # at its next renewal
    ended = world.outputs(BORROWERS[0], lease)[-1][1]
    assert isinstance(ended, LeaseEnded)
    assert ended.reason == "the lender ended it: this lease is not known here (any more)"


def test_a_borrower_that_restarts_tells_its_lenders() -> None:
    world = World(1, Weather(tells_down=0.0))
    world.add(LENDERS[0], TERMS)
    world.add(BORROWERS[0])
    lease = world.request(BORROWERS[0], LENDERS[0])
    while not any(isinstance(output, StartWorker) for _, output in world.outputs(LENDERS[0], lease)):
        world.run(world.now + 0.01)
    world.crash(BORROWERS[0])
    world.restart(BORROWERS[0])
    world.run(world.now + 10)  # Started comes to one who knows of no lease
    assert [type(output) for _, output in world.outputs(LENDERS[0], lease)][-3] is StopWorker
    assert world.nodes[LENDERS[0]].engine.states() == {}


def test_a_partition_that_heals_too_late_leaves_nothing_behind() -> None:
    world, lease = active_pair(1, Weather(tells_down=0.0))
    fair, world.weather = world.weather, Weather(loss=1.0, tells_down=0.0)
    world.run(30.0)
    assert world.nodes[BORROWERS[0]].engine.states() == {}
    assert set(world.nodes[LENDERS[0]].engine.states()) == {lease}  # it cannot know; its term runs
    world.weather = fair
    world.run(100.0)
    assert world.nodes[LENDERS[0]].engine.states() == {}
    world.settle()


def test_with_all_leases_taken_the_next_is_refused_and_may_ask_again() -> None:
    world = World(1, Weather())
    world.add(LENDERS[0], TERMS)
    for borrower in BORROWERS:
        world.add(borrower)
    kept = [world.request(BORROWERS[0], LENDERS[0]) for _ in range(2)]
    third = world.request(BORROWERS[1], LENDERS[0])
    world.run(20.0)
    refusal = world.outputs(BORROWERS[1], third)[0][1]
    assert isinstance(refusal, LeaseRefusal)
    assert (refusal.reason, refusal.retry_after_s) == ("all of its leases (2) are taken", 5.0)
    world.feed(BORROWERS[0], EndLease(kept[0], "enough"))
    world.run(21.0)
    fourth = world.request(BORROWERS[1], LENDERS[0])
    world.run(40.0)
    assert isinstance(world.outputs(BORROWERS[1], fourth)[-1][1], LeaseActive)
    world.settle()
