"""The requests that are under way, and how long each may take.

    sent ---- late timer ----> late ---- stall timer ----> stalled ---- expiry timer ----> gone
      |                         |                             |
      +-------------------------+-----------------------------+--- answer(), peer_down() --> gone

For a late one the query asks somebody else as well; a stalled one no longer holds it up (round_trips.py says when);
an expired one has failed. What is sent without waiting for an answer is not kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final

from ..engine import NetworkOutput, PeerInfo, Reply, Send
from ..hearsay import MAX_ADDRESSES
from ..identity import PeerId
from .contacts import Contacts
from .errands import Errand
from .events import DhtOutput
from .messages import AddProvider, AnsweredRequest
from .queries import Query
from .round_trips import RoundTrips
from .timers import Timers

_FOLLOW_UP_PATIENCE: Final = 4.0
"""How many times the usual a follow-up may be silent: nobody else is asked in its place, so that it is waited
for."""


class Silence(Enum):
    """How long a request has been unanswered."""

    USUAL = "usual"
    LATE = "late"
    STALLED = "stalled"
    EXPIRED = "expired"


class Pending:
    """One request under way.

    errand: the lookup that it is for. query: whose follow-up it is. Neither: a probe. dialled: the peer was not
    connected when it was sent. sent: when, in seconds. patience: how many times the usual it may be silent. timer:
    of what comes next.
    """

    __slots__ = (
        "answer",
        "dialled",
        "errand",
        "id",
        "info",
        "patience",
        "query",
        "sent",
        "silence",
        "timer",
    )

    def __init__(
        self,
        id: int,
        info: PeerInfo,
        answer: type[Reply],
        dialled: bool,
        errand: Errand | None,
        query: Query | None,
    ) -> None:
        self.id, self.info, self.answer, self.dialled = id, info, answer, dialled
        self.errand, self.query = errand, query
        self.silence = Silence.USUAL
        self.patience = 1.0
        self.sent = 0.0
        self.timer = 0

    @property
    def stalled(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.silence is Silence.STALLED


class Requests:
    """Requests under way, by id and by peer. Their number is bounded by what queries and probes may send.

    timers: the engine's; a Pending in them is due when it is late, when it stalls, and when it expires. out: where
    they are sent by, among the engine's other outputs.
    """

    def __init__(
        self, timers: Timers[object], contacts: Contacts, round_trips: RoundTrips, expiry_s: float
    ) -> None:
        self.out: list[NetworkOutput | DhtOutput] = []
        self._timers, self._contacts = timers, contacts
        self._round_trips, self._expiry_s = round_trips, expiry_s
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

    def introduce(self, info: PeerInfo) -> None:
        """Tell the network where a peer is, unless it knows."""
        introduction = self._contacts.introduce(info)
        if introduction is not None:
            self.out.append(introduction)

    def tell(self, info: PeerInfo, request: AddProvider) -> None:
        """Send a request that is not answered."""
        self.introduce(info)
        self.out.append(Send(info.peer, request))

    def ask(
        self,
        info: PeerInfo,
        request: AnsweredRequest,
        now: float,
        *,
        errand: Errand | None = None,
        query: Query | None = None,
    ) -> None:
        """Send a request for an errand; or for a query of its own, as a follow-up; or as a probe."""
        peer = info.peer
        dialled = peer not in self._contacts
        if dialled:
            if query is not None:  # others told of it: a provider without a record
                info = PeerInfo(peer, info.addresses[:MAX_ADDRESSES])
            self.introduce(info)
        pending = Pending(request.id, info, request.answer, dialled, errand, query)
        self._open(pending, now, 1.0 if query is None else _FOLLOW_UP_PATIENCE)
        self.out.append(Send(peer, request))

    def answer(self, id: int, sender: PeerId, now: float) -> Pending | None:
        """A reply came. None when no such request to that peer is under way: it was late, or made up."""
        pending = self._pending.get(id)
        if pending is None or pending.info.peer != sender:
            return None
        self._remove(pending)
        self._timers.cancel(pending.timer)
        if self._round_trips.learn(sender, now - pending.sent, dialled=pending.dialled):
            self._reconsider(pending.dialled, now)
        return pending

    def overdue(self, pending: Pending, now: float) -> Silence:
        """The timer of a request is due. Returns what it has come to; an expired one is gone."""
        if now >= pending.sent + self._expiry_s:
            pending.silence = Silence.EXPIRED
            self._remove(pending)
            return Silence.EXPIRED
        _, given_up_s = self._silence_s(pending)
        late = pending.silence is Silence.USUAL and now < pending.sent + given_up_s
        pending.silence = Silence.LATE if late else Silence.STALLED
        pending.timer = self._timers.add(pending.sent + (given_up_s if late else self._expiry_s), pending)
        return pending.silence

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

    def _open(self, pending: Pending, now: float, patience: float) -> None:
        """A request is being sent. patience: how many times the usual it may be silent."""
        peer = pending.info.peer
        self._pending[pending.id] = pending
        known = self._by_peer.get(peer)
        if known is None:
            self._by_peer[peer] = {pending.id: pending}
        else:
            known[pending.id] = pending
        pending.sent, pending.patience = now, patience
        self._wait(pending, now)

    def _wait(self, pending: Pending, now: float) -> None:
        """Set the first timer of a request, at `now` at the earliest. One that nobody else is asked in place of is
        never late."""
        late_s, given_up_s = self._silence_s(pending)
        hedged = pending.errand is not None
        due = pending.sent + (late_s if hedged else given_up_s)
        pending.timer = self._timers.add(max(due, now), pending)

    def _silence_s(self, pending: Pending) -> tuple[float, float]:
        late_s, given_up_s = self._round_trips.silence_s(pending.info.peer, dialled=pending.dialled)
        patience, longest = pending.patience, self._expiry_s
        return min(patience * late_s, longest), min(patience * given_up_s, longest)

    def _reconsider(self, dialled: bool, now: float) -> None:
        """The first answers tell how long others may take that were asked before anything was known."""
        for pending in self._pending.values():
            if pending.dialled is dialled and pending.silence is Silence.USUAL:
                self._timers.cancel(pending.timer)
                self._wait(pending, now)

    def _remove(self, pending: Pending) -> None:
        del self._pending[pending.id]
        peer = pending.info.peer
        known = self._by_peer[peer]
        del known[pending.id]
        if not known:
            del self._by_peer[peer]
