"""Optimistic provide: a record is sent before all of its holders have answered, and the call returns early.

With n servers, ids within r = c / n of a key belong to about c peers. That is used three times, where an estimate of n
(network_size.py) is known:

- A peer within the radius that fewer than k peers are in nine times of ten is sent the record as soon as it is heard
  of: k - 1.28 sqrt(k) peers are expected there (normal approximation). If it is not one of the k nearest after all, it
  holds one record more; that does no harm.
- The lookup is over when the five nearest have answered, instead of all k. Each of them knows its own surroundings, so
  together they have named all k, unless those are farther away than they should be: then the lookup goes on as usual.
  It does so, too, when they are suspiciously near (crowding.py).
- The call returns when three quarters of the k nearest are connected, having been sent the record. What cannot be
  reached is replaced by the next nearest in the background.

With a new connection taking one round trip (simulations/dht_publish.py): half of the messages and one of two round
trips are saved at 32 nodes, two of six round trips at 1,000; at 10,000 it is 40 % of the messages and hardly a round
trip, since fewer requests are in flight on the way. go-libp2p's optimistic provide has the same idea, and the same
share of holders after which it returns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ..engine import PeerInfo, Reply
from ..identity import PeerId
from .events import DhtOutput, QueryDone
from .keys import peer_key
from .lookup import Lookup, LookupConfig, PeerState
from .messages import FoundNodes, Provider
from .network_size import radius_of
from .queries import FollowUp, LastWord, ProvideQuery, add_provider

_CONFIRM: Final = 5
"""Peers that must answer. With tables in which one of five of the nearest k is missing, a peer that all five miss is
one of 3,000."""

_ENOUGH: Final = 0.75
_FARTHEST: Final = 1.6
"""How much farther than expected the k-th nearest may be: two standard deviations of its distance (k = 20), and 15 %
for an estimate of n that is too high."""

_LIVE: Final = (PeerState.HEARD, PeerState.WAITING, PeerState.LATE, PeerState.ANSWERED)

Tell = Callable[["OptimisticProvide", Sequence[LastWord], float], None]
"""Sends what a query wants sent now, and sees to it that it hears what becomes of those not connected."""


class Expectation:
    """What the size of the network says about the peers around any key.

    soon: the distance within which a peer very probably is one of the k nearest. count: how many should be found.
    """

    def __init__(self, size: float, k: int) -> None:
        self.soon = radius_of(size, max(1, int(k - 1.28 * math.sqrt(k))))
        self.farthest = radius_of(size, int(_FARTHEST * k))
        self.count = min(k, int(0.9 * size))


class NarrowLookup(Lookup):
    """A lookup that is over when few have answered, if what is known then is as expected; else when all k have.

    is_crowded: of the k nearest. It counts as stopped when it ended early, since it does not prove who is there.
    """

    def __init__(
        self,
        own: PeerId,
        target: int,
        seeds: Iterable[PeerInfo],
        config: LookupConfig,
        expected: Expectation,
        is_crowded: Callable[[Sequence[PeerInfo]], bool],
    ) -> None:
        super().__init__(own, target, seeds, config)
        self._rank = min(_CONFIRM, config.k)
        self._expected, self._is_crowded = expected, is_crowded

    def next(self) -> list[PeerInfo]:
        asking = super().next()
        if self.done and not self.stopped and self._rank < self._k:
            if self._is_expected(self.nearest(self._k)):
                self.stopped = True
            else:
                self._rank, self.done = self._k, False
                asking += super().next()
        return asking

    def nearest(self, count: int) -> list[PeerInfo]:
        """The nearest peers that have not failed, asked or not."""
        return [candidate.info for candidate in self._candidates if candidate.state in _LIVE][:count]

    def _is_expected(self, nearest: Sequence[PeerInfo]) -> bool:
        if len(nearest) < self._expected.count or not nearest or not self._answered:
            return False
        if len(nearest) < self._k:
            return True
        distance = peer_key(nearest[-1].peer) ^ self.target
        return distance <= self._expected.farthest and not self._is_crowded(nearest)


class OptimisticProvide(ProvideQuery):
    """Stores a provider record as the module's docstring says. Works with any NarrowLookup.

    connected: whether a connection to a peer stands. tell: see Tell.

    told: whom it was sent to, with whether they are connected; None is not known yet.
    """

    def __init__(
        self,
        number: int | None,
        lookup: NarrowLookup,
        key: bytes,
        provider: Callable[[], Provider | None],
        k: int,
        soon: int,
        connected: Callable[[PeerId], bool],
        tell: Tell,
    ) -> None:
        super().__init__(number, lookup, key, provider)
        self._narrow, self._k, self._soon = lookup, k, soon
        self._connected, self._tell = connected, tell
        self._early = False  # the lookup ended early: holders are waited for
        self.told: dict[PeerId, bool | None] = {}
        self._sent: list[PeerInfo] = []
        self._wanted: list[PeerInfo] = []

    # While it looks for them --------------------------------------------------------------------------------

    def begin(self, now: float) -> Sequence[DhtOutput]:
        self._tell_near(self._narrow.nearest(self._k), now)
        return ()

    def answered(self, peer: PeerId, reply: Reply, now: float) -> Sequence[DhtOutput]:
        assert isinstance(reply, FoundNodes)
        self._tell_near(reply.closer, now)
        return super().answered(peer, reply, now)

    def follow_ups(self, now: float) -> Sequence[FollowUp]:
        """The lookup is over."""
        if self.lookup.stopped and not self.overdue:
            self._early = True
            self.waiting += 1  # until `satisfied`
            self._wanted = self._narrow.nearest(self._k)
            self._tell_to(self._wanted, now)
        return ()

    def last_words(self, now: float) -> Sequence[LastWord]:
        self.holders += [info for info in self._sent if self.told[info.peer] is not False]
        if self._early:
            return ()
        closest = self.lookup.closest()
        self.stored += sum(info.peer in self.told for info in closest)
        return self.beyond_told([info for info in closest if info.peer not in self.told], now)

    @property
    def satisfied(self) -> bool:
        if not self._early:
            return False
        return self.overdue or not self.unsettled or self._reached >= _ENOUGH * len(self._wanted)

    def result(self) -> QueryDone:
        done = super().result()
        stored = self._reached if self._early else done.stored
        failed = done.failed + sum(reached is False for reached in self.told.values())
        return QueryDone(done.query, done.closest, stored=stored, asked=done.asked, failed=failed)

    # What becomes of those told -----------------------------------------------------------------------------

    @property
    def unsettled(self) -> list[PeerId]:
        """Those of the k nearest of which it is not known whether they can be reached."""
        return [info.peer for info in self._wanted if self.told.get(info.peer, False) is None]

    def settle(self, peer: PeerId, reached: bool, now: float) -> None:
        """A connection to a peer stands, or cannot be made. The next nearest takes the place of one that cannot be
        reached."""
        if self.told.get(peer, True) is not None:
            return
        self.told[peer] = reached
        if self._early and not reached:
            for info in self._narrow.nearest(2 * self._k):
                if info.peer not in self.told and self._tell_to([info], now):
                    self._wanted.append(info)
                    break

    @property
    def _reached(self) -> int:
        return sum(self.told.get(info.peer) is True for info in self._wanted)

    def _tell_near(self, peers: Iterable[PeerInfo], now: float) -> None:
        target, soon = self.lookup.target, self._soon
        near = [info for info in peers if info.addresses and peer_key(info.peer) ^ target <= soon]
        self._tell_to(near[: max(0, 2 * self._k - len(self.told))], now)

    def _tell_to(self, peers: Iterable[PeerInfo], now: float) -> bool:
        """Send the record to those that do not have it yet; whether any was."""
        provider = self._provider()
        new = [info for info in peers if info.peer not in self.told]
        if not new or provider is None or not provider.addresses:
            return False
        self._sent += new
        for info in new:
            self.told[info.peer] = True if self._connected(info.peer) else None
        self._tell(self, [(info, add_provider(self._key, provider)) for info in new], now)
        return True
