"""Runs queries: sends their requests, and learns from all that comes back.

A peer enters the routing table only by answering. New connections are probed (probes.py); a peer of the table that
fails is asked again after a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ..engine import Address, NetworkOutput, PeerInfo, Reply, Send, Speaks, Undeliverable
from ..identity import PeerId
from .config import DhtConfig
from .contacts import Contacts
from .disjoint import MAX_PATHS, DisjointLookup
from .errands import Errand, Errands
from .events import DhtOutput, QueryDone
from .hearsay import MAX_ADDRESSES, believable
from .keys import ID_BITS, key_id, peer_key
from .lookup import Lookup, LookupConfig
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
from .optimistic import Expectation, NarrowLookup
from .probes import Probes
from .queries import Query
from .requests import Pending, Requests, Silence
from .round_trips import RoundTrips
from .routing import RoutingTable
from .timers import Timers

_FOLLOW_UP_PATIENCE: Final = 4.0
"""How many times the usual a follow-up may be silent: nobody else is asked in its place, so that it is waited
for."""

_FEW: Final = 3  # requests in flight, as in Kademlia §2.3
_WITNESSES: Final = 3  # neighbours that are asked who is near now when one has failed
_WITH_CLOSER: Final = (FoundNodes, FoundProviders, FoundValue)


@dataclass(frozen=True, slots=True)
class Recheck:
    """A suspect is to be asked again."""

    peer: PeerId


class Traffic:
    """The requests and queries of one peer.

    timers: the engine's. What this class adds, Pending, Query and Recheck, comes back through `due`.

    out: where outputs go; the engine's owner replaces it for each event. bootstrap: asked while nobody else
    is known. network_size: learns from each lookup that ends by itself. guard: called before with its query.
    on_splits: called with the splits that the replies to a lookup bring.
    """

    def __init__(
        self, peer: PeerId, table: RoutingTable, contacts: Contacts, timers: Timers[object], config: DhtConfig
    ) -> None:
        self.out: list[NetworkOutput | DhtOutput] = []
        self.bootstrap: tuple[PeerInfo, ...] = ()
        self.on_splits: Callable[[PeerId, tuple[Split, ...], float], None] = lambda sender, splits, now: None
        self.network_size = NetworkSize(config.k)
        self.guard: Callable[[Query, float], None] = lambda query, now: None
        self._peer, self._table, self._contacts = peer, table, contacts
        self._timers, self._config = timers, config
        round_trips = RoundTrips(
            config.first_timeout_s, config.min_timeout_s, config.max_timeout_s, config.dial_factor
        )
        self._requests = Requests(timers, round_trips, config.request_timeout_s)
        self._queries: dict[int, Query] = {}
        self._errands = Errands()
        self._probes = Probes(table, config)
        self._rechecks: dict[PeerId, None] = {}  # suspects with a timer
        self._all_at_once = LookupConfig(config.k, config.alpha, config.alpha, 0, config.max_asked)
        few = min(config.alpha, _FEW)
        self._few_at_once = LookupConfig(config.k, few, few, 0, config.max_asked)

    # Queries ------------------------------------------------------------------------------------------------

    def lookup(self, target: int, seeds: Iterable[PeerInfo] = (), paths: int = 0) -> Lookup:
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
        `lookup`."""
        config = self._config
        if (paths or config.disjoint_paths) > 1:
            return self.lookup(key_id(key), (), paths)
        tuning = LookupConfig(
            config.k, config.alpha, config.find_window, self._table.radius(), config.max_asked
        )
        target = key_id(key)
        lookup = Lookup(self._peer, target, self._known(target), tuning)
        lookup.plan = "few when near", 1
        return lookup

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

    def _known(self, target: int) -> list[PeerInfo]:
        """Where a lookup begins."""
        k = self._config.k
        # Twice k, so that there are others to ask when many of the nearest do not answer.
        return self._table.closest(target, 2 * k, suspects=True) or [*self._contacts.some(k), *self.bootstrap]

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
            self._ask(info, query.question(requests.next_id()), now, errand=errand)
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
                self._ask(info, make(self._requests.next_id()), now, query=query)
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

    def check_table(self, stale_s: float, now: float) -> None:
        """Ask the peers of the table that were not heard of for `stale_s` whether they are still there. Those that
        are connected are only asked after four times as long: networks notice when the other side of a connection
        is gone."""
        table, longest = self._table, now - 4 * stale_s
        for info in table.not_seen_since(now - stale_s, self._config.k * ID_BITS):
            if info.peer not in self._contacts or not table.is_fresh(info.peer, longest):
                self._probe_if_idle(info, now)

    # Requests -----------------------------------------------------------------------------------------------

    def is_connected(self, peer: PeerId) -> bool:
        """Whether a connection to a peer stands."""
        return peer in self._contacts

    def next_id(self) -> int:
        """A number for a request."""
        return self._requests.next_id()

    def tell(self, info: PeerInfo, request: AnsweredRequest | AddProvider, now: float) -> None:
        """Send a request whose answer nobody waits for."""
        if not isinstance(request, AddProvider):
            self._ask(info, request, now)
            return
        introduction = self._contacts.introduce(info)
        if introduction is not None:
            self.out.append(introduction)
        self.out.append(Send(info.peer, request))

    def _ask(
        self,
        info: PeerInfo,
        request: AnsweredRequest,
        now: float,
        *,
        errand: Errand | None = None,
        query: Query | None = None,
    ) -> None:
        """Send a request for an errand; or for a query of its own, as a follow-up; or as a probe."""
        peer = info.peer
        dialled = peer not in self._contacts
        if dialled:
            if query is not None:  # others told of it: a provider without a record
                info = PeerInfo(peer, info.addresses[:MAX_ADDRESSES])
            introduction = self._contacts.introduce(info)
            if introduction is not None:
                self.out.append(introduction)
        pending = Pending(request.id, info, request.answer, dialled, errand, query)
        self._requests.open(pending, now, 1.0 if query is None else _FOLLOW_UP_PATIENCE)
        self.out.append(Send(peer, request))

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
        if not isinstance(reply, FoundRecord):  # another protocol: says nothing about the DHT
            self._serves(pending.info, now)
        errand, query = pending.errand, pending.query
        if errand is not None:
            assert isinstance(reply, _WITH_CLOSER)
            self._answered(errand, pending.info, reply, now)
        elif query is None:
            self._probes.ended(sender)
            if isinstance(reply, FoundNodes):
                self._meet(believable(reply.closer, pending.info.addresses), now)
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
        errand.lookup.answered(sender, self._worth_asking(believable(reply.closer, info.addresses), now))
        if trusting:
            for info in reply.closer:
                if info.peer in self._contacts and self._table.is_fresh(
                    info.peer, now - self._config.stale_s
                ):
                    errand.lookup.take(info.peer)
        self._advance(errand, now)

    def up(self, peer: PeerId, addresses: tuple[Address, ...], now: float) -> None:
        """A connection stands: see whether the peer serves the DHT, unless it is known or being asked
        already."""
        self._contacts.up(peer, addresses)
        self._table.pardon(peer)
        info = self._contacts.info(peer)
        if info is None:
            return
        self._table.learn_addresses(info)
        if not self._requests.has(peer) and (self._table.is_suspect(peer) or self._probes.wants(info, now)):
            self._probe_if_idle(info, now)

    def asked_by(self, peer: PeerId, now: float) -> None:
        """A peer sent a request: it lives, whether it serves or not."""
        table = self._table
        if not table.lives(peer, now) and table.is_near(peer):
            # A neighbour that we have lost, perhaps over a connection that has stood all the time.
            info = self._contacts.info(peer)
            if info is not None and not self._probes.is_client(peer, now):
                self._probe_if_idle(info, now)

    def down(self, peer: PeerId, now: float) -> None:
        """No connection stands any more. Nothing is wrong with that, unless something was under way."""
        self._contacts.down(peer)
        failed = self._requests.peer_down(peer)
        if failed:
            self._blame(failed[0], now)
            for pending in failed:
                self._failed(pending, now)
        elif self._table.is_near(peer) and not self._table.is_fresh(peer, now - self._config.recheck_s):
            # Of a neighbour it matters whether it is gone: records are stored there. Not twice in a row, though: it
            # may have too many connections.
            info = self._table.get(peer)
            if info is not None:
                self._probe_if_idle(info, now)
        else:
            self._table.doubt(peer)  # asked at the next refresh

    def undeliverable(self, event: Undeliverable, now: float) -> None:
        """Requests to a connected peer that will not be answered. One that does not speak the DHT's protocol is a
        client; that it does not speak ours for records says nothing."""
        failed = self._requests.undeliverable(event.peer, event.requests)
        if event.protocol == FindNode.protocol:
            if event.unsupported:
                self._is_client(event.peer, now)
            elif failed:
                self._blame(failed[0], now)
        for pending in failed:
            self._failed(pending, now)

    def speaks(self, event: Speaks, now: float) -> None:
        """A connected peer says whether it serves the DHT."""
        if event.protocol != FindNode.protocol:
            return
        if not event.serving:
            self._is_client(event.peer, now)
            return
        self._probes.pardon(event.peer)
        info = self._contacts.info(event.peer)
        if info is not None and self._table.wants(info):
            self._probe_if_idle(info, now)

    def due(self, item: Pending | Query | Recheck, now: float) -> None:
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
            case Recheck(peer):
                self._recheck(peer, now)

    def _stop(self, query: Query, now: float) -> None:
        """A query is out of time: end it with what it has."""
        query.overdue = True
        query.lookup.stop()
        for child in list(query.children):
            self._stop(child, now)
        self._conclude(query, now)

    def _recheck(self, peer: PeerId, now: float) -> None:
        """Ask a suspect again; and somebody else too, because a failure only counts when others answer."""
        del self._rechecks[peer]
        suspect = self._table.get(peer)
        if suspect is not None and self._table.is_suspect(peer):
            witnesses = self._table.closest(peer_key(peer), 1)
            for info in (suspect, *witnesses):
                if not self._requests.has(info.peer):
                    self._probe(info, now)

    def _probe(self, info: PeerInfo, now: float) -> None:
        self._probes.begin(info.peer)
        self._ask(info, FindNode(self._requests.next_id(), bytes(self._peer)), now)

    def _probe_if_idle(self, info: PeerInfo, now: float) -> None:
        """Probe a peer, unless it is being asked anyway, or too many probes are under way."""
        if self._probes.has_room() and not self._requests.has(info.peer):
            self._probe(info, now)

    def _probe_failed(self, peer: PeerId, now: float) -> None:
        """Nobody waits for this answer. A connected peer that does not answer a probe is taken for a client,
        unless it has been a server."""
        if self._probes.ended(peer) and peer in self._contacts:
            self._probes.client(peer, now)

    def _is_client(self, peer: PeerId, now: float) -> None:
        """A peer does not serve the DHT: nobody is to be sent to it."""
        self._table.remove(peer)
        self._probes.client(peer, now)

    def _meet(self, named: Sequence[PeerInfo], now: float) -> None:
        """Ask those that are named as near to us, and that we do not know, whether they are there."""
        table = self._table
        near = [
            info for info in named if table.is_near(info.peer) and info.peer not in table and info.addresses
        ]
        for info in self._worth_asking(near, now):
            if info.peer != self._peer and not self._probes.is_client(info.peer, now):
                self._probe_if_idle(info, now)

    def _serves(self, info: PeerInfo, now: float) -> None:
        """A peer answered as only servers do."""
        if self._table.seen(info.peer, now):
            return
        oldest = self._table.add(self._contacts.info(info.peer) or info, now, self._probes.fresh_s)
        if oldest is not None:
            self._probe_if_idle(oldest, now)

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
            self._probe_failed(pending.info.peer, now)
        elif not query.closed:
            if not pending.stalled:
                query.failed += 1
            self._settle(pending, query, now)

    def _settle(self, pending: Pending, query: Query, now: float) -> None:
        """A follow-up is over; a stalled one is not waited for since."""
        if not pending.stalled:
            query.waiting -= 1
        self._conclude(query, now)

    def _worth_asking(self, named: Sequence[PeerInfo], now: float) -> Sequence[PeerInfo]:
        """Of peers that others name, those not known to be dead."""
        dead = [peer for peer in self._table.banished(named, now) if peer not in self._contacts]
        return [info for info in named if info.peer not in dead] if dead else named

    def _blame(self, pending: Pending, now: float) -> None:
        """A peer did not do its part."""
        peer, table = pending.info.peer, self._table
        if not table.is_suspect(peer) and table.is_near(peer):
            witnesses = [
                info for info in table.closest(peer_key(self._peer), _WITNESSES + 1) if info.peer != peer
            ]
            for info in witnesses[:_WITNESSES]:
                self._probe_if_idle(info, now)
        if table.failed(peer, now):
            if peer not in self._rechecks:
                self._rechecks[peer] = None
                self._timers.add(now + self._config.recheck_s, Recheck(peer))
        elif peer not in table and table.answered_at > pending.sent:
            table.banish(peer, now)
