"""Gathers what is worth keeping over a restart from the parts of a DHT engine, and gives it back to them.

Which peers are remembered: of each bucket those that have been in the routing table for longest, since who has
stayed will stay (Kademlia §2.1); in turn, so that all distances are there. Peers remembered earlier fill up the
rest, the last seen first: a table that emptied because this peer was cut off makes it forget nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final, assert_never

from ..identity import PeerId
from .config import DhtConfig
from .events import StateChanged
from .provider_store import ProviderStore
from .publisher import Publisher
from .routing import RoutingTable, TableEntry
from .state import Entry, HeldProvider, HeldValue, Journal, OwnSequence, RememberedPeer
from .timers import Timers
from .value_store import ValueStore

_MAX_CHANGES: Final = 65_536  # more than the stores hold: what overflows would be a full copy anyway
_SEEN_EVERY_S: Final = 3600.0  # how much newer a peer's last answer must be to be worth writing


class Keep(Enum):
    """What is done again and again."""

    SAVE = "say what has changed"
    REMEMBER = "look for peers to remember"


class Keeper:
    """The journal of one engine, and the way back.

    timers: the engine's. What this class adds, Keep, comes back through `due`.
    """

    def __init__(
        self,
        providers: ProviderStore,
        values: ValueStore,
        publisher: Publisher,
        table: RoutingTable,
        timers: Timers[object],
        config: DhtConfig,
        now: float,
    ) -> None:
        self.journal = Journal(_MAX_CHANGES)
        self._providers, self._values, self._publisher, self._table = providers, values, publisher, table
        self._timers, self._config = timers, config
        self._remembered: dict[PeerId, RememberedPeer] = {}
        self._save_timer = 0
        providers.journal = values.journal = publisher.journal = self.journal
        timers.add(now + config.remember_interval_s / 12, Keep.REMEMBER)

    def tell_later(self, now: float) -> None:
        """After each event: see that what has changed is told in time."""
        if not self._save_timer and self.journal:
            self._save_timer = self._timers.add(now + self._config.state_interval_s, Keep.SAVE)

    def due(self, item: Keep, now: float) -> list[StateChanged]:
        """A timer of this class is due."""
        match item:
            case Keep.SAVE:
                return self._changes(whole=False)
            case Keep.REMEMBER:
                self._remember()
                self._timers.add(now + self._config.remember_interval_s, Keep.REMEMBER)
                return []
            case _:
                assert_never(item)

    def save(self, whole: bool) -> list[StateChanged]:
        """What has changed since it was told last, or all that there is."""
        self._remember()
        return self._changes(whole)

    def restore(self, entries: Sequence[Entry], now: float) -> None:
        """Take back what was kept. What has expired or finds no room is dropped, here and in the journal."""
        # A store's order is that of renewals, and what was renewed last expires last.
        for entry in sorted(entries, key=_age):
            match entry:
                case HeldProvider():
                    if not self._providers.restore(entry, now):
                        self.journal.drop(entry.id)
                case HeldValue():
                    if not self._values.restore(entry, now):
                        self.journal.drop(entry.id)
                case OwnSequence(sequence):
                    self._publisher.sequence = max(self._publisher.sequence, sequence)
                case RememberedPeer():
                    self._remembered[entry.peer] = entry
                case _:
                    assert_never(entry)
        self._keep_best([])

    def _changes(self, whole: bool) -> list[StateChanged]:
        self._timers.cancel(self._save_timer)
        self._save_timer = 0
        if whole or self.journal.overflowed:
            self.journal.take()
            return [StateChanged(tuple((entry.id, entry) for entry in self._all()), whole=True)]
        changes = self.journal.take()
        return [StateChanged(changes)] if changes else []

    def _remember(self) -> None:
        self._keep_best(_in_turn(self._table.snapshot()))

    def _all(self) -> Iterable[Entry]:
        yield from self._providers.entries()
        yield from self._values.entries()
        yield from self._remembered.values()
        if self._publisher.sequence:
            yield OwnSequence(self._publisher.sequence)

    def _keep_best(self, found: Iterable[TableEntry]) -> None:
        best: dict[PeerId, RememberedPeer] = {}
        for entry in found:
            if len(best) >= self._config.max_remembered:
                break
            best[entry.peer] = RememberedPeer(entry.peer, entry.addresses, entry.seen)
        earlier = sorted(self._remembered.values(), key=_age, reverse=True)
        for peer in earlier:
            if len(best) < self._config.max_remembered:
                best.setdefault(peer.peer, peer)
        for peer in earlier:
            now = best.get(peer.peer)
            if now is None:
                self.journal.drop(peer.id)
            elif now.addresses == peer.addresses and now.seen - peer.seen < _SEEN_EVERY_S:
                best[peer.peer] = peer
        for peer in best.values():
            if self._remembered.get(peer.peer) is not peer:
                self.journal.keep(peer)
        self._remembered = best


def _age(entry: Entry) -> float:
    match entry:
        case HeldProvider():
            return entry.expires
        case HeldValue():
            return entry.received
        case RememberedPeer():
            return entry.seen
        case OwnSequence():
            return 0.0
        case _:
            assert_never(entry)


def _in_turn(entries: Iterable[TableEntry]) -> list[TableEntry]:
    """Peers that answer, the longest known of each bucket, then the second of each, and so on."""
    buckets: dict[int, list[TableEntry]] = {}
    for entry in entries:
        if not entry.failures:
            buckets.setdefault(entry.bucket, []).append(entry)
    ranked = [
        (rank, entry.bucket, entry)
        for bucket in buckets.values()
        for rank, entry in enumerate(sorted(bucket, key=lambda entry: entry.added))
    ]
    return [entry for _, _, entry in sorted(ranked, key=lambda item: item[:2])]
