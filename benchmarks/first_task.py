"""From nothing to the result of a first Ray task.

    python -m benchmarks.first_task [--runs N] [--json]

`first_task_s` of ours is the whole demo's: five peers start, find each other, agree on leases, and three
workers join; its first task imports scikit-learn and fits a model. Peer `ray-start` is what anybody can do by
hand: `ray start` for a head, `ray start` for one worker, a driver that runs one task that does nothing.
`nodes_first_task_s` of ours is that same task on this library's head and worker, without a swarm. Every
figure is the median of N runs in turn. Progress goes to stderr, the result, one JSON object, is the last line
of stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from shutil import which
from typing import Final

import trio

from swarmp2p.ray_bridge.events import Need
from swarmp2p.ray_bridge.head import start_head
from swarmp2p.ray_bridge.node_tree import private_directory
from swarmp2p.ray_bridge.tree import open_tree
from swarmp2p.ray_bridge.worker import start_worker

from .report import Side, result, script

HEAD_IP: Final = "127.77.82.1"
WORKER_IP: Final = "127.77.82.2"
LIMIT_S: Final = 300.0
DEMO_METRICS: Final = ("first_task_s", "third_worker_s", "kill_to_notice_s", "kill_to_replacement_s")

DRIVER: Final = """
import ray
ray.init(logging_level="ERROR", log_to_driver=False)
@ray.remote
def one():
    return 1
assert ray.get(one.remote()) == 1
"""

# `ray start` returns when the node is up, and leaves it running; the shell keeps the tree together.
SHELL: Final = """"$@" >&2 && echo '{"up": true}' && exec sleep 100000"""

Figures = dict[str, float]


async def drive(environment: dict[str, str]) -> None:
    """Run the driver as a process of its own."""
    await trio.run_process([sys.executable, "-c", DRIVER], env={**os.environ, **environment})


async def ray_start() -> Figures:
    """Head, worker and driver one after the other, by the `ray` command."""
    ray = which("ray", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if ray is None:
        raise SystemExit("the `ray` command is not installed; pip install 'swarmp2p[ray]'")
    directory = private_directory()
    token = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    environment = {**os.environ, **token}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def command(name: str, ip: str, *options: str) -> list[str]:
        where = [f"--node-ip-address={ip}", f"--temp-dir={directory / name}"]
        return ["sh", "-c", SHELL, "sh", ray, "start", *where, *options]

    began = time.monotonic()
    async with open_tree(
        command("head", HEAD_IP, "--head", "--port=0", "--num-cpus=0", "--include-dashboard=false"),
        environment=environment,
        log_path=directory / "head.log",
        remove=[directory],
    ) as head:
        await head.told("up")
        head_s = time.monotonic() - began
        found = re.search(rb"--address='?([0-9.]+:[0-9]+)", head.log_tail(65536))
        if found is None:
            raise SystemExit("`ray start` did not say the head's address")
        address = found[1].decode()
        async with open_tree(
            command("worker", WORKER_IP, f"--address={address}", "--num-cpus=1"),
            environment=environment,
            log_path=directory / "worker.log",
        ) as worker:
            await worker.told("up")
            worker_s = time.monotonic() - began - head_s
            await drive({**token, "RAY_ADDRESS": address})
            total_s = time.monotonic() - began
    return {"head_s": head_s, "worker_s": worker_s, "first_task_s": total_s, "nodes_first_task_s": total_s}


async def our_nodes() -> Figures:
    """Head and worker as a cluster starts them: the worker as soon as GCS answers."""
    began = time.monotonic()
    async with start_head() as head:
        await head.gcs_ready()
        async with start_worker(head.secret, need=Need(), node_ip="127.0.0.1"):
            await head.ready()
            await drive(head.driver_environment())
            total_s = time.monotonic() - began
    return {"nodes_first_task_s": total_s}


async def our_demo() -> Figures:
    """`swarmp2p demo` as a user runs it, to its end."""
    done = await trio.run_process(
        [sys.executable, "-m", "swarmp2p", "demo", "--plain", "--json"], capture_stdout=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"the demo failed with status {done.returncode}; it says above why")
    told = json.loads(done.stdout.splitlines()[-1])
    return {metric: told[metric] for metric in DEMO_METRICS}


async def measure(runs: int) -> tuple[Figures, Figures]:
    """Medians of ours and of `ray start`."""
    sides: list[tuple[str, Callable[[], Awaitable[Figures]]]] = [
        ("demo", our_demo),
        ("nodes", our_nodes),
        ("ray-start", ray_start),
    ]
    taken: dict[str, list[Figures]] = {name: [] for name, _ in sides}
    for run in range(runs):
        for name, side in sides:
            with trio.fail_after(LIMIT_S):
                figures = await side()
            taken[name].append(figures)
            told = ", ".join(f"{metric} {value:.2f}" for metric, value in figures.items())
            print(f"run {run + 1} of {runs}, {name}: {told}", file=sys.stderr)
    demo, nodes, theirs = (
        {metric: round(statistics.median(one[metric] for one in side), 3) for metric in side[0]}
        for side in taken.values()
    )
    return {**demo, **nodes}, theirs


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="runs of each side (3)")
    parser.add_argument(
        "--json", action="store_true", help="print nothing but the result on stdout; always so"
    )
    options = parser.parse_args(argv)
    ours, theirs = trio.run(measure, options.runs)
    sides = {"ours": Side(ours), "ray-start": Side(theirs)}
    print(json.dumps(result("first_task", {"runs": options.runs}, ["ray"], sides)))


if __name__ == "__main__":
    script(main)
