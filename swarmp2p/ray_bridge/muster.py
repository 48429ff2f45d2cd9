"""How a cluster comes by workers of which it wants all or none. Pure.

    mustering --all held: commit--> starting --all active--> complete (from here on each is hired by itself)
        |  ^                            |
        |  '---- after a pause <--------' one of them ended, and so all did
        '-- nobody left to ask: lets go of all, and after a pause begins again, with a new gang

Who is asked for a gang's worker sets it aside, a few seconds at most; nothing starts before all are. While others'
answers are out, or somebody else can be asked, what is held is kept; else all of it is let go of at once, so that it is
there for others. The pauses are random and grow, so that of two clusters that each hold what the other lacks one gets
it all (`GangPause`).
"""

from __future__ import annotations

import math
from random import Random

from .events import LeaseId
from .gangs import GangPause


class Muster:
    """One cluster's. size: how many workers; 0 for a cluster whose workers are hired one by one."""

    def __init__(self, size: int, rng: Random) -> None:
        self._size, self._rng = size, rng
        self._pause = GangPause(rng)
        self._name = rng.randbytes(16)
        self._held: dict[LeaseId, bool] = {}  # whether, of those of this gang that are not over
        self._active: dict[LeaseId, None] = {}
        self._committed = False
        self._not_before = -math.inf
        self.complete = size == 0

    @property
    def gang(self) -> bytes:
        """What a request is to name."""
        return b"" if self.complete else self._name

    def waits(self, now: float) -> float:
        """Seconds until anybody may be asked; 0 for now, infinity until those that are starting run or end."""
        if self.complete:
            return 0.0
        return math.inf if self._committed else max(0.0, self._not_before - now)

    def asked(self, lease: LeaseId) -> None:
        """A request of this gang went out."""
        if not self.complete:
            self._held[lease] = False

    def held(self, lease: LeaseId) -> bytes:
        """A worker was set aside. Returns the gang to commit once all are; b"" before."""
        if lease in self._held:
            self._held[lease] = True
        if self.complete or self._committed or sum(self._held.values()) < self._size:
            return b""
        self._committed = True
        return self._name

    def active(self, lease: LeaseId) -> None:
        """A worker runs."""
        if lease in self._held:
            self._active[lease] = None
            self.complete |= len(self._active) >= self._size

    def over(self, lease: LeaseId, now: float) -> None:
        """A request was refused, or a lease ended."""
        if self._held.pop(lease, None) is None or self.complete:
            return
        self._active.pop(lease, None)
        if self._committed and not self._held:
            self._again(now)

    def give_up(self, now: float) -> tuple[LeaseId, ...]:
        """Nobody is left to be asked. Returns what to let go of: nothing while answers are out."""
        if self.complete or self._committed or not all(self._held.values()):
            return ()
        leases = tuple(self._held)
        self._held.clear()
        self._again(now)
        return leases

    def _again(self, now: float) -> None:
        self._name, self._committed = self._rng.randbytes(16), False
        self._not_before = now + self._pause.next_s()
