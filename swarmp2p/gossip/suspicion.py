"""Suspicion: when a provider's silence says that it is gone, and when it only says that we are slow.

φ-accrual. Three functions go by that name: Hayashibara et al.'s ("The φ Accrual Failure Detector", 2004), the tail of a
normal distribution; Cassandra's, of an exponential one; and Akka's, a logistic approximation of the first. Here it
is the first: φ(t) = -log10 P(X > t), where X is normal, so that a threshold of φ is a time of silence in closed
form, the mean and 5.6 deviations for φ = 8.

What X is. Signals are sent on change, with a heartbeat that each signal states: "the next comes within h". So it is
not intervals that are normal, but by how much a promise is overrun (loss, gossip, delay): X = h + overrun, whose mean
and deviation are those of about the last `window` signals of that provider. Providers that promise nothing are taken
to promise the longest interval seen lately, and are believed less: bursts must not make the pause after them look like
a death.

Local health (Lifeguard; Dadgar, Phillips and Currey, 2018). A node that was stopped for a while wakes up late for its
own timers, with everybody's signals still waiting to be read: it must accuse nobody. It can see that, by how late it is
called after the deadline that it asked for; and that it hears nothing at all from anybody. Either holds accusations
for a while, and lateness makes it more patient for longer: as Lifeguard's local health multiplier, a score of 0 to
`max_score` that goes up with each and comes down by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from ..errors import UsageError
from ..settings import check_settings

_SQRT_2: Final = math.sqrt(2.0)
_FAR: Final = 30.0  # deviations, beyond which the tail is too small for a float


@dataclass(frozen=True, slots=True)
class SuspicionConfig:
    """When silence is suspicious. Times in seconds.

    threshold: φ. 8, as Akka's and Cassandra's: one false alarm in 10^8 signals, if all were as modelled.
    min_deviation_s: overruns deviate by that at least, as Akka's min-std-deviation. pause_s: overrun that is always
        accepted; one heartbeat of gossip, with which a lost signal comes back. unstated: least deviation where no
        heartbeat was stated, as a share of the interval. min_s: never before that much silence.
    window: signals that an average reaches back, exponentially weighted. interval_fades: the longest interval seen
        counts this much less with each further signal.
    late_s: a node called later than that after its deadline was stopped. hold_s: for so long at least it accuses
        nobody then; for as long as it was stopped, up to max_hold_s.
    quiet_s, quiet_gaps: hearing nothing for that many seconds, and that many times the longest gap of the last
        `heals_s` or so, means that the fault is here; after max_hold_s it does not matter any more whose it is. Where
        few peers say something, this never comes before a suspicion.
    max_score, heals_s: limits are multiplied by 1 + score; it goes up by 1 each time that the node was late, to
        Lifeguard's 8 at most, and down by 1 in so many seconds.
    fixed_s: a plain time-out instead of all this, to compare with. None: no.
    """

    threshold: float = 8.0
    min_deviation_s: float = 0.1
    pause_s: float = 1.0
    unstated: float = 0.5
    min_s: float = 2.0
    window: int = 16
    interval_fades: float = 0.9
    late_s: float = 0.25
    hold_s: float = 1.0
    max_hold_s: float = 10.0
    quiet_s: float = 0.5
    quiet_gaps: float = 8.0
    max_score: int = 8
    heals_s: float = 10.0
    fixed_s: float | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for what makes no sense."""
        check_settings(self)
        if not (
            0 < self.threshold <= 15
            and self.min_deviation_s > 0
            and self.window >= 1
            and 0 <= self.interval_fades <= 1
            and min(self.pause_s, self.unstated, self.min_s, self.late_s, self.hold_s, self.quiet_s) >= 0
            and self.max_hold_s >= self.hold_s
            and self.max_score >= 0 < self.heals_s
            and (self.fixed_s is None or self.fixed_s > 0)
        ):
            raise UsageError(
                "suspicion needs a threshold of φ above 0 and up to 15, times of at least 0, a deviation and a window "
                f"above 0, and max_hold_s of at least hold_s; got {self}"
            )


def phi(silence_s: float, mean_s: float, deviation_s: float) -> float:
    """-log10 of the chance that a normal interval is longer than the silence: 0.3 at the mean, 8 at 5.6 deviations."""
    far = (silence_s - mean_s) / deviation_s
    if far < _FAR:
        return -math.log10(0.5 * math.erfc(far / _SQRT_2))
    # The tail is density / far there, within 0.2 %.
    return far * far / 2 * math.log10(math.e) + math.log10(far * math.sqrt(2 * math.pi))


def deviations(threshold: float) -> float:
    """How many deviations beyond the mean φ reaches the threshold."""
    return -NormalDist().inv_cdf(10.0**-threshold)


