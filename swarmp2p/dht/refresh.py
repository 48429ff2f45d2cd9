"""Keeping the routing table full: looking up the own id, then a random key of each bucket (kad-dht spec,
"Bootstrap process").

The lookup of the own id finds the k nearest peers. They fill the buckets beyond the one of the farthest of
them, so only that one and those before it need a lookup of their own; none at all when fewer than k peers
were found, since those are the whole network. Bucket lookups run one after another: a refresh is nothing to
hurry for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from ..engine import PeerInfo
from ..identity import PeerId
from .keys import common_prefix_length, key_id, key_in_bucket, peer_key
from .lookup import Lookup
from .queries import ClosestQuery, Query
from .routing import RoutingTable


class Refresh:
    """One refresh under way.

    make_lookup: for a target, from extra seeds. run: starts a query. done: called with the sums of what was
    asked and what failed once all lookups are over.
    """

    def __init__(
        self,
        peer: PeerId,
        table: RoutingTable,
        rng: Random,
        k: int,
        make_lookup: Callable[[int, Iterable[PeerInfo]], Lookup],
        run: Callable[[Query, float], None],
        done: Callable[[int, int], None],
    ) -> None:
        self._peer, self._own, self._table, self._rng, self._k = peer, peer_key(peer), table, rng, k
        self._make_lookup, self._run, self._done = make_lookup, run, done
        self._buckets: list[int] = []
        self._asked = self._failed = 0

    def start(self, number: int | None, seeds: Iterable[PeerInfo], before: float, now: float) -> None:
        """Look up the own id, then the buckets that were not looked up since `before`.

        number: of the query that the first lookup is for; None for the engine's own.
        """
        query = ClosestQuery(number, self._make_lookup(self._own, seeds), bytes(self._peer))
        query.then = lambda query, now: self._own_found(query, before, now)
        self._run(query, now)

    def _own_found(self, query: Query, before: float, now: float) -> None:
        nearest = query.lookup.closest()
        if len(nearest) >= self._k:
            deepest = common_prefix_length(self._own, peer_key(nearest[-1].peer))
            self._buckets = self._table.stale_buckets(deepest, before)
        self._next(query, now)

    def _next(self, last: Query, now: float) -> None:
        self._asked += last.lookup.asked
        self._failed += last.lookup.silent
        while self._buckets:
            key = key_in_bucket(self._own, self._buckets.pop(), self._rng)
            if key is not None:
                query = ClosestQuery(None, self._make_lookup(key_id(key), ()), key)
                query.then = self._next
                self._run(query, now)
                return
        self._done(self._asked, self._failed)
