"""Network coordinates on Serf's networks: how wrong the predicted round trips are.

    python -m simulations.coordinates [--seeds 10] [--seed 1] [--png FILE] [--json]

The networks and the bounds are those of hashicorp/serf's coordinate/performance_test.go, restated: in each of 1,000
cycles every node measures the round trip to a node drawn at random. A line of 10 nodes 10 ms apart; a grid of 5 by 5,
10 ms apart; 25 nodes on two sites, 1 ms within and 11 ms between them; 24 nodes on a circle of 100 ms, in two
dimensions, and one in its middle that is 200 ms away from all of them; 25 nodes whose round trips are drawn from a
normal distribution of 100 ± 10 ms; and 4 nodes that begin far from the origin, which gravity brings nearer.

Errors are |predicted - true| / true over all pairs: the mean and the largest of a run, of which the median over the
seeds is told, and in which share of them both are within Serf's bounds. Those fit one seed closely: Serf's algorithm
keeps to them in .6, .8, .6, 0 and .8 of seeds 1 to 10. `liars`: the grid, when of
its 25 nodes two answer late by up to 2 s, say that they are certain, and say each time that they are somewhere else,
up to 7 s away; errors are those of the honest. Drift: how far from the origin the middle is after 10,000 cycles, in
shares of how far it was after 1,000.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import median
from typing import TYPE_CHECKING, Final

from swarmp2p.gossip.coordinates import DIMENSIONS, Coordinate, Vivaldi, VivaldiConfig, distance
from swarmp2p.identity import PeerId

from .report import Report, mean, parser_for, script, tell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CYCLES = 1000
DRIFT_CYCLES = 10_000
STEPS: Sequence[int] = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

Truth = list[list[float]]
"""Round trips in seconds, by both nodes."""


@dataclass(frozen=True, slots=True)
class Network:
    """truth: made from a random source. mean, worst: Serf's bounds of the relative errors. dimensions: of the space."""

    truth: Callable[[Random], Truth]
    mean: float
    worst: float
    dimensions: int = DIMENSIONS


def _truth(nodes: int, rtt: Callable[[int, int], float]) -> Truth:
    return [[rtt(min(i, j), max(i, j)) if i != j else 0.0 for j in range(nodes)] for i in range(nodes)]


def line(_rng: Random) -> Truth:
    """10 nodes, 10 ms from each to the next."""
    return _truth(10, lambda i, j: 0.010 * (j - i))


