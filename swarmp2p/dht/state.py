"""What a DHT engine wants kept over a restart, and the journal of its changes.

    Restore ---> stores, publisher, remembered peers        what was kept, before the first event
    changes ---> Journal ---> StateChanged                  in batches, at most every `state_interval_s`

The engine keeps nothing itself: its runner writes what StateChanged says, wherever it likes, and gives it back
with `Restore` when the next engine of the same peer starts. Without a Restore there is no journal, and nothing
of this costs anything.

An entry stands for itself: it replaces the one with the same id, and the order of different ids says nothing. So
whoever is behind with writing only needs the latest entry of each id.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..engine import Address
from ..identity import PeerId
from .messages import Provider

EntryId = tuple[str, bytes, bytes]
"""(kind, key, peer); empty bytes for the parts that a kind does not have."""


@dataclass(frozen=True, slots=True)
class HeldProvider:
    """A provider record that another peer gave us to keep.

    expires: seconds as `now`. sequence: of the service record that came with it, 0 for none. hidden: withdrawn,
    and kept so that an older one arriving late does not bring it back.
    """

    key: bytes
    provider: Provider
    expires: float
    sequence: int
    hidden: bool

    @property
    def id(self) -> EntryId:
        """What it is kept under."""
        return ("provider", self.key, self.provider.peer)


@dataclass(frozen=True, slots=True)
class HeldValue:
    """A value that is held for others. received: when it was stored here, seconds as `now`."""

    key: bytes
    value: bytes
    received: float

    @property
    def id(self) -> EntryId:
        """What it is kept under."""
        return ("value", self.key, b"")


@dataclass(frozen=True, slots=True)
class RememberedPeer:
    """A peer of the routing table that is worth asking after a restart. seen: its last answer, seconds as
    `now`."""

    peer: PeerId
    addresses: tuple[Address, ...]
    seen: float

    @property
    def id(self) -> EntryId:
        """What it is kept under."""
        return ("peer", b"", self.peer)


@dataclass(frozen=True, slots=True)
class OwnSequence:
    """The last sequence number that this peer signed: the next one must be higher, whatever the clock says."""

    sequence: int

    @property
    def id(self) -> EntryId:
        """What it is kept under."""
        return ("sequence", b"", b"")


Entry = HeldProvider | HeldValue | RememberedPeer | OwnSequence


class Journal:
    """Entries that changed since they were last taken, the latest of each id; None for one that is gone.

    max_changes: beyond it the single changes are forgotten, and `overflowed` says that only all of the state
    will do. A change costs 0.4 µs.
    """

    __slots__ = ("_changes", "_max", "overflowed")

    def __init__(self, max_changes: int) -> None:
        self._changes: dict[EntryId, Entry | None] = {}
        self._max = max_changes
        self.overflowed = False

    def __len__(self) -> int:
        return len(self._changes) + self.overflowed

    def keep(self, entry: Entry) -> None:
        """An entry is new or has changed."""
        self._note(entry.id, entry)

    def drop(self, entry: EntryId) -> None:
        """An entry is gone."""
        self._note(entry, None)

    def take(self) -> tuple[tuple[EntryId, Entry | None], ...]:
        """The changes; none are left then."""
        changes = tuple(self._changes.items())
        self._changes.clear()
        self.overflowed = False
        return changes

    def _note(self, id: EntryId, entry: Entry | None) -> None:
        if self.overflowed:
            return
        self._changes[id] = entry
        if len(self._changes) > self._max:
            self._changes.clear()
            self.overflowed = True
