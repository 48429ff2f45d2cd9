"""What a lender does with grants: whether one covers a request, at bounded cost, and which leases a revocation ends.

What costs nothing is looked at first (form, narrowing, whose it is, times, amounts, revocations), signatures last.
Genuine links are remembered, so that a chain is paid for once, and its beginning once for all that was made of it. Of
each borrower so many signatures a second are checked; a borrower that brings more is told to come back.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from ..errors import BadMessage
from ..identity import PeerId
from ..signed import Verify
from .events import Lend, Need
from .grants import Grant, read_grant
from .messages import MIN_LEASE_S, LeaseRequest
from .policy import Permission, Refusal, permission
from .revocations import RevocationList, Revoked, read_revocations

MAX_LINKS_KNOWN: Final = 2048
"""Genuine links remembered, oldest forgotten first: 2 MiB of the longest ones, usually half a MiB."""

CHECKS_PER_S: Final = 32
"""Signatures checked for one borrower in a second: four of the longest chains, or 2 ms. A guess."""

MAX_BORROWERS: Final = 1024
"""Borrowers for which those are counted, oldest forgotten first."""

_AGAIN_S: Final = 1.0
_FULL_S: Final = 5.0  # as LeaseConfig.retry_after_s


class GrantBook:
    """One lender's. own: its key, which counts as an owner's at this lender, whoever else does."""

    def __init__(self, own: PeerId, verify: Verify, clock_error_s: float) -> None:
        self._own, self._verify, self._clock_error_s = own, verify, clock_error_s
        self._genuine: dict[bytes, bytes] = {}
        self._checks: dict[PeerId, tuple[float, int]] = {}
        self.revoked = Revoked()

    def permit(
        self,
        lend: Lend,
        request: LeaseRequest,
        borrower: PeerId,
        standing: Collection[Permission],
        now: float,
    ) -> Permission | Refusal:
        """By the owner's list, or by the grant that the request brings (policy.Permit)."""
        banned = lend.allow is None and self.banned(borrower)
        listed = permission(lend, request, borrower, standing, now)
        if isinstance(listed, Permission) and not banned:
            return listed
        if not request.grants:
            return Refusal("its owner has revoked this peer") if banned else listed
        grant = self.read(request.grants, borrower, request.need, lend.grantors, now)
        if isinstance(grant, Refusal):
            return grant
        full = self.crowded(grant, (one.grant for one in standing if one.grant is not None))
        if full is not None:
            return full
        until = self.ends(grant, now)
        if until - now < MIN_LEASE_S:
            return Refusal("the grant leaves no time for a lease")
        return Permission(grant, until)

    def read(
        self,
        chain: Sequence[bytes],
        borrower: PeerId,
        need: Need,
        grantors: Collection[PeerId],
        now: float,
    ) -> Grant | Refusal:
        """The grant that a request brings, when it covers it now. grantors: owners that count beside the own key."""
        try:
            grant = read_grant(chain)
        except BadMessage as wrong:
            return Refusal(f"the grant cannot be accepted: {wrong}")
        problem = self._problem(grant, borrower, need, grantors, now)
        if problem is not None:
            return Refusal(problem)
        unknown = sum(
            self._genuine.get(link.id) != envelope
            for link, envelope in zip(grant.links, grant.envelopes, strict=True)
        )
        if unknown:
            if not self._may_check(borrower, unknown, now):
                return Refusal("it has checked enough of your grants for this second", _AGAIN_S)
            if not grant.verify(self._verify, self._genuine):
                return Refusal("the grant cannot be accepted: a signature in it is not genuine")
            for link, envelope in zip(grant.links, grant.envelopes, strict=True):
                self._remember(link.id, envelope)
        return grant

    @staticmethod
    def crowded(grant: Grant, standing: Iterable[Grant]) -> Refusal | None:
        """Why one more lease would be too many. standing: the grants of the leases that stand, and of reservations."""
        bounded = {link.id: link.terms.leases for link in grant.links if link.terms.leases is not None}
        if not bounded:
            return None
        counts = dict.fromkeys(bounded, 0)
        for other in standing:
            for link in other.links:
                if link.id in counts:
                    counts[link.id] += 1
        for id, most in bounded.items():
            if counts[id] >= most:
                # 0 leases are 0 for ever
                return Refusal(
                    f"the grant is for {most} leases at a time, and as many stand",
                    _FULL_S if most else None,
                )
        return None

    @staticmethod
    def ends(grant: Grant, granted: float) -> float:
        """When a lease that was granted at `granted` is over by its grant, however often it is renewed."""
        terms = grant.terms
        return min(terms.expires, granted + (math.inf if terms.lease_s is None else terms.lease_s))

    def learn(self, owner: PeerId, envelope: bytes) -> RevocationList | None:
        """Take an owner's list in; None when it is no news, or not that owner's. What it ends: `voids`."""
        try:
            told = read_revocations(envelope, owner, self._verify)
        except BadMessage:
            return None
        return told if self.revoked.add(told) else None

    def voids(self, told: RevocationList, grant: Grant | None, borrower: PeerId) -> str | None:
        """Why a lease of `borrower` under `grant` (None: it was allowed by name) ends by a list; None if it stays."""
        if grant is not None and grant.owner == told.owner:
            return self.revoked.problem(grant)
        if told.owner == self._own and self.revoked.names_peer(self._own, borrower):
            return "its owner has revoked this peer"
        return None

    def banned(self, borrower: PeerId) -> bool:
        """Whether this lender's own key has revoked a borrower, which lending to everybody does not undo."""
        return self.revoked.names_peer(self._own, borrower)

    def sizes(self) -> tuple[int, int]:
        """Links remembered, and borrowers whose checks are counted."""
        return len(self._genuine), len(self._checks)

    def _problem(
        self, grant: Grant, borrower: PeerId, need: Need, grantors: Collection[PeerId], now: float
    ) -> str | None:
        if grant.owner != self._own and grant.owner not in grantors:
            return (
                f"grants of {grant.owner} do not count here; ask this lender's owner to add it with --grantor"
            )
        if grant.holder != borrower:
            return f"the grant was given to another peer ({grant.holder.short}) than you"
        if grant.links[0].issued > now + self._clock_error_s:
            # such a one would count as issued after a revocation that is still to come
            return "the grant was issued later than now; set both machines' clocks"
        return grant.terms.refusal(need, self._own, now, self._clock_error_s) or self.revoked.problem(grant)

    def _may_check(self, borrower: PeerId, count: int, now: float) -> bool:
        began, used = self._checks.pop(borrower, (now, 0))
        if now - began >= 1.0:
            began, used = now, 0
        allowed = used + count <= CHECKS_PER_S
        self._checks[borrower] = (began, used + count if allowed else used)
        if len(self._checks) > MAX_BORROWERS:
            del self._checks[next(iter(self._checks))]
        return allowed

    def _remember(self, link: bytes, envelope: bytes) -> None:
        self._genuine.pop(link, None)
        self._genuine[link] = envelope
        if len(self._genuine) > MAX_LINKS_KNOWN:
            del self._genuine[next(iter(self._genuine))]
