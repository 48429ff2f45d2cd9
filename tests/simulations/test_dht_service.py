"""The script of a large service, small: the load is spread, the samples are fair, and it repeats."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from simulations import dht_service
from simulations.dht_service import leaf_depths, p_value
from simulations.report import Report

SMALL = 150, 1_200, 150, 10, 5


@cache
def ran() -> Report:
    return dht_service.run(*SMALL, seed=1)[0]


def number(name: str) -> float:
    value = ran()[name]
    assert isinstance(value, int | float)
    return value


def test_the_load_is_spread_and_the_samples_are_fair() -> None:
    """The bar for requests is for many finders: here they are so few that chance alone has more of a say."""
    assert number("records_ratio") <= 3.0
    assert number("requests_ratio") <= 4.0
    assert all(number(name) > 0.01 for name in ran() if name.startswith("p_"))
    assert number("found_nobody") == number("found_less") == 0
    assert number("found_mean") == 10


def test_real_announcements_go_where_the_made_up_ones_were_put() -> None:
    assert number("announced_records") > 100
    assert number("announced_misplaced") == 0
    depths = ran()["depths"]
    assert isinstance(depths, list)
    assert {depth for depth, _ in ran()["announcer_depths"]} <= {depth for depth, _ in depths}  # type: ignore[attr-defined]


def test_a_find_costs_a_few_lookups_however_many_providers_there_are() -> None:
    assert number("messages_mean") < 60
    assert number("first_mean_rtts") < 2.5


def test_a_service_of_a_few_has_one_key() -> None:
    report, held, _ = dht_service.run(60, 20, 20, 0, 0, seed=1)
    assert report["leaves"] == 1
    assert report["depths"] == [(0, 20)]
    assert held == [20] * 20
    assert report["found_mean"] == 20.0


def test_it_repeats() -> None:
    again = dht_service.run(*SMALL, seed=1)[0]
    assert {**again, "wall_s": 0} == {**ran(), "wall_s": 0}


def test_leaves_split_until_they_are_small_enough() -> None:
    ids = [place << 250 for place in range(64)]
    assert leaf_depths(ids, 64) == [0] * 64
    assert leaf_depths(ids, 63) == [1] * 64
    assert leaf_depths(ids, 1) == [6] * 64


def test_the_p_value_tells_even_counts_from_uneven_ones() -> None:
    sizes = Counter(dict.fromkeys(range(101), 10))
    assert p_value(Counter(dict.fromkeys(range(101), 100)), sizes) == pytest.approx(1.0)
    uneven = Counter({group: 100 + 12 * (-1) ** group for group in range(101)})
    assert p_value(uneven, sizes) < 0.01
    chi_of_its_mean = Counter({group: 100 + 10 * (-1) ** group for group in range(101)})
    assert 0.3 < p_value(chi_of_its_mean, sizes) < 0.6
