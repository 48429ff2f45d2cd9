"""Storing what this peer provides and announces at the nearest peers, now and again.

Provide, Announce --> lookup --> ADD_PROVIDER to the k nearest --> renewal, an interval later (renewals.py)
                                    nobody took it ------------> again soon
                                    fewer than k took it ------> again after the next refresh, and soon when there
                                                                 are peers that lack it: who turned up, or was silent
ProvideMany, many that are due at one time --> sweep (sweeper.py) --> as above
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from random import Random
from typing import Final

from ..engine import PeerInfo
from ..identity import PeerId
from .announcing import Announcer
from .config import DhtConfig
from .events import ProvideProgress, QueryDone
from .keys import ID_BITS, key_id, service_key
from .messages import Provider
from .optimistic import Expectation, OptimisticProvide
from .publisher import Publication, Publisher
from .queries import LastWord, ProvideQuery, add_provider
from .records import Attribute
from .renewals import SPREAD, Renewals, Slot, turn
from .routing import RoutingTable
from .splits import Splits
from .sweeper import Region, Stored, Sweeper
from .timers import Timers
from .traffic import Traffic

_MAX_DIALLED: Final = 4_096
"""Peers being connected to whose records are waited for. Of those forgotten beyond, a provide learns nothing more: it
returns with its time-out at the latest."""


_MOVED_S: Final = 0.25
"""From a move to the renewals that follow: addresses often come in twos and threes."""


class _Many:
    """A ProvideMany under way. Each key counts once."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.stored = self.failed = 0


