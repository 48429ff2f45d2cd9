"""Paths between real processes on this machine: negotiated, in use by Ray, and gone afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.lowlevel
import trio.testing
from multiaddr.multiaddr import Multiaddr

from swarmp2p import open_peer
from swarmp2p.errors import UsageError
from swarmp2p.identity import Identity, PeerId
from swarmp2p.lender_paths import LenderPaths
from swarmp2p.own_facts import free, machine
from swarmp2p.paths import Paths, paths_argument
from swarmp2p.ray_bridge.cells import cell_problem
from swarmp2p.ray_bridge.cluster_events import ClusterEvent, ClusterEventKind
from swarmp2p.ray_bridge.events import ClosePath, Offer, OpenPath, PathFailed, PathUp, Role
from swarmp2p.ray_bridge.pool import Sizes
from swarmp2p.ready import Stock
from swarmp2p.scopes import cancel_scope
from swarmp2p.transport.mesh.events import Invited, MeshFailed
from swarmp2p.transport.mesh.members import Carrier, Facts

_JOB = """
import ray
ray.init(log_to_driver=False)

@ray.remote
def where(data):
    import socket
    return ray.util.get_node_ip_address(), len(data), [name for _, name in socket.if_nameindex()]

print(*ray.get(where.remote(b"x" * 3_000_000)))
"""


@asynccontextmanager
async def lender(*paths: str) -> AsyncGenerator[str, None]:
    """The address of a lender in another process."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.lender_process", *paths],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        said = b""
        while not said.endswith(b"\n"):
            more = await process.stdout.receive_some(1000)
            assert more, "the lender has ended"
            said += more
        yield said.decode().strip()
    finally:
        with cancel_scope(shield=True):
            await process.stdin.aclose()
            await process.wait()
            await process.stdout.aclose()


async def run_job() -> list[str]:
    done = await trio.run_process([sys.executable, "-c", _JOB], capture_stdout=True)
    return done.stdout.decode().split(maxsplit=2)


@pytest.mark.slow
async def test_a_ray_task_runs_over_the_overlay_in_a_network_of_its_own() -> None:
    pytest.importorskip("ray", reason="pip install 'swarmp2p[ray]'")
    problem = await cell_problem()
    if problem is not None:
        pytest.skip(problem)
    async with (
        lender("direct", "overlay") as address,
        open_peer(bootstrap=[address]) as peer,
        peer.borrow(paths=["overlay"], timeout_s=120) as cluster,
    ):
        (worker,) = cluster.workers
        assert worker.path == "overlay"
        assert "over TCP" in worker.path_reason
        where, count, interfaces = await run_job()
        assert where == worker.node_ip
        assert where.startswith("127.64.")
        assert (count, interfaces.strip()) == ("3000000", "['lo']")


def planes() -> list[int]:
    """This process's planes, by pid."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has just ended
            if parent == os.getpid() and any(word.endswith(b"plane_start.py") for word in command):
                found.append(int(entry.name))
    return found


async def until_ended(events: AsyncGenerator[ClusterEvent, None]) -> AsyncGenerator[ClusterEvent, None]:
    """The events up to the first lease's end."""
    async for event in events:
        yield event
        if event.kind is ClusterEventKind.ENDED:
            return


@pytest.mark.slow
async def test_when_the_heads_plane_ends_its_workers_are_replaced() -> None:
    pytest.importorskip("ray", reason="pip install 'swarmp2p[ray]'")
    problem = await cell_problem()
    if problem is not None:
        pytest.skip(problem)
    async with (
        lender("overlay") as address,
        open_peer(bootstrap=[address]) as peer,
        peer.borrow(paths=["overlay"], timeout_s=120) as cluster,
    ):
        (worker,) = cluster.workers
        (plane,) = planes()
        os.kill(plane, signal.SIGKILL)
        with trio.fail_after(120):
            async with aclosing(cluster.events()) as events, aclosing(until_ended(events)) as some:
                ended = [event async for event in some]
            await cluster.wait_for_workers(1)
        assert ended[-1].reason == (
            "the traffic path failed: the process that forwards its connections ended: SIGKILL"
        )
        assert cluster.workers[0].lease != worker.lease
        assert (await run_job())[1] == "3000000"


@pytest.mark.slow
async def test_on_one_machine_the_path_is_direct_and_says_why() -> None:
    pytest.importorskip("ray", reason="pip install 'swarmp2p[ray]'")
    async with (
        lender("direct", "overlay") as address,
        open_peer(bootstrap=[address]) as peer,
        peer.borrow(timeout_s=120) as cluster,
    ):
        (worker,) = cluster.workers
        assert worker.path == "direct"
        assert worker.path_reason == "both run on one machine and in one network namespace"
        assert cluster.past_events[-1].reason == f"direct: {worker.path_reason}"
        assert (await run_job())[1] == "3000000"


@pytest.mark.slow
async def test_two_that_allow_no_common_path_are_told_so() -> None:
    pytest.importorskip("ray", reason="pip install 'swarmp2p[ray]'")
    async with lender("direct") as address, open_peer(bootstrap=[address]) as peer:
        with trio.fail_after(120):
            async with (
                peer.borrow(paths=["overlay"], min_workers=0) as cluster,
                aclosing(cluster.events()) as events,
            ):
                async for event in events:
                    if event.kind in (ClusterEventKind.REFUSED, ClusterEventKind.ENDED):
                        assert "the borrower allows overlay, this lender direct" in event.reason
                        break


