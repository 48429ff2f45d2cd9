"""Whole peers on machines of their own: a cluster over WireGuard, and what is seen of it."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.lab.capture import capture
from tests.lab.namespaces import Lab
from tests.lab.requirements import require
from tests.lab.scan import open_ports
from tests.whole.machines import MARKER, SWARM_PORT, at, member

pytestmark = pytest.mark.slow


@pytest.fixture
def lab() -> Generator[Lab, None, None]:
    require("wg", "wireguard-go")
    with Lab() as found:
        yield found


def test_ray_tasks_run_over_wireguard_and_nothing_leaves_unencrypted(lab: Lab) -> None:
    internet = lab.segment("internet")
    nodes = [lab.node(name) for name in ("borrower", "lender", "another lender", "outside")]
    for number, node in enumerate(nodes, 1):
        internet.join(node, f"5.0.0.{number}/24")
    borrower_node, lender_node, other_node, outside = nodes
    paths = ("wireguard",)
    lender = member(lender_node, 1, lend=1, paths=paths)
    member(other_node, 2, [at(lender)], lend=1, paths=paths)
    borrower = member(borrower_node, 3, [at(lender)])
    with capture(lender_node, lender_node.interfaces[0].name) as traffic:
        got = borrower.ask("borrow", workers=2, timeout_s=90.0, paths=paths)
        assert [one["path"] for one in got["workers"]] == ["wireguard"] * 2
        done = borrower.work(got["environment"])
        udp = [packet for packet in traffic.packets() if packet[12:14] == b"\x08\x00" and packet[23] == 17]
        assert sum(map(len, udp)) > 300_000
        assert not traffic.count(MARKER.encode())
    assert not traffic.lost
    assert done["echoed"]
    assert done["passed"] == 2
    assert len(done["found"]) == 2
    for seen in done["found"].values():
        assert len(seen["interfaces"]) == 2
        assert any(name.startswith("swarm") for name in seen["interfaces"])
        assert seen["escapes"] == []
    for node in (borrower_node, lender_node):
        found = open_ports(outside, node.ip)
        assert SWARM_PORT in found
        assert len(found) <= 2
    borrower.ask("release")
    lender.end()  # its lease is over, and it lived on
    assert "swarm" not in borrower_node.run("ip", "-brief", "link") + borrower_node.run(
        "nft", "list", "tables"
    )


def test_who_cannot_have_wireguard_takes_the_overlay_and_says_why(lab: Lab) -> None:
    borrower_node, lender_node = lab.node("borrower"), lab.node("lender")
    lab.cable(borrower_node, "5.0.0.1/24", lender_node, "5.0.0.2/24")
    lender = member(lender_node, 1, lend=1)  # does not allow it
    borrower = member(borrower_node, 2, [at(lender)])
    got = borrower.ask("borrow", workers=1, timeout_s=90.0, paths=("wireguard", "overlay"))
    assert [one["path"] for one in got["workers"]] == ["overlay"]
    assert "it does not allow it" in got["workers"][0]["reason"]
    borrower.ask("release")
