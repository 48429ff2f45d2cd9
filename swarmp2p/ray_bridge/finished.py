"""Leases that are over, and what to answer when somebody still talks about one, or about an unknown one."""

from __future__ import annotations

from typing import Final

from ..engine import Send
from ..identity import PeerId
from .events import LeaseId
from .lease_config import LeaseConfig
from .messages import Release, tidy

_UNKNOWN: Final = "this lease is not known here (any more)"


class Finished:
    """Remembers the last leases that ended, so that a late or repeated message cannot revive one.

    A message about a lease that does not stand is answered with Release, so that a side which was left behind
    (it missed the end, or the other restarted) ends too. A Release about one is never answered, and each peer gets
    only so many answers a second: there is nothing to play ping-pong with.
    """

    def __init__(self, config: LeaseConfig) -> None:
        self._config = config
        self._reasons: dict[LeaseId, tuple[PeerId, str]] = {}
        self._answers: dict[PeerId, tuple[float, int]] = {}  # start of the current second, answers in it

    def __contains__(self, lease: LeaseId) -> bool:
        return lease in self._reasons

    def add(self, lease: LeaseId, peer: PeerId, reason: str) -> None:
        """A lease or request with `peer` is over. Beyond `max_finished` the oldest is forgotten."""
        self._reasons[lease] = (peer, tidy(reason))
        if len(self._reasons) > self._config.max_finished:
            del self._reasons[next(iter(self._reasons))]

    def answer(self, sender: PeerId, lease: LeaseId, now: float) -> list[Send]:
        """What to send back for a message about a lease that does not stand: one Release, or nothing."""
        began, count = self._answers.pop(sender, (now, 0))
        if now - began >= 1.0:
            began, count = now, 0
        self._answers[sender] = (began, count + 1)
        if len(self._answers) > self._config.max_strangers:
            del self._answers[next(iter(self._answers))]
        if count >= self._config.strange_per_s:
            return []
        peer, reason = self._reasons.get(lease, (sender, _UNKNOWN))
        return [Send(sender, Release(lease, reason if peer == sender else _UNKNOWN))]
