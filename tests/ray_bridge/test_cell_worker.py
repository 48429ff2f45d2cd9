"""Ray workers in cells: they join through forwarded listeners, work, and neither reach nor are reached by others."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Any

import pytest
import trio

from swarmp2p.own_facts import Reserved
from swarmp2p.ray_bridge import environment
from swarmp2p.ray_bridge._ray_node import SINGLE_PORTS
from swarmp2p.ray_bridge.cells import Cell, cell_problem, open_cell
from swarmp2p.ray_bridge.events import Need
from swarmp2p.ray_bridge.head import RayHead, start_head
from swarmp2p.ray_bridge.warm import open_warm
from swarmp2p.ray_bridge.worker import PEER_LABEL, start_worker
from swarmp2p.transport.overlay.plane import Plane, open_plane

from .process_marks import family

PROBLEM = trio.run(cell_problem)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))]

PORTS = 24

# Tasks and actors on both workers, objects in all directions, a module of the driver's, and probes from inside.
WORK = """
import json, os, socket, sys
import ray

ray.init(logging_level="ERROR", log_to_driver=False, runtime_env={"working_dir": sys.argv[1]})
BYTES = int(sys.argv[2])

def on(name):
    return {"num_cpus": 1, "label_selector": {"swarmp2p.peer": name}}

@ray.remote
class Holder:
    def make(self):
        return ray.put(b"x" * BYTES)
    def size(self, refs):
        return len(ray.get(refs[0]))
    def where(self):
        import brought
        return ray.get_runtime_context().get_node_labels()["swarmp2p.peer"], brought.WORD
    def probe(self, places):
        found = {}
        for host, port in places:
            try:
                socket.create_connection((host, port), timeout=2).close()
                found[host] = ""
            except OSError as problem:
                found[host] = type(problem).__name__
        return found

one, two = Holder.options(**on("one")).remote(), Holder.options(**on("two")).remote()
here = ray.put(b"y" * BYTES)
made = ray.get([one.make.remote(), two.make.remote()], timeout=100)
probes = [probe for probe in json.load(sys.stdin)]
print(json.dumps({
    "where": ray.get([one.where.remote(), two.where.remote()], timeout=100),
    "to workers": ray.get([one.size.remote([here]), two.size.remote([here])], timeout=100),
    "from workers": [len(ray.get(ref, timeout=100)) for ref in made],
    "among workers": ray.get([one.size.remote([made[1]]), two.size.remote([made[0]])], timeout=100),
    "probes": ray.get(one.probe.remote(probes), timeout=100),
}))
"""

# More actors than a node has ports: those that find none wait.
CROWD = """
import sys
import ray

ray.init(logging_level="ERROR", log_to_driver=False)

@ray.remote(num_cpus=0)
class Actor:
    def __init__(self):
        self.ready = True
    def alive(self):
        return self.ready

ports = int(sys.argv[1])
actors = [Actor.options(label_selector={"swarmp2p.peer": "one"}).remote() for _ in range(ports + 1)]
calls = [actor.alive.remote() for actor in actors]
ray.wait(calls, num_returns=ports, timeout=60)
done, waiting = ray.wait(calls, num_returns=ports + 1, timeout=2)
print(len(done), len(waiting))
ray.kill(actors[calls.index(done[0])])
done, _ = ray.wait(waiting, num_returns=1, timeout=60)
print(len(done))
"""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the cluster. cell: None for the head."""

    name: bytes
    address: str
    ports: range
    plane: Plane
    cell: Cell | None = None


def free_block(count: int, reserved: Reserved) -> int:
    """The first of so many ports in a row that are free."""
    while True:
        first = SystemRandom().randrange(10_000, 30_000)
        if all(reserved.free("127.0.0.1", port) for port in range(first, first + count)):
            reserved.keep(range(first, first + count))
            return first


@asynccontextmanager
async def cluster(
    names: Sequence[str], user_namespace: bool | None = True
) -> AsyncGenerator[tuple[RayHead, list[Member]], None]:
    """A head, whose GCS answers, and a cell with its plane for each worker; every pair has a session."""
    async with AsyncExitStack() as stack:
        first = free_block(PORTS * (1 + len(names)), stack.enter_context(closing(Reserved())))
        blocks = [
            range(start, start + PORTS) for start in range(first, first + PORTS * (1 + len(names)), PORTS)
        ]
        third = os.urandom(1)[0]  # of the addresses: another run on this machine has another
        head = await stack.enter_async_context(start_head(ports=blocks[0]))
        plane = await stack.enter_async_context(open_plane(b"head".ljust(16)))
        members = [Member(b"head".ljust(16), "127.0.0.1", blocks[0], plane)]
        for number, (name, ports) in enumerate(zip(names, blocks[1:], strict=True), start=2):
            cell = await stack.enter_async_context(open_cell(user_namespace=user_namespace))
            plane = await stack.enter_async_context(open_plane(name.encode().ljust(16), cell=cell.sockets))
            members.append(Member(name.encode().ljust(16), f"127.64.{third}.{number}", ports, plane, cell))
        for member in members:
            await member.plane.serve(member.address, member.ports)
        for at, one in enumerate(members):
            for two in members[at + 1 :]:
                secret = os.urandom(32)
                await one.plane.session(two.name, secret, False)
                await two.plane.session(one.name, secret, True, one.plane.endpoints)
                await one.plane.listen(two.name, two.address, two.ports)
                await two.plane.listen(one.name, one.address, one.ports)
        await head.gcs_ready()
        yield head, members


