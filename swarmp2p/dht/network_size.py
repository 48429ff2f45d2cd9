"""How many servers the DHT has, from how close to their targets finished lookups came.

Ids are uniform, so the peers around a target are a Poisson process: the distance of the k-th nearest, as a share of
the id space, times their number follows a gamma distribution of shape k. Its median is k - 1/3 (within 0.03 % for
k = 20), so (k - 1/3) / distance is too large as often as too small. One lookup is off by 23 % (one standard deviation,
k = 20), the median of ten by 9 %.

The median is what makes the estimate hold under attack: Sybils next to a few keys spoil the lookups for those, and
only those. For the same reason lookups for targets close together count once: an application that searches for one
key again and again, or Sybils around the own id, which each refresh looks up, have one voice in many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..engine import PeerInfo
from .keys import ID_BITS, peer_key

_ID_SPACE: Final = 1 << ID_BITS
_REGION_BITS: Final = 8  # targets that share them count once
_MAX_SAMPLES: Final = 64
_MIN_SAMPLES: Final = 5
_MAX_AGE_S: Final = 7200.0  # twelve refreshes
_HALF_LIFE_S: Final = 1800.0
_SPARSER: Final = 2


@dataclass(frozen=True, slots=True)
class _Sample:
    size: float
    learnt: float


class NetworkSize:
    """An estimate that follows what lookups find.

    k: peers that a lookup finds. The last 64 regions (1/256 of the id space each) are remembered, for two hours; a
    sample's weight halves each half hour.
    """

    def __init__(self, k: int) -> None:
        self._k = k
        self._samples: dict[int, _Sample] = {}  # by region, oldest first

    def learn(self, target: int, closest: Sequence[PeerInfo], now: float) -> None:
        """A lookup for `target` ended by itself; `closest` answered, nearest first. Fewer than k: they are all that
        there are."""
        if not closest:
            return
        if len(closest) < self._k:
            size = float(len(closest))
        else:
            size = (self._k - 1 / 3) * _ID_SPACE / max(peer_key(closest[self._k - 1].peer) ^ target, 1)
        region = target >> (ID_BITS - _REGION_BITS)
        self._samples.pop(region, None)
        self._samples[region] = _Sample(size, now)
        if len(self._samples) > _MAX_SAMPLES:
            del self._samples[next(iter(self._samples))]

    def estimate(self, now: float, share: float = 0.5) -> float | None:
        """Servers in the network, without this peer; None until lookups for five regions have ended.

        share: of the samples, those that it exceeds; above a half, it is rather too large.
        """
        while self._samples and now - next(iter(self._samples.values())).learnt > _MAX_AGE_S:
            del self._samples[next(iter(self._samples))]
        if len(self._samples) < _MIN_SAMPLES:
            return None
        weighted = sorted(
            (sample.size, 0.5 ** ((now - sample.learnt) / _HALF_LIFE_S)) for sample in self._samples.values()
        )
        wanted = share * sum(weight for _, weight in weighted)
        before, smaller = 0.0, weighted[0][0]
        for size, weight in weighted:
            if before + weight > wanted:
                return size if before < wanted else (smaller + size) / 2
            before, smaller = before + weight, size
        return smaller

    def is_sparse(self, target: int, closest: Sequence[PeerInfo], now: float) -> bool:
        """Whether the peers that a lookup found are farther apart than those around its target can be: then it was
        misled.

        Peers that collude name only one another: of a share m of all nodes, the k nearest to a target are 1 / m times
        as far away as of all. Here they may be 2 times: one of 100 to 300 honest lookups exceeds that, and colluding
        ones do but for one of 60, when m = 30 %. The estimate compared with is one that three of four samples are
        below, so that it holds while most lookups are misled. Fewer than k say nothing: everybody was asked.
        """
        size = self.estimate(now, 0.75)
        if size is None or len(closest) < self._k:
            return False
        return peer_key(closest[self._k - 1].peer) ^ target > radius_of(size, _SPARSER * self._k)

    def radius(self, now: float, count: int | None = None) -> int | None:
        """The distance from any key within which its `count` (by default k) nearest peers are expected; None while
        there is no estimate."""
        size = self.estimate(now)
        return None if size is None else radius_of(size, self._k if count is None else count)


def radius_of(size: float, count: int) -> int:
    """The distance within which `count` of `size` peers are expected: the whole id space where there are no more."""
    return min(_ID_SPACE - 1, int(_ID_SPACE * (count / max(size, 1.0))))
