"""Gossip engines alone in virtual time, connected as a scenario wants: a thousand take 100 MB.

Messages carry their number, so that deliveries can be told apart whatever the engine calls them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields

from swarmp2p.engine import Address, Engine
from swarmp2p.gossip.config import GossipConfig
from swarmp2p.gossip.events import Delivered, GossipCommand, GossipOutput, Publish, Subscribe
from swarmp2p.gossip.messages import BareMessages
from swarmp2p.gossip.router import GossipRouter
from swarmp2p.identity import PeerId
from swarmp2p.transport.link import Link
from swarmp2p.transport.sim import Simulator, SimulatorConfig, random_for
from swarmp2p.transport.sim_peers import sim_peer, sim_sign, sim_verify

from .report import percentile

AnyEngine = Engine[GossipCommand, GossipOutput]
TOPIC = "news"
_NUMBER_BYTES = 8


@dataclass(slots=True)
class Message:
    """One publication. at: when, in seconds. missing: who should have it and has not. took_s: by who has it, how
    long it took."""

    source: PeerId
    at: float
    missing: dict[PeerId, None]
    took_s: dict[PeerId, float] = field(default_factory=dict[PeerId, float])

    def only(self, peer: PeerId) -> Message:
        """The same, as if it were meant for one peer alone."""
        missing = {peer: None} if peer in self.missing else {}
        return Message(self.source, self.at, missing, {p: s for p, s in self.took_s.items() if p == peer})


class Deliveries:
    """Who got what, and when.

    Only those count who subscribed and ran when a message was published, and have not left since; who comes later may
    get it too, as a present.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def published(self, source: PeerId, now: float, expected: Iterable[PeerId]) -> int:
        """A message goes out to those who are expected to get it. Returns its number."""
        missing = dict.fromkeys(expected)
        missing.pop(source, None)
        self.messages.append(Message(source, now, missing))
        return len(self.messages) - 1

    def delivered(self, number: int, peer: PeerId, now: float) -> None:
        """A message arrived."""
        message = self.messages[number]
        if peer in message.missing:
            del message.missing[peer]
            message.took_s[peer] = now - message.at

    def left(self, peer: PeerId) -> None:
        """A peer stopped: what it has not got by now, it need not get."""
        for message in self.messages:
            message.missing.pop(peer, None)

    def spread(self, messages: Sequence[Message] | None = None) -> Spread:
        """What came of all messages, or of some."""
        messages = self.messages if messages is None else messages
        took = [took for message in messages for took in message.took_s.values()]
        missed = sum(len(message.missing) for message in messages)
        whole = sum(not message.missing for message in messages)
        return Spread(len(messages), len(took), missed, whole, took)


@dataclass(frozen=True, slots=True)
class Spread:
    """How messages spread. delivered, missed: by and to how many peers, over all messages. whole: messages that
    everybody got. took_s: each delivery's."""

    messages: int
    delivered: int
    missed: int
    whole: int
    took_s: Sequence[float]

    @property
    def share(self) -> float:
        """Of the expected deliveries, those that came."""
        return self.delivered / max(self.delivered + self.missed, 1)

    def ms(self, share: float) -> float:
        """The time within which that share of the deliveries came, in milliseconds."""
        return percentile(self.took_s, share) * 1000.0


class GossipSwarm:
    """A simulator full of gossip engines, all subscribed to one topic.

    nodes: how many. config: the same for all. data_bytes: of each message. around: what stands
    between an engine and the network.

    sim: the simulator. peers: the nodes' ids; `start` adds to them. rng: for the scenario's own choices. expected:
    who should get messages; all that `start` started.
    """

    def __init__(
        self,
        nodes: int,
        seed: int,
        link: Link,
        config: GossipConfig | None = None,
        network: SimulatorConfig | None = None,
        data_bytes: int = 150,
        around: Callable[[GossipRouter], AnyEngine] = lambda engine: engine,
    ) -> None:
        self.sim: Simulator[GossipCommand, GossipOutput] = Simulator(seed, link, self._output, network)
        self.rng = random_for(seed, "scenario")
        self.config = config or GossipConfig()
        self.deliveries = Deliveries()
        self.expected: dict[PeerId, None] = {}
        self.peers: list[PeerId] = []
        self._around = around
        self._routers: dict[PeerId, GossipRouter] = {}
        self._padding = bytes(max(0, data_bytes - _NUMBER_BYTES))
        self._engines = random_for(seed, "engines")
        for _ in range(nodes):
            self.start(sim_peer(len(self.peers)))

    def start(
        self, peer: PeerId, addresses: tuple[Address, ...] | None = None, config: GossipConfig | None = None
    ) -> None:
        """Add a node, also one that crashed."""
        if peer not in self.expected:
            self.peers.append(peer)
        self.expected[peer] = None
        router = GossipRouter(
            peer, sim_sign(peer), sim_verify, self._engines, config or self.config, BareMessages()
        )
        self._routers[peer] = router
        self.sim.add(peer, self._around(router), addresses=addresses)
        self.sim.post(peer, Subscribe(TOPIC))

    def stop(self, peer: PeerId) -> None:
        """Have a node crash."""
        self.sim.crash(peer)
        del self._routers[peer]
        del self.expected[peer]
        self.peers.remove(peer)
        self.deliveries.left(peer)

    def connect(self, links: Iterable[tuple[int, int]]) -> None:
        """Connect nodes by their places in `peers`; the first of each pair is the one that dialled."""
        for a, b in links:
            self.sim.connect(self.peers[a], self.peers[b])

    def publish_later(self, peer: PeerId, delay: float) -> None:
        """Have a node publish `delay` seconds from now, if it runs then."""

        def publish() -> None:
            if peer in self.expected:
                number = self.deliveries.published(peer, self.sim.now, self.expected)
                self.sim.post(peer, Publish(TOPIC, number.to_bytes(_NUMBER_BYTES, "big") + self._padding))

        self.sim.call(publish, delay)

    def router(self, peer: PeerId) -> GossipRouter:
        """The engine of a node that runs."""
        return self._routers[peer]

    def meshes(self) -> list[list[int]]:
        """The mesh of each node, by places in `peers`; of those that are not in `peers`, nothing."""
        place = {peer: index for index, peer in enumerate(self.peers)}
        return [
            [place[other] for other in self.router(peer).mesh(TOPIC) if other in place] for peer in self.peers
        ]

    def stats(self) -> Counter[str]:
        """The counters of all nodes together."""
        total: Counter[str] = Counter()
        for peer in self.peers:
            stats = self.router(peer).stats
            values = {each.name: getattr(stats, each.name) for each in fields(stats)}
            total.update({name: value for name, value in values.items() if isinstance(value, int)})
        return total

    def _output(self, now: float, peer: PeerId, output: object) -> None:
        if isinstance(output, Delivered):
            number = int.from_bytes(output.message.data[:_NUMBER_BYTES], "big")
            self.deliveries.delivered(number, peer, now)
