"""Where providers should be, beside how loaded they are: affinity, spread and nearness.

Affinity and nearness change what a provider costs before the rule ranks; spread changes the ranking after it, since
whether a place is taken depends on who stands before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, cast

from ..errors import UsageError
from ..identity import PeerId
from ..settings import check_settings
from .choice import Choice
from .load_table import LoadEntry

UNKNOWN_DISTANCE_S: Final = 0.3
"""Round trip to a provider whose coordinate is not known: that of the farthest regions."""

Distance = Callable[[PeerId], float | None]
"""Expected round trip to a provider in seconds; None for unknown."""

Price = Callable[[LoadEntry], float | None]
"""What a provider costs; None for too much."""


class Strength(Enum):
    """How much an affinity matters."""

    REQUIRE = "require"
    PREFER = "prefer"
    AVOID = "avoid"
    FORBID = "forbid"


@dataclass(frozen=True, slots=True)
class Affinity:
    """Providers to have, or not. One matches that is named in any of the sets; where all are empty none does.

    worth_s: for PREFER and AVOID, the seconds of delay that are accepted for it.
    """

    strength: Strength
    peers: frozenset[PeerId] = frozenset()
    kinds: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()
    worth_s: float = 60.0

    def __post_init__(self) -> None:
        """Raises UsageError for a worth that is no length of time, and for a text or an id where a set of them is
        wanted: all letters of "edge" would be kinds."""
        check_settings(self)
        if not isinstance(cast(object, self.strength), Strength):
            raise UsageError(f"an affinity's strength is Strength.REQUIRE or another, not {self.strength!r}")
        sets: tuple[tuple[str, type[object]], ...] = (("peers", PeerId), ("kinds", str), ("regions", str))
        for name, kind in sets:
            value: object = getattr(self, name)
            if not isinstance(value, Set) or not all(isinstance(x, kind) for x in cast(Set[object], value)):
                raise UsageError(
                    f"an affinity's {name} are a set of {kind.__name__}, such as frozenset({{...}}), not {value!r}"
                )

    def matches(self, entry: LoadEntry) -> bool:
        """Whether it is about this provider."""
        signal = entry.signal
        return entry.provider in self.peers or signal.kind in self.kinds or signal.region in self.regions


def by_region(entry: LoadEntry) -> str:
    """For Spread: providers of one region share a place; those of none each have their own."""
    return entry.signal.region or entry.provider.hex()


@dataclass(frozen=True, slots=True)
class Spread:
    """At most so many providers of one place, such as a region or an operator.

    place: names a provider's. most: of each place. used: those taken already. hard: those too many are left out;
    otherwise they come after all that are not.
    """

    place: Callable[[LoadEntry], str] = by_region
    most: int = 1
    used: Mapping[str, int] = field(default_factory=dict[str, int])
    hard: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError for fewer than one."""
        check_settings(self, ("most",))

    def apply(self, ranked: Iterable[Choice]) -> list[Choice]:
        """The ranking with those too many last, or without them."""
        counts = dict(self.used)
        first: list[Choice] = []
        last: list[Choice] = []
        for choice in ranked:
            place = self.place(choice.entry)
            count = counts[place] = counts.get(place, 0) + 1
            if count <= self.most:
                first.append(choice)
            elif not self.hard:
                last.append(replace(choice, note=f"after {self.most} others of {place}"))
        return first + last


@dataclass(frozen=True, slots=True)
class Placement:
    """All of it. distance: of providers, such as `peer.distance`. distance_weight: what a second of round trip counts
    as, in seconds of delay; about the number of round trips that a request or lease is used for. price: what a provider
    costs you, in any unit, by what its signal says of it (kind, region, size); None for one that you cannot pay.
    price_weight: what one unit counts as, in seconds of delay."""

    affinities: Sequence[Affinity] = ()
    spreads: Sequence[Spread] = ()
    distance: Distance | None = None
    distance_weight: float = 1.0
    price: Price | None = None
    price_weight: float = 1.0

    def __post_init__(self) -> None:
        """Raises UsageError for a weight that is none, and for one affinity or spread without a list of them."""
        check_settings(self)
        lists: tuple[tuple[str, type[object]], ...] = (("affinities", Affinity), ("spreads", Spread))
        for name, kind in lists:
            value: object = getattr(self, name)
            if not isinstance(value, Sequence) or not all(
                isinstance(x, kind) for x in cast(Sequence[object], value)
            ):
                raise UsageError(f"Placement.{name} are a list of {kind.__name__}, not {value!r}")
        if not (self.distance is None or callable(self.distance)):
            raise UsageError(f"Placement.distance is a function such as peer.distance, not {self.distance!r}")
        if not (self.price is None or callable(self.price)):
            raise UsageError(f"Placement.price is a function of a LoadEntry, not {self.price!r}")

    def extra_s(self, entry: LoadEntry) -> float | None:
        """What speaks against a provider, as seconds of delay; None when it is ruled out."""
        extra_s = 0.0
        for affinity in self.affinities:
            matches = affinity.matches(entry)
            match affinity.strength:
                case Strength.REQUIRE:
                    if not matches:
                        return None
                case Strength.FORBID:
                    if matches:
                        return None
                case Strength.PREFER:
                    extra_s += 0.0 if matches else affinity.worth_s
                case Strength.AVOID:
                    extra_s += affinity.worth_s if matches else 0.0
        if self.distance is not None:
            rtt_s = self.distance(entry.provider)
            extra_s += self.distance_weight * (UNKNOWN_DISTANCE_S if rtt_s is None else max(0.0, rtt_s))
        if self.price is not None:
            price = self.price(entry)
            if price is None:
                return None
            extra_s += self.price_weight * max(0.0, price)
        return extra_s

    def beside(self, entries: Iterable[LoadEntry]) -> Placement:
        """The same, with these providers' places taken."""
        taken = list(entries)
        spreads: list[Spread] = []
        for spread in self.spreads:
            used = dict(spread.used)
            for entry in taken:
                place = spread.place(entry)
                used[place] = used.get(place, 0) + 1
            spreads.append(replace(spread, used=used))
        return replace(self, spreads=spreads)

    def spread(self, ranked: list[Choice]) -> list[Choice]:
        """The ranking after all spreads."""
        for spread in self.spreads:
            ranked = spread.apply(ranked)
        return ranked


ANYWHERE: Final = Placement()
