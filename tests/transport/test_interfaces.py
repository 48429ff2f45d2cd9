"""Which addresses a listener has."""

from __future__ import annotations

import json
import sys

import pytest

from swarmp2p.transport.addresses import to_multiaddr
from swarmp2p.transport.interfaces import reachable
from tests.lab.namespaces import Lab
from tests.lab.requirements import require

_TELL = """
import json
from swarmp2p.transport.interfaces import reachable
print(json.dumps([one.hex() for one in reachable([("0.0.0.0", 4001)])]))
"""


def test_a_listener_at_one_address_has_that() -> None:
    assert reachable([("127.0.0.1", 4001), ("10.0.0.1", 4002)]) == (
        to_multiaddr("10.0.0.1", 4002),
        to_multiaddr("127.0.0.1", 4001),
    )


@pytest.mark.slow
def test_a_listener_on_all_interfaces_has_their_addresses_and_loopback_last() -> None:
    require(root=False)
    with Lab() as lab:
        machine = lab.node("machine")
        for n in range(2):
            lab.cable(machine, f"5.0.{n}.1/24", lab.node("neighbour"), f"5.0.{n}.2/24")
        told = json.loads(machine.run(sys.executable, "-c", _TELL))
    hosts = ("5.0.0.1", "5.0.1.1", "127.0.0.1")
    assert told == [to_multiaddr(host, 4001).hex() for host in hosts]
