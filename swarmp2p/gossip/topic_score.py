"""What one peer earned, and pays for, in one topic: P1 to P4 of the peer score (gossipsub 1.1, "Peer Scoring")."""

from __future__ import annotations

import math

from .score_config import ScoreConfig, TopicScoreConfig


class TopicScore:
    """Counters of one peer in one scored topic.

    outside --joined--> mesh, P1 grows --delivery_activation_s--> P3 counts --left--> outside, P3b of the deficit
    """

    __slots__ = (
        "_config",
        "_deliveries",
        "_failures",
        "_first",
        "_grafted_at",
        "_invalid",
        "_step",
        "_updated",
        "_zero",
    )

    def __init__(self, config: TopicScoreConfig, score: ScoreConfig, now: float) -> None:
        self._config, self._zero, self._step = config, score.decay_to_zero, score.decay_interval_s
        self._first = self._deliveries = self._failures = self._invalid = 0.0
        self._grafted_at = math.inf  # outside of the mesh
        self._updated = now

    @property
    def in_mesh(self) -> bool:
        """Whether the peer is in the topic's mesh."""
        return self._grafted_at != math.inf

    @property
    def blank(self) -> bool:
        """Whether there is nothing to remember."""
        return not (self._first or self._failures or self._invalid or self.in_mesh)

    def joined(self, now: float) -> None:
        """It was taken into the mesh."""
        self._decay(now)
        self._grafted_at, self._deliveries = now, 0.0

    def left(self, now: float, failed: bool) -> None:
        """It is in the mesh no more. failed: neither because of us nor by chance; what it fell short of stays (P3b)."""
        if not self.in_mesh:
            return
        self._decay(now)
        if failed:
            self._failures += self._deficit(now) ** 2
        self._grafted_at, self._deliveries = math.inf, 0.0

    def delivered_first(self, now: float) -> None:
        """It brought a valid message before anybody else (P2); from within the mesh that is a delivery (P3)."""
        self._decay(now)
        self._first = min(self._first + 1.0, self._config.first_cap)
        self.delivered(now)

    def delivered(self, now: float) -> None:
        """It brought a valid message in time."""
        if self.in_mesh:
            self._decay(now)
            self._deliveries = min(self._deliveries + 1.0, self._config.delivery_cap)

    def sent_invalid(self, now: float) -> None:
        """It sent an invalid message (P4)."""
        self._decay(now)
        self._invalid += 1.0

    def without_rewards(self) -> None:
        """Forget what counts for the peer."""
        self._first = 0.0

    def good(self, now: float) -> float:
        """P1 and P2, weighted; 0 or above."""
        config = self._config
        self._decay(now)
        value = config.first_weight * self._first
        if self.in_mesh and config.mesh_time_weight:
            quanta = (now - self._grafted_at) // config.mesh_time_quantum_s
            value += config.mesh_time_weight * min(quanta, config.mesh_time_cap)
        return config.topic_weight * value

    def bad(self, now: float) -> float:
        """P3, P3b and P4, weighted; 0 or below."""
        config = self._config
        self._decay(now)
        value = config.failure_weight * self._failures + config.invalid_weight * self._invalid**2
        if config.delivery_weight and self.in_mesh:
            value += config.delivery_weight * self._deficit(now) ** 2
        return config.topic_weight * value

    def may_turn_bad(self) -> bool:
        """Whether `bad` may come to be below 0 by the passing of time, or is."""
        expected = self.in_mesh and self._config.delivery_weight != 0
        return bool(expected or self._failures or self._invalid)

    def _deficit(self, now: float) -> float:
        config = self._config
        if now <= self._grafted_at + config.delivery_activation_s:
            return 0.0
        return max(0.0, config.delivery_threshold - self._deliveries)

    def _decay(self, now: float) -> None:
        passed = now - self._updated
        if passed < self._step or passed <= 0:
            return
        self._updated = now
        config, zero = self._config, self._zero
        self._first = decayed(self._first, passed, config.first_decay_s, zero)
        self._deliveries = decayed(self._deliveries, passed, config.delivery_decay_s, zero)
        self._failures = decayed(self._failures, passed, config.failure_decay_s, zero)
        self._invalid = decayed(self._invalid, passed, config.invalid_decay_s, zero)


def decayed(count: float, passed_s: float, decay_s: float, zero: float) -> float:
    """What is left of a counter: one of 1 is at `zero` after `decay_s`, and below that nothing is left."""
    if count:
        count *= zero ** (passed_s / decay_s)
        if count < zero:
            return 0.0
    return count
