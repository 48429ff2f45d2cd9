"""Runs sweeps (sweep.py): their lookups, and the ADD_PROVIDERs that follow.

Keys are divided into regions of the keyspace, of which a few are worked on at a time. A region has one lookup under
way, or waits for a moment after a batch of its keys was sent: what goes to one peer leaves together, and no peer or
connection gets more than a batch at once. A region whose lookups fail is given up; its owner tries again later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from ..engine import PeerInfo
from ..identity import PeerId
from .config import DhtConfig
from .keys import key_id
from .messages import AddProvider, Provider
from .publisher import Publication, Publisher
from .queries import ClosestQuery, Query
from .routing import RoutingTable
from .sweep import Sweep, by_region, region_bits
from .timers import Timers
from .traffic import Traffic

_MAX_FAILURES = 3  # lookups in a row that prove nothing, after which a region is given up

Stored = Callable[[Publication, Sequence[PeerInfo], float], None]
"""Called once for each publication, with the peers that its record was sent to; none when it could not be."""


class Region:
    """Publications of one region on their way. A Region in the engine's timers goes on after a pause."""

    __slots__ = ("failures", "publications", "stored", "sweep")

    def __init__(self, publications: dict[bytes, Publication], k: int, stored: Stored) -> None:
        self.publications, self.stored = publications, stored
        self.sweep = Sweep(publications, k)
        self.failures = 0


class Sweeper:
    """The sweeps of one peer. Regions that wait are bounded by what is published.

    timers: the engine's; regions in them come back through `due`. alone: stores a publication by itself, for those
    whose nearest peers are perhaps an attacker's (is_crowded, crowding.py): they need more than a sweep.

    lookups: so far.
    """

    def __init__(
        self,
        publisher: Publisher,
        traffic: Traffic,
        table: RoutingTable,
        timers: Timers[object],
        config: DhtConfig,
        alone: Callable[[Publication, Stored, float], None],
        is_crowded: Callable[[int, Sequence[PeerInfo], float], bool],
    ) -> None:
        self._alone, self._is_crowded = alone, is_crowded
        self._publisher, self._traffic, self._table = publisher, traffic, table
        self._timers, self._config = timers, config
        self._waiting: deque[Region] = deque()
        self._active: dict[Region, None] = {}
        self.lookups = 0

    @property
    def bits(self) -> int:
        """Leading bits that the ids of a region share now; it follows the size of the network."""
        return region_bits(self._table.radius())

    def start(self, publications: Iterable[Publication], stored: Stored, now: float) -> None:
        """Store publications at their nearest peers, in order of their ids."""
        by_key = {publication.key: publication for publication in publications}
        for keys in by_region(by_key, self.bits):
            self._waiting.append(Region({key: by_key[key] for key in keys}, self._config.k, stored))
        self._fill(now)

    def due(self, region: Region, now: float) -> None:
        """A region's pause is over."""
        self._advance(region, now)

    def _fill(self, now: float) -> None:
        while self._waiting and len(self._active) < self._config.sweep_regions:
            region = self._waiting.popleft()
            self._active[region] = None
            self._advance(region, now)

    def _advance(self, region: Region, now: float) -> None:
        """Send what can be sent, else look up what is missing."""
        ready = region.sweep.ready(self._config.sweep_batch)
        if ready:
            self._send(region, ready, now)
            self._timers.add(now + self._config.sweep_pause_s, region)
            return
        target = region.sweep.target()
        if target is None:
            self._active.pop(region, None)
            self._fill(now)
            return
        self.lookups += 1
        query = ClosestQuery(None, self._traffic.lookups.upkeep(key_id(target), ()), target)
        query.then = lambda query, now: self._found(region, target, query, now)
        self._traffic.run(query, now)

    def _found(self, region: Region, target: bytes, query: Query, now: float) -> None:
        lookup = query.lookup
        closest = lookup.closest()
        if not closest:
            self._give_up(now)
            return
        # Where fewer than k answered they are all there are, unless our own line broke meanwhile.
        all_answered = len(closest) >= self._config.k or lookup.silent <= len(closest)
        whole = all_answered and not (query.overdue or lookup.stopped)
        region.sweep.found(target, closest, whole=whole)
        self._send(region, [(target, closest)], now)
        region.failures = 0 if whole else region.failures + 1
        if region.failures >= _MAX_FAILURES:
            self._drop(region, now)
            self._fill(now)
        else:
            self._advance(region, now)

    def _give_up(self, now: float) -> None:
        """Nobody answers: it will be the same for all regions."""
        regions = [*self._active, *self._waiting]
        self._waiting.clear()
        for region in regions:
            self._drop(region, now)

    def _drop(self, region: Region, now: float) -> None:
        rest = region.sweep.rest()
        region.sweep = Sweep((), self._config.k)  # for a pause that is still to end, or a lookup
        self._active.pop(region, None)
        for key in rest:
            region.stored(region.publications[key], (), now)

    def _send(self, region: Region, ready: Sequence[tuple[bytes, Sequence[PeerInfo]]], now: float) -> None:
        """One batch: all that is for one peer, then all that is for the next."""
        by_peer: dict[PeerId, tuple[PeerInfo, list[tuple[bytes, Provider]]]] = {}
        for key, closest in ready:
            publication = region.publications[key]
            if self._is_crowded(key_id(key), closest, now):
                self._alone(publication, region.stored, now)
                continue
            provider = self._publisher.provider(publication)
            holders: Sequence[PeerInfo] = closest if provider is not None and provider.addresses else ()
            for info in holders:
                assert provider is not None
                by_peer.setdefault(info.peer, (info, []))[1].append((key, provider))
            region.stored(publication, holders, now)
        traffic = self._traffic
        for info, records in by_peer.values():
            for key, provider in records:
                traffic.tell(info, AddProvider(traffic.next_id(), key, provider), now)
