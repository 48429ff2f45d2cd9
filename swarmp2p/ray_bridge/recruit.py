"""Whom to ask for the next worker: the borrower's side of hiring, as a pure table.

    idle --ask()--> asked --granted/active--> hired --ended--> idle (after a pause)
                      '------refused--------> declined --(record renewed, or pause over)--> idle

A provider that declined is asked again when it publishes a newer service record (a lender does so when its
policy changes), when the time it named is over, or after `decline_pause_s`. One whose lease ended is left
alone for `lost_pause_s`: most often its machine is gone, while its record has not expired yet. Whatever a provider
says of itself, others come first for `least_pause_s`: one that praises itself, declines at once and asks to be asked
again would otherwise keep a cluster from ever asking anybody else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from ..identity import PeerId
from .events import LeaseId


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider that was found. sequence: its service record's; a newer one means that something changed."""

    provider: PeerId
    sequence: int


@dataclass(frozen=True, slots=True)
class RecruitConfig:
    """Pauses in seconds: guesses, long enough not to pester, short enough for a person who waits.

    max_remembered: providers whose answers are remembered; beyond it those asked longest ago are forgotten.
    """

    decline_pause_s: float = 30.0
    lost_pause_s: float = 10.0
    least_pause_s: float = 1.0
    max_remembered: int = 1024


class _State(Enum):
    IDLE = "idle"
    ASKED = "asked"
    HIRED = "hired"
    DECLINED = "declined"


@dataclass(slots=True)
class _Entry:
    state: _State = _State.IDLE
    sequence: int = 0
    not_before: float = -math.inf
    left: float = -math.inf  # when it declined, or its lease ended
    reason: str = ""

    @property
    def busy(self) -> bool:
        """Whether a lease of this provider is asked for or stands."""
        return self.state in (_State.ASKED, _State.HIRED)


@dataclass(slots=True)
class Recruiter:
    """Who was asked, hired and refused. wanted: how many workers the cluster is to have."""

    wanted: int
    config: RecruitConfig = field(default_factory=RecruitConfig)
    _entries: dict[PeerId, _Entry] = field(default_factory=dict)
    _leases: dict[LeaseId, PeerId] = field(default_factory=dict)
    _granted: dict[LeaseId, float] = field(default_factory=dict)  # when, of some of these

    def missing(self) -> int:
        """Workers still to be asked for: wanted, less those hired and those asked."""
        return self.wanted - len(self._leases)

    def next(self, candidates: Iterable[Candidate], now: float) -> PeerId | None:
        """The first of the candidates, best first, that may be asked now; None when there is none."""
        if self.missing() <= 0:
            return None
        return next((each.provider for each in candidates if self.may_ask(each, now)), None)

    def may_ask(self, candidate: Candidate, now: float) -> bool:
        """Whether a provider has no lease of this cluster's, nor declined or lost one just now. A cluster has one
        worker of each provider, so that its workers are spread over them."""
        entry = self._entries.get(candidate.provider)
        if entry is None:
            return True
        if entry.busy or now < entry.left + self.config.least_pause_s:
            return False
        return now >= entry.not_before or candidate.sequence > entry.sequence

    def asked(self, lease: LeaseId, candidate: Candidate) -> None:
        """A request went out."""
        self._leases[lease] = candidate.provider
        self._entries.pop(candidate.provider, None)  # the dict's order is that of asking
        self._entries[candidate.provider] = _Entry(_State.ASKED, candidate.sequence)
        if len(self._entries) > self.config.max_remembered:
            idle = next((peer for peer, entry in self._entries.items() if not entry.busy), None)
            if idle is not None:
                del self._entries[idle]

    def granted(self, lease: LeaseId, now: float) -> None:
        """The provider gave the lease."""
        if lease in self._leases:
            self._granted[lease] = now

    def unseen(self, heard: Callable[[PeerId], float]) -> dict[PeerId, int]:
        """How many leases, asked for or standing, each provider's signal cannot count yet. heard: when that signal
        arrived."""
        counts: dict[PeerId, int] = {}
        for lease, provider in self._leases.items():
            if heard(provider) < self._granted.get(lease, math.inf):
                counts[provider] = counts.get(provider, 0) + 1
        return counts

    def active(self, lease: LeaseId) -> None:
        """The lease's worker runs."""
        provider = self._leases.get(lease)
        if provider is not None:
            self._entries[provider].state = _State.HIRED

    def refused(self, lease: LeaseId, reason: str, retry_after_s: float | None, now: float) -> None:
        """The provider declined."""
        pause = self.config.decline_pause_s if retry_after_s is None else retry_after_s
        self._leave(lease, _State.DECLINED, reason, pause, now)

    def ended(self, lease: LeaseId, reason: str, now: float) -> None:
        """A granted lease is over."""
        self._leave(lease, _State.IDLE, reason, self.config.lost_pause_s, now)

    def _leave(self, lease: LeaseId, state: _State, reason: str, pause_s: float, now: float) -> None:
        provider = self._leases.pop(lease, None)
        self._granted.pop(lease, None)
        if provider is not None:
            entry = self._entries[provider]
            entry.state, entry.reason = state, reason
            entry.left, entry.not_before = now, now + pause_s

    def provider(self, lease: LeaseId) -> PeerId | None:
        """Who gives this lease, while it is asked for or stands."""
        return self._leases.get(lease)

    def providers(self) -> tuple[PeerId, ...]:
        """Whose leases are asked for or stand."""
        return tuple(self._leases.values())

    def leases(self) -> tuple[LeaseId, ...]:
        """Every lease asked for or standing."""
        return tuple(self._leases)

    def refusals(self) -> tuple[tuple[PeerId, str], ...]:
        """Providers that declined or were lost, with the last reason of each."""
        return tuple((peer, entry.reason) for peer, entry in self._entries.items() if entry.reason)
