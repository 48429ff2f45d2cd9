"""A cluster that outlives its borrower's process: killed, and gone on with by the next one, actors and all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from swarmp2p.cluster_memory import ClusterMemory
from swarmp2p.errors import UsageError
from swarmp2p.ray_bridge.head_state import open_head_state
from swarmp2p.transport.mesh.allocation import Place
from swarmp2p.transport.mesh.members import PortBlock

LEASE = bytes(16)

# Borrows, has its detached actor count, says how far it counted and with whose help, and waits to be killed.
BORROWER = """
import json, sys
import ray
import swarmp2p

bootstrap, folder, path = sys.argv[1:]
with swarmp2p.ray_cluster(
    bootstrap=bootstrap, identity=folder + "/key", state=folder + "/peer", cluster_state=folder + "/cluster", paths=path
) as cluster:
    ray.init(logging_level="ERROR", log_to_driver=False, namespace="here")

    @ray.remote(num_cpus=0.1)
    class Counter:
        count = 0
        def add(self):
            self.count += 1
            return self.count

    counter = Counter.options(name="counter", lifetime="detached", get_if_exists=True).remote()
    count = ray.get(counter.add.remote(), timeout=60)
    workers = [(str(worker.peer), worker.node_ip, worker.path) for worker in cluster.workers]
    print(json.dumps({"count": count, "address": cluster.address, "workers": workers}), flush=True)
    sys.stdin.read()
"""


@contextmanager
def running(*command: str) -> Generator[tuple[subprocess.Popen[str], str], None, None]:
    """A process and its first line."""
    with subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()


@pytest.mark.slow
def test_a_killed_borrower_goes_on_with_its_workers_and_their_actors(tmp_path: Path) -> None:
    path = "direct" if os.geteuid() else "overlay"  # with cells where they can be had for certain
    with running("-m", "tests.lender_process", path) as (_, bootstrap):
        said: list[Any] = []
        for _ in range(2):
            with running("-c", BORROWER, bootstrap.strip(), str(tmp_path), path) as (borrower, line):
                said.append(json.loads(line))
                borrower.kill()
        assert [each["count"] for each in said] == [1, 2]
        assert said[0]["address"] == said[1]["address"]
        assert said[0]["workers"] == said[1]["workers"]


async def test_what_a_cluster_was_is_found_again(tmp_path: Path) -> None:
    head, worker = Place(1, PortBlock(10_000, 80)), Place(4711, PortBlock(10_080, 20))
    async with open_head_state(tmp_path / "kept") as state:
        memory = ClusterMemory.of(state)
        assert (memory.head, dict(memory.before)) == (None, {})
        state.remember_port(10_000)
        memory.lead(head)
        for lease in (LEASE, LEASE[1:] + b"x"):
            memory.keep(lease, worker)
        memory.forget(LEASE[1:] + b"x")
    async with open_head_state(tmp_path / "kept") as state:
        again = ClusterMemory.of(state)
        assert (again.name, again.cluster) == (memory.name, memory.cluster)
        assert (again.head, dict(again.before), again.places) == (head, {LEASE: worker}, {LEASE: worker})
        assert (tmp_path / "kept" / "cluster").stat().st_mode & 0o777 == 0o600


async def test_a_cluster_that_is_not_kept_leaves_nothing() -> None:
    async with open_head_state(None) as state:
        memory = ClusterMemory.of(state)
        memory.lead(Place(1, PortBlock(10_000, 80)))
        assert memory.path is None
        assert not (state.directory / "cluster").exists()


@pytest.mark.parametrize(
    "told", ["", "[]", "{}", '{"name": "a", "cluster": "zz", "head": null, "places": {}}']
)
async def test_nonsense_is_refused(tmp_path: Path, told: str) -> None:
    async with open_head_state(tmp_path / "kept") as state:
        state.remember_port(10_000)
    (tmp_path / "kept" / "cluster").write_text(told)
    async with open_head_state(tmp_path / "kept") as state:
        with pytest.raises(UsageError, match="does not say which cluster"):
            ClusterMemory.of(state)
