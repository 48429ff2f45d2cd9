"""LoadTable: the newest signal of each provider.

A last-writer-wins set. Which signal of a provider stands depends on the signals alone, not on the order or
number of their arrivals: the highest sequence wins, and where a provider signed two signals with one
sequence, the one whose bytes are greater. What arrival adds (age, suspicion) is each observer's own.

Suspicion. A provider that is silent for `suspect_factor` times its usual interval between signals is
suspected, once, until its next signal. The usual interval is the longest seen lately: signals that are sent
on change come in bursts, and a burst must not make the pause after it look like a death. Before a second
signal nothing is known, and expiry decides.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..identity import PeerId
from .events import GossipMessage
from .load_signal import LoadSignal, encode_signal


@dataclass(frozen=True, slots=True)
class TableConfig:
    """Bounds and times of a load table.

    max_providers: entries; when full, new providers are refused until others expire, known ones still update.
    max_ttl_s: signals that expire later than that from now are refused. clock_error_s: how far providers'
        clocks may be off; signals live that much longer than they say.
    suspect_factor: intervals of silence before suspicion; 4 as memberlist's suspicion multiplier.
    suspect_min_s: never before that many seconds of silence; two heartbeats of gossip, in which a lost signal
        returns.
    interval_fades: the longest interval seen counts this much less with each further signal.
    """

    max_providers: int = 10_000
    max_ttl_s: float = 600.0
    clock_error_s: float = 30.0
    suspect_factor: float = 4.0
    suspect_min_s: float = 2.0
    interval_fades: float = 0.9


@dataclass(frozen=True, slots=True)
class LoadEntry:
    """What is known of one provider.

    arrived: when the signal did, in seconds as `now`. interval_s: usual time between its signals, 0 for
    unknown. suspected: silent for too long. message: the signed message that the signal came in.
    """

    provider: PeerId
    signal: LoadSignal
    arrived: float
    interval_s: float = 0.0
    suspected: bool = False
    message: GossipMessage | None = None

    def age(self, now: float) -> float:
        """Seconds since the signal arrived."""
        return now - self.arrived


class LoadTable:
    """Newest signal per provider; iterates over its LoadEntry values, in the order providers were first heard
    of.

    Kept in time with `advance(now)`, wanted at `deadline()`.
    """

    __slots__ = ("_alarms", "_config", "_entries", "_ticket", "_wake_at", "refused")

    def __init__(self, config: TableConfig | None = None) -> None:
        self._config = config or TableConfig()
        self._entries: dict[PeerId, LoadEntry] = {}
        self.refused = 0
        """Signals turned away because the table was full."""
        # One alarm per provider at the time it may next change state; those that `_wake_at` no longer names
        # are void. An update leaves its alarm alone unless the new time is earlier, so that most cost nothing
        # here.
        self._alarms: list[tuple[float, int, PeerId]] = []
        self._wake_at: dict[PeerId, float] = {}
        self._ticket = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[LoadEntry]:
        return iter(list(self._entries.values()))

    def __contains__(self, provider: object) -> bool:
        return provider in self._entries

    def get(self, provider: PeerId) -> LoadEntry | None:
        """A provider's entry."""
        return self._entries.get(provider)

    def wants(self, provider: PeerId, signal: LoadSignal, now: float) -> bool:
        """Whether a signal would change the table: in time, and newer than what stands."""
        config = self._config
        if not now < signal.expires + config.clock_error_s:
            return False
        if signal.expires > now + config.max_ttl_s + config.clock_error_s:
            return False
        entry = self._entries.get(provider)
        if entry is None:
            return True
        if signal.sequence != entry.signal.sequence:
            return signal.sequence > entry.signal.sequence
        return encode_signal(signal) > encode_signal(entry.signal)

    def offer(
        self, provider: PeerId, signal: LoadSignal, now: float, message: GossipMessage | None = None
    ) -> bool:
        """Take a signal whose signature was checked; False when it changes nothing."""
        if not self.wants(provider, signal, now):
            return False
        known = self._entries.get(provider)
        interval_s = 0.0
        if known is not None:
            interval_s = max(now - known.arrived, known.interval_s * self._config.interval_fades)
        elif len(self._entries) >= self._config.max_providers:
            self.refused += 1
            return False
        entry = self._entries[provider] = LoadEntry(provider, signal, now, interval_s, False, message)
        due = self._next_change(entry)
        if due < self._wake_at.get(provider, math.inf):
            self._set_alarm(provider, due)
        return True

    def advance(self, now: float) -> list[PeerId]:
        """Providers that fell under suspicion; those whose signal expired unsuspected count among them. The
        expired are removed."""
        suspected: list[PeerId] = []
        while self._alarms and self._alarms[0][0] <= now:
            at, _, provider = heapq.heappop(self._alarms)
            if self._wake_at.get(provider) != at:
                continue
            del self._wake_at[provider]
            entry = self._entries[provider]
            if self._next_change(entry) <= now:
                if not entry.suspected:
                    suspected.append(provider)
                if self._expiry(entry) <= now:
                    del self._entries[provider]
                    continue
                entry = self._entries[provider] = replace(entry, suspected=True)
            self._set_alarm(provider, self._next_change(entry))
        return suspected

    @property
    def pending_alarms(self) -> int:
        """Alarms set, void ones included; for checks that they do not pile up."""
        return len(self._alarms)

    def deadline(self) -> float:
        """When `advance` is next wanted; math.inf for never. May turn out to have been early."""
        return self._alarms[0][0] if self._alarms else math.inf

    def _expiry(self, entry: LoadEntry) -> float:
        return entry.signal.expires + self._config.clock_error_s

    def _next_change(self, entry: LoadEntry) -> float:
        expiry = self._expiry(entry)
        if entry.suspected or not entry.interval_s:
            return expiry
        config = self._config
        return min(
            expiry, entry.arrived + max(config.suspect_min_s, config.suspect_factor * entry.interval_s)
        )

    def _set_alarm(self, provider: PeerId, at: float) -> None:
        self._wake_at[provider] = at
        self._ticket += 1
        heapq.heappush(self._alarms, (at, self._ticket, provider))
        if len(self._alarms) > 2 * len(self._wake_at) + 64:  # void ones pile up only if somebody tries to
            self._alarms = [alarm for alarm in self._alarms if self._wake_at.get(alarm[2]) == alarm[0]]
            heapq.heapify(self._alarms)
