"""Finding the providers of a service: their newest, verified, unexpired records.

Records come along with the provider messages. Where a provider came without one, or with one that is not
genuine, because a peer of another implementation held it, the provider itself is asked when the lookup is
over. A signature is checked only when its record would be emitted or would replace one: one for each
provider, not one for each holder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..engine import PeerInfo, Reply
from ..errors import BadMessage
from ..identity import PeerId
from .events import DhtOutput, ServiceFound
from .lookup import Lookup
from .messages import FoundProviders, FoundRecord, GetProviders, GetRecord, Provider
from .queries import FollowUp, Purpose, Query
from .records import Attribute, RecordReader, read_claim


class ServiceQuery(Query):
    """The providers of a service.

    where: attributes that a record must equal. limit: 0 for none. local: providers that this peer knows of
    itself. max_found: providers considered, however many there are. max_asked_self: providers asked for their
    record.
    """

    purpose = Purpose.FIND

    def __init__(
        self,
        number: int,
        lookup: Lookup,
        key: bytes,
        service: str,
        where: Mapping[str, Attribute],
        limit: int,
        local: Sequence[Provider],
        reader: RecordReader,
        *,
        own: PeerId,
        clock_error_s: float,
        max_found: int,
        max_asked_self: int,
    ) -> None:
        super().__init__(number, lookup)
        self._key, self._service, self._where, self._local, self._reader = key, service, where, local, reader
        self._own, self._clock_error_s = own, clock_error_s
        self._limit, self._max_found, self._max_asked_self = limit or max_found, max_found, max_asked_self
        self._newest: dict[PeerId, int] = {}  # sequence of the newest verified record
        self._emitted: dict[PeerId, None] = {}
        self._missing: dict[PeerId, PeerInfo] = {}  # providers without a usable record so far

    @property
    def satisfied(self) -> bool:
        return len(self._emitted) >= self._limit

    def question(self, id: int) -> GetProviders:
        return GetProviders(id, self._key)

    def begin(self, now: float) -> Sequence[DhtOutput]:
        return self._take(self._local, now)

    def answered(self, peer: PeerId, reply: Reply, now: float) -> Sequence[DhtOutput]:
        assert isinstance(reply, FoundProviders)
        return self._take(reply.providers, now)

    def follow_ups(self, now: float) -> Sequence[FollowUp]:
        if self.satisfied:
            return ()
        return [(info, self._get_record()) for info in self._missing.values()]

    def confirmed(self, peer: PeerId, reply: Reply, now: float) -> Sequence[DhtOutput]:
        assert isinstance(reply, FoundRecord)
        info = self._missing.pop(peer, None)
        if info is None or not reply.envelope:
            return ()
        return self._take([Provider(peer, info.addresses, reply.envelope)], now)

    def _take(self, providers: Sequence[Provider], now: float) -> Sequence[DhtOutput]:
        outputs: list[DhtOutput] = []
        for provider in providers:
            if self.satisfied:
                break
            self._consider(provider, now, outputs)
        self.found = len(self._emitted)
        if self.satisfied:
            self.lookup.stop()
        return outputs

    def _consider(self, provider: Provider, now: float, outputs: list[DhtOutput]) -> None:
        peer = provider.peer
        newest = self._newest.get(peer)
        if (
            newest is None
            and len(self._newest) + len(self._missing) >= self._max_found
            and peer not in self._missing
        ):
            return
        try:
            claim = read_claim(provider.record)
            if newest is not None and claim.sequence <= newest:
                return
            if not claim.withdrawn and not claim.is_valid(now, self._clock_error_s):
                return  # lapsed: the provider renews its record elsewhere, or is gone
            record = self._reader.open(peer, provider.record)
            if record.service != self._service:
                raise BadMessage("the record of another service")
        except BadMessage:
            askable = newest is None and provider.addresses and peer != self._own
            if askable and len(self._missing) < self._max_asked_self:
                self._missing.setdefault(peer, PeerInfo(peer, provider.addresses))
            return
        self._newest[peer] = record.sequence
        self._missing.pop(peer, None)
        if record.is_valid(now, self._clock_error_s) and self._matches(record.attributes):
            self._emitted[peer] = None
            assert self.number is not None
            outputs.append(ServiceFound(self.number, record, provider.addresses))

    def _matches(self, attributes: Mapping[str, Attribute]) -> bool:
        return all(
            name in attributes and _same(attributes[name], wanted) for name, wanted in self._where.items()
        )

    def _get_record(self) -> Callable[[int], GetRecord]:
        return lambda id: GetRecord(id, self._service)


def _same(value: Attribute, wanted: Attribute) -> bool:
    """Equal, where True is not 1; 4 and 4.0 are the same number."""
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)
