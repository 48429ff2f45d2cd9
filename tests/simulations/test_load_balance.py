"""Small versions of the balancer's simulations: the order of the rules, and figures within wide bounds."""

from __future__ import annotations

import pytest

from simulations.load_balance import ADAPTIVE, MIXED, SAME, closed_form, held_out, measure
from simulations.queues import Setting, best_of, by, oracle, prequal
from swarmp2p.gossip.balancer import least_loaded


def test_closed_forms() -> None:
    assert [closed_form(0.9, draws) for draws in (1, 2, 3)] == pytest.approx([10, 2.6141, 2.0279], rel=1e-3)


@pytest.mark.parametrize("draws", [1, 2, 3])
def test_supermarket(draws: int) -> None:
    setting = Setting((1.0,) * 200, 0.5, requests=40_000)
    assert measure(setting, best_of(draws), 1).mean == pytest.approx(closed_form(0.5, draws), rel=0.04)


def test_on_a_stale_board_adaptive_is_no_worse_than_others() -> None:
    for period in (0.1, 5.0):
        setting = Setting((1.0,) * 40, 0.8, period, together=True, requests=5_000)
        others = [measure(setting, policy, 1).mean for policy in (best_of(2), best_of(3), by(least_loaded))]
        assert measure(setting, by(ADAPTIVE), 1).mean <= 1.05 * min([*others, closed_form(0.8, 1)])


@pytest.mark.parametrize(
    ("speeds", "refresh_s", "mean", "p99"), [(SAME, 0.5, 1.6, 7.0), (MIXED, 2.0, 1.85, 9.0)]
)
def test_fifty_servers_and_one_probe(
    speeds: tuple[float, ...], refresh_s: float, mean: float, p99: float
) -> None:
    setting = Setting(speeds, 0.8, refresh_s, clients=10, own=True, requests=5_000)
    outcome = measure(setting, by(ADAPTIVE, probe=True), 1)
    assert outcome.mean <= mean
    assert outcome.p99 <= p99
    assert outcome.probes == setting.requests
    assert measure(setting, oracle, 1).mean < outcome.mean < measure(setting, prequal(3), 1).mean


def test_runs_repeat() -> None:
    setting = Setting(MIXED, 0.8, 2.0, clients=3, own=True, requests=500)
    assert measure(setting, by(ADAPTIVE, probe=True), 7) == measure(setting, by(ADAPTIVE, probe=True), 7)


def test_held_out_adaptive_is_better_than_the_others() -> None:
    report = held_out(0.05, 1)
    worst, with_probe = report["held_out_worst"], report["held_out_worst_1_probe"]
    assert isinstance(worst, float)
    assert isinstance(with_probe, float)
    assert with_probe < worst <= 1.05
