"""Whole peers on machines of their own: a cluster over the overlay, and who reaches what of it."""

from __future__ import annotations

from collections.abc import Generator
from socket import inet_aton
from typing import Any

import pytest

from tests.lab.capture import capture
from tests.lab.namespaces import Lab, Node
from tests.lab.nat import Nat, NatKind, nat
from tests.lab.requirements import require
from tests.lab.scan import open_ports
from tests.whole.machines import MARKER, PRIVATE, SWARM_PORT, Member, at, heard, member

pytestmark = pytest.mark.slow


@pytest.fixture
def lab() -> Generator[Lab, None, None]:
    require()
    with Lab() as found:
        yield found


def borrow(borrower: Member, workers: int = 1) -> dict[str, Any]:
    return borrower.ask("borrow", workers=workers, timeout_s=60.0)


def check(done: dict[str, Any], workers: int = 1) -> None:
    """The job ran on so many workers, each gave each other one its objects, and inside them is no other network."""
    assert done["echoed"]
    assert done["passed"] == workers * (workers - 1)
    assert len(done["found"]) == workers
    for seen in done["found"].values():
        assert seen["interfaces"] == ["lo"]
        assert seen["escapes"] == []


def reach(strangers: list[Node], addresses: list[str]) -> None:
    """Strangers reach the swarm's port, and at most one more, which says nothing. The first tries them all."""
    doors: list[tuple[str, int]] = []
    for address in addresses:
        found = open_ports(strangers[0], address)
        assert SWARM_PORT in found
        others = [(address, port) for port in found if port != SWARM_PORT]
        assert len(others) <= 1, f"{address} answers at {found}"
        doors += others
    assert doors, "planes take carriers"
    for one in strangers:
        assert heard(one, doors) == [0] * 2 * len(doors)


def test_a_cluster_over_a_network_shows_nothing_to_others(lab: Lab) -> None:
    internet = lab.segment("internet")
    nodes = [lab.node(name) for name in ("borrower", "lender", "another lender", "third", "outside")]
    for n, node in enumerate(nodes):
        internet.join(node, f"5.0.0.{n + 1}/24")
    borrower_node, lender_node, other_node, third_node, outside = nodes
    lender = member(lender_node, 1, lend=1)
    member(other_node, 4, [at(lender)], lend=1)
    third = member(third_node, 2, [at(lender)])
    borrower = member(borrower_node, 3, [at(lender)])
    with capture(lender_node, lender_node.interfaces[0].name) as traffic:
        got = borrow(borrower, workers=2)
        assert [one["path"] for one in got["workers"]] == ["overlay"] * 2
        done = borrower.work(got["environment"], [third_node.ip, lender_node.ip, borrower_node.ip])
        check(done, workers=2)
        assert sum(map(len, traffic.packets())) > 300_000
        assert not traffic.count(MARKER.encode())
    assert not traffic.lost
    for address in (third_node.ip, lender_node.ip, borrower_node.ip):
        assert [seen["open"][address] for seen in done["found"].values()] == [[]] * 2
    reach([third.node, outside], [borrower_node.ip, lender_node.ip])
    borrower.ask("release")


def test_two_clusters_on_one_host_do_not_see_each_other(lab: Lab) -> None:
    lender_node, host = lab.node("lender"), lab.node("host")
    lab.cable(lender_node, "5.0.0.1/24", host, "5.0.0.2/24")
    lender = member(lender_node, 1, lend=2)
    borrowers = [member(host, 2 + n, [at(lender)], port=SWARM_PORT + n) for n in range(2)]
    for one in borrowers:
        one.begin("borrow", workers=1, timeout_s=90.0)
    got = [one.finish() for one in borrowers]
    done = [one.work(its["environment"], ["nodes"]) for one, its in zip(borrowers, got, strict=True)]
    ports: list[set[int]] = []
    for its in done:
        check(its)
        assert len(its["nodes"]) == 2
        ports.append({port for node in its["nodes"] for port in node["ports"]})
    assert not ports[0] & ports[1]
    for own, its in enumerate(done):
        for seen in its["found"].values():
            reached = {port for found in seen["open"].values() for port in found}
            assert ports[own] <= reached
            assert not ports[1 - own] & reached


@pytest.mark.parametrize(
    ("kinds", "network_key"),
    [
        pytest.param((NatKind.CONE,) * 2, None, id="cones"),
        pytest.param((NatKind.SYMMETRIC,) * 3, PRIVATE, id="symmetric, private"),
    ],
)
def test_peers_behind_nats_form_a_cluster_through_a_relay(
    lab: Lab, kinds: tuple[NatKind, ...], network_key: str | None
) -> None:
    """The first borrows of the others. Those behind symmetric NATs, two lenders among them, never meet directly; their
    swarm is a private one."""
    internet = lab.segment("internet")
    relay_node = lab.node("relay")
    internet.join(relay_node, "5.0.0.100/24")
    homes: list[Node] = []
    for n, kind in enumerate(kinds, 1):
        home = nat(lab, f"router {n}", kind, internet, f"5.0.0.{n}/24", f"10.{n}.0.1/24")
        homes.append(lab.node(f"home {n}"))
        home.join(homes[-1], f"10.{n}.0.2/24")
    relay = member(relay_node, 1, network_key=network_key)
    borrower, *lenders = (
        member(home, 2 + n, [at(relay)], lend=min(n, 1), network_key=network_key)
        for n, home in enumerate(homes)
    )
    with capture(relay_node) as traffic:
        got = borrow(borrower, workers=len(lenders))
        assert {one["peer"]: one["path"] for one in got["workers"]} == {
            lender.id: "overlay" for lender in lenders
        }
        before = sum(map(len, traffic.packets()))
        check(borrower.work(got["environment"]), workers=len(lenders))
        passed = sum(map(len, traffic.packets())) - before
        assert not traffic.count(MARKER.encode())
    # 200 KB went there and back: past the relay where the NATs let a hole be punched, else through it, twice each
    assert (passed < 100_000) is (NatKind.SYMMETRIC not in kinds), passed
    borrower.ask("release")


def test_workers_that_cannot_meet_talk_through_the_head(lab: Lab) -> None:
    """Two lenders behind symmetric NATs, and a borrower that relays for nobody, like everybody in this swarm: the
    workers' traffic goes through their head, which cannot read it."""
    internet = lab.segment("internet")
    head = lab.node("head")
    internet.join(head, "5.0.0.100/24")
    borrower = member(head, 1, relays=False)
    routers, lenders = list[Nat](), list[Member]()
    for n in (1, 2):
        routers.append(
            nat(lab, f"router {n}", NatKind.SYMMETRIC, internet, f"5.0.0.{n}/24", f"10.{n}.0.1/24")
        )
        home = lab.node(f"home {n}")
        routers[-1].join(home, f"10.{n}.0.2/24")
        lenders.append(member(home, 1 + n, [at(borrower)], lend=1, relays=False))
    door = routers[0].outside.name
    with capture(head, head.interfaces[0].name) as traffic, capture(routers[0].node, door) as crossing:
        got = borrow(borrower, workers=2)
        assert {one["peer"]: one["path"] for one in got["workers"]} == {
            lender.id: "overlay" for lender in lenders
        }
        check(borrower.work(got["environment"]), workers=2)
        assert not traffic.count(MARKER.encode())
    # 200 KB went from one worker to the other and back, and not past the head
    assert sum(map(len, traffic.packets())) > 1_000_000
    met = [packet for packet in crossing.packets() if inet_aton("5.0.0.2") in packet[26:34]]
    assert sum(map(len, met)) < 20_000, len(met)
    borrower.ask("release")
