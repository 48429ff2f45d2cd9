"""Whom to ask for the next worker: the borrower's side of hiring, as a pure table.

    idle --asked()--> busy (leases asked for or standing) --ended--> idle (after a pause)
                        '--refused--> declined --(record renewed, or pause over)--> idle

Workers are spread over providers: one that gives this cluster a worker already is asked for another when nobody else
could be asked for `share_after_s`, those with the fewest first. When that gives nothing, those that are full are asked
to let a request wait in their queues, `max_waiting` at a time: whoever has room first gets it, and the others are told.
A worker that is known to end soon (`ending`), or whose
lender does not answer (`silent`), counts as gone at once, so that another is there sooner.

A provider that declined is asked again when it publishes a newer service record (a lender does so when its
policy changes), when the time it named is over, or after `decline_pause_s`. One whose lease ended is left
alone for `lost_pause_s`: most often its machine is gone, while its record has not expired yet. Whatever a provider
says of itself, others come first for `least_pause_s`: one that praises itself, declines at once and asks to be asked
again would otherwise keep a cluster from ever asking anybody else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..identity import PeerId
from .events import LeaseId


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider that was found. sequence: its service record's; a newer one means that something changed. full: by
    its own signal it has no room now."""

    provider: PeerId
    sequence: int
    full: bool = False


@dataclass(frozen=True, slots=True)
class RecruitConfig:
    """Pauses in seconds: guesses, long enough not to pester, short enough for a person who waits.

    share_after_s: how long there must have been nobody new to ask; about what it takes to find who is there.
    max_each: workers of one provider. max_waiting: requests in queues of providers that are full. max_remembered:
    providers whose answers are remembered; beyond it those asked longest ago are forgotten.
    """

    decline_pause_s: float = 30.0
    lost_pause_s: float = 10.0
    least_pause_s: float = 1.0
    share_after_s: float = 0.5
    max_each: int = 64
    max_waiting: int = 8
    max_remembered: int = 1024


@dataclass(slots=True)
class _Entry:
    """leases: asked for or standing. left: when one was declined, or ended."""

    sequence: int = 0
    leases: int = 0
    not_before: float = -math.inf
    left: float = -math.inf
    reason: str = ""


