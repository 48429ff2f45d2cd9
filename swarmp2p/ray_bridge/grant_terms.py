"""What a grant allows: amounts, times and lenders, and when one set of terms is within another. Pure.

A missing bound (None, or no lenders named) means that this grant sets none; it never means less than a number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, cast

from ..errors import UsageError
from ..identity import PeerId
from .events import Need
from .messages import MAX_COUNT, MAX_MEMORY_BYTES

MAX_LENDERS: Final = 16
MAX_LEASES: Final = 1_000_000
MAX_GRANT_S: Final = 366 * 86_400.0
"""Longest life of a grant, in seconds, from when it was issued. It is also how long a revocation has to be kept: a
grant that was issued before it has expired by then."""

_GIB: Final = 1 << 30
_ROUNDING: Final = 1e-9  # as in policy.py


@dataclass(frozen=True, slots=True)
class Terms:
    """What each lease under a grant may have at most, and when and where the grant counts.

    cpus, gpus, memory_bytes: of one lease. leases: at one time at one lender, all holders together to whom the grant
    was passed on. lease_s: how long a lease may stand, in seconds, however often it is renewed. lenders: at these
    alone, 16 at most; empty for all that the owner's key counts at. not_before, expires: absolute seconds, the second
    of them past.
    """

    expires: float
    not_before: float = -math.inf
    cpus: float | None = None
    gpus: float | None = None
    memory_bytes: int | None = None
    leases: int | None = None
    lease_s: float | None = None
    lenders: tuple[PeerId, ...] = ()

    def widening(self, parent: Terms) -> str | None:
        """What these terms would allow that `parent` does not; None when they are within it."""
        for name, ours, theirs in (
            ("cpus", self.cpus, parent.cpus),
            ("gpus", self.gpus, parent.gpus),
            ("memory_bytes", self.memory_bytes, parent.memory_bytes),
            ("leases", self.leases, parent.leases),
            ("lease_s", self.lease_s, parent.lease_s),
        ):
            if theirs is not None and (ours is None or not ours <= theirs):
                told = "no bound" if ours is None else f"{ours:g}"
                return f"{name} has {told} where {theirs:g} was granted"
        if parent.lenders and (not self.lenders or not set(self.lenders) <= set(parent.lenders)):
            return "lenders has others than were granted"
        if not self.expires <= parent.expires:
            return f"it expires {self.expires - parent.expires:.0f} s later than was granted"
        if not self.not_before >= parent.not_before:
            return f"it begins {parent.not_before - self.not_before:.0f} s sooner than was granted"
        return None

    def refusal(self, need: Need, lender: PeerId, now: float, clock_error_s: float) -> str | None:
        """Why a lease is not covered at this lender, now; None when it is."""
        if self.lenders and lender not in self.lenders:
            return "the grant is for other lenders than this one"
        if now < self.not_before - clock_error_s:
            return f"the grant begins in {self.not_before - now:.0f} s"
        if now >= self.expires:
            return f"the grant expired {now - self.expires:.0f} s ago; ask for another one"
        for name, granted, needed in (
            ("CPUs", self.cpus, need.cpus),
            ("GPUs", self.gpus, need.gpus),
            ("GiB of memory", _gib(self.memory_bytes), need.memory_bytes / _GIB),
        ):
            if granted is not None and needed > granted + _ROUNDING:
                return f"the grant covers {granted:g} {name} a lease, and {needed:g} were asked for"
        if self.memory_bytes is not None and not need.memory_bytes:
            # a need that names none leaves it to Ray, which takes what the machine has
            return f"the grant bounds memory: ask for at most {self.memory_bytes / _GIB:g} GiB (memory_bytes=...)"
        return None

    def within(
        self,
        *,
        expires: float | None = None,
        not_before: float | None = None,
        cpus: float | None = None,
        gpus: float | None = None,
        memory_bytes: int | None = None,
        leases: int | None = None,
        lease_s: float | None = None,
        lenders: Iterable[PeerId] = (),
    ) -> Terms:
        """These terms with some of them narrowed; what is not named stays. Raises UsageError for what would widen."""
        named = tuple(dict.fromkeys(lenders))
        narrowed = replace(
            self,
            expires=self.expires if expires is None else expires,
            not_before=self.not_before if not_before is None else not_before,
            cpus=self.cpus if cpus is None else cpus,
            gpus=self.gpus if gpus is None else gpus,
            memory_bytes=self.memory_bytes if memory_bytes is None else memory_bytes,
            leases=self.leases if leases is None else leases,
            lease_s=self.lease_s if lease_s is None else lease_s,
            lenders=named or self.lenders,
        )
        narrowed.check()
        wider = narrowed.widening(self)
        if wider is not None:
            raise UsageError(f"a grant can only be narrowed: {wider}. Nothing was signed")
        return narrowed

    def check(self) -> None:
        """Raises UsageError for terms that nobody could read or use."""
        for name, value, most in (
            ("cpus", self.cpus, MAX_COUNT),
            ("gpus", self.gpus, MAX_COUNT),
            ("lease_s", self.lease_s, MAX_GRANT_S),
        ):
            if value is not None and not _number(value, 0, most):
                raise UsageError(f"{name} of a grant is a number from 0 to {most:g}, not {value!r}")
        for name, count, most in (
            ("memory_bytes", self.memory_bytes, MAX_MEMORY_BYTES),
            ("leases", self.leases, MAX_LEASES),
        ):
            if count is not None and (type(cast(object, count)) is not int or not 0 <= count <= most):
                raise UsageError(f"{name} of a grant is a count from 0 to {most}, not {count!r}")
        if len(self.lenders) > MAX_LENDERS:
            raise UsageError(f"a grant names at most {MAX_LENDERS} lenders, not {len(self.lenders)}")
        if not _number(self.expires, -1e12, 1e12) or not (
            self.not_before == -math.inf or _number(self.not_before, -1e12, 1e12)
        ):
            raise UsageError("a grant's times are seconds since the Unix epoch")
        if self.expires <= self.not_before:
            raise UsageError("a grant expires after it begins")


def _gib(count: int | None) -> float | None:
    return None if count is None else count / _GIB


def _number(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
