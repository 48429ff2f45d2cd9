"""Servers with queues, clients that place requests, and signals of an age: the outside world of load_balance.py.

Requests arrive as a Poisson process at `load` times the servers' joint speed, each from a client drawn at random, and
bring exponential work of mean 1 s at speed 1. A server works on its requests one after the other. Its signal says how
many it has, and how long one more would take, as it would of itself. Signals arrive at once; a probe that is waited
for takes PROBE_S, which counts. Placed is by the real choose().

One heap of events; a departure is none, since with queues in order it is known when the request arrives.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, Protocol

from swarmp2p.gossip.balancer import Choice, Rule, choose, reconsider
from swarmp2p.gossip.load_signal import LoadSignal
from swarmp2p.gossip.load_table import LoadEntry
from swarmp2p.gossip.probes import Probes
from swarmp2p.identity import PeerId
from swarmp2p.ray_bridge.events import Need

from .report import mean, percentile

PROBE_S: Final = 0.01
"""Round trip of a probe that is waited for, in mean service times."""

NEED: Final = Need(cpus=0)
_REFRESH, _ARRIVE, _ASKED, _PLACE = range(4)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is simulated. speeds: of each server. refresh_s: between signals of one server; 0 for always fresh ones.
    together: whether all servers signal at the same instants (a board), or each at its own. own: whether clients know
    what they sent since. requests: how many are placed; the first tenth is not counted."""

    speeds: tuple[float, ...]
    load: float
    refresh_s: float = 0.0
    together: bool = False
    clients: int = 1
    own: bool = False
    requests: int = 100_000


@dataclass(slots=True)
class Outcome:
    """Times in system in seconds, in order of arrival, and probes sent."""

    times: list[float] = field(default_factory=list)
    probes: int = 0

    @property
    def mean(self) -> float:
        """Of all."""
        return mean(self.times)

    @property
    def p99(self) -> float:
        """99 % took no longer."""
        return percentile(self.times, 0.99)


class Policy(Protocol):
    """Where a client places a request: a server's number, or a ranking whose first is probed before."""

    def __call__(self, farm: Farm, client: int, now: float) -> int | list[Choice]: ...


