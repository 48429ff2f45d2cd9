"""What has to hold of a whole network, looked at from outside: functions over a Swarm's engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nsmallest

from swarmp2p.dht.keys import key_id, peer_key
from swarmp2p.dht.messages import FoundProviders, GetProviders
from swarmp2p.engine import Received, Send
from swarmp2p.identity import PeerId

from .swarm import DhtSwarm, Swarm


def true_closest(swarm: Swarm | DhtSwarm, target: int, count: int) -> list[PeerId]:
    """The running peers whose ids are nearest to `target`, nearest first: what every lookup tries to find."""
    return nsmallest(count, swarm.sim.peers, key=lambda peer: peer_key(peer) ^ target)


@dataclass(frozen=True, slots=True)
class Tables:
    """Routing tables. Shares are 0 to 1.

    entries: mean number. live: share of entries whose peers run. neighbours: mean share of a node's k nearest
    peers that its table has. complete: share of nodes that have all of them (61 % in IPFS, ProbeLab RFM19).
    mutual: share of entries that have the node in their own table too.
    """

    entries: float
    live: float
    neighbours: float
    complete: float
    mutual: float


def tables(swarm: Swarm | DhtSwarm, peers: Sequence[PeerId], k: int = 20) -> Tables:
    """Look at the tables of some peers; each costs a pass over all."""
    running = dict.fromkeys(swarm.sim.peers)
    known = [swarm.dht(peer).table for peer in peers]
    entries = live = mutual = complete = 0
    neighbours = 0.0
    for peer, table in zip(peers, known, strict=True):
        nearest = [each for each in true_closest(swarm, peer_key(peer), k + 1) if each != peer][:k]
        found = sum(each in table for each in nearest)
        neighbours += found / max(len(nearest), 1)
        complete += found == len(nearest)
        for entry in table.snapshot():
            entries += 1
            if entry.peer in running:
                live += 1
                mutual += peer in swarm.dht(entry.peer).table
    total, count = max(entries, 1), max(len(peers), 1)
    return Tables(entries / count, live / total, neighbours / count, complete / count, mutual / total)


@dataclass(frozen=True, slots=True)
class Mesh:
    """A topic's mesh. lowest, mean, highest: degree among subscribers. mutual: share of links that both ends
    have in their mesh. reached: share of subscribers that can be reached over mutual links from the first."""

    subscribers: int
    lowest: int
    mean: float
    highest: int
    mutual: float
    reached: float


def mesh(swarm: Swarm, topic: str) -> Mesh:
    """Look at the mesh of a topic."""
    members = {
        peer: dict.fromkeys(swarm.node(peer).gossip.mesh(topic))
        for peer in swarm.sim.peers
        if topic in swarm.node(peer).gossip.topics
    }
    degrees = [len(links) for links in members.values()] or [0]
    links = [(peer, other) for peer, others in members.items() for other in others]
    both = {
        peer: [each for each in others if peer in members.get(each, ())] for peer, others in members.items()
    }
    reached = dict.fromkeys(list(members)[:1])
    waiting = list(reached)
    while waiting:
        new = [each for each in both[waiting.pop()] if each not in reached]
        reached.update(dict.fromkeys(new))
        waiting += new
    return Mesh(
        len(members),
        min(degrees),
        sum(degrees) / len(degrees),
        max(degrees),
        sum(map(len, both.values())) / max(len(links), 1),
        len(reached) / max(len(members), 1),
    )


@dataclass(frozen=True, slots=True)
class Placement:
    """Provider records. held: mean share of a key's k nearest peers that hold its record. orphans: keys whose
    record none of them holds, so that nobody will find it."""

    held: float
    orphans: int


def placement(swarm: Swarm | DhtSwarm, records: Sequence[tuple[bytes, PeerId]], k: int = 20) -> Placement:
    """Ask the k nearest peers of each key for its provider, directly, as a stranger would. For the end of a
    run: their engines take notice of the question."""
    held, orphans = 0.0, 0
    for key, provider in records:
        holders = [peer for peer in true_closest(swarm, key_id(key), k) if peer != provider]
        having = sum(provider in _providers(swarm, peer, key, provider) for peer in holders)
        held += having / max(len(holders), 1)
        orphans += not having
    return Placement(held / max(len(records), 1), orphans)


def _providers(swarm: Swarm | DhtSwarm, peer: PeerId, key: bytes, asker: PeerId) -> list[PeerId]:
    answer = swarm.dht(peer).handle(Received(asker, GetProviders(0, key)), swarm.sim.now)
    return [
        provider.peer
        for output in answer
        if isinstance(output, Send) and isinstance(output.message, FoundProviders)
        for provider in output.message.providers
    ]
