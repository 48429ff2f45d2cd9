"""What becomes of the application's commands: one class for each kind of query.

Every query is a lookup and what is done with its answers. The engine runs them all alike:

    begin()                   results that are known here already
    lookup: question(), answered()   asks peers, takes results from their answers
    follow_ups(), confirmed() once the lookup is done: further requests, whose answers are waited for
    last_words(), result()    once those are settled: requests that nobody waits for, and the QueryDone

A query may have children: queries of their own lookups, run for it (`Traffic.run`, parent). They end before it does,
and are cancelled with it.

A query asks nothing of the engine: it is given what it needs when it is made. service_query.py has one more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import Enum
from typing import ClassVar

from ..engine import PeerInfo, Reply
from ..identity import PeerId
from .errands import Errand, Ride
from .events import DhtOutput, ProviderFound, QueryDone
from .lookup import Lookup, PeerState
from .messages import (
    AddProvider,
    AnsweredRequest,
    FindNode,
    FoundNodes,
    FoundProviders,
    FoundValue,
    GetProviders,
    GetValue,
    Provider,
    PutValue,
    Split,
    ValueStored,
)
from .validators import Validators

FollowUp = tuple[PeerInfo, Callable[[int], AnsweredRequest]]
"""Whom to ask, and the request once it has a number."""

LastWord = tuple[PeerInfo, Callable[[int], AnsweredRequest | AddProvider]]
"""Whom to tell, and the request once it has a number."""


class Purpose(Enum):
    """What a query is for: it says what is done when an attacker may own all peers nearest to its key
    (crowding.py)."""

    LOOK = "only to know the nearest peers"
    STORE = "to store at them"
    FIND = "to find what they hold"


class Query(ABC):
    """One query under way.

    number: the application's; None for the engine's own. A child has its parent's, for its outputs; the QueryDone is
    the parent's. then: called with it when it is over, unless it was cancelled; may run another child of its parent.
    waiting: follow-ups and children that are not settled. stored, asked, failed: as in QueryDone, beyond those of the
    lookup; children's included, but for stored. concluded: the follow-ups were sent. closed: it is over. timer: that
    of its time-out, overdue: that has passed. parent, children: see the module's docstring.
    lookup: its part in one, which it may share with others; errand: with whom, once it runs (errands.py).
    trusting: peers that are named, and known to be there, count as answered without being asked.
    """

    purpose: ClassVar[Purpose] = Purpose.LOOK

    def __init__(self, number: int | None, lookup: Lookup) -> None:
        self.number, self.lookup = number, Ride(lookup)
        self.errand: Errand | None = None
        self.then: Callable[[Query, float], None] | None = None
        self.waiting = self.stored = self.asked = self.failed = 0
        self.concluded = self.closed = self.overdue = self.trusting = False
        self.timer = 0
        self.parent: Query | None = None
        self.children: list[Query] = []

    @abstractmethod
    def question(self, id: int) -> AnsweredRequest:
        """What each peer of the lookup is asked."""

    def begin(self, now: float) -> Sequence[DhtOutput]:
        """Results that need nobody else. May stop the lookup."""
        return ()

    def answered(self, peer: PeerId, reply: Reply, now: float) -> Sequence[DhtOutput]:
        """Results in an answer to `question`; it is of the class that belongs to the question. May stop the
        lookup."""
        return ()

    def follow_ups(self, now: float) -> Sequence[FollowUp]:
        """Requests to be sent now that the lookup is done."""
        return ()

    def confirmed(self, peer: PeerId, reply: Reply, now: float) -> Sequence[DhtOutput]:
        """Results in the answer to a follow-up."""
        return ()

    def last_words(self, now: float) -> Sequence[LastWord]:
        """Requests to be sent at the end."""
        return ()

    @property
    def satisfied(self) -> bool:
        """Whether it has all that was wanted: then nothing is waited for any more."""
        return False

    def beyond(self, peers: Sequence[PeerInfo], now: float) -> Sequence[FollowUp]:
        """What peers are asked that stand in for those nearest to the key (crowding.py)."""
        if self.purpose is not Purpose.FIND:
            return ()
        state = self.lookup.state
        return [(info, self.question) for info in peers if state(info.peer) is not PeerState.ANSWERED]

    def beyond_answered(self, peer: PeerId, reply: Reply, now: float) -> Sequence[DhtOutput]:
        """Results in the answer to that."""
        return self.answered(peer, reply, now)

    def beyond_told(self, peers: Sequence[PeerInfo], now: float) -> Sequence[LastWord]:
        """What they are told."""
        return ()

    def result(self) -> QueryDone:
        """The last output; only asked for when there is a number."""
        assert self.number is not None
        return QueryDone(
            self.number,
            closest=self.lookup.closest(),
            stored=self.stored,
            asked=self.lookup.asked + self.asked,
            failed=self.lookup.silent + self.failed,
        )


class ClosestQuery(Query):
    """The nearest live peers to a key."""

    def __init__(self, number: int | None, lookup: Lookup, key: bytes) -> None:
        super().__init__(number, lookup)
        self._key = key

    def question(self, id: int) -> AnsweredRequest:
        return FindNode(id, self._key)


class PeerQuery(ClosestQuery):
    """Where a peer can be dialled. known: what is known here already."""

    def __init__(self, number: int, lookup: Lookup, peer: PeerId, known: PeerInfo | None) -> None:
        super().__init__(number, lookup, bytes(peer))
        self._peer, self._found = peer, known

    def begin(self, now: float) -> Sequence[DhtOutput]:
        if self._found is not None:
            self.lookup.stop()
        return ()

    def answered(self, peer: PeerId, reply: Reply, now: float) -> Sequence[DhtOutput]:
        assert isinstance(reply, FoundNodes)
        for info in reply.closer:
            if info.peer == self._peer and info.addresses:
                self._found = info
                self.lookup.stop()
        return ()

    def result(self) -> QueryDone:
        done = super().result()
        return QueryDone(done.query, done.closest, peer=self._found, asked=done.asked, failed=done.failed)


class ProvidersQuery(Query):
    """The providers of a key. local: those that this peer knows of itself. limit: 0 for none."""

    purpose = Purpose.FIND

    def __init__(
        self, number: int, lookup: Lookup, key: bytes, limit: int, max_found: int, local: Sequence[Provider]
    ) -> None:
        super().__init__(number, lookup)
        self._key, self._local = key, local
        self._limit = min(limit or max_found, max_found)
        self._found: dict[PeerId, None] = {}

    @property
    def satisfied(self) -> bool:
        return len(self._found) >= self._limit

    def question(self, id: int) -> AnsweredRequest:
        return GetProviders(id, self._key)

    def begin(self, now: float) -> Sequence[DhtOutput]:
        return self._take(self._local)

    def answered(self, peer: PeerId, reply: Reply, now: float) -> Sequence[DhtOutput]:
        assert isinstance(reply, FoundProviders)
        return self._take(reply.providers)

    def _take(self, providers: Sequence[Provider]) -> Sequence[DhtOutput]:
        outputs: list[DhtOutput] = []
        assert self.number is not None
        for provider in providers:
            if provider.peer not in self._found and len(self._found) < self._limit:
                self._found[provider.peer] = None
                outputs.append(ProviderFound(self.number, PeerInfo(provider.peer, provider.addresses)))
        if self.satisfied:
            self.lookup.stop()
        return outputs


class ProvideQuery(ClosestQuery):
    """Stores a provider record at the nearest peers.

    provider: the record, asked for when it is sent; None when it is not wanted any more.

    holders: the peers that it was sent to. held: those that hold records of the key already: how many, and the first
    of the splits that they tell of (splits.py).
    """

    purpose = Purpose.STORE

    def __init__(
        self, number: int | None, lookup: Lookup, key: bytes, provider: Callable[[], Provider | None]
    ) -> None:
        super().__init__(number, lookup, key)
        self._provider = provider
        self.holders: list[PeerInfo] = []
        self.held: dict[PeerId, tuple[int, Split | None]] = {}

    def answered(self, peer: PeerId, reply: Reply, now: float) -> Sequence[DhtOutput]:
        assert isinstance(reply, FoundNodes)
        if reply.held:
            self.held[peer] = reply.held, reply.splits[0] if reply.splits else None
        return ()

    def last_words(self, now: float) -> Sequence[LastWord]:
        return self.beyond_told(self.lookup.closest(), now)

    def beyond_told(self, peers: Sequence[PeerInfo], now: float) -> Sequence[LastWord]:
        provider = self._provider()
        if provider is None or not provider.addresses:
            return ()
        self.holders += peers
        self.stored += len(peers)
        return [(info, add_provider(self._key, provider)) for info in peers]


class PutQuery(ClosestQuery):
    """Stores a value at the nearest peers and counts those that confirm it."""

    purpose = Purpose.STORE

    def __init__(self, number: int | None, lookup: Lookup, key: bytes, value: bytes) -> None:
        super().__init__(number, lookup, key)
        self._value = value

    def follow_ups(self, now: float) -> Sequence[FollowUp]:
        return self.beyond(self.lookup.closest(), now)

    def beyond(self, peers: Sequence[PeerInfo], now: float) -> Sequence[FollowUp]:
        return [(info, put_value(self._key, self._value, now)) for info in peers]

    def beyond_answered(self, peer: PeerId, reply: Reply, now: float) -> Sequence[DhtOutput]:
        return self.confirmed(peer, reply, now)

    def confirmed(self, peer: PeerId, reply: Reply, now: float) -> Sequence[DhtOutput]:
        assert isinstance(reply, ValueStored)
        if reply.key == self._key and reply.value == self._value:
            self.stored += 1
        return ()


class ValueQuery(Query):
    """The best value of a key; the nearest peers that have none, or a worse one, are given it (kad-dht spec,
    "Entry correction")."""

    purpose = Purpose.FIND

    def __init__(
        self, number: int, lookup: Lookup, key: bytes, validators: Validators, local: bytes | None
    ) -> None:
        super().__init__(number, lookup)
        self._key, self._validators, self._local = key, validators, local
        self._values: dict[PeerId, bytes | None] = {}
        self._stand_ins: dict[PeerId, None] = {}

    def beyond(self, peers: Sequence[PeerInfo], now: float) -> Sequence[FollowUp]:
        self._stand_ins.update(dict.fromkeys(info.peer for info in peers))
        return super().beyond(peers, now)

    def question(self, id: int) -> AnsweredRequest:
        return GetValue(id, self._key)

    def answered(self, peer: PeerId, reply: Reply, now: float) -> Sequence[DhtOutput]:
        assert isinstance(reply, FoundValue)
        valid = reply.value is not None and reply.key == self._key
        if valid and reply.value is not None and self._validators.validate(self._key, reply.value, now):
            self._values[peer] = reply.value
        else:
            self._values[peer] = None
        return ()

    def last_words(self, now: float) -> Sequence[LastWord]:
        best = self._best()
        if best is None:
            return ()
        worse = self._validators.is_mergeable(self._key)
        outdated = [
            info
            for info in self.lookup.closest()
            if (value := self._values.get(info.peer)) is None or (worse and value != best)
        ]
        return [(info, put_value(self._key, best, now)) for info in outdated]

    def result(self) -> QueryDone:
        done = super().result()
        return QueryDone(done.query, done.closest, value=self._best(), asked=done.asked, failed=done.failed)

    def _best(self) -> bytes | None:
        """The validator's choice; the nearest peer's value stands last, the local one first."""
        nearest = dict.fromkeys([*(info.peer for info in self.lookup.closest()), *self._stand_ins])
        values = [value for peer in nearest if (value := self._values.get(peer)) is not None]
        if self._local is not None:
            values.append(self._local)
        values.reverse()
        return values[self._validators.select(self._key, values)] if values else None


def add_provider(key: bytes, provider: Provider) -> Callable[[int], AddProvider]:
    """An ADD_PROVIDER still without a number."""
    return lambda id: AddProvider(id, key, provider)


def put_value(key: bytes, value: bytes, now: float) -> Callable[[int], PutValue]:
    """A PUT_VALUE still without a number."""
    return lambda id: PutValue(id, key, value, now)
