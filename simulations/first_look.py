"""A first look at the whole: nodes join through one of them, announce services, find them, and spread load
signals.

    python -m simulations.first_look [--nodes 1000] [--seed 1] [--json]

Two runs with one seed print the same `trace_hash`. Times are virtual, but for `wall_s` and
`engine_events_per_s`.

Round trips take 50 ms on average. A new connection takes `--dial-rtts` of them before the first message.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from swarmp2p.dht.events import Announce, FindService, QueryDone, ServiceFound
from swarmp2p.dht.keys import service_key
from swarmp2p.gossip.events import Delivered
from swarmp2p.gossip.load import LOAD_TOPIC, FollowLoads, LoadSignal, PublishLoad
from swarmp2p.identity import PeerId
from swarmp2p.node import NodeOutput
from swarmp2p.transport.link import UniformLink
from swarmp2p.transport.sim import SimulatorConfig

from . import checks
from .report import Report, finite, parser_for, percentile, script, tell
from .swarm import Swarm

RTT_S = 0.050
JITTER = 0.1
JOIN_INTERVAL_S = 0.010
PUBLISHERS = 20
SIGNALS = 5  # of each publisher, one a second
_SETTLE_S = 15.0  # after the last join: lookups of the buckets, meshes
_ACT_INTERVAL_S = 0.050  # between two announcements, or finds
_PATIENCE_S = 15.0  # for the last of them to end


@dataclass(slots=True)
class Seen:
    """What happened. Durations in seconds, in order of their ends."""

    joins: list[float] = field(default_factory=list)
    announced: list[float] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    found: list[float] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    finds_done: int = 0
    signals: list[float] = field(default_factory=list)


def run(nodes: int, seed: int, acts: int, dial_rtts: float) -> Report:
    """Run it; returns the report."""
    started = time.process_time()
    link = UniformLink(RTT_S / 2, JITTER)
    swarm = Swarm(nodes, seed, link, network=SimulatorConfig(dial_rtts=dial_rtts))
    sim, seen, rng = swarm.sim, Seen(), swarm.rng
    publishers = rng.sample(swarm.peers, min(PUBLISHERS, nodes))

    seen.joins = swarm.join_all(JOIN_INTERVAL_S)
    for place, peer in enumerate(swarm.peers):
        sim.post(peer, FollowLoads(), place * JOIN_INTERVAL_S)
    sim.run(nodes * JOIN_INTERVAL_S + _SETTLE_S)

    providers = [swarm.peers[index % nodes] for index in rng.sample(range(max(nodes, acts)), acts)]
    for number, provider in enumerate(providers):
        _announce(swarm, seen, number, provider)
    sim.run(sim.now + acts * _ACT_INTERVAL_S + _PATIENCE_S)

    for number, provider in enumerate(providers):
        _find(swarm, seen, number, provider)
    sim.run(sim.now + acts * _ACT_INTERVAL_S + _PATIENCE_S)

    _publish(swarm, seen, publishers)
    sim.run(sim.now + SIGNALS + 5.0)

    wall_s = time.process_time() - started
    expected = len(publishers) * SIGNALS * (nodes - 1)
    report: Report = {
        "nodes": nodes,
        "seed": seed,
        "dial_rtts": dial_rtts,
        "joined": len(seen.joins) / max(nodes - 1, 1),
        "join_p50_rtts": percentile(seen.joins, 0.5) / RTT_S,
        "join_p95_rtts": percentile(seen.joins, 0.95) / RTT_S,
        "announced": len(seen.announced),
        "announce_p50_rtts": percentile(seen.announced, 0.5) / RTT_S,
        "announce_p95_rtts": percentile(seen.announced, 0.95) / RTT_S,
        "stored_mean": sum(seen.stored) / max(len(seen.stored), 1),
        "finds": acts,
        "finds_succeeded": len(seen.found),
        "find_p50_rtts": percentile(seen.found, 0.5) / RTT_S,
        "find_p95_rtts": percentile(seen.found, 0.95) / RTT_S,
        "messages_per_find": sum(seen.asked) / max(len(seen.asked), 1),
        "gossip_delivered": len(seen.signals) / max(expected, 1),
        "gossip_p50_ms": percentile(seen.signals, 0.5) * 1000,
        "gossip_p99_ms": percentile(seen.signals, 0.99) * 1000,
        "virtual_s": sim.now,
        "events": sim.events,
        "messages": sim.sent,
        "wall_s": wall_s,
        "engine_events_per_s": sim.events / wall_s,
        "trace_hash": sim.trace_hash,
    }
    return report | _checks(swarm, providers)


def _announce(swarm: Swarm, seen: Seen, number: int, provider: PeerId) -> None:
    start = swarm.sim.now + number * _ACT_INTERVAL_S

    def on_output(now: float, peer: PeerId, output: NodeOutput) -> None:
        if isinstance(output, QueryDone):
            seen.announced.append(now - start)
            seen.stored.append(output.stored)

    service = _service(number)
    attributes = (("cpus", 4), ("number", number))
    swarm.ask(
        provider, lambda query: Announce(query, service, attributes), on_output, number * _ACT_INTERVAL_S
    )


def _find(swarm: Swarm, seen: Seen, number: int, provider: PeerId) -> None:
    """Have another node look for the first provider of a service."""
    finder = provider
    while finder == provider and len(swarm.peers) > 1:
        finder = swarm.rng.choice(swarm.peers)
    start = swarm.sim.now + number * _ACT_INTERVAL_S

    def on_output(now: float, peer: PeerId, output: NodeOutput) -> None:
        if isinstance(output, ServiceFound) and output.record.provider == provider:
            seen.found.append(now - start)
        elif isinstance(output, QueryDone):
            seen.finds_done += 1
            seen.asked.append(output.asked)

    service = _service(number)
    swarm.ask(finder, lambda query: FindService(query, service, limit=1), on_output, number * _ACT_INTERVAL_S)


def _publish(swarm: Swarm, seen: Seen, publishers: Sequence[PeerId]) -> None:
    published: dict[PeerId, float] = {}

    def delivered(now: float, peer: PeerId, output: NodeOutput) -> None:
        assert isinstance(output, Delivered)
        if output.message.topic == LOAD_TOPIC:
            seen.signals.append(now - published[output.message.source])

    def publish_later(peer: PeerId, delay: float) -> None:
        def publish() -> None:
            published[peer] = swarm.sim.now
            swarm.sim.post(peer, PublishLoad(LoadSignal(cpus_free=4.0)))

        swarm.sim.call(publish, delay)

    swarm.listen(Delivered, delivered)
    for place, peer in enumerate(publishers):
        for signal in range(SIGNALS):
            publish_later(peer, signal + place / len(publishers))


def _service(number: int) -> str:
    return f"service-{number}"


def _checks(swarm: Swarm, providers: Sequence[PeerId]) -> Report:
    tables = checks.tables(swarm, swarm.rng.sample(swarm.peers, min(200, len(swarm.peers))))
    mesh = checks.mesh(swarm, LOAD_TOPIC)
    records = [(service_key(_service(number)), provider) for number, provider in enumerate(providers)]
    placement = checks.placement(swarm, records)
    return {
        "table_entries": tables.entries,
        "table_neighbours": tables.neighbours,
        "table_complete": tables.complete,
        "table_mutual": tables.mutual,
        "mesh_degree": mesh.mean,
        "mesh_lowest": mesh.lowest,
        "mesh_mutual": mesh.mutual,
        "mesh_reached": mesh.reached,
        "records_held": placement.held,
        "records_orphaned": placement.orphans,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_for("simulations.first_look", __doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--acts", type=int, default=200, help="announcements, and finds")
    parser.add_argument(
        "--dial-rtts", type=finite, default=1.0, help="round trips that a new connection takes"
    )
    options = parser.parse_args(arguments)
    if options.nodes < 2 or options.acts < 1:
        parser.error("at least two nodes and one act are needed")
    tell(run(options.nodes, options.seed, options.acts, options.dial_rtts), options)


if __name__ == "__main__":
    script(main)
