"""The whole node. What the suite (tests/conformance.py) needs to make an engine of this kind, and events for it."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import get_args

from swarmp2p.identity import PeerId
from swarmp2p.node import NodeConfig, NodeEngine, NodeOutput
from swarmp2p.transport.sim_peers import sim_sign, sim_verify
from tests.conformance import EngineCase
from tests.made_up import Maker
from tests.ray_bridge.keys import cheap_keys

from .dht import DHT, DHT_CASE, DHT_MESSAGES, DHT_SPECIAL, dht_command
from .gossip import GOSSIP, GOSSIP_CASE, GOSSIP_SPECIAL, gossip_command, gossip_sizes
from .leases import LEASE, LEASE_CASE, LEASE_SPECIAL, lease_command
from .loads import LOADS, LOADS_CASE, LOADS_SPECIAL, loads_or_follow
from .meshes import MESH, MESH_CASE, MESH_SPECIAL, mesh_command


def node_engine(peer: PeerId, seed: int) -> NodeEngine:
    keys = replace(cheap_keys(peer, seed), sign=sim_sign(peer), verify=sim_verify)
    return NodeEngine(peer, keys, Random(seed), NodeConfig(DHT, GOSSIP, LOADS, LEASE, MESH))


def node_command(maker: Maker) -> object:
    make = maker.rng.choice((dht_command, gossip_command, lease_command, mesh_command, loads_or_follow))
    return make(maker)


NODE_CASE = EngineCase(
    "node",
    node_engine,
    get_args(NodeOutput),
    (*DHT_CASE.wires, *GOSSIP_CASE.wires, *LOADS_CASE.wires, *LEASE_CASE.wires, *MESH_CASE.wires),
    (*DHT_MESSAGES, *GOSSIP_CASE.messages, *LOADS_CASE.messages, *LEASE_CASE.messages, *MESH_CASE.messages),
    node_command,
    {**DHT_SPECIAL, **GOSSIP_SPECIAL, **LOADS_SPECIAL, **MESH_SPECIAL, **LEASE_SPECIAL},
    lambda node: {**gossip_sizes(node.gossip), "loads": (len(node.loads.table), 4)},
)
