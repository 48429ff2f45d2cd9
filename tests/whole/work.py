"""A Ray job of a borrower in a laboratory: what runs on the workers, and what it finds there.

    python -m tests.whole.work MARKER       with RAY_ADDRESS and the token in its environment

It sends the marker to each node and back, and from each worker to each other one, much of it every time, and prints a
JSON object: `nodes` (by Ray), `echoed` (whether all came back whole), `passed` (how many times it came whole from one
worker to another), and for each worker in `found`: `open` (the TCP ports that a task finds open, by address: of those
in PROBE, where "nodes" stands for each machine of the cluster and the node's loopback), `interfaces`, and `escapes`
(what a task could do to get out of the node's network, or to change it).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import ray as _ray
import ray.cloudpickle as _cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tests.lab import escape, scan

ray: Any = _ray  # partly typed: what is not would have to be ignored call by call
cloudpickle: Any = _cloudpickle

_REPEATS: Final = 200_000
ESCAPE: Final = Path(escape.__file__).read_text()


def look(addresses: list[str]) -> dict[str, Any]:
    """What a task sees of the network around it."""
    found = {address: scan.scan(address) for address in addresses}
    interfaces = sorted(name for _, name in socket.if_nameindex())
    # in a process of its own, for it may end as root of nothing
    program = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ESCAPE, "1"], capture_output=True, text=True, check=True
    )
    return {"open": found, "interfaces": interfaces, "escapes": json.loads(program.stdout)["said"]["done"]}


def make(data: bytes) -> bytes:
    """What came again, as an object that this node has and no other."""
    return bytes(data)


def digest(data: bytes) -> str:
    """What came, in short."""
    return hashlib.sha256(data).hexdigest()


def echo(data: bytes) -> bytes:
    """What came."""
    return bytes(data)


def on(node: dict[str, Any], task: Callable[..., object]) -> Any:
    """A task that runs on this node alone."""
    here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(task).options(num_cpus=1, scheduling_strategy=here)


def main() -> None:
    """Run and print."""
    marker = sys.argv[1].encode() * (_REPEATS // len(sys.argv[1]))
    cloudpickle.register_pickle_by_value(scan)  # workers need not see this checkout
    ray.init(log_to_driver=False)
    nodes: list[dict[str, Any]] = [node for node in ray.nodes() if node["Alive"]]
    workers = [node for node in nodes if node["Resources"].get("CPU")]
    probe = os.environ.get("PROBE", "").split()
    if "nodes" in probe:
        probe.remove("nodes")
        probe += sorted({node["NodeManagerAddress"] for node in nodes} | {"127.0.0.1"})
    found: dict[str, Any] = {}
    echoed = True
    data = ray.put(marker)
    for node in workers:
        echoed &= ray.get(on(node, echo).remote(data), timeout=60) == marker
    seen = [on(node, look).remote(probe) for node in workers]
    for node, its in zip(workers, ray.get(seen, timeout=60), strict=True):
        found[node["NodeManagerAddress"]] = its
    passed = 0
    for one, other in itertools.permutations(workers, 2):
        made = on(one, make).remote(data)
        passed += ray.get(on(other, digest).remote(made), timeout=60) == digest(marker)
    told = [
        {
            "address": node["NodeManagerAddress"],
            "ports": [node["NodeManagerPort"], node["ObjectManagerPort"]],
            "cpus": node["Resources"].get("CPU", 0),
        }
        for node in nodes
    ]
    print(json.dumps({"nodes": told, "echoed": echoed, "passed": passed, "found": found}), flush=True)


if __name__ == "__main__":
    main()
