"""One lookup: hand-made cases, then properties over random networks."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.dht.disjoint import DisjointLookup
from swarmp2p.dht.keys import key_id, peer_key
from swarmp2p.dht.lookup import Lookup, LookupConfig, PeerState
from swarmp2p.engine import PeerInfo

from .network import peer_id
from .worlds import World, asked, full_tables, infos, is_done, peers, worlds

OWN = peer_id(0)
TARGET = key_id(b"target")
# Peers 1..200, nearest to the target first.
NEAR = sorted(range(1, 201), key=lambda number: peer_key(peer_id(number)) ^ TARGET)


def make(*seeds: int, **tuning: int) -> Lookup:
    return Lookup(OWN, TARGET, infos(*seeds), LookupConfig(**tuning))


def test_with_nobody_to_ask_it_is_over_at_once() -> None:
    lookup = make()
    assert asked(lookup) == []
    assert is_done(lookup)
    assert lookup.closest() == ()


def test_the_nearest_are_asked_first_and_at_most_alpha() -> None:
    lookup = make(NEAR[5], NEAR[1], NEAR[9], NEAR[0], alpha=2)
    assert asked(lookup) == peers(NEAR[0], NEAR[1])
    assert asked(lookup) == []
    assert lookup.in_flight == 2


def test_each_answer_lets_the_next_request_go_at_once() -> None:
    """No rounds: alpha stays in flight (py-libp2p waits for a whole batch)."""
    lookup = make(*NEAR[10:16], alpha=3)
    asked(lookup)
    lookup.answered(peer_id(NEAR[11]), infos(NEAR[2]))
    assert asked(lookup) == peers(NEAR[2])
    lookup.failed(peer_id(NEAR[2]))
    assert asked(lookup) == peers(NEAR[13])
    assert lookup.in_flight == 3


def test_it_ends_when_the_k_nearest_have_answered_and_asks_no_farther() -> None:
    """kad-dht spec, "Peer routing": it terminates when the k closest seen have been queried and have answered."""
    lookup = make(*NEAR[:6], k=3, alpha=10)
    assert asked(lookup) == peers(*NEAR[:3])
    for number in NEAR[:3]:
        assert not is_done(lookup)
        lookup.answered(peer_id(number), infos(*NEAR[3:6]))
        assert asked(lookup) == []
    assert is_done(lookup)
    assert not lookup.stopped
    assert [info.peer for info in lookup.closest()] == peers(*NEAR[:3])
    assert lookup.asked == 3


def test_a_nearer_peer_heard_of_late_must_answer_too() -> None:
    lookup = make(*NEAR[1:3], k=2)
    asked(lookup)
    lookup.answered(peer_id(NEAR[1]), ())
    lookup.answered(peer_id(NEAR[2]), infos(NEAR[0]))
    assert asked(lookup) == peers(NEAR[0])
    assert not is_done(lookup)
    lookup.answered(peer_id(NEAR[0]), ())
    asked(lookup)
    assert is_done(lookup)
    assert [info.peer for info in lookup.closest()] == peers(*NEAR[:2])


def test_failed_peers_are_replaced_by_the_next_nearest() -> None:
    lookup = make(*NEAR[:4], k=2)
    asked(lookup)
    lookup.failed(peer_id(NEAR[0]))
    assert asked(lookup) == peers(NEAR[2])
    lookup.answered(peer_id(NEAR[1]), ())
    lookup.answered(peer_id(NEAR[2]), ())
    asked(lookup)
    assert is_done(lookup)
    assert [info.peer for info in lookup.closest()] == peers(NEAR[1], NEAR[2])
    assert lookup.silent == 1


def test_a_silent_peer_does_not_hold_the_lookup_up() -> None:
    lookup = make(*NEAR[:3], k=2, alpha=2)
    asked(lookup)
    lookup.answered(peer_id(NEAR[1]), ())
    assert asked(lookup) == []
    lookup.stalled(peer_id(NEAR[0]))
    assert lookup.in_flight == 0
    assert asked(lookup) == peers(NEAR[2])
    lookup.answered(peer_id(NEAR[2]), ())
    asked(lookup)
    assert is_done(lookup)
    assert [info.peer for info in lookup.closest()] == peers(NEAR[1], NEAR[2])


def test_for_a_late_peer_the_next_is_asked_but_the_end_waits_for_both() -> None:
    lookup = make(*NEAR[:4], k=2, alpha=2)
    assert asked(lookup) == peers(*NEAR[:2])
    lookup.late(peer_id(NEAR[0]))
    assert lookup.in_flight == 1
    assert asked(lookup) == peers(NEAR[2])
    lookup.answered(peer_id(NEAR[1]), ())
    lookup.answered(peer_id(NEAR[2]), ())
    assert asked(lookup) == []  # one hedge for one that is late
    assert not is_done(lookup)
    assert lookup.silent == 0
    lookup.answered(peer_id(NEAR[0]), ())
    asked(lookup)
    assert is_done(lookup)
    assert [info.peer for info in lookup.closest()] == peers(*NEAR[:2])


def test_nobody_waits_for_a_late_peer_that_is_farther_than_enough_others() -> None:
    lookup = make(NEAR[5], k=1, alpha=2)
    asked(lookup)
    lookup.late(peer_id(NEAR[5]))
    assert asked(lookup) == []
    assert not is_done(lookup)
    lookup = make(NEAR[5], NEAR[4], k=1, alpha=2)
    asked(lookup)
    lookup.late(peer_id(NEAR[4]))
    assert asked(lookup) == peers(NEAR[5])
    lookup.answered(peer_id(NEAR[5]), infos(NEAR[1]))
    asked(lookup)
    lookup.answered(peer_id(NEAR[1]), ())
    asked(lookup)
    assert is_done(lookup)


def test_late_and_then_stalled_or_failed() -> None:
    for then, silent in ((Lookup.stalled, 1), (Lookup.failed, 1)):
        lookup = make(*NEAR[:3], k=1, alpha=1)
        asked(lookup)
        lookup.late(peer_id(NEAR[0]))
        assert asked(lookup) == peers(NEAR[1])
        lookup.answered(peer_id(NEAR[1]), ())
        assert asked(lookup) == []
        assert not is_done(lookup)
        then(lookup, peer_id(NEAR[0]))
        asked(lookup)
        assert is_done(lookup)
        assert lookup.silent == silent


def test_a_late_answer_still_counts() -> None:
    lookup = make(*NEAR[:3], k=2, alpha=2)
    asked(lookup)
    lookup.answered(peer_id(NEAR[1]), ())
    lookup.stalled(peer_id(NEAR[0]))
    asked(lookup)
    lookup.answered(peer_id(NEAR[0]), infos(NEAR[5]))
    asked(lookup)
    assert is_done(lookup)  # it is among the k again, and nobody waits for the third
    assert [info.peer for info in lookup.closest()] == peers(*NEAR[:2])
    assert lookup.state(peer_id(NEAR[0])) is PeerState.ANSWERED


def test_while_more_are_silent_than_have_answered_they_are_waited_for() -> None:
    """A bootstrap peer that is slow to dial must not end a join, nor one slow moment a whole provide."""
    lookup = make(NEAR[0], NEAR[1])
    asked(lookup)
    lookup.stalled(peer_id(NEAR[0]))
    lookup.stalled(peer_id(NEAR[1]))
    assert asked(lookup) == []
    assert not is_done(lookup)
    lookup.failed(peer_id(NEAR[0]))
    asked(lookup)
    assert not is_done(lookup)
    lookup.answered(peer_id(NEAR[1]), infos(NEAR[2]))
    assert asked(lookup) == peers(NEAR[2])


def test_one_late_answer_does_not_end_it_while_most_are_still_silent() -> None:
    lookup = make(*NEAR[:3])
    asked(lookup)
    for number in NEAR[:3]:
        lookup.stalled(peer_id(number))
    lookup.answered(peer_id(NEAR[2]), ())
    assert asked(lookup) == []
    assert not is_done(lookup)
    lookup.answered(peer_id(NEAR[0]), ())
    asked(lookup)
    assert is_done(lookup)
    assert [info.peer for info in lookup.closest()] == peers(NEAR[0], NEAR[2])


def test_it_ends_when_all_have_failed() -> None:
    lookup = make(NEAR[0], NEAR[1])
    asked(lookup)
    lookup.failed(peer_id(NEAR[0]))
    lookup.stalled(peer_id(NEAR[1]))
    lookup.failed(peer_id(NEAR[1]))
    assert asked(lookup) == []
    assert is_done(lookup)
    assert lookup.silent == 2


def test_stopping_ends_it_early() -> None:
    lookup = make(*NEAR[:3])
    asked(lookup)
    lookup.answered(peer_id(NEAR[0]), infos(NEAR[7]))
    lookup.stop()
    assert asked(lookup) == []
    assert is_done(lookup)
    assert lookup.stopped


def test_nobody_is_asked_twice_nor_the_own_peer_nor_one_without_address() -> None:
    lookup = make(NEAR[0], NEAR[0], 0)
    assert asked(lookup) == peers(NEAR[0])
    lookup.answered(peer_id(NEAR[0]), [*infos(NEAR[0], 0), PeerInfo(peer_id(NEAR[3]))])
    assert asked(lookup) == []
    assert is_done(lookup)
    assert lookup.state(OWN) is None


def test_unasked_answers_failures_and_silence_change_nothing() -> None:
    lookup = make(NEAR[0], NEAR[1], alpha=1)
    asked(lookup)
    for number in (NEAR[1], NEAR[9]):
        lookup.answered(peer_id(number), infos(NEAR[3]))
        lookup.failed(peer_id(number))
        lookup.late(peer_id(number))
        lookup.stalled(peer_id(number))
    lookup.answered(peer_id(NEAR[0]), ())
    lookup.failed(peer_id(NEAR[0]))
    lookup.answered(peer_id(NEAR[0]), infos(NEAR[4]))
    assert lookup.state(peer_id(NEAR[0])) is PeerState.ANSWERED
    assert lookup.state(peer_id(NEAR[1])) is PeerState.HEARD
    assert lookup.state(peer_id(NEAR[3])) is None
    assert lookup.state(peer_id(NEAR[4])) is None
    assert lookup.silent == 0
    assert lookup.in_flight == 0


def test_a_find_begins_with_few_requests_among_likely_holders() -> None:
    near = peer_key(peer_id(NEAR[9])) ^ TARGET
    lookup = make(*NEAR[:20], alpha=10, window=3, near=near)
    assert asked(lookup) == peers(*NEAR[:3])
    lookup.answered(peer_id(NEAR[0]), ())
    assert asked(lookup) == peers(*NEAR[3:5])
    lookup.failed(peer_id(NEAR[1]))
    assert asked(lookup) == peers(NEAR[5])


def test_a_find_that_is_still_far_away_begins_with_alpha_requests() -> None:
    near = peer_key(peer_id(NEAR[1])) ^ TARGET
    lookup = make(*NEAR[5:40], alpha=10, window=3, near=near)
    assert asked(lookup) == peers(*NEAR[5:15])


def test_requests_are_bounded_whatever_peers_make_up() -> None:
    """An adversary that always knows somebody nearer ends with max_asked."""
    lookup = make(NEAR[199], k=4, max_asked=12)
    order = iter(reversed(NEAR[:199]))
    count = 0
    while not lookup.done:
        for info in lookup.next():
            count += 1
            lookup.answered(info.peer, infos(next(order), next(order)))
    assert count == lookup.asked == 12


def test_what_is_remembered_is_bounded_and_the_nearest_stay() -> None:
    lookup = make(NEAR[100], k=2, alpha=1)
    asked(lookup)
    lookup.answered(peer_id(NEAR[100]), infos(*NEAR[:100], *NEAR[101:]))
    remembered = [number for number in NEAR if lookup.state(peer_id(number)) is PeerState.HEARD]
    assert remembered == NEAR[:16]


def test_where_nobody_that_was_heard_of_need_be_asked_no_room_is_made() -> None:
    lookup = make(NEAR[0], NEAR[1], k=1, alpha=2)
    assert asked(lookup) == [peer_id(NEAR[0])]
    lookup.late(peer_id(NEAR[0]))
    assert asked(lookup) == [peer_id(NEAR[1])]
    there = infos(*NEAR[100:120])
    lookup.answered(peer_id(NEAR[1]), there)
    for info in there:
        lookup.take(info.peer)
    lookup.answered(peer_id(NEAR[0]), infos(*NEAR[2:50]))
    assert len([number for number in NEAR if lookup.state(peer_id(number)) is not None]) == 2 + 8


# Properties -------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(worlds(faults=True), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))
def test_it_ends_within_alpha_without_asking_twice(
    drawn: tuple[World, list[int], Random], alpha: int, k: int, window: int
) -> None:
    world, seeds, rng = drawn
    lookup = make(*seeds, alpha=alpha, k=k, window=window, near=1 << 255)
    order = world.play(lookup, alpha, rng)
    assert len(order) == len(set(order)) == lookup.asked
    found = [info.peer for info in lookup.closest()]
    assert found == sorted(found, key=lambda peer: peer_key(peer) ^ TARGET)
    assert len(found) <= k
    assert all(world.behaviour.get(peer) != "dead" for peer in found)
    assert OWN not in order


@settings(max_examples=150, deadline=None)
@given(worlds(faults=True), st.integers(1, 6))
def test_nobody_nearer_that_answers_was_left_unasked(drawn: tuple[World, list[int], Random], k: int) -> None:
    """At the end, all peers heard of that are nearer than the farthest result were asked."""
    world, seeds, rng = drawn
    lookup = make(*seeds, k=k)
    order = world.play(lookup, 10, rng)
    found = [info.peer for info in lookup.closest()]
    heard = {peer_id(n) for n in seeds} | {
        info.peer
        for peer in order
        if lookup.state(peer) is PeerState.ANSWERED
        for info in world.knows.get(peer, [])
    }
    for peer in heard - set(order) - {OWN}:
        assert len(found) == k
        assert peer_key(peer) ^ TARGET > peer_key(found[-1]) ^ TARGET


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 120), st.integers(0, 1 << 30), st.integers(1, 10))
def test_the_true_nearest_are_found_when_tables_are_right_and_nobody_fails(
    size: int, seed: int, alpha: int
) -> None:
    """Each peer answers with the k nearest of those that share its buckets' view: here, of all peers that it
    knows by a Kademlia table filled to the brim."""
    k, rng = 4, Random(seed)
    world = full_tables(size, k, TARGET, rng)
    seeds = rng.sample(range(1, size + 1), 1)
    lookup = make(*seeds, k=k, alpha=alpha)
    world.play(lookup, alpha, rng)
    expected = sorted(world.knows, key=lambda peer: peer_key(peer) ^ TARGET)[:k]
    found = [info.peer for info in lookup.closest()]
    # A seed next to nobody else may know fewer than k; with k of each bucket, the nearest is always found.
    assert found[0] == expected[0]
    assert found == expected


@pytest.mark.parametrize("paths", [1, 2])
def test_a_result_that_is_not_believed_is_widened_twice(paths: int) -> None:
    """k more must answer each time, of each path."""
    config = LookupConfig(k=2, alpha=8, window=8, max_asked=16)
    seeds = infos(*NEAR[:11])
    lookup = (
        Lookup(OWN, TARGET, seeds, config)
        if paths == 1
        else DisjointLookup(OWN, TARGET, seeds, config, paths)
    )
    counts: list[int] = []
    for goes_on in (True, True, False):
        while now := lookup.next():
            for info in now:
                lookup.answered(info.peer, ())
        assert is_done(lookup)
        counts.append(lookup.asked)
        assert lookup.widen() == goes_on
        assert is_done(lookup) != goes_on
    assert counts == [2 * paths, 4 * paths, min(6 * paths, 11)]
    assert [info.peer for info in lookup.closest()] == peers(*NEAR[:2])


def test_one_that_was_stopped_is_not_widened() -> None:
    lookup = make(1)
    asked(lookup)
    lookup.stop()
    assert not lookup.widen()
    assert is_done(lookup)
