"""The way round Sybils that stand nearest to a key.

An id costs nothing but a hash, so that for a few seconds of work an attacker has k peers nearer to a key than anybody
honest. They answer lookups, name only one another, and swallow what is stored: the key is censored. But they cannot
do so without being seen. To own all of the k nearest, they must all be nearer than the nearest honest peer, and where
that one is, a lookup with honest answers would have found few others.

*Telling.* With n servers, the k nearest to a key are expected within r = k / n of the id space. A key is crowded when
its k nearest that answered lie within r / 3. Among honest peers that means that a Poisson variable of mean k / 3
reaches k: for k = 20, one key of 44,000, and still one of 1,100 when n is estimated 25 % too low. An attacker stays
unseen only where the nearest honest peer is farther than r / 3: one key of e^(k / 3) = 786.

*Going round.* With i = log2(n / k), rounded down, k / 2 to k honest peers share exactly i bits with the key; they are
the nearest to it but for those in the crowd itself, and half of them would hold its records without the crowd. Twice
as many share i - 1 bits, half as many i + 1. A publisher of a crowded key also stores around a random id in each of
these three regions. A finder asks around a random id in the middle one, then in the others. That is why their
estimates of n need not be equal; and what was stored before the Sybils came is found at the same peers. The ids are
chosen anew each time: to censor a region, an attacker must outnumber its honest peers all over it.

Honest networks pay nothing, and neither do finds that have what they wanted. The idea of querying and storing by
region instead of by rank is that of "Content Censorship in the InterPlanetary File System" (Sridhar et al., NDSS
2024) and its SR-DHT-Store; here the neighbourhood is divided by shared prefixes, and publishers and finders need not
know how far it extends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from ..engine import PeerInfo, Reply
from ..identity import PeerId
from .events import DhtOutput
from .keys import fresh_key_in_bucket, key_id, peer_key
from .lookup import Lookup
from .messages import FoundProviders, FoundValue
from .network_size import NetworkSize
from .queries import ClosestQuery, FollowUp, LastWord, Purpose, Query

_NEARER: Final = 3
"""How many times nearer than expected a key's k nearest must be for it to be crowded."""

_DEEPEST: Final = 16
"""Finding a key for a region of i shared bits takes 2^(i + 1) hashes, at 16 that is 80 ms. Regions of more than two
million servers are therefore larger than the k peers that hold a record, and finders are the likelier to miss them."""


class Crowding:
    """Runs what is needed for queries whose keys are crowded.

    make_lookup: for an id, from the routing table; what the crowd named is not used. run: starts a child.
    """

    def __init__(
        self,
        size: NetworkSize,
        k: int,
        rng: Random,
        make_lookup: Callable[[int], Lookup],
        run: Callable[[Query, float, Query], None],
    ) -> None:
        self._size, self._k, self._rng, self._make_lookup, self._run = size, k, rng, make_lookup, run

    def is_crowded(self, target: int, closest: Sequence[PeerInfo], now: float) -> bool:
        """Whether the nearest peers to a target, which all answered, are nearer than honest ones would be. While
        the size of the network is not known, nothing is."""
        radius = self._size.radius(now)
        if radius is None or len(closest) < self._k:
            return False
        return peer_key(closest[self._k - 1].peer) ^ target < radius // _NEARER

    def check(self, query: Query, now: float) -> None:
        """The lookup of a query has ended by itself: go round a crowd, if there is one."""
        if query.purpose is Purpose.LOOK or query.satisfied:
            return
        if not self.is_crowded(query.lookup.target, query.lookup.closest(), now):
            return
        regions = self._regions(now)
        if query.purpose is Purpose.STORE:
            for region in regions:
                self._go_round(query, [region], now)
        else:
            self._go_round(query, regions, now)

    def _regions(self, now: float) -> list[int]:
        """How many bits they share with the key: the middle one first."""
        size = self._size.estimate(now)
        assert size is not None
        middle = min(max(int(math.log2(max(size / self._k, 1.0))), 1), _DEEPEST - 1)
        return [middle, middle - 1, middle + 1]

    def _go_round(self, query: Query, regions: Sequence[int], now: float) -> None:
        """Query the first region; the others afterwards, unless somebody there has something."""
        key = fresh_key_in_bucket(query.lookup.target, regions[0], self._rng)
        if key is None:
            return

        def over(_: Query, now: float) -> None:
            if not child.fruitful and len(regions) > 1:
                self._go_round(query, regions[1:], now)

        child = Beyond(query, self._make_lookup(key_id(key)), key)
        child.then = over
        self._run(child, now, query)


class Beyond(ClosestQuery):
    """Does what another query does, at the peers around another key.

    of: that query. fruitful: somebody has what it looks for.
    """

    def __init__(self, of: Query, lookup: Lookup, key: bytes) -> None:
        super().__init__(of.number, lookup, key)
        self._of = of
        self.fruitful = False

    @property
    def satisfied(self) -> bool:
        return self._of.satisfied

    def follow_ups(self, now: float) -> Sequence[FollowUp]:
        return self._of.beyond(self.lookup.closest(), now)

    def confirmed(self, peer: PeerId, reply: Reply, now: float) -> Sequence[DhtOutput]:
        match reply:
            case FoundProviders():
                self.fruitful = self.fruitful or bool(reply.providers)
            case FoundValue():
                self.fruitful = self.fruitful or reply.value is not None
            case _:
                pass
        return self._of.beyond_answered(peer, reply, now)

    def last_words(self, now: float) -> Sequence[LastWord]:
        return self._of.beyond_told(self.lookup.closest(), now)
