"""The requests that are under way, and how long each may take.

    sent --- answer() --> gone
     |  |--- peer_down(), undeliverable() --> gone
     |--- stall timer --> stalled --- answer() --> gone
                             |  |--- peer_down() --> gone
                             |--- expiry timer --> gone

A stalled request no longer holds its query up (round_trips.py says when); an expired one has failed.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..engine import PeerInfo, Reply
from ..identity import PeerId
from .queries import Query
from .round_trips import RoundTrips
from .timers import Timers


class Pending:
    """One request under way.

    query: whose it is; None for a probe. follow_up: not one of the query's lookup. dialled: the peer was not
    connected when it was sent.
    """

    __slots__ = ("answer", "dialled", "follow_up", "id", "info", "query", "sent", "stalled", "timer")

    def __init__(
        self,
        id: int,
        info: PeerInfo,
        query: Query | None,
        answer: type[Reply],
        dialled: bool,
        follow_up: bool,
    ) -> None:
        self.id, self.info, self.query, self.answer = id, info, query, answer
        self.dialled, self.follow_up = dialled, follow_up
        self.stalled = False
        self.sent = 0.0
        self.timer = 0


class Requests:
    """Requests under way, by id and by peer. Their number is bounded by what queries and probes may send.

    timers: the engine's; a Pending in them is due when it stalls, and again when it expires.
    """

    def __init__(self, timers: Timers[object], round_trips: RoundTrips, expiry_s: float) -> None:
        self._timers, self._round_trips, self._expiry_s = timers, round_trips, expiry_s
        self._pending: dict[int, Pending] = {}
        self._by_peer: dict[PeerId, dict[int, Pending]] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._pending)

    def has(self, peer: PeerId) -> bool:
        """Whether a request to the peer is under way."""
        return peer in self._by_peer

    def next_id(self) -> int:
        """A number for a request; used once."""
        self._next += 1
        return self._next

    def open(self, pending: Pending, now: float, patience: float = 1.0) -> None:
        """A request is being sent. patience: how many times the usual it may be silent before it stalls."""
        peer = pending.info.peer
        self._pending[pending.id] = pending
        known = self._by_peer.get(peer)
        if known is None:
            self._by_peer[peer] = {pending.id: pending}
        else:
            known[pending.id] = pending
        pending.sent = now
        silence = patience * self._round_trips.timeout_s(peer, dialled=pending.dialled)
        pending.timer = self._timers.add(now + min(silence, self._expiry_s), pending)

    def answer(self, id: int, sender: PeerId, now: float) -> Pending | None:
        """A reply came. None when no such request to that peer is under way: it was late, or made up."""
        pending = self._pending.get(id)
        if pending is None or pending.info.peer != sender:
            return None
        self._remove(pending)
        self._timers.cancel(pending.timer)
        self._round_trips.learn(sender, now - pending.sent, dialled=pending.dialled)
        return pending

    def overdue(self, pending: Pending, now: float) -> bool:
        """The timer of a request is due. Returns whether it has expired; else it has stalled."""
        expires = pending.sent + self._expiry_s
        if now < expires and not pending.stalled:
            pending.stalled = True
            pending.timer = self._timers.add(expires, pending)
            return False
        self._remove(pending)
        return True

    def undeliverable(self, peer: PeerId, ids: Iterable[int]) -> list[Pending]:
        """Those of these requests that are under way to the peer, which have failed."""
        known = self._by_peer.get(peer, {})
        failed = [pending for id in dict.fromkeys(ids) if (pending := known.get(id)) is not None]
        for pending in failed:
            self._remove(pending)
            self._timers.cancel(pending.timer)
        return failed

    def peer_down(self, peer: PeerId) -> list[Pending]:
        """Everything under way to a peer, which has failed."""
        failed = list(self._by_peer.get(peer, {}).values())
        for pending in failed:
            self._remove(pending)
            self._timers.cancel(pending.timer)
        return failed

    def _remove(self, pending: Pending) -> None:
        del self._pending[pending.id]
        peer = pending.info.peer
        known = self._by_peer[peer]
        del known[pending.id]
        if not known:
            del self._by_peer[peer]
