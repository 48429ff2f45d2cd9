"""Publishing: a sweep over many keys of one node, and provides one by one, optimistic and classic.

    python -m simulations.dht_publish [--nodes 10000] [--keys 100000] [--provides 200] [--seed 1] [--png FILE] [--json]

First one node provides all the keys, in one sweep, and then renews them in the course of an interval. Lookups, messages
and the records and requests of the busiest node are counted; the holders of a sample of the keys are compared with the
true nearest nodes. Then other nodes provide one key each, in turn by a classic lookup and optimistically.

Round trips take 50 ms; a new connection takes one of them before the first message. All tables are filled.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import DhtOutput, Provide, ProvideMany, QueryDone, Refresh
from swarmp2p.dht.keys import multihash_key
from swarmp2p.identity import PeerId
from swarmp2p.transport.link import UniformLink
from swarmp2p.transport.sim import SimulatorConfig

from . import checks
from .report import Report, mean, parser_for, percentile, script, tell
from .swarm import DhtSwarm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RTT_S = 0.050
STEPS = 44  # of a renewal interval, half an hour each
_SAMPLE = 2_000  # keys whose holders are looked at
_QUIET = 1e9  # no refresh by itself: nodes of a simulation this long would mostly refresh


def _swarm(nodes: int, seed: int, config: DhtConfig) -> DhtSwarm:
    swarm = DhtSwarm(nodes, seed, UniformLink(RTT_S / 2, 0.0), config, SimulatorConfig(dial_rtts=1.0))
    swarm.fill_tables()
    return swarm


def sweep(nodes: int, keys: int, seed: int) -> Report:
    """One node provides many keys, and renews them once."""
    config = DhtConfig(refresh_interval_s=_QUIET)
    swarm = _swarm(nodes, seed, config)
    sim, owner = swarm.sim, swarm.peers[0]
    publishing = swarm.dht(owner).publishing
    names = [multihash_key(b"block %d" % number) for number in range(keys)]
    ended: list[tuple[float, QueryDone]] = []

    def done(now: float, peer: PeerId, output: DhtOutput) -> None:
        if isinstance(output, QueryDone):
            ended.append((now, output))

    swarm.ask(owner, lambda query: ProvideMany(query, tuple(names)), done)
    while not ended:
        sim.run(sim.now + 10.0)
    first_lookups, first = publishing.sweeper.lookups, dict(sim.counts)
    first_placed = checks.placement(
        swarm, [(name, owner) for name in swarm.rng.sample(names, min(keys, _SAMPLE))]
    )
    lookups: list[int] = []
    for _ in range(STEPS):
        before = publishing.sweeper.lookups
        sim.run(sim.now + config.provide_interval_s / STEPS)
        lookups.append(publishing.sweeper.lookups - before)
    counts = sim.counts
    placed = checks.placement(swarm, [(name, owner) for name in swarm.rng.sample(names, min(keys, _SAMPLE))])
    records = sorted(swarm.dht(peer).records for peer in swarm.peers if peer != owner)
    renewed = {name: counts[name] - first.get(name, 0) for name in ("FindNode", "AddProvider")}
    return {
        "nodes": nodes,
        "keys": keys,
        "seed": seed,
        "provided_keys": ended[0][1].stored,
        "provide_lookups": first_lookups,
        "provide_s": ended[0][0],
        "provide_at_true_nearest": first_placed.held,
        "republish_lookups": sum(lookups),
        "republish_lookups_busiest_half_hour": max(lookups),
        "republish_find_nodes": renewed["FindNode"],
        "republish_add_providers": renewed["AddProvider"],
        "at_true_nearest": placed.held,
        "orphaned": placed.orphans,
        "records_mean": mean(records),
        "records_busiest_node": records[-1],
        "republish_lookups_by_half_hour": lookups,
    }


def provides(nodes: int, count: int, seed: int, *, optimistic: bool) -> Report:
    """Some nodes provide one key each; each knows the size of the network from a refresh."""
    swarm = _swarm(nodes, seed, DhtConfig(optimistic=optimistic, refresh_interval_s=_QUIET))
    sim = swarm.sim
    owners = swarm.rng.sample(swarm.peers, min(count, nodes))
    for peer in owners:
        swarm.ask(peer, Refresh, lambda now, peer, output: None, swarm.rng.uniform(0.0, 5.0))
    sim.run(60.0)
    before = Counter(sim.counts)
    rtts: list[float] = []
    done: list[QueryDone] = []

    def ended(start: float, now: float, peer: PeerId, output: DhtOutput) -> None:
        assert isinstance(output, QueryDone)
        rtts.append((now - start) / RTT_S)
        done.append(output)

    records = [(multihash_key(b"file %d" % number), peer) for number, peer in enumerate(owners)]
    for number, (key, peer) in enumerate(records):
        delay = number * 0.1
        swarm.ask(peer, partial(_provide, key), partial(ended, sim.now + delay), delay)
    sim.run(sim.now + len(owners) * 0.1 + 30.0)
    after = Counter(sim.counts)
    sent = {name: (after[name] - before[name]) / len(owners) for name in ("AddProvider", "Dialled")}
    placed = checks.placement(swarm, records)
    name = "optimistic" if optimistic else "classic"
    return {
        f"{name}_p50_rtts": percentile(rtts, 0.5),
        f"{name}_p95_rtts": percentile(rtts, 0.95),
        f"{name}_requests": mean([output.asked for output in done]),
        f"{name}_add_providers": sent["AddProvider"],
        f"{name}_messages": 2 * mean([output.asked for output in done]) + sent["AddProvider"],
        f"{name}_stored_at_return": mean([output.stored for output in done]),
        f"{name}_at_true_nearest": placed.held,
        f"{name}_rtts": rtts,
    }


def _provide(key: bytes, query: int) -> Provide:
    return Provide(query, key)


def run(nodes: int, keys: int, count: int, seed: int) -> Report:
    """Both; returns the report."""
    started = time.process_time()
    report = sweep(nodes, keys, seed)
    report |= provides(nodes, count, seed, optimistic=False)
    report |= provides(nodes, count, seed, optimistic=True)
    return report | {"wall_s": time.process_time() - started}


def _draw(report: Report, figure: Figure) -> None:
    renewals, rtts = figure.subplots(1, 2)
    lookups = report["republish_lookups_by_half_hour"]
    assert isinstance(lookups, list)
    renewals.bar([index / 2 for index in range(len(lookups))], lookups, width=0.5)
    renewals.set(
        title=f"republishing {report['keys']:,} keys on {report['nodes']:,} nodes",
        xlabel="hours",
        ylabel="lookups in half an hour",
    )
    for name in ("classic", "optimistic"):
        took = report[f"{name}_rtts"]
        assert isinstance(took, list)
        rtts.ecdf(took, label=name)
    rtts.set(title="one provide", xlabel="round trips until it returns", ylabel="share")
    rtts.legend()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_for("simulations.dht_publish", __doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--keys", type=int, default=100_000, help="of the node that sweeps")
    parser.add_argument("--provides", type=int, default=200, help="single ones, of each kind")
    options = parser.parse_args(arguments)
    if options.nodes < 2 or options.keys < 1 or options.provides < 1:
        parser.error("at least two nodes, one key and one provide are needed")
    report = run(options.nodes, options.keys, options.provides, options.seed)
    tell(report, options, lambda figure: _draw(report, figure))


if __name__ == "__main__":
    script(main)
