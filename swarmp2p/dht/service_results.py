"""What one find of a service has found: each provider's newest, verified, unexpired record.

A signature is checked only when its record would be emitted or would replace one: one for each provider, not one for
each holder.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..engine import PeerInfo
from ..errors import BadMessage
from ..identity import PeerId
from .events import ServiceFound
from .messages import Provider
from .records import Attribute, RecordClaim, RecordReader, read_claim


class ServiceResults:
    """The results of one find.

    number: of the query. where: attributes that a record must equal. limit: 0 for none. max_found: providers
    considered, however many there are. max_asked: providers asked for their record.
    """

    def __init__(
        self,
        number: int,
        service: str,
        where: Mapping[str, Attribute],
        limit: int,
        reader: RecordReader,
        *,
        own: PeerId,
        clock_error_s: float,
        max_found: int,
        max_asked: int,
    ) -> None:
        self.number, self.service, self.where = number, service, where
        self._reader, self._own, self._clock_error_s = reader, own, clock_error_s
        self._limit, self._max_found, self._max_asked = limit or max_found, max_found, max_asked
        self._newest: dict[PeerId, int] = {}  # sequence of the newest verified record
        self._emitted: dict[PeerId, None] = {}
        self._missing: dict[PeerId, PeerInfo] = {}  # providers without a usable record so far
        self._asked: dict[PeerId, PeerInfo] = {}  # those that were asked for it

    def __len__(self) -> int:
        """Providers emitted."""
        return len(self._emitted)

    def __contains__(self, peer: PeerId) -> bool:
        """Whether a provider was emitted."""
        return peer in self._emitted

    @property
    def wanted(self) -> int:
        """How many more may come."""
        return self._limit - len(self._emitted)

    def claim(self, provider: Provider, now: float) -> RecordClaim | None:
        """What a provider's record says, if it would tell something new. One without a usable record is remembered,
        so that it can be asked itself."""
        peer = provider.peer
        newest = self._newest.get(peer)
        full = len(self._newest) + len(self._missing) >= self._max_found
        if full and newest is None and peer not in self._missing:
            return None
        try:
            claim = read_claim(provider.record)
            if newest is not None and claim.sequence <= newest:
                return None
            if not claim.withdrawn and not claim.is_valid(now, self._clock_error_s):
                return None  # lapsed: the provider renews its record elsewhere, or is gone
            if claim.service != self.service:
                raise BadMessage("the record of another service")
        except BadMessage:
            self._miss(provider)
            return None
        return claim

    def take(self, provider: Provider, now: float) -> list[ServiceFound]:
        """Verify a record whose claim is new, and emit it if it is what is looked for."""
        peer = provider.peer
        try:
            record = self._reader.open(peer, provider.record)
        except BadMessage:
            self._miss(provider)
            return []
        self._newest[peer] = record.sequence
        self._missing.pop(peer, None)
        if not record.is_valid(now, self._clock_error_s) or not self._matches(record.attributes):
            return []
        if self.wanted <= 0:
            return []
        self._emitted[peer] = None
        return [ServiceFound(self.number, record, provider.addresses)]

    def to_ask(self) -> list[PeerInfo]:
        """The providers whose own record is still to be asked for; each comes once."""
        if self.wanted <= 0:
            return []
        asking = [info for peer, info in self._missing.items() if peer not in self._asked]
        asking = asking[: max(0, self._max_asked - len(self._asked))]
        self._asked.update((info.peer, info) for info in asking)
        return asking

    def told(self, peer: PeerId, envelope: bytes, now: float) -> list[ServiceFound]:
        """A provider answered with its own record, empty for none."""
        info = self._missing.get(peer)
        if info is None or not envelope:
            return []
        provider = Provider(peer, info.addresses, envelope)
        return [] if self.claim(provider, now) is None else self.take(provider, now)

    def _miss(self, provider: Provider) -> None:
        peer = provider.peer
        askable = peer not in self._newest and provider.addresses and peer != self._own
        if askable and len(self._missing) < self._max_asked:
            self._missing.setdefault(peer, PeerInfo(peer, provider.addresses))

    def _matches(self, attributes: Mapping[str, Attribute]) -> bool:
        return all(
            name in attributes and _same(attributes[name], wanted) for name, wanted in self.where.items()
        )


def _same(value: Attribute, wanted: Attribute) -> bool:
    """Equal, where True is not 1; 4 and 4.0 are the same number."""
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)
