"""Requests that wait at a lender that is full: a bounded table in fair order.

Borrowers take turns, in a ring: each turn serves the oldest request of the borrower that waits longest for a turn, and
then that borrower goes to the ring's end, where newcomers join, too. So who asks for a hundred workers delays one who
asks for one by a single turn. Within one borrower the order is that of asking.

A request that does not fit yet may be overtaken by one that does, of another borrower, until it has waited
`overtake_s`; then everybody waits for it, so that a large request is not kept out by small ones for ever. What that
costs ends with the request's own patience, which the lender bounds.

Nothing is set aside for those who wait. One that is not heard of for `queue_silence_s` is forgotten.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..identity import PeerId
from .events import LeaseId
from .lease_config import LeaseConfig
from .messages import LeaseRequest


@dataclass(slots=True)
class Waiting:
    """A request that waits. since: when it came; until: when its patience ends; heard: when it was last repeated."""

    borrower: PeerId
    request: LeaseRequest
    since: float
    until: float
    heard: float

    @property
    def lease(self) -> LeaseId:
        return self.request.lease


class LeaseQueue:
    """Who waits, at most `max_queue` requests, `max_queue_per_peer` of one borrower."""

    def __init__(self, config: LeaseConfig) -> None:
        self._config = config
        self._ring: dict[PeerId, dict[LeaseId, Waiting]] = {}
        self._all: dict[LeaseId, Waiting] = {}

    def __len__(self) -> int:
        return len(self._all)

    def get(self, lease: LeaseId) -> Waiting | None:
        """A request that waits."""
        return self._all.get(lease)

    def leases(self) -> tuple[LeaseId, ...]:
        """All that wait, in the order of asking."""
        return tuple(self._all)

    def deadline(self) -> float:
        """When the next one is to be given up."""
        silence_s = self._config.queue_silence_s
        return min((min(each.until, each.heard + silence_s) for each in self._all.values()), default=math.inf)

    def add(self, borrower: PeerId, request: LeaseRequest, now: float) -> bool:
        """Let a request wait; False when there is no place for it, which changes nothing."""
        own = self._ring.get(borrower, {})
        if len(self._all) >= self._config.max_queue or len(own) >= self._config.max_queue_per_peer:
            return False
        patience_s = min(request.queue_s, self._config.max_queue_s)
        waiting = Waiting(borrower, request, now, now + patience_s, now)
        self._ring.setdefault(borrower, {})[request.lease] = waiting
        self._all[request.lease] = waiting
        return True

    def remove(self, lease: LeaseId, *, served: bool = False) -> None:
        """It waits no longer. served: its borrower has had its turn."""
        waiting = self._all.pop(lease)
        own = self._ring[waiting.borrower]
        del own[lease]
        if served or not own:
            del self._ring[waiting.borrower]
        if served and own:
            self._ring[waiting.borrower] = own

    def firsts(self) -> list[Waiting]:
        """The oldest request of each borrower, whose turn it is first."""
        return [next(iter(own.values())) for own in self._ring.values()]

    def position(self, lease: LeaseId) -> int:
        """Its place in the order in which requests would be served now, from 1."""
        waiting = self._all[lease]
        turn = list(self._ring[waiting.borrower]).index(lease)  # so many turns of its borrower come before
        place = 1
        ahead = True
        for borrower, own in self._ring.items():
            if borrower == waiting.borrower:
                place += turn
                ahead = False
            else:
                place += min(len(own), turn + 1 if ahead else turn)
        return place

    def aged(self, waiting: Waiting, now: float) -> bool:
        """Whether it may not be overtaken any more."""
        return now - waiting.since >= self._config.overtake_s

    def before(self, borrower: PeerId, now: float) -> bool:
        """Whether a new request of this borrower would overtake one that must not be: of its own, or an aged one."""
        return borrower in self._ring or any(self.aged(each, now) for each in self.firsts())

    def overdue(self, now: float) -> list[Waiting]:
        """Those to be given up: their patience is over, or they are silent."""
        silence_s = self._config.queue_silence_s
        return [each for each in self._all.values() if min(each.until, each.heard + silence_s) <= now]
