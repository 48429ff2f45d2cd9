"""The DHT engine: events and commands in, messages and results out.

    command ----> Query ----> Lookup                 whom to ask next (queries.py, lookup.py)
                    |   ^
                Request |                            each with its own time-out (traffic.py, requests.py)
                    v   |
    Received ----> Reply ----> RoutingTable          who answered belongs in it (routing.py)
    Received ----> Request --> Server --> Reply      from stores and table, all bounded (server.py)
    Tick -------> what is due: silent requests, queries out of time, renewals, the refresh

This file only passes facts between those objects, and decides what is done when.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from random import Random
from typing import Final, assert_never

from ..engine import (
    Address,
    Certified,
    Congested,
    Engine,
    Located,
    NetworkEvent,
    NetworkOutput,
    PeerDown,
    PeerInfo,
    PeerUp,
    Reachable,
    Received,
    Reply,
    Request,
    Send,
    Serve,
    Speaks,
    Tick,
    Undeliverable,
)
from ..identity import PeerId
from ..signed import Sign, Verify
from . import events
from .config import DhtConfig as DhtConfig
from .contacts import Contacts
from .crowding import Crowding
from .events import DhtCommand, DhtOutput, QueryDone
from .handed import Handed
from .handover import HandOver, Handover
from .hot_keys import HotKeys
from .keeper import Keep, Keeper
from .keys import key_id, multihash_key, peer_key, service_key
from .liveness import Recheck
from .lookup import Lookup, LookupConfig
from .messages import AddProvider, FindNode, GetRecord, PutValue
from .neighbours import Neighbours
from .own_values import OwnValue, OwnValues
from .provider_store import ProviderStore
from .publisher import Publisher
from .publishing import Publishing
from .queries import (
    ClosestQuery,
    PeerQuery,
    ProvidersQuery,
    Query,
    ValueQuery,
)
from .records import RecordReader, ServiceRecord
from .refresh import Refresh
from .renewals import SPREAD, Slot
from .requests import Pending
from .routing import RoutingTable
from .server import Server
from .service_results import ServiceResults
from .service_search import SearchTools, ServiceSearch
from .splits import Splits
from .sweeper import Region
from .timers import Timers
from .traffic import Traffic
from .validators import Validators
from .value_store import ValueStore

_MAX_BOOTSTRAP: Final = 32


class _Job(Enum):
    """What is done again and again."""

    UPKEEP = "refresh the table, drop what has expired"


class Kademlia(Engine[DhtCommand, DhtOutput]):
    """The DHT of one peer.

    peer: its id. sign, verify: as in signed.py. rng: for refreshes, samples and the spread of intervals.

    For looking at: table, the routing table; network_size, how many servers there are (network_size.py); publishing;
    serving, whether it answers others, that is, server mode.
    """

    def __init__(
        self, peer: PeerId, sign: Sign, verify: Verify, rng: Random, config: DhtConfig | None = None
    ) -> None:
        self.peer = peer
        self.config = config = config or DhtConfig()
        self.serving = config.server is not False
        own = peer_key(peer)
        self.table = RoutingTable(
            own,
            k=config.k,
            per_group=config.peers_per_group,
            per_table=config.peers_per_group_in_table,
            max_failures=config.max_failures,
            banish_s=config.banish_s,
        )
        self._rng = rng
        self._timers = Timers[object]()
        self._contacts = Contacts(config.max_connected)
        self._traffic = Traffic(peer, self.table, self._contacts, self._timers, config)
        self._lookups, self._liveness = self._traffic.lookups, self._traffic.liveness
        self.network_size = self._traffic.network_size
        crowding = Crowding(self.network_size, config.k, rng, self._lookups.nearest, self._traffic.run)
        if config.around_crowds:
            self._traffic.guard = crowding.check
        self._validators = Validators(config.validators, config.max_value_bytes)
        self._providers = ProviderStore(
            own,
            ttl_s=config.provider_ttl_s,
            clock_error_s=config.clock_error_s,
            max_keys=config.max_provider_keys,
            max_per_key=config.max_providers_per_key,
            max_records=config.max_providers,
        )
        self._values = ValueStore(
            own, self._validators, ttl_s=config.value_ttl_s, max_values=config.max_values
        )
        self._own_values = OwnValues(self._traffic, self._values, self._validators, self._timers, rng, config)
        self._publisher = Publisher(peer, sign, config.record_ttl_s, config.provider_ttl_s)
        self._splits = Splits(self._providers, rng)
        self._traffic.on_splits = self._splits.told
        self.publishing = Publishing(
            self._publisher,
            self._traffic,
            self.table,
            self._timers,
            rng,
            config,
            self._splits,
            crowding.is_crowded if config.around_crowds else lambda target, closest, now: False,
        )
        self._liveness.on_met = self.publishing.met
        self._reader = RecordReader(verify)
        self._server = Server(
            peer,
            self.table,
            self._contacts,
            self._providers,
            self._values,
            self._publisher,
            self._splits,
            HotKeys(
                self._reader, config.clock_error_s, config.hot_after, self._lookups.find, self._traffic.run
            ),
            rng,
            k=config.k,
            max_providers=config.reply_providers,
            handed=Handed(self._providers, verify, config.clock_error_s),
        )
        self._handover = Handover(
            own,
            self.table,
            self._providers,
            self._values,
            self._traffic,
            self._timers,
            rng,
            config,
            verify,
        )
        self._neighbours = Neighbours()
        self._upkeep_timer = 0
        self._reports: dict[int, Refresh] = {}  # those that the application waits for
        self._keeper: Keeper | None = None  # with a Restore

    @property
    def records(self) -> int:
        """Provider records that are held for others."""
        return len(self._providers)

    def providers_held(self, key: bytes) -> list[PeerId]:
        """Whose records are kept for a key, for looking at."""
        return self._providers.peers(key)

    def announced(self, service: str) -> ServiceRecord | None:
        """The newest record that this peer has signed of a service, if it announces it."""
        publication = self._publisher.get(service_key(service))
        return None if publication is None else publication.record

    def deadline(self) -> float:
        return self._timers.deadline()

    def locate(
        self, coordinate: Callable[[], bytes], on_round_trip: Callable[[PeerId, bytes, float, float], None]
    ) -> None:
        """Have answers say where this peer is, and be told of round trips: whose, where it says that it is (or b""),
        the seconds it took, and now."""
        self._server.coordinate, self._traffic.on_round_trip = coordinate, on_round_trip

    def handle(self, event: NetworkEvent | DhtCommand, now: float) -> Sequence[NetworkOutput | DhtOutput]:
        out: list[NetworkOutput | DhtOutput] = []
        traffic = self._traffic
        traffic.out = out
        if not self._upkeep_timer and not isinstance(event, Tick):
            self._schedule_upkeep(now)
            if not self.serving:
                out.append(Serve(FindNode.protocol, serving=False))
        match event:
            case Received(sender, message):
                if isinstance(message, Reply):
                    traffic.reply(sender, message, now)
                elif isinstance(message, Request) and (self.serving or isinstance(message, GetRecord)):
                    self._liveness.asked_by(sender, now)
                    reply = self._server.answer(sender, message, now)
                    if isinstance(message, AddProvider | PutValue):
                        self._handover.stored(now)
                    if reply is not None:
                        out.append(Send(sender, reply))
            case PeerUp(peer, addresses):
                self._liveness.up(peer, addresses, now)
                self.publishing.heard(peer, True, now)
            case PeerDown(peer):
                traffic.down(peer, now)
                self.publishing.heard(peer, False, now)
            case Undeliverable():
                traffic.undeliverable(event, now)
            case Certified():
                pass  # its addresses came with identify
            case Speaks():
                self._liveness.speaks(event, now)
            case Reachable(reachable):
                if self.config.server == "auto" and self.serving != reachable:
                    self.serving = reachable
                    out.append(Serve(FindNode.protocol, reachable))
            case Located(peer, addresses):
                self._located(peer, addresses, now)
            case Congested():
                pass
            case Tick():
                for item in self._timers.due(now):
                    self._due(item, now)
            case _:
                self._command(event, now)
        if self._keeper is not None:
            self._keeper.tell_later(now)
        return out

    # Commands -----------------------------------------------------------------------------------------------

    def _command(self, command: DhtCommand, now: float) -> None:
        traffic = self._traffic
        match command:
            case events.SetAddresses(addresses):
                self._located(self.peer, addresses, now)
            case events.Join(query, peers, later):
                lookups = self._lookups
                earlier = lookups.bootstrap
                lookups.bootstrap = tuple(info for info in peers if info.peer != self.peer)[:_MAX_BOOTSTRAP]
                self._schedule_upkeep(now)
                self._refresh().join(query, now)
                lookups.bootstrap = self._merged(lookups.bootstrap, later, earlier)
            case events.Refresh(query):
                self._schedule_upkeep(now)
                refresh = self._reports[query] = self._refresh(query)
                refresh.all(now)
            case events.FindClosest(query, key, paths):
                lookup = self._lookups.nearest(key_id(key), paths=paths)
                traffic.run(ClosestQuery(query, lookup, key), now)
            case events.FindPeer(query, peer):
                traffic.run(
                    PeerQuery(query, self._lookups.nearest(peer_key(peer)), peer, self._known(peer)), now
                )
            case events.Provide(query, key):
                self.publishing.provide(query, multihash_key(key), now)
            case events.ProvideMany(query, keys):
                self.publishing.provide_many(query, [multihash_key(key) for key in keys], now)
            case events.StopProviding(key):
                self.publishing.stop_providing(multihash_key(key))
            case events.FindProviders():
                self._find_providers(command, now)
            case events.PutValue(query, key, value, republish):
                self._own_values.put(query, key, value, now, republish=republish)
            case events.StopPutting(key):
                self._own_values.stop(key)
            case events.GetValue(query, key, paths):
                held = self._values.get(key, now)
                local = None if held is None else held.value
                lookup = self._lookups.nearest(key_id(key), paths=paths)
                traffic.run(ValueQuery(query, lookup, key, self._validators, local), now)
            case events.Announce(query, service, attributes, index):
                self.publishing.announce(query, service, dict(attributes), now, index)
            case events.Withdraw(query, service):
                self.publishing.withdraw(query, service, now)
            case events.FindService():
                self._find_service(command, now)
            case events.Cancel(query):
                traffic.cancel(query)
                if query in self._reports:
                    self._reports.pop(query).cancel()
                self.publishing.cancel(query)
            case events.Restore(entries):
                if self._keeper is None:
                    stores = self._providers, self._values, self._publisher
                    self._keeper = Keeper(*stores, self.table, self._timers, self.config, now)
                self._keeper.restore(entries, now)
            case events.SaveState(whole):
                if self._keeper is not None:
                    traffic.out += self._keeper.save(whole)
            case _:
                assert_never(command)

    def _find_providers(self, command: events.FindProviders, now: float) -> None:
        key = multihash_key(command.key)
        local = self._server.providers_of(key, now)
        lookup = self._lookups.find(key, command.paths)
        max_found = self.config.max_found
        self._traffic.run(ProvidersQuery(command.query, lookup, key, command.limit, max_found, local), now)

    def _find_service(self, command: events.FindService, now: float) -> None:
        config, traffic = self.config, self._traffic
        results = ServiceResults(
            command.query,
            command.service,
            dict(command.where),
            command.limit,
            self._reader,
            own=self.peer,
            clock_error_s=config.clock_error_s,
            max_found=config.max_found,
            max_asked=config.max_record_requests,
        )
        root = service_key(command.service)
        nobody = Lookup(self.peer, key_id(root), (), LookupConfig())
        tools = SearchTools(
            lambda key: self._lookups.find(key, command.paths),
            traffic.run,
            traffic.finish,
            self._server.providers_of,
            self.table.radius,
            lambda outputs: traffic.out.extend(outputs),
            self._splits,
            self._rng,
            config,
        )
        traffic.run(ServiceSearch(nobody, root, results, tools, command.limit), now)

    def _located(self, peer: PeerId, addresses: tuple[Address, ...], now: float) -> None:
        """A peer, or this one, is to be dialled elsewhere from now on."""
        if peer != self.peer:
            self._liveness.moved(peer, addresses)
        elif addresses != self._publisher.addresses:
            self._publisher.addresses = addresses
            self.publishing.moved(now)

    def _merged(self, *groups: Sequence[PeerInfo]) -> tuple[PeerInfo, ...]:
        """Peers to ask with each refresh, each once; the first ones when there are too many."""
        found: dict[PeerId, PeerInfo] = {}
        for info in (info for group in groups for info in group if info.peer != self.peer):
            found.setdefault(info.peer, info)
        return tuple(found.values())[:_MAX_BOOTSTRAP]

    def _known(self, peer: PeerId) -> PeerInfo | None:
        """Where a peer can be dialled, as far as this peer knows of itself."""
        if peer == self.peer:
            return PeerInfo(peer, self._publisher.addresses)
        return self._contacts.info(peer) or self.table.get(peer)

    # What is due --------------------------------------------------------------------------------------------

    def _due(self, item: object, now: float) -> None:
        match item:
            case Pending() | Query():
                self._traffic.due(item, now)
            case Recheck():
                self._liveness.due(item, now)
            case Slot() | Region():
                self.publishing.due(item, now)
            case HandOver():
                self._handover.due(item, now)
            case OwnValue():
                self._own_values.due(item, now)
            case _Job.UPKEEP:
                self._providers.sweep(now)
                self._values.sweep(now)
                self._schedule_upkeep(now)
                self._refresh().some(now)
            case Keep():
                assert self._keeper is not None
                self._traffic.out += self._keeper.due(item, now)
            case _:
                raise AssertionError(f"no timer was set for {item!r}")

    def _refresh(self, report: int | None = None) -> Refresh:
        """A refresh to be begun. report: the query that it is for."""

        def done(asked: int, failed: int) -> None:
            closest = tuple(self.table.closest(peer_key(self.peer), self.config.k))
            self._traffic.out += self._neighbours.update(closest)
            if report is not None and self._reports.pop(report, None) is not None:
                self._traffic.out.append(QueryDone(report, closest, asked=asked, failed=failed))

        return Refresh(self.peer, self.table, self._traffic, self._rng, self.config, done)

    def _schedule_upkeep(self, now: float) -> None:
        self._timers.cancel(self._upkeep_timer)
        alone = not len(self.table) and self._lookups.bootstrap
        interval = self.config.retry_s if alone else self.config.refresh_interval_s
        self._upkeep_timer = self._timers.add(now + self._spread(interval), _Job.UPKEEP)

    def _spread(self, interval_s: float) -> float:
        return interval_s * self._rng.uniform(1.0 - SPREAD, 1.0 + SPREAD)
