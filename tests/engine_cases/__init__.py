"""Every engine of swarmp2p, for the suite that holds it to what engines promise: how it is made, what it is sent."""

from __future__ import annotations

from .dht import DHT_CASE
from .gossip import GOSSIP_CASE
from .leases import LEASE_CASE
from .loads import LOADS_CASE
from .meshes import MESH_CASE
from .node import NODE_CASE

CASES = (DHT_CASE, GOSSIP_CASE, LOADS_CASE, LEASE_CASE, MESH_CASE, NODE_CASE)
"""A new one is added here."""