@dataclass(slots=True)
class Recruiter:
    """Who was asked, hired and refused. wanted: how many workers the cluster is to have."""

    wanted: int
    config: RecruitConfig = field(default_factory=RecruitConfig)
    _entries: dict[PeerId, _Entry] = field(default_factory=dict)
    _leases: dict[LeaseId, PeerId] = field(default_factory=dict)
    _granted: dict[LeaseId, float] = field(default_factory=dict)  # when, of some of these
    _ending: dict[LeaseId, None] = field(default_factory=dict)  # some of these
    _silent: dict[LeaseId, None] = field(default_factory=dict)  # some of these
    _waiting: dict[LeaseId, None] = field(default_factory=dict)  # some of these
    _alone: float = math.inf  # since when there has been nobody new to ask

    def missing(self) -> int:
        """Workers still to be asked for: wanted, less those hired and those asked."""
        return self.wanted - len(self._leases) + len({**self._ending, **self._silent, **self._waiting})

    def surplus(self) -> int:
        """Workers asked for in place of those that seemed to be gone and are not."""
        return max(0, -self.missing())

    def next(self, candidates: Sequence[Candidate], now: float) -> PeerId | None:
        """The first of the candidates, best first, that may be asked now; None when there is none."""
        if self.missing() <= 0:
            self._alone = math.inf
            return None
        new = next((each.provider for each in candidates if not each.full and self.may_ask(each, now)), None)
        if new is not None:
            self._alone = math.inf
            return new
        self._alone = min(self._alone, now)
        if now < self.share_at():
            return None
        again = [each for each in candidates if self._may_share(each, now)]
        return min(again, key=lambda each: self._entries[each.provider].leases).provider if again else None

    def next_full(self, candidates: Sequence[Candidate], now: float) -> PeerId | None:
        """After `next` had nobody: one that is full, to be asked to let a request wait. None as long as somebody who
        gives a worker already may be asked for another, and while enough of them wait."""
        if self.missing() <= 0 or now < self.share_at() or len(self._waiting) >= self.config.max_waiting:
            return None
        return next((each.provider for each in candidates if each.full and self.may_ask(each, now)), None)

    def share_at(self) -> float:
        """When those that give workers already may be asked for more; infinity while others can be asked."""
        return self._alone + self.config.share_after_s

    def may_ask(self, candidate: Candidate, now: float) -> bool:
        """Whether a provider has no lease of this cluster's, nor declined or lost one just now."""
        entry = self._entries.get(candidate.provider)
        return entry is None or (entry.leases == 0 and self._rested(entry, candidate, now))

    def _may_share(self, candidate: Candidate, now: float) -> bool:
        """Whether one that gives this cluster workers may be asked for another."""
        entry = self._entries.get(candidate.provider)
        return (
            entry is not None
            and not candidate.full
            and 0 < entry.leases < self.config.max_each
            and self._rested(entry, candidate, now)
            and not any(
                self._leases[lease] == candidate.provider for lease in (*self._silent, *self._waiting)
            )
        )

    def _rested(self, entry: _Entry, candidate: Candidate, now: float) -> bool:
        if now < entry.left + self.config.least_pause_s:
            return False
        return now >= entry.not_before or candidate.sequence > entry.sequence

    def asked(self, lease: LeaseId, candidate: Candidate) -> None:
        """A request went out."""
        self._leases[lease] = candidate.provider
        entry = self._entries.pop(candidate.provider, None) or _Entry()
        self._entries[candidate.provider] = entry  # the dict's order is that of asking
        entry.sequence, entry.leases, entry.reason = candidate.sequence, entry.leases + 1, ""
        entry.not_before = -math.inf
        if len(self._entries) > self.config.max_remembered:
            idle = next((peer for peer, each in self._entries.items() if not each.leases), None)
            if idle is not None:
                del self._entries[idle]

    def granted(self, lease: LeaseId, now: float) -> bool:
        """The provider gave the lease. Whether it had to wait for it, so that others were asked meanwhile."""
        waited = lease in self._waiting
        if lease in self._leases:
            self._granted[lease] = now
            self._waiting.pop(lease, None)
        return waited

    def queued(self, lease: LeaseId, reason: str) -> None:
        """A request waits at its provider, which is full: others may still be asked."""
        provider = self._leases.get(lease)
        if provider is not None:
            self._waiting[lease] = None
            self._entries[provider].reason = reason

    def not_needed(self) -> tuple[LeaseId, ...]:
        """Requests that wait for nothing: all that are wanted are there, or on their way."""
        return tuple(self._waiting) if self.missing() <= 0 else ()

    def unseen(self, heard: Callable[[PeerId], float]) -> dict[PeerId, int]:
        """How many leases, asked for or standing, each provider's signal cannot count yet. heard: when that signal
        arrived."""
        counts: dict[PeerId, int] = {}
        for lease, provider in self._leases.items():
            if heard(provider) < self._granted.get(lease, math.inf):
                counts[provider] = counts.get(provider, 0) + 1
        return counts

    def refused(self, lease: LeaseId, reason: str, retry_after_s: float | None, now: float) -> None:
        """The provider declined."""
        pause = self.config.decline_pause_s if retry_after_s is None else retry_after_s
        self._leave(lease, reason, pause, now)

    def ending(self, lease: LeaseId, reason: str, until: float) -> None:
        """A lease will be over at `until`: it is to be replaced now, and not by the same provider."""
        provider = self._leases.get(lease)
        if provider is not None:
            self._ending[lease] = None
            entry = self._entries[provider]
            entry.reason, entry.not_before = reason, max(entry.not_before, until + self.config.lost_pause_s)

    def silent(self, lease: LeaseId, silent: bool) -> None:
        """A lease's provider does not answer, and may be gone: it is to be replaced now, unless it answers again."""
        if not silent:
            self._silent.pop(lease, None)
        elif lease in self._leases:
            self._silent[lease] = None

    def ended(self, lease: LeaseId, reason: str, now: float, given_back: bool = False) -> None:
        """A granted lease is over. given_back: because its worker was not needed, so that nothing speaks against its
        provider."""
        self._leave(lease, "" if given_back else reason, 0.0 if given_back else self.config.lost_pause_s, now)

    def unfit(self, provider: PeerId, reason: str) -> None:
        """A provider was found that is not even asked; remembered to be told."""
        if provider in self._entries or len(self._entries) < self.config.max_remembered:
            entry = self._entries.setdefault(provider, _Entry())
            if not entry.leases:
                entry.reason = reason

    def _leave(self, lease: LeaseId, reason: str, pause_s: float, now: float) -> None:
        provider = self._leases.pop(lease, None)
        self._granted.pop(lease, None)
        self._ending.pop(lease, None)
        self._silent.pop(lease, None)
        self._waiting.pop(lease, None)
        if provider is not None:
            entry = self._entries[provider]
            entry.leases, entry.reason = entry.leases - 1, reason
            entry.left, entry.not_before = now, max(now + pause_s, entry.not_before)

    def is_ending(self, lease: LeaseId) -> bool:
        """Whether it counts as gone."""
        return lease in self._ending or lease in self._silent or lease in self._waiting

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
