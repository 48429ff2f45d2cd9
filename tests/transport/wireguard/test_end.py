"""However a tunnel ends, nothing of it stays; and what somebody else made is not touched."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from swarmp2p.transport.wireguard import keeper, leftovers
from tests.lab.namespaces import Lab, Node
from tests.lab.requirements import require
from tests.transport.wireguard.tunnels import Member, Place, descendants, two, until

pytestmark = pytest.mark.slow
SOCKETS = Path("/var/run/wireguard")


@pytest.fixture
def lab() -> Generator[Lab, None, None]:
    require("wg", "wireguard-go")
    with Lab() as found:
        yield found


def left(place: Place, runtime: Path) -> list[str]:
    """What there is of a tunnel."""
    found = list[str]()
    if place.interface in place.run("ip", "-brief", "link", check=False):
        found.append("interface")
    if place.interface in place.run("nft", "list", "tables", check=False):
        found.append("rules")
    if (SOCKETS / f"{place.interface}.sock").exists():
        found.append("socket")
    if leftovers.record(runtime, place.interface).exists():
        found.append("record")
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"wireguard-go\0-f\0{place.interface}" in process.read_text():
                found.append("wireguard-go")
        except (OSError, UnicodeDecodeError):
            continue
    return found


def alone(lab: Lab, runtime: Path) -> Member:
    node = lab.node("head")
    lab.cable(node, "10.8.0.1/24", lab.node("nobody"), "10.8.0.2/24")
    member = Member(Place(node, 1), [], runtime)
    assert left(member.place, runtime) == ["interface", "rules", "socket", "record", "wireguard-go"]
    return member


@pytest.mark.parametrize("cells", [False, True])
def test_at_the_end_of_the_context(lab: Lab, tmp_path: Path, cells: bool) -> None:
    for member in two(lab, tmp_path, cells=cells):
        assert left(member.place, tmp_path)
        member.close()
        assert left(member.place, tmp_path) == []


def test_after_kill_9_of_the_peer(lab: Lab, tmp_path: Path) -> None:
    member = alone(lab, tmp_path)
    member.process.kill()
    assert until(lambda: left(member.place, tmp_path) == []), left(member.place, tmp_path)


def test_after_kill_9_of_peer_and_keeper_at_the_next_start(lab: Lab, tmp_path: Path) -> None:
    member = alone(lab, tmp_path)
    os.kill(member.said["keeper"], signal.SIGKILL)
    member.process.kill()
    place = member.place
    # wireguard-go and its interface die with the keeper
    assert until(lambda: not {"interface", "wireguard-go"} & set(left(place, tmp_path)))
    assert {"rules", "record"} <= set(left(place, tmp_path))
    other = Member(Place(place.node, 5), [], tmp_path)
    assert other.said["kind"]
    assert left(place, tmp_path) == []
    assert left(other.place, tmp_path)


def test_an_interface_of_the_kernel_s_is_found_again_too(lab: Lab, tmp_path: Path) -> None:
    node = lab.node("head")
    place = Place(node, 1)
    # nobody's child takes that away: stands for the kernel's WireGuard, which not every machine has
    node.run("ip", "link", "add", "dev", place.interface, "type", "veth")
    node.run("ip", "link", "add", "dev", "swarm0000000000", "type", "veth")  # ours by name; without a record
    namespace = int(node.run("stat", "-L", "-c", "%i", "/proc/self/ns/net"))
    record = leftovers.record(tmp_path, place.interface)
    record.write_text(json.dumps({"interface": place.interface, "namespace": namespace, "child": 0}))
    clean(node, tmp_path)
    assert left(place, tmp_path) == []
    assert "swarm0000000000" in node.run("ip", "-brief", "link")


def clean(node: Node, runtime: Path) -> None:
    node.run(
        sys.executable, "-c",
        f"import pathlib, swarmp2p.transport.wireguard.leftovers as l; l.clean(pathlib.Path({str(runtime)!r}))",
    )  # fmt: skip


def test_what_is_kept_or_elsewhere_is_not_touched(lab: Lab, tmp_path: Path) -> None:
    member = alone(lab, tmp_path)
    before = left(member.place, tmp_path)
    assert leftovers.clean(tmp_path) == []  # it is locked
    elsewhere = leftovers.record(tmp_path, "swarm0123456789")
    elsewhere.write_text(json.dumps({"interface": "swarm0123456789", "namespace": 1, "child": 0}))
    (tmp_path / "wg0.wireguard").write_text("{}")  # not our name
    assert leftovers.clean(tmp_path) == []
    assert elsewhere.exists()
    assert left(member.place, tmp_path) == before


def test_a_pid_that_is_another_process_by_now_is_not_killed(tmp_path: Path) -> None:
    record = leftovers.record(tmp_path, "swarm0123456789")
    namespace = os.stat("/proc/self/ns/net").st_ino
    told = {"interface": "swarm0123456789", "namespace": namespace, "child": os.getpid(), "started": 1}
    record.write_text(json.dumps(told))
    assert leftovers.clean(tmp_path) == ["swarm0123456789"]
    record.write_text("{")  # its keeper was killed while it wrote
    assert leftovers.clean(tmp_path) == ["swarm0123456789"]


def test_a_record_is_locked_before_anybody_can_see_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a peer that starts at that moment would take it for a dead keeper's."""
    path, shown = leftovers.record(tmp_path, "swarm0123456789"), list[Path]()

    def link(source: str, target: str) -> None:
        assert not path.exists()
        with open(source) as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(source, target)
        Path(source).touch()
        shown.append(path)

    monkeypatch.setattr(os, "link", link)
    lock = keeper.take_record(str(path), make=True)
    assert shown == [path]
    assert os.listdir(tmp_path) == [path.name]
    assert leftovers.clean(tmp_path) == []
    os.close(lock)
    assert leftovers.clean(tmp_path) == ["swarm0123456789"]
    with pytest.raises(FileNotFoundError):
        keeper.take_record(str(path))
    assert os.listdir(tmp_path) == []


