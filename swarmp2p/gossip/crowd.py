"""Who stays in a table that is too small for all: a fair sample of whoever comes, however many come, and in any order.

Bottom-k sampling: those with the smallest hashes stay. The hash is under a key of this peer's own; were it known,
identities could be made to measure.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection
from hashlib import blake2b
from random import Random
from typing import Final

from ..identity import PeerId

_KEY_BYTES: Final = 16


class Crowd:
    """Says who leaves a table. Costs nothing before the table is full for the first time; from then on an entry
    for each peer in it, and at most as many again."""

    __slots__ = ("_key", "_ranked", "_rng")

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._key = b""
        self._ranked: list[
            tuple[int, PeerId]
        ] = []  # a heap, the largest hash first; some have left the table

    def __len__(self) -> int:
        return len(self._ranked)

    def joins(self, peer: PeerId) -> None:
        """A peer is new in the table."""
        if self._key:
            heapq.heappush(self._ranked, (-self._hash(peer), peer))

    def leaves(self, table: Collection[PeerId], new: PeerId) -> PeerId:
        """Who has to leave a full table where a new peer comes: one of the table, or the new one itself."""
        if not self._key:
            self._key = self._rng.randbytes(_KEY_BYTES)
        ranked = self._ranked
        while ranked and ranked[0][1] not in table:
            heapq.heappop(ranked)
        if (
            len(ranked) < len(table) or len(ranked) > 2 * len(table) + 64
        ):  # first used now, or too many who left
            ranked[:] = [(-self._hash(peer), peer) for peer in table]
            heapq.heapify(ranked)
        if not ranked or -self._hash(new) <= ranked[0][0]:
            return new
        return ranked[0][1]

    def _hash(self, peer: PeerId) -> int:
        return int.from_bytes(blake2b(peer, digest_size=8, key=self._key).digest(), "big")
