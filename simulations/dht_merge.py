"""Two groups that began apart and share one seed become one network.

    python -m simulations.dht_merge [--nodes 1000] [--seed 1] [--png FILE] [--json]

Half of the nodes form one group, half another. In each, nodes join through the group's first; all have a third
peer in their bootstrap list too, the shared seed. While they form it cannot be reached: `--apart down`, the default, it
is not running; `--apart cut`, it belongs to the first group, and no message passes between the groups. Then the seed
starts, or the cut heals. Nobody does anything else: the rest is the refreshes' doing. (hivemind's peers never merged.)

`merged_refreshes` is the number of refreshes, from the moment when they can reach each other, after which every node
knows all of its 20 nearest of both groups; `found` the share of finds, of records of either group by nodes of the
other, that succeed at that time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import DhtOutput, FindProviders, Join, Provide, ProviderFound
from swarmp2p.engine import PeerInfo
from swarmp2p.identity import PeerId
from swarmp2p.transport.link import Partition, UniformLink

from . import checks
from .report import Report, parser_for, script, tell
from .swarm import DhtSwarm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RTT_S = 0.050
JOIN_INTERVAL_S = 0.05
SETTLE_S = 1800.0
LOOK_S = 60.0
MAX_REFRESHES = 6
RECORDS = 100  # of each group
SAMPLED = 200  # nodes whose tables are looked at each time


def run(
    nodes: int, seed: int, apart: str, records: int = RECORDS
) -> tuple[Report, list[tuple[float, float]]]:
    """Run it. Returns the report, and (refreshes, share of complete nodes) over time."""
    started = time.process_time()
    half, refresh_s = nodes // 2, DhtConfig().refresh_interval_s
    link = Partition(UniformLink(RTT_S / 2, 0.1))
    swarm = DhtSwarm(1 + 2 * half, seed, link)
    sim, shared = swarm.sim, swarm.peers[0]
    groups = swarm.peers[1 : half + 1], swarm.peers[half + 1 :]
    seed_info = swarm.info(shared)
    if apart == "cut":
        link.split({peer: int(peer in groups[1]) for peer in swarm.peers})
        swarm.ask(shared, lambda query: Join(query, ()), lambda now, peer, output: None)
    else:
        sim.crash(shared)
    for group in groups:
        bootstrap = (swarm.info(group[0]), seed_info)
        for place, peer in enumerate(group):
            _join(swarm, peer, bootstrap, place * JOIN_INTERVAL_S)
    joined = half * JOIN_INTERVAL_S + 60.0
    sim.run(joined)
    published = [
        _provide(swarm, group[number % half], number) for group in groups for number in range(records)
    ]
    sim.run(joined + SETTLE_S)

    before = _complete(swarm, groups)
    if apart == "cut":
        link.heal()
    else:
        swarm.start(shared, seed_info.addresses)
        swarm.ask(shared, lambda query: Join(query, ()), lambda now, peer, output: None)
    began, sent = sim.now, sim.sent
    course = [(0.0, before)]
    while course[-1][1] < 1.0 and course[-1][0] < MAX_REFRESHES:
        sim.run(sim.now + LOOK_S)
        course.append(((sim.now - began) / refresh_s, _complete(swarm, groups)))
    messages = sim.sent - sent
    took = sim.now - began
    found = _find(swarm, groups, published)
    wall_s = time.process_time() - started
    report: Report = {
        "nodes": 2 * half + 1,
        "seed": seed,
        "apart": apart,
        "refresh_s": refresh_s,
        "complete_before": before,
        "complete": course[-1][1],
        "merged_refreshes": course[-1][0] if course[-1][1] == 1.0 else float("inf"),
        "finds": len(published),
        "found": found / max(len(published), 1),
        "messages_per_node_hour": messages / len(swarm.peers) / (took / 3600.0),
        "events": sim.events,
        "wall_s": wall_s,
        "trace_hash": sim.trace_hash,
        "course": [list(point) for point in course],
    }
    return report, course


def _join(swarm: DhtSwarm, peer: PeerId, bootstrap: tuple[PeerInfo, ...], delay: float) -> None:
    others = tuple(info for info in bootstrap if info.peer != peer)
    swarm.ask(peer, lambda query: Join(query, others), lambda now, peer, output: None, delay)


def _complete(swarm: DhtSwarm, groups: tuple[list[PeerId], list[PeerId]]) -> float:
    """The share of nodes, of some of both groups, that know all of their nearest."""
    some = [peer for group in groups for peer in swarm.rng.sample(group, min(SAMPLED // 2, len(group)))]
    return checks.tables(swarm, some).complete


def _key(number: int, provider: PeerId) -> bytes:
    return b"\x12\x20" + sha256(bytes(provider) + number.to_bytes(4, "big")).digest()


def _provide(swarm: DhtSwarm, provider: PeerId, number: int) -> tuple[PeerId, bytes]:
    key = _key(number, provider)
    swarm.ask(provider, lambda query: Provide(query, key), lambda now, peer, output: None)
    return provider, key


def _find(
    swarm: DhtSwarm, groups: tuple[list[PeerId], list[PeerId]], published: Sequence[tuple[PeerId, bytes]]
) -> int:
    """How many records a random node of the other group finds."""
    found: list[PeerId] = []

    def on_output(now: float, peer: PeerId, output: DhtOutput) -> None:
        if isinstance(output, ProviderFound):
            found.append(output.provider.peer)

    def find(finder: PeerId, key: bytes) -> None:
        swarm.ask(finder, lambda query: FindProviders(query, key, limit=1), on_output)

    for provider, key in published:
        find(swarm.rng.choice(groups[0] if provider in groups[1] else groups[1]), key)
    swarm.sim.run(swarm.sim.now + 60.0)
    return len(found)


def draw(figure: Figure, course: Sequence[tuple[float, float]]) -> None:
    """Complete nodes over time."""
    axes = figure.add_subplot()
    axes.plot([refreshes for refreshes, _ in course], [share for _, share in course], marker=".")
    axes.axvline(3.0, linestyle=":", color="grey")
    axes.set_xlabel("refresh intervals since the groups can reach each other")
    axes.set_ylabel("nodes that know all their 20 nearest of both groups")
    axes.set_title("Two groups with one shared seed")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_for("simulations.dht_merge", __doc__)
    parser.add_argument("--nodes", type=int, default=1000, help="of both groups together (1000)")
    parser.add_argument("--apart", choices=("down", "cut"), default="down", help="why they began apart")
    options = parser.parse_args(arguments)
    if options.nodes < 4:
        parser.error("two nodes in each group are needed")
    report, course = run(options.nodes, options.seed, options.apart)
    tell(report, options, lambda figure: draw(figure, course))


if __name__ == "__main__":
    script(main)