class Rhythm:
    """One provider's signals: what it promised last, and how far it overruns its promises. Five numbers.

    heard: when it last showed that it lives, seconds as `now`. promise_s: within what its next signal is due; 0 for
    not known. doubted: its silence is being looked into.
    """

    __slots__ = ("_mean_s", "_stated", "_variance", "doubted", "heard", "promise_s")

    def __init__(self, now: float, stated_s: float) -> None:
        self.heard = now
        self.promise_s, self._stated = stated_s, stated_s > 0
        self._mean_s = self._variance = 0.0
        self.doubted = False

    def signal(self, now: float, stated_s: float, config: SuspicionConfig) -> None:
        """A newer signal came. stated_s: within what the next one comes, as it says; 0 when it does not."""
        interval_s = now - self.heard
        if self.promise_s > 0:
            # No more than another promise counts: to be away for long is to be silent, not to be slow.
            overrun_s = min(max(interval_s - self.promise_s, 0.0), self.promise_s)
            surprise_s = overrun_s - self._mean_s
            self._mean_s += surprise_s / config.window
            self._variance += (surprise_s * surprise_s - self._variance) / config.window
        self._stated = stated_s > 0
        self.promise_s = stated_s if self._stated else max(interval_s, self.promise_s * config.interval_fades)
        self.heard, self.doubted = now, False

    def normal(self, config: SuspicionConfig) -> tuple[float, float]:
        """Mean and deviation of the silence before its next signal."""
        least_s = config.min_deviation_s if self._stated else config.unstated * self.promise_s
        return (
            self.promise_s + config.pause_s + self._mean_s,
            max(math.sqrt(self._variance), least_s, config.min_deviation_s),
        )

    def phi(self, now: float, config: SuspicionConfig) -> float:
        """How suspicious its silence is; 0 while nothing is known."""
        return phi(now - self.heard, *self.normal(config)) if self.promise_s > 0 else 0.0

    def limit_s(self, config: SuspicionConfig, far: float) -> float:
        """The silence at which φ reaches the threshold; math.inf while nothing is known. far: `deviations` of it."""
        if self.promise_s <= 0:
            return math.inf
        if config.fixed_s is not None:
            return config.fixed_s
        mean_s, deviation_s = self.normal(config)
        return max(config.min_s, mean_s + far * deviation_s)


class LocalHealth:
    """Whether this node itself is slow or cut off; the module's docstring says how it knows."""

    __slots__ = ("_config", "_gap_s", "_heard", "_held_until", "_score", "_scored")

    def __init__(self, config: SuspicionConfig) -> None:
        self._config = config
        self._held_until = -math.inf
        self._heard = math.inf  # when anything was last heard; from the first time on
        self._gap_s = 0.0
        self._score, self._scored = 0.0, -math.inf

    def called(self, due: float, now: float) -> None:
        """The node is called; it had asked to be by `due`."""
        late_s = now - due
        if late_s > self._config.late_s and now != self._scored:  # counted once, whoever sees it
            self._score = min(self.score(now) + 1.0, float(self._config.max_score))
            self._scored = now
            self._hold(late_s, now)

    def heard(self, now: float) -> None:
        """Something came, from whomever."""
        gap_s = now - self._heard
        if gap_s > 0:  # what comes at once says nothing about gaps
            if self._is_quiet(gap_s):
                self._hold(gap_s, now)
                gap_s = (
                    self._config.quiet_gaps * self._gap_s
                )  # one that is our fault makes the next no usual one
            self._gap_s = max(gap_s, self._gap_s * (1.0 - min(gap_s / self._config.heals_s, 1.0)))
        self._heard = now

    def score(self, now: float) -> float:
        """0 for healthy, up to max_score."""
        return max(0.0, self._score - (now - self._scored) / self._config.heals_s) if self._score else 0.0

    def patience(self, now: float) -> float:
        """What limits are multiplied by."""
        return 1.0 if self._config.fixed_s is not None or not self._score else 1.0 + self.score(now)

    def held_until(self, now: float) -> float:
        """Nobody is accused before then."""
        config = self._config
        if config.fixed_s is not None:
            return -math.inf
        if self._is_quiet(now - self._heard) and now - self._heard < config.max_hold_s:
            return max(self._held_until, now + max(config.quiet_s, config.late_s))
        return self._held_until

    def _is_quiet(self, gap_s: float) -> bool:
        config = self._config
        return gap_s > config.quiet_s and gap_s > config.quiet_gaps * self._gap_s > 0

    def _hold(self, seconds: float, now: float) -> None:
        config = self._config
        until = now + min(max(config.hold_s, seconds), config.max_hold_s)
        self._held_until = max(self._held_until, until)
