"""Load signals of very many providers: what a node carries, and how evenly borrowers that see a few shards load them.

Two runs, each with a model that is checked against the real engines (NodeEngine in the simulator, with DHT, gossip
and load board) at a size that they can be run at.

*Bytes.* A shard has at most `split_above` providers, a provider is in one shard and a follower in `followed`. What a
node receives a second is signals/s of its shards x copies of a signal that reach it x bytes of a signed signal. The
model takes the copies from the engines' run; bytes are those of a real signed message with every field set, and
control traffic (subscriptions, IHAVE) is left out. That is a swarm at rest. While shards are split, a provider is in
its own, in the one that it left and in the one above, all of which may be busy, and a follower in twice as many as
else; what bounds their traffic then is that the members of a topic send `topic_rate` signals a second together.

*Load.* `borrowers` hold requests at providers, `mean_load` a provider on average. A request lasts 60 s on average, a
signal is sent every 5 s, and within one such round nobody hears news: all borrowers route by the signals of the
round before, and what they themselves sent since (the worst case of staleness). For each request a borrower draws
two providers of its sample and takes the one with fewer requests (balancer.power_of_two; with the engines,
`choose()` itself). All providers are alike, all borrowers ask alike, nobody crashes, there is no loss: what is shown
is the effect of seeing but a sample. Load is the number of requests in flight: its mean over the second half of the
rounds, and as a peak its value in the end.

At the end: bytes a second by size of the swarm, and how many requests the busiest provider has beside the mean one.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Final

from swarmp2p.gossip.balancer import choose, power_of_two
from swarmp2p.gossip.load import (
    FollowLoads,
    LoadConfig,
    LoadSignal,
    MemberConfig,
    SetLoad,
    ShardConfig,
    encode_signal,
)
from swarmp2p.gossip.load_shards import PLACE_BITS, points, shard_topic
from swarmp2p.gossip.wire import StrictSign, encode_message
from swarmp2p.identity import Identity, PeerId
from swarmp2p.node import NodeConfig
from swarmp2p.ray_bridge.events import Need
from swarmp2p.transport.link import UniformLink
from swarmp2p.transport.sim import random_for

from .report import Report, finite, mean, parser_for, script, tell
from .swarm import Swarm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROUND_S: Final = 5.0
REQUEST_S: Final = 60.0
SETTLE_S: Final = 150.0
SIZES: Final = (100, 300, 1000, 3000, 10_000, 30_000, 100_000)


@dataclass(frozen=True, slots=True)
class Scene:
    """What is simulated. providers, borrowers: how many. mean_load: requests a provider. rounds: of 5 s each."""

    providers: int
    borrowers: int
    mean_load: float
    rounds: int
    shards: ShardConfig

    def wanted(self, round_: int) -> int:
        """Requests of each borrower. They come evenly over the first time that one lasts, so that nobody starts with
        a crowd."""
        total = self.mean_load * self.providers / self.borrowers
        return round(total * min(1.0, (round_ + 1) * ROUND_S / REQUEST_S))

    @property
    def depth(self) -> int:
        """Of the shards, as a growing swarm splits them."""
        depth = 0
        while self.providers / (1 << depth) > self.shards.split_above:
            depth += 1
        return depth


def signal_bytes() -> int:
    """Length of a signed message with a load signal that has every field."""
    signal = LoadSignal(
        7.5, 12 << 30, 1.5, 3, 2, 0.25, "gpu-cluster", "eu-north", 1 << 41, 1.7e9, bytes(22), 16.0, 99, 5.0, 9
    )
    author = Identity(bytes(32))
    topic = shard_topic("0" * 9)
    message = StrictSign().make(author.peer_id, topic, encode_signal(signal), bytes(8), author.sign)
    return len(encode_message(message))


def signals_per_s(scene: Scene, config: LoadConfig) -> float:
    """Of one shard's members together, when only heartbeats are sent."""
    members = scene.providers / (1 << scene.depth)
    return members / max(0.95 * config.sender.heartbeat_s, members / config.sender.topic_rate)