class Farm:
    """The servers, and what is known of them."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.setting, self.rng = setting, Random(seed)
        self.peers = [
            PeerId.from_public_key(number.to_bytes(32, "big")) for number in range(len(setting.speeds))
        ]
        self.places = {peer: place for place, peer in enumerate(self.peers)}
        self._queues: list[deque[float]] = [deque() for _ in self.peers]  # times of departure
        self._signals: dict[tuple[float, int], LoadSignal] = {}
        self._own: list[dict[int, list[float]]] = [{} for _ in range(setting.clients)]
        self.entries = [self.fresh(place, 0.0) for place in range(len(self.peers))]
        self.outcome = Outcome()

    def in_flight(self, server: int, now: float) -> int:
        """Requests that a server has now."""
        queue = self._queues[server]
        while queue and queue[0] <= now:
            queue.popleft()
        return len(queue)

    def latency_s(self, server: int, in_flight: int) -> float:
        """How long one more would take."""
        return (in_flight + 1) / self.setting.speeds[server]

    def fresh(self, server: int, now: float) -> LoadEntry:
        """A server's entry, were it to signal now."""
        in_flight = self.in_flight(server, now)
        key = self.setting.speeds[server], in_flight
        signal = self._signals.get(key)
        if signal is None:
            latency_s = self.latency_s(server, in_flight)
            signal = self._signals[key] = LoadSignal(in_flight=in_flight, latency_s=latency_s)
        return LoadEntry(self.peers[server], signal, now)

    def outstanding(self, client: int, now: float) -> dict[PeerId, int]:
        """A client's requests that no signal has counted yet."""
        counts: dict[PeerId, int] = {}
        for server, ends in list(self._own[client].items()):
            ends[:] = [end for end in ends if end > now]
            if ends:
                counts[self.peers[server]] = len(ends)
            else:
                del self._own[client][server]
        return counts

    def run(self, policy: Policy) -> Outcome:
        """Place all requests."""
        setting, rng = self.setting, self.rng
        count = len(self.peers)
        rate = setting.load * sum(setting.speeds)
        ticket = arrived = 0
        heap: list[tuple[float, int, int, int, float, list[Choice]]] = []

        def push(
            at: float, kind: int, what: int = 0, since: float = 0.0, ranked: Sequence[Choice] = ()
        ) -> None:
            nonlocal ticket
            ticket += 1
            heapq.heappush(heap, (at, ticket, kind, what, since, list(ranked)))

        if setting.refresh_s and setting.together:
            push(setting.refresh_s, _REFRESH, -1)
        elif setting.refresh_s:
            for server in range(count):
                push(rng.random() * setting.refresh_s, _REFRESH, server)
        push(rng.expovariate(rate), _ARRIVE)
        while heap:
            now, _, kind, what, since, ranked = heapq.heappop(heap)
            if kind == _REFRESH:
                for server in range(count) if what < 0 else (what,):
                    self.entries[server] = self.fresh(server, now)
                    if setting.own:
                        for own in self._own:
                            own.pop(server, None)
                if arrived < setting.requests:
                    push(now + setting.refresh_s, _REFRESH, what)
            elif kind == _ARRIVE:
                arrived += 1
                if arrived < setting.requests:
                    push(now + rng.expovariate(rate), _ARRIVE)
                client = rng.randrange(setting.clients)
                placed = policy(self, client, now)
                if isinstance(placed, int):
                    self._place(placed, client, now, now)
                else:
                    self.outcome.probes += 1
                    push(now + PROBE_S / 2, _ASKED, client, now, placed)
            elif kind == _ASKED:
                asked = ranked[0].provider
                load = self.in_flight(self.places[asked], now)
                push(now + PROBE_S / 2, _PLACE, what, since, reconsider(ranked, {asked: load}))
            else:
                self._place(self.places[ranked[0].provider], what, now, since)
        times = self.outcome.times
        del times[: len(times) // 10]
        return self.outcome

    def _place(self, server: int, client: int, now: float, since: float) -> None:
        queue = self._queues[server]
        start = queue[-1] if self.in_flight(server, now) else now
        end = start + self.rng.expovariate(1.0) / self.setting.speeds[server]
        queue.append(end)
        if self.setting.own:
            self._own[client].setdefault(server, []).append(end)
        self.outcome.times.append(end - since)


# Policies -------------------------------------------------------------------------------------------------------------


def by(rule: Rule, probe: bool = False) -> Policy:
    """choose() over all signals. probe: the first is asked how loaded it is before the request is placed."""

    def policy(farm: Farm, client: int, now: float) -> int | list[Choice]:
        own = farm.outstanding(client, now) if farm.setting.own else None
        ranked = choose(farm.entries, NEED, now, farm.rng, own, rule)
        return ranked if probe else farm.places[ranked[0].provider]

    return policy


def best_of(draws: int) -> Policy:
    """choose() over a few drawn at random, the least loaded first: the supermarket model when signals are fresh."""

    def policy(farm: Farm, client: int, now: float) -> int:
        places = farm.rng.sample(range(len(farm.peers)), draws)
        if farm.setting.refresh_s:
            entries = [farm.entries[place] for place in places]
        else:
            entries = [farm.fresh(place, now) for place in places]
        own = farm.outstanding(client, now) if farm.setting.own else None
        return farm.places[choose(entries, NEED, now, farm.rng, own, _by_load)[0].provider]

    return policy


def oracle(farm: Farm, client: int, now: float) -> int:
    """The shortest expected delay as it is now: nobody can know it."""
    entries = [farm.fresh(place, now) for place in range(len(farm.peers))]
    return farm.places[choose(entries, NEED, now, farm.rng, None, _soonest)[0].provider]


def _by_load(choices: Sequence[Choice], rng: Random) -> list[Choice]:
    return sorted(choices, key=lambda choice: choice.load)  # drawn at random: their order breaks ties


def _soonest(choices: Sequence[Choice], rng: Random) -> list[Choice]:
    return sorted(rng.sample(choices, len(choices)), key=lambda choice: choice.entry.signal.latency_s)


def prequal(probes: int) -> Policy:
    """Prequal: so many probes to random servers with each request, not waited for; their answers are at once there."""
    pools: dict[int, Probes] = {}

    def policy(farm: Farm, client: int, now: float) -> int:
        pool = pools.setdefault(client, Probes())
        provider = pool.take(now)
        pool.wither()
        for place in farm.rng.sample(range(len(farm.peers)), probes):
            load = farm.in_flight(place, now)
            pool.add(farm.peers[place], load, farm.latency_s(place, load), now)
            farm.outcome.probes += 1
        return farm.places[provider] if provider is not None else farm.rng.randrange(len(farm.peers))

    return policy
