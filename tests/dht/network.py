"""A network of DHT engines in virtual time, for tests: a heap of events, a fixed delay, optional loss.

The simulator proper is swarmp2p/transport/sim.py; this one is plain enough to be trusted at a glance. As there, a peer
is dialled at the address it was introduced with, both sides get PeerUp, and a dial that nobody answers comes back as
PeerDown.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from random import Random
from typing import TypeVar

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import DhtCommand, DhtOutput, Join, QueryDone, SetAddresses
from swarmp2p.dht.kademlia import Kademlia
from swarmp2p.engine import (
    Address,
    Disconnect,
    Introduce,
    Message,
    NetworkEvent,
    PeerDown,
    PeerInfo,
    PeerUp,
    Protect,
    Received,
    Request,
    Send,
    Serve,
    Speaks,
    Tick,
    Undeliverable,
)
from swarmp2p.identity import PeerId

Output = TypeVar("Output")


def peer_id(number: int) -> PeerId:
    """A peer id of the usual form; nobody has its key."""
    return PeerId.from_public_key(sha256(b"peer %d" % number).digest())


def address(number: int) -> Address:
    """/ip4/10.x.y.z/tcp/4001: a private address for each number."""
    return b"\x04\x0a" + number.to_bytes(3, "big") + b"\x06\x0f\xa1"


def peer_info(number: int) -> PeerInfo:
    """That peer at that address."""
    return PeerInfo(peer_id(number), (address(number),))


def fake_sign(peer: PeerId) -> Callable[[bytes], bytes]:
    """A signature that `fake_verify` accepts."""
    return lambda data: sha256(bytes(peer) + data).digest() * 2


def fake_verify(peer: PeerId, data: bytes, signature: bytes) -> bool:
    """Whether `fake_sign(peer)` made the signature."""
    return signature == sha256(bytes(peer) + data).digest() * 2


@dataclass(eq=False)
class Node:
    """One peer of the network."""

    number: int
    engine: Kademlia
    outputs: list[DhtOutput] = field(default_factory=list[DhtOutput])
    connected: dict[PeerId, None] = field(default_factory=dict[PeerId, None])
    addresses: dict[PeerId, tuple[Address, ...]] = field(default_factory=dict[PeerId, tuple[Address, ...]])
    dialling: dict[PeerId, list[Message]] = field(default_factory=dict[PeerId, list[Message]])
    tick: float = -1.0
    serving: bool = True

    @property
    def id(self) -> PeerId:
        return self.engine.peer

    @property
    def info(self) -> PeerInfo:
        return peer_info(self.number)


class TestNetwork:
    """Some peers and what is under way between them.

    delay_s: one way. loss: probability that a message is lost. mute: peers that nothing is delivered to, though they
    can be dialled. sent: every message with its time, sender and receiver.
    """

    __test__ = False

    def __init__(
        self, seed: int = 1, *, delay_s: float = 0.02, loss: float = 0.0, dial_timeout_s: float = 5.0
    ) -> None:
        self.now = 0.0
        self.events = 0
        self.nodes: dict[PeerId, Node] = {}
        self.mute: set[PeerId] = set()
        self.sent: list[tuple[float, PeerId, PeerId, Message]] = []
        self.rng = Random(seed)
        self.delay_s, self.loss, self.dial_timeout_s = delay_s, loss, dial_timeout_s
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._query = 0

    def add(self, number: int, config: DhtConfig | None = None, *, dialable: bool = True) -> Node:
        """Start a peer."""
        peer = peer_id(number)
        engine = Kademlia(peer, fake_sign(peer), fake_verify, Random(f"engine {number}"), config)
        node = Node(number, engine)
        self.nodes[peer] = node
        self.post(node, SetAddresses((address(number),) if dialable else ()))
        return node

    def crash(self, node: Node) -> None:
        """Stop a peer; those connected get PeerDown one delay later."""
        del self.nodes[node.id]
        for other in list(self.nodes.values()):
            if node.id in other.connected:
                self.after(self.delay_s, partial(self._lose, other, node.id))

    def post(self, node: Node, event: NetworkEvent | DhtCommand) -> None:
        """Hand an event to an engine now."""
        self._handle(node, event)

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something later."""
        self._order += 1
        heapq.heappush(self._heap, (self.now + delay_s, self._order, action))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while self._heap and self._heap[0][0] <= until:
            self._step()
        self.now = until

    def ask(self, node: Node, make: Callable[[int], DhtCommand], limit_s: float = 120.0) -> QueryDone:
        """Post a command with a query number and let time pass until it is done."""
        number = self.start(node, make)
        until = self.now + limit_s
        while (done := self.done(node, number)) is None:
            assert self._heap, f"query {number} of {make(number)} never ended"
            assert self._heap[0][0] <= until, (
                f"query {number} of {make(number)} did not end within {limit_s} s"
            )
            self._step()
        return done

    def start(self, node: Node, make: Callable[[int], DhtCommand]) -> int:
        """Post a command with a query number, which is returned."""
        self._query += 1
        self.post(node, make(self._query))
        return self._query

    def done(self, node: Node, number: int) -> QueryDone | None:
        """How a query ended; each ends once."""
        ends = [output for output in node.outputs if isinstance(output, QueryDone) and output.query == number]
        assert len(ends) <= 1
        return ends[0] if ends else None

    def join(self, node: Node, *bootstrap: Node) -> QueryDone:
        """Have a peer join through others."""
        return self.ask(node, lambda query: Join(query, tuple(other.info for other in bootstrap)))

    def _step(self) -> None:
        self.now, _, action = heapq.heappop(self._heap)
        action()

    def _handle(self, node: Node, event: NetworkEvent | DhtCommand) -> None:
        self.events += 1
        for output in node.engine.handle(event, self.now):
            if isinstance(output, Send):
                self.sent.append((self.now, node.id, output.to, output.message))
                self._send(node, output.to, output.message)
            elif isinstance(output, Introduce):
                node.addresses[output.peer] = output.addresses
                target = self.nodes.get(output.peer)
                if output.peer in node.dialling and target and address(target.number) in output.addresses:
                    self.after(2 * self.delay_s, partial(self._dialled, node, output.peer))
            elif isinstance(output, Disconnect):
                raise AssertionError("the DHT closes no connections")
            elif isinstance(output, Protect):
                pass
            elif isinstance(output, Serve):
                node.serving = output.serving
                for peer in list(node.connected):
                    self.after(
                        self.delay_s, partial(self._tell, peer, Speaks(node.id, "dht", output.serving))
                    )
            else:
                node.outputs.append(output)
        due = node.engine.deadline()
        assert due > self.now or not isinstance(event, Tick), "a due Tick moves the deadline past now"
        if due != node.tick:
            node.tick = due
            if due < float("inf"):
                self.after(max(due - self.now, 0.0), lambda: self._tick(node, due))

    def _tick(self, node: Node, due: float) -> None:
        if node.tick == due and self.nodes.get(node.id) is node:
            node.tick = -1.0
            self._handle(node, Tick())

    def _send(self, node: Node, to: PeerId, message: Message) -> None:
        if to in node.connected:
            if not (self.loss and self.rng.random() < self.loss):
                self.after(self.delay_s, lambda: self._arrive(node.id, to, message))
        elif to in node.dialling:
            node.dialling[to].append(message)
        else:
            node.dialling[to] = [message]
            target = self.nodes.get(to)
            known = node.addresses.get(to, ())
            if not known:
                self.after(0.001, lambda: self._refused(node, to))
            elif target is None or address(target.number) not in known:
                self.after(self.dial_timeout_s, lambda: self._refused(node, to))
            else:
                self.after(2 * self.delay_s, lambda: self._dialled(node, to))

    def _dialled(self, node: Node, to: PeerId) -> None:
        target = self.nodes.get(to)
        if target is None or self.nodes.get(node.id) is not node:
            self._refused(node, to)
            return
        for here, there in ((node, target), (target, node)):
            if there.id not in here.connected:
                here.connected[there.id] = None
                here.addresses[there.id] = there.info.addresses
                self._handle(here, PeerUp(there.id, there.info.addresses))
        for here, there in ((node, target), (target, node)):
            for message in here.dialling.pop(there.id, ()):
                self._send(here, there.id, message)

    def _refused(self, node: Node, to: PeerId) -> None:
        if node.dialling.pop(to, None) is not None and self.nodes.get(node.id) is node:
            self._handle(node, PeerDown(to))

    def _lose(self, node: Node, peer: PeerId) -> None:
        if node.connected.pop(peer, 0) is None and self.nodes.get(node.id) is node:
            self._handle(node, PeerDown(peer))

    def _arrive(self, source: PeerId, to: PeerId, message: Message) -> None:
        target = self.nodes.get(to)
        if target is None or source not in target.connected or to in self.mute:
            return
        if isinstance(message, Request) and message.protocol == "dht" and not target.serving:
            failed = Undeliverable(
                to, "dht", (message.id,) if message.expects_reply else (), unsupported=True
            )
            self.after(self.delay_s, partial(self._tell, source, failed))
            return
        self._handle(target, Received(source, message))

    def _tell(self, peer: PeerId, event: Undeliverable | Speaks) -> None:
        node = self.nodes.get(peer)
        if node is not None and event.peer in node.connected:
            self._handle(node, event)


def grown(count: int, *, seed: int = 1, config: DhtConfig | None = None) -> tuple[TestNetwork, list[Node]]:
    """A network that `count` peers have joined, each through the first."""
    network = TestNetwork(seed)
    nodes = [network.add(number, config) for number in range(count)]
    for node in nodes[1:]:
        network.join(node, nodes[0])
    network.run(5.0)
    return network, nodes
