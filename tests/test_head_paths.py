"""Where a cluster's head is to the mesh. The rest of head_paths.py is tested with peers, in test_cluster_state.py and
whole/."""

from __future__ import annotations

import random
import socket
from contextlib import closing
from types import SimpleNamespace
from typing import cast

import pytest

from swarmp2p.cluster_memory import ClusterMemory
from swarmp2p.head_paths import HEAD_CPUS, HeadPaths
from swarmp2p.own_facts import Reserved, free
from swarmp2p.paths import Paths
from swarmp2p.ray_bridge.events import Need
from swarmp2p.transport.mesh.allocation import Allocation
from swarmp2p.transport.mesh.members import Carrier


@pytest.mark.parametrize("begun", [True, False])
def test_a_head_that_was_begun_stays_where_it_listens(begun: bool) -> None:
    memory = ClusterMemory(None, "name", b"c" * 16)
    place = Allocation(random.Random(1), free).head(memory.cluster, HEAD_CPUS)
    memory.lead(place)
    with socket.create_server(("127.0.0.1", place.block.ports[0])), closing(Reserved()) as reserved:
        paths = HeadPaths(cast("Paths", None), Need(), (Carrier.DIRECT,), memory, reserved, begun=begun)
    assert (memory.head == place) is begun  # another process there is not the head: there is another block
    ports = place.block.ports
    assert ((paths.ports, paths.index_port) == (ports[:-1], ports[-1])) is begun
    assert not paths.resumes


def test_no_two_heads_have_a_port_of_the_same_block_though_nobody_listens_yet() -> None:
    """Whatever process they are in: a socket of the machine's stands for the ports."""
    with closing(Reserved()) as first, closing(Reserved()) as second:
        one = Allocation(random.Random(1), first.free).head(b"a" * 16, HEAD_CPUS)
        other = Allocation(random.Random(1), second.free).head(b"b" * 16, HEAD_CPUS)
        assert not one.block.overlaps(other.block)
        assert first.keep(one.block.ports)
        assert second.keep(other.block.ports)
        assert not second.keep(one.block.ports)
        worker = Allocation(random.Random(1), second.free).give(b"w" * 16, 1)
        assert worker.block.overlaps(one.block), "a worker's ports are another address's"
        first.close()
        assert second.keep(one.block.ports)


@pytest.mark.parametrize("taken", [True, False])
def test_a_head_goes_on_where_it_was_unless_another_has_that_now(taken: bool) -> None:
    memory = ClusterMemory(None, "name", b"c" * 16)
    with closing(Reserved()) as others, closing(Reserved()) as own:
        place = Allocation(random.Random(2), others.free).head(memory.cluster, HEAD_CPUS)
        memory.lead(place)
        if not taken:
            others.close()
        now = cast("Paths", SimpleNamespace(now=lambda: 1000.0))
        paths = HeadPaths(now, Need(), (Carrier.DIRECT,), memory, own)
        assert paths.resumes is not taken
        assert (memory.head == place) is not taken
