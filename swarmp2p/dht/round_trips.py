"""How long a peer may be silent: learnt from the round trips that were measured (RFC 6298)."""

from __future__ import annotations

from ..identity import PeerId

_MAX_PEERS = 4_096


class _Estimate:
    """A smoothed round trip and its variation, in seconds (RFC 6298 §2)."""

    __slots__ = ("mean_s", "variation_s")

    def __init__(self, sample_s: float) -> None:
        self.mean_s, self.variation_s = sample_s, sample_s / 2

    def add(self, sample_s: float) -> None:
        self.variation_s += (abs(self.mean_s - sample_s) - self.variation_s) / 4
        self.mean_s += (sample_s - self.mean_s) / 8

    @property
    def timeout_s(self) -> float:
        return self.mean_s + 4 * self.variation_s


class RoundTrips:
    """Time-outs for each peer.

    A peer that was measured has its own; another one that is connected has that of all such peers together;
    one that must be dialled first has that of all dials together. Until anything is measured: first_s, and
    dial_factor times as much with a dial. All stay between min_s and max_s. The last 4,096 peers are
    remembered.
    """

    def __init__(self, first_s: float, min_s: float, max_s: float, dial_factor: float) -> None:
        self._first_s, self._min_s, self._max_s, self._dial_factor = first_s, min_s, max_s, dial_factor
        self._peers: dict[PeerId, _Estimate] = {}
        self._all: _Estimate | None = None
        self._dials: _Estimate | None = None

    def learn(self, peer: PeerId, sample_s: float, *, dialled: bool) -> None:
        """An answer came `sample_s` after its request; dialled: there was no connection at first."""
        if dialled:
            if self._dials is None:
                self._dials = _Estimate(sample_s)
            else:
                self._dials.add(sample_s)
            return
        if self._all is None:
            self._all = _Estimate(sample_s)
        else:
            self._all.add(sample_s)
        known = self._peers.get(peer)
        if known is not None:
            known.add(sample_s)
            return
        if len(self._peers) >= _MAX_PEERS:
            del self._peers[next(iter(self._peers))]
        self._peers[peer] = _Estimate(sample_s)

    def timeout_s(self, peer: PeerId, *, dialled: bool) -> float:
        """Seconds of silence after which a request to the peer no longer holds anything up."""
        if dialled:
            estimate = self._dials
            seconds = self._first_s * self._dial_factor if estimate is None else estimate.timeout_s
        else:
            estimate = self._peers.get(peer) or self._all
            seconds = self._first_s if estimate is None else estimate.timeout_s
        return min(max(seconds, self._min_s), self._max_s)
