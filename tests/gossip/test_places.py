"""Where peers are: what answers and load signals tell, and distances between peers that never spoke."""

from __future__ import annotations

from random import Random

import pytest

from simulations.swarm import Swarm
from swarmp2p.dht.events import FindClosest, Join
from swarmp2p.gossip.coordinates import Coordinate, encode_coordinate
from swarmp2p.gossip.load_signal import LoadSignal
from swarmp2p.gossip.load_table import LoadTable
from swarmp2p.gossip.places import Places
from swarmp2p.identity import PeerId
from swarmp2p.transport.sim_peers import sim_peer

from .network import peer_id

A, B, C = peer_id(1), peer_id(2), peer_id(3)


def at(x: float) -> bytes:
    return encode_coordinate(Coordinate((x, *(0.0,) * 7), 0.001, 0.1))


def places() -> tuple[Places, LoadTable]:
    table = LoadTable()
    return Places(peer_id(0), Random(1), table), table


def test_answers_and_signals_tell_where_peers_are() -> None:
    known, table = places()
    known.round_trip(A, at(0.1), 0.1, 0.0)
    table.offer(B, LoadSignal(sequence=1, expires=50.0, coordinate=at(0.3)), 0.0)
    assert known.distance(A, B) == pytest.approx(0.202, rel=0.01)
    assert known.distance(A, A) == 0.0
    assert known.distance(A, C) is None
    known.round_trip(A, at(0.2), 0.1, 1.0)
    assert known.distance(B, A) == pytest.approx(0.102, rel=0.01), "the newest counts"


def test_a_round_trip_to_a_provider_counts_even_if_its_answer_does_not_say_where_it_is() -> None:
    known, table = places()
    known.round_trip(B, b"", 0.1, 0.0)
    assert known.vivaldi.stats.used == 0
    table.offer(B, LoadSignal(sequence=1, expires=50.0, coordinate=at(0.3)), 0.0)
    known.round_trip(B, b"", 0.1, 1.0)
    assert known.vivaldi.stats.used == 1


def test_who_has_measured_nothing_is_at_no_distance() -> None:
    known, _ = places()
    known.round_trip(A, encode_coordinate(Coordinate()), 0.1, 0.0)
    assert known.distance(A, peer_id(0)) is None


def test_what_is_no_coordinate_is_counted_and_ignored() -> None:
    known, table = places()
    known.round_trip(A, b"junk", 0.1, 0.0)
    table.offer(B, LoadSignal(sequence=1, expires=50.0, coordinate=b"junk"), 0.0)
    assert known.of(A) is known.of(B) is None
    assert known.malformed == 2
    assert known.vivaldi.stats.used == 0


def test_so_many_are_remembered() -> None:
    known, _ = places()
    for number in range(4_200):
        known.round_trip(PeerId.from_public_key(number.to_bytes(32, "big")), at(0.1), 0.1, float(number))
    assert len(known) == 4_096
    assert len(known.vivaldi) == 1_024


class Sites:
    """Two sites, 5 ms from each to the own and 80 ms to the other: one-way half of that."""

    def delay(self, now: float, source: PeerId, target: PeerId, rng: Random) -> float:
        return 0.040 if site(source) != site(target) else 0.0025


SITES = {sim_peer(number): number % 2 for number in range(16)}


def site(peer: PeerId) -> int:
    return SITES[peer]


def test_nodes_learn_it_from_the_round_trips_that_the_dht_sees_anyway() -> None:
    swarm = Swarm(16, 1, Sites())
    swarm.join_all(1.0)

    def look_up(peer: PeerId, key: bytes, at_s: float) -> None:
        swarm.ask(peer, lambda query: FindClosest(query, key), lambda now, peer, output: None, at_s)

    for number in range(60):
        for place, peer in enumerate(swarm.peers):
            look_up(peer, bytes([number, place]), 20.0 + 4 * number)
    swarm.sim.run(300.0)
    looks_on = swarm.node(swarm.peers[0]).places
    near = [looks_on.distance(a, b) for a, b in pairs(swarm.peers) if site(a) == site(b)]
    far = [looks_on.distance(a, b) for a, b in pairs(swarm.peers) if site(a) != site(b)]
    assert None not in near + far
    assert max(d for d in near if d is not None) < 0.030
    assert all(0.060 < d < 0.100 for d in far if d is not None)


def pairs(peers: list[PeerId]) -> list[tuple[PeerId, PeerId]]:
    return [(a, b) for a in peers[1:] for b in peers[1:] if a < b]


def test_join_is_enough_to_begin() -> None:
    swarm = Swarm(4, 1, Sites())
    swarm.join_all(1.0)
    swarm.ask(swarm.peers[1], lambda query: Join(query, ()), lambda now, peer, output: None, 5.0)
    swarm.sim.run(20.0)
    assert swarm.node(swarm.peers[1]).places.vivaldi.stats.used > 0
