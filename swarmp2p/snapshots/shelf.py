"""What a holder takes, and what it lets go of. Pure.

Of each borrower it has one snapshot, the newest: an older one is never taken in its place, whoever brings it. When
there is no room, snapshots are refused; only a borrower that holds a lease here pushes out those that hold none, oldest
first, so that strangers cannot fill the place of those who are worked for.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from ..identity import PeerId
from .form import MAX_BOX_BYTES, Header

EACH: Final = 4
"""A snapshot has at most this fraction of the room: there is some for others."""


@dataclass(frozen=True, slots=True)
class ShelfConfig:
    """room_bytes: of all snapshots together, also those that are still arriving; one that is replaced is there until
    the next one is. most: borrowers. age_s: for which one is kept at most, from when it came; a week."""

    room_bytes: int
    most: int = 256
    age_s: float = 7 * 86_400.0

    @property
    def each_bytes(self) -> int:
        """Of one borrower."""
        return min(MAX_BOX_BYTES, self.room_bytes // EACH)


class Shelf:
    """What one holder has: headers; files.py has the boxes."""

    def __init__(self, config: ShelfConfig) -> None:
        self.config = config
        self._kept: dict[PeerId, tuple[Header, float]] = {}  # with its end; oldest first
        self._arriving: dict[PeerId, Header] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def used_bytes(self) -> int:
        """By those that are kept, or arrive."""
        sizes = {borrower: header.size for borrower, (header, _) in self._kept.items()}
        for borrower, header in self._arriving.items():
            sizes[borrower] = max(header.size, sizes.get(borrower, 0))
        return sum(sizes.values())

    def find(self, borrower: PeerId, now: float) -> Header | None:
        """What there is of a borrower."""
        header, ends = self._kept.get(borrower, (None, 0.0))
        return header if ends > now else None

    def expired(self, now: float) -> tuple[PeerId, ...]:
        """Whose snapshots are over; they are let go of."""
        gone = tuple(borrower for borrower, (_, ends) in self._kept.items() if ends <= now)
        for borrower in gone:
            del self._kept[borrower]
        return gone

    def take(
        self, header: Header, now: float, leases: Collection[PeerId] = ()
    ) -> tuple[str, tuple[PeerId, ...]]:
        """(why it is refused, or "" and its place is set aside until `kept` or `lost`; whose are let go of for it).
        leases: who holds a lease here."""
        borrower, config = header.borrower, self.config
        kept = self.find(borrower, now)
        if borrower in self._arriving:
            return "another one of yours is arriving", ()
        if kept is not None and kept.sequence >= header.sequence:
            return "there is one that is as new", ()
        if header.expires <= now:
            return "it has expired", ()
        if header.size > config.each_bytes:
            return f"it has {header.size} bytes, and {config.each_bytes} are the most here", ()
        self._arriving[borrower] = header
        before, gone = dict(self._kept), list[PeerId]()
        if borrower in leases:
            others = [each for each in self._kept if each not in leases and each != borrower]
            while self._too_much() and others:
                gone.append(others.pop(0))
                del self._kept[gone[-1]]
        if self._too_much():
            del self._arriving[borrower]
            self._kept = before
            return "there is no room", ()
        return "", tuple(gone)

    def kept(self, borrower: PeerId, now: float) -> None:
        """What arrived is there, in place of the one before."""
        header = self._arriving.pop(borrower)
        self._kept.pop(borrower, None)
        self._kept[borrower] = header, min(header.expires, now + self.config.age_s)

    def lost(self, borrower: PeerId) -> None:
        """It did not arrive."""
        self._arriving.pop(borrower, None)

    def withdraw(self, header: Header) -> str:
        """Let go of its borrower's, up to this one. Why there still is one, or is going to be; "" for none."""
        kept, _ = self._kept.get(header.borrower, (None, 0.0))
        if header.borrower in self._arriving:
            return "another one of yours is arriving"
        if kept is not None and kept.sequence > header.sequence:
            return "there is a newer one"
        self.drop(header.borrower)
        return ""

    def drop(self, borrower: PeerId) -> bool:
        """Let go of a borrower's. Whether there was one."""
        return self._kept.pop(borrower, None) is not None

    def _too_much(self) -> bool:
        borrowers = {**self._kept, **self._arriving}
        return self.used_bytes > self.config.room_bytes or len(borrowers) > self.config.most
