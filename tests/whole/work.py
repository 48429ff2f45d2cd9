"""A Ray job of a borrower in a laboratory: what runs on the workers, and what it finds there.

    python -m tests.whole.work MARKER       with RAY_ADDRESS and the token in its environment

It sends the marker to each node and back, much of it both ways, and prints a JSON object: `nodes` (by Ray), `echoed`
(whether all came back whole), `open` (the TCP ports that a task finds open, by node and address: of each machine of
the cluster, of the node's loopback and of the addresses in PROBE), `interfaces` (by node), and `escapes` (what a task
could do to get out of the node's network, or to change it).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
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


def echo(data: bytes) -> bytes:
    """What came."""
    return bytes(data)


def main() -> None:
    """Run and print."""
    marker = sys.argv[1].encode() * (_REPEATS // len(sys.argv[1]))
    cloudpickle.register_pickle_by_value(scan)  # workers need not see this checkout
    ray.init(log_to_driver=False)
    nodes: list[dict[str, Any]] = [node for node in ray.nodes() if node["Alive"]]
    workers = [node for node in nodes if node["Resources"].get("CPU")]
    probe = sorted({node["NodeManagerAddress"] for node in nodes} | {"127.0.0.1"})
    probe += os.environ.get("PROBE", "").split()
    found: dict[str, Any] = {}
    echoed = True
    for node in workers:
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        options: dict[str, Any] = {"num_cpus": 1, "scheduling_strategy": here}
        data = ray.put(marker)
        echoed &= ray.get(ray.remote(echo).options(**options).remote(data), timeout=60) == marker
        found[node["NodeManagerAddress"]] = ray.get(
            ray.remote(look).options(**options).remote(probe), timeout=60
        )
    told = [
        {
            "address": node["NodeManagerAddress"],
            "ports": [node["NodeManagerPort"], node["ObjectManagerPort"]],
            "cpus": node["Resources"].get("CPU", 0),
        }
        for node in nodes
    ]
    print(json.dumps({"nodes": told, "echoed": echoed, "found": found}), flush=True)


if __name__ == "__main__":
    main()
