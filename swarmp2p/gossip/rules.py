"""Rules of the balancer that do not mind how old signals are. Adaptive (adaptive.py) does, and is the default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from ..settings import check_settings
from .choice import Choice


@dataclass(frozen=True, slots=True)
class PowerOf:
    """Draw `draws` at random, take the least loaded, put the others back, and so on (Mitzenmacher's d choices)."""

    draws: int = 2

    def __post_init__(self) -> None:
        """Raises UsageError for fewer than one draw."""
        check_settings(self, ("draws",))

    def __call__(self, choices: Sequence[Choice], rng: Random) -> list[Choice]:
        left = list(choices)
        ranked: list[Choice] = []
        while left:
            places = rng.sample(range(len(left)), min(self.draws, len(left)))
            places.sort(key=lambda place: cost(left[place]))  # stable: draws break ties
            best = left[places[0]]
            if len(places) > 1:
                best = replace(best, beaten=left[places[1]].provider)
            ranked.append(best)
            left[places[0]] = left[-1]  # the winner's place is filled with the last of the list
            left.pop()
        return ranked


power_of_two = PowerOf(2)


def least_loaded(choices: Sequence[Choice], rng: Random) -> list[Choice]:
    """By load, those equal by lot. Right while signals are fresh; a herd when they are not."""
    ranked = uniform(choices, rng)
    ranked.sort(key=cost)
    return ranked


def uniform(choices: Sequence[Choice], rng: Random) -> list[Choice]:
    """By lot."""
    return rng.sample(choices, len(choices))


def cost(choice: Choice) -> tuple[float, int, float, float]:
    """Requests and what else speaks against a provider; then leases, its latency, and how much room it has."""
    signal = choice.entry.signal
    return choice.load + choice.extra_s, signal.leases, signal.latency_s, -signal.cpus_free
