"""Lookups that queries share: requests for one key that are in flight at once are one lookup.

    Query --- Ride ---.
    Query --- Ride ---+--- Errand --- Lookup         one question, asked once of each peer
    Query --- Ride ---'

Two queries share an errand when they would ask the same of the same peers: the same question, over as many paths. Who
comes later is told first what has been found so far. Each query stops by itself; the traffic stops with the last one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ..engine import PeerInfo, Reply, Request
from ..identity import PeerId
from .lookup import Lookup, PeerState, Plan
from .messages import FindNode, FoundNodes, FoundProviders, FoundValue, GetProviders, GetValue

if TYPE_CHECKING:
    from .queries import Query

Trip = tuple[type[Request], bytes, Plan]
"""A question, its key, and how the lookup goes about it."""

_MAX_TOLD: Final = 2_048
"""Replies with results that are kept for latecomers, in all: some 25 MB of providers with records. An errand that would
need more is not shared with later queries."""


class Ride:
    """One query's part in a lookup that others may share. `stop` ends this part alone; the rest is the lookup's."""

    __slots__ = ("_stopped", "lookup")

    def __init__(self, lookup: Lookup) -> None:
        self.lookup, self._stopped = lookup, False

    def stop(self) -> None:
        """What this query looked for is found, or nobody wants it any more."""
        self._stopped = self._stopped or not self.lookup.done

    @property
    def stopped(self) -> bool:
        """Whether it was ended early: this part, or the lookup (optimistic.py has one that ends itself)."""
        return self._stopped or self.lookup.stopped

    @property
    def done(self) -> bool:
        """Whether nothing is left to be waited for."""
        return self._stopped or self.lookup.done

    @property
    def target(self) -> int:
        """What is looked for."""
        return self.lookup.target

    @property
    def asked(self) -> int:
        """Requests let go, for all who share the lookup."""
        return self.lookup.asked

    @property
    def in_flight(self) -> int:
        """Requests that are waited for."""
        return self.lookup.in_flight

    @property
    def silent(self) -> int:
        """Asked peers that failed or are stalled."""
        return self.lookup.silent

    def state(self, peer: PeerId) -> PeerState | None:
        """What has become of a peer; None when it was never heard of."""
        return self.lookup.state(peer)

    def closest(self) -> tuple[PeerInfo, ...]:
        """The k nearest peers that answered, nearest first."""
        return self.lookup.closest()


class Errand:
    """A lookup under way. riders: the queries that it is for; none when it is over. trip: what it is known by to
    those who want the same; None when nobody may join. told: what was found so far."""

    __slots__ = ("lookup", "riders", "told", "trip")

    def __init__(self, lookup: Lookup, trip: Trip | None) -> None:
        self.lookup, self.trip = lookup, trip
        self.riders: list[Query] = []
        self.told: list[tuple[PeerId, Reply]] = []


class Errands:
    """The errands of one peer that later queries may join."""

    def __init__(self) -> None:
        self._shared: dict[Trip, Errand] = {}
        self._told = 0

    def join(self, query: Query) -> Errand:
        """The errand that a query is on from now on."""
        lookup = query.lookup.lookup
        trip: Trip | None = None
        if lookup.plan is not None and not query.trusting:
            question = query.question(0)
            if isinstance(question, FindNode | GetProviders | GetValue):
                trip = type(question), question.key, lookup.plan
        errand = self._shared.get(trip) if trip is not None else None
        if errand is None:
            errand = Errand(lookup, trip)
            if trip is not None:
                self._shared[trip] = errand
        else:
            query.lookup = Ride(errand.lookup)
        errand.riders.append(query)
        query.errand = errand
        return errand

    def tell(self, errand: Errand, sender: PeerId, reply: Reply) -> None:
        """An answer came: keep what was found, for those who join later."""
        if errand.trip is None:
            return
        found = _found(reply, errand.trip[1])
        if found is not None:
            if self._told >= _MAX_TOLD:
                self.close(errand)
            else:
                errand.told.append((sender, found))
                self._told += 1

    def close(self, errand: Errand) -> None:
        """Nobody joins an errand any more."""
        if errand.trip is not None:
            del self._shared[errand.trip]
            self._told -= len(errand.told)
            errand.trip = None
            errand.told.clear()


def _found(reply: Reply, key: bytes) -> Reply | None:
    """A reply without the peers that are only on the way; None when nothing else is in it."""
    match reply:
        case FoundNodes(_, closer, held):
            named = tuple(info for info in closer if info.peer == key)
            return replace(reply, closer=named) if named or held else None
        case FoundProviders():
            return replace(reply, closer=()) if reply.providers else None
        case FoundValue():
            return replace(reply, closer=()) if reply.value is not None else None
        case _:
            return None
