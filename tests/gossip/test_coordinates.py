"""Network coordinates: Serf's networks and bounds; bytes; and what liars cannot do."""

from __future__ import annotations

import math
import statistics
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations import coordinates as networks
from swarmp2p.errors import BadMessage, UsageError
from swarmp2p.gossip.coordinates import (
    COORDINATE_BYTES,
    DIMENSIONS,
    MAX_DISTANCE_S,
    MAX_ERROR,
    Coordinate,
    Vivaldi,
    VivaldiConfig,
    decode_coordinate,
    distance,
    encode_coordinate,
)

from .network import peer_id

coordinates = st.builds(
    Coordinate,
    st.lists(st.floats(-3.0, 3.0), min_size=DIMENSIONS, max_size=DIMENSIONS).map(tuple),
    st.floats(1e-5, 9.0),
    st.floats(0.0, 1.5),
    st.floats(-9.0, 9.0),
)


def at(*components: float, height: float = 1e-5, error: float = 0.1) -> Coordinate:
    return Coordinate((*components, *(0.0,) * (DIMENSIONS - len(components))), height, error)


# Serf's networks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_errors_are_within_serfs_bounds(name: str) -> None:
    """Serf's own test runs one seed, which its bounds fit closely: its algorithm keeps to them with 6, 8, 6, 0 and 8
    of ten seeds. Here it is the median of several."""
    seeds = range(1, 11) if name == "line" else range(1, 5)
    found = [networks.network_errors(name, seed) for seed in seeds]
    assert statistics.median(mean for mean, _ in found) <= networks.NETWORKS[name].mean
    assert statistics.median(worst for _, worst in found) <= networks.NETWORKS[name].worst


def test_who_is_as_far_from_all_is_above_them() -> None:
    """Serf's bounds: 97 % of the radius, and 3 % for those on the circle."""
    middle, *others = [node.vivaldi.coordinate for node in networks.run_network("height", 1)]
    assert middle.height >= 0.97 * 0.1
    assert all(other.height <= 0.03 * 0.1 for other in others)


def test_gravity_brings_a_swarm_that_drifted_back() -> None:
    assert networks.drift(1, 10_000) <= 0.8, "Serf's bound"


# Liars ------------------------------------------------------------------------------------------------------


def test_liars_do_not_throw_others_far_away() -> None:
    """Two of 25. Where residuals count in full, predictions are wrong by several times the truth."""
    mean, worst = networks.liars_errors(1, 2)
    assert mean < 0.1
    assert worst < 2.0


