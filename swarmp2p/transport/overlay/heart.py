"""When a partner counts as silent: heartbeats, round-trip times, and time that this process did not run.

Every byte of a carrier connection that has proven itself is a sign of life, so that heartbeats which wait
behind bulk accuse nobody. A side that runs sends a heartbeat each `heartbeat_s`; it carries the sender's clock
and echoes the other's with the time it was held, so both sides measure the round trip; the handshake gives the first.
The smallest of the last 10 to 20 s counts: what queues add is no reason to wait longer, and the limit's constant covers
jitter.

Time in which this process did not run (stopped, starved, asleep) is not held against the partner: whoever runs
the session comes by each `heartbeat_s`, with a carrier connection or without, and what a gap exceeds that by is
added to the last sign of life.
"""

from __future__ import annotations

from .config import SessionConfig
from .frames import Heart

_WINDOW_S = 10.0
# A partner that holds our echoes back makes itself found silent later, but not by more than three times this.
_RTT_MOST_S = 3.0
# A record that never ends is no sign of life: the largest takes this long at 10 kB/s.
_RECORD_S = 30.0


class Pulse:
    """Signs of life of one partner, and our own heartbeats.

    due: when our next heartbeat goes out.
    """

    __slots__ = ("_at", "_config", "_echo", "_echo_at", "_fresh", "_life", "_old", "_ran", "_record", "due")

    def __init__(self, now: float, config: SessionConfig) -> None:
        self._config = config
        self._life = self._ran = self._at = self._record = now
        self._echo = 0
        self._echo_at = now
        self._fresh = self._old = _RTT_MOST_S
        self.due = now

    @property
    def rtt_s(self) -> float:
        """The smallest round-trip time of the last 10 to 20 s; 3 s before the first."""
        return min(self._fresh, self._old)

    @property
    def silent_at(self) -> float:
        return self._life + self._config.silence_s + self._config.silence_rtts * self.rtt_s

    def silence_s(self, now: float) -> float:
        """How long the last sign of life is ago."""
        return now - self._life

    def ran(self, now: float) -> None:
        """This process runs at `now`."""
        gap = now - self._ran
        self._ran = now
        if gap > 2 * self._config.heartbeat_s:
            self._life = min(now, self._life + gap - self._config.heartbeat_s)

    def bytes_came(self, now: float) -> None:
        if now - self._record < _RECORD_S:
            self._life = now

    def record_came(self, now: float) -> None:
        self._life = self._record = now

    def begin(self, rtt_s: float, now: float) -> None:
        """A carrier connection has proven itself, which took a round trip; what others measured is over."""
        self._at = now
        self._fresh, self._old = min(max(rtt_s, 0.0), _RTT_MOST_S), _RTT_MOST_S

    def measure(self, rtt_s: float, now: float) -> None:
        """One round trip was timed."""
        if now - self._at >= _WINDOW_S:
            self._at = now
            self._old, self._fresh = self._fresh, _RTT_MOST_S
        self._fresh = min(self._fresh, max(rtt_s, 0.0))

    def heart(self, now: float) -> Heart:
        """Our heartbeat now."""
        self.due = now + self._config.heartbeat_s
        held = int((now - self._echo_at) * 1e6) if self._echo else 0
        return Heart(int(now * 1e6) + 1, self._echo, held)

    def heart_came(self, heart: Heart, now: float) -> None:
        if heart.echoed:
            self.measure((int(now * 1e6) + 1 - heart.echoed - heart.held) / 1e6, now)
        self._echo, self._echo_at = heart.sent, now
