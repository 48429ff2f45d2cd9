"""Handing records over to peers that come to be among the nearest to their keys.

    a peer enters our 2 k nearest ---> at the next look: of which keys here is it one of the k nearest, where we are one
                                       of the nearest three ourselves? ---> their records, a few at a time

Without it, records stay with those who were nearest when they were stored, until the next republish: a day later there
may be few of them among the k nearest. Values go by PUT_VALUE, with the time at which they were stored first, so that
they live no longer for being handed on; the receiver's validator decides. Provider records go by ADD_PROVIDER with what
the provider signed (records.py, provider_record.py). Other implementations ignore providers that are not the sender, as
the specification says, and what their providers store here, unsigned, cannot be handed on.

Three holders see to each key, so that a record gets through though two of them are gone; who receives
them decides by itself (handed.py). Peers look every few minutes, at their own times, and only if somebody came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from ..engine import PeerInfo
from ..identity import PeerId
from ..signed import Verify
from .config import DhtConfig
from .keys import key_id, peer_key
from .messages import Provider
from .provider_record import belongs, is_genuine, read_any_claim
from .provider_store import ProviderStore
from .queries import add_provider, put_value
from .renewals import SPREAD
from .routing import RoutingTable
from .timers import Timers
from .traffic import Traffic
from .value_store import ValueStore

_HOLDERS: Final = 3  # nearest ones that hand a key's records over
_MAX_QUEUE: Final = 4_096  # records on their way; further ones wait for a later republish
_BATCH: Final = 64  # records at a time
_PAUSE_S: Final = 1.0  # between them


@dataclass(frozen=True, slots=True)
class HandOver:
    """It is time to look, or to go on handing over."""

    look: bool


class Handover:
    """What one peer hands over.

    own: its id. timers: the engine's; HandOvers in them come back through `due`.
    """

    def __init__(
        self,
        own: int,
        table: RoutingTable,
        providers: ProviderStore,
        values: ValueStore,
        traffic: Traffic,
        timers: Timers[object],
        rng: Random,
        config: DhtConfig,
        verify: Verify,
    ) -> None:
        self._own, self._table, self._providers, self._values = own, table, providers, values
        self._traffic, self._timers, self._rng, self._config = traffic, timers, rng, config
        self._verify = verify
        self._known: dict[PeerId, None] | None = None
        self._queue: deque[tuple[PeerInfo, bytes, Provider | None]] = deque()
        self._looking = False

    def stored(self, now: float) -> None:
        """Something was stored here: from now on, look for newcomers."""
        if not self._looking:
            self._looking = True
            self._known = self._neighbours()
            self._look_later(now)

    def due(self, item: HandOver, now: float) -> None:
        """A timer of this class is due."""
        if not item.look:
            self._hand_over(now)
            return
        self._looking = bool(len(self._providers) or len(self._values))
        if not self._looking:
            return
        self._look_later(now)
        before, self._known = self._known, self._neighbours()
        newcomers = {peer: None for peer in self._known if before is not None and peer not in before}
        if newcomers:
            idle = not self._queue
            for item_for in self._meant_for(newcomers, now):
                if len(self._queue) >= _MAX_QUEUE:
                    break
                self._queue.append(item_for)
            if idle and self._queue:
                self._hand_over(now)

    def _meant_for(
        self, newcomers: dict[PeerId, None], now: float
    ) -> Iterator[tuple[PeerInfo, bytes, Provider | None]]:
        """Newcomers, keys and what is to be handed over to them: a provider, or None for the key's value."""
        for key in self._providers.all_keys():
            chosen = self._chosen(key, newcomers)
            if chosen:
                for provider in self._providers.all_of(key, now):
                    yield from ((info, key, provider) for info in chosen if info.peer != provider.peer)
        for entry in self._values.entries():
            for info in self._chosen(entry.key, newcomers):
                yield info, entry.key, None

    def _chosen(self, key: bytes, newcomers: dict[PeerId, None]) -> list[PeerInfo]:
        """Newcomers among the k nearest to a key; none when others see to it."""
        target = key_id(key)
        own = self._own ^ target
        if own > self._table.radius():
            return []  # we are not among the nearest three, or k
        nearest = self._table.closest(target, self._config.k)
        nearer = sum(peer_key(info.peer) ^ target < own for info in nearest if info.peer not in newcomers)
        return [info for info in nearest if info.peer in newcomers] if nearer < _HOLDERS else []

    def _hand_over(self, now: float) -> None:
        """One batch."""
        traffic = self._traffic
        for _ in range(min(_BATCH, len(self._queue))):
            info, key, provider = self._queue.popleft()
            if provider is not None:
                claim = read_any_claim(provider.record)
                # What is not genuine would be held against us.
                if (
                    claim is not None
                    and claim.is_valid(now, 0.0)
                    and belongs(claim, provider.peer, key)
                    and is_genuine(claim, provider.peer, provider.record, self._verify)
                ):
                    traffic.tell(info, add_provider(key, provider)(traffic.next_id()), now)
            elif (held := self._values.get(key, now)) is not None:
                traffic.tell(info, put_value(key, held.value, held.received)(traffic.next_id()), now)
        if self._queue:
            self._timers.add(now + _PAUSE_S, HandOver(look=False))

    def _neighbours(self) -> dict[PeerId, None]:
        return dict.fromkeys(info.peer for info in self._table.closest(self._own, 2 * self._config.k))

    def _look_later(self, now: float) -> None:
        spread = self._rng.uniform(
            1.0 - 5 * SPREAD, 1.0 + 5 * SPREAD
        )  # those that see one newcomer: not at once
        self._timers.add(now + self._config.handover_interval_s * spread, HandOver(look=True))
