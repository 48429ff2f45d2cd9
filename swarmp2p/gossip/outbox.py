"""What waits to leave: per peer, one RPC's worth at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..engine import Send
from ..identity import PeerId
from .config import GossipConfig, GossipStats
from .events import GossipMessage
from .messages import MAX_RPC_BYTES, IHave, Prune, Rpc

_SPLIT_BYTES = MAX_RPC_BYTES // 2
"""RPCs are begun anew above this estimate; half the limit leaves room for what the estimate leaves out."""

_MESSAGE_OVERHEAD_BYTES = 256
"""Source, sequence number, signature, framing and a topic of ordinary length."""


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
    def only_ihave(self) -> IHave | None:
        """The one IHAVE, where there is nothing else."""
        if len(self.ihaves) != 1 or self.subscriptions or self.iwants or self.grafts or self.prunes:
            return None
        return self.ihaves[0]


class Outbox:
    """Collects what the engine has to say and hands it out as few RPCs, control before messages.

    Bounded per peer and flush: `max_queued` messages and `max_queued_bytes`, what exceeds them is dropped and
    counted as queue_full (IHAVE will offer it again). Control is bounded by the engine's own limits.
    """

    __slots__ = ("_bytes", "_config", "_control", "_publish", "_stats")

    def __init__(self, config: GossipConfig, stats: GossipStats) -> None:
        self._config, self._stats = config, stats
        self._control: dict[PeerId, _Control] = {}
        self._publish: dict[PeerId, dict[bytes, GossipMessage]] = {}
        self._bytes: dict[PeerId, int] = {}

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._publish or self._control)

    @property
    def queued(self) -> int:
        """Messages that wait for the peer with the most of them."""
        return max(map(len, self._publish.values()), default=0)

    def message(self, to: PeerId, message_id: bytes, message: GossipMessage) -> None:
        """Send a published message; at most once within a flush."""
        waiting = self._publish.get(to)
        if waiting is None:
            self._publish[to] = {message_id: message}
            return
        if message_id in waiting:
            return
        if len(waiting) == 1:
            self._bytes[to] = sum(map(_size, waiting.values()))
        size = self._bytes[to] + _size(message)
        if len(waiting) >= self._config.max_queued or size > self._config.max_queued_bytes:
            self._stats.queue_full += 1
            return
        self._bytes[to] = size
        waiting[message_id] = message

    def cancel(self, to: PeerId, message_id: bytes) -> None:
        """The peer has that message already."""
        waiting = self._publish.get(to)
        if waiting is None or message_id not in waiting:
            return
        size = _size(waiting.pop(message_id))
        if not waiting:
            del self._publish[to]
            self._bytes.pop(to, None)
        elif to in self._bytes:
            self._bytes[to] -= size

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

    def prune(self, to: PeerId, topic: str, backoff_s: float) -> None:
        """Take the peer out of the mesh of a topic, or refuse its GRAFT."""
        pending = self._pending(to)
        pending.grafts.pop(topic, None)
        pending.prunes[topic] = Prune(
            topic, math.ceil(backoff_s)
        )  # rounded down, GRAFTs would come too early

    def forget(self, peer: PeerId) -> None:
        """The peer is gone, and with it all that waited for it."""
        self._control.pop(peer, None)
        self._publish.pop(peer, None)
        self._bytes.pop(peer, None)

    def flush(self) -> list[Send]:
        """Everything that waits, as few RPCs as fit; the outbox is empty afterwards."""
        out: list[Send] = []
        if self._control:
            gossip: IHave | None = None  # so is what a heartbeat offers to a quarter of all peers
            gossip_rpc = Rpc()
            for peer, control in self._control.items():
                waiting = self._publish.pop(peer, None)
                offer = control.only_ihave if waiting is None else None
                if offer is None:
                    self._send_control(out, peer, control, waiting)
                    continue
                if offer is not gossip:
                    gossip, gossip_rpc = offer, Rpc(ihave=(offer,))
                out.append(Send(peer, gossip_rpc))
            self._control = {}
        if self._publish:
            shared: GossipMessage | None = None  # a message on its way to the whole mesh is one Rpc for all
            shared_rpc = Rpc()
            for peer, waiting in self._publish.items():
                if len(waiting) > 1:
                    out.extend(Send(peer, Rpc(publish=part)) for part in _split(waiting.values(), 0))
                    continue
                (message,) = waiting.values()
                if message is not shared:
                    shared, shared_rpc = message, Rpc(publish=(message,))
                out.append(Send(peer, shared_rpc))
            self._publish = {}
        if self._bytes:
            self._bytes = {}
        return out

    def _pending(self, to: PeerId) -> _Control:
        pending = self._control.get(to)
        if pending is None:
            pending = self._control[to] = _Control()
        return pending

    @staticmethod
    def _send_control(
        out: list[Send], peer: PeerId, control: _Control, waiting: dict[bytes, GossipMessage] | None
    ) -> None:
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
        parts = _split(waiting.values(), used) if waiting else [()]
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


def _size(message: GossipMessage) -> int:
    return len(message.raw) or len(message.data) + _MESSAGE_OVERHEAD_BYTES


def _split(messages: Iterable[GossipMessage], used: int) -> list[tuple[GossipMessage, ...]]:
    """Messages in parts of about _SPLIT_BYTES; the first part shares its RPC with `used` bytes, and may be
    empty."""
    parts: list[tuple[GossipMessage, ...]] = []
    part: list[GossipMessage] = []
    for message in messages:
        size = _size(message)
        if used and used + size > _SPLIT_BYTES:
            parts.append(tuple(part))
            part, used = [], 0
        part.append(message)
        used += size
    parts.append(tuple(part))
    return parts
