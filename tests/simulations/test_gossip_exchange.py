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


PLAIN = GossipConfig()
TELLS = replace(PLAIN, peer_exchange=True)
WITHOUT_A_MESH = replace(TELLS, mesh_degree=0, mesh_low=0, mesh_high=0)
"""As gossipsub 1.1 has it for bootstrap peers ("Recommendations for Network Operators")."""


def star(hub: GossipConfig, seed: int) -> GossipSwarm:
    """Everybody dials the first node, within ten seconds."""
    swarm = GossipSwarm(0, seed, UniformLink(0.025), PLAIN, SimulatorConfig(signed_records=True))
    for number in range(NODES):
        swarm.start(sim_peer(number), config=hub if number == 0 else PLAIN)
    for number in range(1, NODES):
        swarm.sim.call(partial(swarm.connect, [(number, 0)]), swarm.rng.random() * 10)
    swarm.sim.run(30.0)
    return swarm


def check_that_the_rest_can_do_without(swarm: GossipSwarm) -> None:
    swarm.stop(swarm.peers[0])
    swarm.sim.run(swarm.sim.now + 2.0)
    assert all(len(mesh) >= PLAIN.mesh_low for mesh in swarm.meshes())
    assert swarm.stats()["bad_records"] == 0
    for _ in range(10):
        swarm.publish_later(swarm.rng.choice(swarm.peers), 1.0)
    swarm.sim.run(swarm.sim.now + 10.0)
    assert swarm.deliveries.spread().share == 1.0
    connections = [len(swarm.sim.connected(peer)) for peer in swarm.peers]
    assert sum(connections) / NODES < 20, "nobody dials everybody"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_bootstrap_peer_can_leave(seed: int) -> None:
    """Those that it has in its mesh hear of others when it leaves, all others when it refuses them."""
    swarm = star(TELLS, seed)
    swarm.sim.post(swarm.peers[0], Unsubscribe(TOPIC))
    swarm.sim.run(40.0)
    check_that_the_rest_can_do_without(swarm)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_bootstrap_peer_without_a_mesh_can_crash(seed: int) -> None:
    """It refuses everybody, so that everybody hears of others."""
    swarm = star(WITHOUT_A_MESH, seed)
    swarm.sim.run(100.0)  # who came first heard of nobody, and asks again after the backoff
    check_that_the_rest_can_do_without(swarm)


def test_without_peer_exchange_all_hang_on_it() -> None:
    swarm = star(PLAIN, 1)
    assert all(swarm.sim.connected(peer) == (swarm.peers[0],) for peer in swarm.peers[1:])
    swarm.stop(swarm.peers[0])
    swarm.publish_later(swarm.peers[0], 5.0)
    swarm.sim.run(45.0)
    assert swarm.deliveries.spread().delivered == 0
    assert swarm.router(swarm.peers[0]).mesh(TOPIC) == ()
