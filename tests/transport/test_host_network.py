"""The libp2p host keeps what every network promises, over real connections on loopback."""

from __future__ import annotations

import pytest
import trio

from swarmp2p.identity import Identity
from swarmp2p.transport.host import Host
from tests.transport.network_conformance import NetworkConformance, StreamConformance
from tests.transport.station import World
from tests.transport.toy import TOYS


class HostWorld(World):
    """Hosts on loopback."""

    def network(self, identity: Identity) -> Host:
        return Host(identity, ["/ip4/127.0.0.1/tcp/0"], TOYS)


@pytest.fixture
def world(nursery: trio.Nursery) -> HostWorld:
    return HostWorld(nursery)


class TestNetwork(NetworkConformance):
    """Promised of every network."""


class TestStreams(StreamConformance):
    """Promised of every network."""
