"""One k-bucket of the routing table, and what it knows of a peer. The rules are those of routing.py."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from ..engine import PeerInfo
from .diversity import has_room

_SPARE_S: Final = 3600.0
"""A spare that was seen since is not given up for a newcomer."""


class Entry:
    """A peer of the table.

    groups: subnets of its addresses (diversity.py). added, seen: when it came, and answered last. failures: requests
    failed since, the last one at failed_at.
    """

    __slots__ = ("added", "failed_at", "failures", "groups", "info", "seen")

    def __init__(self, info: PeerInfo, groups: tuple[bytes, ...], now: float) -> None:
        self.info, self.groups = info, groups
        self.added = self.seen = now
        self.failures = 0
        self.failed_at = 0.0


class Bucket:
    """One k-bucket: peers by their ids, in three states (routing.py). looked_up: when its part of the id space was
    looked up last."""

    __slots__ = ("live", "looked_up", "spares", "suspects")

    def __init__(self) -> None:
        # A dict's order is that of insertion: least recently seen first.
        self.live: dict[int, Entry] = {}
        self.suspects: dict[int, Entry] = {}
        self.spares: dict[int, Entry] = {}
        self.looked_up = 0.0

    def put_first(self, key: int, entry: Entry) -> None:
        """Make it the live peer that is to be asked first."""
        entry.seen = -math.inf
        others = dict(self.live)
        self.live.clear()  # the same object: it is referred to elsewhere
        self.live[key] = entry
        self.live.update(others)

    def members(self) -> Iterator[Entry]:
        """Those that have a place: not the spares."""
        yield from self.live.values()
        yield from self.suspects.values()

    def takes_spare(self, k: int, groups: tuple[bytes, ...], per_group: int, now: float) -> bool:
        """Whether a newcomer may be kept as a spare. If so, there is room."""
        if not has_room(groups, (spare.groups for spare in self.spares.values()), per_group):
            return False
        return len(self.spares) < k or now - next(iter(self.spares.values())).seen >= _SPARE_S

    def keep_spare(self, key: int, entry: Entry, k: int) -> None:
        """Keep a peer as a spare, for the one not seen for longest when there are k."""
        if len(self.spares) >= k:
            del self.spares[next(iter(self.spares))]
        self.spares[key] = entry
