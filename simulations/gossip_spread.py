"""How gossip spreads: beside what latency alone allows, across the world, over links that lose messages, under churn.

    python -m simulations.gossip_spread [--nodes 1000] [--world 700] [--messages 100] [--seed 1] [--png FILE] [--json]

*Plain.* Nodes with 20 random links each, 25 ms ± 10 % one way, D = 8, flood-publish. Beside the measured times stand
three bounds, Dijkstra's shortest paths with delays drawn from the same distribution, one draw for each copy:
`flooding`, over all links; `mesh`, from the source over all its links and then over the meshes as the engines built
them; `ideal`, the same with a random graph of degree D in place of the meshes, so that a badly built mesh shows.

*World.* Nodes in eight regions (regions.py), 96 KiB messages, and an uplink for each node through which its copies
leave one after the other (uplink.py).

*Loss.* Each RPC is lost with a probability, whatever is in it: messages, subscriptions, GRAFT, IHAVE. Links over TCP
lose nothing, but queues overflow, and a connection that stalls is as good as lossy.

*Churn.* Nodes crash and others come, one each `--churn-interval` seconds, while messages spread. Newcomers connect to
20 random nodes. A message counts as missed by whom ran when it was published and runs still.

Times are virtual. A minute and 300 MB at full size.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from swarmp2p.gossip.config import GossipConfig
from swarmp2p.identity import PeerId
from swarmp2p.transport.link import Link, UniformLink
from swarmp2p.transport.sim import random_for
from swarmp2p.transport.sim_peers import sim_peer

from .gossip_swarm import GossipSwarm, Spread
from .graphs import arrivals, neighbours, regular_graph, thinned
from .regions import RegionLink, settled
from .report import Report, finite, mean, parser_for, percentile, script, tell
from .uplink import Uplink

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINKS = 20
DELAY_S = 0.025
JITTER = 0.1
LOSSES = (0.1, 0.2, 0.3, 0.4, 0.5)
WORLD_BYTES = 96 * 1024
UPLINK_BYTES_S = 12_500_000.0  # 100 Mbit/s
CONFIG = GossipConfig(mesh_degree=8, mesh_low=6, mesh_high=12)
"""D = 8 with the bounds that Ethereum's consensus networks use."""

_SETTLE_S = 15.0  # for meshes to stand
_INTERVAL_S = 0.2  # between two messages
_AFTER_S = 10.0  # for the last message to be everywhere, or never


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one scenario. copies: of a message, for each node that it was delivered to; 1 is the least.
    degree: mean size of a mesh. loss, bounds: as the scenario had it."""

    spread: Spread
    copies: float
    degree: float
    loss: float = 0.0
    bounds_s: dict[str, Sequence[float]] | None = None

    def bound_ms(self, name: str, share: float) -> float:
        """A percentile of one of the bounds."""
        assert self.bounds_s is not None
        return percentile(self.bounds_s[name], share) * 1000.0


def plain(nodes: int, seed: int, messages: int, links: int = LINKS) -> Outcome:
    """Uniform delays, nothing is lost; with the bounds."""
    link = UniformLink(DELAY_S, JITTER)
    swarm = GossipSwarm(nodes, seed, link, CONFIG)
    graph = regular_graph(nodes, links, swarm.rng)
    sources = _begin(swarm, graph, messages)
    swarm.sim.run(_SETTLE_S)
    bounds = _bounds(swarm, graph, sources, link)
    return _end(swarm, messages, bounds=bounds)


def world(nodes: int, seed: int, messages: int, uplink_bytes_s: float = UPLINK_BYTES_S) -> Outcome:
    """Eight regions, large messages, and an uplink for each node."""
    regions = dict(zip(map(sim_peer, range(nodes)), settled(nodes, random_for(seed, "regions")), strict=True))
    swarm = GossipSwarm(
        nodes,
        seed,
        RegionLink(regions, JITTER),
        CONFIG,
        data_bytes=WORLD_BYTES,
        around=lambda engine: Uplink(engine, uplink_bytes_s),
    )
    _begin(swarm, regular_graph(nodes, LINKS, swarm.rng), messages, interval_s=1.0)
    return _end(swarm, messages, interval_s=1.0)


def lossy(nodes: int, seed: int, messages: int, loss: float) -> Outcome:
    """Uniform delays, and each RPC is lost with a probability."""
    swarm = GossipSwarm(nodes, seed, UniformLink(DELAY_S, JITTER, loss), CONFIG)
    _begin(swarm, regular_graph(nodes, LINKS, swarm.rng), messages)
    return _end(swarm, messages, loss=loss)


def churning(nodes: int, seed: int, messages: int, interval_s: float) -> Outcome:
    """A node crashes and another comes, each `interval_s` seconds."""
    swarm = GossipSwarm(nodes, seed, UniformLink(DELAY_S, JITTER), CONFIG)
    _begin(swarm, regular_graph(nodes, LINKS, swarm.rng), messages)
    until = _SETTLE_S + messages * _INTERVAL_S
    born = nodes

    def replace_one() -> None:
        nonlocal born
        swarm.stop(swarm.rng.choice(swarm.peers))
        others = swarm.rng.sample(swarm.peers, LINKS)
        newcomer, born = sim_peer(born), born + 1
        swarm.start(newcomer)
        for other in others:
            swarm.sim.connect(newcomer, other)
        if swarm.sim.now < until:
            swarm.sim.call(replace_one, interval_s)

    swarm.sim.call(replace_one, _SETTLE_S)
    return _end(swarm, messages)


def _begin(
    swarm: GossipSwarm, graph: Sequence[tuple[int, int]], messages: int, interval_s: float = _INTERVAL_S
) -> list[int]:
    """Connect all, and have random nodes publish when the meshes stand. Returns the publishers' places."""
    swarm.connect(graph)
    sources = [swarm.rng.randrange(len(swarm.peers)) for _ in range(messages)]
    for number, source in enumerate(sources):
        swarm.publish_later(swarm.peers[source], _SETTLE_S + (number + 0.5) * interval_s)
    return sources


