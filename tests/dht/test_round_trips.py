from __future__ import annotations

import pytest

from swarmp2p.dht.round_trips import RoundTrips

from .network import peer_id

A, B = peer_id(1), peer_id(2)


def make() -> RoundTrips:
    return RoundTrips(first_s=1.0, min_s=0.25, max_s=5.0, dial_factor=4.0)


def test_before_anything_is_known_the_time_outs_are_the_first_ones() -> None:
    trips = make()
    assert trips.timeout_s(A, dialled=False) == 1.0
    assert trips.timeout_s(A, dialled=True) == 4.0


def test_a_measured_peer_has_its_own_and_others_that_of_all() -> None:
    """RFC 6298 §2.2: the first sample r makes the time-out r + 4 · r/2."""
    trips = make()
    trips.learn(A, 0.2, dialled=False)
    assert trips.timeout_s(A, dialled=False) == pytest.approx(0.6)
    assert trips.timeout_s(B, dialled=False) == pytest.approx(0.6)
    for _ in range(200):
        trips.learn(B, 0.4, dialled=False)
    assert trips.timeout_s(A, dialled=False) == pytest.approx(0.6)
    assert trips.timeout_s(B, dialled=False) == pytest.approx(0.4, rel=0.01)


def test_dials_are_learnt_apart() -> None:
    trips = make()
    trips.learn(A, 1.0, dialled=True)
    assert trips.timeout_s(A, dialled=False) == 1.0
    assert trips.timeout_s(B, dialled=True) == pytest.approx(3.0)


def test_time_outs_stay_within_their_limits() -> None:
    trips = make()
    trips.learn(A, 0.001, dialled=False)
    trips.learn(B, 9.0, dialled=False)
    assert trips.timeout_s(A, dialled=False) == 0.25
    assert trips.timeout_s(B, dialled=False) == 5.0


def test_the_peers_remembered_are_bounded() -> None:
    trips = make()
    for number in range(5000):
        trips.learn(peer_id(number), 0.3, dialled=False)
    assert len(trips._peers) == 4096  # pyright: ignore[reportPrivateUsage]
