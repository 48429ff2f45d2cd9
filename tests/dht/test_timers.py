from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.dht.timers import Timers


def test_items_come_out_in_order_of_time_then_of_adding() -> None:
    timers = Timers[str]()
    for when, item in [(3.0, "c"), (1.0, "a"), (3.0, "d"), (2.0, "b"), (9.0, "e")]:
        timers.add(when, item)
    assert timers.deadline() == 1.0
    assert timers.due(0.5) == []
    assert timers.due(3.0) == ["a", "b", "c", "d"]
    assert timers.deadline() == 9.0
    assert timers.due(9.0) == ["e"]
    assert timers.deadline() == math.inf


def test_a_cancelled_item_neither_comes_nor_counts_for_the_deadline() -> None:
    timers = Timers[str]()
    first = timers.add(1.0, "a")
    timers.add(2.0, "b")
    timers.cancel(first)
    timers.cancel(first)
    assert timers.deadline() == 2.0
    assert timers.due(5.0) == ["b"]


def test_cancelled_items_do_not_pile_up() -> None:
    timers = Timers[int]()
    timers.add(0.5, -1)
    for number in range(10_000):
        timers.cancel(timers.add(1.0 + number, number))
    assert len(timers) == 1
    assert len(timers._heap) < 100  # pyright: ignore[reportPrivateUsage]
    assert timers.due(1e9) == [-1]


@given(st.lists(st.tuples(st.floats(0, 10), st.booleans()), max_size=200), st.floats(0, 10))
def test_timers_equal_a_sorted_list(entries: list[tuple[float, bool]], now: float) -> None:
    timers = Timers[int]()
    numbers = [timers.add(when, index) for index, (when, _) in enumerate(entries)]
    kept: list[tuple[float, int]] = []
    for index, (when, cancel) in enumerate(entries):
        if cancel:
            timers.cancel(numbers[index])
        else:
            kept.append((when, index))
    kept.sort()
    assert timers.deadline() == (kept[0][0] if kept else math.inf)
    assert timers.due(now) == [index for when, index in kept if when <= now]
    assert len(timers) == sum(when > now for when, _ in kept)
