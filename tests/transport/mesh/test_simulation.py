"""Mesh engines against each other under loss, repetition, reordering and crashes: in the end all agree."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.engine import Received, Undeliverable
from swarmp2p.transport.mesh.config import MeshConfig
from swarmp2p.transport.mesh.events import MeshFailed, PairAgain, Paired
from swarmp2p.transport.mesh.messages import Heard, Join, Pairing, Update
from swarmp2p.transport.sim_peers import sim_peer

from .made import CLUSTER
from .world import HEAD, World


def story(seed: int, loss: float, copies: float, steps: int = 25) -> World:
    """Members come and go, for a minute or two."""
    world = World(seed, loss, copies)
    rng = world.rng
    for _ in range(steps):
        world.run(rng.expovariate(0.5))
        match rng.randrange(8):
            case 0 | 1 | 2 | 3 if len(world.leases) < 8:
                world.lease(rng.randrange(1, 6))
            case 4 | 5 if world.leases:
                world.end(rng.choice(sorted(world.leases)))
            case 6 if len(world.engines) > 2:
                world.crash(rng.choice([n for n in range(1, 6) if sim_peer(n) in world.engines]))
            case _:
                world.again()
    return world


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**30), st.sampled_from((0.0, 0.1, 0.4)), st.sampled_from((0.0, 0.3)))
def test_in_the_end_all_members_know_each_other_and_every_pair_has_one_secret(
    seed: int, loss: float, copies: float
) -> None:
    world = story(seed, loss, copies)
    world.run(250.0)
    world.check()
    assert not world.failed


def test_stories_are_such_that_things_happen() -> None:
    world = story(1, 0.2, 0.3, steps=60)
    assert sum(len(each) for each in world.secrets.values()) > 40
    world.run(120.0)
    assert len(world.plans[CLUSTER].roster.members) >= 3
    world.check()


def test_the_same_seed_gives_the_same_story() -> None:
    assert story(5, 0.2, 0.3).simulator.trace_hash == story(5, 0.2, 0.3).simulator.trace_hash


def test_it_takes_two_round_trips_from_the_lease_to_the_secret_with_the_head() -> None:
    world = World(3, jitter=0.0)
    world.start(sim_peer(1))
    world.run(1.0)
    begun = world.simulator.now
    while not world.leases or (CLUSTER, next(iter(world.leases))) not in world.secrets:
        if not world.leases:
            world.lease(1)
        world.run(0.01)
        assert world.simulator.now - begun < 1.0 + 0.3 + 4 * 0.05 + 0.1
    # at most: both permits within 1 s, facts within 0.3 s, and four ways of 50 ms


def test_members_go_when_their_leases_do_and_a_new_lease_of_the_same_peer_is_a_new_member() -> None:
    world = World(4)
    first, second = world.lease(1), world.lease(2)
    world.run(10.0)
    world.end(first)
    third = world.lease(1)
    world.run(10.0)
    world.check()
    assert {each.member for each in world.plans[second].roster.members} == {CLUSTER, second, third}


def test_a_worker_that_never_joins_is_given_up_once() -> None:
    world = World(5, config=MeshConfig(join_timeout_s=20.0))
    lease = world.lease(1)
    world.simulator.crash(sim_peer(1))
    world.run(60.0)
    assert [(each.lease, each.unsupported) for each in world.failed] == [(lease, False)]


def test_a_worker_that_falls_silent_before_there_is_a_secret_is_given_up_once() -> None:
    world = World(8, config=MeshConfig(join_timeout_s=20.0))
    lease = world.lease(1)
    while len(world.plans[CLUSTER].roster.members if CLUSTER in world.plans else ()) < 2:
        world.run(0.01)
    assert (CLUSTER, lease) not in world.secrets
    world.simulator.crash(sim_peer(1))
    world.run(60.0)
    sessions = world.plans[CLUSTER].plan.sessions
    assert [each.lease for each in world.failed] == [lease for _ in sessions]
    assert sessions


def test_a_peer_that_does_not_speak_the_protocol_is_told_apart() -> None:
    world = World(6)
    lease = world.lease(1)
    world.simulator.crash(sim_peer(1))
    world.post(HEAD, Undeliverable(sim_peer(1), "lease", (), True), 1.0)  # another protocol's
    world.run(1.1)
    assert not world.failed
    world.post(HEAD, Undeliverable(sim_peer(1), "mesh", (), True))
    world.run(100.0)
    assert [(each.lease, each.unsupported) for each in world.failed] == [(lease, True)]


def test_who_asks_for_a_new_secret_gets_one_on_both_sides() -> None:
    world = World(9)
    world.lease(1)
    world.lease(2)
    world.run(10.0)
    before = {pair: len(each) for pair, each in world.secrets.items()}
    for member, target in sorted(world.secrets)[:2]:
        world.post(HEAD if member == CLUSTER else world.leases[member], PairAgain(member, target))
        world.run(5.0)
    assert sum(map(len, world.secrets.values())) == sum(before.values()) + 4
    world.check()


def test_who_is_no_party_to_a_lease_changes_nothing() -> None:
    world = World(10)
    lease = world.lease(1)
    world.run(10.0)
    before = world.plans[CLUSTER], world.plans[lease], len(world.secrets)
    stranger = sim_peer(99)
    pairing = Pairing(lease, lease, CLUSTER, b"x" * 100)
    for message in (Heard(lease, 0), Join(lease, b"facts"), pairing, Update(lease, 0, 99, (), (CLUSTER,))):
        for target in (HEAD, sim_peer(1)):
            world.post(target, Received(stranger, message))
    world.run(1.0)
    assert (world.plans[CLUSTER], world.plans[lease], len(world.secrets)) == before
    world.check()


@pytest.mark.parametrize("members", [12])
def test_a_cluster_of_many_agrees(members: int) -> None:
    world = World(7, loss=0.05)
    for number in range(1, members + 1):
        world.lease(number)
    world.run(60.0)
    world.check()
    assert isinstance(next(iter(world.secrets.values()))[0], Paired)
    assert not any(isinstance(each, MeshFailed) for each in world.failed)
