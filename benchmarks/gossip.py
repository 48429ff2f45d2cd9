"""Pubsub over a random graph, beside py-libp2p's GossipSub.

    python -m benchmarks.gossip --nodes 20 --rate 10 [--seconds S] [--degree D] [--json]

Each side runs all its nodes in one process, over libp2p connections on loopback that follow the same random
D-regular graph. First 16 publishers wait until their message has reached everybody before they publish the next
one (a closed loop), which tells what the nodes can carry at most. Then random nodes publish signed messages of
150 bytes at fixed instants, whether or not the nodes keep up (an open loop). Progress goes to stderr; the last line of
stdout is one JSON object:

    delivered              deliveries of those that should be: each message at each node but its publisher (0 to 1)
    p50_ms, p99_ms         from the instant for which a message was scheduled to its delivery at one node
    cpu_ms_per_delivery    CPU of all nodes together
    bytes_per_delivery     sent by all nodes, with TCP's and IP's headers, as the kernel counts it
    packets_per_delivery   segments, with those that only acknowledge
    deliveries_per_s       in the closed loop
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from random import Random
from typing import Final

import trio

from .gossip_nodes import Node, our_nodes, their_nodes
from .graph import regular_graph
from .report import Meter, Side, SideFailed, compare, percentile, say, script, tell_and_end, tell_side
from .sockets import sent

OURS: Final = "ours"
THEIRS: Final = "py-libp2p"
MESSAGE_BYTES: Final = 150

_DRAIN_S: Final = 120.0  # for late messages, at most
_QUIET_S: Final = 10.0  # without a delivery: the rest is lost
_PUBLISHERS: Final = 16
_GIVE_UP_S: Final = 5.0  # on a message, in the closed loop
_LIMIT_S: Final = 1800.0


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured. rate: messages a second, of all nodes together. seconds: for which they are published,
    and as many for the closed loop. settle: seconds before each loop, a few heartbeats: for the meshes to form,
    and for what the loop before left to do."""

    nodes: int = 20
    degree: int = 8
    rate: float = 10.0
    seconds: float = 10.0
    settle: float = 5.0
    seed: int = 1


class Deliveries:
    """Which message has reached whom, and how late. A message is its number, in the first bytes of its data.

    nodes: how many. first: the first number; messages with lower ones, of an earlier loop, do not count.
    """

    def __init__(self, nodes: int, first: int = 0) -> None:
        self.count = 0
        self.latencies_s: list[float] = []
        self.latest_s = time.perf_counter()
        self._nodes, self._first = nodes, first
        self._scheduled_s: list[float] = []
        self._missing: list[set[int]] = []
        self._complete: dict[int, trio.Event] = {}

    def schedule(self, publisher: int, at_s: float) -> bytes:
        """The data of another message, that is scheduled for an instant of time.perf_counter()."""
        number = self.next
        self._scheduled_s.append(at_s)
        self._missing.append(set(range(self._nodes)) - {publisher})
        return number.to_bytes(8, "big").ljust(MESSAGE_BYTES, b".")

    def arrived(self, node: int, data: bytes) -> None:
        """A message reached a node; its own publisher, and repeats, do not count."""
        place = int.from_bytes(data[:8], "big") - self._first
        if place < 0 or node not in self._missing[place]:
            return
        missing = self._missing[place]
        missing.remove(node)
        self.latest_s = time.perf_counter()
        self.latencies_s.append(self.latest_s - self._scheduled_s[place])
        self.count += 1
        if not missing and place in self._complete:
            self._complete[place].set()

    @property
    def next(self) -> int:
        """The number of the next message."""
        return self._first + len(self._scheduled_s)

    @property
    def expected(self) -> int:
        """Deliveries if nothing is lost."""
        return len(self._scheduled_s) * (self._nodes - 1)

    async def everywhere(self, data: bytes) -> None:
        """Wait until a message has reached everybody."""
        place = int.from_bytes(data[:8], "big") - self._first
        if self._missing[place]:
            self._complete[place] = trio.Event()
            await self._complete[place].wait()


