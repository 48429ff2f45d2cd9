"""Network coordinates: how far apart two peers are that never spoke.

Theory of operation. Vivaldi with heights (Dabek, Cox, Kaashoek and Morris, "Vivaldi", SIGCOMM 2004). Each peer has a
point in a Euclidean space, and a height above it for its access link; the distance of two coordinates is the
distance of their points plus both heights, and predicts the round trip in seconds. Each round trip measured to a
peer whose coordinate is known acts as a spring between the two, whose rest length is the round trip: it moves the
own coordinate a little towards where the prediction is right. The worse the own coordinate compared with the
other's, the farther it moves.

As in Serf, added to the paper's: a median over the last samples from each peer (blips), an adjustment term for what
no space can hold (Lee et al., "On Suitability of Euclidean Embedding", 2006), and gravity towards the origin, since
nothing else keeps the whole swarm from drifting (Ledlie et al., "Network Coordinates in the Wild", 2007).

Liars. Coordinates and delays are others' word. Added here against that: a sample's residual (measured less predicted)
counts in full up to a few times the median residual of the last peers, and less the farther it is beyond; a peer's
samples count once in `peer_every_s`; nobody is believed to be certain. So a coordinate follows what most peers agree
on. One that moved itself sees large residuals with all peers, and follows at once. Two of 25 who answer late and say
that they are far away leave the others' predictions wrong by some 5 % where the plain algorithm's are ten times too
large (simulations/coordinates.py). A third of all can still lead the rest astray.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from ..errors import BadMessage, UsageError
from ..identity import PeerId

DIMENSIONS: Final = 8
"""Of the space that all peers share; Serf's choice after Ledlie et al."""

MAX_DISTANCE_S: Final = 10.0
"""Bound of everything in a coordinate that has a length, and of a round trip; Serf's."""

MAX_ERROR: Final = 1.5
"""Error of a coordinate that was never measured, and the largest that there is; Serf's."""

MIN_HEIGHT_S: Final = 10e-6
"""Heights are positive; small next to a local network's round trips. Serf's."""

COORDINATE_BYTES: Final = 2 * (DIMENSIONS + 3)
"""Length of an encoded coordinate."""

_CLOSE_S: Final = 1e-6  # points nearer than that are one, and their direction is drawn by lot
_PACKED: Final = struct.Struct(f">{DIMENSIONS + 3}e")
_UNIT: Final = 1000.0  # lengths are encoded in milliseconds: halves hold 60 ns to 65 s


@dataclass(frozen=True, slots=True)
class Coordinate:
    """Where a peer is. Lengths in seconds.

    components: of the point. height: above it. error: expected relative error of predictions, 0 to MAX_ERROR.
    adjustment: added to all distances, of either sign. Raises UsageError for what is not finite or out of bounds.
    """

    components: tuple[float, ...] = (0.0,) * DIMENSIONS
    height: float = MIN_HEIGHT_S
    error: float = MAX_ERROR
    adjustment: float = 0.0

    def __post_init__(self) -> None:
        # Comparisons with NaN are false, so that this refuses it, too.
        if not (
            self.components
            and math.hypot(*self.components) <= MAX_DISTANCE_S
            and 0.0 < self.height <= MAX_DISTANCE_S
            and 0.0 <= self.error <= MAX_ERROR
            and abs(self.adjustment) <= MAX_DISTANCE_S
        ):
            raise UsageError(
                f"a coordinate has finite lengths up to {MAX_DISTANCE_S:g} s, a height above 0 "
                f"and an error of 0 to {MAX_ERROR:g}; got {self}"
            )


def raw_distance(a: Coordinate, b: Coordinate) -> float:
    """Predicted round trip in seconds, without the adjustments."""
    return math.dist(a.components, b.components) + (a.height + b.height)


def distance(a: Coordinate, b: Coordinate) -> float:
    """Predicted round trip between two peers in seconds, above 0. Raises UsageError for coordinates of different
    spaces."""
    if len(a.components) != len(b.components):
        raise UsageError(
            f"coordinates of {len(a.components)} and {len(b.components)} dimensions have no distance"
        )
    raw = raw_distance(a, b)
    adjusted = raw + (a.adjustment + b.adjustment)
    return adjusted if adjusted > 0.0 else raw


