"""Amounts as people write them."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.errors import UsageError
from swarmp2p.units import Hours, Phase, memory_bytes, memory_text, span_s


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("4096", 4096),
        ("8G", 8 << 30),
        ("512m", 512 << 20),
        ("1.5 GiB", 3 << 29),
        ("2TB", 2 << 40),
        ("1k", 1024),
    ],
)
def test_memory(text: str, count: int) -> None:
    assert memory_bytes(text) == count


@pytest.mark.parametrize("text", ["", "much", "-1G", "0", "8X", "1e9", "nan", "8 G B"])
def test_memory_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="write 8G, 512M"):
        memory_bytes(text)


@given(st.integers(1, 2**44))
def test_memory_for_people_is_within_a_hundredth(count: int) -> None:
    assert memory_bytes(memory_text(count)) == pytest.approx(count, rel=0.01)


def test_spans() -> None:
    assert [span_s(text) for text in ("90s", "30m", "1.5h", "7d")] == [90, 1800, 5400, 604_800]
    for text in ("", "30", "0s", "5w", "-1s"):
        with pytest.raises(UsageError, match="write 90s, 30m"):
            span_s(text)


def at(clock: str) -> datetime:
    return datetime.fromisoformat(f"2026-05-04T{clock}")


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        ("22:00-08:00", ["22:00", "23:59", "00:00", "07:59"], ["08:00", "12:00", "21:59"]),
        ("9-17:30", ["09:00", "17:29"], ["08:59", "17:30", "00:00"]),
        ("12-13,18-24", ["12:30", "18:00", "23:59"], ["13:00", "00:00", "11:59"]),
        ("0-24", ["00:00", "12:00", "23:59"], []),
    ],
)
def test_hours(hours: str, inside: list[str], outside: list[str]) -> None:
    parsed = Hours.parse(hours)
    assert [clock for clock in inside if not parsed.open_at(at(clock))] == []
    assert [clock for clock in outside if parsed.open_at(at(clock))] == []
    assert Hours.parse(str(parsed)) == parsed


def test_the_next_change() -> None:
    night = Hours.parse("22:00-08:00")
    assert night.changes_after(at("21:00")) == at("22:00")
    assert night.changes_after(at("23:00")) == at("08:00") + timedelta(days=1)
    assert night.changes_after(at("22:00")) == at("08:00") + timedelta(days=1)
    assert Hours.parse("0-24").changes_after(at("12:00")) is None
    assert Hours.parse("8-12,12-20").changes_after(at("09:00")) == at("20:00"), "windows that touch are one"


def test_what_a_lender_does_by_the_clock() -> None:
    night = Hours.parse("22:00-08:00")
    assert night.phase(at("21:00"), 60) == (Phase.RESTING, at("22:00"))
    assert night.phase(at("07:00"), 60) == (Phase.LENDING, at("07:59"))
    assert night.phase(at("07:59"), 60) == (Phase.NOTICE, at("08:00"))
    assert Hours.parse("0-24").phase(at("07:59"), 60) == (Phase.LENDING, None)


@pytest.mark.parametrize("text", ["", "night", "25-26", "8:75-9", "8", "24-8", "-", ",".join(["1-2"] * 17)])
def test_hours_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        Hours.parse(text)


minutes = st.integers(0, 24 * 60 - 1)


@given(st.lists(st.tuples(minutes, minutes), min_size=1, max_size=4), minutes)
def test_nothing_changes_before_the_next_change(windows: list[tuple[int, int]], minute: int) -> None:
    hours = Hours(tuple(windows))
    when = at("00:00") + timedelta(minutes=minute)
    end = hours.changes_after(when)
    now = hours.open_at(when)
    until = 24 * 60 if end is None else int((end - when).total_seconds()) // 60
    assert all(hours.open_at(when + timedelta(minutes=step)) is now for step in range(0, until, 7))
    if end is not None:
        assert hours.open_at(end) is not now
