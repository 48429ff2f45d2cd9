"""Swarms in virtual time: the engines that run over libp2p, with stand-ins for keys only.

`Swarm` is made of whole nodes, `DhtSwarm` of DHT engines alone, which are lighter: ten thousand take 1 GB.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Sequence
from random import Random
from typing import Generic

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import DhtCommand, DhtOutput, Join, SetAddresses
from swarmp2p.dht.kademlia import Kademlia
from swarmp2p.dht.keys import ID_BITS, peer_key
from swarmp2p.engine import Address, Command, Engine, Output, PeerInfo
from swarmp2p.errors import SealedBoxError
from swarmp2p.gossip.messages import BareMessages
from swarmp2p.identity import PeerId
from swarmp2p.node import NodeCommand, NodeConfig, NodeEngine, NodeOutput
from swarmp2p.ray_bridge.auth import LeaseKeys
from swarmp2p.transport.link import Link
from swarmp2p.transport.sim import Simulator, SimulatorConfig, random_for
from swarmp2p.transport.sim_peers import sim_peer, sim_sign, sim_verify


def sim_keys(peer: PeerId, rng: Random) -> LeaseKeys:
    """Stand-ins for a peer's keys: nothing is secret, but what is for another peer is told apart."""

    def seal_to(target: PeerId, data: bytes) -> bytes:
        return bytes(target) + data

    def open_sealed(box: bytes) -> bytes:
        if not box.startswith(peer):
            raise SealedBoxError("the box was sealed to another peer")
        return box[len(peer) :]

    return LeaseKeys(sim_sign(peer), sim_verify, seal_to, open_sealed, rng.randbytes)


class _Swarm(ABC, Generic[Command, Output]):
    """A simulator full of engines of one class.

    nodes: how many. seed: of everything. link: between any two of them. network: settings of the simulator.

    sim: the simulator. peers: the nodes' ids; the first is the one that the others join through. rng: for the
    scenario's own choices.
    """

    def __init__(self, nodes: int, seed: int, link: Link, network: SimulatorConfig | None) -> None:
        self.sim: Simulator[Command | DhtCommand, Output] = Simulator(seed, link, self._output, network)
        self.rng = random_for(seed, "scenario")
        self.peers = [sim_peer(index) for index in range(nodes)]
        self._engines = random_for(seed, "engines")
        self._queries = 0
        self._waiting: dict[int, Callable[[float, PeerId, Output], None]] = {}
        self._listeners: dict[type, Callable[[float, PeerId, Output], None]] = {}
        for peer in self.peers:
            self.start(peer)

    @abstractmethod
    def _engine(self, peer: PeerId) -> Engine[Command | DhtCommand, Output]:
        """A new node."""

    @abstractmethod
    def dht(self, peer: PeerId) -> Kademlia:
        """The DHT engine of a node that runs."""

    def start(self, peer: PeerId, addresses: tuple[Address, ...] | None = None) -> None:
        """Add a node, also one that crashed. addresses: where it listens; new ones by default."""
        self.sim.add(peer, self._engine(peer), addresses=addresses)
        self.sim.post(peer, SetAddresses(self.sim.addresses(peer)))

    def info(self, peer: PeerId) -> PeerInfo:
        """A peer and its addresses."""
        return PeerInfo(peer, self.sim.addresses(peer))

    def ask(
        self,
        peer: PeerId,
        make: Callable[[int], Command | DhtCommand],
        on_output: Callable[[float, PeerId, Output], None],
        delay: float = 0.0,
    ) -> None:
        """Post a command that carries a query number, which `make` gets; its outputs go to `on_output`."""
        self._queries += 1
        self._waiting[self._queries] = on_output
        self.sim.post(peer, make(self._queries), delay)

    def listen(self, kind: type, on_output: Callable[[float, PeerId, Output], None]) -> None:
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

            def joined(now: float, peer: PeerId, output: Output, start: float = start) -> None:
                took.append(now - start)

            self.ask(peer, lambda query: Join(query, through), joined, start)
        return took

    def fill_tables(
        self, peers: Sequence[PeerId] | None = None, among: Sequence[PeerId] | None = None
    ) -> None:
        """Give nodes the routing tables of a swarm that has run for long, without the traffic of joining:
        the k nearest peers, and in each bucket k random ones of those that belong there, or all of them.

        peers: whose tables, all by default. among: whom they may know, all nodes by default.
        """
        known = sorted((peer_key(peer), peer) for peer in (self.peers if among is None else among))
        ids = [key for key, _ in known]
        among_ids = dict.fromkeys(ids)
        for peer in self.peers if peers is None else peers:
            dht, own = self.dht(peer), peer_key(peer)
            k, itself = dht.config.k, own in among_ids
            low, high = 0, len(ids)  # those that share the bits so far
            for bit in range(ID_BITS - 1, -1, -1):
                middle = bisect_left(ids, (own >> bit | 1) << bit, low, high)
                if own >> bit & 1:
                    others, low = range(low, middle), middle
                else:
                    others, high = range(middle, high), middle
                chosen = others if len(others) <= k else self._some(others, ids, own, k, high - low - itself)
                for place in chosen:
                    dht.table.add(self.info(known[place][1]), self.sim.now)
                if high - low <= itself:
                    break

    def _some(self, others: Sequence[int], ids: Sequence[int], own: int, k: int, nearer: int) -> list[int]:
        """k of a bucket's peers; the nearest of them first where fewer than k are `nearer`."""
        nearest = sorted(others, key=lambda place: ids[place] ^ own)[: max(0, k - nearer)]
        rest = [place for place in others if place not in nearest] if nearest else others
        return nearest + self.rng.sample(rest, k - len(nearest))

    def _output(self, now: float, peer: PeerId, output: Output) -> None:
        query = getattr(output, "query", None)
        handler = self._listeners.get(type(output)) if query is None else self._waiting.get(query)
        if handler is not None:
            handler(now, peer, output)


class Swarm(_Swarm[NodeCommand, NodeOutput]):
    """A swarm of whole nodes. config: the same for all nodes."""

    def __init__(
        self,
        nodes: int,
        seed: int,
        link: Link,
        config: NodeConfig | None = None,
        network: SimulatorConfig | None = None,
    ) -> None:
        self._config = config or NodeConfig()
        self._form = BareMessages()
        super().__init__(nodes, seed, link, network)

    def _engine(self, peer: PeerId) -> NodeEngine:
        return NodeEngine(peer, sim_keys(peer, self._engines), self._engines, self._config, self._form)

    def node(self, peer: PeerId) -> NodeEngine:
        """The engine of a node that runs."""
        engine = self.sim.engine(peer)
        assert isinstance(engine, NodeEngine)
        return engine

    def dht(self, peer: PeerId) -> Kademlia:
        return self.node(peer).dht


class DhtSwarm(_Swarm[DhtCommand, DhtOutput]):
    """A swarm of DHT engines. config: the same for all nodes."""

    def __init__(
        self,
        nodes: int,
        seed: int,
        link: Link,
        config: DhtConfig | None = None,
        network: SimulatorConfig | None = None,
    ) -> None:
        self._config = config or DhtConfig()
        super().__init__(nodes, seed, link, network)

    def _engine(self, peer: PeerId) -> Engine[DhtCommand, DhtOutput]:
        return Kademlia(peer, sim_sign(peer), sim_verify, self._engines, self._config)

    def dht(self, peer: PeerId) -> Kademlia:
        engine = self.sim.engine(peer)
        assert isinstance(engine, Kademlia)
        return engine
