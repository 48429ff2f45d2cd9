"""Amounts as people write them: memory, spans of time, hours of the day. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from .errors import UsageError

_BYTES: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DAY_MINUTES: Final = 24 * 60
_MOST_WINDOWS: Final = 16
_DAYS_AHEAD: Final = 2


def memory_bytes(text: str) -> int:
    """A size such as 8G, 512M, 1.5GiB or 4000000: units are powers of 1024. Raises UsageError."""
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([KMGT]?)(?:iB|B)?", text.strip(), re.IGNORECASE)
    if found is None or not float(found[1]):
        raise UsageError(f"{text!r} is no amount of memory: write 8G, 512M or 1.5GiB")
    return int(float(found[1]) * _BYTES[found[2].upper()])


def memory_text(count: int) -> str:
    """A size for people: 8G, 1.5G, 300M."""
    for unit in ("T", "G", "M", "K"):
        if count >= _BYTES[unit]:
            return f"{count / _BYTES[unit]:.2f}".rstrip("0").rstrip(".") + unit
    return str(count)


def span_s(text: str) -> float:
    """A span of time such as 90s, 30m, 12h or 7d, in seconds. Raises UsageError."""
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smhd])", text.strip())
    if found is None or not float(found[1]):
        raise UsageError(f"{text!r} is no span of time: write 90s, 30m, 12h or 7d")
    return float(found[1]) * _SECONDS[found[2]]


class Phase(Enum):
    """What a lender with hours does."""

    LENDING = "lending"
    NOTICE = "notice"
    RESTING = "resting"


@dataclass(frozen=True, slots=True)
class Hours:
    """Hours of every day, as an owner's clock shows them.

    windows: (first, end) in minutes since midnight, end excluded; one that ends before it begins goes over midnight,
    one that ends where it begins is the whole day.
    """

    windows: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str) -> Hours:
        """Of a text such as 22:00-08:00 or 12-13,18:30-7. Raises UsageError."""
        parts = [part.strip() for part in text.split(",")]
        if len(parts) > _MOST_WINDOWS:
            raise UsageError(f"a day has at most {_MOST_WINDOWS} windows, not {len(parts)}")
        return cls(tuple(_window(part) for part in parts))

    def open_at(self, when: datetime) -> bool:
        """Whether a moment is within; `when` says what the owner's clock shows."""
        minute = when.hour * 60 + when.minute
        return any(
            first <= minute < end if first < end else minute >= first or minute < end
            for first, end in self.windows
        )

    def changes_after(self, when: datetime) -> datetime | None:
        """When that is next otherwise, two days ahead at most; None when it never is. An aware `when` keeps its fixed
        offset: ask again after an hour or so, for clocks are put forward and back."""
        now = self.open_at(when)
        midnight = when.replace(hour=0, minute=0, second=0, microsecond=0)
        edges = sorted({minute % _DAY_MINUTES for window in self.windows for minute in window})
        for day in range(_DAYS_AHEAD):
            for minute in edges:
                edge = midnight + timedelta(days=day, minutes=minute)
                if edge > when and self.open_at(edge) != now:
                    return edge
        return None

    def phase(self, when: datetime, notice_s: float) -> tuple[Phase, datetime | None]:
        """What a lender does at a moment, and until when; None for as long as can be seen."""
        change = self.changes_after(when)
        if not self.open_at(when):
            return Phase.RESTING, change
        if change is None:
            return Phase.LENDING, None
        notice = change - timedelta(seconds=notice_s)
        return (Phase.LENDING, notice) if when < notice else (Phase.NOTICE, change)

    def __str__(self) -> str:
        return ",".join(f"{_clock(first)}-{_clock(end)}" for first, end in self.windows)


def _window(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,2})(?::([0-9]{2}))?-([0-9]{1,2})(?::([0-9]{2}))?", text)
    if found is not None:
        first, end = _minutes(found[1], found[2]), _minutes(found[3], found[4])
        if first is not None and first < _DAY_MINUTES and end is not None:
            return first, end % _DAY_MINUTES
    raise UsageError(f"{text!r} are no hours of a day: write 22:00-08:00, or several with commas between")


def _minutes(hour: str, minute: str | None) -> int | None:
    total = int(hour) * 60 + int(minute or 0)
    return total if total <= _DAY_MINUTES and int(minute or 0) < 60 else None


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
