"""Engines in virtual time, for the tests of this package: one heap of events, links with delay and loss."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from random import Random
from typing import Any

from swarmp2p.engine import Disconnect, Engine, Introduce, Message, PeerDown, PeerUp, Received, Send, Tick
from swarmp2p.gossip.config import GossipConfig
from swarmp2p.gossip.events import Delivered, GossipMessage, Subscribe
from swarmp2p.gossip.messages import BareMessages
from swarmp2p.gossip.router import GossipRouter
from swarmp2p.identity import PeerId

AnyEngine = Engine[Any, Any]
TRUE_SIGNATURE = b"true"


def peer_id(number: int) -> PeerId:
    """A peer that exists in tests alone."""
    return PeerId.from_public_key(number.to_bytes(32, "big"))


def stub_sign(_data: bytes) -> bytes:
    return TRUE_SIGNATURE


def stub_verify(_peer: PeerId, _data: bytes, signature: bytes) -> bool:
    return signature == TRUE_SIGNATURE


def router(number: int, config: GossipConfig | None = None, seed: int = 0) -> GossipRouter:
    """An engine whose messages are neither encoded nor signed."""
    rng = Random(seed * 1_000_003 + number)
    return GossipRouter(peer_id(number), stub_sign, stub_verify, rng, config, BareMessages())


def message(
    source: int, seqno: int, topic: str = "t", data: bytes = b"data", signature: bytes = TRUE_SIGNATURE
) -> GossipMessage:
    """A message as another test router would make it."""
    return GossipMessage(peer_id(source), seqno.to_bytes(8, "big"), topic, data, signature)


class Net:
    """Runs engines against each other. Links keep order, as streams do.

    carry: what happens to a message on its way, such as encoding and decoding it.
    """

    def __init__(
        self,
        seed: int = 0,
        delay_s: float = 0.01,
        loss: float = 0.0,
        carry: Callable[[PeerId, Message], Message] = lambda sender, message: message,
    ) -> None:
        self.rng = Random(seed)
        self.now = 0.0
        self.delay_s, self.loss, self.carry = delay_s, loss, carry
        self.engines: dict[PeerId, AnyEngine] = {}
        self.links: dict[PeerId, dict[PeerId, None]] = {}
        self.outputs: dict[PeerId, list[Any]] = {}
        self.sent: list[tuple[float, PeerId, PeerId, Message]] = []
        self.record = True
        self.events = 0
        self._heap: list[tuple[float, int, PeerId, Any]] = []
        self._ticket = 0
        self._tick_at: dict[PeerId, float] = {}

    def add(self, peer: PeerId, engine: AnyEngine) -> None:
        """An engine without links."""
        self.engines[peer] = engine
        self.links[peer] = {}
        self.outputs[peer] = []
        self._tick_at[peer] = math.inf

    def connect(self, one: PeerId, other: PeerId) -> None:
        """Both see the other come up."""
        self.links[one][other] = None
        self.links[other][one] = None
        self.handle(one, PeerUp(other))
        self.handle(other, PeerUp(one))

    def disconnect(self, one: PeerId, other: PeerId) -> None:
        """Both see the other go down; what is on its way is lost."""
        del self.links[one][other], self.links[other][one]
        self.handle(one, PeerDown(other))
        self.handle(other, PeerDown(one))

    def post(self, peer: PeerId, event: Any, at: float) -> None:
        """Hand an event to an engine later."""
        self._ticket += 1
        heapq.heappush(self._heap, (at, self._ticket, peer, event))

    def handle(self, peer: PeerId, event: Any) -> None:
        """Hand an event to an engine now."""
        engine = self.engines[peer]
        self.events += 1
        for output in engine.handle(event, self.now):
            if isinstance(output, Send):
                self._send(peer, output)
            elif isinstance(output, Introduce | Disconnect):
                raise AssertionError(f"gossip engines do not manage connections: {output}")
            elif self.record:
                self.outputs[peer].append(output)
        due = engine.deadline()
        if due < self._tick_at[peer]:
            self._tick_at[peer] = due
            self.post(peer, Tick(), max(due, self.now))

    def run(self, until: float) -> None:
        """Handle everything up to a time."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _, peer, event = heapq.heappop(self._heap)
            if isinstance(event, Tick):
                if self._tick_at[peer] != self.now:
                    continue
                self._tick_at[peer] = math.inf
                due = self.engines[peer].deadline()
                self.handle(peer, event)
                if due <= self.now:
                    assert self.engines[peer].deadline() > self.now, "a due tick moves the deadline"
            elif isinstance(event, Received) and event.sender not in self.links[peer]:
                continue
            else:
                self.handle(peer, event)
        self.now = until

    def delivered(self, peer: PeerId) -> list[GossipMessage]:
        """Messages that an engine delivered, in order."""
        return [output.message for output in self.outputs[peer] if isinstance(output, Delivered)]

    def _send(self, sender: PeerId, send: Send) -> None:
        assert send.to != sender, "an engine sent to itself"
        if send.to not in self.links[sender]:
            return
        if self.record:
            self.sent.append((self.now, sender, send.to, send.message))
        if self.loss and self.rng.random() < self.loss:
            return
        received = Received(sender, self.carry(sender, send.message))
        self.post(send.to, received, self.now + self.delay_s)


def random_links(count: int, degree: int, rng: Random) -> list[tuple[int, int]]:
    """A connected graph of about `degree` links a node: a ring, and random links besides."""
    links = {(n, (n + 1) % count) for n in range(count)} if count > 2 else {(0, 1)}
    seen = {frozenset(pair) for pair in links}
    out = sorted(links)
    while len(out) < count * degree // 2 and len(seen) < count * (count - 1) // 2:
        pair = rng.sample(range(count), 2)
        if frozenset(pair) not in seen:
            seen.add(frozenset(pair))
            out.append((pair[0], pair[1]))
    return out


def gossip_net(
    count: int,
    degree: int = 8,
    config: GossipConfig | None = None,
    seed: int = 0,
    loss: float = 0.0,
    topic: str = "t",
) -> Net:
    """Connected routers, all subscribed to a topic, after 3 s of heartbeats (without loss so far)."""
    net = Net(seed)
    for number in range(count):
        net.add(peer_id(number), router(number, config, seed))
        net.handle(peer_id(number), Subscribe(topic))
    for one, other in random_links(count, degree, Random(seed)):
        net.connect(peer_id(one), peer_id(other))
    net.run(3.0)
    net.loss = loss
    return net
