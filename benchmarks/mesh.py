"""A cluster's private path between two machines: our overlay beside plain TCP, wireguard-go and a libp2p stream.

    python -m benchmarks.mesh [--scenario NAME,...] [--sides ours,wireguard-go,...] [--runs N] [--mb N] [--json]

The two machines are network namespaces that this makes (root, and the packages nftables, iproute2, wireguard-tools and
wireguard-go), joined by a veth. Loads are processes of their own: their CPU is nobody's. Scenarios:

    direct    one connection's bulk, and echoes of 64 bytes, with no delay
    far       the same at a round trip of 50 ms, of a proxy that keeps the bandwidth; and new connections
    stalled   200 connections, of which one is not read from: what the others keep of their throughput
    cut       the carrier's connection is reset under 100 MB, and can be made again half a second later
    silent    packets are dropped: when the sockets are reset, at both ends
    idle      memory with 1,000 connections

All sides take part in `direct`, those that go over TCP in `far`, ours alone in the others. Progress goes to stderr; the
last line of stdout is one JSON object with medians over the runs, and with the bars that apply:

    mb_per_s, far_mb_per_s   10^6 bytes a second, until the receiver has confirmed the last
    cpu_s_per_gb             of the carriers' processes at both ends, for 10^9 bytes
    rtt_p50_ms               of an echo
    first_byte_rtts          from connect() to the answer to the first byte, in round trips
    stalled_share            of their throughput without the one that stalls (0 to 1)
    cut_whole                share of the transfers that arrived once and in order (0 to 1)
    silent_reset_s, far_silent_reset_s    from the first dropped packet to the last socket's end
    idle_forwards_mb, idle_forwards_more_mb    resident, of the larger carrier's process; and what the connections added
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

from .mesh_paths import OURS, PATHS
from .mesh_scenarios import RTT_MS, SCENARIOS, Options
from .options import options_of, parser_for
from .report import Bar, Figures, Side, SideFailed, load_average, medians, result, rounded, say, script, told

_WIREGUARD: Final = "wireguard-go"
_SILENCE_S: Final = 1.5


def bars(figures: Figures, wireguard: Figures) -> list[Bar]:
    """Those that apply to what was measured. Three times wireguard-go, and so on: the prototype reached 3.4 times."""
    far_silence_s = _SILENCE_S + 3 * RTT_MS / 1000
    found = [
        Bar("far_mb_per_s", 100.0, at_least=True),
        Bar("first_byte_rtts", 1.1),
        Bar("stalled_share", 0.9, at_least=True),
        Bar("cut_whole", 1.0, at_least=True),
        Bar("silent_reset_s", _SILENCE_S),
        Bar("far_silent_reset_s", far_silence_s),
        Bar("idle_forwards_mb", 32.0),
    ]
    if wireguard:
        found += [
            Bar("mb_per_s", 3 * wireguard["mb_per_s"], at_least=True),
            Bar("cpu_s_per_gb", wireguard["cpu_s_per_gb"] / 3),
            Bar("rtt_p50_ms", wireguard["rtt_p50_ms"]),
        ]
    return [bar for bar in found if bar.metric in figures]


def measure(scenarios: Sequence[str], sides: Sequence[str], runs: int, options: Options) -> dict[str, Side]:
    """Medians of each side's figures. The sides take turns, so that all have the same of what else the machine does."""
    found: dict[str, list[Figures]] = {side: [] for side in sides}
    loads: list[float] = []
    for run in range(runs):
        for name in scenarios:
            scenario, who = SCENARIOS[name]
            for side in [one for one in sides if one in who]:
                loads.append(load_average())
                figures = scenario(side, options)
                say(f"run {run + 1}, {name}, {side}: {told(figures)}; load average {loads[-1]}")
                found[side].append(figures)
    return {side: Side(medians(all_), {"load_average": max(loads)}) for side, all_ in found.items() if all_}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = parser_for(
        "mesh",
        __doc__,
        Options(),
        {
            "mb": "10^6 bytes in bulk over our path; others get more or less",
            "echoes": "in a row",
            "firsts": "new connections at 50 ms",
            "connections": "of which one stalls",
            "seconds": "for each turn of these",
            "idle": "connections",
            "cuts": "transfers in which the carrier is cut",
        },
    )
    every = ",".join(SCENARIOS)
    parser.add_argument("--scenario", default=every, help=f"those to measure ({every})")
    parser.add_argument("--sides", default=",".join(PATHS), help=f"those to measure ({','.join(PATHS)})")
    parser.add_argument("--runs", type=int, default=3, help="of which medians are told (3)")
    options = parser.parse_args(argv)
    options.scenario, options.sides = options.scenario.split(","), options.sides.split(",")
    if not set(options.scenario) <= set(SCENARIOS):
        parser.error(f"--scenario takes some of {every}")
    if OURS not in options.sides or not set(options.sides) <= set(PATHS):
        parser.error(f"--sides are {OURS} and others of {', '.join(PATHS)}")
    numbers = [getattr(options, field.name) for field in fields(Options)]
    if min(*numbers, options.runs) <= 0:
        parser.error("take numbers above 0")
    if options.mb < 5:
        parser.error("take --mb 5 or more: less says nothing")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    namespace = parse(argv)
    reason = lacking(*(["wg", "wireguard-go"] if _WIREGUARD in namespace.sides else []))
    if reason:
        sys.exit(f"benchmarks.mesh: {reason}")
    options = options_of(Options, namespace)
    try:
        measured = measure(namespace.scenario, namespace.sides, namespace.runs, options)
    except (SideFailed, LabError) as problem:
        sys.exit(f"benchmarks.mesh: {problem}")
    setup = {
        "scenarios": namespace.scenario,
        "runs": namespace.runs,
        "far_rtt_ms": RTT_MS,
        **asdict(options),
    }
    found = result("mesh", setup, ["libp2p", "cryptography"], measured)
    figures = measured[OURS].figures
    wireguard = measured[_WIREGUARD].figures if _WIREGUARD in measured else {}
    found["bars"] = {
        bar.metric: bar.judge({bar.metric: rounded(figures[bar.metric])}) for bar in bars(figures, wireguard)
    }
    print(json.dumps(found))


if __name__ == "__main__":
    script(main)
