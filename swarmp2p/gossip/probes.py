"""Probes: a pool of fresh answers about load, as in Prequal.

After "Load is not what you should balance" (Wydrowski, Kleinberg, Rumble and Archer, NSDI 2024): each request sends a
few probes to random providers without waiting for them; requests are placed by the answers that are there. One is
hot that has more requests in flight than most of the pool, and cold otherwise; the cold one with the lowest latency
is taken, or, when all are hot, the one with the fewest requests in flight.

Adaptive with one probe that is waited for (`reconsider`) does better with fewer (simulations/load_balance.py); this
pool serves those that cannot wait, and get no signals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import UsageError
from ..identity import PeerId


@dataclass(frozen=True, slots=True)
class ProbesConfig:
    """Tuning, Prequal's values where it has them.

    size: answers kept; the oldest goes when one more comes. hot_quantile: of requests in flight in the pool, beyond
    which one is hot. uses: how often one answer is used. max_age_s: how long.
    """

    size: int = 16
    hot_quantile: float = 0.84
    uses: int = 2
    max_age_s: float = 1.0

    def __post_init__(self) -> None:
        """Raises UsageError for values that make no sense."""
        if not (
            self.size > 0 and 0 <= self.hot_quantile <= 1 and self.uses > 0 and 0 < self.max_age_s < math.inf
        ):
            raise UsageError(f"sizes, uses and ages are positive, a quantile is 0 to 1; got {self}")


@dataclass(slots=True)
class _Answer:
    in_flight: int
    latency_s: float
    at: float
    uses_left: int


class Probes:
    """The pool. One answer a provider, the newest."""

    def __init__(self, config: ProbesConfig | None = None) -> None:
        self._config = config or ProbesConfig()
        self._answers: dict[PeerId, _Answer] = {}  # oldest first
        self._worst_next = False

    def __len__(self) -> int:
        return len(self._answers)

    def add(self, provider: PeerId, in_flight: int, latency_s: float, now: float) -> None:
        """Take an answer. latency_s: what a request takes there now, in seconds."""
        self._answers.pop(provider, None)
        self._answers[provider] = _Answer(in_flight, latency_s, now, self._config.uses)
        while len(self._answers) > self._config.size:
            del self._answers[next(iter(self._answers))]

    def take(self, now: float) -> PeerId | None:
        """The best provider of the pool, counted as used and as having one request more; None when too few answers
        are left to compare: choose otherwise."""
        for provider in [p for p, a in self._answers.items() if now - a.at > self._config.max_age_s]:
            del self._answers[provider]
        if len(self._answers) < 2:
            return None
        loads = sorted(answer.in_flight for answer in self._answers.values())
        # The boundary itself is cold, or else a pool of equals would be all hot.
        boundary = loads[min(len(loads) - 1, int(self._config.hot_quantile * len(loads)))]
        provider = min(self._answers, key=lambda each: self._rank(each, boundary))
        answer = self._answers[provider]
        answer.uses_left -= 1
        answer.in_flight += 1
        if answer.uses_left <= 0:
            del self._answers[provider]
        return provider

    def wither(self) -> None:
        """Remove one answer, in turn the oldest and the worst: the good ones are used, and a pool of what is left
        would get worse and worse."""
        if self._answers:
            provider = next(iter(self._answers))
            if self._worst_next:
                loads = sorted(answer.in_flight for answer in self._answers.values())
                boundary = loads[min(len(loads) - 1, int(self._config.hot_quantile * len(loads)))]
                provider = max(self._answers, key=lambda each: self._rank(each, boundary))
            del self._answers[provider]
            self._worst_next = not self._worst_next

    def _rank(self, provider: PeerId, boundary: int) -> tuple[bool, float]:
        """Lower is better: cold by latency, then hot by requests in flight."""
        answer = self._answers[provider]
        hot = answer.in_flight > boundary
        return hot, answer.in_flight if hot else answer.latency_s
