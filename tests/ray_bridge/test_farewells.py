"""A borrower's Release is said again, a few times, so that a lost one costs the lender no term."""

from __future__ import annotations

import math

from swarmp2p.engine import Received, Send, Tick
from swarmp2p.ray_bridge.events import EndLease
from swarmp2p.ray_bridge.farewells import Farewells
from swarmp2p.ray_bridge.lease import LeaseConfig, Leases
from swarmp2p.ray_bridge.messages import Release

from .keys import lease_id, peer
from .test_lease_simulation import BORROWERS, LENDERS, active_pair
from .two import BORROWER, LEASE, LENDER, Two, ask, sent
from .world import Weather


def said(engine: Leases, until: float) -> list[float]:
    """When an engine of itself says Release."""
    times: list[float] = []
    while engine.deadline() <= until:
        now = engine.deadline()
        messages = sent(engine.handle(Tick(), now))
        assert all(isinstance(message, Release) for message in messages)
        times += [now] * len(messages)
    return times


def test_it_is_said_again_less_and_less_often_and_then_forgotten() -> None:
    two = Two().activate()
    two.cut = True
    two.now = 40.0
    two.feed(BORROWER, EndLease(LEASE, "done"))
    engine = two.engines[BORROWER]
    assert said(engine, 1000.0) == [40.5, 41.5, 43.5]
    assert engine.deadline() == math.inf


def test_a_lost_release_does_not_keep_the_lease_at_its_lender() -> None:
    two = Two().activate()
    two.now = 40.0
    two.cut = True
    two.feed(BORROWER, EndLease(LEASE, "done"))
    two.cut = False
    two.run(40.4)
    assert LEASE in two.engines[LENDER].states()
    two.run(40.6)
    assert two.engines[LENDER].states() == {}


def test_what_was_asked_for_and_not_proven_is_taken_back_once() -> None:
    two = Two()
    two.cut = True
    two.feed(BORROWER, ask())
    two.feed(BORROWER, EndLease(LEASE, "never mind"))
    assert said(two.engines[BORROWER], 1000.0) == []


def test_a_release_that_is_heard_is_said_once() -> None:
    two = Two().activate()
    two.now = 40.0
    two.feed(BORROWER, EndLease(LEASE, "done"))
    assert said(two.engines[BORROWER], 1000.0) == []
    assert two.states() == []


def test_nobody_else_can_say_that_it_was_heard() -> None:
    two = Two().activate()
    two.now, two.cut = 40.0, True
    two.feed(BORROWER, EndLease(LEASE, "done"))
    two.feed(BORROWER, Received(peer(9), Release(LEASE, "it is over, believe me")))
    assert len(said(two.engines[BORROWER], 1000.0)) == 3


def test_where_the_lender_ended_it_nothing_is_said_again() -> None:
    two = Two().activate()
    two.now = 40.0
    two.feed(LENDER, EndLease(LEASE, "back to work"))
    assert said(two.engines[BORROWER], 1000.0) == []


def test_a_borrower_that_comes_back_without_its_clusters_says_it_again_too() -> None:
    world, lease = active_pair(1, Weather(tells_down=0.0))
    world.crash(BORROWERS[0])
    fair, world.weather = world.weather, Weather(loss=1.0, tells_down=0.0)
    world.restart(BORROWERS[0], resume=False)
    world.run(20.2)
    world.weather = fair
    assert lease in world.nodes[LENDERS[0]].engine.states()
    world.run(21.0)
    assert world.nodes[LENDERS[0]].engine.states() == {}


def test_of_many_the_oldest_are_said_no_more() -> None:
    farewells = Farewells(LeaseConfig(max_taken=2))
    for number in range(1, 4):
        assert farewells.add(lease_id(number), LENDER, "over") == Send(
            LENDER, Release(lease_id(number), "over")
        )
    assert farewells.tick(0.0) == []
    again = [send.message for send in farewells.tick(0.5)]
    assert again == [Release(lease_id(2), "over"), Release(lease_id(3), "over")]