def _end(
    swarm: GossipSwarm,
    messages: int,
    interval_s: float = _INTERVAL_S,
    loss: float = 0.0,
    bounds: dict[str, Sequence[float]] | None = None,
) -> Outcome:
    swarm.sim.run(_SETTLE_S + messages * interval_s + _AFTER_S)
    stats, spread = swarm.stats(), swarm.deliveries.spread()
    copies = 1.0 + stats["duplicates"] / max(stats["delivered"], 1)
    degree = mean([len(mesh) for mesh in swarm.meshes()])
    return Outcome(spread, copies, degree, loss, bounds)


def _bounds(
    swarm: GossipSwarm, graph: Sequence[tuple[int, int]], sources: Sequence[int], link: Link
) -> dict[str, Sequence[float]]:
    """When each message could be at each node at the earliest, by bound."""
    nodes, rng = len(swarm.peers), random_for(swarm.sim.seed, "bounds")
    linked = neighbours(graph, nodes)
    degree = swarm.config.mesh_degree
    ways = {
        "flooding": linked,
        "mesh": swarm.meshes(),
        "ideal": neighbours(thinned(graph, nodes, degree, rng), nodes),
    }
    delay = _delays(link, swarm.peers, rng)
    return {
        name: [
            at
            for source in sources
            for node, at in enumerate(arrivals(source, linked[source], onward, delay))
            if node != source
        ]
        for name, onward in ways.items()
    }


def _delays(link: Link, peers: Sequence[PeerId], rng: Random) -> Callable[[int, int], float | None]:
    return lambda a, b: link.delay(0.0, peers[a], peers[b], rng)


# The report -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a run is. lossy_nodes: of each point of the loss curve but 30 %, which has `nodes`."""

    nodes: int = 1000
    world: int = 700
    lossy_nodes: int = 300
    messages: int = 100
    world_messages: int = 20
    churn_interval_s: float = 0.2


