"""The DHT under attack, with the engines that run over libp2p: peers that answer falsely, and Sybils around keys.

    python -m simulations.dht_attack [--nodes 1000 10000] [--lookups 200] [--seed 1] [--png FILE] [--json]

*False answers.* A share of the nodes collude (adversary.py): they name only one another, those nearest to the target
first, deny all records, keep none, and answer ten times as fast as others. Their ids are as they come, and honest
nodes' tables hold them like anybody else. In the largest network, honest nodes look up random ids over 1, 4 and 8
disjoint paths. As in S/Kademlia (Baumgart and Mies 2007, §5), a lookup succeeds when it reaches the node that it
looks for: here, when the honest node nearest to the target is in its result. A find succeeds when it gets a record
that an honest provider stored, both over as many paths. Beside it stands S/Kademlia's estimate
1 - (1 - (1 - m)^h)^d for a share of m, d paths and h = 4 hops.

*Sybils.* Around each key there are so many, from a pool of ids made beforehand. Its 20 nearest peers are all Sybils:
keys with an honest peer so near that the pool has no 20 nearer ids are not attacked. Honest nodes with the defence of
crowding.py and without store records there, and look for all records of the key; a find is denied when those do not
include the one that a node of its kind stored. "stored before": records that were there before the Sybils came.

Eight minutes and 700 MB at full size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import nsmallest
from itertools import count
from typing import TYPE_CHECKING

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import (
    DhtOutput,
    FindClosest,
    FindProviders,
    Provide,
    ProviderFound,
    QueryDone,
    Refresh,
)
from swarmp2p.dht.keys import key_id, multihash_key, peer_key
from swarmp2p.identity import PeerId
from swarmp2p.transport.link import UniformLink

from .adversary import AttackedSwarm, SybilPool
from .checks import true_closest
from .report import Report, mean, parser_for, script, tell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RTT_S = 0.050
JITTER = 0.1
PATHS = (1, 4, 8)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
SYBILS = (20, 40, 100)
HOPS = 4  # of the formula
_FINDERS = 10  # of each key and kind
_POOL = 60  # ids for each node
_MAX_SYBIL_SHARE = 0.05  # of all nodes, so that only keys are under attack
_INTERVAL_S = 0.05
_PATIENCE_S = 30.0


@dataclass(slots=True)
class Lies:
    """What came of lookups and finds over some paths. reached, found: shares, 0 to 1. asked: requests a lookup."""

    reached: float
    found: float
    asked: float


@dataclass(slots=True)
class Denied:
    """Finds of one kind. took_s: seconds of each."""

    finds: int = 0
    denied: int = 0
    asked: list[int] = field(default_factory=list[int])

    @property
    def share(self) -> float:
        """Of the finds, those that did not get the record."""
        return self.denied / max(self.finds, 1)


def skademlia(share: float, paths: int, hops: int = HOPS) -> float:
    """The estimate of S/Kademlia's §5: each path succeeds when all its hops are honest."""
    return 1 - (1 - (1 - share) ** hops) ** paths


# False answers ----------------------------------------------------------------------------------------------


def false_answers(nodes: int, share: float, seed: int, lookups: int) -> dict[int, Lies]:
    """By number of paths, how lookups and finds fare among a share of adversaries."""
    configs = [DhtConfig(disjoint_paths=paths) for paths in PATHS]
    link = UniformLink(RTT_S / 2, JITTER)
    swarm = AttackedSwarm(nodes, seed, link, configs, adversaries=round(share * nodes))
    swarm.fill_honest_tables()
    for place, peer in enumerate(peer for group in swarm.honest for peer in group[:lookups]):
        for delay_s in _refreshes(nodes):
            swarm.ask(peer, Refresh, _ignore, delay_s + place * _INTERVAL_S)
    swarm.sim.run(swarm.sim.now + 4 * _PATIENCE_S)
    everybody = [peer for group in swarm.honest for peer in group]
    return {
        paths: _among_liars(swarm, everybody, group[:lookups], lookups)
        for paths, group in zip(PATHS, swarm.honest, strict=True)
    }


