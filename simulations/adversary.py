"""Peers that collude against the DHT, and swarms with them in.

What they do: they answer each request at once, and name only one another, those nearest to the target first. They
have no records, keep none, and say that they have stored values. They never ask anybody anything.

Two kinds of them: a share of all nodes with ids as they come, as in S/Kademlia §5; and Sybils, whose ids were searched
for until they were nearer to one key than anybody honest.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from random import Random

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import DhtCommand, DhtOutput
from swarmp2p.dht.kademlia import Kademlia
from swarmp2p.dht.keys import ID_BITS, key_id, peer_key
from swarmp2p.dht.messages import (
    FindNode,
    FoundNodes,
    FoundProviders,
    FoundRecord,
    FoundValue,
    GetProviders,
    GetRecord,
    GetValue,
    Ping,
    Pong,
    PutValue,
    ValueStored,
)
from swarmp2p.engine import Address, Engine, Message, NetworkEvent, NetworkOutput, PeerInfo, Received, Send
from swarmp2p.identity import PeerId
from swarmp2p.transport.link import Link
from swarmp2p.transport.sim import random_for
from swarmp2p.transport.sim_peers import sim_peer, sim_sign, sim_verify

from .swarm import DhtSwarm

_POOL_FROM = 1 << 32  # of sim_peer: far from the honest ones


def nearest_places(ids: Sequence[int], target: int, count: int) -> list[int]:
    """Where in a sorted sequence the ids nearest to a target stand, nearest first."""
    low, high = 0, len(ids)
    for bit in range(ID_BITS - 1, -1, -1):  # to the smallest subtree around the target that holds enough
        middle = bisect_left(ids, (target >> bit | 1) << bit, low, high)
        narrower = (middle, high) if target >> bit & 1 else (low, middle)
        if narrower[1] - narrower[0] < count:
            break
        low, high = narrower
    return sorted(range(low, high), key=lambda place: ids[place] ^ target)[:count]


class Gang:
    """Adversaries that know one another. k: how many they name."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._members: dict[PeerId, PeerInfo] = {}
        self._ids: list[int] = []  # sorted; and the members in that order
        self._in_order: list[PeerInfo] = []
        self._named: dict[int, tuple[PeerInfo, ...]] = {}

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._members

    def __len__(self) -> int:
        return len(self._members)

    def join(self, info: PeerInfo) -> None:
        """One more."""
        self._members[info.peer] = info
        self._ids.clear()
        self._named.clear()

    def named(self, target: int, but: PeerId) -> tuple[PeerInfo, ...]:
        """Whom they name for a target."""
        if not self._ids:
            self._in_order = sorted(self._members.values(), key=lambda info: peer_key(info.peer))
            self._ids = [peer_key(info.peer) for info in self._in_order]
        if target not in self._named:
            places = nearest_places(self._ids, target, self._k + 1)
            self._named[target] = tuple(self._in_order[place] for place in places)
        return tuple(info for info in self._named[target] if info.peer != but)[: self._k]


class Adversary(Engine[DhtCommand, DhtOutput]):
    """One of a gang."""

    def __init__(self, peer: PeerId, gang: Gang) -> None:
        self._peer, self._gang = peer, gang

    def deadline(self) -> float:
        return math.inf

    def handle(self, event: NetworkEvent | DhtCommand, now: float) -> Sequence[NetworkOutput | DhtOutput]:
        if isinstance(event, Received):
            reply = self._reply(event.message)
            if reply is not None:
                return [Send(event.sender, reply)]
        return []

    def _reply(self, message: Message) -> Message | None:
        match message:
            case FindNode(id, key):
                return FoundNodes(id, self._gang.named(key_id(key), self._peer))
            case GetProviders(id, key):
                return FoundProviders(id, key, (), self._gang.named(key_id(key), self._peer))
            case GetValue(id, key):
                return FoundValue(id, key, None, 0.0, self._gang.named(key_id(key), self._peer))
            case PutValue(id, key, value):
                return ValueStored(id, key, value)
            case Ping(id):
                return Pong(id)
            case GetRecord(id, _):
                return FoundRecord(id, b"")
            case _:
                return None


class FastAdversaries:
    """A link on which the gang answers sooner than anybody honest could.

    honest: for everybody else. speed: how many times faster.
    """

    def __init__(self, honest: Link, gang: Gang, speed: float) -> None:
        self._honest, self._gang, self._speed = honest, gang, speed

    def delay(self, now: float, source: PeerId, target: PeerId, rng: Random) -> float | None:
        delay = self._honest.delay(now, source, target, rng)
        fast = delay is not None and (source in self._gang or target in self._gang)
        return delay / self._speed if fast and delay is not None else delay


class AttackedSwarm(DhtSwarm):
    """A swarm in which some nodes are adversaries, and Sybils may come later.

    configs: the nodes have these settings in turn, so that one swarm can compare them. adversaries: how many of the
    nodes. speed: how many times sooner they answer than others.

    honest: the other nodes, by their settings' place in `configs`.
    """

    def __init__(
        self,
        nodes: int,
        seed: int,
        link: Link,
        configs: Sequence[DhtConfig] = (),
        *,
        adversaries: int = 0,
        speed: float = 10.0,
    ) -> None:
        configs = configs or [DhtConfig()]
        self.gang = Gang(configs[0].k)
        self._recruits = dict.fromkeys(self._chosen(nodes, seed, adversaries))
        self._configs = {sim_peer(index): configs[index % len(configs)] for index in range(nodes)}
        super().__init__(nodes, seed, FastAdversaries(link, self.gang, speed))
        honest = [peer for peer in self.peers if peer not in self.gang]
        self.honest = [[peer for peer in honest if self._configs[peer] is config] for config in configs]

    def _engine(self, peer: PeerId) -> Engine[DhtCommand, DhtOutput]:
        if peer in self._recruits:
            return Adversary(peer, self.gang)
        return Kademlia(peer, sim_sign(peer), sim_verify, self._engines, self._configs[peer])

    def start(self, peer: PeerId, addresses: tuple[Address, ...] | None = None) -> None:
        super().start(peer, addresses)
        if peer in self._recruits:
            self.gang.join(self.info(peer))

    def fill_honest_tables(self) -> None:
        """As if the swarm had run for long: adversaries are in the tables like anybody else."""
        self.fill_tables([peer for group in self.honest for peer in group])

    def add_sybils(self, sybils: Sequence[PeerId]) -> None:
        """Have adversaries join that connect to each honest peer, and answer when they are asked."""
        for peer in sybils:
            self._recruits[peer] = None
            self.start(peer)
            info = self.info(peer)
            for each in self._configs:
                if each not in self.gang:
                    self.dht(each).table.add(info, self.sim.now)

    @staticmethod
    def _chosen(nodes: int, seed: int, count: int) -> list[PeerId]:
        return [sim_peer(index) for index in random_for(seed, "adversaries").sample(range(nodes), count)]


class SybilPool:
    """Ids that an attacker has made beforehand, to take those nearest to a key from.

    size: how many. With 100 for each honest peer, 20 of them lie within a fifth of the distance at which the nearest
    honest one is expected.
    """

    def __init__(self, size: int) -> None:
        numbered = sorted((peer_key(sim_peer(_POOL_FROM + number)), number) for number in range(size))
        self._ids = [key for key, _ in numbered]
        self._numbers = [number for _, number in numbered]

    def nearest(self, target: int, count: int) -> list[PeerId]:
        """The best ids for an attack on a target."""
        places = nearest_places(self._ids, target, count)
        return [sim_peer(_POOL_FROM + self._numbers[place]) for place in places]
