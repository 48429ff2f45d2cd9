"""Asking the holders of one key for the providers of a service: a find of a small service is one such query, that of
a large one several (service_search.py).

Records come along with the provider messages. Where a provider came without one, or with one that is not genuine,
because a peer of another implementation held it, the provider itself is asked when the lookup is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..engine import Reply
from ..identity import PeerId
from .events import DhtOutput
from .keys import peer_key
from .lookup import Lookup
from .messages import FoundProviders, FoundRecord, GetProviders, GetRecord, Provider
from .queries import FollowUp, Purpose, Query
from .service_results import ServiceResults

Heard = Callable[["ShardQuery", Sequence[Provider], int, float], Sequence[DhtOutput]]
"""What is made of an answer: given the query, the providers in it, how many the holder has, and the time."""


class ShardQuery(Query):
    """The providers at one key.

    level, place: of its shard (shards.py); 0 and 0 for a root. local: providers that this peer knows of itself. near: a
    distance; who is nearer to the key should hold what is stored there. vain: how many of those held nothing.
    """

    purpose = Purpose.FIND

    def __init__(
        self,
        lookup: Lookup,
        key: bytes,
        level: int,
        place: int,
        results: ServiceResults,
        local: Sequence[Provider],
        heard: Heard,
        near: int,
    ) -> None:
        super().__init__(results.number, lookup)
        self.vain = 0
        self._near = near
        self.level, self.place = level, place
        self._key, self._results, self._local, self._heard = key, results, local, heard

    @property
    def satisfied(self) -> bool:
        return self._results.wanted <= 0

    def question(self, id: int) -> GetProviders:
        return GetProviders(id, self._key)

    def begin(self, now: float) -> Sequence[DhtOutput]:
        return self._take(self._local, len(self._local), now) if self._local else ()

    def answered(self, peer: PeerId, reply: Reply, now: float) -> Sequence[DhtOutput]:
        assert isinstance(reply, FoundProviders)
        if not reply.providers and peer_key(peer) ^ self.lookup.target <= self._near:
            self.vain += 1
        return self._take(reply.providers, reply.held, now)

    def follow_ups(self, now: float) -> Sequence[FollowUp]:
        return [(info, self._get_record()) for info in self._results.to_ask()]

    def confirmed(self, peer: PeerId, reply: Reply, now: float) -> Sequence[DhtOutput]:
        assert isinstance(reply, FoundRecord)
        return self._results.told(peer, reply.envelope, now)

    def _take(self, providers: Sequence[Provider], held: int, now: float) -> Sequence[DhtOutput]:
        outputs = self._heard(self, providers, held, now)
        if self.satisfied:
            self.lookup.stop()
        return outputs

    def _get_record(self) -> Callable[[int], GetRecord]:
        return lambda id: GetRecord(id, self._results.service)
