"""Releases that are said again: a lender that missed the first would keep a worker for nobody until its term is over.

A Release that ends a lease is answered by one, and one about a lease that does not stand by nothing, so that none can
go in circles. A borrower that hears no answer (it was lost, or its lender knew already, or is of a version that answers
none) says it a few times more, ever less often, and forgets it. A lender need not: what it says once it says again in
answer to the next renewal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..engine import Send
from ..identity import PeerId
from .events import LeaseId
from .lease_config import LeaseConfig
from .messages import Release, tidy


@dataclass(slots=True)
class _Farewell:
    """due: when it is said next; None until `tick` has said when. said: how often it was said again."""

    peer: PeerId
    message: Release
    due: float | None = None
    said: int = 0


class Farewells:
    """The latest ends that a lender may not know of, at most `max_taken`; beyond it the oldest is said no more."""

    def __init__(self, config: LeaseConfig) -> None:
        self._config = config
        self._left: dict[LeaseId, _Farewell] = {}

    def deadline(self) -> float:
        """When `tick` has something to do, which has been called since the last `add`."""
        return min((each.due for each in self._left.values() if each.due is not None), default=math.inf)

    def add(self, lease: LeaseId, peer: PeerId, reason: str) -> Send:
        """A lease is over. Returns its first Release."""
        message = Release(lease, tidy(reason))
        self._left[lease] = _Farewell(peer, message)
        if len(self._left) > self._config.max_taken:
            del self._left[next(iter(self._left))]
        return Send(peer, message)

    def heard(self, peer: PeerId, lease: LeaseId) -> None:
        """A lender says that a lease is over there."""
        left = self._left.get(lease)
        if left is not None and left.peer == peer:
            del self._left[lease]

    def tick(self, now: float) -> list[Send]:
        """Say again what is due: `retry_s` after the first time, and then after twice as long each time."""
        out: list[Send] = []
        for lease, each in list(self._left.items()):
            if each.due is not None:
                if each.due > now:
                    continue
                out.append(Send(each.peer, each.message))
                each.said += 1
            if each.said >= self._config.farewells:
                del self._left[lease]
            else:
                each.due = now + self._config.retry_s * 2**each.said
        return out
