"""Lookups in a large DHT with perfect tables, and with tables of which a part is dead: round trips and messages.

    python -m simulations.dht_lookup [--nodes 10000] [--lookups 500] [--seed 1] [--png FILE] [--json]

Each setting is a swarm of its own: real engines whose tables are filled as those of a swarm that has run for long.
Then nodes drawn at random, which have asked nobody before, look up the 20 peers nearest to a key, publish provider
records, and find the first provider of what others published. In two of the settings 15 % of the nodes have stopped
without anybody knowing: their entries are in the tables, and a dial to them goes unanswered for 5 s.

A round trip always takes 50 ms. dialled: a new connection takes a round trip of its own, as with QUIC; the bars
and the ideal limits are for connections that cost nothing. The ideal limits are those of iterative lookups with k = 20,
alpha = 10 and perfect tables, at the published number of nodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from swarmp2p.dht.events import (
    DhtCommand,
    DhtOutput,
    FindClosest,
    FindProviders,
    Provide,
    ProviderFound,
    QueryDone,
)
from swarmp2p.dht.keys import key_id, multihash_key
from swarmp2p.identity import PeerId
from swarmp2p.transport.link import UniformLink
from swarmp2p.transport.sim import SimulatorConfig

from .checks import true_closest
from .report import Report, mean, parser_for, percentile, script, tell
from .swarm import DhtSwarm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RTT_S: Final = 0.050
K: Final = 20
_INTERVAL_S: Final = 0.050  # between two commands
_PATIENCE_S: Final = 70.0  # for the last of them: longer than a query may take


@dataclass(frozen=True, slots=True)
class Setting:
    """dead: share of the nodes that have stopped, 0 to 1. dial_rtts: round trips of a new connection."""

    name: str
    dead: float
    dial_rtts: float


SETTINGS: Final = (
    Setting("live", 0.0, 0.0),
    Setting("dead", 0.15, 0.0),
    Setting("live_dialled", 0.0, 1.0),
    Setting("dead_dialled", 0.15, 1.0),
)

BARS: Final = {
    "live_find_mean_rtts": 1.85,
    "live_lookup_p95_rtts": 4.0,
    "live_messages_p95": 37.0,
    "dead_lookup_p95_rtts": 8.0,
    "dead_find_p95_rtts": 3.0,
}
"""At 10,000 nodes: no more than this. And at least:"""

AT_LEAST: Final = {"live_exact": 0.999}

OTHERS: Final = {
    "live_find_mean_rtts": "ideal 1.80; IPFS 1.74 hops",
    "live_lookup_mean_rtts": "ideal 3.35",
    "live_messages_p95": "ideal 37",
    "dead_lookup_p50_rtts": "54 with fixed time-outs of 50 RTT",
    "dead_lookup_p95_rtts": "104 with fixed time-outs of 50 RTT",
}
"""Beside it: ideal limits at 10,000 nodes, the published IPFS figure (ProbeLab RFM7), and what fixed time-outs do."""


@dataclass(slots=True)
class Seen:
    """What came of the lookups of one setting.

    found: round trips to the first provider. lookups: round trips of a whole lookup. messages: requests of each. exact:
    whether it returned the true nearest. all_sent: messages of all nodes for those lookups, answers and probes
    included.
    """

    found: list[float] = field(default_factory=list)
    finds: int = 0
    lookups: list[float] = field(default_factory=list)
    messages: list[int] = field(default_factory=list)
    exact: list[bool] = field(default_factory=list)
    all_sent: int = 0


class Scene:
    """One setting under way."""

    def __init__(self, nodes: int, seed: int, setting: Setting) -> None:
        network = SimulatorConfig(dial_rtts=setting.dial_rtts)
        self.swarm = DhtSwarm(nodes, seed, UniformLink(RTT_S / 2, 0.0), network=network)
        self.swarm.fill_tables()
        for peer in self.swarm.rng.sample(self.swarm.peers, round(setting.dead * nodes)):
            self.swarm.sim.crash(peer)
        self.running = self.swarm.sim.peers
        self.seen = Seen()

    def run(self, lookups: int) -> Seen:
        """Look up, publish and find that often, each from a node drawn at random."""
        sent = self.swarm.sim.sent
        self._each(lookups, self._look_up)
        self.seen.all_sent = self.swarm.sim.sent - sent
        self._each(lookups, self._publish)
        self._each(lookups, self._find)
        return self.seen

    def _each(self, count: int, act: Callable[[int, PeerId, float], None]) -> None:
        swarm = self.swarm
        for number in range(count):
            act(number, swarm.rng.choice(self.running), number * _INTERVAL_S)
        swarm.sim.run(swarm.sim.now + count * _INTERVAL_S + _PATIENCE_S)

    def _look_up(self, number: int, peer: PeerId, delay: float) -> None:
        key, start = b"lookup %d" % number, self.swarm.sim.now + delay

        def on_output(now: float, peer: PeerId, output: DhtOutput) -> None:
            assert isinstance(output, QueryDone)
            seen = self.seen
            seen.lookups.append((now - start) / RTT_S)
            seen.messages.append(output.asked)
            nearest = [each for each in true_closest(self.swarm, key_id(key), K + 1) if each != peer][:K]
            seen.exact.append([info.peer for info in output.closest] == nearest)

        self._ask(peer, lambda query: FindClosest(query, key), on_output, delay)

    def _publish(self, number: int, peer: PeerId, delay: float) -> None:
        key = _published(number)
        self._ask(peer, lambda query: Provide(query, key), lambda now, peer, output: None, delay)

    def _find(self, number: int, peer: PeerId, delay: float) -> None:
        key, start = _published(number), self.swarm.sim.now + delay

        def on_output(now: float, peer: PeerId, output: DhtOutput) -> None:
            if isinstance(output, ProviderFound):
                self.seen.found.append((now - start) / RTT_S)

        self.seen.finds += 1
        self._ask(peer, lambda query: FindProviders(query, key, limit=1), on_output, delay)

    def _ask(
        self,
        peer: PeerId,
        make: Callable[[int], DhtCommand],
        on_output: Callable[[float, PeerId, DhtOutput], None],
        delay: float,
    ) -> None:
        self.swarm.ask(peer, make, on_output, delay)


def _published(number: int) -> bytes:
    return multihash_key(b"published %d" % number)


def run(nodes: int, seed: int, lookups: int, settings: Sequence[Setting]) -> tuple[Report, dict[str, Seen]]:
    """Run the settings one after the other; returns the report, and all that was seen, by setting."""
    started = time.process_time()
    report: Report = {"nodes": nodes, "seed": seed, "lookups": lookups}
    seen: dict[str, Seen] = {}
    for setting in settings:
        seen[setting.name] = Scene(nodes, seed, setting).run(lookups)
        report |= {f"{setting.name}_{name}": value for name, value in figures(seen[setting.name]).items()}
    report["bars_missed"] = [
        *(name for name, most in BARS.items() if name in report and _number(report[name]) > most),
        *(name for name, least in AT_LEAST.items() if name in report and _number(report[name]) < least),
    ]
    report["wall_s"] = time.process_time() - started
    return report, seen


def figures(seen: Seen) -> Report:
    """The metrics of one setting."""
    return {
        "found": len(seen.found) / max(seen.finds, 1),
        "find_mean_rtts": mean(seen.found),
        "find_p95_rtts": percentile(seen.found, 0.95),
        "lookup_mean_rtts": mean(seen.lookups),
        "lookup_p50_rtts": percentile(seen.lookups, 0.5),
        "lookup_p95_rtts": percentile(seen.lookups, 0.95),
        "messages_p50": percentile(seen.messages, 0.5),
        "messages_p95": percentile(seen.messages, 0.95),
        "exact": sum(seen.exact) / max(len(seen.exact), 1),
        # Of which two are a request and its answer; the rest are probes of new connections.
        "sent_for_each_message": seen.all_sent / max(sum(seen.messages), 1),
    }


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return round(value, 6)  # a time of four round trips is no more than four


def compared(report: Report) -> str:
    """Ours beside the bars and what others reach."""
    lines = [f"{'':<28}{'ours':>8}  {'bar':<10}others"]
    for name in dict.fromkeys((*BARS, *AT_LEAST, *OTHERS)):
        if name in report:
            bar = (
                f"<= {BARS[name]:g}" if name in BARS else f">= {AT_LEAST[name]:g}" if name in AT_LEAST else ""
            )
            label = name.replace("_", " ")
            lines.append(
                f"{label:<28}{_number(report[name]):>8.4g}  {bar:<10}{OTHERS.get(name, '')}".rstrip()
            )
    return "\n".join(lines)


def draw(figure: Figure, seen: dict[str, Seen]) -> None:
    """Cumulative shares, a line for each setting; the bars are upright."""
    find, lookup, messages = figure.subplots(1, 3)
    for name, each in seen.items():
        label = name.replace("_", ", ")
        _steps(find, each.found, label)
        _steps(lookup, each.lookups, label)
        _steps(messages, each.messages, label)
    for axes, title, bars in (
        (find, "round trips to the first provider", ("dead_find_p95_rtts",)),
        (lookup, "round trips of a whole lookup", ("live_lookup_p95_rtts", "dead_lookup_p95_rtts")),
        (messages, "requests of a whole lookup", ("live_messages_p95",)),
    ):
        for bar in bars:
            axes.plot([BARS[bar]] * 2, [0.0, 0.95], color="grey", linestyle=":")
            axes.annotate(f"p95 bar, {bar.split('_')[0]}", (BARS[bar], 0.02), rotation=90.0, fontsize="small")
        axes.set_xlabel(title)
        axes.set_ylabel("share of all")
        axes.grid(alpha=0.3)
    find.legend(loc="lower right")


def _steps(axes: Axes, values: Sequence[float], label: str) -> None:
    ordered = sorted(values)
    shares = [(place + 1) / len(ordered) for place in range(len(ordered))]
    axes.step([0.0, *ordered], [0.0, *shares], where="post", label=label)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_for("simulations.dht_lookup", __doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--lookups", type=int, default=500, help="of each kind in each setting (500)")
    names = [setting.name for setting in SETTINGS]
    parser.add_argument("--settings", nargs="+", choices=names, default=names, help="all by default")
    options = parser.parse_args(arguments)
    if options.nodes < 2 * K or options.lookups < 1:
        parser.error(f"at least {2 * K} nodes and one lookup are needed")
    chosen = [setting for setting in SETTINGS if setting.name in options.settings]
    report, seen = run(options.nodes, options.seed, options.lookups, chosen)
    if not options.json:
        print(compared(report), end="\n\n")
    tell(report, options, lambda figure: draw(figure, seen))


if __name__ == "__main__":
    script(main)
