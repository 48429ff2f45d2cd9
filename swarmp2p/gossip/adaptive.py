"""Adaptive: the balancer's rule, which takes into account what others do with signals as old as ours.

Theory of operation. Everybody sees about the same signals and wants the least loaded, so that by now those have
had what they lacked (Dahlin, "Interpreting Stale Load Information", 2000). How much has arrived since is visible:
in the long run a provider is busy for the share of its capacity that is used, so the speeds of those whose signals
show them busy add up to the rate of arrivals. These arrivals, speed x mean age of the signals and the one request to
be placed, are poured onto the providers like water, fastest first onto the lowest: in a time `level` (seconds of work)
each provider is as full as the others unless it was fuller to begin with and has not worked it off.

    lacking   0 <= in flight < level x speed: had at once what it lacked, and as much as it serves since then
    draining  above the level at first; gets as much as it serves once it would have fallen below
    full      still above: nobody asks it

One's own request goes where the flow goes: by lot, in proportion to the flow to each at its signal's age. A signal
that just came shows a place that nobody has filled, which attracts `catch_up` x what is lacking a service time;
fresh signals therefore decide sharply. With old ones all are at the level, and the lot is nearly by speed.

The best open-loop control of the mean field that gradient descent found (each provider's arrivals a function of its
last signal and its age) has this shape; simulations/load_balance.py has figures, and says what they are worth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from ..settings import check_settings
from .choice import Choice

_ROUNDS: Final = 30  # of Newton's method; three to eight are usual
_CLOSE_ENOUGH: Final = 0.01  # of the arrivals, in the level's search

_View = tuple[float, float, float, float]  # load with own requests, age_s, requests served a second, extra_s


@dataclass(frozen=True, slots=True)
class Adaptive:
    """The rule with its settings.

    service_s: how long a request takes at a provider that says nothing of its latency and has usual speed, in seconds;
        a minute is a guess. What is old or fresh is measured by it.
    catch_up: how much of what a provider lacks others bring in a service time. 10 to 50 did equally well.
    sample: of more providers than that, as many drawn at random are weighed; the others come after them.
    """

    service_s: float = 60.0
    catch_up: float = 20.0
    sample: int = 256

    def __post_init__(self) -> None:
        """Raises UsageError for what is not positive."""
        check_settings(self, ("service_s", "catch_up", "sample"))

    def __call__(self, choices: Sequence[Choice], rng: Random) -> list[Choice]:
        """Ranks by successive draws without replacement; then those that are full, the soonest free first."""
        weighed = rng.sample(choices, min(self.sample, len(choices)))
        views = self._views(weighed)
        arrived = 1.0 + _arrived(weighed, views)
        level = _level(views, arrived)
        drawn: list[tuple[float, int]] = []
        later: list[tuple[float, int]] = []
        for place, (load, age_s, rate, extra_s) in enumerate(views):
            full = (level - extra_s) * rate
            weight = self._flow(load, age_s, rate, full)
            # Own requests are there for certain, whatever was worked off.
            own = load - weighed[place].entry.signal.in_flight
            if own and weight > 0:
                weight *= max(0.0, 1.0 - own / full)
            if weight > 0:
                # The order of exponential times is that of draws without replacement.
                drawn.append((-math.log(1.0 - rng.random()) / weight, place))
            else:
                own = load - weighed[place].entry.signal.in_flight
                later.append((max(own / rate, load / rate - age_s) + extra_s, place))
        drawn.sort()
        later.sort()
        ranked = [
            replace(weighed[place], expected=max(0.0, level - views[place][3]) * views[place][2])
            for _, place in drawn
        ]
        ranked += [weighed[place] for _, place in later]
        if len(choices) > len(weighed):
            seen = {choice.provider for choice in weighed}
            rest = [choice for choice in choices if choice.provider not in seen]
            rng.shuffle(rest)
            ranked += rest
        return ranked

    def _views(self, choices: Sequence[Choice]) -> list[_View]:
        """How fast each serves: by its latency, which holds for one more request than are in flight; else by its
        speed beside the others' mean."""
        speeds = [choice.entry.signal.speed for choice in choices if choice.entry.signal.speed]
        usual = sum(speeds) / len(speeds) if speeds else 1.0
        views: list[_View] = []
        for choice in choices:
            signal = choice.entry.signal
            if signal.latency_s:
                rate = (signal.in_flight + 1) / signal.latency_s
            else:
                rate = (signal.speed / usual if signal.speed else 1.0) / self.service_s
            # Nobody is believed to be free of cost, nor so slow that rates lose their meaning.
            rate = min(max(rate, 1e-6), 1e6)
            views.append((choice.load, max(0.0, choice.age_s), rate, choice.extra_s))
        return views

    def _flow(self, load: float, age_s: float, rate: float, level: float) -> float:
        """Requests a second that come to a provider now. level: in requests."""
        if level <= 0 or (load > level and (load - level) > age_s * rate):
            return 0.0
        flow = rate * -math.expm1(-level)
        if load < level:
            flow += (level - load) * self.catch_up * rate * math.exp(-self.catch_up * rate * age_s)
        return flow


def _arrived(choices: Sequence[Choice], views: Sequence[_View]) -> float:
    """Requests that came to all of them since their signals, on average."""
    if not views:
        return 0.0
    served = sum(
        rate
        for choice, (_, _, rate, _) in zip(choices, views, strict=True)
        if choice.entry.signal.in_flight > 0
    )
    return served * sum(age_s for _, age_s, _, _ in views) / len(views)


def _level(views: Sequence[_View], arrived: float) -> float:
    """Seconds of work up to which so many arrivals fill the providers: Newton's method within a bracket."""
    low = min((load / rate + extra_s for load, _, rate, extra_s in views), default=0.0)
    low = max(0.0, low - max((age_s for _, age_s, _, _ in views), default=0.0))
    high, level = math.inf, low + arrived / max(sum(rate for _, _, rate, _ in views), 1e-9)
    for _ in range(_ROUNDS):
        poured, slope = _poured(views, level)
        if abs(poured - arrived) <= _CLOSE_ENOUGH * arrived:
            break
        if poured < arrived:
            low = level
        else:
            high = level
        step = level + (arrived - poured) / slope if slope > 0 else math.inf
        if low < step < high and step < math.inf:
            level = step
        else:
            level = (low + high) / 2 if high < math.inf else 2 * level + 1e-3
    return level


def _poured(views: Sequence[_View], level_s: float) -> tuple[float, float]:
    """Arrivals that a level stands for, and their derivative by it."""
    poured = slope = 0.0
    exp = math.exp
    for load, age_s, rate, extra_s in views:
        level = (level_s - extra_s) * rate
        if level <= 0:
            continue
        idle = exp(-level)
        busy = rate * (1.0 - idle)
        if level >= load:
            poured += level - load + busy * age_s
            slope += rate + rate * rate * idle * age_s
        else:
            spell_s = age_s - (load - level) / rate
            if spell_s > 0:
                poured += busy * spell_s
                slope += busy + rate * rate * idle * spell_s
    return poured, slope
