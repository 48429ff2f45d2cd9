"""Leases over restarts: what the lease engine wants written down, and what it is told of when the peer starts again.

A lender's leases are restored at once: their workers are gone, and their borrowers are told. A borrower's are offered
to the clusters that are resumed (`claim`); those that nobody claims within a few seconds are released.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from .ray_bridge.events import Journal as Note
from .ray_bridge.events import JournalRecord, LeaseCommand, RestoreLeases, Role
from .storage.journal import Journal

_CLAIM_S: Final = 5.0
"""Seconds after the start in which a cluster may be resumed. Lenders give up whoever is not back 10 s after its
connection closed (`orphan_grace_s`), and to start takes some of these, so later claims would mostly find nothing."""


class LeaseJournal:
    """One peer's. journal: None keeps nothing over restarts."""

    def __init__(self, journal: Journal | None, post: Callable[[LeaseCommand], None]) -> None:
        self._journal, self._post = journal, post
        found = () if journal is None else journal.found.leases
        self._given = tuple(record for record in found if record.role is Role.LENDER)
        self._taken = tuple(record for record in found if record.role is Role.BORROWER)

    def restore(self) -> None:
        """Tell the engine what it gave. The first thing that it is told."""
        if self._given:
            self._post(RestoreLeases(self._given))

    def claim(self, cluster: str) -> tuple[JournalRecord, ...]:
        """The leases of a cluster that an earlier run of this peer took; whoever asks has the engine told of them."""
        claimed = tuple(record for record in self._taken if record.cluster == cluster)
        self._taken = tuple(record for record in self._taken if record.cluster != cluster)
        return claimed

    def release(self) -> None:
        """Have what nobody has claimed released."""
        left, self._taken = self._taken, ()
        if left:
            self._post(RestoreLeases(left))

    async def run(self) -> None:
        """Release in a while what nobody claims until then."""
        if self._taken:
            await trio.sleep(_CLAIM_S)
            self.release()

    def write(self, note: Note) -> None:
        """Write down what the engine says."""
        if self._journal is None:
            return
        if note.record is None:
            self._journal.drop_lease(note.lease)
        else:
            self._journal.keep_lease(note.record)
