"""One service with very many providers: whether it drowns those who hold it, and whether finders see a fair sample.

    python -m simulations.dht_service [--nodes 10000] [--providers 100000] [--finders 10000] [--limit 20]
                                      [--announcers 100] [--seed 1] [--png FILE] [--json]

A swarm of real engines with the tables of one that has run for long. The providers are more than there are nodes, so
they have ids of their own and no engine: their signed records are put where announcing puts them, at the 20 nodes that
are truly nearest to each of their shards. That this is where it puts them is checked by real engines that announce the
same service afterwards (announce_misplaced: of their shards' records, how many are not at the true nearest). Then every
finder, which has looked for nothing before, finds the service once.

Load is counted at each node that holds something of the service: records, and requests for providers. Chi squared tells
whether finders' samples are unbiased: one result of each find, chosen at random, and the first result of each, counted
by where in the id space the provider is (groups of neighbouring shards), by random groups, and by the size of its
shard, where an unfair sample would show first. p: the probability of counts that uneven, were all equally likely.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Final

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import Announce, DhtCommand, DhtOutput, FindService, QueryDone, ServiceFound
from swarmp2p.dht.kademlia import Kademlia
from swarmp2p.dht.keys import ID_BITS, key_id, peer_key, service_key
from swarmp2p.dht.messages import AddProvider, GetProviders, Provider
from swarmp2p.dht.records import make_record
from swarmp2p.dht.shards import prefix, shards_of
from swarmp2p.engine import Engine, NetworkEvent, NetworkOutput, Received
from swarmp2p.identity import PeerId
from swarmp2p.transport.link import UniformLink
from swarmp2p.transport.sim import SimulatorConfig, random_for
from swarmp2p.transport.sim_peers import sim_address, sim_peer, sim_sign

from .report import Report, mean, parser_for, percentile, script, tell
from .swarm import DhtSwarm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RTT_S: Final = 0.050
SERVICE: Final = "ray-worker"
ROOT: Final = service_key(SERVICE)
_FIND_S: Final = 0.005  # between two finds
_PATIENCE_S: Final = 70.0
_LIFE_S: Final = 3600.0

BARS: Final = {"records_ratio": 3.0, "requests_ratio": 3.0}
"""No more than this, and each p above 0.01."""


class _Counted(Engine[DhtCommand, DhtOutput]):
    """A node, and how many requests for providers it got."""

    def __init__(self, dht: Kademlia) -> None:
        self.dht = dht
        self.requests = 0

    def handle(self, event: NetworkEvent | DhtCommand, now: float) -> Sequence[NetworkOutput | DhtOutput]:
        if isinstance(event, Received) and isinstance(event.message, GetProviders):
            self.requests += 1
        return self.dht.handle(event, now)

    def deadline(self) -> float:
        return self.dht.deadline()


class ServiceSwarm(DhtSwarm):
    """A swarm that counts requests."""

    def _engine(self, peer: PeerId) -> Engine[DhtCommand, DhtOutput]:
        inner = super()._engine(peer)
        assert isinstance(inner, Kademlia)
        return _Counted(inner)

    def counted(self, peer: PeerId) -> _Counted:
        """A node with its count."""
        engine = self.sim.engine(peer)
        assert isinstance(engine, _Counted)
        return engine

    def dht(self, peer: PeerId) -> Kademlia:
        return self.counted(peer).dht


class Nearest:
    """The true nearest nodes to a key."""

    def __init__(self, peers: Sequence[PeerId], k: int) -> None:
        self._known = sorted((peer_key(peer), peer) for peer in peers)
        self._ids = [id for id, _ in self._known]
        self._k = min(k, len(peers))

    def to(self, key: bytes) -> list[PeerId]:
        """The k nearest, in order."""
        target = key_id(key)
        bits = 0
        while True:  # the smallest aligned region around the target that holds k
            low = bisect_left(self._ids, target >> bits << bits)
            high = bisect_left(self._ids, (target >> bits) + 1 << bits)
            if high - low >= self._k:
                break
            bits += 1
        near = sorted(self._known[low:high], key=lambda entry: entry[0] ^ target)
        return [peer for _, peer in near[: self._k]]


def leaf_depths(ids: Sequence[int], split_above: int) -> list[int]:
    """At which depth each provider publishes, once all have moved; ids sorted."""
    depths = [0] * len(ids)
    regions = [(0, len(ids), 0)]
    while regions:
        low, high, depth = regions.pop()
        if high - low <= split_above:
            depths[low:high] = [depth] * (high - low)
            continue
        bit = ID_BITS - 1 - depth
        middle = bisect_left(ids, (ids[low] >> bit | 1) << bit, low, high)
        regions += [(low, middle, depth + 1), (middle, high, depth + 1)]
    return depths


def place(swarm: ServiceSwarm, providers: int, config: DhtConfig) -> dict[PeerId, tuple[int, int]]:
    """Put the records of made-up providers where they belong; each provider's leaf, as depth and place."""
    nodes = len(swarm.peers)
    nearest = Nearest(swarm.peers, config.k)
    named = sorted((peer_key(peer), peer) for peer in map(sim_peer, range(nodes, nodes + providers)))
    depths = leaf_depths([id for id, _ in named], config.split_above)
    holders: dict[bytes, list[PeerId]] = {}
    leaves: dict[PeerId, tuple[int, int]] = {}
    for number, ((id, peer), depth) in enumerate(zip(named, depths, strict=True)):
        leaves[peer] = depth, prefix(id, depth)
        record = make_record(peer, SERVICE, {}, 1, _LIFE_S, sim_sign(peer), {"": depth})
        provider = Provider(peer, (sim_address(nodes + number),), record.envelope)
        for _, key in shards_of(ROOT, id, depth):
            for holder in holders.get(key) or holders.setdefault(key, nearest.to(key)):
                swarm.dht(holder).handle(Received(peer, AddProvider(0, key, provider)), swarm.sim.now)
    return leaves


