"""Pubsub over a random graph, beside py-libp2p's and js-libp2p's GossipSub, and what our gossip has to reach.

    python -m benchmarks.gossip --nodes 20 --rate 10 [--scenario NAME] [--sides ours,js-libp2p] [--runs N] [--json]
    python -m benchmarks.gossip --scenario all --runs 3      every bar; about 8 minutes a run, on two free cores

Nodes are connected over libp2p on loopback, along a random D-regular graph. Scenarios:

    rate         first 16 publishers wait until their message has reached everybody before they publish the next one (a
                 closed loop), which tells what the nodes can carry at most. Then random nodes publish signed messages
                 of 150 bytes at fixed instants, whether or not the nodes keep up (an open loop)
    throughput   the closed loop alone, over --processes
    memory       an open loop at a fifth of the rate, then at the rate: whether memory is flat 20 s later
    slow-reader  an open loop while one node's process is stopped, beside one in which it runs
    signals      load signals of --providers, once a second each, into one node; no graph

Our nodes may be spread over several processes (--processes); js-libp2p's and py-libp2p's are in one. py-libp2p cannot
carry much: it gets 2 messages a second at most, as its setup says. Progress goes to stderr; the last line of stdout is
one JSON object with medians over the runs, and with the bars that apply:

    delivered              deliveries of those that should be: each message at each node but its publisher (0 to 1)
    p50_ms, p99_ms         from the instant for which a message was scheduled to its delivery at one node
    cpu_ms_per_delivery    CPU of all nodes together
    bytes_per_delivery     sent by all nodes, with TCP's and IP's headers, as the kernel counts it
    packets_per_delivery   segments, with those that only acknowledge
    deliveries_per_s       in the closed loop
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import trio

from .gossip_bars import bars
from .gossip_nodes import OURS
from .gossip_scenarios import SIDES, Options, load_signals, memory, missing, rate, slow_reader, throughput
from .options import options_of, parser_for
from .report import Side, SideFailed, load_average, medians, result, rounded, say, script

_SCENARIOS: Final[Mapping[str, Callable[[str, Options], Awaitable[Side]]]] = {
    "rate": rate,
    "throughput": throughput,
    "memory": memory,
    "slow-reader": slow_reader,
    "signals": load_signals,
}
_COMPARED: Final = ("rate", "throughput")
"""Scenarios in which others take part."""

_ATTEMPTS: Final = 2  # py-libp2p now and then ends by itself


@dataclass(frozen=True, slots=True)
class Case:
    """One scenario with its options."""

    name: str
    scenario: str
    options: Options


ALL: Final = (
    Case("rate 100", "rate", Options(rate=100.0)),
    Case("rate 10", "rate", Options(rate=10.0)),
    Case("rate 10, 50 ms coalescing", "rate", Options(rate=10.0, coalesce_ms=50.0)),
    Case("throughput on 2 cores", "throughput", Options(processes=2)),
    Case("40 nodes at 20, then 100", "memory", Options(nodes=40, rate=100.0, seconds=60.0, processes=2)),
    Case("one of 20 reads nothing", "slow-reader", Options(rate=20.0, seconds=20.0)),
    Case("1,000 providers' signals", "signals", Options()),
)


def run_case(case: Case, sides: Sequence[str], runs: int) -> dict[str, object]:
    """Measure a case; the object that is printed of it."""
    measured: dict[str, Side] = {}
    for side in sides if case.scenario in _COMPARED else (OURS,):
        found = [_run(case, side) for _ in range(runs)]
        measured[side] = Side(medians(one.figures for one in found), found[-1].setup)
    setup = {"scenario": case.scenario, "runs": runs, **asdict(case.options)}
    told = result("gossip", setup, ["libp2p"], measured)
    figures = {metric: rounded(value) for metric, value in measured[OURS].figures.items()}
    options = case.options
    told["bars"] = {
        bar.metric: bar.judge(figures) for bar in bars(case.scenario, options.rate, options.coalesce_ms)
    }
    return told


def _run(case: Case, side: str) -> Side:
    load = load_average()
    say(f"{case.name}: {side}, load average {load}")
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            found = trio.run(_SCENARIOS[case.scenario], side, case.options)
            return Side(found.figures, {**found.setup, "load_average": load})
        except SideFailed as problem:
            if side == OURS or attempt == _ATTEMPTS:
                raise
            say(f"{problem}; once more")
    raise AssertionError


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = parser_for(
        "gossip",
        __doc__,
        Options(),
        {
            "nodes": "of each side",
            "degree": "neighbours of each node",
            "rate": "messages a second, of all nodes together",
            "seconds": "for each loop",
            "settle": "seconds before each loop",
            "seed": "of the graph and of who publishes",
            "processes": "that our nodes are spread over",
            "coalesce-ms": "our routers' flush interval; 0 for none",
            "providers": "whose signals arrive, in the scenario signals",
        },
    )
    parser.add_argument("--scenario", choices=[*_SCENARIOS, "all"], default="rate", help="see above (rate)")
    parser.add_argument("--sides", default=",".join(SIDES), help=f"those to measure ({','.join(SIDES)})")
    parser.add_argument("--runs", type=int, default=1, help="of which medians are told (1)")
    options = parser.parse_args(argv)
    if not (options.rate + options.seconds + options.settle + options.coalesce_ms < math.inf):
        parser.error("--rate, --seconds, --settle and --coalesce-ms are finite numbers")
    if min(options.settle, options.coalesce_ms) < 0:
        parser.error("--settle and --coalesce-ms are at least 0")
    if min(options.rate, options.seconds, options.runs, options.processes, options.providers) <= 0:
        parser.error("take a --rate, --seconds, --runs, --processes and --providers above 0")
    if not 1 <= options.degree < options.nodes or options.nodes * options.degree % 2:
        parser.error(
            f"{options.nodes} nodes cannot all have {options.degree} neighbours: those are fewer, and the two "
            "multiplied an even number"
        )
    options.sides = options.sides.split(",")
    if OURS not in options.sides or not set(options.sides) <= set(SIDES):
        parser.error(f"--sides are {OURS} and others of {', '.join(SIDES)}")
    if options.scenario in (*_COMPARED, "all"):
        for side in options.sides:
            lacking = missing(side)
            if lacking:
                parser.error(lacking)
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    namespace = parse(argv)
    options = options_of(Options, namespace)
    sides, runs = namespace.sides, namespace.runs
    try:
        if namespace.scenario != "all":
            found = run_case(Case(namespace.scenario, namespace.scenario, options), sides, runs)
        else:
            cases = {case.name: run_case(case, sides, runs) for case in ALL}
            found = {
                "benchmark": "gossip",
                "scenarios": cases,
                "bars": {name: case["bars"] for name, case in cases.items()},
            }
        print(json.dumps(found))
    except SideFailed as problem:
        sys.exit(f"benchmarks.gossip: {problem}")


if __name__ == "__main__":
    script(main)
