"""Gangs at their borrower: several leases of which all are wanted or none.

      asked          CommitGang            all active
    GATHERING ------------------> STARTING ----------> (the gang is over; its leases go on one by one)
        |  one ends: the others        |  one ends: so do
        v  are not concerned           v  the others

While it gathers, each lender sets its worker aside for a few seconds (a challenge that is not answered yet), and the
application may ask others in place of those that refuse, or more than it needs, and commit when it has enough. Nothing
is kept longer than `gang_s` without a commit. The table needs no bound of its own: each gang has a lease that stands,
and those are bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final

from .events import LeaseId

_FIRST_S: Final = 0.5  # about what a round of asking takes across the Earth
_LONGEST_S: Final = 16.0


@dataclass(slots=True)
class _Gang:
    """members: its leases that stand, and whether each is active."""

    members: dict[LeaseId, bool] = field(default_factory=dict)
    committed: bool = False


class Gangs:
    """Which leases belong together."""

    def __init__(self) -> None:
        self._gangs: dict[bytes, _Gang] = {}
        self._of: dict[LeaseId, bytes] = {}

    def of(self, lease: LeaseId) -> bytes:
        """The gang of a lease; b"" for none, and once the gang is over."""
        return self._of.get(lease, b"")

    def committed(self, gang: bytes) -> bool:
        """Whether nobody can join any more."""
        known = self._gangs.get(gang)
        return known is not None and known.committed

    def add(self, gang: bytes, lease: LeaseId) -> None:
        """One more is asked for."""
        self._gangs.setdefault(gang, _Gang()).members[lease] = False
        self._of[lease] = gang

    def members(self, gang: bytes) -> tuple[LeaseId, ...]:
        """Its leases, in the order of asking."""
        known = self._gangs.get(gang)
        return () if known is None else tuple(known.members)

    def commit(self, gang: bytes) -> None:
        """All that are left are taken, or none."""
        if gang in self._gangs:
            self._gangs[gang].committed = True

    def active(self, lease: LeaseId) -> tuple[LeaseId, ...]:
        """A worker runs. Returns all of the gang when it was the last, and the gang is over; else ()."""
        gang = self._gangs.get(self.of(lease))
        if gang is None:
            return ()
        gang.members[lease] = True
        if not all(gang.members.values()):
            return ()
        return self._dissolve(self.of(lease))

    def ended(self, lease: LeaseId) -> tuple[LeaseId, ...]:
        """A lease is over. Returns the others of a gang that was committed, which is over: they must end, too."""
        name = self._of.pop(lease, b"")
        gang = self._gangs.get(name)
        if gang is None:
            return ()
        del gang.members[lease]
        if gang.committed:
            return self._dissolve(name)
        if not gang.members:
            del self._gangs[name]
        return ()

    def _dissolve(self, name: bytes) -> tuple[LeaseId, ...]:
        members = tuple(self._gangs.pop(name).members)
        for lease in members:
            self._of.pop(lease, None)
        return members


@dataclass(slots=True)
class GangPause:
    """How long to wait before a gang is asked for again that did not come together.

    Two gangs that each hold what the other lacks would do so again and again if both asked again at the same time. So
    each lets go of all it has and waits for a random time, whose range doubles with every attempt up to 16 s: soon one
    of them asks while the other waits, as senders on a shared wire do.
    """

    rng: Random
    attempts: int = 0

    def next_s(self) -> float:
        """Seconds to wait after one more attempt that failed."""
        longest_s = min(_LONGEST_S, _FIRST_S * 2**self.attempts)
        self.attempts = min(self.attempts + 1, 10)
        return self.rng.uniform(0.0, longest_s)
