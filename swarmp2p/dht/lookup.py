"""One iterative lookup as a state machine: who is asked next, and when it is over.

A lookup narrows in on the k nearest live peers to a target (kad-dht spec, "Peer routing"; Kademlia §2.3). It
keeps the peers that it has heard of sorted by distance. Among the k nearest of them that are not failed or
stalled, those not asked yet are asked, at most alpha at a time; when all of those k have answered, it is
over. There are no rounds: each answer or failure lets the next request go at once.

    HEARD --- next() ---> WAITING --- late() ---> LATE --- stalled() ---> STALLED
                             |                      |                        |
                             +----------------------+------------------------+--- answered() ---> ANSWERED
                                                                             +--- failed() -----> FAILED
    HEARD <--- named at another address ------------------------------------------------------------'

A late peer has been silent for longer than is usual for it: the next candidate is asked as well (a hedged
request), but the end still waits for both. A stalled peer has been silent for its time-out: it is passed over.
Neither counts as in flight, and an answer of either still counts if it comes before the end. When more peers are
silent than have answered, the time-outs were too short, or our own line is slow: then the lookup does wait for
them, until they answer or fail.

Where a peer is dialled is what others say. A liar that names honest peers at addresses where nobody is, and answers
first, would hide them all; so what those who answer later say counts too: a peer that failed is asked again there, and
one under way is dialled there as well.

The machine knows no time and sends nothing: its owner calls next() after each change, sends what it returns,
and tells it what came of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import zip_longest
from typing import Final

from ..engine import Address, PeerInfo
from ..identity import PeerId
from .keys import peer_key


class PeerState(Enum):
    """What has become of a peer in a lookup."""

    HEARD = "heard"
    WAITING = "waiting"
    LATE = "late"
    STALLED = "stalled"
    ANSWERED = "answered"
    FAILED = "failed"


_HEARD, _WAITING, _LATE, _STALLED = PeerState.HEARD, PeerState.WAITING, PeerState.LATE, PeerState.STALLED
_ANSWERED, _FAILED = PeerState.ANSWERED, PeerState.FAILED
_AWAITED = (_WAITING, _LATE)


_MAX_NAMINGS: Final = 3
"""How often other addresses of a peer are taken up: by then k / 2 or more have answered, and most are honest."""

_MAX_ADDRESSES: Final = 6
"""Of a peer, from those who name it; the network tries the first ones."""

_MAX_WIDER: Final = 3
"""Times k that must answer at most."""

Plan = tuple[str, int]
"""Lookups for one target and with one plan would ask the same peers: its name, and the number of paths."""


@dataclass(frozen=True, slots=True)
class LookupConfig:
    """Tuning of one lookup.

    k: peers that must answer. alpha: requests in flight. window: requests in flight to peers within `near` to
    begin with; one more for each answer, up to alpha. near: a distance; peers within it are likely to hold
    what is looked for, so that few of them suffice. max_asked: requests in all; the lookup ends with what it
    has after them.
    """

    k: int = 20
    alpha: int = 10
    window: int = 10
    near: int = 0
    max_asked: int = 160


class Candidate:
    """A peer that a lookup has heard of. namings: how often it was named at other addresses than before."""

    __slots__ = ("distance", "info", "namings", "state")

    def __init__(self, info: PeerInfo, distance: int, state: PeerState) -> None:
        self.info, self.distance, self.state, self.namings = info, distance, state, 0

    def named(self, addresses: Sequence[Address]) -> bool:
        """Somebody names it; whether there is an address that nobody told before. Old and new ones take turns, so
        that neither can keep the others from being tried."""
        old = self.info.addresses
        if old == addresses or self.namings >= _MAX_NAMINGS or self.distance < 0:
            return False
        new = [address for address in addresses if address not in old]
        if not new:
            return False
        self.namings += 1
        if self.state is not _FAILED:
            new = [one for pair in zip_longest(new, old) for one in pair if one is not None]
        self.info = PeerInfo(self.info.peer, tuple(new[:_MAX_ADDRESSES]))
        return True


class Lookup:
    """One iterative lookup; the module's docstring has its rules.

    own: never asked. target: an id (keys.py). seeds: where to begin, in any order. At most 8 k peers that
    were not asked are remembered: the nearest.

    plan: None when it is not to be shared (errands.py). asked: requests let go. done: nothing is left to be asked or
    waited for. stopped: it was ended early.
    """

    def __init__(self, own: PeerId, target: int, seeds: Iterable[PeerInfo], config: LookupConfig) -> None:
        self.target = target
        self.plan: Plan | None = None
        self.asked = 0
        self.done = self.stopped = False
        self._k, self._alpha, self._near = config.k, config.alpha, config.near
        self._rank = config.k  # so many of the nearest must answer
        self._window = min(config.window, config.alpha)
        self._max_asked, self._max_heard = config.max_asked, 8 * config.k
        self._in_flight = self._late = self._stalled = self._answered = 0
        self._distances: list[int] = []  # ascending
        self._candidates: list[Candidate] = []  # in the same order
        self._known: dict[PeerId, Candidate] = {own: Candidate(PeerInfo(own), -1, _FAILED)}
        for info in seeds:
            if info.peer not in self._known:
                self._insert(info)

    def next(self) -> list[PeerInfo]:
        """Peers to be asked now; each is returned once, and again when it failed and was named elsewhere. Sets `done`
        when there is nothing left to do."""
        if self.done:
            return []
        asking: list[PeerInfo] = []
        rank, pending = 0, False
        in_flight, near = self._in_flight, self._near
        limit = self._alpha
        may_ask = self._max_asked - self.asked
        for candidate in self._candidates:
            state = candidate.state
            if state is _ANSWERED:
                rank += 1
            elif state is _HEARD:
                if may_ask <= len(asking):
                    continue
                rank += 1
                pending = True
                if candidate.distance <= near:
                    limit = self._window  # for this one and all behind it
                if in_flight < limit:
                    candidate.state = _WAITING
                    in_flight += 1
                    asking.append(candidate.info)
            elif state is _WAITING:
                rank += 1
                pending = True
            elif state is _LATE:
                pending = True
            if rank == self._rank:
                break
        self._in_flight = in_flight
        self.asked += len(asking)
        if not pending and self._answered >= self._stalled:
            self.done = True
        return asking

    def answered(self, peer: PeerId, closer: Iterable[PeerInfo]) -> Sequence[PeerInfo]:
        """An asked peer answered, perhaps late, and told of others; those without an address are left out. Returns
        those under way that are at other addresses, too, by what it says."""
        elsewhere: list[PeerInfo] = []
        if self._leave(peer, _ANSWERED):
            self._answered += 1
            self._window = min(self._window + 1, self._alpha)
            known = self._known
            for info in closer:
                candidate = known.get(info.peer)
                if candidate is None:
                    if info.addresses:
                        self._insert(info)
                elif candidate.state is not _ANSWERED and candidate.named(info.addresses):
                    if candidate.state is _FAILED:
                        candidate.state = _HEARD
                    elif candidate.state is not _HEARD:
                        elsewhere.append(candidate.info)
        return elsewhere

    def take(self, peer: PeerId) -> None:
        """A peer that was heard of is known to be there: it counts as one that answered, without being asked."""
        candidate = self._known.get(peer)
        if candidate is not None and candidate.state is _HEARD:
            candidate.state = _ANSWERED

    def failed(self, peer: PeerId) -> None:
        """An asked peer cannot be reached, or its answer is of no use."""
        self._leave(peer, _FAILED)

    def late(self, peer: PeerId) -> None:
        """An asked peer has been silent for longer than is usual for it."""
        candidate = self._known.get(peer)
        if candidate is not None and candidate.state is _WAITING:
            candidate.state = _LATE
            self._late += 1
            self._landed(peer)

    def stalled(self, peer: PeerId) -> None:
        """An asked peer has been silent for its time-out."""
        candidate = self._known.get(peer)
        if candidate is None or candidate.state not in _AWAITED:
            return
        if candidate.state is _LATE:
            self._late -= 1
        else:
            self._landed(peer)
        candidate.state = _STALLED
        self._stalled += 1

    def widen(self) -> bool:
        """Its result is not to be believed, since it should be nearer: have k more answer, farther from the target.
        Those who lied name the same peers again; others know nearer ones. Returns whether it goes on."""
        if self.stopped or self._rank >= _MAX_WIDER * self._k:
            return False
        self._rank += self._k
        self.done = False
        return True

    def stop(self) -> None:
        """End early: what was looked for is found, or nobody wants it any more."""
        self.stopped = self.stopped or not self.done
        self.done = True

    def closest(self) -> tuple[PeerInfo, ...]:
        """The k nearest peers that answered, nearest first."""
        answered = [candidate.info for candidate in self._candidates if candidate.state is _ANSWERED]
        return tuple(answered[: self._k])

    def state(self, peer: PeerId) -> PeerState | None:
        """What has become of a peer; None when it was never heard of."""
        candidate = self._known.get(peer)
        return None if candidate is None or candidate.distance < 0 else candidate.state

    @property
    def in_flight(self) -> int:
        """Requests that are waited for: at most alpha."""
        return self._in_flight

    @property
    def silent(self) -> int:
        """Asked peers that failed or are stalled."""
        return self.asked - self._answered - self._in_flight - self._late

    def _leave(self, peer: PeerId, state: PeerState) -> bool:
        """Settle a request; whether there was one."""
        candidate = self._known.get(peer)
        if candidate is None:
            return False
        if candidate.state is _WAITING:
            self._landed(peer)
        elif candidate.state is _LATE:
            self._late -= 1
        elif candidate.state is _STALLED:
            self._stalled -= 1
        else:
            return False
        candidate.state = state
        return True

    def _landed(self, peer: PeerId) -> None:
        """A request is in flight no more."""
        self._in_flight -= 1

    def _insert(self, info: PeerInfo) -> None:
        distance = peer_key(info.peer) ^ self.target
        distances = self._distances
        if len(distances) - self.asked >= self._max_heard and not self._make_room(distance):
            return
        candidate = Candidate(info, distance, _HEARD)
        index = bisect_left(distances, distance)
        distances.insert(index, distance)
        self._candidates.insert(index, candidate)
        self._known[info.peer] = candidate

    def _make_room(self, distance: int) -> bool:
        """Forget the farthest peer that was not asked, if it is farther than `distance`; whether it was."""
        index = len(self._candidates) - 1
        while index >= 0 and self._candidates[index].state is not _HEARD:
            index -= 1
        if index < 0 or distance > self._distances[index]:  # none: all were `take`n
            return False
        del self._distances[index]
        del self._known[self._candidates.pop(index).info.peer]
        return True
