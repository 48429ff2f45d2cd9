"""The scenarios of benchmarks/gossip.py, one run of one side each."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from random import Random
from typing import Final

import trio

from .gossip_fleet import Measured, fleet, spread
from .gossip_nodes import OURS, PY
from .gossip_signals import signals
from .gossip_workload import Plan
from .graph import regular_graph
from .report import ROOT, Figures, Side, SideFailed, percentile, say

JS: Final = "js-libp2p"
SIDES: Final = (OURS, PY, JS)

_JS_FOLDER: Final = ROOT / "tests" / "interop" / "js"
_NODE: Final = _JS_FOLDER / "node_modules" / "node"
_JS_LIMIT_S: Final = 600.0
_PY_RATE: Final = 2.0
"""Messages a second that py-libp2p is given at most: 20 of its nodes carry three to five."""

_FLAT_AFTER_S: Final = 20
_WINDOW_S: Final = 5


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured. rate: messages a second, of all nodes together. seconds: for which they are published, and as
    many for the closed loop. settle: seconds before each loop, a few heartbeats: for the meshes to form, and for what
    the loop before left to do. processes: that our nodes are spread over. coalesce_ms: our routers' flush interval.
    providers: whose signals arrive once a second."""

    nodes: int = 20
    degree: int = 8
    rate: float = 10.0
    seconds: float = 10.0
    settle: float = 5.0
    seed: int = 1
    processes: int = 1
    coalesce_ms: float = 0.0
    providers: int = 1000


async def rate(side: str, options: Options) -> Side:
    """Closed loop, then open loop, which may leave slow nodes with more than they ever catch up with."""
    if side == JS:
        return await _js(options)
    processes = options.processes if side == OURS else 1
    own_rate = options.rate if side == OURS else min(options.rate, _PY_RATE)
    async with fleet(_plan(side, options, processes)) as some:
        await trio.sleep(options.settle)
        per_s = await some.closed_loop(options.seconds)
        await trio.sleep(options.settle)
        measured = await some.open_loop(1, own_rate, options.seconds)
    figures = {**measured.figures(), "deliveries_per_s": per_s}
    return _told(side, figures, {"rate": own_rate, "processes": processes})


async def throughput(side: str, options: Options) -> Side:
    """The closed loop alone."""
    if side == JS:
        found = await _js(options)
        return Side({"deliveries_per_s": found.figures["deliveries_per_s"]}, found.setup)
    processes = options.processes if side == OURS else 1
    async with fleet(_plan(side, options, processes)) as some:
        await trio.sleep(options.settle)
        per_s = await some.closed_loop(options.seconds)
    return _told(side, {"deliveries_per_s": per_s}, {"processes": processes})


async def memory(side: str, options: Options) -> Side:
    """A fifth of the rate for ten seconds, then the rate; whether resident memory is flat then.

    memory_growth: of the last seconds, to those that begin 20 s after the rate went up.
    """
    async with fleet(_plan(side, options, options.processes)) as some:
        await trio.sleep(options.settle)
        first = await some.open_loop(1, options.rate / 5, min(10.0, options.seconds))
        then = await some.open_loop(2, options.rate, options.seconds)
    samples = then.memory_mb[: int(options.seconds)]
    window = min(_WINDOW_S, max(1, len(samples) // 4))
    start = min(_FLAT_AFTER_S, len(samples) // 3)
    before, after = samples[start : start + window], samples[-window:]
    figures = {
        **then.figures(),
        "delivered": (first.count + then.count) / (first.expected + then.expected),
        "memory_mb": percentile(after, 0.5),
        "memory_growth": percentile(after, 0.5) / percentile(before, 0.5),
    }
    return _told(side, figures, {"memory_mb_by_second": " ".join(f"{mb:.0f}" for mb in samples)})


async def slow_reader(side: str, options: Options) -> Side:
    """The last node's process is stopped and reads nothing: what the others' messages take, beside a run in which it
    reads. It publishes nothing in either."""
    reading = await _one_apart(side, options, stopped=False)
    stopped = await _one_apart(side, options, stopped=True)
    with_it, without = percentile(stopped.latencies_ms, 0.99), percentile(reading.latencies_ms, 0.99)
    figures = {
        "delivered": stopped.count / stopped.expected,
        "p99_ms": with_it,
        "p99_all_reading_ms": without,
        "p99_ratio": with_it / without,
    }
    return _told(side, figures, {})


async def _one_apart(side: str, options: Options, stopped: bool) -> Measured:
    others = options.nodes - 1
    plan = Plan(
        side, (0,) * others + (1,), tuple(range(others)), options.degree, options.seed, options.coalesce_ms
    )
    async with fleet(plan) as some:
        await trio.sleep(options.settle)
        if stopped:
            some.stop(1)
        return await some.open_loop(1, options.rate, options.seconds, of=0)


async def load_signals(side: str, options: Options) -> Side:
    """See gossip_signals.py."""
    return _told(side, await signals(options.providers, options.seconds), {})


def _plan(side: str, options: Options, processes: int) -> Plan:
    nodes = options.nodes
    return Plan(
        side,
        spread(nodes, processes),
        tuple(range(nodes)),
        options.degree,
        options.seed,
        options.coalesce_ms if side == OURS else 0.0,
    )


def _told(side: str, figures: Figures, setup: dict[str, float | str]) -> Side:
    for metric, value in figures.items():
        say(f"{side}: {metric} {value:.3f}")
    return Side(figures, setup)


def missing(side: str) -> str:
    """What a side lacks on this machine, and what to do about it; "" for nothing."""
    if side == JS and not os.access(_NODE, os.X_OK):
        return "js-libp2p is not installed; run tools/js-peers python3 once, or leave it out: --sides ours,py-libp2p"
    return ""


async def _js(options: Options) -> Side:
    """js-libp2p, all nodes in one process, with the installation of tests/interop."""
    edges = regular_graph(options.nodes, options.degree, Random(options.seed))
    modules = (_JS_FOLDER / "package.json").as_uri()
    told = json.dumps({**asdict(options), "edges": edges, "modules": modules})
    script = ROOT / "benchmarks" / "js" / "gossip.mjs"
    command = [str(_NODE), "--experimental-import-meta-resolve", str(script), told]
    with trio.move_on_after(_JS_LIMIT_S + 3 * options.seconds):
        done: subprocess.CompletedProcess[bytes] = await trio.run_process(
            command, capture_stdout=True, check=False
        )
        lines = done.stdout.decode(errors="replace").splitlines()
        if done.returncode or not lines:
            raise SideFailed(f"js-libp2p ended with status {done.returncode}; its messages are above")
        figures: Figures = json.loads(lines[-1])
        return _told(JS, figures, {"processes": 1})
    raise SideFailed("js-libp2p was stopped; give it less to do")
