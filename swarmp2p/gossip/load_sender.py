"""When a provider tells how loaded it is: on change, not too often, and now and then anyway.

    set() ---change beyond a threshold---> due, `interval_s` after the last signal at the earliest
          ---no such change--------------> due `heartbeat_s` after the last signal

What was set last is what is sent; what was set in between is skipped. The first signal is due at once. Each signal
says by when the next one comes, so that observers know how long a silence means nothing.

A topic's members share a budget of signals a second, so that what each of them carries does not grow with their
number: the more there are, the rarer each one's signals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from ..errors import UsageError
from ..settings import check_settings
from .load_signal import LoadSignal


@dataclass(frozen=True, slots=True)
class SenderConfig:
    """When signals are sent.

    relative: a change of cpus_free, memory_free_bytes, gpus_free, latency_s or in_flight counts when it is larger than
        this share of the larger of both values; for in_flight one request is enough below 1 / relative. Changes of
        leases, kind, region and speed always count, those of coordinate and served never.
    min_interval_s: seconds between two signals at least.
    heartbeat_s: seconds between two signals at most; a little less each time, by chance, so that providers which
        started together drift apart.
    topic_rate: signals a second of all members of a topic together: with n members, each waits n / topic_rate between
        two signals. 30 of 340 bytes, each received about six times (mesh of 6), are 60 kB/s a member.
    ttl_s: life of a signal.
    """

    relative: float = 0.1
    min_interval_s: float = 0.5
    heartbeat_s: float = 5.0
    topic_rate: float = 30.0
    ttl_s: float = 60.0

    def __post_init__(self) -> None:
        check_settings(self)
        if not (
            0 <= self.relative < 1
            and 0 < self.min_interval_s <= self.heartbeat_s < self.ttl_s
            and self.topic_rate > 0
        ):
            raise UsageError(
                "load signals need 0 <= relative < 1, 0 < min_interval_s <= heartbeat_s < ttl_s and a topic_rate "
                f"above 0; got {self}"
            )


_JITTER: Final = 0.1
_ALWAYS: Final = ("leases", "kind", "region", "speed")
_RELATIVE: Final = ("in_flight", "cpus_free", "gpus_free", "memory_free_bytes", "latency_s")


def differs(old: LoadSignal, new: LoadSignal, relative: float) -> bool:
    """Whether the change from one to the other is worth a signal; SenderConfig says when."""
    if any(getattr(old, name) != getattr(new, name) for name in _ALWAYS):
        return True
    for name in _RELATIVE:
        before, after = getattr(old, name), getattr(new, name)
        if before != after and abs(after - before) > relative * max(before, after):
            return True
    return False


class LoadSender:
    """Holds what the provider said last, and when it is to be sent."""

    __slots__ = ("_config", "_heartbeat_at", "_interval_s", "_rng", "_sent", "_sent_at", "_set")

    def __init__(self, rng: Random, config: SenderConfig) -> None:
        self._rng, self._config = rng, config
        self._set: LoadSignal | None = None
        self._sent: LoadSignal | None = None
        self._sent_at = self._heartbeat_at = -math.inf
        self._interval_s = config.min_interval_s

    @property
    def active(self) -> bool:
        """Whether this is a provider now."""
        return self._set is not None

    def set(self, signal: LoadSignal | None) -> None:
        """What is to be said from now on; None for nothing."""
        self._set = signal

    def current(self) -> LoadSignal | None:
        """What was set last, with its heartbeat_s filled in; does not count as sent. The next one is due within that
        of the last one sent, and so of now."""
        return None if self._set is None else replace(self._set, heartbeat_s=self._heartbeat_s())

    def share(self, members: int) -> None:
        """How many signal in the same topic, this one among them."""
        self._interval_s = max(self._config.min_interval_s, members / self._config.topic_rate)

    def due(self, now: float) -> LoadSignal | None:
        """The signal to be sent now, with its heartbeat_s filled in; counts as sent."""
        signal = self._set
        if signal is None or now < self.deadline():
            return None
        heartbeat_s = self._heartbeat_s()
        self._sent, self._sent_at = signal, now
        self._heartbeat_at = now + heartbeat_s * (1 - _JITTER * self._rng.random())
        return replace(signal, heartbeat_s=heartbeat_s)

    def _heartbeat_s(self) -> float:
        # The longest that `_interval_s` has us wait is half a life: a topic that large is about to be split.
        return min(max(self._config.heartbeat_s, self._interval_s), self._config.ttl_s / 2)

    def deadline(self) -> float:
        """When something is due; math.inf for never."""
        if self._set is None:
            return math.inf
        if self._sent is None or differs(self._sent, self._set, self._config.relative):
            return min(self._sent_at + self._interval_s, self._heartbeat_at)
        return self._heartbeat_at