def test_somebody_else_s_interface_of_the_same_name_stays(lab: Lab, tmp_path: Path) -> None:
    node = lab.node("head")
    place = Place(node, 1)
    node.run("ip", "link", "add", "dev", place.interface, "type", "veth")
    member = Member(place, [], tmp_path)
    assert "exists already" in member.said["failed"]
    assert left(place, tmp_path) == ["interface"]


def test_no_interface_is_made_that_could_not_be_found_again(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    member = Member(Place(lab.node("head"), 1), [], tmp_path / "file")
    assert "no records can be kept" in member.said["failed"]


def test_two_peers_do_not_have_one_interface(lab: Lab, tmp_path: Path) -> None:
    member = alone(lab, tmp_path)
    second = Member(member.place, [], tmp_path)
    assert "another process keeps this interface" in second.said["failed"]
    elsewhere = Place(lab.node("elsewhere"), 1, member.place.cluster)
    third = Member(elsewhere, [], tmp_path / "other records")
    assert "in another network namespace" in third.said["failed"]
    assert left(member.place, tmp_path)


def test_a_lost_wireguard_go_is_noticed(lab: Lab, tmp_path: Path) -> None:
    member = alone(lab, tmp_path)
    (child,) = descendants(member.said["keeper"])
    os.kill(child, signal.SIGKILL)
    assert "wireguard-go ended" in member.hear()["lost"]
    member.close()
    assert left(member.place, tmp_path) == []


def test_a_lost_keeper_is_noticed(lab: Lab, tmp_path: Path) -> None:
    member = alone(lab, tmp_path)
    os.kill(member.said["keeper"], signal.SIGKILL)
    assert member.hear()["lost"] == "its keeper was killed"
    member.close()
    # wireguard-go and its interface die with the keeper, each in its turn
    assert until(lambda: not {"interface", "wireguard-go"} & set(left(member.place, tmp_path)))
    Member(Place(member.place.node, 5), [], tmp_path)
    assert left(member.place, tmp_path) == []