def run(seed: int, sizes: Sizes, losses: Sequence[float] = LOSSES) -> tuple[Report, list[Outcome]]:
    """Run all; returns the report, and the outcomes for the picture: plain, then the lossy ones."""
    started = time.process_time()
    report: Report = {
        "seed": seed,
        "links": LINKS,
        "mesh_degree": CONFIG.mesh_degree,
        "messages": sizes.messages,
    }
    base = plain(sizes.nodes, seed, sizes.messages)
    report |= {"plain_nodes": sizes.nodes} | _shown("plain", base)
    for name in ("flooding", "mesh", "ideal"):
        report[f"plain_{name}_bound_p50_ms"] = base.bound_ms(name, 0.5)
        report[f"plain_{name}_bound_p99_ms"] = base.bound_ms(name, 0.99)
    report["plain_p99_per_ideal_bound"] = base.spread.ms(0.99) / base.bound_ms("ideal", 0.99)
    report |= {"world_nodes": sizes.world} | _shown("world", world(sizes.world, seed, sizes.world_messages))
    curve: list[Outcome] = []
    for loss in losses:
        nodes = sizes.nodes if math.isclose(loss, 0.3) else min(sizes.nodes, sizes.lossy_nodes)
        curve.append(lossy(nodes, seed, sizes.messages, loss))
        name = f"loss_{loss * 100:g}pct"
        report |= {f"{name}_nodes": nodes} | _shown(name, curve[-1])
    changing = churning(sizes.nodes, seed, sizes.messages, sizes.churn_interval_s)
    report |= {"churn_interval_s": sizes.churn_interval_s} | _shown("churn", changing)
    report["wall_s"] = time.process_time() - started
    return report, [base, *curve]


def _shown(name: str, outcome: Outcome) -> Report:
    spread = outcome.spread
    return {
        f"{name}_delivered": spread.share,
        f"{name}_missed": spread.missed,
        f"{name}_whole_messages": spread.whole / max(spread.messages, 1),
        f"{name}_p50_ms": spread.ms(0.5),
        f"{name}_p99_ms": spread.ms(0.99),
        f"{name}_last_ms": spread.ms(1.0),
        f"{name}_copies": outcome.copies,
        f"{name}_mesh_degree": outcome.degree,
    }


def draw(figure: Figure, outcomes: Sequence[Outcome]) -> None:
    """On the left times and their bounds, on the right what came how late at each loss."""
    base, curve = outcomes[0], outcomes[1:]
    left, right = figure.subplots(1, 2)
    assert base.bounds_s is not None
    for name, took_s in {"measured": base.spread.took_s, **base.bounds_s}.items():
        in_order = sorted(took_s)
        left.plot(
            [took * 1000.0 for took in in_order],
            [(place + 1) / len(in_order) for place in range(len(in_order))],
            label=name if name == "measured" else f"bound: {name}",
        )
    left.set_xlabel("ms since publication")
    left.set_ylabel("share of deliveries")
    left.set_title("25 ms a hop, nothing lost")
    left.legend(loc="lower right")
    for outcome in curve:
        in_order = sorted(outcome.spread.took_s)
        expected = len(in_order) + outcome.spread.missed
        right.semilogy(
            [0.0, *in_order],
            [1.0, *(max(1.0 - (place + 1) / expected, 1e-7) for place in range(len(in_order)))],
            label=f"{outcome.loss:.0%} lost",
        )
    right.axhline(0.001, linestyle=":", color="grey")
    right.set_ylim(bottom=1e-6)
    right.set_xlabel("s since publication")
    right.set_ylabel("share of deliveries still to come")
    right.set_title("RPCs lost on each link")
    right.legend()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_for("simulations.gossip_spread", __doc__)
    full = Sizes()
    parser.add_argument("--nodes", type=int, default=full.nodes, help="in all but the world (1000)")
    parser.add_argument("--world", type=int, default=full.world, help="nodes in eight regions (700)")
    parser.add_argument("--messages", type=int, default=full.messages, help="of each scenario (100)")
    parser.add_argument("--losses", type=finite, nargs="+", default=LOSSES, help="shares of RPCs, 0 to 1")
    parser.add_argument(
        "--churn-interval", type=finite, default=full.churn_interval_s, help="in seconds (0.2)"
    )
    options = parser.parse_args(arguments)
    if min(options.nodes, options.world) <= LINKS or options.messages < 1 or options.churn_interval <= 0:
        parser.error(f"more than {LINKS} nodes, a message, and time between two changes are needed")
    if not all(0 <= loss < 1 for loss in options.losses):
        parser.error("losses are shares, from 0 to below 1")
    sizes = Sizes(
        options.nodes,
        options.world,
        messages=options.messages,
        world_messages=max(1, options.messages // 5),
        churn_interval_s=options.churn_interval,
    )
    report, outcomes = run(options.seed, sizes, options.losses)
    tell(report, options, lambda figure: draw(figure, outcomes))


if __name__ == "__main__":
    script(main)