def announce(swarm: ServiceSwarm, announcers: int, config: DhtConfig) -> tuple[list[int], int, int]:
    """Have real nodes announce the service: their depths, and of their records how many there are and how many are
    not at the true nearest nodes."""
    nearest = Nearest(swarm.peers, config.k + 1)
    chosen = swarm.rng.sample(swarm.peers, announcers)
    for number, peer in enumerate(chosen):
        swarm.ask(peer, lambda query: Announce(query, SERVICE), lambda now, peer, output: None, number * 0.01)
    swarm.sim.run(swarm.sim.now + announcers * 0.01 + _PATIENCE_S)
    depths: list[int] = []
    stored = misplaced = 0
    for peer in chosen:
        record = swarm.dht(peer).announced(SERVICE)
        depths.append(0 if record is None else record.depths.get("", 0))
        for _, key in shards_of(ROOT, peer_key(peer), depths[-1]):
            others = [holder for holder in nearest.to(key) if holder != peer]
            for holder in others[: config.k]:
                stored += 1
                misplaced += peer not in swarm.dht(holder).providers_held(key)
    return depths, stored, misplaced


class Find:
    """What one find brought."""

    __slots__ = ("asked", "first_s", "found", "start")

    def __init__(self, start: float) -> None:
        self.start, self.first_s, self.asked = start, math.inf, 0
        self.found: list[PeerId] = []


def find(swarm: ServiceSwarm, finders: int, limit: int) -> list[Find]:
    """Have nodes find the service once each."""
    finds: list[Find] = []
    start = swarm.sim.now
    for number, peer in enumerate(swarm.rng.sample(swarm.peers, finders)):
        one = Find(start + number * _FIND_S)
        finds.append(one)

        def heard(now: float, peer: PeerId, output: DhtOutput, one: Find = one) -> None:
            if isinstance(output, ServiceFound):
                one.first_s = min(one.first_s, now - one.start)
                one.found.append(output.record.provider)
            elif isinstance(output, QueryDone):
                one.asked = output.asked

        swarm.ask(peer, lambda query: FindService(query, SERVICE, limit=limit), heard, number * _FIND_S)
    swarm.sim.run(start + finders * _FIND_S + _PATIENCE_S)
    return finds


def p_value(counts: Counter[int], sizes: Counter[int]) -> float:
    """The probability of counts that uneven, were each group drawn in proportion to its size; by Wilson and Hilferty's
    approximation of the chi-squared distribution, good from a dozen degrees of freedom on."""
    total, whole = sum(counts.values()), sum(sizes.values())
    chi = sum(
        (counts[group] - total * size / whole) ** 2 / (total * size / whole) for group, size in sizes.items()
    )
    free = len(sizes) - 1
    if free < 1:
        return 1.0
    spread = 2 / (9 * free)
    return 0.5 * math.erfc(((chi / free) ** (1 / 3) - 1 + spread) / math.sqrt(2 * spread))


