"""What happens to a cluster's leases and to its head, as its owner sees it: a log that can be read from its beginning
and followed."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

import trio

from ..identity import PeerId

_MAX_EVENTS: Final = 1024


class ClusterEventKind(Enum):
    """What happened to a lease, or to the head."""

    FOUND = "found"
    ASKED = "asked"
    QUEUED = "queued"
    GRANTED = "granted"
    ACTIVE = "active"
    REFUSED = "refused"
    DRAINED = "drained"
    ENDED = "ended"
    HEAD_RESTARTED = "head restarted"
    SNAPSHOT = "snapshot"
    RESTORED = "restored"
    PACKAGES = "packages"


@dataclass(frozen=True, slots=True)
class ClusterEvent:
    """One change. at: seconds as the peer's clock. reason: why, for REFUSED, DRAINED and ENDED; load for FOUND; path,
    and why it was taken, for ACTIVE; place in its lender's queue, for QUEUED. DRAINED: its worker gets no more work,
    for it is about to go. HEAD_RESTARTED: peer is the borrower; reason says what had happened, and what drivers have to
    do. SNAPSHOT: who holds the cluster's snapshots, or, of the borrower, why there is none. RESTORED: whose it was.
    PACKAGES: a package index of the borrower's that workers cannot use, and what helps."""

    at: float
    kind: ClusterEventKind
    peer: PeerId
    reason: str = ""


class ClusterEvents(AsyncIterable[ClusterEvent]):
    """A cluster's events, from their beginning for each who iterates; calling it gives the iterator itself."""

    def __init__(self, stream: Callable[[], AsyncGenerator[ClusterEvent, None]]) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncGenerator[ClusterEvent, None]:
        return self._stream()

    def __call__(self) -> AsyncGenerator[ClusterEvent, None]:
        return self._stream()


class ClusterLog:
    """The last 1,024 events. now: seconds as the peer's clock."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._kept: deque[ClusterEvent] = deque(maxlen=_MAX_EVENTS)
        self._recorded = 0
        self._closed = False
        self._news = trio.Event()

    @property
    def past(self) -> tuple[ClusterEvent, ...]:
        """What is kept of the events so far."""
        return tuple(self._kept)

    @property
    def events(self) -> ClusterEvents:
        """What is kept, then each as it happens, until the log is closed."""
        return ClusterEvents(self._follow)

    def record(self, kind: ClusterEventKind, peer: PeerId, reason: str = "") -> None:
        """Something happened, now."""
        self._kept.append(ClusterEvent(self._now(), kind, peer, reason))
        self._recorded += 1
        self._wake()

    def close(self) -> None:
        """Nothing more happens: those who follow come to the end."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _follow(self) -> AsyncGenerator[ClusterEvent, None]:
        position = 0
        while True:
            position = max(position, self._recorded - len(self._kept))
            while position < self._recorded:
                event = self._kept[position - (self._recorded - len(self._kept))]
                position += 1
                yield event
            if self._closed:
                return
            await self._news.wait()