class Publishing:
    """Runs the queries that store publications, and sets when they are renewed.

    timers: the engine's; the slots and regions in them come back through `due`. is_crowded: see crowding.py.

    sweeper: for looking at.
    """

    def __init__(
        self,
        publisher: Publisher,
        traffic: Traffic,
        table: RoutingTable,
        timers: Timers[object],
        rng: Random,
        config: DhtConfig,
        splits: Splits,
        is_crowded: Callable[[int, Sequence[PeerInfo], float], bool],
    ) -> None:
        self._publisher, self._traffic, self._table = publisher, traffic, table
        self._rng, self._config = rng, config
        self._renewals = Renewals(timers)
        self.sweeper = Sweeper(publisher, traffic, table, timers, config, self._alone, is_crowded)
        self._phase = publisher.id / (1 << ID_BITS)
        self._is_crowded = is_crowded
        self._many: dict[int, _Many] = {}
        self._announcer = Announcer(publisher, traffic, splits, config, self._provide_query)
        self._moved_until = 0.0  # from when on the next move counts
        self._dialled: dict[PeerId, list[OptimisticProvide]] = {}  # who waits for a connection
        self._short: dict[bytes, Publication] = {}  # by key: those that were stored, with fewer than k
        self._again_at, self._gap_s = -inf, config.retry_s

    # Commands -----------------------------------------------------------------------------------------------

    def provide(self, number: int, key: bytes, now: float) -> None:
        """Store a provider record for a multihash key."""
        self._publish(self._publisher.provide(key, now), number, now)

    def provide_many(self, number: int, keys: Sequence[bytes], now: float) -> None:
        """Store provider records for multihash keys."""
        publications = [self._publisher.provide(key, now) for key in dict.fromkeys(keys)]
        if not publications or len(self._many) >= self._config.max_queries:
            spread = self._spread()  # those of one query too many are stored all the same, soon
            for publication in publications:
                self._renew_later(publication, 0, now, spread)
            self._traffic.out.append(QueryDone(number, failed=len(publications)))
            return
        many = self._many[number] = _Many(len(publications))
        spread = self._spread()

        def stored(publication: Publication, holders: Sequence[PeerInfo], now: float) -> None:
            self._stored(publication, holders, now, spread)
            many.left -= 1
            if holders:
                many.stored += 1
            else:
                many.failed += 1
            if self._many.get(number) is many and not many.left % self._config.sweep_batch:
                self._progress(number, many)

        for publication in publications:
            self._renewals.cancel(publication)
        self.sweeper.start(publications, stored, now)

    def announce(
        self,
        number: int,
        service: str,
        attributes: Mapping[str, Attribute],
        now: float,
        index: tuple[str, ...] | None = None,
    ) -> None:
        """Sign and store a service record."""
        publication = self._publisher.announce(service, attributes, now, index)
        if publication.shards:  # some are perhaps those of attributes that it has no longer
            provider = self._publisher.provider(publication)
            assert provider is not None
            self._announcer.tell_all(publication, provider, now)
            publication.depths = {"": publication.depths.get("", 0)}
        self._publish(publication, number, now)

    def stop_providing(self, key: bytes) -> None:
        """Renew a provider record no longer. A service that is announced under the key stays."""
        publication = self._publisher.get(key)
        if publication is not None and publication.service is None:
            self._renewals.cancel(publication)
            self._forget(publication)

    def withdraw(self, number: int, service: str, now: float) -> None:
        """Tell those that hold the record. An announcement still under way then sends nothing."""
        traffic = self._traffic
        publication = self._publisher.get(service_key(service))
        if publication is None or publication.service is None:
            traffic.out.append(QueryDone(number))
            return
        self._renewals.cancel(publication)
        withdrawal = self._publisher.withdrawal(publication, now)
        self._forget(publication)
        told = self._announcer.tell_all(publication, withdrawal, now)
        make = add_provider(publication.key, withdrawal)
        for info in publication.holders.values():
            traffic.tell(info, make(traffic.next_id()), now)
        traffic.out.append(QueryDone(number, stored=told + len(publication.holders)))

    def moved(self, now: float) -> None:
        """This peer can be dialled elsewhere now: those that hold its records should say so, at once when it moves for
        the first time in a while."""
        if self._publisher.addresses:
            when = max(now + _MOVED_S, self._moved_until)
            self._moved_until = when + self._config.retry_s
            for publication in self._publisher.all():
                self._renewals.set(publication, when)

    def met(self, now: float) -> None:
        """One more peer is in the table: it lacks the records that are to be with all."""
        when = self._soon(now) if self._short else inf
        for publication in self._short.values():
            if publication.due > when:
                self._renewals.set(publication, when)

    def cancel(self, number: int) -> None:
        """Nobody wants to hear of a ProvideMany any more; the storing goes on."""
        self._many.pop(number, None)

    # What follows -------------------------------------------------------------------------------------------

    def due(self, item: Slot | Region, now: float) -> None:
        """A timer of this class is due."""
        if isinstance(item, Region):
            self.sweeper.due(item, now)
            return
        publications = self._renewals.take(item)
        if len(publications) == 1:
            self._publisher.renew(publications[0], now)
            self._publish(publications[0], None, now)
            return
        spread = self._spread()
        wanted: list[Publication] = []
        for publication in publications:
            if publication.service is not None:
                # It may have to go to another shard: those that hold it have to be asked.
                self._publisher.renew(publication, now)
                self._publish(publication, None, now)
                continue
            if self._is_vain(publication, now):
                self._renew_later(publication, publication.stored, now, spread)
            else:
                self._publisher.renew(publication, now)
                wanted.append(publication)

        def stored(publication: Publication, holders: Sequence[PeerInfo], now: float) -> None:
            self._stored(publication, holders, now, spread)

        self.sweeper.start(wanted, stored, now)

    def _is_vain(self, publication: Publication, now: float) -> bool:
        """Whether all peers that there are have the record already, for long enough: in a small network, many keys
        are not stored with each refresh."""
        age = now - publication.stored_at
        return len(self._table) <= publication.stored < self._config.k and age < self._interval(
            publication
        ) * (1.0 - 2 * SPREAD)

    def _publish(self, publication: Publication, number: int | None, now: float) -> None:
        """Store a publication's record at its nearest peers, now and again."""

        def stored(publication: Publication, holders: Sequence[PeerInfo], now: float) -> None:
            self._stored(publication, holders, now, self._spread())

        self._renew_later(publication, self._config.k, now, self._spread())
        self._alone(publication, stored, now, number)

    def _alone(self, publication: Publication, stored: Stored, now: float, number: int | None = None) -> None:
        """Store it with a lookup of its own. number: of the query that it is for."""
        if publication.service is not None:
            self._announcer.start(publication, stored, now, number)
            return
        query = self._provide_query(
            number, publication.key, lambda: self._publisher.provider(publication), now, True
        )
        query.then = lambda _, now: stored(publication, query.holders, now)
        self._traffic.run(query, now)

    def _provide_query(
        self,
        number: int | None,
        key: bytes,
        provider: Callable[[], Provider | None],
        now: float,
        optimistic: bool,
    ) -> ProvideQuery:
        """Optimistic when that is wanted and the size of the network is known."""
        traffic, config = self._traffic, self._config
        target = key_id(key)
        size = self._size(now) if config.optimistic and optimistic else None
        if size is not None:
            expected = Expectation(size, config.k)
            narrow = traffic.lookups.narrow(
                target, expected, lambda closest: self._is_crowded(target, closest, now)
            )
            if narrow is not None:
                return OptimisticProvide(
                    number,
                    narrow,
                    key,
                    provider,
                    config.k,
                    expected.soon,
                    traffic.is_connected,
                    self._tell_soon,
                )
        return ProvideQuery(number, traffic.lookups.nearest(target), key, provider)

    def _size(self, now: float) -> float | None:
        """Servers in the network. Until it was learnt from lookups, the table must do: how close the own nearest peers
        are, or all of them where no more are known."""
        size = self._traffic.network_size.estimate(now)
        if size is None and len(self._table) >= self._config.k:
            size = max(float(len(self._table)), self._config.k * float(1 << ID_BITS) / self._table.radius())
        return size

    def _tell_soon(self, query: OptimisticProvide, words: Sequence[LastWord], now: float) -> None:
        """Send records, and remember who is being connected to for them."""
        traffic = self._traffic
        for info, make in words:
            traffic.tell(info, make(traffic.next_id()), now)
            if not traffic.is_connected(info.peer):
                if len(self._dialled) >= _MAX_DIALLED and info.peer not in self._dialled:
                    del self._dialled[next(iter(self._dialled))]
                self._dialled.setdefault(info.peer, []).append(query)

    def heard(self, peer: PeerId, reached: bool, now: float) -> None:
        """A connection to a peer stands, or no longer does, or cannot be made."""
        for query in self._dialled.pop(peer, ()):
            query.settle(peer, reached, now)
            self._traffic.look_again(query, now)

    def _stored(
        self, publication: Publication, holders: Sequence[PeerInfo], now: float, spread: float
    ) -> None:
        """A publication's record was sent to these peers; perhaps it is not wanted any more."""
        if holders:
            publication.sent_to(holders, now)
        if self._publisher.get(publication.key) is publication:
            if 0 < len(holders) < self._config.k:
                self._short[publication.key] = publication
            else:
                self._short.pop(publication.key, None)
            self._renew_later(publication, len(holders), now, spread)

    def _forget(self, publication: Publication) -> None:
        self._publisher.forget(publication)
        self._short.pop(publication.key, None)

    def _progress(self, number: int, many: _Many) -> None:
        if many.left:
            progress = ProvideProgress(number, many.stored, many.failed, many.left)
            self._traffic.out.append(progress)
        else:
            del self._many[number]
            self._traffic.out.append(QueryDone(number, stored=many.stored, failed=many.failed))

    def _renew_later(self, publication: Publication, stored: int, now: float, spread: float) -> None:
        """Set the time of the next renewal: soon when nobody could take the record, or when it went to fewer than k
        and not to all that there are, since some did not answer in time; after the next refresh when there were too
        few peers, because more may have come by then. spread: the same for keys that were stored together, so that
        they are due together."""
        config = self._config
        interval = self._interval(publication)
        if not stored:
            when = now + min(interval, config.retry_s) * spread
        elif stored < config.k:
            when = now + min(interval, config.refresh_interval_s) * spread
            if len(self._table) > stored:
                when = min(when, self._soon(now))
        elif len(self._publisher) < config.sweep_keys:
            when = now + interval * spread
        else:
            when = turn(key_id(publication.key), self.sweeper.bits, interval, self._phase, now)
        self._renewals.set(publication, when)

    def _soon(self, now: float) -> float:
        """When records go out again because there are peers that lack them: all together, a while after the first of
        these was seen, and less and less often as long as there are ever more."""
        if self._again_at <= now:
            config = self._config
            first = now - self._again_at > config.refresh_interval_s
            self._gap_s = config.retry_s if first else min(2 * self._gap_s, config.refresh_interval_s)
            self._again_at = now + self._gap_s * self._spread()
        return self._again_at

    def _interval(self, publication: Publication) -> float:
        config = self._config
        return config.provide_interval_s if publication.service is None else config.announce_interval_s

    def _spread(self) -> float:
        return self._rng.uniform(1.0 - SPREAD, 1.0 + SPREAD)
