"""Rates with bursts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.rates import Rates


def test_a_burst_and_then_the_rate() -> None:
    rates = Rates[str](per_s=2.0, burst=3, most=10)
    assert [rates.admits("a", 0.0) for _ in range(5)] == [True, True, True, False, False]
    assert rates.admits("b", 0.0), "everybody for himself"
    assert [rates.admits("a", 0.4), rates.admits("a", 0.5), rates.admits("a", 0.5)] == [False, True, False]
    assert [rates.admits("a", 100.0) for _ in range(4)] == [True, True, True, False]


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 2)), max_size=60), st.integers(1, 4))
def test_never_more_than_the_rate_and_a_burst(steps: list[tuple[int, float]], burst: int) -> None:
    rates = Rates[int](per_s=1.0, burst=burst, most=4)
    now = 0.0
    admitted: dict[int, list[float]] = {}
    for name, passed in steps:
        now += passed
        if rates.admits(name, now):
            admitted.setdefault(name, []).append(now)
    for times in admitted.values():
        for first, start in enumerate(times):
            for last, end in enumerate(times[first:], 1):
                assert last <= burst + (end - start) + 1e-6


def test_without_a_rate_there_is_the_burst_and_nothing_more() -> None:
    rates = Rates[str](per_s=0.0, burst=2, most=1)
    assert [rates.admits("a", now) for now in (1.7e9, 1.7e9, 1.7e9, 1.8e9)] == [True, True, False, False]


def test_who_was_refused_is_remembered_longest() -> None:
    rates = Rates[str](per_s=1.0, burst=1, most=2)
    assert rates.admits("a", 0.0)
    assert rates.admits("b", 0.1)
    assert not rates.admits("a", 0.2)
    assert rates.admits("c", 0.3), "b goes, who tried before a did"
    assert not rates.admits("a", 0.4)


def test_many_at_once_are_paid_for_afterwards() -> None:
    rates = Rates[None](per_s=10.0, burst=5, most=1)
    assert rates.admits(None, 0.0, 20), "one has room"
    assert not rates.admits(None, 1.5)
    assert rates.admits(None, 1.6)


def test_bounded() -> None:
    rates = Rates[int](per_s=1.0, burst=1, most=3)
    for name in range(10):
        assert rates.admits(name, 0.0)
        assert len(rates) <= 3
