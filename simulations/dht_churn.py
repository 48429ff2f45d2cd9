"""A day of a DHT under churn: what is provided stays findable, tables stay true, and upkeep stays cheap.

    python -m simulations.dht_churn [--nodes 1000] [--hours 24] [--seed 1] [--png FILE] [--json]

85 % of the peers stay, the others come and go (churn_model.py). All join through three seeds, which stay. Some
records are provided by peers that stay, as many by such that come and go; half of each are signed service records,
renewed every 20 minutes, and half plain provider records, renewed every 22 hours.

A record is findable by right while its provider runs and has announced it since it started: its Announce or Provide
has ended, stored at one peer or more. All the time, a random peer that runs and has joined looks for a random
one of those; `findable` is the share of finds that returned it. A find whose finder or provider crashed before its
end is not counted.

`complete` is the share of nodes whose table has all of the 20 running peers nearest to them, sampled all day
from all that run, newcomers included (IPFS: 61 %, ProbeLab RFM19). `live` is the share of table entries that run
(IPFS: 85 to 96 %).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import (
    Announce,
    DhtOutput,
    FindProviders,
    FindService,
    Join,
    Provide,
    ProviderFound,
    QueryDone,
    ServiceFound,
)
from swarmp2p.identity import PeerId
from swarmp2p.transport.link import UniformLink

from . import checks
from .churn_model import Churn, ChurnConfig, Slot
from .report import Report, finite, mean, parser_for, percentile, script, tell
from .swarm import DhtSwarm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RTT_S = 0.050
JITTER = 0.1
STABLE = 0.85
SEEDS = 3
JOIN_INTERVAL_S = 0.1
SAMPLED = 100  # nodes whose tables are looked at each time


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens. nodes: that run at a time, on average. records: half of them by peers that come and go.
    find_interval_s: between finds of the whole network. sample_s: between looks at tables. settle_s: from the last of
    the first joins to the beginning of the day."""

    nodes: int = 1000
    hours: float = 24.0
    seed: int = 1
    records: int = 200
    find_interval_s: float = 1.0
    sample_s: float = 1200.0
    settle_s: float = 1800.0
    churn: ChurnConfig = field(default_factory=ChurnConfig)
    dht: DhtConfig = field(default_factory=DhtConfig)


@dataclass(slots=True)
class Record:
    """One record of one peer that runs. plain: a provider record, else of a service. announced: it may be found."""

    provider: PeerId
    number: int
    plain: bool
    announced: bool = False

    @property
    def service(self) -> str:
        """The service's name, or what the key is made of."""
        return f"service-{self.number}"

    @property
    def key(self) -> bytes:
        """The multihash key of a plain record."""
        return b"\x12\x20" + sha256(self.service.encode()).digest()


@dataclass(slots=True)
class Sample:
    """One look at the tables, and at the finds since the one before."""

    hour: float
    running: int
    tables: checks.Tables
    finds: int
    missed: int


