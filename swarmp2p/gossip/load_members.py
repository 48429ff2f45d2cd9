"""How the members of a load topic find each other when too few of a peer's connections are in it.

Gossip only knows connected peers. So providers let themselves be found under the topic's name, in the DHT in practice
(node.py), and whoever has fewer than `few` neighbours in a topic that it needs looks for some and connects to them.

A provider can be found in its own shard and, with probability 1/2, 1/4, ..., in the shards above, up to that of all:
at each level there are about as many as in one shard, so that newcomers find somebody there who knows how deep
shards are, and nobody has to be found by all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from ..identity import PeerId
from ..settings import check_settings
from .load_events import FindMembers, OfferMembership
from .load_shards import shard_topic
from .load_signal import MAX_DEPTH

Neighbours = Callable[[str], Sequence[PeerId]]
"""Connected peers in a topic."""


@dataclass(frozen=True, slots=True)
class MemberConfig:
    """Tuning.

    few: neighbours in a topic below which more are looked for; Dlo of a mesh is 5. found: how many at a time.
    offer_after_s: a provider lets itself be found after so many seconds in a topic, at most; some stay but shortly.
    seek_s, seek_most_s: seconds before one looks for members of the topic of all, where others that come up by
        themselves are most likely in it, and between two looks, doubled each time up to the second.
    """

    few: int = 5
    found: int = 8
    offer_after_s: float = 10.0
    seek_s: float = 5.0
    seek_most_s: float = 300.0

    def __post_init__(self) -> None:
        check_settings(self, ("seek_s", "seek_most_s"))


class Members:
    """When to offer and when to seek. Bounded by the shards that the node is in."""

    __slots__ = ("_config", "_neighbours", "_offer_at", "_offered", "_rise", "_rng", "_seek")

    def __init__(self, rng: Random, config: MemberConfig, neighbours: Neighbours) -> None:
        self._rng, self._config, self._neighbours = rng, config, neighbours
        self._rise = -1  # levels above its own at which a provider can be found; drawn when first needed
        self._offer_at: dict[str, float] = {}
        self._offered: dict[str, None] = {}
        self._seek: dict[str, tuple[float, float]] = {}  # shard: when to look next, and how long after that

    def want(self, shards: Sequence[str], own: str | None, now: float) -> list[OfferMembership]:
        """Shards whose members are needed, and the own one, when this is a provider."""
        if self._rise < 0 and own is not None:
            self._rise = 0
            while self._rise < MAX_DEPTH and self._rng.random() < 0.5:
                self._rise += 1
        levels = [] if own is None else [own[:n] for n in range(max(0, len(own) - self._rise), len(own) + 1)]
        out = [OfferMembership(shard_topic(shard), False) for shard in self._offered if shard not in levels]
        self._offered = {shard: None for shard in self._offered if shard in levels}
        self._offer_at = {
            shard: self._offer_at.get(shard) or now + self._config.offer_after_s * self._rng.random()
            for shard in levels
            if shard not in self._offered
        }
        self._seek = {shard: self._seek.get(shard) or self._first(shard, now) for shard in shards}
        return out

    def _first(self, shard: str, now: float) -> tuple[float, float]:
        wait_s = self._config.seek_s
        return (now, wait_s) if shard else (now + wait_s * (0.5 + 0.5 * self._rng.random()), wait_s)

    def due(self, now: float) -> list[OfferMembership | FindMembers]:
        """What to do now."""
        out: list[OfferMembership | FindMembers] = []
        for shard in [shard for shard, at in self._offer_at.items() if at <= now]:
            del self._offer_at[shard]
            self._offered[shard] = None
            out.append(OfferMembership(shard_topic(shard), True))
        for shard, (at, wait_s) in self._seek.items():
            if at > now:
                continue
            topic = shard_topic(shard)
            if len(self._neighbours(topic)) < self._config.few:
                out.append(FindMembers(topic, self._config.found))
                longer_s = min(2 * wait_s, self._config.seek_most_s)
            else:
                longer_s = self._config.seek_s
            self._seek[shard] = (now + wait_s, longer_s)
        return out

    def deadline(self) -> float:
        """When `due` is wanted."""
        return min(
            min(self._offer_at.values(), default=math.inf),
            min((at for at, _ in self._seek.values()), default=math.inf),
        )
