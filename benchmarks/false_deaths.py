"""Whether far workers are taken for dead: a cluster over a network with a long round trip, for a long time.

    python -m benchmarks.false_deaths [--minutes 30] [--rtt-ms 150] [--workers 2]

Borrower and lenders are on machines of a laboratory (tests/lab: network namespaces, so it takes root), the router
between which holds all TCP back. A driver has each worker do a small task every 2 s, and send it 8 MB every 30 s. There
should be no leases that ended, no workers that Ray took for dead, and no tasks that failed. The last line of output is
the result, as JSON; progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any, Final, cast

import trio

from swarmp2p import open_peer
from swarmp2p.identity import Identity
from swarmp2p.ray_bridge.cluster_events import ClusterEventKind
from tests.lab.delay import delay
from tests.lab.namespaces import Lab
from tests.lab.requirements import require
from tests.whole.machines import SWARM_PORT, at, member

_DRIVER: Final = """
import json, os, sys, time
import ray

@ray.remote(num_cpus=0.5, scheduling_strategy="SPREAD", max_retries=0)
def small():
    return ray.get_runtime_context().get_node_id()

@ray.remote(num_cpus=0.5, scheduling_strategy="SPREAD", max_retries=0)
def large():
    return bytes(8_000_000)

ray.init(logging_level="ERROR", log_to_driver=False)
until, workers = time.time() + float(sys.argv[1]), int(sys.argv[2])
first = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
count = failed = 0
slowest, seen = 0.0, set()
while time.time() < until:
    began = time.time()
    try:
        seen.update(ray.get([small.remote() for _ in range(workers)], timeout=60))
        if count % 15 == 0:
            ray.get([large.remote() for _ in range(workers)], timeout=60)
    except Exception as problem:
        failed += 1
        print(type(problem).__name__, problem, file=sys.stderr)
    slowest = max(slowest, time.time() - began)
    count += 1
    time.sleep(2)
now = {node["NodeID"]: node["Alive"] for node in ray.nodes()}
dead = [node for node, alive in now.items() if not alive]
print(json.dumps({"rounds": count, "failed": failed, "slowest_s": slowest, "used": len(seen), "dead": len(dead),
                  "same": set(now) == first}))
"""


def show(text: str) -> None:
    """Progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


async def borrow(options: dict[str, Any]) -> None:
    """The borrower, in its namespace: prints the result."""
    async with open_peer(
        identity=Identity(bytes([99]) * 32),
        listen=[f"/ip4/0.0.0.0/tcp/{SWARM_PORT}"],
        bootstrap=options["bootstrap"],
    ) as peer:
        async with peer.borrow(workers=options["workers"], timeout_s=120.0) as cluster:
            show(f"workers: {[(worker.node_ip, worker.path) for worker in cluster.workers]}")
            predicted = [peer.distance(worker.peer) or 0.0 for worker in cluster.workers]
            done = await trio.run_process(
                [sys.executable, "-c", _DRIVER, str(options["minutes"] * 60), str(options["workers"])],
                env={**os.environ, **cluster.environment},
                capture_stdout=True,
            )
            counts = [event.kind for event in cluster.past_events]
            result = {
                **json.loads(done.stdout.splitlines()[-1]),
                "leases_ended": counts.count(ClusterEventKind.ENDED),
                "head_restarts": counts.count(ClusterEventKind.HEAD_RESTARTED),
                "predicted_rtt_s": [round(each, 3) for each in predicted],
            }
        print(json.dumps(result), flush=True)


def measure(minutes: float, rtt_ms: float, workers: int) -> dict[str, Any]:
    """Run it once."""
    with Lab() as lab:
        router, here = lab.node("router"), lab.node("borrower")
        lab.cable(router, "10.0.0.1/24", here, "10.0.0.2/24")
        here.run("ip", "route", "add", "default", "via", "10.0.0.1")
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        lenders = []
        for n in range(1, workers + 1):
            there = lab.node(f"lender {n}")
            lab.cable(router, f"10.{n}.0.1/24", there, f"10.{n}.0.2/24")
            there.run("ip", "route", "add", "default", "via", f"10.{n}.0.1")
            lenders.append(there)
        with delay(router, rtt_ms):
            first = member(lenders[0], 1, lend=1)
            others = [member(there, n, [at(first)], lend=1) for n, there in enumerate(lenders[1:], 2)]
            show(f"{1 + len(others)} lenders, {rtt_ms:g} ms away")
            options = {"bootstrap": [at(first)], "minutes": minutes, "workers": workers}
            borrower = here.python("-m", "benchmarks.false_deaths", "--borrow", json.dumps(options))
            assert borrower.stdout is not None
            told = borrower.stdout.read()
    return cast("dict[str, Any]", json.loads(told.splitlines()[-1]))


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rtt-ms", type=float, default=150.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--borrow", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.borrow:
        trio.run(borrow, json.loads(options.borrow))
        return 0
    require()
    result = measure(options.minutes, options.rtt_ms, options.workers)
    print(json.dumps({"minutes": options.minutes, "rtt_ms": options.rtt_ms, **result}))
    return int(bool(result["dead"] or result["failed"] or result["leases_ended"]))


if __name__ == "__main__":
    sys.exit(main())
