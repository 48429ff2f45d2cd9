from __future__ import annotations

import pytest

from swarmp2p.dht.round_trips import RoundTrips

from .network import peer_id

A, B = peer_id(1), peer_id(2)


def make() -> RoundTrips:
    return RoundTrips(first_s=1.0, min_s=0.1, max_s=5.0, dial_factor=4.0)


def test_before_anything_is_known_the_time_outs_are_the_first_ones() -> None:
    trips = make()
    assert trips.silence_s(A, dialled=False) == (0.5, 1.0)
    assert trips.silence_s(A, dialled=True) == (2.0, 4.0)


def test_a_measured_peer_has_its_own() -> None:
    """RFC 6298 §2.2: the first sample r makes the time-out r + 4 · r/2."""
    trips = make()
    trips.learn(A, 0.2, dialled=False)
    assert trips.silence_s(A, dialled=False) == pytest.approx((0.4, 0.6))
    for _ in range(200):
        trips.learn(A, 0.2, dialled=False)
        trips.learn(B, 0.6, dialled=False)
    assert trips.silence_s(A, dialled=False) == pytest.approx((0.25, 0.4))
    assert trips.silence_s(B, dialled=False) == pytest.approx((0.75, 1.2))


def test_one_that_was_not_measured_has_that_of_most_others() -> None:
    trips = make()
    trips.learn(A, 0.2, dialled=False)
    assert trips.silence_s(B, dialled=False) == pytest.approx((0.25, 0.4))
    for number in range(99):
        trips.learn(peer_id(10 + number), 0.4 if number % 4 else 0.8, dialled=False)
    assert trips.silence_s(B, dialled=False) == pytest.approx((1.0, 1.6))


def test_what_was_long_ago_is_forgotten() -> None:
    """A laptop moves from one network to another."""
    trips = make()
    for seconds in (1.0, 0.2):
        for number in range(64):
            trips.learn(peer_id(10 + number), seconds, dialled=False)
    assert trips.silence_s(B, dialled=False) == pytest.approx((0.25, 0.4))


def test_dials_are_learnt_apart() -> None:
    trips = make()
    trips.learn(A, 1.0, dialled=True)
    assert trips.silence_s(A, dialled=False) == (0.5, 1.0)
    assert trips.silence_s(B, dialled=True) == pytest.approx((1.25, 2.0))


def test_the_first_few_samples_change_much() -> None:
    trips = make()
    assert [trips.learn(A, 0.1, dialled=False) for _ in range(10)] == [True] * 8 + [False] * 2
    assert trips.learn(A, 0.1, dialled=True)


def test_time_outs_stay_within_their_limits() -> None:
    trips = make()
    trips.learn(A, 0.001, dialled=False)
    trips.learn(B, 9.0, dialled=False)
    assert trips.silence_s(A, dialled=False) == (0.025, 0.1)
    assert trips.silence_s(B, dialled=False) == (5.0, 5.0)


def test_the_peers_remembered_are_bounded() -> None:
    trips = make()
    for number in range(5000):
        trips.learn(peer_id(number), 0.3, dialled=False)
    assert len(trips._peers) == 4096  # pyright: ignore[reportPrivateUsage]
    assert len(trips._all) == 64  # pyright: ignore[reportPrivateUsage]
