"""The simulator's event queue: a bucket for each millisecond, ordered by a heap of their numbers.

An entry costs one tuple: no closure, no sequence number, and a heap operation only for each new bucket. A
bucket is sorted when its turn comes; the sort is stable, so entries of one instant keep the order in which
they were made. Times stay exact.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort_right
from collections.abc import Callable
from heapq import heappop, heappush
from operator import itemgetter
from typing import Any, Final

from .sim_node import Edge

Entry = tuple[float, Edge, Any]
"""When, over which edge, what: an event for the edge's target."""

SLOTS_PER_S: Final = 1000.0
time_of: Final[Callable[[Entry], float]] = itemgetter(0)


class EventQueue:
    """Entries in order of time. Unbounded: what an unbounded simulation asks for has to be kept.

    buckets: slot number to its entries, in the order in which they were pushed. slots: heap of those
    numbers. One bucket at a time is open: being worked off, sorted, with its new entries inserted in place.
    """

    __slots__ = ("buckets", "open_bucket", "open_slot", "slots")

    def __init__(self) -> None:
        self.buckets: dict[int, list[Entry]] = {}
        self.slots: list[int] = []
        self.open_bucket: list[Entry] = []
        self.open_slot = -1

    def push(self, time: float, edge: Edge, event: object) -> None:
        """Add an entry, not before those being worked off. (The simulator's loop has this inlined.)"""
        slot = int(time * SLOTS_PER_S)
        bucket = self.buckets.get(slot)
        if bucket is not None:
            bucket.append((time, edge, event))
        elif slot == self.open_slot:
            insort_right(self.open_bucket, (time, edge, event), key=time_of)
        else:
            self.buckets[slot] = [(time, edge, event)]
            heappush(self.slots, slot)

    def open_next(self, until: float) -> list[Entry] | None:
        """Open the earliest bucket, if it holds an entry for `until` or before."""
        if not self.slots or (until < math.inf and self.slots[0] > int(until * SLOTS_PER_S)):
            return None
        bucket = self.buckets[self.slots[0]]
        bucket.sort(key=time_of)
        if bucket[0][0] > until:
            return None
        self.open_slot, self.open_bucket = heappop(self.slots), bucket
        del self.buckets[self.open_slot]
        return bucket

    def close(self, until: float) -> list[Entry]:
        """Close the bucket; entries after `until` go back into the queue. Returns the others."""
        bucket, slot = self.open_bucket, self.open_slot
        self.open_bucket, self.open_slot = [], -1
        done = bisect_right(bucket, until, key=time_of)
        if done < len(bucket):
            self.buckets[slot] = bucket[done:]
            heappush(self.slots, slot)
            del bucket[done:]
        return bucket
