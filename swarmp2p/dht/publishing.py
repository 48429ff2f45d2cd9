"""Storing what this peer provides and announces at the nearest peers, now and again.

Provide, Announce --> lookup --> ADD_PROVIDER to the k nearest --> renewal, an interval later
                                    nobody took it ------------> again soon
                                    fewer than k took it ------> again after the next refresh
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Final

from .config import DhtConfig
from .events import QueryDone
from .keys import key_id, service_key
from .publisher import Publication, Publisher
from .queries import ProvideQuery, Query, add_provider
from .records import Attribute
from .timers import Timers
from .traffic import Traffic

SPREAD: Final = 0.1  # of intervals, so that peers started together do not stay in step


class Publishing:
    """Runs the queries that store publications, and sets when they are renewed.

    timers: the engine's; the publications in them come back through `due`.
    """

    def __init__(
        self, publisher: Publisher, traffic: Traffic, timers: Timers[object], rng: Random, config: DhtConfig
    ) -> None:
        self._publisher, self._traffic, self._timers = publisher, traffic, timers
        self._rng, self._config = rng, config

    def provide(self, number: int, key: bytes, now: float) -> None:
        """Store a provider record for a multihash key."""
        self._publish(self._publisher.provide(key), number, now)

    def announce(self, number: int, service: str, attributes: Mapping[str, Attribute], now: float) -> None:
        """Sign and store a service record."""
        self._publish(self._publisher.announce(service, attributes, now), number, now)

    def due(self, publication: Publication, now: float) -> None:
        """It is time to renew a publication."""
        self._publisher.renew(publication, now)
        self._publish(publication, None, now)

    def stop_providing(self, key: bytes) -> None:
        """Renew a provider record no longer. A service that is announced under the key stays."""
        publication = self._publisher.get(key)
        if publication is not None and publication.service is None:
            self._timers.cancel(publication.timer)
            self._publisher.forget(publication)

    def withdraw(self, number: int, service: str, now: float) -> None:
        """Tell those that hold the record. An announcement still under way then sends nothing."""
        traffic = self._traffic
        publication = self._publisher.get(service_key(service))
        if publication is None or publication.service is None:
            traffic.out.append(QueryDone(number))
            return
        self._timers.cancel(publication.timer)
        withdrawal = self._publisher.withdrawal(publication, now)
        self._publisher.forget(publication)
        make = add_provider(publication.key, withdrawal)
        for info in publication.holders.values():
            traffic.tell(info, make(traffic.next_id()), now)
        traffic.out.append(QueryDone(number, stored=len(publication.holders)))

    def _publish(self, publication: Publication, number: int | None, now: float) -> None:
        """Store a provider record at the nearest peers, now and again."""
        publisher = self._publisher

        def sent(_: Query, now: float) -> None:
            publication.sent_to(query.holders)
            if publisher.provider(publication) is not None:
                self._renew_later(publication, query.stored, now)

        lookup = self._traffic.lookup(key_id(publication.key))
        query = ProvideQuery(number, lookup, publication.key, lambda: publisher.provider(publication))
        query.then = sent
        self._renew_later(publication, self._config.k, now)
        self._traffic.run(query, now)

    def _renew_later(self, publication: Publication, stored: int, now: float) -> None:
        """Set the time of the next renewal: soon when nobody could take the record, after the next refresh
        when there were too few peers, because more may have come by then."""
        config = self._config
        interval = config.provide_interval_s if publication.service is None else config.announce_interval_s
        if not stored:
            interval = min(interval, config.retry_s)
        elif stored < config.k:
            interval = min(interval, config.refresh_interval_s)
        self._timers.cancel(publication.timer)
        spread = self._rng.uniform(1.0 - SPREAD, 1.0 + SPREAD)
        publication.timer = self._timers.add(now + interval * spread, publication)
