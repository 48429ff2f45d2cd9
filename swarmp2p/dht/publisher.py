"""What this peer provides and announces: the records of it, and when they are due again.

    Provide ---> Publication without service --- StopProviding --> forgotten; what others hold expires
    Announce --> Publication with service ------ Withdraw -------> a withdrawal for those that hold it

Sequence numbers are milliseconds of the clock, and always above the last one: they grow over restarts too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..engine import Address, PeerInfo
from ..identity import PeerId
from ..signed import Sign
from .keys import peer_key, service_key
from .messages import Provider
from .provider_record import make_statement
from .records import MAX_ENVELOPE_BYTES, Attribute, ServiceRecord, make_record
from .state import Journal, OwnSequence

_MAX_HOLDERS = (
    128  # so that those of earlier renewals get a withdrawal too; 4 k around a crowded key (crowding.py)
)
_MAX_SHARDS = 64  # eight attributes and the service, with a leaf and those above now and an hour ago
_NOTHING: Mapping[str, Attribute] = {}
_NO_DEPTHS: Mapping[str, int] = {}


class Publication:
    """A key that this peer is a provider of.

    service: its name, or None for a plain key. due: when it is renewed next. stored: how many peers the record was
    sent to last, stored_at: when. holders: of a service, the last 128 peers that the record was sent to.
    For a service that is split: index names the attributes with a key of their own, depths say where it publishes
    (records.py), shards are the keys other than its own at which its record was stored, and with whom: the last 64,
    and of each the last 128.
    """

    __slots__ = (
        "attributes",
        "depths",
        "due",
        "holders",
        "index",
        "key",
        "record",
        "service",
        "shards",
        "statement",
        "stored",
        "stored_at",
    )

    def __init__(self, key: bytes, service: str | None, attributes: Mapping[str, Attribute]) -> None:
        self.key, self.service, self.attributes = key, service, attributes
        self.record: ServiceRecord | None = None
        self.statement = b""
        self.holders: dict[PeerId, PeerInfo] = {}
        self.due = self.stored_at = -math.inf
        self.stored = 0
        self.index: tuple[str, ...] | None = None
        self.depths: dict[str, int] = {}
        self.shards: dict[bytes, dict[PeerId, PeerInfo]] = {}

    def sent_to(self, holders: Sequence[PeerInfo], now: float) -> None:
        """The record went out to these peers."""
        self.stored, self.stored_at = len(holders), now
        if self.service is not None and not self.depths.get(""):
            _remember(self.holders, holders)

    def keep(self, key: bytes, holders: Sequence[PeerInfo]) -> None:
        """The record went out to these peers for a shard's key."""
        if key == self.key:
            _remember(self.holders, holders)
            return
        known = self.shards.pop(key, {})
        _remember(known, holders)
        self.shards[key] = known
        while len(self.shards) > _MAX_SHARDS:
            del self.shards[next(iter(self.shards))]


def _remember(known: dict[PeerId, PeerInfo], holders: Sequence[PeerInfo]) -> None:
    for info in holders:
        known.pop(info.peer, None)
        known[info.peer] = info
    while len(known) > _MAX_HOLDERS:
        del known[next(iter(known))]


