"""choose(): which providers to ask for a need, best first. Pure.

The rule is the power of two choices: of two providers drawn at random the less loaded one is better, and the
ranking is made by drawing again from those left. Random draws keep clients with equally stale tables from
herding onto one provider (measured: with signals 10 intervals old, "least loaded" waits four times as
long); comparing two takes most of the waiting away. Requests of one's own that no signal can have shown yet
are added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol

from ..identity import PeerId
from .load_table import LoadEntry


class Wanted(Protocol):
    """What is needed of a provider: at least so much, of a kind and in a region unless these are ""."""

    @property
    def cpus(self) -> float: ...
    @property
    def gpus(self) -> float: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def region(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Choice:
    """A provider that fits, and why it stands where it does.

    load: requests in flight by its signal, and our own outstanding ones. age_s: of that signal. suspected: it
    has been silent for too long, and comes after all others. beaten: whom it was preferred to, if to anybody.
    """

    provider: PeerId
    entry: LoadEntry
    load: int
    age_s: float
    suspected: bool = False
    beaten: PeerId | None = None

    @property
    def reason(self) -> str:
        """The choice in words."""
        words = f"{self.load} in flight {self.age_s:.1f} s ago"
        if self.beaten is not None:
            words += f", preferred to {self.beaten.short}"
        return words + ", silent for too long" if self.suspected else words


class Rule(Protocol):
    """Ranks the providers that fit: returns the same choices, best first."""

    def __call__(self, choices: Sequence[Choice], rng: Random) -> list[Choice]: ...


def power_of_two(choices: Sequence[Choice], rng: Random) -> list[Choice]:
    """Draw two, take the less loaded, put the other back, and so on."""
    left = list(choices)
    ranked: list[Choice] = []
    while len(left) > 1:
        # Two different places; the winner's is filled with the last of the list.
        first = rng.randrange(len(left))
        second = rng.randrange(len(left) - 1)
        second += second >= first
        if _cost(left[second]) < _cost(left[first]):
            first, second = second, first
        ranked.append(replace(left[first], beaten=left[second].provider))
        left[first] = left[-1]
        left.pop()
    return ranked + left


def choose(
    entries: Iterable[LoadEntry],
    need: Wanted,
    now: float,
    rng: Random,
    outstanding: Mapping[PeerId, int] | None = None,
    rule: Rule = power_of_two,
) -> list[Choice]:
    """Providers that fit the need, best first; those under suspicion come last, in an order of their own.

    entries: a LoadTable, or any part of it. outstanding: our own requests to each provider that its signal
    does not count yet. rule: how those that fit are ranked.
    """
    outstanding = outstanding or {}
    sure: list[Choice] = []
    doubtful: list[Choice] = []
    for entry in entries:
        signal = entry.signal
        if (
            signal.cpus_free < need.cpus
            or signal.gpus_free < need.gpus
            or signal.memory_free_bytes < need.memory_bytes
            or (need.kind and signal.kind != need.kind)
            or (need.region and signal.region != need.region)
        ):
            continue
        provider = entry.provider
        load = signal.in_flight + outstanding.get(provider, 0)
        choice = Choice(provider, entry, load, entry.age(now), entry.suspected)
        (doubtful if entry.suspected else sure).append(choice)
    return rule(sure, rng) + rule(doubtful, rng)


def _cost(choice: Choice) -> tuple[int, int, float, float]:
    """Requests first, then leases, then what the provider says of its latency, then how much room it has."""
    signal = choice.entry.signal
    return choice.load, signal.leases, signal.latency_s, -signal.cpus_free
