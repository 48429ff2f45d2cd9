"""What a lender has room for: its owner's terms against what is given and set aside."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..identity import PeerId
from .events import LeaseId, Lend
from .given_lease import GivenLease, GivenState
from .lease_config import LeaseConfig
from .messages import MIN_LEASE_S, LeaseRequest
from .policy import Permission, Permit, Refusal, admit


class Room:
    """Judges requests by the leases that stand. lend: the owner's terms; None while nothing is lent."""

    def __init__(self, leases: Mapping[LeaseId, GivenLease], permit: Permit, config: LeaseConfig) -> None:
        """leases: the lender's table itself, which changes."""
        self.lend: Lend | None = None
        self._leases, self._permit, self._config = leases, permit, config
        self._wasteful: dict[PeerId, float] = {}

    def admit(
        self, request: LeaseRequest, borrower: PeerId, now: float, but: GivenLease | None = None
    ) -> Permission | Refusal:
        """Whether a request may be met now. but: a reservation that is its own."""
        others = [given for given in self._leases.values() if given is not but]
        taken, standing = [other.request.need for other in others], [other.permission for other in others]
        wait_s = self._config.retry_after_s
        verdict = admit(self.lend, request, borrower, taken, now, wait_s, self._permit, standing)
        if isinstance(verdict, Permission) and verdict.until - now < MIN_LEASE_S:
            return Refusal("the permission that it would rest on is over")
        return verdict

    def crowded(self, borrower: PeerId) -> bool:
        """Whether as many challenges are under way as may be."""
        half_open = [given.borrower for given in self._leases.values() if _held(given)]
        most, of_one = self._config.max_half_open, self._config.max_half_open_per_peer
        return len(half_open) >= most or half_open.count(borrower) >= of_one

    def retry_after_s(self, why: Refusal, now: float) -> float | None:
        """When a refused borrower should ask again: sooner, when what is in the way may only be set aside."""
        if why.retry_after_s is None or not why.room:
            return why.retry_after_s
        ends = [given.until for given in self._leases.values() if _held(given)]
        return max(0.0, min([end - now for end in ends] + [why.retry_after_s]))

    def waste(self, borrower: PeerId, now: float) -> None:
        """A gang's hold ran out. For as long its borrower gets no other, so that nobody keeps a machine that way; of
        the latest `max_strangers` borrowers this is known."""
        self._wasteful.pop(borrower, None)
        self._wasteful[borrower] = now + self._config.hold_s
        if len(self._wasteful) > self._config.max_strangers:
            del self._wasteful[next(iter(self._wasteful))]

    def wasteful(self, borrower: PeerId, now: float) -> bool:
        """Whether a borrower has just let a hold run out."""
        return now < self._wasteful.get(borrower, -math.inf)


def _held(given: GivenLease) -> bool:
    return given.state is GivenState.CHALLENGED