class Day:
    """The scenario under way."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        nodes = scenario.nodes
        stable = max(SEEDS + 1, round(nodes * STABLE))
        churn = scenario.churn
        self.swarm = DhtSwarm(stable, scenario.seed, UniformLink(RTT_S / 2, JITTER), scenario.dht)
        slots = round((nodes - stable) * (1.0 + churn.pause_factor))
        self.churn = Churn(self.swarm, churn, slots, stable, self._came, self._went)
        self.seeds = tuple(map(self.swarm.info, self.swarm.peers[:SEEDS]))
        self.joined: dict[PeerId, None] = {}
        self.records: dict[PeerId, Record] = {}
        self.join_s: list[float] = []
        self.first_s: list[float] = []
        self.asked: list[int] = []
        self.finds = self.missed = 0
        self.misses: list[dict[str, object]] = []
        self.samples: list[Sample] = []
        self._numbers = 0
        half = scenario.records // 2
        # Each slot may have a record: of churning peers, as many as make `half` run at a time.
        self._wanted = dict.fromkeys(self.swarm.peers[SEEDS : SEEDS + half])
        self._slots = {
            id(slot): None for slot in self.churn.slots[: round(half * (1.0 + churn.pause_factor))]
        }

    def run(self) -> None:
        """From the first join to the end."""
        swarm, scenario = self.swarm, self.scenario
        for place, peer in enumerate(swarm.peers):
            swarm.sim.call(partial(self._join, peer, peer in self._wanted), place * JOIN_INTERVAL_S)
        self.churn.begin(JOIN_INTERVAL_S)
        begin = len(swarm.peers) * JOIN_INTERVAL_S + scenario.settle_s
        swarm.sim.run(begin)
        self.began, self.sent, self.events = begin, swarm.sim.sent, swarm.sim.events
        self.node_s = 0.0
        end = begin + scenario.hours * 3600.0
        self._each(scenario.find_interval_s, end, self._find)
        self._each(scenario.sample_s, end, self._sample)
        swarm.sim.run(end)

    # What peers do ------------------------------------------------------------------------------------------

    def _came(self, slot: Slot) -> None:
        self._join(slot.peer, id(slot) in self._slots)

    def _went(self, slot: Slot) -> None:
        self.joined.pop(slot.peer, None)
        self.records.pop(slot.peer, None)

    def _join(self, peer: PeerId, provides: bool) -> None:
        start = self.swarm.sim.now

        def joined(now: float, peer: PeerId, output: DhtOutput) -> None:
            assert isinstance(output, QueryDone)
            self.join_s.append(now - start)
            self.joined[peer] = None
            if provides:
                # The first ones wait until everybody is there.
                ready = len(self.swarm.peers) * JOIN_INTERVAL_S + 60.0
                self.swarm.sim.call(lambda: self._provide(peer), max(ready - now, 0.0))

        others = tuple(info for info in self.seeds if info.peer != peer)
        self.swarm.ask(peer, lambda query: Join(query, others), joined)

    def _provide(self, peer: PeerId) -> None:
        if peer not in self.joined:
            return  # gone
        self._numbers += 1
        record = self.records[peer] = Record(peer, self._numbers, plain=self._numbers % 2 == 0)

        def done(now: float, peer: PeerId, output: DhtOutput) -> None:
            if isinstance(output, QueryDone) and output.stored:
                record.announced = True

        if record.plain:
            self.swarm.ask(peer, lambda query: Provide(query, record.key), done)
        else:
            self.swarm.ask(peer, lambda query: Announce(query, record.service, (("cpus", 4),)), done)

    def _find(self) -> None:
        """Have a random peer look for a random record."""
        swarm = self.swarm
        findable = [record for record in self.records.values() if record.announced]
        if not findable or len(self.joined) < 2:
            return
        record = swarm.rng.choice(findable)
        finder = record.provider
        joined = list(self.joined)
        while finder == record.provider:
            finder = swarm.rng.choice(joined)
        start = swarm.sim.now
        took: list[float] = []

        def on_output(now: float, peer: PeerId, output: DhtOutput) -> None:
            if isinstance(output, ProviderFound):
                found = output.provider.peer
            elif isinstance(output, ServiceFound):
                found = output.record.provider
            else:
                assert isinstance(output, QueryDone)
                if self.records.get(record.provider) is record:
                    self._found(record, finder, start, took, output)
                return
            if found == record.provider:
                took.append(now - start)

        if record.plain:
            swarm.ask(finder, lambda query: FindProviders(query, record.key, limit=1), on_output)
        else:
            swarm.ask(finder, lambda query: FindService(query, record.service, limit=1), on_output)

    def _found(
        self, record: Record, finder: PeerId, start: float, took: list[float], done: QueryDone
    ) -> None:
        self.finds += 1
        self.asked.append(done.asked)
        if took:
            self.first_s.append(took[0])
            return
        self.missed += 1
        self.misses.append(
            {
                "at_s": start,
                "finder": str(finder),
                "provider": str(record.provider),
                "plain": record.plain,
                "asked": done.asked,
                "failed": done.failed,
            }
        )

    # What is measured ---------------------------------------------------------------------------------------

    def _each(self, interval_s: float, end: float, act: Callable[[], None]) -> None:
        def again() -> None:
            act()
            if self.swarm.sim.now + interval_s <= end:
                self.swarm.sim.call(again, interval_s)

        self.swarm.sim.call(again, interval_s)

    def _sample(self) -> None:
        swarm = self.swarm
        running = swarm.sim.peers
        self.node_s += len(running) * self.scenario.sample_s
        some = swarm.rng.sample(running, min(SAMPLED, len(running)))
        finds = self.finds - sum(sample.finds for sample in self.samples)
        missed = self.missed - sum(sample.missed for sample in self.samples)
        hour = (swarm.sim.now - self.began) / 3600.0
        self.samples.append(Sample(hour, len(running), checks.tables(swarm, some), finds, missed))


def run(scenario: Scenario) -> tuple[Report, list[Sample]]:
    """Run it; returns the report, and the samples for the picture."""
    started = time.process_time()
    day = Day(scenario)
    day.run()
    sim, samples = day.swarm.sim, day.samples
    wall_s = time.process_time() - started
    hours = max(day.node_s / 3600.0, 1e-9)
    tables = [sample.tables for sample in samples]
    report: Report = {
        "nodes": scenario.nodes,
        "hours": scenario.hours,
        "seed": scenario.seed,
        "refresh_s": scenario.dht.refresh_interval_s,
        "session_mean_s": scenario.churn.mean_session_s,
        "session_shape": scenario.churn.shape,
        "running_mean": mean([sample.running for sample in samples]),
        "crashes": day.churn.crashes,
        "returns": day.churn.returns,
        "finds": day.finds,
        "missed": day.missed,
        "findable": (day.finds - day.missed) / max(day.finds, 1),
        "first_mean_rtts": mean(day.first_s) / RTT_S,
        "first_p95_rtts": percentile(day.first_s, 0.95) / RTT_S,
        "first_p99_rtts": percentile(day.first_s, 0.99) / RTT_S,
        "requests_per_find": mean(day.asked),
        "join_p50_rtts": percentile(day.join_s, 0.5) / RTT_S,
        "join_p95_rtts": percentile(day.join_s, 0.95) / RTT_S,
        "entries": mean([table.entries for table in tables]),
        "live": mean([table.live for table in tables]),
        "live_worst": min((table.live for table in tables), default=0.0),
        "neighbours": mean([table.neighbours for table in tables]),
        "complete": mean([table.complete for table in tables]),
        "complete_worst": min((table.complete for table in tables), default=0.0),
        "messages_per_node_hour": (sim.sent - day.sent) / hours,
        "events_per_node_hour": (sim.events - day.events) / hours,
        "events": sim.events,
        "wall_s": wall_s,
        "engine_events_per_s": sim.events / wall_s,
        "trace_hash": sim.trace_hash,
        "misses": day.misses[:20],
        "counts": sim.counts,
    }
    return report, samples


def draw(figure: Figure, samples: Sequence[Sample]) -> None:
    """Over the day: findable, complete, live."""
    axes = figure.add_subplot()
    hours = [sample.hour for sample in samples]
    axes.plot(
        hours, [1 - sample.missed / max(sample.finds, 1) for sample in samples], label="records findable"
    )
    axes.plot(
        hours, [sample.tables.complete for sample in samples], label="nodes that know all their 20 nearest"
    )
    axes.plot(hours, [sample.tables.live for sample in samples], label="table entries that run")
    axes.axhline(0.99, linestyle=":", color="grey", label="99 %")
    axes.set_xlabel("hour")
    axes.set_ylabel("share")
    axes.set_ylim(top=1.002)
    axes.set_title("A day under churn")
    axes.legend(loc="lower right")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_for("simulations.dht_churn", __doc__)
    parser.add_argument("--nodes", type=int, default=1000, help="that run at a time (1000)")
    parser.add_argument("--hours", type=finite, default=24.0, help="simulated, after the joins (24)")
    parser.add_argument("--records", type=int, default=200)
    parser.add_argument("--find-interval", type=finite, default=1.0, help="seconds between two finds (1)")
    parser.add_argument("--refresh", type=finite, help="seconds between refreshes (the default setting)")
    options = parser.parse_args(arguments)
    if options.nodes < 10 or options.hours <= 0.0 or options.records < 2 or options.find_interval <= 0.0:
        parser.error("ten nodes, two records and some time are needed")
    dht = DhtConfig()
    if options.refresh is not None:
        dht = replace(dht, refresh_interval_s=options.refresh)
    scenario = Scenario(
        options.nodes, options.hours, options.seed, options.records, options.find_interval, dht=dht
    )
    report, samples = run(scenario)
    tell(report, options, lambda figure: draw(figure, samples))


if __name__ == "__main__":
    script(main)