class Workload:
    """Both loops over one set of nodes."""

    def __init__(self, nodes: Sequence[Node], options: Options) -> None:
        self._nodes, self._options = nodes, options
        self._rng = Random(options.seed)
        self.deliveries = Deliveries(len(nodes))

    async def run(self) -> Side:
        """Closed loop, then open loop, which may leave slow nodes with more than they ever catch up with."""
        await trio.sleep(self._options.settle)
        deliveries_per_s = await self._closed_loop()
        await trio.sleep(self._options.settle)
        self.deliveries = Deliveries(len(self._nodes), self.deliveries.next)
        side = await self._open_loop()
        return Side({**side.figures, "deliveries_per_s": deliveries_per_s}, side.setup)

    async def _open_loop(self) -> Side:
        deliveries, rate = self.deliveries, self._options.rate
        total = max(1, round(rate * self._options.seconds))
        before, meter, began_s = sent(), Meter(), time.perf_counter()
        for number in range(total):
            at_s = began_s + number / rate
            await trio.sleep(max(0.0, at_s - time.perf_counter()))
            publisher = self._rng.randrange(len(self._nodes))
            await self._nodes[publisher].publish(deliveries.schedule(publisher, at_s))
        drain = Meter()
        while deliveries.count < deliveries.expected and drain.elapsed_s < _DRAIN_S:
            await trio.sleep(0.05)
            if time.perf_counter() - deliveries.latest_s > _QUIET_S:
                break
        cpu_s, wire = meter.cpu_s, sent().since(before)
        if not deliveries.count:
            raise SideFailed("no message reached anybody")
        say(f"{deliveries.count} of {deliveries.expected} deliveries in {meter.elapsed_s:.1f} s")
        figures = {
            "delivered": deliveries.count / deliveries.expected,
            "p50_ms": 1000 * percentile(deliveries.latencies_s, 0.5),
            "p99_ms": 1000 * percentile(deliveries.latencies_s, 0.99),
            "cpu_ms_per_delivery": 1000 * cpu_s / deliveries.count,
            "bytes_per_delivery": wire.on_the_wire / deliveries.count,
            "packets_per_delivery": wire.segments / deliveries.count,
        }
        for metric, value in figures.items():
            say(f"{metric} {value:.3f}")
        return Side(figures, {"messages": total, "drained_s": round(drain.elapsed_s, 1)})

    async def _closed_loop(self) -> float:
        deliveries = self.deliveries

        async def publisher() -> None:
            while True:
                node = self._rng.randrange(len(self._nodes))
                data = deliveries.schedule(node, time.perf_counter())
                await self._nodes[node].publish(data)
                with trio.move_on_after(_GIVE_UP_S):
                    await deliveries.everywhere(data)

        meter = Meter()
        with trio.move_on_after(self._options.seconds):
            async with trio.open_nursery() as nursery:
                for _ in range(_PUBLISHERS):
                    nursery.start_soon(publisher)
        per_s = deliveries.count / meter.elapsed_s
        say(f"{_PUBLISHERS} publishers that wait: {per_s:.0f} deliveries/s")
        return per_s


async def measure(side: str, options: Options) -> None:
    """One side, in this process; prints what it measured."""
    edges = regular_graph(options.nodes, options.degree, Random(options.seed))
    workload: Workload | None = None

    def arrived(node: int, data: bytes) -> None:
        if workload is not None:
            workload.deliveries.arrived(node, data)

    openings = {OURS: our_nodes, THEIRS: their_nodes}
    async with openings[side](options.nodes, edges, arrived) as nodes:
        workload = Workload(nodes, options)
        measured = await workload.run()
        if side == THEIRS:
            tell_and_end(measured)
    tell_side(measured)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gossip",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults = Options()
    for name, what in {
        "nodes": "of each side",
        "degree": "neighbours of each node",
        "rate": "messages a second, of all nodes together",
        "seconds": "for each of the two loops",
        "settle": "seconds before each of them",
        "seed": "of the graph and of who publishes",
    }.items():
        value = getattr(defaults, name)
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"{what} ({value})")
    parser.add_argument(
        "--side", choices=[OURS, THEIRS], help="run one side only, and print what it measured"
    )
    parser.add_argument(
        "--json", action="store_true", help="print nothing but the result on stdout; always so"
    )
    options = parser.parse_args(argv)
    if options.rate <= 0 or options.seconds <= 0:
        parser.error("take a --rate and --seconds above 0")
    if not 1 <= options.degree < options.nodes or options.nodes * options.degree % 2:
        parser.error(f"{options.nodes} nodes cannot all have {options.degree} neighbours")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    namespace = parse(argv)
    options = Options(**{field.name: getattr(namespace, field.name) for field in fields(Options)})
    try:
        if namespace.side is not None:
            trio.run(measure, namespace.side, options)
        else:
            print(compare("gossip", asdict(options), (OURS, THEIRS), _LIMIT_S))
    except SideFailed as problem:
        sys.exit(f"benchmarks.gossip: {problem}")


if __name__ == "__main__":
    script(main)
