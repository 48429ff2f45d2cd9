"""Where a cluster's head is to the mesh. The rest of head_paths.py is tested with peers, in test_cluster_state.py and
whole/."""

from __future__ import annotations

import random
import socket
from typing import cast

import pytest

from swarmp2p.cluster_memory import ClusterMemory
from swarmp2p.head_paths import HEAD_CPUS, HeadPaths
from swarmp2p.own_facts import free
from swarmp2p.paths import Paths
from swarmp2p.ray_bridge.events import Need
from swarmp2p.transport.mesh.allocation import Allocation
from swarmp2p.transport.mesh.members import Carrier


@pytest.mark.parametrize("begun", [True, False])
def test_a_head_that_was_begun_stays_where_it_listens(begun: bool) -> None:
    memory = ClusterMemory(None, "name", b"c" * 16)
    place = Allocation(random.Random(1), free).head(memory.cluster, HEAD_CPUS)
    memory.lead(place)
    with socket.create_server(("127.0.0.1", place.block.ports[0])):
        paths = HeadPaths(cast("Paths", None), Need(), (Carrier.DIRECT,), memory, begun=begun)
    assert (memory.head == place) is begun  # another process there is not the head: there is another block
    ports = place.block.ports
    assert ((paths.ports, paths.index_port) == (ports[:-1], ports[-1])) is begun
    assert not paths.resumes
