"""Timers of an engine in one heap, so that `deadline()` and `Tick` are all that a runner needs to know."""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Timers(Generic[Item]):
    """Items that become due. Adding costs O(log n), cancelling O(1).

    A cancelled item stays in the heap until its time, or until cancelled ones are the most part of it. Items
    due at one time come in the order in which they were added.
    """

    __slots__ = ("_heap", "_items", "_next")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._items: dict[int, Item] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, when: float, item: Item) -> int:
        """Have `item` due at `when`; the number returned cancels it."""
        self._next += 1
        self._items[self._next] = item
        heappush(self._heap, (when, self._next))
        return self._next

    def cancel(self, timer: int) -> None:
        """Forget an item; nothing happens when it was due already."""
        items, heap = self._items, self._heap
        items.pop(timer, None)
        if len(heap) > 64 and len(heap) > 4 * len(items):
            heap[:] = [entry for entry in heap if entry[1] in items]
            heapify(heap)

    def deadline(self) -> float:
        """When the next item is due; math.inf for never."""
        heap = self._heap
        while heap and heap[0][1] not in self._items:
            heappop(heap)
        return heap[0][0] if heap else math.inf

    def due(self, now: float) -> list[Item]:
        """Take out all items that are due, in order."""
        items: list[Item] = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            _, timer = heappop(heap)
            if timer in self._items:
                items.append(self._items.pop(timer))
        return items
