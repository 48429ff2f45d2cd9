"""What the balancer's pieces share: what is wanted, a provider that fits, and how those that fit are ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    extra_s: what speaks against it beside its load (distance, affinity), as seconds of delay, at least 0.
    expected: how many requests it is expected to have by now, others' since the signal included; None where the
    rule does not estimate that. note: what else decided, in words.
    """

    provider: PeerId
    entry: LoadEntry
    load: int
    age_s: float
    suspected: bool = False
    beaten: PeerId | None = None
    extra_s: float = 0.0
    expected: float | None = None
    note: str = ""

    @property
    def reason(self) -> str:
        """The choice in words."""
        words = f"{self.load} in flight {self.age_s:.1f} s ago"
        if self.expected is not None:
            words += f", about {self.expected:.1f} expected by now"
        if self.extra_s:
            words += f", {self.extra_s:.3f} s for where and what it is"
        if self.beaten is not None:
            words += f", preferred to {self.beaten.short}"
        if self.note:
            words += f", {self.note}"
        return words + ", silent for too long" if self.suspected else words


class Rule(Protocol):
    """Ranks the providers that fit: returns the same choices, best first. Any function will do; one that
    trusts in speed alone:

        def fastest(choices: Sequence[Choice], rng: Random) -> list[Choice]:
            return sorted(choices, key=lambda choice: -choice.entry.signal.speed)

        choose(table, need, now, rng, rule=fastest)

    A rule draws from `rng` only, changes nothing, and need not mind suspects: they are ranked apart.
    """

    def __call__(self, choices: Sequence[Choice], rng: Random) -> list[Choice]: ...