def encode_coordinate(coordinate: Coordinate) -> bytes:
    """COORDINATE_BYTES bytes: half-precision floats (within 0.05 %), big-endian: the components, the height and the
    adjustment in milliseconds, and the error. Raises UsageError for other than DIMENSIONS dimensions."""
    if len(coordinate.components) != DIMENSIONS:
        raise UsageError(
            f"coordinates on the wire have {DIMENSIONS} dimensions, not {coordinate.components!r}"
        )
    lengths = [
        _UNIT * length for length in (*coordinate.components, coordinate.height, coordinate.adjustment)
    ]
    return _PACKED.pack(*lengths, coordinate.error)


def decode_coordinate(data: bytes) -> Coordinate:
    """Raises BadMessage for anything that is no coordinate."""
    try:
        *lengths, error = _PACKED.unpack(data)
    except struct.error:
        raise BadMessage(f"a coordinate has {COORDINATE_BYTES} bytes, not {len(data)}") from None
    *components, height, adjustment = [length / _UNIT for length in lengths]
    try:
        # Rounding may have gone beyond a bound by a little.
        return Coordinate(tuple(components), max(height, MIN_HEIGHT_S / 2), error, adjustment)
    except UsageError as problem:
        raise BadMessage(str(problem)) from None


@dataclass(frozen=True, slots=True)
class VivaldiConfig:
    """Tuning; Serf's values (its coordinate.Config) where not said otherwise.

    dimensions: of the space. error_share, move_share: how much one sample may change the error (the paper's c_e) and
        the coordinate (c_c).
    adjustment_window: samples that the adjustment is the mean of; 0 for no adjustment. filter_size: samples of one
        peer whose median counts. gravity_rho: the larger, the weaker gravity.
    least_error: own and claimed errors count as at least that; so certainty has its bounds, and coordinates that are
        both good go on settling.
    peer_every_s: samples of a peer that come sooner after its last are ignored; a guess: peers that say much shall not
        outvote the others. residual_factor, residual_floor_s: a residual counts up to so many times the median of the
        last `residual_peers` peers', or so many seconds if that is more; 4 medians are 2.7 standard deviations of a
        normal error, and of 2, 4 and 8 it served both honest networks and those with liars.
    max_peers: whose samples are kept; beyond, those not heard of for longest are forgotten.
    """

    dimensions: int = DIMENSIONS
    error_share: float = 0.25
    move_share: float = 0.25
    adjustment_window: int = 20
    filter_size: int = 3
    gravity_rho: float = 150.0
    least_error: float = 0.05
    peer_every_s: float = 1.0
    residual_factor: float = 4.0
    residual_floor_s: float = 0.01
    residual_peers: int = 32
    max_peers: int = 1024


@dataclass(slots=True)
class VivaldiStats:
    """Counters. used: samples that counted. refused: with a round trip or coordinate that makes no sense. frequent:
    too soon after the peer's last. outliers: of those used, with a residual beyond what counts in full. resets: the
    coordinate had left the bounds, and began anew."""

    used: int = 0
    refused: int = 0
    frequent: int = 0
    outliers: int = 0
    resets: int = 0


@dataclass(slots=True)
class _Peer:
    """Of one peer: the last round trips, when the last of them counted, and how wrong the prediction was."""

    samples: deque[float]
    at: float
    residual_s: float = math.inf


