"""Connections between simulated peers: dialled, refused, closed and lost as libp2p's are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from ..engine import (
    Address,
    Engine,
    Introduce,
    Message,
    PeerDown,
    PeerUp,
    Received,
    Reply,
    Request,
    Serve,
    Speaks,
    Undeliverable,
)
from ..identity import PeerId
from .link import Link
from .sim_node import Edge, Node
from .sim_queue import EventQueue

_DIAL_TRIES: Final = 3
_RETRY_S: Final = 1.0  # TCP's first retransmission timeout (RFC 6298 §2.1)
# How long a Send to a peer without an address takes to come back: not 0, so that an engine which sends
# again at once does not stop the time.
_REFUSED_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    """What the network under the engines is like.

    dial_rtts: round trips until a new connection is up; 1 as QUIC has, TCP with Noise and Yamux takes some 4.
    dial_timeout_s: until a dial to a peer that does not answer comes back as PeerDown.
    silence_s: until a peer notices that the other end closed, when the link loses the notice.
    dial_queue: messages that wait for one dial; more are lost.
    max_known: peers whose addresses one peer remembers; beyond, the one remembered first is forgotten.
    signed_records: peers give each other signed peer records (of sim_peers.sim_sign), as identify does.
    """

    dial_rtts: float = 1.0
    dial_timeout_s: float = 5.0
    silence_s: float = 10.0
    dial_queue: int = 64
    max_known: int = 8192
    signed_records: bool = False


@dataclass(frozen=True, slots=True)
class Dialled:
    """The dial is over. target: None when nobody answered. address: the one of the target that was dialled."""

    node: Node
    peer: PeerId
    target: Node | None
    address: Address


@dataclass(frozen=True, slots=True)
class Closed:
    """`node` learns that the other end of its `edge` closed the connection, or died."""

    node: Node
    edge: Edge


@dataclass(frozen=True, slots=True)
class Call:
    """Something that the scenario wants done."""

    action: Callable[[], None]


class _Nobody(Engine[Any, Any]):
    def handle(self, event: object, now: float) -> Sequence[Any]:
        return ()

    def deadline(self) -> float:
        return math.inf


_NOBODY: Final = _Nobody()


class SimNetwork(Engine[Dialled | Closed | Call, None]):
    """All connections. It stands in the queue as an engine of its own, for what only concerns connections,
    so that the simulator's loop has no special case.

    nodes: the peers that run. here: the edge for events of its own. sent, lost: messages. dials: attempts.
    handled: those events.
    """

    def __init__(self, config: SimulatorConfig, link: Link, rng: Random, queue: EventQueue) -> None:
        self.nodes: dict[PeerId, Node] = {}
        self.sent = self.lost = self.dials = self.handled = 0
        self._config, self._link, self._rng = config, link, rng
        self._push = queue.push
        self.here = Node(PeerId(), 0, self).here

    def handle(self, event: object, now: float) -> Sequence[Any]:
        self.handled += 1
        match event:
            case Call(action):
                action()
            case Closed(node, edge):
                peer = edge.target.peer
                if node.up.get(peer) is edge:  # not replaced by a newer connection
                    del node.up[peer]
                    self._push(now, node.here, PeerDown(peer))
            case Dialled():
                self._dialled(event, now)
            case _:
                raise AssertionError(event)
        return ()

    def deadline(self) -> float:
        return math.inf

    def introduce(self, node: Node, output: Introduce) -> None:
        """Remember where a peer can be dialled."""
        if output.addresses and output.peer != node.peer:
            self._remember(node, output.peer, output.addresses)

    def dial(self, node: Node, to: PeerId, message: Message, now: float) -> None:
        """Connect to a peer, with a message that waits for it."""
        waiting = node.dialling.get(to)
        if waiting is not None:
            if len(waiting) < self._config.dial_queue:
                waiting.append(message)
            else:
                self.sent += 1
                self.lost += 1
                if isinstance(message, Request) and message.expects_reply:
                    failed = Undeliverable(to, message.protocol, (message.id,))
                    self._push(now + _REFUSED_S, node.here, failed)
            return
        addresses = node.known.get(to)
        if addresses is None:
            self._push(now + _REFUSED_S, node.here, PeerDown(to))
            return
        node.dialling[to] = [message]
        self.dials += 1
        target = self.nodes.get(to)
        matching = [address for address in addresses if target is not None and address in target.addresses]
        took = self._handshake_s(node.peer, to, now) if matching else None
        if took is None or took > self._config.dial_timeout_s:
            took, target = self._config.dial_timeout_s, None
        self._push(now + took, self.here, Dialled(node, to, target, matching[0] if matching else b""))

    def connect_now(self, node: Node, target: Node, now: float) -> None:
        """Connect two peers as a dial does that takes no time."""
        if target.peer not in node.up and target is not node:
            node.dialling.setdefault(target.peer, [])
            address = target.addresses[0] if target.addresses else target.source
            self._push(now, self.here, Dialled(node, target.peer, target, address))

    def disconnect(self, node: Node, peer: PeerId, now: float) -> None:
        """Close a connection from one side."""
        edge = node.up.pop(peer, None)
        if edge is None:
            return
        self._push(now, node.here, PeerDown(peer))
        self._close(node, edge, now, None)

    def serve(self, node: Node, output: Serve, now: float) -> None:
        """Serve a protocol, or refuse it; who is connected hears of it."""
        if output.serving:
            node.refused.pop(output.protocol, None)
        else:
            node.refused[output.protocol] = None
        for edge in node.up.values():
            self._tell(node, edge, output.protocol, output.serving, now)

    def refuse(self, node: Node, edge: Edge, message: Message, now: float) -> bool:
        """Whether the other side does not serve the protocol of a message; then it comes back, if it is no reply."""
        other = edge.target
        if message.protocol not in other.refused or isinstance(message, Reply):
            return False
        there = self._link.delay(now, node.peer, other.peer, self._rng)
        back = self._link.delay(now, other.peer, node.peer, self._rng)
        if there is not None and back is not None:
            numbers = (message.id,) if isinstance(message, Request) and message.expects_reply else ()
            failed = Undeliverable(other.peer, message.protocol, numbers, unsupported=True)
            self._push(now + there + back, node.here, failed)
        return True

    def _tell(self, node: Node, edge: Edge, protocol: str, serving: bool, now: float) -> None:
        delay = self._link.delay(now, node.peer, edge.target.peer, self._rng)
        if delay is not None:
            edge.last = max(now + delay, edge.last)
            self._push(edge.last, edge, Speaks(node.peer, protocol, serving))

    def crash(self, node: Node, now: float, notice_s: float | None) -> None:
        """End a peer and, after `notice_s`, its connections."""
        del self.nodes[node.peer]
        node.here.open = False
        node.engine = _NOBODY  # for what is under way to it over connections that the other side has closed
        for edge in node.up.values():
            self._close(node, edge, now, notice_s)
        node.up.clear()

    # Inside ---------------------------------------------------------------------------------------------

    def _handshake_s(self, source: PeerId, target: PeerId, now: float) -> float | None:
        for attempt in range(_DIAL_TRIES):
            there = self._link.delay(now, source, target, self._rng)
            back = self._link.delay(now, target, source, self._rng)
            if there is not None and back is not None:
                return attempt * _RETRY_S + self._config.dial_rtts * (there + back)
        return None

    def _dialled(self, event: Dialled, now: float) -> None:
        node, peer, target = event.node, event.peer, event.target
        if not node.here.open:
            return
        if target is not None and target.here.open:
            self._connect(node, target, event.address, True, now)
            self._connect(target, node, node.source, False, now)
            for protocol in node.refused:  # as identify tells the side that was dialled
                self._tell(node, node.up[peer], protocol, False, now)
            self._flush(node, peer, now)
            self._flush(target, node.peer, now)
        elif node.dialling.pop(peer, None) is not None:
            self._push(now, node.here, PeerDown(peer))

    def _connect(self, node: Node, target: Node, remote: Address, outbound: bool, now: float) -> None:
        """Let `node` have a connection to `target`, if it has none."""
        standing = node.up.get(target.peer)
        if standing is not None and standing.open:
            return
        node.up[target.peer] = Edge(node, target)
        if target.addresses:
            self._remember(node, target.peer, target.addresses)
        if standing is None:  # else it has not noticed that the old connection ended, and now never will
            up = PeerUp(target.peer, target.addresses, outbound, remote, target.record)
            self._push(now, node.here, up)

    def _remember(self, node: Node, peer: PeerId, addresses: tuple[Address, ...]) -> None:
        if len(node.known) >= self._config.max_known and peer not in node.known:
            del node.known[next(iter(node.known))]
        node.known[peer] = addresses

    def _flush(self, node: Node, peer: PeerId, now: float) -> None:
        """Send what waited for the connection. (What needs no waiting is sent by the simulator's loop.)"""
        for message in node.dialling.pop(peer, ()):
            edge = node.up[peer]
            self.sent += 1
            if edge.target.refused and self.refuse(node, edge, message, now):
                continue
            delay = self._link.delay(now, node.peer, peer, self._rng)
            if delay is None:
                self.lost += 1
                continue
            edge.last = max(now + delay, edge.last)
            self._push(edge.last, edge, Received(node.peer, message))

    def _close(self, node: Node, edge: Edge, now: float, notice_s: float | None) -> None:
        """Nothing more comes to `node` over the connection, and the other side hears of it, after what was
        sent."""
        other = edge.target
        back = other.up.get(node.peer)
        if back is None:
            return  # the other side closed it too
        back.open = False
        delay = self._link.delay(now, node.peer, other.peer, self._rng) if notice_s is None else notice_s
        if delay is None:
            delay = self._config.silence_s
        self._push(max(now + delay, edge.last), self.here, Closed(other, back))
