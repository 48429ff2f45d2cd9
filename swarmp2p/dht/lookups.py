"""Making the lookups that queries are run on: where they begin, and how many they ask at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ..engine import PeerInfo
from ..identity import PeerId
from .config import DhtConfig
from .contacts import Contacts
from .disjoint import MAX_PATHS, DisjointLookup
from .keys import key_id
from .lookup import Lookup, LookupConfig
from .optimistic import Expectation, NarrowLookup
from .routing import RoutingTable

_FEW: Final = 3  # requests in flight, as in Kademlia §2.3


class Lookups:
    """The lookups of one peer, as its settings say. bootstrap: asked while nobody else is known."""

    def __init__(self, peer: PeerId, table: RoutingTable, contacts: Contacts, config: DhtConfig) -> None:
        self.bootstrap: tuple[PeerInfo, ...] = ()
        self._peer, self._table, self._contacts, self._config = peer, table, contacts, config
        self._all_at_once = LookupConfig(config.k, config.alpha, config.alpha, 0, config.max_asked)
        few = min(config.alpha, _FEW)
        self._few_at_once = LookupConfig(config.k, few, few, 0, config.max_asked)

    def nearest(self, target: int, seeds: Iterable[PeerInfo] = (), paths: int = 0) -> Lookup:
        """A lookup for the peers nearest to a target, from the table and further seeds. paths: disjoint ones; 0
        for as many as the settings say."""
        known, further = self._known(target), list(seeds)
        paths = min(paths or self._config.disjoint_paths, MAX_PATHS)
        if paths > 1:
            lookup: Lookup = DisjointLookup(self._peer, target, [*known, *further], self._all_at_once, paths)
        else:
            lookup = Lookup(self._peer, target, [*known, *further], self._all_at_once)
        if not further:
            lookup.plan = "all at once", paths
        return lookup

    def upkeep(self, target: int, seeds: Iterable[PeerInfo], *, alone: bool = False) -> Lookup:
        """A lookup that nobody waits for: on one path and with few requests at a time, so that it asks hardly more
        than it must. alone: from these seeds, not from the table."""
        known = () if alone else self._known(target)
        return Lookup(self._peer, target, [*known, *seeds], self._few_at_once)

    def narrow(
        self, target: int, expected: Expectation, is_crowded: Callable[[Sequence[PeerInfo]], bool]
    ) -> NarrowLookup | None:
        """A lookup that may end early (optimistic.py); None where lookups go over disjoint paths, as those trust
        nobody so far."""
        if self._config.disjoint_paths > 1:
            return None
        return NarrowLookup(self._peer, target, self._known(target), self._all_at_once, expected, is_crowded)

    def find(self, key: bytes, paths: int = 0) -> Lookup:
        """A lookup for what is stored under a key: at the nearest peers it begins with few requests. paths: as for
        `nearest`."""
        config = self._config
        if (paths or config.disjoint_paths) > 1:
            return self.nearest(key_id(key), (), paths)
        tuning = LookupConfig(
            config.k, config.alpha, config.find_window, self._table.radius(), config.max_asked
        )
        target = key_id(key)
        lookup = Lookup(self._peer, target, self._known(target), tuning)
        lookup.plan = "few when near", 1
        return lookup

    def _known(self, target: int) -> list[PeerInfo]:
        """Where a lookup begins."""
        k = self._config.k
        # Twice k, so that there are others to ask when many of the nearest do not answer.
        return self._table.closest(target, 2 * k, suspects=True) or [*self._contacts.some(k), *self.bootstrap]
