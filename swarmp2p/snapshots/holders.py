"""Which peers have a borrower's snapshot, and who is asked to next. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Final

from ..identity import PeerId

MOST_HOLDERS: Final = 16
_MOST_KNOWN: Final = 256
_AGAIN_S: Final = 60.0
"""After which one that refused or did not answer is asked again, doubled each time up to sixteen times that."""


class Holders:
    """wanted: how many are to have it. Who is asked first is up to chance, so that many borrowers share holders."""

    def __init__(self, wanted: int, rng: random.Random) -> None:
        self.wanted = wanted
        self._rng = rng
        self._known: dict[PeerId, None] = {}
        self._not_before: dict[PeerId, tuple[float, float]] = {}  # when, and how long it was last
        self.have: dict[PeerId, int] = {}
        """By peer, the sequence of what it has."""

    def found(self, peers: Iterable[PeerId]) -> None:
        """Those that take snapshots; the last 256 of them count."""
        for peer in peers:
            self._known.pop(peer, None)
            self._known[peer] = None
            if len(self._known) > _MOST_KNOWN:
                first = next(iter(self._known))
                del self._known[first]
                self._not_before.pop(first, None)

    @property
    def known(self) -> tuple[PeerId, ...]:
        """All that were found."""
        return tuple(self._known)

    def missing(self) -> int:
        """How many more are to have it."""
        return max(0, self.wanted - len(self.have))

    def next(self, now: float) -> tuple[PeerId, ...]:
        """Whom to ask, as many as are missing; fewer when there is nobody."""
        free = [
            peer
            for peer in self._known
            if peer not in self.have and self._not_before.get(peer, (now, 0.0))[0] <= now
        ]
        return tuple(self._rng.sample(free, min(self.missing(), len(free))))

    def kept(self, peer: PeerId, sequence: int) -> bool:
        """It has this one now. Whether it had none before."""
        new = peer not in self.have
        self.have[peer] = sequence
        self._not_before.pop(peer, None)
        return new

    def failed(self, peer: PeerId, now: float) -> bool:
        """It refused, or did not answer: another takes its place. Whether it had one before."""
        wait_s = min(max(_AGAIN_S, 2 * self._not_before.get(peer, (0.0, 0.0))[1]), 16 * _AGAIN_S)
        if peer in self._known:
            self._not_before[peer] = now + wait_s, wait_s
        return self.have.pop(peer, None) is not None