def grid(_rng: Random) -> Truth:
    """5 by 5 nodes, 10 ms from each to the next."""
    return _truth(25, lambda i, j: 0.010 * math.hypot(i % 5 - j % 5, i // 5 - j // 5))


def split(_rng: Random) -> Truth:
    """13 and 12 nodes on two sites, 1 ms within, 11 ms between them."""
    return _truth(25, lambda i, j: 0.011 if i <= 12 < j else 0.001)


def circle(_rng: Random) -> Truth:
    """Node 0 is 200 ms from 24 on a circle with a radius of 100 ms."""

    def rtt(i: int, j: int) -> float:
        return 0.200 if i == 0 else 0.200 * math.sin(math.pi * (j - i) / 25)

    return _truth(25, rtt)


def random(rng: Random) -> Truth:
    """25 nodes with round trips of 100 ± 10 ms."""
    drawn = {(i, j): max(0.001, rng.gauss(0.100, 0.010)) for i in range(25) for j in range(i + 1, 25)}
    return _truth(25, lambda i, j: drawn[i, j])


NETWORKS: Final = {
    "line": Network(line, 0.0031, 0.0130),
    "grid": Network(grid, 0.0016, 0.0230),
    "split": Network(split, 0.000060, 0.00048),
    "height": Network(circle, 0.0028, 0.064, 2),
    "random": Network(random, 0.075, 0.33),
}


@dataclass(slots=True)
class Node:
    """A node and its coordinate; `lie` is what a liar does to its coordinate and round trip."""

    peer: PeerId
    vivaldi: Vivaldi
    lie: Callable[[Coordinate, float], tuple[Coordinate, float]] | None = None


def nodes(count: int, rng: Random, config: VivaldiConfig | None = None) -> list[Node]:
    """Nodes that have measured nothing yet."""
    return [
        Node(PeerId.from_public_key(number.to_bytes(32, "big")), Vivaldi(rng, config))
        for number in range(count)
    ]


def measure(swarm: Sequence[Node], truth: Truth, cycles: int, rng: Random, now: float = 0.0) -> float:
    """Every node measures a random other's round trip in each cycle, one a second. Returns the time it ends."""
    for _ in range(cycles):
        now += 1.0
        for i, node in enumerate(swarm):
            j = rng.randrange(len(swarm))
            if i == j:
                continue
            coordinate, rtt_s = swarm[j].vivaldi.coordinate, truth[i][j]
            lie = swarm[j].lie
            if lie is not None:
                coordinate, rtt_s = lie(coordinate, rtt_s)
            node.vivaldi.observe(swarm[j].peer, coordinate, rtt_s, now)
    return now


def errors(swarm: Sequence[Node], truth: Truth) -> list[float]:
    """Relative errors between all pairs of honest nodes."""
    honest = [i for i, node in enumerate(swarm) if node.lie is None]
    return [
        abs(distance(swarm[i].vivaldi.coordinate, swarm[j].vivaldi.coordinate) - truth[i][j]) / truth[i][j]
        for i in honest
        for j in honest
        if i < j
    ]


def run_network(name: str, seed: int, cycles: int | None = None) -> list[Node]:
    """One of NETWORKS after so many cycles."""
    network, rng = NETWORKS[name], Random(seed)
    truth = network.truth(Random(seed))
    swarm = nodes(len(truth), rng, VivaldiConfig(dimensions=network.dimensions))
    measure(swarm, truth, CYCLES if cycles is None else cycles, rng)
    return swarm


def network_errors(name: str, seed: int, cycles: int | None = None) -> tuple[float, float]:
    """Mean and largest error in one of NETWORKS."""
    found = errors(run_network(name, seed, cycles), NETWORKS[name].truth(Random(seed)))
    return mean(found), max(found)


def liar(rng: Random) -> Callable[[Coordinate, float], tuple[Coordinate, float]]:
    """Certain, late and everywhere."""

    def lie(_coordinate: Coordinate, rtt_s: float) -> tuple[Coordinate, float]:
        somewhere = tuple([rng.uniform(-2.5, 2.5) for _ in range(DIMENSIONS)])
        return Coordinate(somewhere, rng.uniform(0.001, 2.0), 0.0), rtt_s + rng.uniform(0.0, 2.0)

    return lie


def liars_errors(seed: int, liars: int, cycles: int | None = None) -> tuple[float, float]:
    """Mean and largest error among the honest of the grid with liars."""
    rng = Random(seed)
    truth = grid(rng)
    swarm = nodes(len(truth), rng)
    for node in swarm[len(swarm) - liars :]:
        node.lie = liar(rng)
    measure(swarm, truth, CYCLES if cycles is None else cycles, rng)
    found = errors(swarm, truth)
    return mean(found), max(found)


def drift(seed: int, cycles: int) -> float:
    """How much of its way from the origin the middle of four nodes has left, after so many cycles."""
    rng, side = Random(seed), 0.5
    corners = [(0.0, 0.0), (0.0, side), (side, side), (side, side)]
    truth = _truth(4, lambda i, j: side * math.sqrt(2.0) if i % 2 == 0 and j % 2 == 0 else side)
    swarm = nodes(4, rng, VivaldiConfig(dimensions=2))
    for node, corner in zip(swarm, corners, strict=True):
        node.vivaldi.coordinate = replace(node.vivaldi.coordinate, components=corner)

    def middle() -> float:
        points = [node.vivaldi.coordinate.components for node in swarm]
        return math.hypot(*[(min(axis) + max(axis)) / 2 for axis in zip(*points, strict=True)])

    now = measure(swarm, truth, CYCLES, rng)
    before = middle()
    measure(swarm, truth, cycles, rng, now)
    return middle() / before


def run(seeds: Sequence[int]) -> Report:
    """All networks with each seed."""
    started = time.process_time()
    report: Report = {"seeds": len(seeds), "seed": seeds[0], "cycles": CYCLES}
    for name, network in NETWORKS.items():
        found = [network_errors(name, seed) for seed in seeds]
        report[f"{name}_mean_error"] = median([average for average, _ in found])
        report[f"{name}_mean_error_bar"] = network.mean
        report[f"{name}_max_error"] = median([worst for _, worst in found])
        report[f"{name}_max_error_bar"] = network.worst
        within = [average <= network.mean and worst <= network.worst for average, worst in found]
        report[f"{name}_seeds_within"] = mean(within)
    lied = [liars_errors(seed, 2) for seed in seeds]
    report["liars_mean_error"] = median([average for average, _ in lied])
    report["liars_mean_error_worst"] = max(average for average, _ in lied)
    report["drift_worst"] = max(drift(seed, DRIFT_CYCLES) for seed in seeds[:3])
    report["drift_bar"] = 0.8
    report["wall_s"] = time.process_time() - started
    return report


def draw(figure: Figure, seed: int) -> None:
    """Mean error over cycles."""
    axes = figure.add_subplot()
    for number, name in enumerate(NETWORKS):
        axes.plot(
            STEPS, [network_errors(name, seed, cycles)[0] for cycles in STEPS], f"C{number}.-", label=name
        )
        axes.axhline(NETWORKS[name].mean, color=f"C{number}", linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="samples a node", ylabel="mean relative error")
    axes.set_title("Predicted round trips on Serf's networks; dotted: Serf's bounds")
    axes.legend()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_for("simulations.coordinates", __doc__)
    parser.add_argument("--seeds", type=int, default=10, help="runs, with the seed and those after it (10)")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error("at least one seed is needed")
    report = run(range(options.seed, options.seed + options.seeds))
    tell(report, options, lambda figure: draw(figure, options.seed))


if __name__ == "__main__":
    script(main)
