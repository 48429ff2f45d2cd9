"""Providing and finding in the DHT, beside py-libp2p's KadDHT.

    python -m benchmarks.dht --nodes 32 [--finds N] [--concurrency C] [--rtt-ms 50] [--json]

Each side runs all its nodes in one process, over libp2p connections on loopback. One node after another stores
a provider record under a key of its own; then nodes that do not hold it look for its first provider, one at a
time; then C of them at once. Progress goes to stderr; the last line of stdout is one JSON object:

    find_first_p50_ms, find_first_p95_ms   from the call to the first provider
    provide_p50_ms, provide_p95_ms         from the call until the record was sent to the k nearest
    find_first_cpu_ms, provide_cpu_ms      CPU of all nodes together for one operation, the rest of it that goes
                                           on after the first provider included
    finds_per_s                            with C clients
    refresh_ms                             one refresh of a node's routing table, median
    success                                finds that returned the provider, of all (0 to 1)
    host_mb                                memory of each node beyond the first
    burst_stored                           of --burst provider records that one node stores all at once, the share
                                           that others find
    find_rtts, provide_rtts                medians in round trips, with --rtt-ms: a user-space proxy then delays
                                           every connection (delay.py)

py-libp2p is slow: it does as many of the operations as fit into --seconds for each phase (at least four).
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Final

import trio

from .delay import delayed
from .dht_nodes import Swarm, our_swarm, their_swarm
from .options import options_of, parser_for
from .report import (
    Figures,
    Meter,
    Side,
    SideFailed,
    compare,
    percentile,
    say,
    script,
    tell_and_end,
    tell_side,
)

OURS: Final = "ours"
THEIRS: Final = "py-libp2p"
LEAST_NODES: Final = 24  # with 20 holders and the provider itself, three can be finders

_LEAST_OPERATIONS: Final = 4
_TIMES_AT_ONCE: Final = 5  # as many finds by all clients together as one at a time
_PATIENCE: Final = 3  # times --seconds until finds that are still under way are given up
_PAUSE_S: Final = 0.02  # between operations, so that what one leaves behind does not delay the next
_SETTLE_S: Final = 2.0
_LIMIT_S: Final = 1800.0
_OPERATION_LIMIT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured. provides, finds: operations at most, one at a time. concurrency: clients at once, who
    make five times as many finds. seconds: for each phase, at most. refreshes: nodes that refresh their tables. burst:
    records of one node stored at once. rtt_ms: added to every connection."""

    nodes: int = 32
    provides: int = 64
    finds: int = 200
    concurrency: int = 16
    seconds: float = 20.0
    refreshes: int = 4
    burst: int = 100
    rtt_ms: float = 0.0
    seed: int = 1


@dataclass(slots=True)
class Stored:
    """A record: its key, its provider, and the nodes that can look for it without holding it."""

    key: bytes
    provider: bytes
    finders: list[int] = field(default_factory=list[int])