class Vivaldi:
    """One peer's own `coordinate`; the module's docstring says how it comes about."""

    __slots__ = ("_config", "_peers", "_residuals", "_rng", "coordinate", "stats")

    def __init__(self, rng: Random, config: VivaldiConfig | None = None) -> None:
        self._config = config = config or VivaldiConfig()
        self._rng = rng
        self.coordinate = Coordinate((0.0,) * config.dimensions)
        self.stats = VivaldiStats()
        self._peers: dict[PeerId, _Peer] = {}  # those heard of last at the end
        self._residuals: deque[float] = deque((0.0,) * config.adjustment_window, config.adjustment_window)

    def __len__(self) -> int:
        """Peers whose samples are kept."""
        return len(self._peers)

    def observe(self, peer: PeerId, other: Coordinate, rtt_s: float, now: float) -> bool:
        """A round trip to `peer`, which says that it is at `other`. False when it was ignored; never raises for what a
        peer said. The nearer in time the two are measured the better."""
        config, stats = self._config, self.stats
        if not 0.0 <= rtt_s <= MAX_DISTANCE_S or len(other.components) != config.dimensions:
            stats.refused += 1
            return False
        known = self._peers.pop(peer, None)
        if known is None:
            known = _Peer(deque(maxlen=config.filter_size), -math.inf)
            if len(self._peers) >= config.max_peers:
                del self._peers[next(iter(self._peers))]
        self._peers[peer] = known
        if now < known.at + config.peer_every_s:
            stats.frequent += 1
            return False
        known.at = now
        known.samples.append(rtt_s)
        usual_s = sorted(known.samples)[len(known.samples) // 2]
        self._pull(known, other, max(usual_s, _CLOSE_S))
        stats.used += 1
        return True

    def distance(self, other: Coordinate) -> float:
        """Predicted round trip to there, in seconds."""
        return distance(self.coordinate, other)

    # Inside -------------------------------------------------------------------------------------------------

    def _pull(self, peer: _Peer, other: Coordinate, rtt_s: float) -> None:
        config, own = self._config, self.coordinate
        residual_s = rtt_s - distance(own, other)
        limit_s, peer.residual_s = self._limit_s(peer), abs(residual_s)
        if peer.residual_s > limit_s:
            self.stats.outliers += 1
            residual_s *= (limit_s / peer.residual_s) ** 2
        own_error, other_error = max(own.error, config.least_error), max(other.error, config.least_error)
        weight = own_error / (own_error + other_error)
        share = config.error_share * weight
        error = share * min(abs(residual_s) / rtt_s, MAX_ERROR) + own.error * (1.0 - share)
        force_s = config.move_share * weight * residual_s
        components, height = self._moved(own, other, force_s)
        try:
            moved = Coordinate(components, height, min(error, MAX_ERROR), own.adjustment)
            if config.adjustment_window:
                if peer.residual_s <= limit_s:
                    self._residuals.append(rtt_s - raw_distance(moved, other))
                moved = replace(moved, adjustment=sum(self._residuals) / (2 * config.adjustment_window))
            self.coordinate = self._fallen(moved)
        except UsageError:
            self.stats.resets += 1
            self.coordinate = Coordinate((0.0,) * config.dimensions)

    def _limit_s(self, peer: _Peer) -> float:
        """Up to what a residual counts: by the last residuals of the other peers that were heard of last."""
        config = self._config
        last: list[float] = []
        for known in reversed(self._peers.values()):
            if known is not peer:
                last.append(known.residual_s)
                if len(last) >= config.residual_peers:
                    break
        if len(last) < 4:  # nothing to compare with
            return MAX_DISTANCE_S
        last.sort()
        return max(config.residual_floor_s, config.residual_factor * last[len(last) // 2])

    def _moved(self, own: Coordinate, other: Coordinate, force_s: float) -> tuple[tuple[float, ...], float]:
        """The point and the height after a pull by `force_s` away from `other`."""
        apart_s = math.dist(own.components, other.components)
        if apart_s <= _CLOSE_S:
            draw: Callable[[float, float], float] = self._rng.uniform
            away = [draw(-1.0, 1.0) for _ in own.components]
            length = math.hypot(*away) or 1.0
            return tuple(
                [c + force_s * a / length for c, a in zip(own.components, away, strict=True)]
            ), own.height
        step = force_s / apart_s
        components = tuple(
            [c + step * (c - o) for c, o in zip(own.components, other.components, strict=True)]
        )
        return components, max(own.height + step * (own.height + other.height), MIN_HEIGHT_S)

    def _fallen(self, moved: Coordinate) -> Coordinate:
        """A step towards the origin."""
        far_s = math.hypot(*moved.components)
        if far_s <= _CLOSE_S:
            return moved
        # By the whole distance, with the height: who is high up has a short way on the ground.
        fall_s = ((far_s + moved.height + moved.adjustment) / self._config.gravity_rho) ** 2
        kept = max(0.0, 1.0 - fall_s / far_s)
        return replace(moved, components=tuple([c * kept for c in moved.components]))
