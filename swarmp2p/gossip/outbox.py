"""What waits to leave: per peer, one RPC's worth at a time.

Ordinarily everything leaves with the call that caused it, or within the topic's flush interval. When the network says
that it has a backlog for a peer (engine.Congested), what is for that peer waits here instead of in the network's
queue: here control goes first, a source's newer load signal takes the place of its older one, and a message that the
peer turns out to have is taken back. Once the backlog is gone, what waited leaves in portions, so that the network
can say again that it is enough. Nobody else waits for a slow peer.

    normal --Congested--> held --no longer--> catching up --all has left--> normal
                            ^------Congested------+
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence

from ..engine import Send
from ..identity import PeerId
from .config import GossipConfig, GossipStats
from .events import GossipMessage
from .messages import MAX_RPC_BYTES, Exchanged, IHave, Prune, Rpc

_SPLIT_BYTES = MAX_RPC_BYTES // 2
"""RPCs are begun anew above this estimate; half the limit leaves room for what the estimate leaves out."""

_PORTION_BYTES = 65_536
_PORTION_S = 0.005
"""What leaves at once for a peer that is catching up, and seconds until more does: 13 MB/s, unless the network calls a
halt. Our choice: it leaves the network time to."""

_MAX_EXCHANGES = 16
"""PRUNEs that name others in one RPC; each names up to 17 kB of them, and those of further topics nobody."""


class _Control:
    """Everything for one peer but published messages. A later word on a topic replaces an earlier one."""

    __slots__ = ("grafts", "ihaves", "iwants", "prunes", "subscriptions")

    def __init__(self) -> None:
        self.subscriptions: dict[str, bool] = {}
        self.ihaves: list[IHave] = []
        self.iwants: list[bytes] = []
        self.grafts: dict[str, None] = {}
        self.prunes: dict[str, Prune] = {}

    @property
    def empty(self) -> bool:
        """Whether there is nothing to say."""
        return not (self.subscriptions or self.ihaves or self.iwants or self.grafts or self.prunes)

    @property
    def only_ihave(self) -> IHave | None:
        """The one IHAVE, where there is nothing else."""
        if len(self.ihaves) != 1 or self.subscriptions or self.iwants or self.grafts or self.prunes:
            return None
        return self.ihaves[0]


class _Waiting:
    """Published messages for one peer, at least one between calls, and their size in bytes. newest: of messages that a
    newer one replaces, the one that waits, by key; those taken back since may still be named."""

    __slots__ = ("messages", "newest", "size")

    def __init__(self) -> None:
        self.messages: dict[bytes, GossipMessage] = {}
        self.newest: dict[Hashable, bytes] = {}
        self.size = 0

    def take(self, message_id: bytes) -> bool:
        """Take a message out; whether it was there."""
        message = self.messages.pop(message_id, None)
        if message is None:
            return False
        self.size -= message.sent_bytes
        return True


class Outbox:
    """Collects what the engine has to say and hands it out as few RPCs, control before messages.

    Bounded per peer: `max_queued` messages and `max_queued_bytes`, what exceeds them is dropped and counted as
    queue_full (IHAVE will offer it again). Control is bounded by the engine's own limits; gossip about messages,
    which would grow, is not begun with a congested peer.
    """

    __slots__ = (
        "_config",
        "_control",
        "_due",
        "_interval_s",
        "_patient_s",
        "_publish",
        "_ready",
        "_slow",
        "_stats",
    )

    def __init__(self, config: GossipConfig, stats: GossipStats) -> None:
        self._config, self._stats = config, stats
        self._interval_s = config.flush_interval_s
        self._control: dict[PeerId, _Control] = {}
        self._publish: dict[PeerId, _Waiting] = {}
        self._ready: dict[PeerId, None] = {}  # something for them leaves with this call
        self._patient_s = math.inf  # the shortest interval of what this call has queued besides
        self._due = math.inf  # when everything leaves
        self._slow: dict[PeerId, bool] = {}  # True while held, False while catching up

    def stirred(self) -> bool:
        """Whether anything came in since the last flush."""
        return bool(self._ready) or self._patient_s < math.inf

    @property
    def queued(self) -> int:
        """Messages that wait for the peer with the most of them."""
        return max((len(waiting.messages) for waiting in self._publish.values()), default=0)

    def sizes(self) -> dict[str, int]:
        """How many entries the tables hold, of the peer with the most of them where there is one for each."""
        return {
            "queued": self.queued,
            "slow": len(self._slow),
            "replaceable": max((len(waiting.newest) for waiting in self._publish.values()), default=0),
        }

    def deadline(self) -> float:
        """When `flush` is wanted, besides after calls that stirred it."""
        return self._due

    def message(
        self,
        peers: Sequence[PeerId],
        message_id: bytes,
        message: GossipMessage,
        interval_s: float = 0.0,
        replaces: Hashable = None,
    ) -> None:
        """Send a published message to these peers; at most once within a flush to each. interval_s: it may wait that
        long for others. replaces: it takes the place of one that waits and was given the same value."""
        publish, ready, config = self._publish, self._ready, self._config
        added = message.sent_bytes
        if interval_s and peers:
            self._patient_s = min(self._patient_s, interval_s)
        for to in peers:
            if not interval_s:
                ready[to] = None
            waiting = publish.get(to)
            if waiting is None:
                waiting = publish[to] = _Waiting()
            elif message_id in waiting.messages:
                continue
            if replaces is not None:
                self._replace(waiting, message_id, replaces)
            messages, size = waiting.messages, waiting.size + added
            if messages and (len(messages) >= config.max_queued or size > config.max_queued_bytes):
                self._stats.queue_full += 1
                continue
            messages[message_id] = message
            waiting.size = size

    def _replace(self, waiting: _Waiting, message_id: bytes, key: Hashable) -> None:
        newest = waiting.newest
        older = newest.get(key)
        newest[key] = message_id
        if older is not None:
            self._stats.superseded += waiting.take(older)
        elif len(newest) > 2 * self._config.max_queued:  # some were taken back, or found the queue full
            waiting.newest = {key: name for key, name in newest.items() if name in waiting.messages}

    def cancel(self, to: PeerId, message_id: bytes) -> bool:
        """The peer has that message already. Returns whether it waited."""
        waiting = self._publish.get(to)
        if waiting is None or not waiting.take(message_id):
            return False
        if not waiting.messages:
            del self._publish[to]
        return True

    def subscriptions(self, to: PeerId, topics: Iterable[str], joined: bool) -> None:
        """Announce topics joined or left."""
        pending = self._pending(to).subscriptions
        for topic in topics:
            pending.pop(topic, None)
            pending[topic] = joined

    def ihave(self, to: PeerId, have: IHave) -> None:
        """Advertise messages."""
        self._pending(to).ihaves.append(have)

    def iwant(self, to: PeerId, ids: Iterable[bytes]) -> None:
        """Ask for messages."""
        self._pending(to).iwants.extend(ids)

    def graft(self, to: PeerId, topic: str) -> None:
        """Take the peer into the mesh of a topic."""
        pending = self._pending(to)
        pending.prunes.pop(topic, None)
        pending.grafts[topic] = None

    def prune(self, to: PeerId, topic: str, backoff_s: float, named: tuple[Exchanged, ...] = ()) -> None:
        """Take the peer out of the mesh of a topic, or refuse its GRAFT. named: whom to go to instead."""
        pending = self._pending(to)
        pending.grafts.pop(topic, None)
        if len(pending.prunes) >= _MAX_EXCHANGES:
            named = ()
        # Rounded down, GRAFTs would come too early.
        pending.prunes[topic] = Prune(topic, math.ceil(backoff_s), named)

    def take_back_graft(self, to: PeerId, topic: str) -> None:
        """Do not send a GRAFT that still waits: the peer does not want it."""
        pending = self._control.get(to)
        if pending is not None and topic in pending.grafts:
            del pending.grafts[topic]
            if pending.empty:
                del self._control[to]

    def forget(self, peer: PeerId) -> None:
        """The peer is gone, and with it all that waited for it."""
        self._control.pop(peer, None)
        waiting = self._publish.pop(peer, None)
        if waiting is not None:
            self._stats.peer_gone += len(waiting.messages)
        self._slow.pop(peer, None)

    # Slow peers ---------------------------------------------------------------------------------------------

    def congested(self, peer: PeerId) -> bool:
        """Whether what is for a peer waits for the network."""
        return self._slow.get(peer, False)

    def hold(self, peer: PeerId) -> None:
        """The network has enough for a peer."""
        self._slow[peer] = True

    def release(self, peer: PeerId, now: float) -> None:
        """It has room again."""
        if peer not in self._control and peer not in self._publish:
            self._slow.pop(peer, None)
        elif peer in self._slow:
            self._slow[peer] = False
            self._due = min(self._due, now)

    def flush(self, now: float) -> list[Send]:
        """What is to leave now, as few RPCs as fit."""
        if self._patient_s < math.inf:
            self._due = min(self._due, now + self._patient_s)
            self._patient_s = math.inf
        if self._due <= now or self._due == math.inf:
            self._due = math.inf
            if not self._slow:
                control, publish = self._control, self._publish
                self._control, self._publish = {}, {}
            else:
                control, publish = self._collect([*dict.fromkeys((*self._control, *self._publish))], now)
        else:
            control, publish = self._collect(self._ready, now)
        if self._ready:
            self._ready = {}
        return _rpcs(control, publish)

    def _collect(
        self, peers: Iterable[PeerId], now: float
    ) -> tuple[dict[PeerId, _Control], dict[PeerId, _Waiting]]:
        """Take out what is for these peers, as far as it may leave."""
        control: dict[PeerId, _Control] = {}
        publish: dict[PeerId, _Waiting] = {}
        for peer in peers:
            held = self._slow.get(peer)
            if held:
                continue
            pending = self._control.pop(peer, None)
            if pending is not None:
                control[peer] = pending
            waiting = self._publish.get(peer)
            if waiting is not None and held is not None:
                waiting = self._portion(peer, waiting, now)
            elif waiting is not None:
                del self._publish[peer]
            if waiting is not None:
                publish[peer] = waiting
            if peer not in self._publish:
                self._slow.pop(peer, None)
        return control, publish

    def _portion(self, peer: PeerId, waiting: _Waiting, now: float) -> _Waiting:
        """The oldest of what waits for a peer that catches up."""
        portion = _Waiting()
        for message_id, message in waiting.messages.items():
            size = portion.size + message.sent_bytes
            if portion.messages and size > _PORTION_BYTES:
                break
            portion.messages[message_id] = message
            portion.size = size
        for message_id in portion.messages:
            self.cancel(peer, message_id)
        if peer in self._publish:
            self._due = min(self._due, now + _PORTION_S)
        return portion

    def _pending(self, to: PeerId) -> _Control:
        if self._interval_s:
            self._patient_s = min(self._patient_s, self._interval_s)
        else:
            self._ready[to] = None
        pending = self._control.get(to)
        if pending is None:
            pending = self._control[to] = _Control()
        return pending


def _rpcs(control: dict[PeerId, _Control], publish: dict[PeerId, _Waiting]) -> list[Send]:
    """All of it as few RPCs as fit, peers with control first."""
    out: list[Send] = []
    gossip: IHave | None = None  # so is what a heartbeat offers to a quarter of all peers
    gossip_rpc = Rpc()
    for peer, pending in control.items():
        waiting = publish.pop(peer, None)
        offer = pending.only_ihave if waiting is None else None
        if offer is None:
            _send_control(out, peer, pending, waiting)
            continue
        if offer is not gossip:
            gossip, gossip_rpc = offer, Rpc(ihave=(offer,))
        out.append(Send(peer, gossip_rpc))
    shared: GossipMessage | None = None  # a message on its way to the whole mesh is one Rpc for all
    shared_rpc = Rpc()
    for peer, waiting in publish.items():
        messages = waiting.messages
        if len(messages) > 1:
            out.extend(Send(peer, Rpc(publish=part)) for part in _split(waiting, 0))
            continue
        (message,) = messages.values()
        if message is not shared:
            shared, shared_rpc = message, Rpc(publish=(message,))
        out.append(Send(peer, shared_rpc))
    return out


def _send_control(out: list[Send], peer: PeerId, control: _Control, waiting: _Waiting | None) -> None:
    used = 0
    ihaves: list[IHave] = []
    for have in control.ihaves:
        size = sum(map(len, have.ids)) + 3 * len(have.ids)
        if ihaves and used + size > _SPLIT_BYTES:
            out.append(Send(peer, Rpc(ihave=tuple(ihaves))))
            ihaves, used = [], 0
        ihaves.append(have)
        used += size
    iwant_bytes = sum(map(len, control.iwants)) + 3 * len(control.iwants)
    if ihaves and used + iwant_bytes > _SPLIT_BYTES:
        out.append(Send(peer, Rpc(ihave=tuple(ihaves))))
        ihaves, used = [], 0
    used += iwant_bytes
    parts = _split(waiting, used) if waiting else [()]
    out.append(
        Send(
            peer,
            Rpc(
                subscriptions=tuple(control.subscriptions.items()),
                publish=parts[0],
                ihave=tuple(ihaves),
                iwant=tuple(control.iwants),
                graft=tuple(control.grafts),
                prune=tuple(control.prunes.values()),
            ),
        )
    )
    out.extend(Send(peer, Rpc(publish=part)) for part in parts[1:])


def _split(waiting: _Waiting, used: int) -> list[tuple[GossipMessage, ...]]:
    """Messages in parts of about _SPLIT_BYTES; the first part shares its RPC with `used` bytes, and may be
    empty."""
    if used + waiting.size <= _SPLIT_BYTES:
        return [tuple(waiting.messages.values())]
    parts: list[tuple[GossipMessage, ...]] = []
    part: list[GossipMessage] = []
    for message in waiting.messages.values():
        size = message.sent_bytes
        if used and used + size > _SPLIT_BYTES:
            parts.append(tuple(part))
            part, used = [], 0
        part.append(message)
        used += size
    parts.append(tuple(part))
    return parts
