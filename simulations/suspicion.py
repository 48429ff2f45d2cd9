"""Who notices that a provider crashed, how soon, and who is accused falsely while nodes stall at random.

    python -m simulations.suspicion [--nodes 100] [--seconds 120] [--seed 1] [--png FILE] [--json]

Whole gossip routers and load boards, on a random graph with 10 links each, 25 ms ± 20 % a link and 1 % loss. Every
node follows the load topic; `--providers` of them send a signal a second, as SetLoad does it.

Stalls, as in the experiments of Lifeguard (Dadgar, Phillips and Currey, 2018) and memberlist: `--stalled` of the
nodes, observers and providers alike, stop for a while again and again, as a machine does that swaps or whose process is
descheduled: nothing is handled, what arrives waits, and then the node's own overdue Tick comes first and what waited
after it, in order. A stall takes 0.5 to 10 s (log-uniform), with 1 to 20 s of work between two. A suspicion is false
when the suspected provider is running: not crashed, and not stalled then nor within the last 2 s, since what the others
see is a little old. Suspicions of stalled providers are counted apart, as in Lifeguard's experiments: from outside, a
stall is a failure.

Before the stalls 5 of the providers that never stall crash, 6 s one after the other, without a word: their machines
lose power. `known_*_s` is how long after a crash the nodes suspected it; `known_all_s` the last of all. Another 5
crash after the stalls, when nodes that had stalled are still more patient than others: `later_known_all_s`.

The same is run with a fixed time-out of equal speed, which a node takes after the last signal it has seen, without
asking and without a thought about itself: its length is the mean silence after which the accrual detector suspected
the crashed. `ratio` is the accrual detector's false suspicions by the fixed time-out's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final

from swarmp2p.engine import Engine
from swarmp2p.gossip.doubts import ConfirmConfig
from swarmp2p.gossip.load import (
    FollowLoads,
    LoadConfig,
    LoadSignal,
    LoadSuspected,
    LoadUpdated,
    SenderConfig,
    SetLoad,
    SnapshotConfig,
    TableConfig,
)
from swarmp2p.gossip.messages import BareMessages
from swarmp2p.gossip.suspicion import SuspicionConfig
from swarmp2p.identity import PeerId
from swarmp2p.node import NodeCommand, NodeConfig, NodeEngine, NodeOutput
from swarmp2p.transport.link import UniformLink
from swarmp2p.transport.sim import Simulator, random_for
from swarmp2p.transport.sim_peers import sim_peer

from .graphs import regular_graph
from .report import Report, finite, mean, parser_for, percentile, script, tell
from .stalls import Stalls
from .swarm import sim_keys

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINKS: Final = 10
SETTLE_S: Final = 15.0
CRASHES: Final = 5
CRASH_EVERY_S: Final = 6.0
EXCUSED_S: Final = 2.0
UNNOTICED_S: Final = 1e6  # no connection is closed when a machine loses power


@dataclass(frozen=True, slots=True)
class Scenario:
    """nodes: all of them follow. providers: of them send signals. stalled: of them stall. seconds: for how long.
    settle_s: before all that, and after it."""

    nodes: int = 100
    providers: int = 100
    stalled: int = 25
    seconds: float = 60.0
    seed: int = 1
    settle_s: float = SETTLE_S


@dataclass(slots=True)
class Outcome:
    """What one detector did. false, excused: (time, observer, provider) of suspicions of providers that ran, and of
    those that were stalled. took_s: from each crash before the stalls to each observer's suspicion; later_s: from
    those after them. silence_s: from the last signal that it had seen to the former. missed: observers that did not
    notice."""

    false: list[tuple[float, PeerId, PeerId]] = field(default_factory=list)
    excused: int = 0
    took_s: list[float] = field(default_factory=list)
    later_s: list[float] = field(default_factory=list)
    silence_s: list[float] = field(default_factory=list)
    missed: int = 0
    confirmed: int = 0
    events: int = 0
    trace_hash: str = ""


AnyEngine = Engine[NodeCommand, NodeOutput]


class Run:
    """One run of the scenario with one detector."""

    def __init__(self, scenario: Scenario, suspicion: SuspicionConfig, confirm: ConfirmConfig) -> None:
        self.scenario, self.outcome = scenario, Outcome()
        sender = SenderConfig(heartbeat_s=1.0, min_interval_s=0.5, topic_rate=1000.0)
        loads = LoadConfig(
            sender=sender,
            snapshots=SnapshotConfig(ask_peers=0),
            table=TableConfig(suspicion=suspicion),
            confirm=confirm,
        )
        config = NodeConfig(loads=loads)
        self.sim: Simulator[NodeCommand, NodeOutput] = Simulator(
            scenario.seed, UniformLink(0.025, 0.2, 0.01), self._output
        )
        self._crashed: dict[PeerId, float] = {}
        self._waiting: dict[PeerId, dict[PeerId, None]] = {}  # by crashed provider
        self._seen: dict[tuple[PeerId, PeerId], float] = {}
        self._stalling = False  # the stalls have begun
        self._form = BareMessages()
        rng = random_for(scenario.seed, "engines")
        self.peers = [sim_peer(number) for number in range(scenario.nodes)]
        self.stalls = {peer: Stalls(self._engine(peer, rng, config)) for peer in self.peers}
        for peer in self.peers:
            self.sim.add(peer, self.stalls[peer])
            self.sim.post(peer, FollowLoads())
        for one, other in regular_graph(scenario.nodes, LINKS, random_for(scenario.seed, "graph")):
            self.sim.connect(self.peers[one], self.peers[other])
        self.providers = self.peers[: scenario.providers]
        start = random_for(scenario.seed, "starts")
        for peer in self.providers:
            self.sim.post(peer, SetLoad(LoadSignal()), start.uniform(0.0, 1.0))

    def _engine(self, peer: PeerId, rng: Random, config: NodeConfig) -> NodeEngine:
        return NodeEngine(peer, sim_keys(peer, rng), rng, config, self._form)

    def run(self) -> Outcome:
        """All of it."""
        scenario, sim = self.scenario, self.sim
        rng = random_for(scenario.seed, "stalls")
        sim.run(scenario.settle_s)
        self._crash(self.peers[:CRASHES])
        # Those that will crash are providers that never stall.
        self._stalling = True
        stalled = rng.sample(self.peers[2 * CRASHES :], scenario.stalled)
        begin, end = sim.now, sim.now + scenario.seconds
        for peer in stalled:
            at = begin + rng.uniform(0.0, 10.0)
            while True:
                seconds = math.exp(rng.uniform(math.log(0.5), math.log(10.0)))
                if at + seconds > end:
                    break
                self.stalls[peer].plan(at, at + seconds)
                at += seconds + rng.uniform(1.0, 20.0)
        sim.run(end + scenario.settle_s)
        self._crash(self.peers[CRASHES : 2 * CRASHES])
        outcome = self.outcome
        outcome.missed = sum(
            observer not in self._crashed for waiting in self._waiting.values() for observer in waiting
        )
        outcome.confirmed = sum(self._node(peer).loads.doubts.confirmed for peer in sim.peers)
        outcome.events, outcome.trace_hash = sim.events, sim.trace_hash
        return outcome

    def _crash(self, victims: Sequence[PeerId]) -> None:
        sim = self.sim
        for victim in victims:
            self._crashed[victim] = sim.now
            self._waiting[victim] = dict.fromkeys(peer for peer in sim.peers if peer != victim)
            sim.crash(victim, UNNOTICED_S)
            sim.run(sim.now + CRASH_EVERY_S)

    def _node(self, peer: PeerId) -> NodeEngine:
        engine = self.stalls[peer].engine
        assert isinstance(engine, NodeEngine)
        return engine

    def _output(self, now: float, peer: PeerId, output: NodeOutput) -> None:
        match output:
            case LoadUpdated(provider=provider):
                self._seen[peer, provider] = now
            case LoadSuspected(provider=provider):
                outcome = self.outcome
                if provider in self._crashed:
                    if self._waiting[provider].pop(peer, 0) is None:
                        took_s = now - self._crashed[provider]
                        if self._stalling:
                            outcome.later_s.append(took_s)
                        else:
                            outcome.took_s.append(took_s)
                            outcome.silence_s.append(now - self._seen[peer, provider])
                elif self.stalls[provider].stalled_since(now - EXCUSED_S, now):
                    outcome.excused += 1
                else:
                    outcome.false.append((now, peer, provider))
            case _:
                pass


def run(scenario: Scenario) -> tuple[Report, dict[str, Outcome]]:
    """Both detectors. Returns the report and what each did."""
    started = time.process_time()
    accrual = Run(scenario, SuspicionConfig(), ConfirmConfig()).run()
    fixed_s = mean(accrual.silence_s)
    fixed = Run(scenario, SuspicionConfig(fixed_s=fixed_s), ConfirmConfig(max_asked=0)).run()
    report: Report = {
        "nodes": scenario.nodes,
        "providers": scenario.providers,
        "stalled": scenario.stalled,
        "seconds": scenario.seconds,
        "seed": scenario.seed,
        "known_p50_s": percentile(accrual.took_s, 0.5),
        "known_all_s": max(accrual.took_s, default=math.inf) if not accrual.missed else math.inf,
        "later_known_all_s": max(accrual.later_s, default=math.inf) if not accrual.missed else math.inf,
        "known_mean_s": mean(accrual.took_s),
        "fixed_known_mean_s": mean(fixed.took_s),
        "fixed_time_out_s": fixed_s,
        "false": len(accrual.false),
        "fixed_false": len(fixed.false),
        "ratio": len(accrual.false) / max(len(fixed.false), 1),
        "stalled_suspected": accrual.excused,
        "fixed_stalled_suspected": fixed.excused,
        "confirmed": accrual.confirmed,
        "missed": accrual.missed,
        "fixed_missed": fixed.missed,
        "events": accrual.events + fixed.events,
        "trace_hash": accrual.trace_hash,
        "wall_s": time.process_time() - started,
    }
    return report, {"accrual": accrual, "fixed": fixed}


def draw(figure: Figure, outcomes: dict[str, Outcome]) -> None:
    """False suspicions over time, and who knew of a crash when."""
    over_time, known = figure.subplots(1, 2)
    for name, outcome in outcomes.items():
        times = sorted(at for at, _, _ in outcome.false)
        over_time.step([0.0, *times], range(len(times) + 1), where="post", label=name)
        took = sorted(outcome.took_s)
        known.step(took, [(place + 1) / len(took) for place in range(len(took))], where="post", label=name)
    over_time.set(xlabel="seconds", ylabel="suspicions of providers that ran, so far", yscale="symlog")
    known.axvline(4.0, linestyle=":", color="grey")
    known.set(xlabel="seconds after the crash", ylabel="nodes that know of it", ylim=(0.0, 1.02))
    over_time.legend()
    over_time.set_title("False suspicions under random stalls")
    known.set_title("Crashes")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_for("simulations.suspicion", __doc__)
    parser.add_argument("--nodes", type=int, default=100, help="all of them follow the signals (100)")
    parser.add_argument("--providers", type=int, help="of the nodes that send signals (all)")
    parser.add_argument("--stalled", type=int, help="of the nodes that stall (a quarter)")
    parser.add_argument("--seconds", type=finite, default=60.0, help="for which nodes stall (60)")
    options = parser.parse_args(arguments)
    providers = options.nodes if options.providers is None else options.providers
    stalled = options.nodes // 4 if options.stalled is None else options.stalled
    if not (options.nodes > LINKS and 2 * CRASHES < providers <= options.nodes):
        parser.error(
            f"more than {LINKS} nodes and {2 * CRASHES} providers are needed, and no more providers than nodes"
        )
    if not 0 <= stalled <= options.nodes - 2 * CRASHES:
        parser.error(f"0 nodes or more can stall, but at most all but {2 * CRASHES}")
    if options.seconds <= 0:
        parser.error("--seconds is above 0")
    report, outcomes = run(Scenario(options.nodes, providers, stalled, options.seconds, options.seed))
    tell(report, options, lambda figure: draw(figure, outcomes))


if __name__ == "__main__":
    script(main)
