"""LoadTable: the newest signal of each provider.

A last-writer-wins set. Which signal of a provider stands depends on the signals alone, not on the order or
number of their arrivals: the highest sequence wins, and where a provider signed two signals with one
sequence, the one whose bytes are greater. What arrival adds (age, suspicion) is each observer's own.

Suspicion. A provider that is silent for longer than its own rhythm explains (suspicion.py) is doubted, once, until it
is heard of again; whoever keeps the table finds out more, and says `suspect` or `alive`. A provider that promises no
heartbeat is not doubted before its second signal: nothing is known of it, and expiry decides.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random

from ..identity import PeerId
from ..settings import check_settings
from .crowd import Crowd
from .events import GossipMessage
from .load_signal import LoadSignal, encode_signal
from .suspicion import Rhythm, SuspicionConfig, deviations


@dataclass(frozen=True, slots=True)
class TableConfig:
    """Bounds and times of a load table.

    max_providers: entries; when there are more, those stay whose id has the smallest hash under a key that nobody else
        knows. So they are a fair sample of all, whoever comes first: identities cost nothing, and who makes many can
        make the sample thinner by their share, but cannot choose whom it leaves out.
    max_ttl_s: signals that expire later than that from now are refused. clock_error_s: how far providers'
        clocks may be off; signals live that much longer than they say.
    suspicion: when silence is doubted.
    """

    max_providers: int = 10_000
    max_ttl_s: float = 600.0
    clock_error_s: float = 30.0
    suspicion: SuspicionConfig = field(default_factory=SuspicionConfig)

    def __post_init__(self) -> None:
        check_settings(self, ("max_ttl_s",))


@dataclass(frozen=True, slots=True)
class LoadEntry:
    """What is known of one provider.

    arrived: when the signal did, in seconds as `now`. interval_s: within what its next one is due, 0 for unknown.
    suspected: silent for too long. message: the signed message that the signal came in.
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

    __slots__ = (
        "_alarms",
        "_config",
        "_crowd",
        "_entries",
        "_far",
        "_rhythms",
        "_ticket",
        "_wake_at",
        "refused",
    )

    def __init__(self, config: TableConfig | None = None, rng: Random | None = None) -> None:
        """rng: for the key, drawn when the table is full for the first time. Without it, others may know the key."""
        self._config = config or TableConfig()
        self._crowd = Crowd(rng or Random(0))
        self._entries: dict[PeerId, LoadEntry] = {}
        self._rhythms: dict[PeerId, Rhythm] = {}  # of the same providers
        self._far = deviations(self._config.suspicion.threshold)
        self.refused = 0
        """Signals of providers for which the table had no room, or which took somebody's place."""
        # One alarm per provider at the time it may next change state; those that `_wake_at` no longer names
        # are void. An update leaves its alarm alone unless the new time is earlier, so that most cost nothing
        # here.
        self._alarms: list[tuple[float, int, PeerId]] = []
        self._wake_at: dict[PeerId, float] = {}
        self._ticket = 0

    def __repr__(self) -> str:
        return f"<LoadTable of {len(self)} providers>"

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[LoadEntry]:
        return iter(list(self._entries.values()))

    def __contains__(self, provider: object) -> bool:
        return provider in self._entries

    def get(self, provider: PeerId) -> LoadEntry | None:
        """A provider's entry."""
        return self._entries.get(provider)

    def in_time(self, signal: LoadSignal, now: float) -> bool:
        """Whether a signal has not expired, and will before long."""
        config = self._config
        return now < signal.expires + config.clock_error_s and (
            signal.expires <= now + config.max_ttl_s + config.clock_error_s
        )

    def wants(self, provider: PeerId, signal: LoadSignal, now: float) -> bool:
        """Whether a signal would change the table: in time, and newer than what stands."""
        if not self.in_time(signal, now):
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
        return self.wants(provider, signal, now) and self.put(provider, signal, now, message)

    def put(
        self, provider: PeerId, signal: LoadSignal, now: float, message: GossipMessage | None = None
    ) -> bool:
        """The same for a signal that the table `wants`; False when there is no room."""
        rhythm = self._rhythms.get(provider)
        if rhythm is not None:
            rhythm.signal(now, signal.heartbeat_s, self._config.suspicion)
        else:
            if len(self._entries) >= self._config.max_providers:
                self.refused += 1
                leaves = self._crowd.leaves(self._entries.keys(), provider)
                if leaves == provider:
                    return False
                self.forget(leaves)
            self._crowd.joins(provider)
            rhythm = self._rhythms[provider] = Rhythm(now, signal.heartbeat_s)
        entry = self._entries[provider] = LoadEntry(provider, signal, now, rhythm.promise_s, False, message)
        self._watch(entry)
        return True

    def advance(self, now: float, patience: float = 1.0) -> list[PeerId]:
        """Providers whose silence is in doubt now, those whose signal expires unsuspected among them. The expired are
        removed.

        patience: limits are that much longer at this moment, at least 1.
        """
        doubted: list[PeerId] = []
        while self._alarms and self._alarms[0][0] <= now:
            at, _, provider = heapq.heappop(self._alarms)
            if self._wake_at.get(provider) != at:
                continue
            del self._wake_at[provider]
            entry, rhythm = self._entries[provider], self._rhythms[provider]
            if self._next_change(entry, patience) <= now:
                if not entry.suspected:
                    doubted.append(provider)
                if self._expiry(entry) <= now:
                    del self._entries[provider], self._rhythms[provider]
                    continue
                rhythm.doubted = True
            self._set_alarm(provider, self._next_change(entry, patience))
        return doubted

    def suspect(self, provider: PeerId) -> bool:
        """Its silence is no accident. False when it was suspected already, is not known any more, or was heard of
        since it was doubted."""
        entry = self._entries.get(provider)
        if entry is None or entry.suspected or not self._rhythms[provider].doubted:
            return False
        self._entries[provider] = replace(entry, suspected=True)
        return True

    def alive(self, provider: PeerId, now: float) -> None:
        """It showed that it lives, though not by a signal: its silence counts from now on. Once suspected, it stays so
        until its next signal."""
        entry = self._entries.get(provider)
        if entry is not None and not entry.suspected:
            rhythm = self._rhythms[provider]
            rhythm.heard, rhythm.doubted = now, False
            self._watch(entry)

    def phi(self, provider: PeerId, now: float) -> float:
        """How suspicious a provider's silence is: -log10 of the chance that it is one; 0 for not known."""
        rhythm = self._rhythms.get(provider)
        return rhythm.phi(now, self._config.suspicion) if rhythm is not None else 0.0

    def forget(self, provider: PeerId) -> None:
        """Drop an entry without a word: this node no longer hears that provider, and its silence means nothing."""
        if self._entries.pop(provider, None) is not None:
            del self._rhythms[provider]
            self._wake_at.pop(provider, None)

    @property
    def pending_alarms(self) -> int:
        """Alarms set, void ones included; for checks that they do not pile up."""
        return len(self._alarms)

    def deadline(self) -> float:
        """When `advance` is next wanted; math.inf for never. May turn out to have been early."""
        return self._alarms[0][0] if self._alarms else math.inf

    def _expiry(self, entry: LoadEntry) -> float:
        return entry.signal.expires + self._config.clock_error_s

    def _next_change(self, entry: LoadEntry, patience: float = 1.0) -> float:
        expiry, rhythm = self._expiry(entry), self._rhythms[entry.provider]
        if entry.suspected or rhythm.doubted:
            return expiry
        return min(expiry, rhythm.heard + patience * rhythm.limit_s(self._config.suspicion, self._far))

    def _watch(self, entry: LoadEntry) -> None:
        due = self._next_change(entry)
        if due < self._wake_at.get(entry.provider, math.inf):
            self._set_alarm(entry.provider, due)

    def _set_alarm(self, provider: PeerId, at: float) -> None:
        self._wake_at[provider] = at
        self._ticket += 1
        heapq.heappush(self._alarms, (at, self._ticket, provider))
        if len(self._alarms) > 2 * len(self._wake_at) + 64:  # void ones pile up only if somebody tries to
            self._alarms = [alarm for alarm in self._alarms if self._wake_at.get(alarm[2]) == alarm[0]]
            heapq.heapify(self._alarms)