@dataclass(frozen=True, slots=True)
class Loads:
    """Requests at each provider. now: in flight in the end. summed: over the second half of the rounds."""

    now: tuple[int, ...]
    summed: tuple[int, ...]

    @property
    def busiest(self) -> float:
        """The most over the second half, beside the mean."""
        return max(self.summed) / max(mean(self.summed), 1e-9)

    @property
    def idlest(self) -> float:
        """The fewest over the second half, beside the mean."""
        return min(self.summed) / max(mean(self.summed), 1e-9)

    @property
    def peak(self) -> float:
        """The most at one moment, the end, beside the mean."""
        return max(self.now) / max(mean(self.now), 1e-9)


# The vector model -------------------------------------------------------------------------------------------


def spread(scene: Scene, rng: Random) -> Loads:
    """Requests in flight at each provider."""
    places = sorted(rng.getrandbits(PLACE_BITS) for _ in range(scene.providers))
    samples = [_sample(places, scene, rng) for _ in range(scene.borrowers)]
    load, summed = [0] * len(places), [0] * len(places)
    held: list[list[int]] = [[] for _ in samples]
    random = rng.random
    for round_ in range(scene.rounds):
        for mine in held:
            for _ in range(int(len(mine) * ROUND_S / REQUEST_S + random())):
                ended = int(random() * len(mine))
                load[mine[ended]] -= 1
                mine[ended] = mine[-1]
                mine.pop()
        known, wanted = load.copy(), scene.wanted(round_)
        for sample, mine in zip(samples, held, strict=True):
            own: dict[int, int] = {}
            size = len(sample)
            for _ in range(wanted - len(mine) if size else 0):
                one, other = sample[int(random() * size)], sample[int(random() * size)]
                if known[other] + own.get(other, 0) < known[one] + own.get(one, 0):
                    one = other
                own[one] = own.get(one, 0) + 1
                load[one] += 1
                mine.append(one)
        if 2 * round_ >= scene.rounds:
            summed = [total + now for total, now in zip(summed, load, strict=True)]
    return Loads(tuple(load), tuple(summed))


