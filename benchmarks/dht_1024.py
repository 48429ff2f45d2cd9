"""1,024 DHT engines without latency in one process, beside what hivemind says of its DHT.

    python -m benchmarks.dht_1024 [--nodes 1024] [--operations 200] [--json]

hivemind's own benchmark (1,024 peers, no latency, another machine) took 14.9 ms to store a value and 6.6 ms to get
one. Ours are the engines alone over the simulator: lookups, tables, stores and validators of all nodes, but no
sockets, no protobuf and no signatures, which benchmarks.dht measures. Each value is stored by one random node at the
20 nearest and read by another. The time is that of all nodes' work for one operation, wall and CPU.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Final

from simulations.swarm import DhtSwarm
from swarmp2p.dht.events import DhtCommand, DhtOutput, GetValue, PutValue, QueryDone
from swarmp2p.identity import PeerId
from swarmp2p.transport.link import UniformLink

from .report import Meter, Side, load_average, memory_mb, percentile, result, say, script

HIVEMIND: Final = Side({"store_mean_ms": 14.9, "get_mean_ms": 6.6}, {"source": "hivemind's own figures"})
_PATIENCE_S: Final = 120.0  # virtual; an operation without latency takes none
_STEP_S: Final = 1.0


class Measured:
    """What a kind of operation took, one by one."""

    def __init__(self) -> None:
        self.elapsed_ms: list[float] = []
        self.cpu_ms: list[float] = []
        self.done: list[QueryDone] = []

    def figures(self, name: str) -> dict[str, float]:
        """Under the operation's name."""
        count = len(self.elapsed_ms)
        return {
            f"{name}_mean_ms": sum(self.elapsed_ms) / count,
            f"{name}_p50_ms": percentile(self.elapsed_ms, 0.5),
            f"{name}_p95_ms": percentile(self.elapsed_ms, 0.95),
            f"{name}_cpu_ms": sum(self.cpu_ms) / count,
        }


def measure(nodes: int, operations: int, seed: int) -> Side:
    """Our side. nodes, operations: at least 2 and 1."""
    before_mb = memory_mb()
    swarm = DhtSwarm(nodes, seed, UniformLink(0.0))
    swarm.sim.run(_STEP_S)
    swarm.fill_tables()
    stored, got = Measured(), Measured()
    found = 0
    for number in range(operations):
        key, value = f"/bench/{number}".encode(), swarm.rng.randbytes(64)
        writer, reader = swarm.rng.sample(swarm.peers, 2)

        def put(query: int, key: bytes = key, value: bytes = value) -> PutValue:
            return PutValue(query, key, value)

        def get(query: int, key: bytes = key) -> GetValue:
            return GetValue(query, key)

        _run(swarm, writer, put, stored)
        _run(swarm, reader, get, got)
        found += got.done[-1].value == value
    figures = {**stored.figures("store"), **got.figures("get"), "success": found / operations}
    figures["node_mb"] = (memory_mb() - before_mb) / nodes
    holders = sum(done.stored for done in stored.done) / operations
    return Side(figures, {"holders": holders, "load_average": load_average()})


def _run(swarm: DhtSwarm, peer: PeerId, make: Callable[[int], DhtCommand], into: Measured) -> None:
    """One operation, from its command to its end; everybody's work counts."""
    ended: list[QueryDone] = []

    def on_output(now: float, peer: PeerId, output: DhtOutput) -> None:
        if isinstance(output, QueryDone):
            ended.append(output)

    meter, limit = Meter(), swarm.sim.now + _PATIENCE_S
    swarm.ask(peer, make, on_output)
    while not ended:
        if swarm.sim.now >= limit:
            raise RuntimeError(f"an operation did not end within {_PATIENCE_S} s of virtual time")
        swarm.sim.run(swarm.sim.now)
        if not ended:
            swarm.sim.run(swarm.sim.now + _STEP_S)
    into.elapsed_ms.append(1000.0 * meter.elapsed_s)
    into.cpu_ms.append(1000.0 * meter.cpu_s)
    into.done.extend(ended)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dht_1024", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1024)
    parser.add_argument("--operations", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of stdout")
    options = parser.parse_args(arguments)
    if options.nodes < 2 or options.operations < 1:
        parser.error("at least 2 nodes and 1 operation are needed")
    say(f"{options.nodes} engines, {options.operations} values stored and read")
    ours = measure(options.nodes, options.operations, options.seed)
    for name, value in ours.figures.items():
        say(f"  {name:16} {value:10.3f}   hivemind {HIVEMIND.figures.get(name, '-')}")
    if options.json:
        setup = {"nodes": options.nodes, "operations": options.operations, "seed": options.seed}
        print(json.dumps(result("dht_1024", setup, (), {"ours": ours, "hivemind": HIVEMIND})))


if __name__ == "__main__":
    script(main)
