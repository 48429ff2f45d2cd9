"""The seen cache: ids of messages that were handled lately (gossipsub 1.0, "Router state").

Two minutes of ids are kept, and nearly all questions are about the last seconds. So the ids of the last quarter of a
minute are in a dict; older ones are packed, 16 bytes each instead of 250, into a sorted array of hashes, which only
ids that are not among the recent ones have to be looked for in: those of new messages. 64 bits of Python's hash, whose
key nobody outside knows, are taken for the id: one new message in 10^14 or so passes for a repeat.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final

_BLOCKS: Final = 8
"""Ids are packed every eighth of their time: few blocks to look into, and most of the ids are packed."""

_HASH_MASK: Final = (1 << 64) - 1


class _Block:
    """Packed ids. latest: when the last of them expires."""

    __slots__ = ("_hashes", "_until", "latest")

    def __init__(self, entries: Iterable[tuple[bytes, float]]) -> None:
        packed = sorted((hash(message_id) & _HASH_MASK, until) for message_id, until in entries)
        self._hashes = array("Q", [number for number, _ in packed])
        self._until = array("d", [until for _, until in packed])
        self.latest = max(self._until)

    def __len__(self) -> int:
        return len(self._hashes)

    def until(self, number: int) -> float:
        """When the id with a hash expires; 0 when it is not here."""
        place = bisect_left(self._hashes, number)
        if place < len(self._hashes) and self._hashes[place] == number:
            return self._until[place]
        return 0.0


class SeenCache:
    """Ids of messages that were handled within the last `ttl_s` seconds, so that repeats are dropped.

    Bounded: at `max_entries` the oldest are forgotten early (up to an eighth of the time's worth at once), and repeats
    of them would pass as new.
    """

    __slots__ = ("_blocks", "_max", "_packed", "_recent", "_ttl_s")

    def __init__(self, ttl_s: float, max_entries: int) -> None:
        self._ttl_s, self._max = ttl_s, max_entries
        # In the order they expire. OrderedDict, because taking a dict's first entry again and again gets
        # slow.
        self._recent: OrderedDict[bytes, float] = OrderedDict()
        self._blocks: deque[_Block] = deque()
        self._packed = 0  # entries in them

    def __len__(self) -> int:
        return len(self._recent) + self._packed

    def has(self, message_id: bytes, now: float) -> bool:
        """Whether it was added less than ttl_s ago."""
        until = self._recent.get(message_id)
        if until is not None:
            return until > now
        return bool(self._blocks) and self._is_packed(message_id, now)

    def unseen(self, ids: Iterable[bytes], now: float) -> list[bytes]:
        """Those that `has` does not know, in their order. Nearly all of what IHAVE offers was seen lately: asked for
        one by one, this was a fifth of a simulation."""
        recent = self._recent
        for oldest in recent.values():
            if oldest > now:  # they stand in order of time, so nothing here is too old
                new = [message_id for message_id in ids if message_id not in recent]
                if not self._blocks:
                    return new
                return [message_id for message_id in new if not self._is_packed(message_id, now)]
            break
        return [message_id for message_id in ids if not self.has(message_id, now)]

    def add(self, message_id: bytes, now: float) -> None:
        """Remember an id. One that is already there keeps its time: seeing a message again does not prolong
        it."""
        self._expire(now)
        if self.has(message_id, now):
            return
        self._recent[message_id] = now + self._ttl_s
        if self._recent[next(iter(self._recent))] < now + self._ttl_s * (1 - 1 / _BLOCKS):
            self._blocks.append(_Block(self._recent.items()))
            self._packed += len(self._recent)
            self._recent = OrderedDict()

    def _is_packed(self, message_id: bytes, now: float) -> bool:
        number = hash(message_id) & _HASH_MASK
        return any(block.until(number) > now for block in self._blocks)

    def _expire(self, now: float) -> None:
        """Forget what is too old, and make room for one."""
        while self._blocks and (self._blocks[0].latest <= now or len(self) >= self._max):
            self._packed -= len(self._blocks.popleft())
        recent = self._recent
        while recent:
            oldest = next(iter(recent))
            if recent[oldest] > now and len(recent) < self._max:
                break
            del recent[oldest]
