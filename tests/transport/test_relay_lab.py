"""Whole peers behind NATs: found, reached through a public relay, and then directly where the NATs let them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator
from typing import Any

import pytest

from tests.lab.namespaces import Lab, Node
from tests.lab.nat import NatKind, nat
from tests.lab.requirements import require

pytestmark = pytest.mark.slow

EVERYWHERE = "/ip4/0.0.0.0/tcp/4001"


@pytest.fixture
def lab() -> Generator[Lab, None, None]:
    require(root=False)
    with Lab() as found:
        yield found


def start(node: Node, *arguments: str) -> subprocess.Popen[bytes]:
    return node.python("-m", "tests.transport.nat_peer", *arguments)


def next_line(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the peer ended with {process.wait()}"
    told: dict[str, Any] = json.loads(line)
    return told


@pytest.mark.parametrize(
    ("kinds", "listen", "direct"),
    [
        ((NatKind.CONE, NatKind.CONE), EVERYWHERE, True),
        ((NatKind.CONE, NatKind.CONE), "", True),
        ((NatKind.CONE, NatKind.SYMMETRIC), EVERYWHERE, False),
    ],
)
def test_two_peers_behind_two_nats(
    lab: Lab, kinds: tuple[NatKind, NatKind], listen: str, direct: bool
) -> None:
    internet = lab.segment("internet")
    public = lab.node("public")
    internet.join(public, "5.0.0.9/24")
    homes = []
    for number, kind in enumerate(kinds):
        router = nat(lab, f"router {number}", kind, internet, f"5.0.0.{number + 1}/24", f"10.{number}.0.1/24")
        homes.append(lab.node(f"laptop {number}"))
        router.join(homes[-1], f"10.{number}.0.2/24")
    told = next_line(start(public, "relay", "relay", EVERYWHERE))
    bootstrap = next(one for one in told["addresses"] if one.startswith("/ip4/5.0.0.9/"))
    lender = start(homes[0], "provider", "provider", listen, bootstrap)
    told = next_line(lender)
    assert told["mode"] == "client"
    assert told["addresses"][0].startswith(bootstrap + "/p2p-circuit/p2p/")
    borrower = start(homes[1], "user", "user", listen, bootstrap)
    first = next_line(borrower)
    assert first == {"said": "through", "relayed": True}
    then = next_line(borrower)
    assert (then["said"], then["before"]) == ("again", "still")
    assert then["direct"] == direct, then["counters"]
