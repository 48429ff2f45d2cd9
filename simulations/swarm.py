"""Whole nodes in virtual time: the engines that run over libp2p, with stand-ins for keys only."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from swarmp2p.dht.events import Join, SetAddresses
from swarmp2p.engine import PeerInfo
from swarmp2p.errors import SealedBoxError
from swarmp2p.gossip.messages import BareMessages
from swarmp2p.identity import PeerId
from swarmp2p.node import NodeCommand, NodeConfig, NodeEngine, NodeOutput
from swarmp2p.ray_bridge.auth import LeaseKeys
from swarmp2p.transport.link import Link
from swarmp2p.transport.sim import Simulator, SimulatorConfig, random_for
from swarmp2p.transport.sim_peers import sim_peer, sim_sign, sim_verify

OnOutput = Callable[[float, PeerId, NodeOutput], None]


def sim_keys(peer: PeerId, rng: Random) -> LeaseKeys:
    """Stand-ins for a peer's keys: nothing is secret, but what is for another peer is told apart."""

    def seal_to(target: PeerId, data: bytes) -> bytes:
        return bytes(target) + data

    def open_sealed(box: bytes) -> bytes:
        if not box.startswith(peer):
            raise SealedBoxError("the box was sealed to another peer")
        return box[len(peer) :]

    return LeaseKeys(sim_sign(peer), sim_verify, seal_to, open_sealed, rng.randbytes)


class Swarm:
    """A simulator full of nodes.

    nodes: how many. seed: of everything. link: between any two of them. config: the same for all nodes.

    sim: the simulator. peers: the nodes' ids; the first is the one that the others join through. rng: for the
    scenario's own choices.
    """

    def __init__(
        self,
        nodes: int,
        seed: int,
        link: Link,
        config: NodeConfig | None = None,
        network: SimulatorConfig | None = None,
    ) -> None:
        self.sim: Simulator[NodeCommand, NodeOutput] = Simulator(seed, link, self._output, network)
        self.rng = random_for(seed, "scenario")
        self.peers = [sim_peer(index) for index in range(nodes)]
        self._config = config or NodeConfig()
        self._engines = random_for(seed, "engines")
        self._form = BareMessages()
        self._queries = 0
        self._waiting: dict[int, OnOutput] = {}
        self._listeners: dict[type, OnOutput] = {}
        for peer in self.peers:
            self.start(peer)

    def start(self, peer: PeerId) -> None:
        """Add a node, also one that crashed."""
        keys = sim_keys(peer, self._engines)
        self.sim.add(peer, NodeEngine(peer, keys, self._engines, self._config, self._form))
        self.sim.post(peer, SetAddresses(self.sim.addresses(peer)))

    def node(self, peer: PeerId) -> NodeEngine:
        """The engine of a node that runs."""
        engine = self.sim.engine(peer)
        assert isinstance(engine, NodeEngine)
        return engine

    def info(self, peer: PeerId) -> PeerInfo:
        """A peer and its addresses."""
        return PeerInfo(peer, self.sim.addresses(peer))

    def ask(
        self, peer: PeerId, make: Callable[[int], NodeCommand], on_output: OnOutput, delay: float = 0.0
    ) -> None:
        """Post a command that carries a query number, which `make` gets; its outputs go to `on_output`."""
        self._queries += 1
        self._waiting[self._queries] = on_output
        self.sim.post(peer, make(self._queries), delay)

    def listen(self, kind: type, on_output: OnOutput) -> None:
        """Have all outputs of a class go to `on_output`; the others without a query number are dropped."""
        self._listeners[kind] = on_output

    def join_all(self, interval_s: float) -> list[float]:
        """Have the first node start a swarm and the others join through it, one after the other. Returns the
        list to which each join's duration is added when it ends."""
        took: list[float] = []
        through = (self.info(self.peers[0]),)
        self.ask(self.peers[0], lambda query: Join(query, ()), lambda now, peer, output: None)
        for place, peer in enumerate(self.peers[1:], 1):
            start = place * interval_s

            def joined(now: float, peer: PeerId, output: NodeOutput, start: float = start) -> None:
                took.append(now - start)

            self.ask(peer, lambda query: Join(query, through), joined, start)
        return took

    def _output(self, now: float, peer: PeerId, output: NodeOutput) -> None:
        query = getattr(output, "query", None)
        handler = self._listeners.get(type(output)) if query is None else self._waiting.get(query)
        if handler is not None:
            handler(now, peer, output)