def _among_liars(
    swarm: AttackedSwarm, everybody: Sequence[PeerId], group: Sequence[PeerId], lookups: int
) -> Lies:
    reached: list[bool] = []
    asked: list[float] = []
    found: list[bool] = []
    rng = swarm.rng
    keys = [multihash_key(rng.randbytes(32)) for _ in range(lookups)]
    pairs = [rng.sample(group, 2) for _ in keys]

    def looked_up(key: bytes, now: float, peer: PeerId, output: DhtOutput) -> None:
        assert isinstance(output, QueryDone)
        (nearest,) = nsmallest(1, everybody, key=lambda peer: peer_key(peer) ^ key_id(key))
        reached.append(any(info.peer == nearest for info in output.closest))
        asked.append(output.asked)

    for place, key in enumerate(keys):
        swarm.ask(
            rng.choice(group), partial(FindClosest, key=key), partial(looked_up, key), place * _INTERVAL_S
        )
    _settle(swarm, lookups)
    for place, (key, (provider, _)) in enumerate(zip(keys, pairs, strict=True)):
        swarm.ask(provider, partial(Provide, key=key), _ignore, place * _INTERVAL_S)
    _settle(swarm, lookups)
    for place, (key, (provider, finder)) in enumerate(zip(keys, pairs, strict=True)):
        _find(swarm, finder, key, provider, lambda got, _: found.append(got), place * _INTERVAL_S)
    _settle(swarm, lookups)
    return Lies(mean(reached), mean(found), mean(asked))


def _find(
    swarm: AttackedSwarm,
    finder: PeerId,
    key: bytes,
    provider: PeerId,
    ended: Callable[[bool, int], None],
    delay: float = 0.0,
) -> None:
    """Look for all providers of a key; `ended` gets whether that one was among them, and the requests."""
    found: list[PeerId] = []

    def output(now: float, peer: PeerId, output: DhtOutput) -> None:
        match output:
            case ProviderFound():
                found.append(output.provider.peer)
            case QueryDone():
                ended(provider in found, output.asked)
            case _:
                raise AssertionError(f"a find does not say {output}")

    swarm.ask(finder, partial(FindProviders, key=key), output, delay)


def _settle(swarm: AttackedSwarm, acts: int) -> None:
    swarm.sim.run(swarm.sim.now + acts * _INTERVAL_S + _PATIENCE_S)


def _refreshes(nodes: int) -> Sequence[float]:
    """When nodes look around, so that they know the size of the network: twice where that is few lookups."""
    return (1.0,) if nodes >= 1_000 else (1.0, _PATIENCE_S)


def _ignore(now: float, peer: PeerId, output: DhtOutput) -> None:
    pass


# Sybils -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Censored:
    """What Sybils around keys achieve."""

    plain: Denied = field(default_factory=Denied)
    defended: Denied = field(default_factory=Denied)
    stored_before: Denied = field(default_factory=Denied)


def sybils(nodes: int, sybils_a_key: int, seed: int, pool: SybilPool, min_finds: int) -> Censored:
    """Surround keys with Sybils until there are at least so many finds of each kind."""
    seen = Censored()
    keys = max(1, round(_MAX_SYBIL_SHARE * nodes / sybils_a_key))
    for turn in count():
        if seen.plain.finds >= min_finds:
            return seen
        _surround(nodes, sybils_a_key, seed * 1000 + turn, pool, keys, seen)
    raise AssertionError


def _surround(nodes: int, sybils_a_key: int, seed: int, pool: SybilPool, keys: int, seen: Censored) -> None:
    # An optimistic provide leaves records with honest peers on its way, before it hears of the Sybils.
    configs = [DhtConfig(around_crowds=False, optimistic=False), DhtConfig()]
    swarm = AttackedSwarm(nodes, seed, UniformLink(RTT_S / 2, JITTER), configs)
    swarm.fill_honest_tables()
    sim, rng = swarm.sim, swarm.rng
    wanted: list[bytes] = []
    while len(wanted) < keys:
        key = multihash_key(rng.randbytes(32))
        (nearest,) = true_closest(swarm, key_id(key), 1)
        if peer_key(pool.nearest(key_id(key), configs[0].k)[-1]) ^ key_id(key) < peer_key(nearest) ^ key_id(
            key
        ):
            wanted.append(key)
    plain, defended = (iter(rng.sample(group, keys * (2 * _FINDERS + 2))) for group in swarm.honest)
    finds: list[
        tuple[bytes, PeerId, list[PeerId], Denied]
    ] = []  # key, provider, finders, where it is counted
    before: list[tuple[bytes, PeerId]] = []
    after: list[tuple[bytes, PeerId]] = []
    for key in wanted:
        for group, when, counted in (
            (plain, after, seen.plain),
            (defended, after, seen.defended),
            (defended, before, seen.stored_before),
        ):
            provider, *finders = (next(group) for _ in range(_FINDERS + 1))
            when.append((key, provider))
            finds.append((key, provider, finders, counted))
    for _, provider, finders, _ in finds:  # so that they know the size of the network
        for peer in (provider, *finders):
            for delay_s in _refreshes(nodes):
                swarm.ask(peer, Refresh, _ignore, delay_s)
    sim.run(sim.now + 2 * _PATIENCE_S)
    for key, provider in before:
        swarm.ask(provider, partial(Provide, key=key), _ignore)
    sim.run(sim.now + _PATIENCE_S)
    for key in wanted:
        swarm.add_sybils(pool.nearest(key_id(key), sybils_a_key))
    for key, provider in after:
        swarm.ask(provider, partial(Provide, key=key), _ignore)
    sim.run(sim.now + _PATIENCE_S)
    for key, provider, finders, counted in finds:
        for finder in finders:
            _find(swarm, finder, key, provider, partial(_count, counted))
    sim.run(sim.now + 2 * _PATIENCE_S)


