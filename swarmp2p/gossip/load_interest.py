"""Which shards of the load topic a node publishes in and follows. Nobody coordinates that.

A provider starts in the topic of all and goes one bit deeper when its shard has more than `split_above` providers, as
it counts in its own table, or when most of those there went deeper. It comes back up when fewer than `merge_below` are
left, or when most of those in the other half did, as long as both together are not too many. It stays in the topic
above its own, where nobody publishes otherwise, so that it hears of that. For `overlap_s` after a move it publishes
and listens in both topics, so that followers see where it went: each signal says its provider's depth.

    depth d --more than split_above here, or most here are deeper--> d + 1, or where those are
            --fewer than merge_below here, or the other half is above--> d - 1
    (the two numbers are a factor of 4 apart: after a split or merge the new shard is far from either)

A follower takes the shards at `followed` points (load_shards.points). Where shards are split unequally deep, it takes
whole subtrees of the smallest depth that it sees, so that providers are equally likely to be followed whatever their
depths. It goes where the providers' signals say they are, and a step up where it hears nobody.

A newcomer learns the depth from any table that it is given.

Depths are others' word, and identities cost nothing. So nobody goes deeper on the word of fewer than `merge_below`
providers of its own shard, and who has been there for longer than `hold_s` goes one step at a time: in the next shard
only half of the liars are left, so that each step takes twice as many. In a large swarm it takes more of them than
there are others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from ..errors import UsageError
from ..settings import check_settings
from .load_shards import place_of, points, shard_of, within
from .load_signal import MAX_DEPTH
from .load_table import LoadEntry


@dataclass(frozen=True, slots=True)
class ShardConfig:
    """When shards are split, and how many are followed.

    split_above, merge_below: providers in a shard. A follower's table holds up to followed * split_above of them.
    followed: shards that a follower is in, once there are so many; a fair sample only for powers of two.
    review_s: seconds between two looks at the table. overlap_s: for how long a topic is kept after it was left.
    hold_s: a provider moves no sooner after its last move; longer than overlap_s, so that the table is as true as it
        gets. quiet_s: seconds without a signal after which a followed shard is thought to be gone.
    """

    split_above: int = 128
    merge_below: int = 32
    followed: int = 8
    review_s: float = 5.0
    overlap_s: float = 30.0
    hold_s: float = 60.0
    quiet_s: float = 30.0

    def __post_init__(self) -> None:
        check_settings(self)
        if not (
            1 <= self.merge_below <= self.split_above / 3
            and 1 <= self.followed <= 64
            and 0 < self.review_s <= self.overlap_s <= self.hold_s
            and self.quiet_s > 0
        ):
            raise UsageError(
                "shards need merge_below of at most a third of split_above, 1 to 64 followed, "
                f"0 < review_s <= overlap_s <= hold_s and a quiet_s above 0; got {self}"
            )


Known = Sequence[tuple[int, int]]
"""Place and depth of the providers in a table that are not suspected."""


def known_places(entries: Iterable[LoadEntry]) -> Known:
    """What `review` wants to know of a table."""
    return [(place_of(entry.provider), entry.signal.depth) for entry in entries if not entry.suspected]


def median_depth(known: Known) -> int:
    """How deep most providers are; 0 when none is known."""
    return _median([depth for _, depth in known]) if known else 0


def _median(depths: list[int]) -> int:
    return sorted(depths)[len(depths) // 2]


def _complete(cell: str, shards: list[str]) -> list[str]:
    """Those of the shards that lie in a subtree, and whatever it takes besides to cover it."""
    inside = [shard for shard in shards if shard.startswith(cell)]
    if not inside or cell in inside:
        return [cell]
    return _complete(cell + "0", inside) + _complete(cell + "1", inside)


class Publishing:
    """Where a provider publishes."""

    __slots__ = ("_began", "_changed_at", "_config", "_left", "_place", "depth", "members")

    def __init__(self, place: int, config: ShardConfig) -> None:
        self._place, self._config = place, config
        self.depth = 0
        self.members = 1
        """Providers in its shard, itself among them, as far as known."""
        self._began = math.inf
        self._changed_at = -math.inf
        self._left: dict[str, float] = {}  # shards left lately, and until when they still count

    @property
    def shard(self) -> str:
        """Its own shard."""
        return shard_of(self._place, self.depth)

    def targets(self) -> list[str]:
        """Shards to publish in: its own, and those left lately."""
        return [self.shard, *(shard for shard in self._left if shard != self.shard)]

    def wanted(self) -> list[str]:
        """Shards to be in: besides these the one above."""
        above = [shard_of(self._place, self.depth - 1)] if self.depth else []
        return [*self.targets(), *above]

    def review(self, known: Known, now: float) -> None:
        """Move if the table says so."""
        config, shard, depth = self._config, self.shard, self.depth
        self._began = min(self._began, now)
        self._left = {name: until for name, until in self._left.items() if now < until}
        here = [at for place, at in known if within(place, shard)]
        self.members = len(here) + 1
        # The other half is not heard, except when it moved up.
        around = [at for place, at in known if within(place, shard[:-1])] if depth else []
        above = sum(at < depth for at in around)
        joined = above >= max(1, config.merge_below // 4) and 2 * above > len(around) - len(here)
        if joined and len(around) >= config.split_above:
            self._left[shard[:-1]] = now + config.overlap_s  # tell them that there is no room for both
        if now < self._changed_at + config.hold_s:
            return
        target = depth
        if len(here) >= config.merge_below and _median(here) > depth:
            target = _median(here) if now < self._began + config.hold_s else depth + 1
        elif self.members > config.split_above:
            target = min(depth + 1, MAX_DEPTH)
        elif depth and len(around) < config.split_above and (self.members < config.merge_below or joined):
            target = depth - 1
        if target != depth:
            self._left[shard] = now + config.overlap_s
            self.depth, self._changed_at = target, now
            self._left.pop(self.shard, None)
            self.members = 1 + sum(within(place, self.shard) for place, _ in known)


class Following:
    """Which shards a follower is in."""

    __slots__ = ("_began", "_config", "_heard_at", "_left", "_points", "_shards")

    def __init__(self, rng: Random, config: ShardConfig) -> None:
        self._config = config
        self._points = points(rng, config.followed)
        self._began = math.inf
        self._shards: list[str] = [""]
        self._left: dict[str, float] = {}
        self._heard_at: dict[str, float] = {}

    @property
    def shards(self) -> tuple[str, ...]:
        """Shards that are followed; none lies within another."""
        return tuple(self._shards)

    @property
    def depth(self) -> int:
        """Of the shallowest of them."""
        return min(map(len, self._shards))

    def wanted(self) -> list[str]:
        """Shards to be in: those followed, and those left lately."""
        return [*self._shards, *self._left]

    def covers(self, place: int) -> bool:
        """Whether a provider is in the sample."""
        return any(within(place, shard) for shard in self._shards)

    def review(self, known: Known, now: float) -> None:
        """Go where the providers are."""
        config = self._config
        self._began = min(self._began, now)
        self._left = {name: until for name, until in self._left.items() if now < until}
        found: list[str] = []
        for shard in self._shards:
            found += self._successors(shard, [at for place, at in known if within(place, shard)], now)
        before, self._shards = self._shards, self._trimmed(found)
        for shard in before:
            if shard not in self._shards:
                self._left[shard] = now + config.overlap_s
        for shard in self._shards:
            self._left.pop(shard, None)
        self._heard_at = {shard: self._heard_at.get(shard, now) for shard in self._shards}

    def _successors(self, shard: str, depths: list[int], now: float) -> list[str]:
        depth = len(shard)
        if not depths:
            quiet = now >= self._heard_at.get(shard, now) + self._config.quiet_s
            return [shard[:-1]] if quiet else [shard]
        self._heard_at[shard] = now
        median = _median(depths)
        if median < depth:
            return [shard[:-1]]
        if median > depth and len(depths) < self._config.merge_below:
            return [shard]
        if median == depth + 1 or (median > depth and now >= self._began + self._config.hold_s):
            return [shard + "0", shard + "1"]
        if median > depth:
            return [shard_of(point, median) for point in self._points if within(point, shard)]
        return [shard]

    def _trimmed(self, shards: list[str]) -> list[str]:
        """At most 4 * followed shards, none within another, that make up the points' subtrees of the smallest
        depth."""
        ordered: list[str] = []
        for shard in sorted(dict.fromkeys(shards)):
            if not ordered or not shard.startswith(ordered[-1]):
                ordered.append(shard)
        depth = min(map(len, ordered))
        while True:
            cells = dict.fromkeys(shard_of(point, depth) for point in self._points)
            kept = [shard for cell in cells for shard in _complete(cell, ordered)]
            if len(kept) <= 4 * self._config.followed:
                return kept
            depth += 1
