"""Storing many keys with few lookups: their holders overlap, so one lookup tells the holders of many.

    ready() ---> keys whose holders are known for certain (coverage.py), with them
    target() --> the key to look up next -----> found() --> ready() again ... until nothing is left

The next key to look up is one in the gap of the first key that is left: the ids nearby of which nothing is known yet. A
lookup there closes the gap for all keys around, where a lookup of that first key itself would only help those right
beside it. With 10 keys a peer, one lookup for every 8 peers does, an eighth of what is needed when each uncovered key
is looked up itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from ..engine import PeerInfo
from .coverage import Coverage
from .keys import ID_BITS, key_id

_MAX_PEERS = 512
"""Known at a time. Regions are made so that a tenth of them are in each; when the network is larger than it looked, all
are forgotten when there are more, which costs a few lookups."""


class Sweep:
    """The keys of one part of the keyspace, on their way to their holders.

    keys: in any order. k: holders of a key.
    """

    def __init__(self, keys: Iterable[bytes], k: int) -> None:
        self._k, self._coverage = k, Coverage(k)
        self._left: list[tuple[int, bytes]] = sorted((key_id(key), key) for key in keys)

    def __len__(self) -> int:
        """Keys left."""
        return len(self._left)

    def ready(self, count: int) -> list[tuple[bytes, tuple[PeerInfo, ...]]]:
        """Up to `count` keys whose k nearest peers are known, with those; each is returned once."""
        ready: list[tuple[bytes, tuple[PeerInfo, ...]]] = []
        waiting: list[tuple[int, bytes]] = []
        coverage = self._coverage
        looked_at = 0
        for id, key in self._left:
            if len(ready) >= count:
                break
            looked_at += 1
            if id in coverage:
                nearest = coverage.nearest(id)
                if coverage.gap(id, nearest) is None:
                    ready.append((key, nearest))
                    continue
            waiting.append((id, key))
        self._left[:looked_at] = waiting
        return ready

    def target(self) -> bytes | None:
        """The key to look up next; None when nothing is left. For when nothing is ready."""
        if not self._left:
            return None
        first, key = self._left[0]
        gap = self._coverage.gap(first, self._coverage.nearest(first)) if first in self._coverage else None
        if gap is not None:
            start, end = gap
            for index in range(bisect_left(self._left, (start, b"")), len(self._left)):
                id, other = self._left[index]
                if id >= end:
                    break
                if id not in self._coverage:
                    return other
        return key

    def found(self, key: bytes, closest: Sequence[PeerInfo], *, whole: bool) -> None:
        """A lookup for a key that was `target` ended.

        whole: it ran to its end, so that it proves what else there is. That key is done with in any case: its holders
        are those.
        """
        id = key_id(key)
        if whole and closest:
            if len(self._coverage) > _MAX_PEERS:
                self._coverage = Coverage(self._k)
            self._coverage.learn(id, closest)
        index = bisect_left(self._left, (id, key))
        if index < len(self._left) and self._left[index] == (id, key):
            del self._left[index]

    def rest(self) -> list[bytes]:
        """The keys that are left; for giving up."""
        return [key for _, key in self._left]


def region_bits(radius: int) -> int:
    """How many leading bits the ids of one sweep share, so that about 2 to 4 k peers are among them.

    radius: the distance within which the k nearest peers of any id are.
    """
    return max(ID_BITS - radius.bit_length() - 1, 0)


def by_region(keys: Iterable[bytes], bits: int) -> list[list[bytes]]:
    """Keys in groups that share their leading bits, in order of their ids."""
    regions: dict[int, list[bytes]] = {}
    for id, key in sorted((key_id(key), key) for key in keys):
        regions.setdefault(id >> (ID_BITS - bits), []).append(key)
    return list(regions.values())
