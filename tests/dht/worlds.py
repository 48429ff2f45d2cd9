"""Made-up networks for lookups alone: who knows whom, and how each peer treats a request."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from hypothesis import strategies as st

from swarmp2p.dht.keys import peer_key
from swarmp2p.dht.lookup import Lookup
from swarmp2p.engine import PeerInfo
from swarmp2p.identity import PeerId

from .network import peer_id, peer_info


def infos(*numbers: int) -> list[PeerInfo]:
    return [peer_info(number) for number in numbers]


def peers(*numbers: int) -> list[PeerId]:
    return [peer_id(number) for number in numbers]


def asked(lookup: Lookup) -> list[PeerId]:
    return [info.peer for info in lookup.next()]


def is_done(lookup: Lookup) -> bool:
    return lookup.done  # a function, for type checkers that take an attribute to stay as it was


@dataclass
class World:
    """Peers that know some others, and how each treats a request."""

    knows: dict[PeerId, list[PeerInfo]]
    behaviour: dict[PeerId, str]

    def play(self, lookup: Lookup, alpha: int, rng: Random) -> list[PeerId]:
        """Run a lookup to its end in a random order of events; returns who was asked, in order."""
        order: list[PeerId] = []
        waiting: list[PeerId] = []
        late: list[PeerId] = []
        stalled: list[PeerId] = []
        for info in lookup.next():
            waiting.append(info.peer)
        while not lookup.done:
            order += [peer for peer in waiting if peer not in order]
            assert len(waiting) <= alpha
            assert lookup.in_flight == len(waiting)
            pools = [pool for pool in (waiting, late, stalled) if pool]
            assert pools, "it waits for nothing"
            pool = waiting if waiting and rng.random() < 0.7 else rng.choice(pools)
            peer = pool.pop(rng.randrange(len(pool)))
            behaviour = self.behaviour.get(peer, "answers")
            if behaviour in ("late", "slow") and pool is waiting and rng.random() < 0.8:
                lookup.late(peer)
                late.append(peer)
            elif behaviour == "slow" and pool is not stalled:
                lookup.stalled(peer)
                stalled.append(peer)
            elif behaviour == "dead":
                lookup.failed(peer)
            else:
                lookup.answered(peer, self.knows.get(peer, []))
            waiting += [info.peer for info in lookup.next()]
        return order


@st.composite
def worlds(draw: st.DrawFn, faults: bool) -> tuple[World, list[int], Random]:
    size = draw(st.integers(1, 60))
    rng = Random(draw(st.integers(0, 1 << 30)))
    knows = {
        peer_id(n): infos(*rng.sample(range(1, size + 1), min(size, rng.randrange(8))))
        for n in range(1, size + 1)
    }
    behaviour = {}
    if faults:
        behaviour = {
            peer_id(n): rng.choice(["answers", "answers", "late", "slow", "dead"]) for n in range(1, size + 1)
        }
    seeds = rng.sample(range(1, size + 1), min(size, draw(st.integers(1, 5))))
    return World(knows, behaviour), seeds, rng


def full_tables(size: int, k: int, target: int, rng: Random) -> World:
    """Peers 1 to `size`, each of which answers with the k nearest of a Kademlia table filled to the brim."""
    everybody = [peer_id(number) for number in range(1, size + 1)]
    knows: dict[PeerId, list[PeerInfo]] = {}
    for peer in everybody:
        buckets: dict[int, list[PeerId]] = {}
        for other in everybody:
            if other != peer:
                buckets.setdefault((peer_key(peer) ^ peer_key(other)).bit_length(), []).append(other)
        table = [other for bucket in buckets.values() for other in rng.sample(bucket, min(k, len(bucket)))]
        nearest = sorted(table, key=lambda other: peer_key(other) ^ target)[:k]
        knows[peer] = [PeerInfo(other, (b"x",)) for other in nearest]
    return World(knows, {})
