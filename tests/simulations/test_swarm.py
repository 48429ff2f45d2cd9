"""Swarms of DHT engines, and tables that are filled without traffic."""

from __future__ import annotations

from simulations import checks
from simulations.swarm import DhtSwarm
from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.keys import ID_BITS, bucket_index, peer_key
from swarmp2p.transport.link import UniformLink


def test_filled_tables_know_the_nearest_peers_and_as_many_as_fit() -> None:
    swarm = DhtSwarm(300, 1, UniformLink(), DhtConfig(k=8))
    swarm.fill_tables()
    tables = checks.tables(swarm, swarm.peers, k=8)
    assert (tables.complete, tables.live) == (1.0, 1.0)
    for peer in swarm.peers[:50]:
        own = peer_key(peer)
        for bucket in range(ID_BITS):
            fits = sum(bucket_index(own, peer_key(each)) == bucket for each in swarm.peers if each != peer)
            held = sum(entry.bucket == bucket for entry in swarm.dht(peer).table.snapshot())
            assert held == min(fits, 8)


def test_nodes_can_be_made_to_know_some_only() -> None:
    swarm = DhtSwarm(20, 1, UniformLink())
    swarm.fill_tables(swarm.peers[:2], among=swarm.peers[10:])
    assert {entry.peer for entry in swarm.dht(swarm.peers[0]).table.snapshot()} == set(swarm.peers[10:])
    assert not len(swarm.dht(swarm.peers[2]).table)
