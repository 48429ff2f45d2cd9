"""A lookup over disjoint paths (S/Kademlia §4.4): one false answer misleads one path only.

The peers that are known at the beginning are dealt out to d paths, nearest first. Each path then narrows in on the
target by itself, as a Lookup does: it hears only what the peers that it asked itself answered. No peer is asked
by two paths, so whoever lies, lies to one of them. What a peer did when another path asked it is known to all: a
path is over when the k nearest peers that it has heard of have answered somebody. Without liars the paths meet
around the target, and the result is that of a single lookup, for some more requests.

A peer belongs to the path that asks it, not to the one that hears of it first: else a liar could have good peers
set aside by naming them. For the same reason each path has requests of its own to spend: a path that is led
through made-up peers runs out of them alone. Of alpha requests in flight, those go first whose path has the
fewest.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

from ..engine import PeerInfo
from ..errors import UsageError
from ..identity import PeerId
from .keys import peer_key
from .lookup import Candidate, Lookup, LookupConfig, PeerState

MAX_PATHS: Final = 8
"""S/Kademlia's simulations (§5) gain little beyond 8 paths; each costs requests."""


_HEARD, _WAITING, _LATE = PeerState.HEARD, PeerState.WAITING, PeerState.LATE
_ANSWERED = PeerState.ANSWERED


def checked_paths(value: object) -> int:
    """A number of paths as a command carries it, from what a caller says: None, for the setting, becomes 0. Raises
    UsageError for what is no number of 1 to MAX_PATHS."""
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_PATHS:
        raise UsageError(
            f"a lookup goes over 1 to {MAX_PATHS} disjoint paths, not {value!r}; None takes the peer's setting"
        )
    return value


class _Path:
    """What one path has heard of: sorted by distance, with the peers that others asked.

    in_flight, asked: its own requests. known: by peer; `distances` and `candidates` are in the same order.
    """

    __slots__ = ("_unasked", "asked", "candidates", "distances", "in_flight", "known")

    def __init__(self) -> None:
        self.in_flight = self.asked = self._unasked = 0
        self.known: dict[PeerId, Candidate] = {}
        self.distances: list[int] = []
        self.candidates: list[Candidate] = []

    def insert(self, candidate: Candidate, max_heard: int) -> None:
        """Take in a peer, unless `max_heard` nearer ones wait to be asked."""
        if self._unasked >= max_heard and not self._make_room(candidate.distance):
            return
        self._unasked += candidate.state is _HEARD
        index = bisect_left(self.distances, candidate.distance)
        self.distances.insert(index, candidate.distance)
        self.candidates.insert(index, candidate)
        self.known[candidate.info.peer] = candidate

    def share(self, candidate: Candidate) -> None:
        """A peer is being asked, by this path or another: if this one has heard of it, see what becomes of it."""
        if candidate.info.peer in self.known:
            self.candidates[bisect_left(self.distances, candidate.distance)] = candidate
            self.known[candidate.info.peer] = candidate
            self._unasked -= 1

    def _make_room(self, distance: int) -> bool:
        index = max(index for index, known in enumerate(self.candidates) if known.state is _HEARD)
        if distance > self.distances[index]:
            return False
        del self.distances[index]
        del self.known[self.candidates.pop(index).info.peer]
        self._unasked -= 1
        return True


class DisjointLookup(Lookup):
    """A lookup over `paths` disjoint paths; used like a Lookup, whose arguments it takes.

    Each path may ask 2 k peers, or its share of max_asked when that is more. config.window and config.near mean
    nothing here: paths are few requests wide.
    """

    def __init__(
        self, own: PeerId, target: int, seeds: Iterable[PeerInfo], config: LookupConfig, paths: int
    ) -> None:
        super().__init__(own, target, (), config)
        self._own = own
        self._paths = [_Path() for _ in range(paths)]
        self._path_of: dict[PeerId, _Path] = {}
        self._max_each = max(2 * config.k, config.max_asked // paths)
        by_peer = {info.peer: info for info in seeds if info.peer != own}
        for place, peer in enumerate(sorted(by_peer, key=lambda peer: peer_key(peer) ^ target)):
            self._hear(self._paths[place % paths], by_peer[peer])

    def next(self) -> list[PeerInfo]:
        asking: list[PeerInfo] = []
        if self.done:
            return asking
        wanting, pending = list(self._paths), False
        while wanting and self._in_flight < self._alpha:
            path = min(wanting, key=lambda path: path.in_flight)
            candidate, waits = self._wanted(path)
            pending = pending or waits
            if candidate is None:
                wanting.remove(path)
            else:
                self._ask(path, candidate)
                asking.append(candidate.info)
        pending = pending or any(self._wanted(path)[1] for path in wanting)
        if not pending and self._answered >= self._stalled:
            self.done = True
        return asking

    def answered(self, peer: PeerId, closer: Iterable[PeerInfo]) -> Sequence[PeerInfo]:
        """An asked peer answered, perhaps late: its path hears of the others that it names."""
        if self._leave(peer, _ANSWERED):
            self._answered += 1
            path = self._path_of[peer]
            for info in closer:
                if info.addresses and info.peer not in path.known and info.peer != self._own:
                    self._hear(path, info)
        return ()

    def closest(self) -> tuple[PeerInfo, ...]:
        answered = [candidate for candidate in self._asked_ones() if candidate.state is _ANSWERED]
        answered.sort(key=lambda candidate: candidate.distance)
        return tuple(candidate.info for candidate in answered[: self._k])

    def state(self, peer: PeerId) -> PeerState | None:
        if peer in self._path_of:
            return self._known[peer].state
        return _HEARD if any(peer in path.known for path in self._paths) else None

    def _asked_ones(self) -> Iterable[Candidate]:
        return (self._known[peer] for peer in self._path_of)

    def _wanted(self, path: _Path) -> tuple[Candidate | None, bool]:
        """Whom a path wants to ask next, if anybody, and whether it is not over yet."""
        rank, pending = 0, False
        exhausted = path.asked >= self._max_each
        for candidate in path.candidates:
            state = candidate.state
            if state is _HEARD:
                if exhausted:
                    continue
                return candidate, True
            if state is _ANSWERED:
                rank += 1
            elif state is _WAITING:
                rank += 1
                pending = True
            elif state is _LATE:
                pending = True
            if rank == self._rank:
                break
        return None, pending

    def _ask(self, path: _Path, candidate: Candidate) -> None:
        peer = candidate.info.peer
        candidate.state = _WAITING
        self._known[peer] = candidate
        self._path_of[peer] = path
        for each in self._paths:
            each.share(candidate)
        path.in_flight += 1
        path.asked += 1
        self._in_flight += 1
        self.asked += 1

    def _hear(self, path: _Path, info: PeerInfo) -> None:
        """A path hears of a peer, which perhaps another path has asked already."""
        asked = self._known.get(info.peer)
        path.insert(
            asked or Candidate(info, peer_key(info.peer) ^ self.target, _HEARD),
            self._max_heard,
        )

    def _landed(self, peer: PeerId) -> None:
        super()._landed(peer)
        self._path_of[peer].in_flight -= 1