def _count(into: Denied, got: bool, asked: int) -> None:
    into.finds += 1
    into.denied += not got
    into.asked.append(asked)


# The report -------------------------------------------------------------------------------------------------


def run(
    nodes: Sequence[int],
    seed: int,
    lookups: int,
    shares: Sequence[float] = SHARES,
    sybils_a_key: Sequence[int] = SYBILS,
) -> Report:
    """Run all of it; returns the report."""
    started = time.process_time()
    report: Report = {"nodes": list(nodes), "seed": seed, "lookups": lookups}
    rows: list[dict[str, object]] = []
    for share in shares:
        for paths, lies in false_answers(max(nodes), share, seed, lookups).items():
            name = f"{round(100 * share)}pct_d{paths}"
            report[f"lookups_reached_{name}"] = lies.reached
            report[f"records_found_{name}"] = lies.found
            report[f"s_kademlia_{name}"] = skademlia(share, paths)
            report[f"requests_{name}"] = lies.asked
            rows.append({"share": share, "paths": paths, "reached": lies.reached, "found": lies.found})
    censored: list[dict[str, object]] = []
    for size in nodes:
        pool = SybilPool(_POOL * size)
        for many in sybils_a_key:
            seen = sybils(size, many, seed, pool, lookups)
            name = f"{many}_sybils_of_{size}"
            report[f"finds_denied_plain_{name}"] = seen.plain.share
            report[f"finds_denied_{name}"] = seen.defended.share
            report[f"finds_denied_stored_before_{name}"] = seen.stored_before.share
            report[f"requests_plain_{name}"] = mean(seen.plain.asked)
            report[f"requests_{name}"] = mean(seen.defended.asked)
            censored.append(
                {
                    "nodes": size,
                    "sybils": many,
                    "plain": seen.plain.share,
                    "defended": seen.defended.share,
                    "stored_before": seen.stored_before.share,
                }
            )
    report["false_answers"], report["censored"] = rows, censored
    report["wall_s"] = time.process_time() - started
    return report


def draw(figure: Figure, report: Report) -> None:
    """Success over the share of adversaries, and denied finds over the number of Sybils."""
    left, right = figure.subplots(1, 2)
    rows, censored = report["false_answers"], report["censored"]
    assert isinstance(rows, list)
    assert isinstance(censored, list)
    for paths, colour in zip(PATHS, ("tab:red", "tab:orange", "tab:green"), strict=True):
        chosen = [row for row in rows if row["paths"] == paths]
        shares = [100 * row["share"] for row in chosen]
        left.plot(shares, [100 * row["reached"] for row in chosen], "o-", color=colour, label=f"d = {paths}")
        formula = [100 * skademlia(row["share"], paths) for row in chosen]
        left.plot(shares, formula, ":", color=colour, label=f"S/Kademlia's estimate, d = {paths}")
    left.set_xlabel("adversaries, % of nodes")
    left.set_ylabel("lookups that reach the nearest honest node, %")
    left.set_ylim(0, 102)
    left.legend()
    for size, style in zip(
        dict.fromkeys(row["nodes"] for row in censored), ("o-", "s--", "^:"), strict=False
    ):
        chosen = [row for row in censored if row["nodes"] == size]
        many = [row["sybils"] for row in chosen]
        for kind, colour, label in (
            ("plain", "tab:red", "without the defence"),
            ("defended", "tab:green", "with it"),
            ("stored_before", "tab:blue", "with it, stored before"),
        ):
            denied = [100 * row[kind] for row in chosen]
            right.plot(many, denied, style, color=colour, label=f"{label}, {size:,} nodes")
    right.set_xlabel("Sybils around each key")
    right.set_ylabel("finds denied, %")
    right.set_ylim(-2, 102)
    right.legend()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_for("simulations.dht_attack", __doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1_000, 10_000], help="sizes of the swarms")
    parser.add_argument("--lookups", type=int, default=200, help="of each kind (200)")
    options = parser.parse_args(arguments)
    if min(options.nodes) < 60 or options.lookups < 1:
        parser.error("at least 60 nodes and one lookup are needed")
    report = run(options.nodes, options.seed, options.lookups)
    tell(report, options, lambda figure: draw(figure, report))


if __name__ == "__main__":
    script(main)