def listeners(pid: int) -> set[tuple[str, int]]:
    """Address, in hexadecimal, and port of everything that listens in a process's network namespace."""
    found: set[tuple[str, int]] = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A":
                address, _, port = local.partition(":")
                found.add((address, int(port, 16)))
    return found


def of_processes(pids: Sequence[int]) -> set[tuple[str, int]]:
    """The same of these processes alone."""
    inodes: set[str] = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(os.readlink(link).removeprefix("socket:[").rstrip("]"))
            except OSError:
                continue
    found: set[tuple[str, int]] = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pids[0]}/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                address, _, port = words[1].partition(":")
                found.add((address, int(port, 16)))
    return found


LOCALHOST = ("0100007F", "0000000000000000FFFF00000100007F")
"""127.0.0.1 in /proc/net/tcp, and as an IPv6 address in /proc/net/tcp6."""


async def drive(code: str, head: RayHead, *arguments: str, stdin: str = "") -> str:
    done = await trio.run_process(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **head.driver_environment()},
        stdin=stdin.encode(),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


async def test_two_workers_in_cells_work_for_a_head_on_localhost(tmp_path: Path) -> None:
    (tmp_path / "brought.py").write_text("WORD = 'of the driver'\n")
    with trio.fail_after(170), socket.create_server(("0.0.0.0", 0)) as service:
        outside = [(host, service.getsockname()[1]) for host in ("127.0.0.1", "127.0.0.5", "192.0.2.1")]
        async with cluster(["one", "two"]) as (head, (borrower, *lenders)), AsyncExitStack() as stack:
            for member in lenders:
                name = member.name.decode().strip()
                assert member.cell is not None
                warm = None
                if name == "one":
                    opened = open_warm(environment.lender_environment(), enter=member.cell.namespaces)
                    warm = await stack.enter_async_context(opened)
                worker = await stack.enter_async_context(
                    start_worker(
                        head.secret,
                        need=Need(),
                        node_ip=member.address,
                        ports=member.ports,
                        cell=member.cell,
                        warm=warm,
                        labels={PEER_LABEL: name},
                    )
                )
                own = of_processes([process.pid for process in family(worker.pid)[1:]])
                assert {port for _, port in own} <= set(member.ports)
            await head.ready()
            size = 5_000_000
            said: Any = json.loads(
                await drive(WORK, head, str(tmp_path), str(size), stdin=json.dumps(outside))
            )
            assert said == {
                "where": [["one", "of the driver"], ["two", "of the driver"]],
                "to workers": [size] * 2,
                "from workers": [size] * 2,
                "among workers": [size] * 2,
                "probes": {
                    "127.0.0.1": "ConnectionRefusedError",
                    "127.0.0.5": "ConnectionRefusedError",
                    "192.0.2.1": "OSError",
                },
            }
            everybodys = {port for member in (borrower, *lenders) for port in member.ports}
            for member in lenders:
                assert member.cell is not None
                assert {port for _, port in listeners(member.cell.pid)} <= everybodys
            # the head's processes listen in their block, on localhost alone
            heads = of_processes([process.pid for process in family(head.pid)])
            assert len(heads) >= 4
            assert {address for address, _ in heads} <= set(LOCALHOST)
            assert {port for _, port in heads} <= set(borrower.ports)


async def test_a_worker_without_a_port_waits_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ray's minute between a start that found no port and the next one, shortened
    settings = {**environment.NODE_SETTINGS, "RAY_worker_register_timeout_seconds": "10"}
    monkeypatch.setattr(environment, "NODE_SETTINGS", settings)
    with trio.fail_after(170), closing(Reserved()) as reserved:
        first = free_block(2 * PORTS, reserved)
        async with start_head(ports=range(first, first + PORTS)) as head:
            await head.gcs_ready()
            few = range(first + PORTS, first + PORTS + len(SINGLE_PORTS) + 3)
            async with start_worker(
                head.secret, need=Need(), node_ip="127.0.0.1", ports=few, labels={PEER_LABEL: "one"}
            ) as worker:
                await head.ready()
                assert (await drive(CROWD, head, "3")).split() == ["3", "1", "1"]
                own = of_processes([process.pid for process in family(worker.pid)])
                assert {port for _, port in own} <= set(few)
                assert {address for address, _ in own} <= set(LOCALHOST)
