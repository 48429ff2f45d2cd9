"""How long a peer may be silent: learnt from the round trips that were measured.

Two times matter. After the first a peer is late: that is unusual for it, and the next candidate is asked as well (a
hedged request; Dean & Barroso, "The Tail at Scale", 2013). After the second nobody waits for it any more. An answer
counts whenever it comes, so that both may be short: a guess that was wrong costs one more request.

    measured          late: mean + 2 variations, at least 1.25 means;  given up: mean + 4 variations (RFC 6298),
                      at least 2 means
    never measured    late: 1.25 times what nine of ten of the last round trips took;  given up: twice what
                      nineteen of twenty took

Peers that must be dialled first are taken like unmeasured ones, from the last dials.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import Final

from ..identity import PeerId

_MAX_PEERS: Final = 4_096
_RECENT: Final = 64
_FEW: Final = 8
"""So many samples make an estimate; until then each changes it much."""


class _Estimate:
    """A smoothed round trip and its variation, in seconds (RFC 6298 §2)."""

    __slots__ = ("mean_s", "variation_s")

    def __init__(self, sample_s: float) -> None:
        self.mean_s, self.variation_s = sample_s, sample_s / 2

    def add(self, sample_s: float) -> None:
        self.variation_s += (abs(self.mean_s - sample_s) - self.variation_s) / 4
        self.mean_s += (sample_s - self.mean_s) / 8

    def silence_s(self) -> tuple[float, float]:
        mean, variation = self.mean_s, self.variation_s
        return mean + max(2 * variation, mean / 4), mean + max(4 * variation, mean)


class _Recent:
    """The last 64 round trips to whomever."""

    __slots__ = ("_order", "_sorted")

    def __init__(self) -> None:
        self._order: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, sample_s: float) -> None:
        if len(self._order) >= _RECENT:
            oldest = self._order.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
        self._order.append(sample_s)
        insort(self._sorted, sample_s)

    def silence_s(self) -> tuple[float, float]:
        known = self._sorted
        return 1.25 * known[9 * len(known) // 10], 2.0 * known[19 * len(known) // 20]


class RoundTrips:
    """Times of silence for each peer.

    first_s: for giving up before anything was measured, dial_factor times as much with a dial; late is half of it.
    min_s, max_s: bounds of giving up; late has a quarter of min_s. The last 4,096 peers are remembered.
    """

    def __init__(self, first_s: float, min_s: float, max_s: float, dial_factor: float) -> None:
        self._first_s, self._min_s, self._max_s, self._dial_factor = first_s, min_s, max_s, dial_factor
        self._peers: dict[PeerId, _Estimate] = {}
        self._all, self._dials = _Recent(), _Recent()

    def learn(self, peer: PeerId, sample_s: float, *, dialled: bool) -> bool:
        """An answer came `sample_s` after its request; dialled: there was no connection at first. Returns whether
        that changes much for peers that were not measured."""
        recent = self._dials if dialled else self._all
        recent.add(sample_s)
        if not dialled:
            known = self._peers.get(peer)
            if known is not None:
                known.add(sample_s)
            else:
                if len(self._peers) >= _MAX_PEERS:
                    del self._peers[next(iter(self._peers))]
                self._peers[peer] = _Estimate(sample_s)
        return len(recent) <= _FEW

    def silence_s(self, peer: PeerId, *, dialled: bool) -> tuple[float, float]:
        """After how many seconds a peer is late, and after how many nobody waits for its answer."""
        known: _Estimate | _Recent | None = None if dialled else self._peers.get(peer)
        if known is None:
            known = self._dials if dialled else self._all
            if not known:
                first = self._first_s * (self._dial_factor if dialled else 1.0)
                return first / 2, first
        late_s, given_up_s = known.silence_s()
        given_up_s = min(max(given_up_s, self._min_s), self._max_s)
        return min(max(late_s, self._min_s / 4), given_up_s), given_up_s