def _sample(places: Sequence[int], scene: Scene, rng: Random) -> range | list[int]:
    """Providers of the shards that a borrower is in, as load_interest.Following chooses them."""
    step = 1 << (PLACE_BITS - scene.depth)
    firsts = {point // step * step for point in points(rng, scene.shards.followed)}
    found: list[int] = []
    for first in sorted(firsts):
        found += range(bisect_left(places, first), bisect_left(places, first + step))
    return found


# The engines ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measured:
    """Of a run with the engines. received: copies of signals that came to a provider and to a follower each second of
    the second half of the rounds. new: of these, those that were no repeats. settling: as provider_new and
    follower_new, of the first half. depths: of the providers' shards. sample: providers that a borrower saw in the
    end, on average."""

    provider_received: float
    provider_new: float
    follower_received: float
    follower_new: float
    provider_settling: float
    follower_settling: float
    loads: Loads
    depths: tuple[int, ...]
    sample: float

    @property
    def copies(self) -> float:
        """That a node gets of each signal."""
        return self.provider_received / max(self.provider_new, 1e-9)


def run_engines(scene: Scene, seed: int) -> Measured:
    """Whole nodes: providers that start one by one, and followers that route by their tables."""
    loads = LoadConfig(shards=scene.shards, members=MemberConfig(offer_after_s=5.0))
    swarm = Swarm(scene.providers + scene.borrowers, seed, UniformLink(0.025, 0.1), NodeConfig(loads=loads))
    swarm.fill_tables()
    rng = swarm.rng
    providers, borrowers = swarm.peers[: scene.providers], swarm.peers[scene.providers :]
    load: dict[PeerId, int] = dict.fromkeys(providers, 0)
    idle = LoadSignal(cpus_free=1e6, memory_free_bytes=1 << 40, kind="gpu-cluster", speed=1.0)
    for peer in providers:
        swarm.sim.post(peer, SetLoad(idle), 20.0 * rng.random())
    for peer in borrowers:
        swarm.sim.post(peer, FollowLoads(), 20.0 * rng.random())
    swarm.sim.run(SETTLE_S)

    first = middle = {peer: _counts(swarm, peer) for peer in swarm.peers}
    half = scene.rounds // 2
    held: dict[PeerId, list[PeerId]] = {peer: [] for peer in borrowers}
    summed: dict[PeerId, int] = dict.fromkeys(providers, 0)
    for round_ in range(scene.rounds):
        if round_ == half:
            middle = {peer: _counts(swarm, peer) for peer in swarm.peers}
        for borrower in borrowers:
            _route(swarm, borrower, held[borrower], scene.wanted(round_), load)
        for peer, in_flight in load.items():
            swarm.sim.post(peer, SetLoad(replace(idle, in_flight=in_flight)), 0.1)
            if 2 * round_ >= scene.rounds:
                summed[peer] += in_flight
        swarm.sim.run(swarm.sim.now + ROUND_S)
    last = {peer: _counts(swarm, peer) for peer in swarm.peers}

    def rate(peers: Sequence[PeerId], part: int) -> float:
        seconds = (scene.rounds - half) * ROUND_S
        return mean([(last[peer][part] - middle[peer][part]) / seconds for peer in peers])

    def settling(peers: Sequence[PeerId]) -> float:
        return mean([(middle[peer][0] - first[peer][0]) / max(half * ROUND_S, 1e-9) for peer in peers])

    return Measured(
        rate(providers, 0) + rate(providers, 1),
        rate(providers, 0),
        rate(borrowers, 0) + rate(borrowers, 1),
        rate(borrowers, 0),
        settling(providers),
        settling(borrowers),
        Loads(tuple(load.values()), tuple(summed.values())),
        tuple(swarm.node(peer).loads.depth for peer in providers),
        mean([len(swarm.node(peer).loads.table) for peer in borrowers]),
    )


def _counts(swarm: Swarm, peer: PeerId) -> tuple[int, int]:
    stats = swarm.node(peer).gossip.stats
    return stats.delivered, stats.duplicates


def _route(swarm: Swarm, borrower: PeerId, mine: list[PeerId], wanted: int, load: dict[PeerId, int]) -> None:
    """End some requests and send as many as are wanted, as `choose()` says."""
    rng = swarm.rng
    for peer in [peer for peer in mine if rng.random() < ROUND_S / REQUEST_S]:
        mine.remove(peer)
        load[peer] -= 1
    table = swarm.node(borrower).loads.table
    own: dict[PeerId, int] = {}
    for _ in range(wanted - len(mine)):
        entries = list(table)
        if not entries:
            return
        # Two are enough to choose from: the rule compares two for each place of its ranking.
        drawn = rng.sample(entries, min(2, len(entries)))
        best = choose(drawn, Need(cpus=0.0), swarm.sim.now, rng, own, power_of_two)[0].provider
        own[best] = own.get(best, 0) + 1
        load[best] += 1
        mine.append(best)


# The script -------------------------------------------------------------------------------------------------


def run(seed: int, full: Scene, check: Scene, sizes: Sequence[int] = SIZES) -> Report:
    """Engines at the size of `check`, then the models at it and at their full size."""
    started = time.perf_counter()
    measured = run_engines(check, seed)
    model = spread(check, random_for(seed, "check"))
    load = spread(full, random_for(seed, "spread"))
    config, size = LoadConfig(), signal_bytes()
    curve: list[dict[str, float]] = []
    for providers in sizes:
        scene = replace(full, providers=providers)
        received = signals_per_s(scene, config) * measured.copies * size
        most = config.sender.topic_rate * measured.copies * size  # of a topic
        followed = min(full.shards.followed, 1 << scene.depth)
        curve.append(
            {
                "providers": providers,
                "shards": 1 << scene.depth,
                "provider_bytes_per_s": received,
                "follower_bytes_per_s": received * followed,
                "provider_bound_bytes_per_s": most * (3 if scene.depth else 1),
                "follower_bound_bytes_per_s": most * (2 * followed if scene.depth else 1),
            }
        )
    small = replace(LoadConfig(), shards=check.shards)
    return {
        "providers": full.providers,
        "borrowers": full.borrowers,
        "shards": 1 << full.depth,
        "busiest_to_mean": load.busiest,
        "idlest_to_mean": load.idlest,
        "peak_to_mean": load.peak,
        "signal_bytes": size,
        "most_provider_bytes_per_s": max(point["provider_bytes_per_s"] for point in curve),
        "most_follower_bytes_per_s": max(point["follower_bytes_per_s"] for point in curve),
        "curve": curve,
        "check_providers": check.providers,
        "check_borrowers": check.borrowers,
        "check_depth_model": check.depth,
        "check_depth_engine": mean(measured.depths),
        "check_sample_engine": measured.sample,
        "check_busiest_model": model.busiest,
        "check_busiest_engine": measured.loads.busiest,
        "check_peak_model": model.peak,
        "check_peak_engine": measured.loads.peak,
        "check_copies_engine": measured.copies,
        "check_signals_per_s_model": signals_per_s(check, small),
        "check_signals_per_s_engine": measured.provider_new,
        "check_follower_signals_per_s_engine": measured.follower_new,
        "check_settling_signals_per_s_engine": measured.provider_settling,
        "check_settling_follower_signals_per_s_engine": measured.follower_settling,
        "check_provider_bytes_per_s_engine": measured.provider_received * size,
        "check_follower_bytes_per_s_engine": measured.follower_received * size,
        "seed": seed,
        "wall_s": time.perf_counter() - started,
    }


def draw(figure: Figure, report: Report) -> None:
    """Bytes a second by size."""
    curve = report["curve"]
    assert isinstance(curve, list)
    axes = figure.subplots()
    sizes = [point["providers"] for point in curve]
    for name, label in (("provider", "provider (one shard)"), ("follower", "follower (eight shards)")):
        axes.plot(sizes, [point[f"{name}_bytes_per_s"] / 1000 for point in curve], marker="o", label=label)
    axes.set_xscale("log")
    axes.set_xlabel("providers in the swarm")
    axes.set_ylabel("kB/s of load signals received, a node")
    axes.set_ylim(bottom=0)
    axes.legend()
    ratio = report["busiest_to_mean"]
    axes.set_title(f"{report['providers']:,} providers: the busiest has {ratio:.2f} x the mean load")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_for("simulations.load_spread", __doc__)
    parser.add_argument("--providers", type=int, default=100_000, help="nodes (100000)")
    parser.add_argument("--borrowers", type=int, default=1000, help="nodes (1000)")
    parser.add_argument("--mean-load", type=finite, default=50.0, help="requests a provider (50)")
    parser.add_argument("--rounds", type=int, default=48, help="of 5 s (48)")
    parser.add_argument(
        "--check",
        type=int,
        default=1000,
        help="providers with real engines (1000: some two hours; 100: two minutes)",
    )
    options = parser.parse_args(arguments)
    if min(options.providers, options.borrowers, options.check, options.rounds) < 1 or options.mean_load <= 0:
        parser.error("at least one provider, borrower and round, and some load are needed")
    shards = ShardConfig()
    full = Scene(options.providers, options.borrowers, options.mean_load, options.rounds, shards)
    # As many shards a borrower and borrowers a provider as far as a small swarm goes, with smaller shards.
    small = replace(shards, split_above=32, merge_below=8, followed=4)
    # Half the rounds: engines and model alike, and an hour less.
    check = Scene(
        options.check, max(1, options.check // 25), options.mean_load, max(1, options.rounds // 2), small
    )
    report = run(options.seed, full, check)
    tell(report, options, lambda figure: draw(figure, report))


if __name__ == "__main__":
    script(main)
