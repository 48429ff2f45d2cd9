"""Lookups over disjoint paths: hand-made cases, then properties over random networks."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.disjoint import DisjointLookup, checked_paths
from swarmp2p.dht.events import FindClosest
from swarmp2p.dht.keys import key_id, peer_key
from swarmp2p.dht.lookup import Lookup, LookupConfig, PeerState
from swarmp2p.engine import PeerInfo
from swarmp2p.errors import UsageError

from .network import peer_id
from .single import Single
from .worlds import World, asked, full_tables, infos, is_done, peers, worlds

OWN = peer_id(0)
TARGET = key_id(b"target")
# Peers 1..200, nearest to the target first.
NEAR = sorted(range(1, 201), key=lambda number: peer_key(peer_id(number)) ^ TARGET)


def make(*seeds: int, paths: int, **tuning: int) -> DisjointLookup:
    return DisjointLookup(OWN, TARGET, infos(*seeds), LookupConfig(**tuning), paths)


def test_the_nearest_known_peers_begin_one_path_each() -> None:
    lookup = make(*NEAR[:20], paths=3, alpha=3)
    assert asked(lookup) == peers(*NEAR[:3])
    assert lookup.in_flight == 3


def test_a_path_hears_only_from_the_peers_that_it_asked() -> None:
    lookup = make(NEAR[10], NEAR[11], paths=2, k=1)
    assert asked(lookup) == peers(NEAR[10], NEAR[11])
    lookup.answered(peer_id(NEAR[10]), infos(NEAR[5]))
    assert asked(lookup) == peers(NEAR[5])
    lookup.answered(peer_id(NEAR[11]), ())  # the second path knows nobody nearer: it is over
    assert asked(lookup) == []
    lookup.answered(peer_id(NEAR[5]), ())
    asked(lookup)
    assert is_done(lookup)
    assert [info.peer for info in lookup.closest()] == peers(NEAR[5])


def test_a_peer_is_asked_by_one_path_and_counts_for_those_that_hear_of_it() -> None:
    lookup = make(NEAR[10], NEAR[11], paths=2, k=1)
    asked(lookup)
    lookup.answered(peer_id(NEAR[10]), infos(NEAR[0]))
    assert asked(lookup) == peers(NEAR[0])
    lookup.answered(peer_id(NEAR[11]), infos(NEAR[0]))
    assert asked(lookup) == []
    assert not is_done(lookup)  # the second path waits for the answer too
    lookup.answered(peer_id(NEAR[0]), ())
    asked(lookup)
    assert is_done(lookup)
    assert lookup.asked == 3


def test_a_path_led_astray_does_not_take_the_others_along() -> None:
    """One seed answers with nearer peers, made up and without end; the honest path goes on and finds its own."""
    liar, honest = NEAR[100], NEAR[101]
    made_up = iter(NEAR[:60])
    single = Lookup(OWN, TARGET, infos(liar, honest), LookupConfig(k=3, alpha=4, max_asked=12))
    disjoint = make(liar, honest, paths=2, k=3, alpha=4, max_asked=12)
    good = {honest: infos(NEAR[90]), NEAR[90]: infos(NEAR[80]), NEAR[80]: infos(NEAR[61])}
    for lookup in (single, disjoint):
        while not lookup.done:
            for info in lookup.next():
                number = next(n for n in NEAR if peer_id(n) == info.peer)
                if number in good or number == NEAR[61]:
                    lookup.answered(info.peer, good.get(number, ()))
                elif number == liar:
                    lookup.answered(info.peer, infos(*(next(made_up) for _ in range(20))))
                else:
                    lookup.failed(info.peer)
    assert peer_id(NEAR[61]) not in {info.peer for info in single.closest()}
    assert disjoint.closest()[0].peer == peer_id(NEAR[61])


def test_of_the_requests_in_flight_each_path_has_its_share() -> None:
    lookup = make(*NEAR[:20], paths=2, alpha=4)
    assert asked(lookup) == peers(*NEAR[:4])
    lookup.answered(peer_id(NEAR[0]), ())
    assert asked(lookup) == peers(NEAR[4])  # of the same path, which has fewer in flight
    lookup.answered(peer_id(NEAR[1]), ())
    assert asked(lookup) == peers(NEAR[5])


def test_a_late_answer_still_counts_and_a_silent_peer_holds_nothing_up() -> None:
    lookup = make(*NEAR[:4], paths=2, k=1, alpha=2)
    assert asked(lookup) == peers(*NEAR[:2])
    lookup.stalled(peer_id(NEAR[0]))
    assert asked(lookup) == peers(NEAR[2])
    lookup.answered(peer_id(NEAR[2]), ())
    lookup.answered(peer_id(NEAR[1]), ())
    lookup.answered(peer_id(NEAR[0]), infos(NEAR[3]))
    asked(lookup)
    assert is_done(lookup)
    assert lookup.silent == 0
    assert [info.peer for info in lookup.closest()] == peers(NEAR[0])


def test_what_a_path_remembers_is_bounded_and_the_nearest_stay() -> None:
    lookup = make(NEAR[100], paths=2, k=2, alpha=1)
    asked(lookup)
    lookup.answered(peer_id(NEAR[100]), infos(*NEAR[:100], *NEAR[101:]))
    remembered = [number for number in NEAR if lookup.state(peer_id(number)) is PeerState.HEARD]
    assert remembered == NEAR[:16]


def test_the_settings_and_the_command_say_over_how_many_paths() -> None:
    nearest = sorted(range(1, 31), key=lambda number: peer_key(peer_id(number)) ^ key_id(b"key"))
    for setting, command, expected in ((1, 0, 1), (3, 0, 3), (3, 1, 1), (1, 2, 2)):
        single = Single(DhtConfig(disjoint_paths=setting, alpha=4))
        single.meet(*nearest)
        single.post(FindClosest(7, b"key", command))
        lookup = single.engine._traffic._queries[7].lookup.lookup  # pyright: ignore[reportPrivateUsage]
        paths = len(lookup._paths) if isinstance(lookup, DisjointLookup) else 1  # pyright: ignore[reportPrivateUsage]
        assert paths == expected
        assert lookup.in_flight == 4


def test_only_1_to_8_paths_are_taken_or_none_for_the_setting() -> None:
    assert [checked_paths(value) for value in (None, 1, 8)] == [0, 1, 8]
    for wrong in (0, 9, -1, True, 2.0, "2"):
        with pytest.raises(UsageError, match="1 to 8 disjoint paths"):
            checked_paths(wrong)


# Properties -------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(worlds(faults=True), st.integers(1, 5), st.integers(1, 6), st.integers(1, 8))
def test_it_ends_within_alpha_without_asking_twice(
    drawn: tuple[World, list[int], Random], alpha: int, k: int, paths: int
) -> None:
    world, seeds, rng = drawn
    lookup = make(*seeds, alpha=alpha, k=k, paths=paths)
    order = world.play(lookup, alpha, rng)
    assert len(order) == len(set(order)) == lookup.asked
    found = [info.peer for info in lookup.closest()]
    assert found == sorted(found, key=lambda peer: peer_key(peer) ^ TARGET)
    assert len(found) <= k
    assert all(world.behaviour.get(peer) != "dead" for peer in found)
    assert OWN not in order


@settings(max_examples=100, deadline=None)
@given(
    st.integers(2, 120), st.integers(0, 1 << 30), st.integers(1, 10), st.integers(1, 8), st.integers(1, 12)
)
def test_without_adversaries_it_finds_what_a_single_lookup_finds(
    size: int, seed: int, alpha: int, paths: int, known: int
) -> None:
    k, rng = 4, Random(seed)
    world = full_tables(size, k, TARGET, rng)
    seeds = rng.sample(range(1, size + 1), min(size, known))
    single = Lookup(OWN, TARGET, infos(*seeds), LookupConfig(k=k, alpha=alpha))
    disjoint = make(*seeds, k=k, alpha=alpha, paths=paths)
    world.play(single, alpha, Random(seed))
    world.play(disjoint, alpha, Random(seed))
    assert peers_of(disjoint) == peers_of(single)


@settings(max_examples=60, deadline=None)
@given(worlds(faults=True), st.integers(1, 6), st.integers(0, 1 << 30))
def test_one_path_is_a_single_lookup(drawn: tuple[World, list[int], Random], k: int, seed: int) -> None:
    world, seeds, _ = drawn
    single = Lookup(OWN, TARGET, infos(*seeds), LookupConfig(k=k))
    disjoint = make(*seeds, k=k, paths=1)
    assert world.play(single, 10, Random(seed)) == world.play(disjoint, 10, Random(seed))
    assert peers_of(disjoint) == peers_of(single)


def peers_of(lookup: Lookup) -> list[PeerInfo]:
    return [PeerInfo(info.peer) for info in lookup.closest()]
