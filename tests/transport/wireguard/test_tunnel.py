"""Real tunnels between network namespaces: what they carry, who reaches what through them, and what is seen outside."""

from __future__ import annotations

import base64
import stat
import subprocess
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab.capture import Capture, capture
from tests.lab.namespaces import Lab
from tests.lab.requirements import require
from tests.transport.wireguard.tunnels import (
    LOCALHOST,
    PYTHON,
    TALK,
    UDP_PORT,
    WAIT,
    Member,
    Place,
    cell,
    two,
    until,
)

pytestmark = pytest.mark.slow
Pair = tuple[Place, Place]
MARKER = b"plaintext-marker-7f3a"


@pytest.fixture
def lab() -> Generator[Lab, None, None]:
    require("wg", "wireguard-go")
    with Lab() as found:
        yield found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Generator[Pair, None, None]:
    """A head and a worker in its cell, with servers; for tests that change nothing of them."""
    require("wg", "wireguard-go")
    with Lab() as lab:
        first, second = two(lab, tmp_path_factory.mktemp("runtime"), cells=True)
        first.place.serve(address=LOCALHOST)
        second.place.serve()
        yield first.place, second.place


def test_head_and_worker_s_cell_reach_each_other_at_the_addresses_that_ray_knows(pair: Pair) -> None:
    head, worker = pair
    assert worker.talk("127.0.0.1", head.port) == "same"
    assert head.talk(worker.alias, worker.port) == "same"


def test_nothing_leaves_unencrypted(pair: Pair) -> None:
    head, worker = pair
    with capture(head.node) as everywhere, capture(head.node, head.node.interfaces[0].name) as cable:
        talk = worker.start(*PYTHON, TALK, "127.0.0.1", str(head.port), "5", "more")
        said, _ = talk.communicate((MARKER + b"\n") * 50, timeout=30)
        assert said.split() == [b"same"] * 51
        # of the interface itself, else the next line would prove nothing
        assert until(lambda: everywhere.count(MARKER) >= 100)
        assert cable.count(MARKER) == 0
        assert until(lambda: len(udp(cable)) >= 100)


def udp(seen: Capture) -> list[bytes]:
    return [packet for packet in seen.packets() if packet[12:14] == b"\x08\x00" and packet[23] == 17]


def test_only_the_block_of_ports_can_be_reached_and_no_other_loopback_listener(pair: Pair) -> None:
    head, worker = pair
    head.serve(9_999, head.port - 1)
    head.serve(7_777, address=LOCALHOST)
    worker.serve(8_888)
    ports = (9_999, 7_777, head.port - 1)
    closed = [(address, port) for address in ("127.0.0.1", head.address) for port in ports]
    assert worker.reached(*closed, ("127.0.0.1", head.port)) == [f"127.0.0.1:{head.port}"]
    assert head.reached((worker.address, 8_888)) == []
    assert (worker.talk("127.0.0.1", head.port), head.talk(worker.alias, worker.port)) == ("same", "same")


def test_a_lender_that_sends_what_it_likes_into_its_tunnel_gets_no_further(lab: Lab, tmp_path: Path) -> None:
    first, second = two(lab, tmp_path)
    head, worker = first.place, second.place
    beyond = lab.node("behind the head")
    lab.cable(head.node, "10.9.0.1/24", beyond, "10.9.0.2/24")
    beyond.route("default", "10.9.0.1")
    head.node.forward()
    head.serve(head.port, 9_999)
    behind = Place(beyond, 9)
    behind.serve(9_999)
    assert head.talk("10.9.0.2", 9_999) == "same"
    # its own WireGuard lets these through, and it rewrites nothing
    worker.run("nft", "delete", "table", "inet", worker.interface)
    key = base64.b64encode(head.key.public).decode()
    worker.run("wg", "set", worker.interface, "peer", key, "allowed-ips", "0.0.0.0/0")
    for address in ("10.9.0.1", "10.9.0.2"):
        worker.run("ip", "route", "add", f"{address}/32", "dev", worker.interface)
    places = [(address, port) for address in ("10.9.0.1", "10.9.0.2") for port in (9_999, head.port)]
    assert worker.reached(*places) == []
    assert worker.talk(head.address, head.port) == "same"
    # the head's loopback, by packets that say so
    worker.run("ip", "route", "delete", "local", "127.0.0.0/8", "table", "local")
    worker.run("ip", "route", "delete", "local", "127.0.0.1", "table", "local")
    worker.run("ip", "route", "add", "127.0.0.0/8", "dev", worker.interface, "src", worker.address)
    with capture(head.node, head.interface) as arrived:
        assert worker.reached(("127.0.0.1", 9_999)) == []
        assert until(lambda: sum(b"\x7f\0\0\1" in packet for packet in arrived.packets()) > 0)


