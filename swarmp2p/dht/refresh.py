"""Keeping the routing table full and true (kad-dht spec, "Bootstrap process").

Each refresh

1. looks up the own id from outside: through bootstrap peers alone, as if we joined anew. So two networks that have
   one in common merge, and whoever surrounds us cannot hide others from us. In a large network only some do it
   each time, so that no bootstrap peer is asked too often.
2. looks up the own id from inside, unless the first lookup came across all neighbours that we know of. It finds
   the k nearest peers; they fill the buckets beyond the one of the farthest of them, so that only that one and those
   before it ever need a lookup, and none at all when fewer than k peers were found: those are the whole network.
3. looks up a random key of some buckets: of those without a lookup for an hour (Kademlia §2.3), as many as have a
   turn; of all of them when joining, since neighbours of ours may not be ours to them: whoever is in a sparse
   half of a bucket has us among its nearest, and only meets us so.

Upkeep must cost little when nothing happens. A peer that is named, connected, and was heard of within the hour
counts as having answered; so what is asked are strangers, and those whose connection is closed. Thousands of
requests an hour became hundreds so (simulations/dht_churn.py), and as the network tells of connections that end,
nothing was missed for it.

They run one after another: a refresh is nothing to hurry for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from random import Random
from typing import Final

from ..engine import PeerInfo
from ..identity import PeerId
from .config import DhtConfig
from .keys import common_prefix_length, key_id, key_in_bucket, peer_key
from .queries import ClosestQuery, Query
from .routing import RoutingTable
from .traffic import Traffic

_ASKERS: Final = 10_000
"""How many peers may ask one bootstrap peer in one interval, roughly: 17 a second at the default of ten minutes."""

_SEEDS: Final = 3  # bootstrap peers that are asked at a time


class Refresh:
    """One refresh under way.

    done: called with the sums of what was asked and what failed once all lookups are over.
    """

    def __init__(
        self,
        peer: PeerId,
        table: RoutingTable,
        traffic: Traffic,
        rng: Random,
        config: DhtConfig,
        done: Callable[[int, int], None],
    ) -> None:
        self._peer, self._own, self._table, self._traffic = peer, peer_key(peer), table, traffic
        self._rng, self._config, self._done = rng, config, done
        self._whole = self._cancelled = False
        self._buckets: list[int] = []
        self._asked = self._failed = 0

    def join(self, number: int, now: float) -> None:
        """All of it, from the table and the bootstrap peers together. number: of the query that the first lookup is
        for."""
        self._whole = True
        lookups = self._traffic.lookups
        lookup = lookups.nearest(self._own, lookups.bootstrap, paths=1)
        self._inside(ClosestQuery(number, lookup, bytes(self._peer)), now)

    def all(self, now: float) -> None:
        """All of it, now; every neighbour is asked."""
        self._whole = True
        self._begin(now)

    def cancel(self) -> None:
        """Begin no further lookup; the one that is under way ends by itself."""
        self._cancelled = True

    def some(self, now: float) -> None:
        """What is due."""
        self._traffic.liveness.check_table(now)
        self._begin(now)

    def _begin(self, now: float) -> None:
        through = self._through(now)
        if not through:
            self._inside(self._query(self._own, bytes(self._peer), ()), now)
            return
        query = self._query(self._own, bytes(self._peer), through, alone=True)
        query.then = self._seen_from_outside
        self._traffic.run(query, now)

    def _through(self, now: float) -> list[PeerInfo]:
        """The bootstrap peers that are asked this time: those that we have lost sight of first."""
        bootstrap, table = self._traffic.lookups.bootstrap, self._table
        if not bootstrap or not len(table):
            return []
        peers = table.size_estimate(self._config.k)
        if self._rng.random() > _ASKERS * len(bootstrap) / (_SEEDS * peers):
            return []
        since = now - self._config.stale_s
        order = sorted(bootstrap, key=lambda info: (table.is_fresh(info.peer, since), self._rng.random()))
        return order[:_SEEDS]

    def _query(
        self, target: int, key: bytes, seeds: Sequence[PeerInfo], *, alone: bool = False
    ) -> ClosestQuery:
        query = ClosestQuery(None, self._traffic.lookups.upkeep(target, seeds, alone=alone), key)
        query.trusting = not self._whole
        return query

    def _seen_from_outside(self, query: Query, now: float) -> None:
        self._count(query)
        found = query.lookup.closest()
        known = dict.fromkeys(info.peer for info in found)
        nearest = self._table.closest(self._own, self._config.k)
        if len(found) >= self._config.k and all(info.peer in known for info in nearest):
            self._own_found(query, now)
        else:
            self._inside(self._query(self._own, bytes(self._peer), found), now)

    def _inside(self, query: ClosestQuery, now: float) -> None:
        query.then = self._seen_from_inside
        self._traffic.run(query, now)

    def _seen_from_inside(self, query: Query, now: float) -> None:
        self._count(query)
        self._own_found(query, now)

    def _own_found(self, query: Query, now: float) -> None:
        nearest = query.lookup.closest()
        config, table = self._config, self._table
        if len(nearest) >= config.k:
            deepest = common_prefix_length(self._own, peer_key(nearest[-1].peer))
            if self._whole:
                self._buckets = table.stale_buckets(deepest, now)
            else:
                turns = ceil((deepest + 1) * config.refresh_interval_s / config.stale_s)
                stale = table.stale_buckets(deepest, now - config.stale_s)
                self._buckets = sorted(stale, key=table.looked_up_at, reverse=True)[-turns:]
        self._next(now)

    def _bucket_done(self, query: Query, now: float) -> None:
        self._count(query)
        self._next(now)

    def _next(self, now: float) -> None:
        while self._buckets and not self._cancelled:
            key = key_in_bucket(self._own, self._buckets.pop(), self._rng)
            if key is not None:
                query = self._query(key_id(key), key, ())
                query.then = self._bucket_done
                self._traffic.run(query, now)
                return
        self._done(self._asked, self._failed)

    def _count(self, query: Query) -> None:
        self._asked += query.lookup.asked
        self._failed += query.lookup.silent
