"""Peer exchange in virtual time: a swarm in which everybody knows one peer alone grows a mesh of its own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from simulations.gossip_swarm import TOPIC, GossipSwarm
from swarmp2p.gossip.config import GossipConfig
from swarmp2p.gossip.events import Unsubscribe
from swarmp2p.transport.link import UniformLink
from swarmp2p.transport.sim import SimulatorConfig
from swarmp2p.transport.sim_peers import sim_peer

NODES = 60


def star(exchange: bool, seed: int) -> GossipSwarm:
    """Everybody dials the first node, within ten seconds; it tells of others, or does not."""
    config = GossipConfig()
    swarm = GossipSwarm(0, seed, UniformLink(0.025), config, SimulatorConfig(signed_records=True))
    hub = replace(config, peer_exchange=exchange)
    for number in range(NODES):
        swarm.start(sim_peer(number), config=hub if number == 0 else config)
    for number in range(1, NODES):
        swarm.sim.call(partial(swarm.connect, [(number, 0)]), swarm.rng.random() * 10)
    swarm.sim.run(30.0)
    return swarm


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_bootstrap_peer_can_leave(seed: int) -> None:
    """Those that it has in its mesh hear of others when it leaves, all others when it refuses them."""
    swarm = star(True, seed)
    swarm.sim.post(swarm.peers[0], Unsubscribe(TOPIC))
    swarm.sim.run(40.0)
    swarm.stop(swarm.peers[0])
    assert all(len(mesh) >= GossipConfig().mesh_low for mesh in swarm.meshes())
    assert swarm.stats()["bad_records"] == 0
    for _ in range(10):
        swarm.publish_later(swarm.rng.choice(swarm.peers), 1.0)
    swarm.sim.run(50.0)
    assert swarm.deliveries.spread().share == 1.0
    connections = [len(swarm.sim.connected(peer)) for peer in swarm.peers]
    assert sum(connections) / NODES < 20, "nobody dials everybody"


def test_without_peer_exchange_all_hang_on_it() -> None:
    swarm = star(False, 1)
    assert all(swarm.sim.connected(peer) == (swarm.peers[0],) for peer in swarm.peers[1:])
    swarm.stop(swarm.peers[0])
    swarm.publish_later(swarm.peers[0], 5.0)
    swarm.sim.run(45.0)
    assert swarm.deliveries.spread().delivered == 0
    assert swarm.router(swarm.peers[0]).mesh(TOPIC) == ()
