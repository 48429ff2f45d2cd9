"""Where this peer is, and where others say that they are: what `Peer.distance` looks at.

    DHT answers: round trip, coordinate --> Vivaldi --> own coordinate --> load signals, DHT answers
    load signals: coordinate ------------------^
                     `--> distances between any two peers of whom a coordinate is known

Round trips are those that the DHT sees anyway, where no dial was part of them. A coordinate that an answer does not
bring is taken from the peer's load signal. The last 4,096 peers' coordinates are kept; those of providers in the load
table are there besides.
"""

from __future__ import annotations

from random import Random
from typing import Final

from ..errors import BadMessage
from ..identity import PeerId
from .coordinates import (
    MAX_ERROR,
    Coordinate,
    Vivaldi,
    VivaldiConfig,
    decode_coordinate,
    distance,
    encode_coordinate,
)
from .load_table import LoadTable

_MAX_PEERS: Final = 4_096


class Places:
    """The coordinates that one peer knows. loads: their other source."""

    __slots__ = ("_encoded", "_loads", "_peer", "_told", "malformed", "vivaldi")

    def __init__(
        self, peer: PeerId, rng: Random, loads: LoadTable, config: VivaldiConfig | None = None
    ) -> None:
        self.vivaldi = Vivaldi(rng, config)
        self.malformed = 0
        """Coordinates that were none."""
        self._peer, self._loads = peer, loads
        self._told: dict[PeerId, bytes] = {}  # the newest at the end
        self._encoded: tuple[Coordinate | None, bytes] = (None, b"")

    def __len__(self) -> int:
        """Peers that told in answers where they are."""
        return len(self._told)

    def encoded(self) -> bytes:
        """Where this peer is, for others; its error says how well it knows."""
        coordinate = self.vivaldi.coordinate
        if self._encoded[0] is not coordinate:
            self._encoded = (coordinate, encode_coordinate(coordinate))
        return self._encoded[1]

    def round_trip(self, peer: PeerId, told: bytes, took_s: float, now: float) -> None:
        """A peer answered after so many seconds, and told where it is, or b""."""
        if told:
            if self._decoded(told) is None:
                return
            self._told.pop(peer, None)
            if len(self._told) >= _MAX_PEERS:
                del self._told[next(iter(self._told))]
            self._told[peer] = told
        coordinate = self.of(peer)
        if coordinate is not None:  # others' implementations do not tell
            self.vivaldi.observe(peer, coordinate, took_s, now)

    def of(self, peer: PeerId) -> Coordinate | None:
        """Where a peer is: as it told last in an answer or, for providers, in its load signal. None for unknown."""
        if peer == self._peer:
            return self.vivaldi.coordinate
        told = self._told.get(peer)
        if told is None:
            entry = self._loads.get(peer)
            told = entry.signal.coordinate if entry is not None else b""
        return self._decoded(told) if told else None

    def distance(self, one: PeerId, other: PeerId) -> float | None:
        """Predicted round trip between two peers in seconds; None when it is not known where either is, or either has
        measured nothing yet."""
        here, there = self.of(one), self.of(other)
        if here is None or there is None or max(here.error, there.error) >= MAX_ERROR:
            return None
        return 0.0 if one == other else distance(here, there)

    def _decoded(self, told: bytes) -> Coordinate | None:
        try:
            return decode_coordinate(told)
        except BadMessage:
            self.malformed += 1
            return None
