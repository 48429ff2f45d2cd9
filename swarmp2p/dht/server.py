"""Answers what other peers ask, from the routing table, the stores and what this peer provides itself.

No answer names its receiver, and none names this peer, except where it was asked for by its id or is a
provider. Nobody is named without an address. What a peer may have stored is bounded by the stores.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from ..engine import PeerInfo, Reply, Request
from ..identity import PeerId
from .contacts import Contacts
from .handed import Handed
from .hot_keys import HotKeys
from .keys import key_id
from .messages import (
    AddProvider,
    FindNode,
    FoundNodes,
    FoundProviders,
    FoundRecord,
    FoundValue,
    GetProviders,
    GetRecord,
    GetValue,
    Ping,
    Pong,
    Provider,
    PutValue,
    ValueStored,
)
from .provider_store import ProviderStore
from .publisher import Publisher
from .routing import RoutingTable
from .splits import Splits
from .value_store import ValueStore


class Server:
    """Serves one peer's part of the DHT.

    k: peers in an answer. max_providers: providers in an answer; a random sample when there are more. handed: decides
    about records that others than their providers bring.

    coordinate: where this peer is, for answers; may be replaced.
    """

    def __init__(
        self,
        peer: PeerId,
        table: RoutingTable,
        contacts: Contacts,
        providers: ProviderStore,
        values: ValueStore,
        publisher: Publisher,
        splits: Splits,
        hot_keys: HotKeys,
        rng: Random,
        *,
        k: int,
        max_providers: int,
        handed: Handed,
    ) -> None:
        self.coordinate: Callable[[], bytes] = lambda: b""
        self._handed = handed
        self._peer, self._table, self._contacts = peer, table, contacts
        self._providers, self._values, self._publisher, self._rng = providers, values, publisher, rng
        self._splits, self._hot_keys = splits, hot_keys
        self._k, self._max_providers = k, max_providers

    def answer(self, sender: PeerId, request: Request, now: float) -> Reply | None:
        """The reply to a request; None where there is none."""
        match request:
            case FindNode(id, key):
                return FoundNodes(
                    id,
                    self._find_node(sender, key),
                    self._providers.count(key),
                    self._splits.tell(key, now),
                    self.coordinate(),
                )
            case GetProviders(id, key):
                return FoundProviders(
                    id,
                    key,
                    tuple(self.providers_of(key, now) or self._hot_keys.asked(key, now)),
                    self._closer(sender, key),
                    self._providers.count(key),
                    self._splits.tell(key, now),
                )
            case GetValue(id, key):
                held = self._values.get(key, now)
                value, received = (None, 0.0) if held is None else (held.value, held.received)
                return FoundValue(id, key, value, received, self._closer(sender, key))
            case PutValue(id, key, value, received):
                return ValueStored(id, key, value if self._values.put(key, value, now, received) else None)
            case AddProvider(_, key, provider):
                if provider is None:
                    return None
                if provider.peer != sender and not self._handed.takes(sender, request, now):
                    return None
                if self._providers.add(key, provider, now):
                    self._splits.kept(key, provider)
                return None
            case Ping(id):
                return Pong(id)
            case GetRecord(id, service):
                return FoundRecord(id, self._publisher.envelope_of(service))
            case _:
                return None

    def providers_of(self, key: bytes, now: float) -> list[Provider]:
        """The providers of a key that this peer knows of, itself first."""
        own = self._publisher.provider_of(key)
        held = self._providers.get(key, now, self._max_providers, self._rng)
        return held if own is None else [own, *held[: self._max_providers - 1]]

    def _find_node(self, sender: PeerId, key: bytes) -> tuple[PeerInfo, ...]:
        closer = self._closer(sender, key)
        if closer and closer[0].peer == key:
            return closer
        # Whoever is asked for by its id is named if we can reach it, in the table or not, as in go and js: a
        # peer that does not serve the DHT can only be found so.
        exact = self._exact(key) if key != sender else None
        return closer if exact is None else (exact, *closer[: self._k - 1])

    def _exact(self, key: bytes) -> PeerInfo | None:
        if key == self._peer:
            return PeerInfo(self._peer, self._publisher.addresses) if self._publisher.addresses else None
        return self._contacts.info(PeerId(key)) if len(key) <= 64 else None

    def _closer(self, sender: PeerId, key: bytes) -> tuple[PeerInfo, ...]:
        """The k nearest peers to a key, without the one that asks."""
        target = key_id(key)
        nearest = self._table.closest(target, self._k)
        others = tuple([info for info in nearest if info.peer != sender])
        if len(others) == len(nearest):
            return others
        return tuple([info for info in self._table.closest(target, self._k + 1) if info.peer != sender])