def test_paths_are_named_and_checked() -> None:
    assert paths_argument(["overlay", "direct", "overlay"]) == (Carrier.OVERLAY, Carrier.DIRECT)
    assert paths_argument("direct") == (Carrier.DIRECT,)
    for wrong in (["tunnel"], [], 7):
        with pytest.raises(UsageError):
            paths_argument(wrong)


def test_a_machine_has_one_name_in_a_cluster_and_another_in_the_next() -> None:
    one, other = bytes(16), bytes([1]) * 16
    head, liar = (Identity(bytes([number]) * 32).peer_id for number in (1, 2))
    assert machine(one, head) == machine(one, head) != machine(other, head)
    assert machine(one, head) != machine(one, liar), "what a head says is of no use to another"
    assert len(machine(one, head)) == 32


def this_peer(ip: str = "") -> Any:
    """What paths need of a peer; others are connected from `ip`."""

    def ip_of(peer: PeerId) -> str:
        return ip

    return SimpleNamespace(id=Identity(bytes(32)).peer_id, open_stream=None, ip_of=ip_of)


def lending(ip: str, posted: list[object], nursery: trio.Nursery | None = None) -> LenderPaths:
    """A lender's paths; its borrowers are connected from `ip`. What they come to is in `posted`."""
    paths = Paths(this_peer(ip), posted.append)
    stock = Stock(None, direct=True, sizes=Sizes(0, 0, 0))
    return LenderPaths(paths, (Carrier.DIRECT, Carrier.OVERLAY), Offer(cpus=1), stock, cast(Any, nursery))


async def test_a_borrower_that_takes_and_gives_up_leases_all_the_time_makes_few_cells(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    alive, most = 0, 0

    @asynccontextmanager
    async def slow_to_end() -> AsyncGenerator[None, None]:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        try:
            await trio.sleep(3600)
            yield
        finally:
            with cancel_scope(shield=True):
                await trio.sleep(1)
            alive -= 1

    monkeypatch.setattr("swarmp2p.ready.open_cell", slow_to_end)
    borrower = Identity(bytes([1]) * 32).peer_id
    posted: list[object] = []
    async with trio.open_nursery() as nursery:
        paths = lending("192.0.2.7", posted, nursery)
        for number in range(50):
            lease = bytes([number]) * 16
            paths.handle(OpenPath(lease, borrower, Role.LENDER))
            paths.handle(Invited(lease, bytes([99]) * 16, borrower, Facts()))
            await trio.testing.wait_all_tasks_blocked()
            paths.handle(ClosePath(lease))
            assert lease not in paths
    assert (alive, most, posted) == (0, 2, [])


@pytest.mark.parametrize(
    ("ip", "here"), [("127.0.0.1", True), ("::1", True), ("192.0.2.7", False), ("", False)]
)
def test_who_speaks_no_mesh_gets_a_direct_path_only_on_this_machine(ip: str, here: bool) -> None:
    """Else a borrower that plays an old version would have its worker run outside of a cell."""
    posted: list[object] = []
    lease, borrower = bytes(16), Identity(bytes([1]) * 32).peer_id
    lender_paths = lending(ip, posted)
    lender_paths.handle(OpenPath(lease, borrower, Role.LENDER))
    lender_paths.handle(MeshFailed(lease, "an older version?", unsupported=True))
    [outcome] = posted
    assert isinstance(outcome, PathUp if here else PathFailed)


def test_a_head_that_only_says_to_be_on_this_machine_gets_a_cell() -> None:
    """It may have learned the machine's name in a cluster from the lender itself, or from a task there."""
    head, other = (Identity(bytes([number]) * 32).peer_id for number in (1, 2))

    def invited(named: PeerId) -> Invited:
        facts = Facts(carriers=(Carrier.DIRECT, Carrier.OVERLAY), machine=machine(bytes(16), named))
        return Invited(bytes(16), bytes(16), head, facts)

    def offered(ip: str, named: PeerId) -> Carrier:
        return lending(ip, [])._carriers(invited(named))[0]  # pyright: ignore[reportPrivateUsage]

    assert offered("127.0.0.1", head) is Carrier.DIRECT
    assert offered("192.0.2.7", head) is Carrier.OVERLAY
    assert offered("", head) is Carrier.OVERLAY
    assert offered("127.0.0.1", other) is Carrier.OVERLAY


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    import socket

    with socket.create_server(("127.0.0.7", 0)) as server:
        assert not free("127.0.0.1", server.getsockname()[1])


def test_addresses_that_carriers_are_taken_at_are_those_of_the_peer() -> None:
    from swarmp2p.own_facts import own_ips

    def of(*texts: str) -> list[str]:
        return list(own_ips([Multiaddr(text) for text in texts]))

    relayed = "/ip4/5.5.5.5/tcp/1/p2p/12D3KooWEgaYpwDs6g33Nd8z7UiHdDE8Za4zdysx5d3zQMmRLrnK/p2p-circuit"
    assert of("/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/2", relayed, "/dns4/a.example/tcp/3") == [
        "127.0.0.1",
        "::1",
    ]
