"""Runs queries: sends what their lookups want asked, and gives them what comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..engine import NetworkOutput, PeerInfo, Reply, Undeliverable
from ..hearsay import MAX_ADDRESSES, believable
from ..identity import PeerId
from .config import DhtConfig
from .contacts import Contacts
from .errands import Errand, Errands
from .events import DhtOutput, QueryDone
from .liveness import Liveness
from .lookups import Lookups
from .messages import (
    AddProvider,
    AnsweredRequest,
    FindNode,
    FoundNodes,
    FoundProviders,
    FoundRecord,
    FoundValue,
    Split,
)
from .network_size import NetworkSize
from .queries import Query
from .requests import Pending, Requests, Silence
from .round_trips import RoundTrips
from .routing import RoutingTable
from .timers import Timers

_WITH_CLOSER: Final = (FoundNodes, FoundProviders, FoundValue)


class Traffic:
    """The requests and queries of one peer.

    timers: the engine's. What this class adds, Pending and Query, comes back through `due`.

    lookups: makes those that queries are run on. liveness: learns from what comes back. network_size: learns from each
    lookup that ends by itself. guard: called before with its query. on_splits: called with the splits that the replies
    to a lookup bring. on_round_trip: called with each answer that took no dial: by whom, where it says that it is
    (or b""), the seconds since the request, and now.
    """

    def __init__(
        self, peer: PeerId, table: RoutingTable, contacts: Contacts, timers: Timers[object], config: DhtConfig
    ) -> None:
        self.on_splits: Callable[[PeerId, tuple[Split, ...], float], None] = lambda sender, splits, now: None
        self.on_round_trip: Callable[[PeerId, bytes, float, float], None] = (
            lambda sender, coordinate, took_s, now: None
        )
        self.network_size = NetworkSize(config.k)
        self.guard: Callable[[Query, float], None] = lambda query, now: None
        self._table, self._contacts, self._timers, self._config = table, contacts, timers, config
        round_trips = RoundTrips(
            config.first_timeout_s, config.min_timeout_s, config.max_timeout_s, config.dial_factor
        )
        self._requests = Requests(timers, contacts, round_trips, config.request_timeout_s)
        self.lookups = Lookups(peer, table, contacts, config)
        self.liveness = Liveness(peer, table, contacts, self._requests, timers, config)
        self._queries: dict[int, Query] = {}
        self._errands = Errands()

    @property
    def out(self) -> list[NetworkOutput | DhtOutput]:
        """Where outputs go; the engine's owner replaces it for each event."""
        return self._requests.out

    @out.setter
    def out(self, out: list[NetworkOutput | DhtOutput]) -> None:
        self._requests.out = out

    # Queries ------------------------------------------------------------------------------------------------

    def run(self, query: Query, now: float, parent: Query | None = None) -> None:
        """Start a query. parent: the one that it is run for, which ends only after it; nothing is started for one
        that is over or out of time."""
        number = query.number
        if parent is not None:
            if parent.closed or parent.overdue:
                return
            query.parent = parent
            parent.children.append(query)
            parent.waiting += 1
        elif number is not None:
            if len(self._queries) >= self._config.max_queries:
                self.out.append(QueryDone(number))
                return
            self._queries[number] = query
        query.timer = self._timers.add(now + self._config.query_timeout_s, query)
        self.out += query.begin(now)
        errand = self._errands.join(query)
        for sender, reply in tuple(errand.told):
            if not query.lookup.done:
                self.out += query.answered(sender, reply, now)
        self._advance(errand, now)

    def cancel(self, number: int) -> None:
        """Forget a query: it sends and says nothing more. What comes back still teaches the table."""
        query = self._queries.pop(number, None)
        if query is not None:
            self._abandon(query)

    def finish(self, query: Query, now: float) -> None:
        """End a query with what it has."""
        query.lookup.stop()
        for child in list(query.children):
            self.finish(child, now)
        self._conclude(query, now)

    def _abandon(self, query: Query) -> None:
        """It is over, and with it those that were run for it."""
        query.closed = True
        query.lookup.stop()
        self._leave(query)
        self._timers.cancel(query.timer)
        for child in query.children:
            self._abandon(child)

    def _leave(self, query: Query) -> None:
        """A query needs its lookup no more: the last one ends it."""
        errand = query.errand
        if errand is not None and query in errand.riders:
            errand.riders.remove(query)
            if not errand.riders:
                errand.lookup.stop()
                self._errands.close(errand)

    def _advance(self, errand: Errand, now: float) -> None:
        """Let go what the lookup wants asked now; conclude the queries that are done with it."""
        for query in tuple(errand.riders):
            if query.lookup.done:
                self._conclude(query, now)
        if not errand.riders:
            return
        requests, query, lookup = self._requests, errand.riders[0], errand.lookup
        for info in lookup.next():
            requests.ask(self._placed(info), query.question(requests.next_id()), now, errand=errand)
        if not lookup.done:
            return
        if self.network_size.is_sparse(lookup.target, lookup.closest(), now) and lookup.widen():
            self._advance(errand, now)
        else:
            self._errands.close(errand)
            for query in tuple(errand.riders):
                self._conclude(query, now)

    def _conclude(self, query: Query, now: float) -> None:
        """The lookup is done: see to the follow-ups, and end the query when they are settled."""
        if query.closed:
            return
        self._leave(query)
        if not query.concluded:
            if not query.lookup.stopped:
                self.guard(query, now)
                self.network_size.learn(query.lookup.target, query.lookup.closest(), now)
            query.concluded = True
            for info, make in query.follow_ups(now):
                query.waiting += 1
                query.asked += 1
                self._requests.ask(info, make(self._requests.next_id()), now, query=query)
        if query.waiting and not query.satisfied:
            return
        self._abandon(query)
        for info, finish in query.last_words(now):
            self.tell(info, finish(self._requests.next_id()), now)
        if not query.lookup.stopped:
            self._table.looked_up(query.lookup.target, now)
        parent = query.parent
        if parent is None and query.number is not None:
            if self._queries.get(query.number) is query:
                del self._queries[query.number]
            self.out.append(query.result())
        if query.then is not None:
            query.then(query, now)
        if parent is not None:
            parent.children.remove(query)
            parent.asked += query.lookup.asked + query.asked
            parent.failed += query.lookup.silent + query.failed
            parent.waiting -= 1
            if parent.concluded:
                self._conclude(parent, now)

    def look_again(self, query: Query, now: float) -> None:
        """What a query waits for besides its requests has changed: perhaps it is `satisfied`."""
        if query.lookup.done:
            self._conclude(query, now)

    # Requests -----------------------------------------------------------------------------------------------

    def is_connected(self, peer: PeerId) -> bool:
        """Whether a connection to a peer stands."""
        return peer in self._contacts

    def next_id(self) -> int:
        """A number for a request."""
        return self._requests.next_id()

    def tell(self, info: PeerInfo, request: AnsweredRequest | AddProvider, now: float) -> None:
        """Send a request whose answer nobody waits for."""
        if isinstance(request, AddProvider):
            self._requests.tell(info, request)
        else:
            self._requests.ask(info, request, now)

    # What comes back ----------------------------------------------------------------------------------------

    def reply(self, sender: PeerId, reply: Reply, now: float) -> None:
        """A reply came, to a request that is perhaps not under way any more."""
        pending = self._requests.answer(reply.id, sender, now)
        if pending is None:
            return
        if reply.__class__ is not pending.answer:
            self._blame(pending, now)
            self._failed(pending, now)
            return
        if not pending.dialled:
            coordinate = reply.coordinate if isinstance(reply, FoundNodes) else b""
            self.on_round_trip(sender, coordinate, now - pending.sent, now)
        if not isinstance(reply, FoundRecord):  # another protocol: says nothing about the DHT
            self.liveness.serves(pending.info, now)
        errand, query = pending.errand, pending.query
        if errand is not None:
            assert isinstance(reply, _WITH_CLOSER)
            self._answered(errand, pending.info, reply, now)
        elif query is None:
            self.liveness.probed(pending.info, reply, now)
        elif not query.closed:
            self.out += query.confirmed(sender, reply, now)
            if pending.stalled:
                query.failed -= 1
            self._settle(pending, query, now)

    def _answered(
        self, errand: Errand, info: PeerInfo, reply: FoundNodes | FoundProviders | FoundValue, now: float
    ) -> None:
        """The answer to what a lookup asked."""
        sender = info.peer
        if not errand.riders:
            return
        if not isinstance(reply, FoundValue) and reply.splits:
            self.on_splits(sender, reply.splits, now)
        self._errands.tell(errand, sender, reply)
        trusting = False
        for query in tuple(errand.riders):
            trusting = trusting or query.trusting
            self.out += query.answered(sender, reply, now)
        named = self.liveness.worth_asking(believable(reply.closer, info.addresses), now)
        for elsewhere in errand.lookup.answered(sender, named):
            self._requests.introduce(elsewhere)
        if trusting:
            for info in reply.closer:
                if self.liveness.is_there(info.peer, now):
                    errand.lookup.take(info.peer)
        self._advance(errand, now)

    def down(self, peer: PeerId, now: float) -> None:
        """No connection stands any more, or none could be made."""
        self._contacts.down(peer)
        failed = self._requests.peer_down(peer)
        if not failed:
            self.liveness.down(peer, now)
            return
        self._blame(failed[0], now)
        for pending in failed:
            self._failed(pending, now)

    def undeliverable(self, event: Undeliverable, now: float) -> None:
        """Requests to a connected peer that will not be answered. One that does not speak the DHT's protocol is a
        client; that it does not speak ours for records says nothing."""
        failed = self._requests.undeliverable(event.peer, event.requests)
        if event.protocol == FindNode.protocol:
            if event.unsupported:
                self.liveness.found_client(event.peer, now)
            elif failed:
                self._blame(failed[0], now)
        for pending in failed:
            self._failed(pending, now)

    def due(self, item: Pending | Query, now: float) -> None:
        """A timer of this class is due."""
        match item:
            case Pending():
                match self._requests.overdue(item, now):
                    case Silence.LATE | Silence.USUAL:
                        self._late(item, now)
                    case Silence.STALLED:
                        self._stalled(item, now)
                    case Silence.EXPIRED:
                        self._blame(item, now)
                        self._failed(item, now)
            case Query():
                self._stop(item, now)

    def _stop(self, query: Query, now: float) -> None:
        """A query is out of time: end it with what it has."""
        query.overdue = True
        query.lookup.stop()
        for child in list(query.children):
            self._stop(child, now)
        self._conclude(query, now)

    def _late(self, pending: Pending, now: float) -> None:
        """An answer takes longer than usual: ask the next candidate as well."""
        errand = pending.errand
        if errand is not None:
            errand.lookup.late(pending.info.peer)
            self._advance(errand, now)

    def _stalled(self, pending: Pending, now: float) -> None:
        errand, query = pending.errand, pending.query
        if errand is not None:
            errand.lookup.stalled(pending.info.peer)
            self._advance(errand, now)
        elif query is not None and not query.closed:
            query.failed += 1
            query.waiting -= 1
            self._conclude(query, now)

    def _failed(self, pending: Pending, now: float) -> None:
        """A request has failed: its query goes on without it."""
        errand, query = pending.errand, pending.query
        if errand is not None:
            errand.lookup.failed(pending.info.peer)
            self._advance(errand, now)
        elif query is None:
            self.liveness.probe_failed(pending.info.peer, now)
        elif not query.closed:
            if not pending.stalled:
                query.failed += 1
            self._settle(pending, query, now)

    def _settle(self, pending: Pending, query: Query, now: float) -> None:
        """A follow-up is over; a stalled one is not waited for since."""
        if not pending.stalled:
            query.waiting -= 1
        self._conclude(query, now)

    def _placed(self, info: PeerInfo) -> PeerInfo:
        """A peer that others name, where it answered before as well: they may lie."""
        known = self._table.get(info.peer)
        if known is None or known.addresses == info.addresses:
            return info
        both = dict.fromkeys((*known.addresses[: MAX_ADDRESSES - 1], *info.addresses))
        return PeerInfo(info.peer, tuple(both)[:MAX_ADDRESSES])

    def _blame(self, pending: Pending, now: float) -> None:
        """A peer did not do its part."""
        self.liveness.blame(pending.info, pending.sent, now)
