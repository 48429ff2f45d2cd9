"""φ, rhythms and local health."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.errors import UsageError
from swarmp2p.gossip.suspicion import LocalHealth, Rhythm, SuspicionConfig, deviations, phi

CONFIG = SuspicionConfig()
FAR = deviations(CONFIG.threshold)


# φ ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [1.0, 3.0, 8.0, 15.0])
def test_phi_is_the_logarithm_of_the_tail_of_a_normal_distribution(threshold: float) -> None:
    """Hayashibara et al., 2004, §3: φ = -log10 of the chance that the next heartbeat comes even later."""
    assert phi(2.0 + 0.5 * deviations(threshold), 2.0, 0.5) == pytest.approx(threshold, rel=1e-3)
    assert NormalDist().cdf(-deviations(threshold)) == pytest.approx(10**-threshold, rel=1e-3)


def test_eight_is_five_point_six_deviations() -> None:
    assert pytest.approx(5.612, abs=0.001) == FAR
    assert phi(1.0, 1.0, 0.3) == pytest.approx(math.log10(2.0))


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 100), st.floats(0.001, 100))
def test_phi_never_falls_in_silence(a_s: float, b_s: float, mean_s: float, deviation_s: float) -> None:
    less, more = sorted((phi(min(a_s, b_s), mean_s, deviation_s), phi(max(a_s, b_s), mean_s, deviation_s)))
    assert phi(min(a_s, b_s), mean_s, deviation_s) == less
    assert phi(max(a_s, b_s), mean_s, deviation_s) == more
    assert math.isfinite(more)


def test_the_far_tail_joins_on() -> None:
    assert phi(30.0 - 1e-9, 0.0, 1.0) == pytest.approx(phi(30.0, 0.0, 1.0), rel=1e-4)


# Rhythms ----------------------------------------------------------------------------------------------------

signals = st.lists(st.tuples(st.floats(0, 100), st.sampled_from([0.0, 0.1, 1.0, 5.0])), max_size=40)


@given(signals, st.floats(0, 1000))
def test_a_limit_is_the_silence_at_which_phi_reaches_the_threshold(
    history: list[tuple[float, float]], silence_s: float
) -> None:
    config = replace(CONFIG, min_s=0.0)
    rhythm, now = Rhythm(0.0, 0.0), 0.0
    for pause_s, heartbeat_s in history:
        now += pause_s
        rhythm.signal(now, heartbeat_s, config)
    limit_s = rhythm.limit_s(config, FAR)
    if silence_s > limit_s * 1.001:
        assert rhythm.phi(rhythm.heard + silence_s, config) >= 8.0
    elif silence_s < limit_s * 0.999:
        assert rhythm.phi(rhythm.heard + silence_s, config) <= 8.0


def test_who_keeps_its_promises_is_believed() -> None:
    rhythm = Rhythm(0.0, 5.0)
    for number in range(1, 50):
        rhythm.signal(number * 4.8, 5.0, CONFIG)
    assert rhythm.limit_s(CONFIG, FAR) == pytest.approx(5.0 + 1.0 + 0.1 * FAR)


def test_signals_on_change_say_nothing_about_the_pause_after_them() -> None:
    rhythm = Rhythm(0.0, 5.0)
    for number in range(1, 50):
        rhythm.signal(number * 0.1, 5.0, CONFIG)
    assert rhythm.limit_s(CONFIG, FAR) > 6.0


def test_who_overruns_its_promises_is_given_more_time() -> None:
    rhythm, now = Rhythm(0.0, 1.0), 0.0
    for number in range(60):
        now += 1.0 if number % 3 else 1.8
        rhythm.signal(now, 1.0, CONFIG)
    assert rhythm.limit_s(CONFIG, FAR) > 3.5


def test_a_long_absence_does_not_make_the_next_one_unnoticed() -> None:
    rhythm = Rhythm(0.0, 1.0)
    rhythm.signal(3600.0, 1.0, CONFIG)
    assert rhythm.limit_s(CONFIG, FAR) < 4.0


def test_nothing_is_known_of_who_sent_one_signal_and_promised_nothing() -> None:
    rhythm = Rhythm(0.0, 0.0)
    assert rhythm.limit_s(CONFIG, FAR) == math.inf
    assert rhythm.phi(1e9, CONFIG) == 0.0


# Local health -----------------------------------------------------------------------------------------------


def test_who_wakes_up_late_accuses_nobody_for_as_long_as_it_was_away() -> None:
    health = LocalHealth(CONFIG)
    health.called(10.0, 10.2)
    assert (health.held_until(10.2), health.patience(10.2)) == (-math.inf, 1.0)
    health.called(10.0, 15.0)
    assert health.held_until(15.0) == 20.0
    health.called(20.0, 20.5)
    assert health.held_until(20.5) == 21.5, "a second at least"
    health.called(30.0, 3600.0)
    assert health.held_until(3600.0) == 3610.0, "ten seconds at most"


def test_lateness_makes_patient_and_heals() -> None:
    health, now = LocalHealth(CONFIG), 0.0
    for number in range(1, 12):
        now += 1.0
        health.called(now - 0.5, now)
        assert health.patience(now) == pytest.approx(1.0 + min(number * 1.0, 8.0), abs=1.2)
    assert health.patience(now) == 9.0
    assert health.patience(now + 40.0) == pytest.approx(5.0)
    assert health.patience(now + 80.0) == 1.0


def test_who_hears_nothing_at_all_accuses_nobody() -> None:
    health = LocalHealth(CONFIG)
    for tenth in range(101):
        health.heard(tenth / 10)
    assert health.held_until(10.7) == -math.inf
    assert health.held_until(10.9) == pytest.approx(11.4), "eight of the longest gaps have passed"
    assert health.held_until(14.0) == pytest.approx(14.5)
    assert health.held_until(21.0) == -math.inf, "nobody is there any more, whoever is to blame"
    health.heard(14.0)
    assert health.held_until(14.0) == 18.0, "what waited is read first"


def test_where_few_say_something_quiet_means_nothing() -> None:
    health = LocalHealth(CONFIG)
    for second in range(100):
        health.heard(second + 0.3 * (second % 2))
    assert health.held_until(99.3 + 5.0) == -math.inf


def test_a_fixed_time_out_knows_no_health() -> None:
    """It is there to compare with."""
    config = SuspicionConfig(fixed_s=2.5)
    health, rhythm = LocalHealth(config), Rhythm(0.0, 1.0)
    health.called(0.0, 100.0)
    assert (health.held_until(100.0), health.patience(100.0)) == (-math.inf, 1.0)
    assert rhythm.limit_s(config, FAR) == 2.5


@pytest.mark.parametrize(
    "values",
    [
        {"threshold": 0.0},
        {"threshold": 16.0},
        {"min_deviation_s": 0.0},
        {"window": 0},
        {"pause_s": -1.0},
        {"interval_fades": 1.1},
        {"max_hold_s": 0.5},
        {"heals_s": 0.0},
        {"fixed_s": 0.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"suspicion|SuspicionConfig"):
        SuspicionConfig(**values)
