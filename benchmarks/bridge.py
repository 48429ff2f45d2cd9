"""The Ray bridge: from a wish to a running task, and what becomes of it when machines die; `ray start` beside it.

    python -m benchmarks.bridge [--scenario NAME,...] [--sides ours,ray-start] [--leases N] ... [--json]

Peers are processes of their own, on loopback (leases, cluster, head, busy, cycles), or on machines of a laboratory,
network namespaces that this makes (distant, failover: root, and the packages nftables and iproute2). Scenarios:

    leases    from a lease request to the first task on a warm lender, with head and driver standing; a worker without
              work is given back, and the next task asks for another
    cluster   ray_cluster(workers=3) from the call to the third worker's first task: lenders warm, head cold
    distant   both at a round trip of 50 ms between any two peers, of a proxy that keeps the bandwidth
    failover  a lender's packets are dropped: until its task has begun elsewhere, on a worker leased for that
    head      kill -9 of GCS, and of all of the head's processes, until tasks run again
    busy      8 leased workers on this machine
    cycles    100 times lease and release: what a lender holds more afterwards

Peer `ray-start` does leases and cluster by hand: `ray start` for each node, all workers at once. Progress goes to
stderr; the last line of stdout is one JSON object with the bars that apply:

    lease_to_task_p50_s, lease_to_task_p95_s, far_lease_to_task_p50_s
    cluster_of_3_s, far_cluster_of_3_s        medians
    failover_p50_s, failover_p95_s
    head_resume_s, whole_head_resume_s        medians; the second with ray.shutdown() and ray.init() of the driver
    actor_kept                                how often a detached actor had its state after that (0 to 1)
    workers, workers_s                        that ran a task, and how long that took from the call of `borrow`
    leaked_processes, leaked_sockets, leaked_descriptors, leaked_shm, leaked_files, memory_growth (0.05: 5 %)
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Final

from tests.lab.namespaces import LabError
from tests.lab.requirements import lacking

from . import bridge_ray_start
from .bridge_scenarios import RTT_MS, SCENARIOS, Options
from .options import options_of, parser_for
from .report import Bar, Figures, Side, SideFailed, load_average, result, rounded, say, script, told

OURS: Final = "ours"
PEER: Final = "ray-start"
_IN_LAB: Final = ("distant", "failover")
_BY_HAND_MOST: Final = 5  # of each: it takes seconds every time


def bars(figures: Figures, workers: int) -> list[Bar]:
    """Those that apply to what was measured. workers: that were to run a task at a time."""
    found = [
        Bar("lease_to_task_p50_s", 1.0),
        Bar("lease_to_task_p95_s", 1.5),
        Bar("cluster_of_3_s", 4.0),
        Bar("far_cluster_of_3_s", 6.0),
        Bar("failover_p95_s", 4.0),
        Bar("head_resume_s", 4.0),
        Bar("whole_head_resume_s", 4.0),
        Bar("actor_kept", 1.0, at_least=True),
        Bar("workers", workers, at_least=True),
        Bar("leaked_processes", 0.0),
        Bar("leaked_sockets", 0.0),
        Bar("leaked_shm", 0.0),
        Bar("leaked_files", 0.0),
        Bar("memory_growth", 0.05),
    ]
    return [bar for bar in found if bar.metric in figures]


def measure(scenarios: Sequence[str], sides: Sequence[str], options: Options) -> dict[str, Side]:
    """Each side's figures."""
    found: dict[str, Side] = {}
    load = load_average()
    ours: Figures = {}
    for name in scenarios:
        say(f"{name}: load average {load_average()}")
        figures = SCENARIOS[name](options)
        say(f"{name}: {told(figures)}")
        ours |= figures
    found[OURS] = Side(ours, {"load_average": load})
    if PEER in sides:
        load = load_average()
        counts = {"leases": options.leases, "cluster": options.clusters}
        theirs = bridge_ray_start.measure(
            {name: min(_BY_HAND_MOST, count) for name, count in counts.items() if name in scenarios}
        )
        say(f"{PEER}: {told(theirs)}")
        found[PEER] = Side(theirs, {"load_average": load})
    return found


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = parser_for(
        "bridge",
        __doc__,
        Options(),
        {
            "leases": "to measure from request to task",
            "clusters": "of three, near and far",
            "failovers": "one lender after the other",
            "heads": "times that the head is killed, each way",
            "cycles": "of lease and release",
            "workers": "at a time on this machine",
            "settle-s": "seconds for lenders to be warm",
            "isolation": "of the lenders: jail or none",
        },
    )
    every = ",".join(SCENARIOS)
    parser.add_argument("--scenario", default=every, help=f"those to measure ({every})")
    parser.add_argument("--sides", default=f"{OURS},{PEER}", help=f"those to measure ({OURS},{PEER})")
    options = parser.parse_args(argv)
    options.scenario, options.sides = options.scenario.split(","), options.sides.split(",")
    if not set(options.scenario) <= set(SCENARIOS):
        parser.error(f"--scenario takes some of {every}")
    if OURS not in options.sides or not set(options.sides) <= {OURS, PEER}:
        parser.error(f"--sides are {OURS}, or {OURS},{PEER}")
    numbers = [getattr(options, field.name) for field in fields(Options) if field.name != "isolation"]
    if min(numbers) <= 0:
        parser.error("take numbers above 0")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    namespace = parse(argv)
    reason = lacking() if set(_IN_LAB) & set(namespace.scenario) else ""
    if reason:
        others = ",".join(name for name in SCENARIOS if name not in _IN_LAB)
        sys.exit(f"benchmarks.bridge: {reason}. Without a laboratory: --scenario {others}")
    options = options_of(Options, namespace)
    try:
        measured = measure(namespace.scenario, namespace.sides, options)
    except (SideFailed, LabError) as problem:
        sys.exit(f"benchmarks.bridge: {problem}")
    setup = {"scenarios": namespace.scenario, "far_rtt_ms": RTT_MS, **asdict(options)}
    found = result("bridge", setup, ["ray", "libp2p"], measured)
    figures = measured[OURS].figures
    found["bars"] = {
        bar.metric: bar.judge({bar.metric: rounded(figures[bar.metric])})
        for bar in bars(figures, options.workers)
    }
    print(json.dumps(found))


if __name__ == "__main__":
    script(main)
