"""A world of eight regions, as gossipsub's interoperability tests have it.

Delays are half of the round trips between cloud data centres in or near Frankfurt, Virginia, Oregon, Tokyo, Bahrain,
São Paulo, Sydney and Cape Town, as public monitors show them, rounded to 5 ms; within a region 5 ms. They stand for
the order of things, not for any network.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from swarmp2p.identity import PeerId

REGIONS = (
    "europe",
    "america east",
    "america west",
    "asia east",
    "asia west",
    "america south",
    "australia",
    "africa",
)
SHARES = (0.3, 0.22, 0.14, 0.16, 0.06, 0.05, 0.05, 0.02)
"""Of all nodes. Our guess, after where public peer-to-peer networks have theirs."""

_RTT_MS = {
    "europe": (10,),
    "america east": (90, 10),
    "america west": (145, 65, 10),
    "asia east": (225, 150, 100, 10),
    "asia west": (90, 175, 225, 165, 10),
    "america south": (205, 115, 175, 260, 300, 10),
    "australia": (260, 200, 140, 105, 250, 310, 10),
    "africa": (155, 225, 280, 360, 220, 340, 400, 10),
}


def one_way_s(a: int, b: int) -> float:
    """Mean delay between two regions, by their places in REGIONS, in seconds."""
    low, high = sorted((a, b))
    return _RTT_MS[REGIONS[high]][low] / 2000.0


def settled(nodes: int, rng: Random) -> list[int]:
    """A region for each node, drawn by SHARES."""
    return rng.choices(range(len(REGIONS)), SHARES, k=nodes)


class RegionLink:
    """Delays by region, ± `jitter` uniformly. Peers without a region are in the first."""

    def __init__(self, regions: Mapping[PeerId, int], jitter: float) -> None:
        self._regions, self._jitter = regions, jitter
        everywhere = range(len(REGIONS))
        self._delay_s = [[one_way_s(a, b) for b in everywhere] for a in everywhere]

    def delay(self, now: float, source: PeerId, target: PeerId, rng: Random) -> float | None:
        mean = self._delay_s[self._regions.get(source, 0)][self._regions.get(target, 0)]
        return mean * (1.0 + self._jitter * (2.0 * rng.random() - 1.0))