def samples(finds: Sequence[Find], leaves: dict[PeerId, tuple[int, int]], rng: Random) -> Report:
    """Whether the finds are fair, by p-values."""
    among = [[peer for peer in one.found if peer in leaves] for one in finds]
    picks = {
        "any": [rng.choice(found) for found in among if found],
        "first": [found[0] for found in among if found],
    }
    draws = max(1, len(picks["any"]))
    bits = max(0, min(10, int(math.log2(draws / 8)))) if draws >= 8 else 0
    sizes = Counter(leaves.values())
    ranked = sorted(sizes, key=lambda leaf: (sizes[leaf] << leaf[0], leaf))
    rank = {leaf: place * 20 // len(ranked) for place, leaf in enumerate(ranked)}
    groupings: dict[str, Callable[[PeerId], int]] = {
        "shard": lambda peer: prefix(peer_key(peer), bits),
        "chance": lambda peer: peer_key(peer) & ((1 << bits) - 1),
        "size": lambda peer: rank[leaves[peer]],
    }
    report: Report = {}
    for pick, chosen in picks.items():
        for name, group in groupings.items():
            counts = Counter(group(peer) for peer in chosen)
            report[f"p_{pick}_by_{name}"] = p_value(counts, Counter(group(peer) for peer in leaves))
    return report


def run(
    nodes: int, providers: int, finders: int, limit: int, announcers: int, seed: int
) -> tuple[Report, list[int], list[int]]:
    """The report, and the records and requests of each node."""
    began = time.perf_counter()
    config = DhtConfig()
    link = UniformLink(RTT_S / 2, 0.0, 0.0)
    swarm = ServiceSwarm(nodes, seed, link, config, SimulatorConfig(dial_rtts=0.0))
    swarm.sim.run(0.0)
    swarm.fill_tables()
    leaves = place(swarm, providers, config)
    depths, stored, misplaced = announce(swarm, announcers, config) if announcers else ([], 0, 0)
    records = [swarm.dht(peer).records for peer in swarm.peers]
    before = [swarm.counted(peer).requests for peer in swarm.peers]
    finds = find(swarm, finders, limit)
    requests = [
        swarm.counted(peer).requests - earlier for peer, earlier in zip(swarm.peers, before, strict=True)
    ]
    holding = [place for place, held in enumerate(records) if held]
    held, asked = [records[place] for place in holding], [requests[place] for place in holding]
    firsts = [one.first_s / RTT_S for one in finds if one.found]
    report: Report = {
        "nodes": nodes,
        "providers": providers,
        "finders": finders,
        "limit": limit,
        "seed": seed,
        "leaves": len(set(leaves.values())),
        "depths": sorted(Counter(depth for depth, _ in leaves.values()).items()),
        "holders": len(holding),
        "records_mean": mean(held),
        "records_max": max(held),
        "records_ratio": max(held) / mean(held),
        "requests_mean": mean(asked),
        "requests_max": max(asked),
        "requests_ratio": max(asked) / mean(asked) if any(asked) else 0.0,
        "found_nobody": sum(not one.found for one in finds),
        "found_mean": mean([len(one.found) for one in finds]),
        "found_less": sum(len(one.found) < min(limit or providers, providers) for one in finds),
        "messages_mean": mean([one.asked for one in finds]),
        "messages_p95": percentile([one.asked for one in finds], 0.95),
        "first_mean_rtts": mean(firsts),
        "first_p95_rtts": percentile(firsts, 0.95),
        **samples(finds, leaves, random_for(seed, "samples")),
        "announcers": announcers,
        "announcer_depths": sorted(Counter(depths).items()),
        "announced_records": stored,
        "announced_misplaced": misplaced,
    }
    report["bars_missed"] = missed(report)
    report["wall_s"] = time.perf_counter() - began
    return report, sorted(held), sorted(asked)


def missed(report: Report) -> list[str]:
    """The bars that the report does not meet."""

    def value(name: str) -> float:
        number = report[name]
        assert isinstance(number, int | float)
        return number

    uneven = [name for name in report if name.startswith("p_") and value(name) <= 0.01]
    return [name for name, bar in BARS.items() if value(name) > bar] + uneven


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser_for("simulations.dht_service", __doc__)
    options.add_argument("--nodes", type=int, default=10_000)
    options.add_argument("--providers", type=int, default=100_000)
    options.add_argument("--finders", type=int, default=10_000)
    options.add_argument("--limit", type=int, default=20, help="results that each find wants; 0 for all (20)")
    options.add_argument(
        "--announcers", type=int, default=100, help="nodes that announce it themselves (100)"
    )
    chosen = options.parse_args(arguments)
    if chosen.nodes < 40 or chosen.providers < 1 or chosen.finders < 1 or chosen.limit < 0:
        options.error(
            "at least 40 nodes, one provider and one finder are needed, and a limit that is no less than 0"
        )
    if not 0 <= chosen.announcers <= chosen.nodes:
        options.error("announcers are nodes: there cannot be more of them, nor less than none")
    report, held, asked = run(
        chosen.nodes, chosen.providers, chosen.finders, chosen.limit, chosen.announcers, chosen.seed
    )

    def draw(figure: Figure) -> None:
        for place, (name, values) in enumerate((("records", held), ("requests", asked)), 1):
            axes = figure.add_subplot(1, 2, place)
            axes.plot([rank / len(values) for rank in range(len(values))], values)
            axes.axhline(mean(values), linestyle=":", label="mean")
            axes.axhline(3 * mean(values), linestyle="--", label="3 x mean")
            axes.set_xlabel("nodes, by load")
            axes.set_ylabel(f"{name} per node")
            axes.set_ylim(bottom=0)
            axes.legend()

    tell(report, chosen, draw)


if __name__ == "__main__":
    script(main)