@given(st.lists(st.tuples(coordinates, st.floats(0.0, 10.0)), max_size=60), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_a_lone_liar_moves_nobody_by_more_than_noise_does(
    lies: list[tuple[Coordinate, float]], seed: int
) -> None:
    """Whatever it says, how often, and however late it answers: a node that 8 others agree on stays where it is."""
    vivaldi, now = Vivaldi(Random(seed)), 0.0
    honest = [at(0.01 * number, 0.005) for number in range(8)]

    def be_honest() -> None:
        nonlocal now
        for number, coordinate in enumerate(honest):
            now += 1.0
            vivaldi.observe(peer_id(number), coordinate, distance(at(0.035, 0.02), coordinate), now)

    for _ in range(60):
        be_honest()
    before = vivaldi.coordinate
    for coordinate, rtt_s in lies:
        now += 0.5
        vivaldi.observe(peer_id(99), coordinate, rtt_s, now)
        assert distance(vivaldi.coordinate, before) < 0.02
        if now % 1.0 == 0.0:
            be_honest()


def test_a_peer_that_says_much_has_no_more_weight() -> None:
    vivaldi = Vivaldi(Random(1))
    assert vivaldi.observe(peer_id(1), at(0.1), 0.1, 0.0)
    after = vivaldi.coordinate
    assert not vivaldi.observe(peer_id(1), at(0.1), 0.1, 0.9)
    assert (vivaldi.coordinate, vivaldi.stats.frequent) == (after, 1)
    assert vivaldi.observe(peer_id(1), at(0.1), 0.1, 1.0)


@pytest.mark.parametrize("rtt_s", [-0.1, math.nan, math.inf, MAX_DISTANCE_S + 1])
def test_round_trips_that_make_no_sense_are_ignored(rtt_s: float) -> None:
    vivaldi = Vivaldi(Random(1))
    assert not vivaldi.observe(peer_id(1), at(0.1), rtt_s, 0.0)
    assert not vivaldi.observe(peer_id(1), Coordinate((0.1,)), 0.1, 0.0)
    assert (vivaldi.coordinate, vivaldi.stats.refused) == (Coordinate(), 2)


def test_whose_samples_are_kept_is_bounded() -> None:
    vivaldi = Vivaldi(Random(1), VivaldiConfig(max_peers=5))
    for number in range(50):
        vivaldi.observe(peer_id(number), at(0.001 * number), 0.01, float(number))
    assert len(vivaldi) == 5


def test_one_late_answer_changes_nothing_much() -> None:
    """The median of a peer's last three counts."""
    vivaldi = Vivaldi(Random(1))
    for second in range(20):
        vivaldi.observe(peer_id(1), at(0.02), 0.02, float(second))
    before = vivaldi.coordinate
    vivaldi.observe(peer_id(1), at(0.02), 5.0, 20.0)
    assert distance(vivaldi.coordinate, before) < 0.001


@given(
    st.lists(
        st.tuples(st.integers(0, 9).map(peer_id), coordinates, st.floats(0.0, 10.0), st.floats(0.0, 9.0)),
        max_size=80,
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_observed_the_coordinate_can_be_sent(
    samples: list[tuple[bytes, Coordinate, float, float]],
) -> None:
    vivaldi, now = Vivaldi(Random(1)), 0.0
    for peer, coordinate, rtt_s, pause_s in samples:
        now += pause_s
        vivaldi.observe(peer_id(peer[-1]), coordinate, rtt_s, now)
        decode_coordinate(encode_coordinate(vivaldi.coordinate))
        assert vivaldi.distance(coordinate) > 0.0


# Coordinates and their bytes --------------------------------------------------------------------------------


@given(coordinates, coordinates)
def test_a_distance_is_symmetric_and_positive(a: Coordinate, b: Coordinate) -> None:
    assert distance(a, b) == distance(b, a) > 0.0


def test_a_distance_is_that_of_the_points_and_both_heights_and_adjustments() -> None:
    a = Coordinate((0.0, 0.03), 0.001, 0.1, 0.002)
    b = Coordinate((0.04, 0.0), 0.002, 0.1, -0.001)
    assert distance(a, b) == pytest.approx(0.05 + 0.003 + 0.001)
    assert (
        distance(a, Coordinate((0.0, 0.03), 0.001, 0.1, -0.5)) == 0.002
    )  # an adjustment below 0 is left out
    with pytest.raises(UsageError, match="dimensions"):
        distance(a, at(0.0))


@given(coordinates)
def test_bytes_bring_a_coordinate_back_within_a_thousandth(coordinate: Coordinate) -> None:
    data = encode_coordinate(coordinate)
    assert len(data) == COORDINATE_BYTES <= 24
    back = decode_coordinate(data)
    for was, is_now in zip(coordinate.components, back.components, strict=True):
        assert is_now == pytest.approx(was, rel=0.001, abs=1e-7)
    assert back.height == pytest.approx(coordinate.height, rel=0.01)
    assert back.error == pytest.approx(coordinate.error, rel=0.001, abs=1e-7)
    assert back.adjustment == pytest.approx(coordinate.adjustment, rel=0.001, abs=1e-7)
    assert encode_coordinate(back) == data


@given(
    st.binary(max_size=COORDINATE_BYTES + 2) | st.binary(min_size=COORDINATE_BYTES, max_size=COORDINATE_BYTES)
)
def test_any_bytes_are_a_coordinate_within_bounds_or_bad(data: bytes) -> None:
    try:
        coordinate = decode_coordinate(data)
    except BadMessage:
        return
    assert math.hypot(*coordinate.components) <= MAX_DISTANCE_S
    assert 0.0 < coordinate.height <= MAX_DISTANCE_S
    assert 0.0 <= coordinate.error <= MAX_ERROR
    assert abs(coordinate.adjustment) <= MAX_DISTANCE_S


@pytest.mark.parametrize(
    "values",
    [
        {"components": ()},
        {"components": (math.nan,)},
        {"components": (8.0, 8.0)},
        {"height": 0.0},
        {"height": math.inf},
        {"error": -0.1},
        {"error": 2.0},
        {"adjustment": math.nan},
    ],
)
def test_values_out_of_bounds_are_no_coordinate(values: dict[str, float | tuple[float, ...]]) -> None:
    with pytest.raises(UsageError, match="finite"):
        Coordinate(**values)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_only_coordinates_of_the_common_space_are_sent() -> None:
    with pytest.raises(UsageError, match="8 dimensions"):
        encode_coordinate(Coordinate((0.0,)))
