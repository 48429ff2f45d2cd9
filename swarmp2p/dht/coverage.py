"""Which peers of a part of the keyspace are known for certain, from lookups that ended.

A lookup for target t that found k live peers, the farthest of them at distance d, has proved something: no other live
peer is within d of t. In id space that ball is a few aligned blocks (ids that share a prefix), since XOR with t maps
the distances 0 to d onto them. Coverage keeps the union of such blocks, and the peers in it. A key whose own ball, out
to the k-th nearest of these peers, lies within the union needs no lookup: those k are its k nearest.

    t = 0110, d = 0101   distances 0000-0011 -> ids 01**     the union of both is the ball
                         distances 0100-0101 -> ids 001*
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from ..engine import PeerInfo
from .keys import ID_BITS, peer_key

_PRECISION_BITS = 12
"""Of a ball's radius: the rest would be blocks of less than a four-thousandth of it. What is learnt is rounded down,
what is asked for is rounded up, so nothing is claimed that is not so."""


class Coverage:
    """Peers that are known, and the blocks of ids in which there are no others.

    k: peers that hold a record. Grows with the lookups that are learnt from; made for one part of the keyspace and for
    a minute or so, as peers come and go.
    """

    def __init__(self, k: int) -> None:
        self._k = k
        self._peers: dict[int, PeerInfo] = {}
        self._starts: list[int] = []  # of disjoint blocks, ascending; first and last id plus one
        self._ends: list[int] = []

    def __len__(self) -> int:
        """Peers that are known."""
        return len(self._peers)

    def learn(self, target: int, closest: Sequence[PeerInfo]) -> None:
        """A whole lookup ended. closest: what it found, nearest first; fewer than k are all there are."""
        for info in closest:
            self._peers[peer_key(info.peer)] = info
        if len(closest) < self._k:
            self._cover(0, 1 << ID_BITS)
            return
        for start, end in _ball(target, peer_key(closest[-1].peer) ^ target, up=False):
            self._cover(start, end)

    def nearest(self, target: int) -> tuple[PeerInfo, ...]:
        """The k nearest of the known peers, whether or not others are nearer."""
        peers = self._peers
        return tuple([peers[id] for id in sorted(peers, key=target.__xor__)[: self._k]])

    def gap(self, target: int, nearest: Sequence[PeerInfo]) -> tuple[int, int] | None:
        """Why these are perhaps not the k nearest of all: the first ids, up to but without the last, in which there may
        be others; None when they are."""
        radius = (1 << ID_BITS) - 1 if len(nearest) < self._k else peer_key(nearest[-1].peer) ^ target
        for start, end in _ball(target, radius, up=True):
            if not self._covers(start, end):
                return start, end
        return None

    def __contains__(self, id: int) -> bool:
        return self._covers(id, id + 1)

    def _covers(self, start: int, end: int) -> bool:
        index = bisect_right(self._starts, start) - 1
        return index >= 0 and self._ends[index] >= end

    def _cover(self, start: int, end: int) -> None:
        """Take in a block, and merge it with those that it touches."""
        starts, ends = self._starts, self._ends
        first, last = bisect_left(ends, start), bisect_right(starts, end)
        if first < last:
            start, end = min(start, starts[first]), max(end, ends[last - 1])
        starts[first:last] = [start]
        ends[first:last] = [end]


def _ball(target: int, radius: int, *, up: bool) -> Iterator[tuple[int, int]]:
    """The ids within a distance, as aligned blocks: first id, and last plus one. The block that holds the target comes
    first. up: rather too many than too few."""
    count = radius + 1
    dropped = max(count.bit_length() - _PRECISION_BITS, 0)
    rounded = count >> dropped << dropped
    if up and rounded < count:
        rounded += 1 << dropped
    base = 0  # distances below it are done
    for bit in range(rounded.bit_length() - 1, -1, -1):
        if rounded >> bit & 1:
            start = (target ^ base) >> bit << bit
            yield start, start + (1 << bit)
            base |= 1 << bit