class Publisher:
    """The publications of this peer, by key. Only the application adds to them.

    addresses: where this peer can be dialled; without any, it can provide nothing to others. sequence: the last
    one that was signed. id: the own. journal: told of each sequence, when there is one (state.py).
    """

    journal: Journal | None = None

    def __init__(self, peer: PeerId, sign: Sign, record_ttl_s: float, provider_ttl_s: float) -> None:
        self._peer, self._sign = peer, sign
        self._record_ttl_s, self._provider_ttl_s = record_ttl_s, provider_ttl_s
        self.id = peer_key(peer)
        self._publications: dict[bytes, Publication] = {}
        self.sequence = 0
        self.addresses: tuple[Address, ...] = ()

    def __len__(self) -> int:
        return len(self._publications)

    def get(self, key: bytes) -> Publication | None:
        """What is published under a key."""
        return self._publications.get(key)

    def all(self) -> list[Publication]:
        """Everything that is published."""
        return list(self._publications.values())

    def provide(self, key: bytes, now: float) -> Publication:
        """Become a provider of a key. A service that is announced under it stays."""
        publication = self._publications.get(key)
        if publication is None:
            publication = self._publications[key] = Publication(key, None, _NOTHING)
        if publication.service is None:
            self.renew(publication, now)
        return publication

    def announce(
        self,
        service: str,
        attributes: Mapping[str, Attribute],
        now: float,
        index: tuple[str, ...] | None = None,
    ) -> Publication:
        """Become a provider of a service, or change its attributes."""
        key = service_key(service)
        publication = self._publications.get(key)
        if publication is None:
            publication = self._publications[key] = Publication(key, service, attributes)
        publication.service, publication.attributes, publication.index = service, attributes, index
        self.renew(publication, now)
        return publication

    def renew(self, publication: Publication, now: float) -> None:
        """Sign a publication's record anew, to expire later."""
        if publication.service is not None:
            publication.record = self._record(publication, now, now + self._record_ttl_s)
        else:
            expires = now + self._provider_ttl_s
            publication.statement = make_statement(
                publication.key, self._next_sequence(now), expires, self._sign
            )

    def has_room(self, publication: Publication, name: str) -> bool:
        """Whether a depth fits into the record too; else the provider stays at the root."""
        names = {*publication.depths, name, ""}
        room = MAX_ENVELOPE_BYTES - (
            len(publication.record.envelope) if publication.record is not None else 0
        )
        if any(publication.depths.values()):
            return name in publication.depths or room >= len(name.encode()) + 4
        return room >= len("depths") + 4 + sum(len(other.encode()) + 4 for other in names)

    def place(self, publication: Publication, name: str, depth: int, now: float) -> None:
        """This provider publishes at a depth: its record says so."""
        if publication.depths.get(name, 0) == depth:
            publication.depths[name] = depth
            return
        publication.depths[name] = depth
        self.renew(publication, now)

    def forget(self, publication: Publication) -> None:
        """Stop providing."""
        self._publications.pop(publication.key, None)

    def withdrawal(self, publication: Publication, now: float) -> Provider:
        """The record that takes a service's earlier ones back."""
        return Provider(self._peer, self.addresses, self._record(publication, now, 0.0).envelope)

    def provider(self, publication: Publication) -> Provider | None:
        """This peer as the provider of a publication; None when it is one no longer."""
        if self._publications.get(publication.key) is not publication:
            return None
        return Provider(
            self._peer,
            self.addresses,
            publication.record.envelope if publication.record else publication.statement,
        )

    def provider_of(self, key: bytes) -> Provider | None:
        """This peer as a provider of a key; None when it is none, or can be dialled nowhere."""
        publication = self._publications.get(key)
        return None if publication is None or not self.addresses else self.provider(publication)

    def envelope_of(self, service: str) -> bytes:
        """The signed record of a service, empty when it is not announced."""
        publication = self._publications.get(service_key(service))
        return (
            publication.record.envelope if publication is not None and publication.record is not None else b""
        )

    def _record(self, publication: Publication, now: float, expires: float) -> ServiceRecord:
        assert publication.service is not None
        sequence = self._next_sequence(now)
        depths = publication.depths if expires else _NO_DEPTHS
        return make_record(
            self._peer,
            publication.service,
            publication.attributes,
            sequence,
            expires,
            self._sign,
            depths,
        )

    def _next_sequence(self, now: float) -> int:
        self.sequence = max(self.sequence + 1, int(now * 1000))
        if self.journal is not None:
            self.journal.keep(OwnSequence(self.sequence))
        return self.sequence