class Workload:
    """Operations on one swarm, in an order that depends on the seed alone."""

    def __init__(self, swarm: Swarm, options: Options) -> None:
        self._nodes, self._options = swarm.nodes, options
        self._rng = Random(options.seed)
        self._stored: list[Stored] = []
        self._found = self._tried = 0
        self.figures: Figures = {"host_mb": swarm.host_mb}
        self.counts: dict[str, float | str] = {}

    async def run(self) -> None:
        """All phases."""
        await trio.sleep(_SETTLE_S)  # what joining left to do
        await self._refreshes()
        await self._provides()
        await trio.sleep(_SETTLE_S)  # the records' way
        await self._choose_finders()
        await self._finds()
        await self._finds_at_once()
        await self._burst()
        self.figures["success"] = self._found / max(1, self._tried)

    async def _refreshes(self) -> None:
        taken: list[float] = []
        for node in self._nodes[: self._options.refreshes]:
            meter = Meter()
            await node.refresh()
            taken.append(meter.elapsed_s)
            await trio.sleep(_PAUSE_S)
        self.figures["refresh_ms"] = 1000 * percentile(taken, 0.5)
        say(f"refresh {self.figures['refresh_ms']:.1f} ms")

    async def _provides(self) -> None:
        order = self._rng.sample(range(len(self._nodes)), len(self._nodes))
        taken: list[float] = []
        phase = Meter()
        for number in range(self._options.provides):
            if number >= _LEAST_OPERATIONS and phase.elapsed_s > self._options.seconds:
                break
            node = self._nodes[order[number % len(order)]]
            key = b"\x12\x20" + hashlib.sha256(b"%d/%d" % (self._options.seed, number)).digest()
            meter = Meter()
            with trio.move_on_after(_OPERATION_LIMIT_S):
                if await node.provide(key):
                    self._stored.append(Stored(key, node.id))
            taken.append(meter.elapsed_s)
            await trio.sleep(_PAUSE_S)
        self._note("provide", taken, phase)
        if not self._stored:
            raise SideFailed("no node could store a record; nothing further was measured")

    async def _choose_finders(self) -> None:
        by_id = {node.id: node for node in self._nodes}
        for stored in self._stored:
            holders = await by_id[stored.provider].holders(stored.key)
            stored.finders = [n for n, node in enumerate(self._nodes) if node.id not in holders]
        self._stored = [stored for stored in self._stored if stored.finders]
        if not self._stored:
            raise SideFailed("every node holds every record; take more nodes")

    async def _finds(self) -> None:
        taken: list[float] = []
        phase = Meter()
        for number in range(self._options.finds):
            if number >= _LEAST_OPERATIONS and phase.elapsed_s > self._options.seconds:
                break
            meter = Meter()
            await self._find(number)
            taken.append(meter.elapsed_s)
            await trio.sleep(_PAUSE_S)
        self._note("find_first", taken, phase)

    async def _finds_at_once(self) -> None:
        numbers = iter(range(_TIMES_AT_ONCE * self._options.finds))
        phase = Meter()
        finished = 0

        async def client() -> None:
            nonlocal finished
            for number in numbers:
                await self._find(number)
                finished += 1
                if phase.elapsed_s > self._options.seconds:
                    break

        with trio.move_on_after(_PATIENCE * self._options.seconds):
            async with trio.open_nursery() as nursery:
                for _ in range(self._options.concurrency):
                    nursery.start_soon(client)
        self.figures["finds_per_s"] = finished / phase.elapsed_s
        self.counts["finds_at_once"] = finished
        say(f"{finished} finds by {self._options.concurrency} clients: {self.figures['finds_per_s']:.1f} /s")

    async def _burst(self) -> None:
        """One node stores many records at once; then each of them is looked for."""
        finder, node = self._nodes[0], self._nodes[-1]
        keys = [
            b"\x12\x20" + hashlib.sha256(b"%d/burst/%d" % (self._options.seed, number)).digest()
            for number in range(self._options.burst)
        ]
        found = 0
        with trio.move_on_after(_PATIENCE * self._options.seconds):
            async with trio.open_nursery() as nursery:
                for key in keys:
                    nursery.start_soon(node.provide, key)
            await trio.sleep(_SETTLE_S)
            for key in keys:
                found += await finder.find_first(key) == node.id
        self.figures["burst_stored"] = found / len(keys)
        say(f"burst of {len(keys)} records: {found} of them found")

    async def _find(self, number: int) -> None:
        stored = self._stored[number % len(self._stored)]
        finder = self._nodes[self._rng.choice(stored.finders)]
        provider: bytes | None = None
        with trio.move_on_after(_OPERATION_LIMIT_S):
            provider = await finder.find_first(stored.key)
        self._tried += 1
        self._found += provider == stored.provider

    def _note(self, operation: str, taken: Sequence[float], phase: Meter) -> None:
        """taken: seconds of each operation."""
        self.counts[operation] = len(taken)
        for metric, value in {
            "p50_ms": 1000 * percentile(taken, 0.5),
            "p95_ms": 1000 * percentile(taken, 0.95),
            "cpu_ms": 1000 * phase.cpu_s / len(taken),
        }.items():
            self.figures[f"{operation}_{metric}"] = value
            say(f"{operation} {metric} {value:.2f}")
        if self._options.rtt_ms:
            name = {"find_first": "find_rtts", "provide": "provide_rtts"}[operation]
            self.figures[name] = 1000 * percentile(taken, 0.5) / self._options.rtt_ms


async def measure(side: str, options: Options) -> None:
    """One side, in this process; prints what it measured."""
    openings = {OURS: our_swarm, THEIRS: their_swarm}
    async with openings[side](options.nodes) as swarm:
        workload = Workload(swarm, options)
        await workload.run()
        measured = Side(workload.figures, workload.counts)
        if side == THEIRS:
            tell_and_end(measured)
    tell_side(measured)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = parser_for(
        "dht",
        __doc__,
        Options(),
        {
            "nodes": f"of each side, at least {LEAST_NODES}",
            "provides": "records stored, at most",
            "finds": "finds, at most: one at a time; five times as many by all clients",
            "concurrency": "clients that find at once",
            "refreshes": "nodes that refresh their tables",
            "burst": "records that one node stores at once",
            "seed": "of the order of operations",
            "seconds": "for each kind of operation, at most",
            "rtt-ms": "round-trip time added to every connection",
        },
    )
    parser.add_argument(
        "--side", choices=[OURS, THEIRS], help="run one side only, and print what it measured"
    )
    options = parser.parse_args(argv)
    if options.nodes < LEAST_NODES:
        parser.error(
            f"--nodes {options.nodes}: take at least {LEAST_NODES}, or every node holds every record"
        )
    if options.rtt_ms < 0:
        parser.error(f"--rtt-ms {options.rtt_ms}: a round trip takes 0 or more milliseconds")
    for name in ("provides", "finds", "concurrency", "refreshes", "burst", "seconds"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name} {getattr(options, name)}: take more than 0")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    namespace = parse(argv)
    options = options_of(Options, namespace)
    try:
        if namespace.side is not None:
            with delayed(options.rtt_ms):
                trio.run(measure, namespace.side, options)
        else:
            print(compare("dht", asdict(options), (OURS, THEIRS), _LIMIT_S))
    except SideFailed as problem:
        sys.exit(f"benchmarks.dht: {problem}")


if __name__ == "__main__":
    script(main)
