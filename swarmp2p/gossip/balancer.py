"""choose(): which providers to ask for a need, best first. Pure.

Those that fit are ranked by a rule: `Adaptive` unless another is given (rules.py has some, choice.py says how to write
one). Random draws keep clients with equally stale tables from herding onto one provider; how much is left to chance
depends on how old the signals are. Requests of one's own that no signal can have shown yet are added. Where providers
should be (placement.py) counts as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Final

from ..identity import PeerId
from .adaptive import Adaptive
from .choice import Choice, Rule, Wanted
from .load_signal import LoadSignal
from .load_table import LoadEntry
from .placement import ANYWHERE, Affinity, Placement, Spread, Strength
from .rules import PowerOf, least_loaded, power_of_two, uniform

__all__ = [
    "ADAPTIVE",
    "ANYWHERE",
    "Adaptive",
    "Affinity",
    "Choice",
    "Placement",
    "PowerOf",
    "Rule",
    "Spread",
    "Strength",
    "Wanted",
    "after_probes",
    "choose",
    "least_loaded",
    "power_of_two",
    "reconsider",
    "uniform",
]

ADAPTIVE: Final = Adaptive()


def choose(
    entries: Iterable[LoadEntry],
    need: Wanted,
    now: float,
    rng: Random,
    outstanding: Mapping[PeerId, int] | None = None,
    rule: Rule = ADAPTIVE,
    placement: Placement = ANYWHERE,
) -> list[Choice]:
    """Providers that fit the need, best first; those under suspicion come last, in an order of their own.

    entries: a LoadTable, such as `peer.loads`, or any part of it. need: a Need. now: as `peer.now()`. outstanding: our
    own requests to each provider that its signal does not count yet. rule: how those that fit are ranked. placement:
    where they should be.
    """
    outstanding = outstanding or {}
    sure: list[Choice] = []
    doubtful: list[Choice] = []
    for entry in entries:
        signal = entry.signal
        if not fits(signal, need):
            continue
        extra_s = 0.0
        if placement is not ANYWHERE:
            against = placement.extra_s(entry)
            if against is None:
                continue
            extra_s = against
        provider = entry.provider
        load = signal.in_flight + outstanding.get(provider, 0)
        suspected = entry.suspected
        choice = Choice(provider, entry, load, entry.age(now), suspected, extra_s=extra_s)
        (doubtful if suspected else sure).append(choice)
    ranked = rule(sure, rng)
    if doubtful:
        ranked = ranked + rule(doubtful, rng)
    return placement.spread(ranked) if placement.spreads else ranked


def fits(signal: LoadSignal, need: Wanted) -> bool:
    """Whether a provider has what is needed."""
    return not (
        signal.cpus_free < need.cpus
        or signal.gpus_free < need.gpus
        or signal.memory_free_bytes < need.memory_bytes
        or (need.kind and signal.kind != need.kind)
        or (need.region and signal.region != need.region)
    )


def after_probes(
    ranked: Sequence[Choice], signals: Mapping[PeerId, LoadSignal], silent: Collection[PeerId], need: Wanted
) -> list[Choice]:
    """The ranking after some providers were asked for their signals: `reconsider`, without those that do not fit any
    more, and with those last that did not answer.

    signals: what they said. silent: who did not answer.
    """
    left: list[Choice] = []
    last: list[Choice] = []
    for choice in ranked:
        signal = signals.get(choice.provider)
        if signal is not None and not fits(signal, need):
            continue
        if signal is not None:
            left.append(replace(choice, entry=replace(choice.entry, signal=signal)))
        elif choice.provider in silent:
            last.append(replace(choice, note="did not answer"))
        else:
            left.append(choice)
    return reconsider(left, {provider: signal.in_flight for provider, signal in signals.items()}) + last


def reconsider(ranked: Sequence[Choice], loads: Mapping[PeerId, int]) -> list[Choice]:
    """The ranking once the first few were probed: one that has at least half a request more than expected steps back
    behind the first that was not probed, or that is not so loaded.

    loads: requests in flight at those that answered, now. How loaded those are that were not asked, their `expected`
    says; where the rule did not estimate it, the ranking stays.
    """
    kept: list[Choice] = []
    back: list[Choice] = []
    for place, choice in enumerate(ranked):
        load = loads.get(choice.provider)
        probed = choice if load is None else replace(choice, load=load, age_s=0.0, note="probed")
        if load is None or choice.expected is None:
            return [*kept, probed, *sorted(back, key=lambda each: each.load), *ranked[place + 1 :]]
        if load > max(0.0, choice.expected - 0.5):
            back.append(replace(probed, note="probed: busier than expected"))
        else:
            kept.append(probed)
    return kept + sorted(back, key=lambda each: each.load)
