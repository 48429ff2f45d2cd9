"""Direct ways stay on one machine."""

from __future__ import annotations

import pytest

from swarmp2p.ray_bridge.events import JoinSecret, LeaseCommand, Need, OpenPath, PathUp, Role, StartWorker
from swarmp2p.ray_bridge.ways import DirectWays, NoWay, Way, WorkerPlace

from .keys import lease_id, peer

LEASE = lease_id(1)


def start(address: str) -> StartWorker:
    return StartWorker(LEASE, peer(2), JoinSecret(address, "token"), Need())


def test_a_direct_way_stands_at_once() -> None:
    posted: list[LeaseCommand] = []
    ways = DirectWays(posted.append)
    ways.open(OpenPath(LEASE, peer(2), Role.LENDER))
    assert posted == [PathUp(LEASE)]
    assert ways.place(start("127.0.0.1:4000")) == WorkerPlace("127.0.0.1:4000", "127.0.0.1")
    assert ways.way(LEASE) == Way("direct", "both are on this machine")
    ways.close(LEASE)
    assert posted == [PathUp(LEASE)]


@pytest.mark.parametrize(
    ("address", "node_ip", "why"),
    [
        ("192.0.2.1:4000", "127.0.0.1", "192.0.2.1 is not a loopback address"),
        ("[2001:db8::1]:4000", "127.0.0.1", "2001:db8::1 is not a loopback address"),
        ("127.0.0.1:4000", "192.0.2.1", "192.0.2.1 is not a loopback address"),
        ("example.com:4000", "127.0.0.1", "no|not an IP address"),
    ],
)
def test_it_does_not_leave_the_machine(address: str, node_ip: str, why: str) -> None:
    with pytest.raises(NoWay, match=why):
        DirectWays(lambda _: None, node_ip).place(start(address))
    assert DirectWays(lambda _: None, "127.5.0.1").place(start("[::1]:4000")).node_ip == "127.5.0.1"