def test_who_is_no_member_reaches_nothing_though_on_the_same_wire(lab: Lab, tmp_path: Path) -> None:
    switch = lab.segment("switch")
    nodes = [lab.node(name) for name in ("head", "lender", "mallory")]
    for number, node in enumerate(nodes, 1):
        switch.join(node, f"10.8.0.{number}/24")
    head, worker = Place(nodes[0], 1), Place(nodes[1], 2)
    Member(head, [worker.as_peer(0)], tmp_path)
    second = Member(worker, [head.as_peer()], tmp_path)
    assert second.up(head)
    head.serve(address=LOCALHOST)
    # Mallory knows all but a private key: first takes the worker's place, and then talks without a tunnel
    mallory = Place(nodes[2], 2)
    third = Member(mallory, [head.as_peer()], tmp_path)
    assert not third.up(head, 2)
    assert mallory.reached(("127.0.0.1", head.port)) == []
    third.close()
    nodes[2].run("ip", "route", "replace", f"{head.address}/32", "via", "10.8.0.1")
    mallory.run("ip", "address", "add", f"{worker.address}/32", "dev", nodes[2].interfaces[0].name)
    assert mallory.reached((head.address, head.port)) == []
    assert worker.talk("127.0.0.1", head.port) == "same"


def test_members_come_and_go_and_those_who_stay_notice_nothing(lab: Lab, tmp_path: Path) -> None:
    first, second = two(lab, tmp_path)
    head, worker = first.place, second.place
    other_node = lab.node("another lender")
    lab.cable(other_node, "10.9.0.2/24", head.node, "10.9.0.1/24")
    other = Place(other_node, 3, cell=cell(other_node))
    worker.serve()
    talk = head.start(*PYTHON, TALK, worker.alias, str(worker.port), "5", "more")
    assert talk.stdin is not None
    assert talk.stdout is not None
    assert talk.stdout.readline() == b"same\n"

    assert first.apply(worker.as_peer(0), other.as_peer()) == [other.key.public.hex()]
    third = Member(other, [replace(head.as_peer(), endpoint=("10.9.0.1", UDP_PORT))], tmp_path)
    assert third.up(head)
    other.serve()
    waiting = head.start(*PYTHON, WAIT, other.alias, str(other.port))
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == b"connected\n"
    assert first.apply(worker.as_peer(0)) == [other.key.public.hex()]
    assert waiting.stdout.readline() == b"ConnectionAbortedError\n"
    assert head.talk(other.alias, other.port, 0.5) != "same"
    assert first.apply(worker.as_peer(0)) == []

    talk.stdin.write(b"still here\n")
    talk.stdin.flush()
    assert talk.stdout.readline() == b"same\n"


def test_two_clusters_of_one_machine_do_not_see_each_other(lab: Lab, tmp_path: Path) -> None:
    first, second = two(lab, tmp_path, cells=True)
    head, worker = first.place, second.place
    # the same machines, another cluster: its head's machine is the first one's lender's
    other_head = Place(worker.node, 1)
    other_worker = Place(head.node, 4, cell=cell(head.node))
    third = Member(other_head, [other_worker.as_peer(0)], tmp_path, 51_821)
    fourth = Member(other_worker, [other_head.as_peer(51_821)], tmp_path, 51_821)
    assert third.said["kind"]
    assert fourth.up(other_head)
    head.serve(address=LOCALHOST)
    other_head.serve(other_head.port, address=LOCALHOST)
    other_worker.serve()
    worker.serve()
    assert other_worker.talk("127.0.0.1", other_head.port) == "same"
    assert worker.talk("127.0.0.1", head.port) == "same"
    # each cell reaches its own head at 127.0.0.1, and neither the other's worker
    others = [(address, other_worker.port) for address in (other_worker.alias, other_worker.address)]
    assert worker.reached(*others) == []
    assert other_worker.reached((worker.alias, worker.port)) == []


def test_the_private_key_is_on_no_command_line(lab: Lab, tmp_path: Path) -> None:
    log = tmp_path / "commands"
    for name in ("wg", "ip", "nft", "tee", "nsenter", "wireguard-go"):
        real = subprocess.run(["which", name], capture_output=True, text=True, check=True).stdout.strip()
        wrapper = tmp_path / "bin" / name
        wrapper.parent.mkdir(exist_ok=True)
        wrapper.write_text(f'#!/bin/sh\necho "$0 $@" $(env) >> {log}\nexec {real} "$@"\n')
        wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    a, b = lab.node("head"), lab.node("lender")
    lab.cable(a, "10.8.0.1/24", b, "10.8.0.2/24")
    head, worker = Place(a, 1), Place(b, 2)
    path = f"{wrapper.parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    member = Member(head, [], tmp_path / "run", environment={"PATH": path})
    member.apply(worker.as_peer())
    assert member.said["kind"]
    told = log.read_text()
    assert base64.b64encode(worker.key.public).decode() in told
    assert base64.b64encode(head.key.private).decode() not in told
    assert head.key.private.hex() not in told
