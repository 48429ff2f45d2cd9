"""What a lender has room for: its owner's terms against what is given and set aside.

A reservation is firm or loose (waste.py). A firm one keeps its room from all who come after it, but not from a loose
one that came before: that one's turn it was. A loose one keeps nothing from anybody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..identity import PeerId
from .events import LeaseId, Lend
from .given_lease import GivenLease, GivenState
from .lease_config import LeaseConfig
from .messages import MIN_LEASE_S, LeaseRequest
from .policy import Permission, Permit, Refusal, admit
from .waste import Account, Waste


class Room:
    """Judges requests by the leases that stand. lend: the owner's terms; None while nothing is lent."""

    def __init__(self, leases: Mapping[LeaseId, GivenLease], permit: Permit, config: LeaseConfig) -> None:
        """leases: the lender's table itself, which changes."""
        self.lend: Lend | None = None
        self._leases, self._permit, self._config = leases, permit, config
        self._waste = Waste(config)

    def admit(
        self, request: LeaseRequest, borrower: PeerId, now: float, but: GivenLease | None = None
    ) -> Permission | Refusal:
        """Whether a request may be met now. but: a reservation that is its own."""
        others = list(self._ahead_of(but))
        taken, standing = [other.request.need for other in others], [other.permission for other in others]
        wait_s = self._config.retry_after_s
        verdict = admit(self.lend, request, borrower, taken, now, wait_s, self._permit, standing)
        if isinstance(verdict, Permission) and verdict.until - now < MIN_LEASE_S:
            return Refusal("the permission that it would rest on is over")
        return verdict

    def crowded(self, borrower: PeerId) -> bool:
        """Whether as many challenges are under way as may be."""
        half_open = [given for given in self._leases.values() if given.state is GivenState.CHALLENGED]
        own = sum(given.borrower == borrower for given in half_open)
        firm = sum(given.firm for given in half_open)
        return firm >= self._config.max_half_open or own >= self._config.max_half_open_per_peer

    def superfluous(self) -> GivenLease | None:
        """The oldest loose reservation, once there is one too many. Nothing is lost with it but its turn: refusing new
        ones instead would let whoever fills the table keep all others out."""
        loose = [given for given in self._leases.values() if _loose(given)]
        return loose[0] if len(loose) > self._config.max_half_open else None

    def retry_after_s(self, why: Refusal, now: float) -> float | None:
        """When a refused borrower should ask again: sooner, when what is in the way may only be set aside."""
        if why.retry_after_s is None or not why.room:
            return why.retry_after_s
        ends = [given.until for given in self._leases.values() if _firm(given)]
        return max(0.0, min([end - now for end in ends] + [why.retry_after_s]))

    def account(self, borrower: PeerId, permission: Permission) -> Account:
        """Who answers for what a borrower wastes."""
        if permission.grant is not None:
            return permission.grant.links[0].holder
        return None if self.lend is not None and self.lend.allow is None else borrower

    def trusts(self, account: Account, now: float) -> bool:
        """Whether the next reservation is a firm one: those that are under way may come to nothing."""
        begun = [given.since for given in self._leases.values() if _firm(given) and given.account == account]
        return self._waste.trusts(account, now, min(begun, default=now))

    def waste(self, given: GivenLease, now: float) -> None:
        """A reservation ended unproven."""
        self._waste.charge(given.account, given.since, now)

    def _ahead_of(self, own: GivenLease | None) -> Iterator[GivenLease]:
        """What has its room before `own`, a reservation, or before a new request."""
        before = True
        for given in self._leases.values():  # in the order in which they were set aside
            if given is own:
                before = False
            elif given.state is not GivenState.CHALLENGED or (given.firm and before):
                yield given


def _firm(given: GivenLease) -> bool:
    return given.state is GivenState.CHALLENGED and given.firm


def _loose(given: GivenLease) -> bool:
    return given.state is GivenState.CHALLENGED and not given.firm
