"""A head that is begun before its peer is open.

GCS takes a second to answer. Importing libp2p and entering a swarm take as long on another core, and need no head.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass

from .cluster_memory import ClusterMemory
from .head_paths import HEAD_CPUS, index_port, ray_ports
from .own_facts import Reserved
from .ray_bridge.head import RayHead, start_head
from .ray_bridge.head_state import open_head_state
from .ray_bridge.index_door import IndexDoor, open_index_door
from .ray_bridge.package_index import IndexWanted
from .transport.mesh.allocation import Allocation


@dataclass(frozen=True, slots=True)
class BegunHead:
    """One cluster's; made by `begin_head`. memory: what its cluster is called, and where its head is. door: to the
    borrower's package index."""

    head: RayHead
    memory: ClusterMemory
    door: IndexDoor


@asynccontextmanager
async def begin_head(index: IndexWanted) -> AsyncGenerator[BegunHead, None]:
    """Have a head for `Peer.borrow`, of a cluster that nobody keeps, for the length of the context, which is entered at
    once. How far its workers will be it cannot know yet, as little as any head of a peer that has just been opened.
    index: what packages its workers may install. Raises RayMissing and NoRoom."""
    async with open_head_state(None) as kept:
        memory = ClusterMemory.of(kept)
        with closing(Reserved()) as reserved:
            place = Allocation(random.Random(os.urandom(16)), reserved.free).head(memory.cluster, HEAD_CPUS)
            reserved.keep(place.block.ports)
            memory.lead(place)
            port = index_port(place)
            async with (
                open_index_door(port, kept.token, index) as door,
                start_head(ports=ray_ports(place), state=kept, index_port=port) as head,
            ):
                yield BegunHead(head, memory, door)
