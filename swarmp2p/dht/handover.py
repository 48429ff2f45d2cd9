"""Handing records over to peers that come to be among the nearest to their keys.

    a peer enters our 2 k nearest ---> at the next look: of which keys here is it one of the k nearest, where we are one
                                       of the nearest three ourselves? ---> their records, a few at a time
    an ADD_PROVIDER names another ---> does that one's signed record come along, for this key, still good, and is none
    than its sender                    held of it here? ---> verified, within the sender's allowance ---> stored

Without it, records stay with those who were nearest when they were stored, until the next republish: a day later there
may be few of them among the k nearest. Values go by PUT_VALUE, with the time at which they were stored first, so that
they live no longer for being handed on; the receiver's validator decides. Provider records go by ADD_PROVIDER with what
the provider signed (records.py, provider_record.py). Other implementations ignore providers that are not the sender, as
the specification says, and what their providers store here, unsigned, cannot be handed on.

Three holders see to each key, so that a record gets through though two of them are gone; the receiver drops what it
holds already before it verifies anything. Peers look every few minutes, at their own times, and only if somebody came.
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
from .messages import AddProvider, Provider
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

_BURST: Final = 512  # records that one peer may hand over at once
_PER_S: Final = 4.0  # and then each second
_BURST_OF_ALL: Final = 2_048  # the same for all peers together: 0.3 % of a CPU
_PER_S_OF_ALL: Final = 50.0
_BLOCK_S: Final = 600.0  # nothing is taken from who handed over what is not genuine
_MAX_SENDERS: Final = 1_024  # whose allowance is remembered; the one that sent longest ago is forgotten


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


class _Allowance:
    """Records that somebody may still hand over: so many at once, then so many each second."""

    __slots__ = ("_at", "_burst", "_left", "_per_s", "blocked_until")

    def __init__(self, burst: int, per_s: float, now: float) -> None:
        self._burst, self._per_s, self._left, self._at = burst, per_s, float(burst), now
        self.blocked_until = 0.0

    def take(self, now: float) -> bool:
        """Use one, if there is one."""
        self._left = min(self._left + (now - self._at) * self._per_s, self._burst)
        self._at = now
        if self._left < 1.0 or now < self.blocked_until:
            return False
        self._left -= 1.0
        return True


class Handed:
    """Decides about the records that other peers than their providers bring."""

    def __init__(self, providers: ProviderStore, verify: Verify, clock_error_s: float) -> None:
        self._providers, self._verify, self._clock_error_s = providers, verify, clock_error_s
        self._senders: dict[PeerId, _Allowance] = {}
        self._all: _Allowance | None = None

    def takes(self, sender: PeerId, request: AddProvider, now: float) -> bool:
        """Whether to store what a request says. Looks at what costs least first; a signature is checked only within
        the sender's allowance, and that of all, and who brings a bad one is not listened to for a while."""
        provider = request.provider
        if provider is None or self._providers.has(request.key, provider.peer):
            return False
        if not self._providers.has_room(request.key):
            return (
                False  # for a signature each, one connection could push out what providers brought themselves
            )
        allowance = self._allowance(sender, now)
        if self._all is None:
            self._all = _Allowance(_BURST_OF_ALL, _PER_S_OF_ALL, now)
        if not allowance.take(now) or not self._all.take(now):
            return False
        claim = read_any_claim(provider.record)
        if claim is None or claim.withdrawn or not claim.is_valid(now, self._clock_error_s):
            return False
        if is_genuine(claim, provider.peer, provider.record, self._verify):
            return belongs(claim, provider.peer, request.key)
        allowance.blocked_until = now + _BLOCK_S
        return False

    def _allowance(self, sender: PeerId, now: float) -> _Allowance:
        allowance = self._senders.pop(sender, None)
        if allowance is None:
            allowance = _Allowance(_BURST, _PER_S, now)
            if len(self._senders) >= _MAX_SENDERS:
                del self._senders[next(iter(self._senders))]
        self._senders[sender] = allowance
        return allowance
