"""How fast the simulator is: events a second, and memory a node.

    python -m benchmarks.simulator [--nodes 10000] [--swarm 1000] [--json]

`loop_events_per_s`: `--nodes` toy engines pass a message each on and on, over links of 25 ms ± 10 %: what
the loop itself costs. Peers are the same toy over a plain heap of tuples, without connections, order or
trace, and over simpy where that is installed. `engine_events_per_s` and `bytes_per_node` come from
first_look with `--swarm` real nodes. All rates are by CPU time, so that other processes disturb them less.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from simulations import first_look
from swarmp2p.engine import (
    Engine,
    Introduce,
    Message,
    NetworkEvent,
    NetworkOutput,
    PeerUp,
    Received,
    Send,
    Tick,
)
from swarmp2p.identity import PeerId
from swarmp2p.transport.link import UniformLink
from swarmp2p.transport.sim import Simulator
from swarmp2p.transport.sim_peers import sim_address, sim_peer

from .report import Meter, Side, memory_mb, result, run_side, say, script, tell_side

LINK = UniformLink(0.025, 0.1)
_FRIENDS = 4
_WARM_UP_S = 1.0
_ROUNDS = 5
_LIMIT_S = 600.0


@dataclass(frozen=True, slots=True)
class Token(Message):
    """What is passed on."""

    number: int


class Toy(Engine[str, None]):
    """Passes each token on to the next of its friends, and beats once a second."""

    __slots__ = ("_beat", "_passed", "friends")

    def __init__(self, friends: list[tuple[PeerId, int]], rng: Random) -> None:
        self.friends, self._beat, self._passed = friends, rng.random(), 0

    def handle(self, event: NetworkEvent | str, now: float) -> Sequence[NetworkOutput]:
        if isinstance(event, Received):
            self._passed += 1
            return (Send(self.friends[self._passed % _FRIENDS][0], event.message),)
        if isinstance(event, Tick):
            if now >= self._beat:
                self._beat = now + 1.0
            return ()
        if isinstance(event, PeerUp):
            return ()
        greetings = [Introduce(peer, (sim_address(index),)) for peer, index in self.friends]
        return [*greetings, Send(self.friends[0][0], Token(1))]

    def deadline(self) -> float:
        return self._beat


def toys(nodes: int) -> list[tuple[PeerId, Toy]]:
    """The nodes, each with its friends. The simulator gives the addresses out in this order, from 1."""
    rng = Random(1)
    peers = [sim_peer(index) for index in range(nodes)]
    found: list[tuple[PeerId, Toy]] = []
    for place in range(nodes):
        others = [other for other in rng.sample(range(nodes), _FRIENDS + 1) if other != place][:_FRIENDS]
        found.append((peers[place], Toy([(peers[other], other + 1) for other in others], rng)))
    return found


def best_rate(run: Callable[[float], None], handled: Callable[[], int], nodes: int, events: int) -> float:
    """Events a CPU second in the best of some rounds, after warming up: the others were disturbed.

    events: about how many to run through. handled: how many were.
    """
    run(_WARM_UP_S)
    gc.collect()
    gc.freeze()  # what is there stays: for all sides the same
    until, rates = _WARM_UP_S, list[float]()
    for _ in range(_ROUNDS):
        until += events / _ROUNDS / (nodes / LINK.delay_s)
        before, meter = handled(), Meter()
        run(until)
        rates.append((handled() - before) / meter.cpu_s)
    gc.unfreeze()
    return max(rates)


def ours(nodes: int, swarm: int, events: int) -> Side:
    sim: Simulator[str, None] = Simulator(1, LINK, lambda now, peer, output: None)
    for peer, toy in toys(nodes):
        sim.add(peer, toy)
    for peer in sim.peers:
        sim.post(peer, "go")
    rate = best_rate(sim.run, lambda: sim.events, nodes, events)
    say(f"loop: {rate:,.0f} events/s with {nodes} toys")
    before_mb = memory_mb()  # the toys are still there, so that what they took is not used again
    report = first_look.run(swarm, 1, min(200, swarm), 1.0)
    grown = (memory_mb() - before_mb) * 1e6
    say(f"engines: {report['engine_events_per_s']:,.0f} events/s with {swarm} nodes")
    figures = {
        "loop_events_per_s": rate,
        "engine_events_per_s": float(str(report["engine_events_per_s"])),
        "bytes_per_node": grown / swarm,
    }
    return Side(figures, {"trace_hash": str(report["trace_hash"])})


class PlainHeap:
    """The usual way: a heap of (time, number, peer, event)."""

    def __init__(self, nodes: list[tuple[PeerId, Toy]]) -> None:
        self.events = 0
        self._nodes, self._rng, self._number = dict(nodes), Random(1), 0
        self._heap: list[tuple[float, int, PeerId, Any]] = []
        self._due: dict[PeerId, float] = {}
        for peer in self._nodes:
            self._push(0.0, peer, "go")

    def run(self, until: float) -> None:
        gc.disable()
        while self._heap[0][0] <= until:
            now, _, peer, event = heapq.heappop(self._heap)
            engine = self._nodes[peer]
            if isinstance(event, Tick):
                del self._due[peer]
            self.events += 1
            for output in engine.handle(event, now):
                if isinstance(output, Send):
                    delay = LINK.delay(now, peer, output.to, self._rng)
                    if delay is not None:
                        self._push(now + delay, output.to, Received(peer, output.message))
            due = engine.deadline()
            if peer not in self._due:
                self._due[peer] = due
                self._push(due, peer, Tick())
        gc.enable()

    def _push(self, time: float, peer: PeerId, event: object) -> None:
        self._number += 1
        heapq.heappush(self._heap, (time, self._number, peer, event))


def heap(nodes: int, events: int) -> Side:
    plain = PlainHeap(toys(nodes))
    return Side({"loop_events_per_s": best_rate(plain.run, lambda: plain.events, nodes, events)})


class OverSimpy:
    """The same over simpy: a timeout for each message and each beat, its callback calls the engine."""

    def __init__(self, nodes: list[tuple[PeerId, Toy]]) -> None:
        simpy: Any = importlib.import_module("simpy")
        self.events = 0
        self._world = simpy.Environment()
        self._nodes, self._rng = dict(nodes), Random(1)
        self._due: dict[PeerId, float] = {}
        for peer in self._nodes:
            self._later(0.0, peer, "go")

    def run(self, until: float) -> None:
        gc.disable()
        self._world.run(until)
        gc.enable()

    def _later(self, delay: float, peer: PeerId, event: object) -> None:
        def happen(_: object) -> None:
            self._happen(peer, event)

        self._world.timeout(delay).callbacks.append(happen)

    def _happen(self, peer: PeerId, event: Any) -> None:
        now, engine = self._world.now, self._nodes[peer]
        if isinstance(event, Tick):
            del self._due[peer]
        self.events += 1
        for output in engine.handle(event, now):
            if isinstance(output, Send):
                delay = LINK.delay(now, peer, output.to, self._rng)
                if delay is not None:
                    self._later(delay, output.to, Received(peer, output.message))
        due = engine.deadline()
        if peer not in self._due:
            self._due[peer] = due
            self._later(due - now, peer, Tick())


def over_simpy(nodes: int, events: int) -> Side:
    world = OverSimpy(toys(nodes))
    return Side({"loop_events_per_s": best_rate(world.run, lambda: world.events, nodes, events)})


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.simulator", description="How fast the simulator is.")
    parser.add_argument("--nodes", type=int, default=10_000, help="toy engines, for the loop alone")
    parser.add_argument("--swarm", type=int, default=1_000, help="real nodes")
    parser.add_argument("--events", type=int, default=1_500_000, help="of toys, for each side")
    parser.add_argument(
        "--json", action="store_true", help="print nothing but the result on stdout; always so"
    )
    parser.add_argument("--side", choices=("ours", "heapq", "simpy"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.nodes <= _FRIENDS or options.swarm < 2:
        parser.error(f"more than {_FRIENDS} toys and at least 2 nodes are needed")
    sides: dict[str, Callable[[], Side]] = {
        "ours": lambda: ours(options.nodes, options.swarm, options.events),
        "heapq": lambda: heap(options.nodes, options.events),
        "simpy": lambda: over_simpy(options.nodes, options.events),
    }
    if options.side:
        tell_side(sides[options.side]())
        return
    names = ["ours", "heapq", *(["simpy"] if importlib.util.find_spec("simpy") else [])]
    given = [f"--nodes={options.nodes}", f"--swarm={options.swarm}", f"--events={options.events}"]
    measured = {name: run_side("simulator", name, given, _LIMIT_S) for name in names}
    setup = {"nodes": options.nodes, "swarm": options.swarm}
    print(json.dumps(result("simulator", setup, ["simpy"], measured)))


if __name__ == "__main__":
    script(main)
