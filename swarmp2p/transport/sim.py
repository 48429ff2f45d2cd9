"""The simulator: any number of engines, one thread, virtual time.

The engines are the very ones that run over libp2p; only clock, network and application are replaced.

*Network.* Messages travel unencoded. As over libp2p, a peer is dialled on the first Send to it, which takes
`dial_rtts` round trips; both sides then get PeerUp, and the messages that waited follow. Dialling needs an
address from Introduce or from an earlier connection, and the target must listen there: otherwise the Send
comes back as PeerDown. Messages of one direction of a connection arrive in order. Disconnect and crashes
end connections, and what was under way to the side that closed is lost. A Link that loses messages, or is
cut, closes no connection.

*Chance.* What is random in the network is drawn from `random_for(seed, "link")`; scenarios take other
purposes for their own, so that one does not disturb another. Nothing depends on PYTHONHASHSEED:
`trace_hash` tells whether two runs were the same.
"""

from __future__ import annotations

import gc
import math
from array import array
from bisect import insort_right
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from heapq import heappush
from random import Random
from typing import Any, Final, Generic
from zlib import crc32

from ..engine import (
    Address,
    Command,
    Disconnect,
    Engine,
    Introduce,
    NetworkEvent,
    Output,
    Protect,
    Received,
    Send,
    Serve,
    Tick,
)
from ..errors import SwarmError, UsageError
from ..identity import PeerId
from ..peer_record import seal_record
from .link import Link
from .sim_network import Call, SimNetwork, SimulatorConfig
from .sim_node import Node
from .sim_peers import sim_address, sim_sign
from .sim_queue import SLOTS_PER_S, Entry, EventQueue, time_of

__all__ = ["BrokenPromise", "Simulator", "SimulatorConfig", "random_for"]

_TICK: Final = Tick()
_TRACE_BATCH: Final = 512


class BrokenPromise(SwarmError):
    """An engine did what no engine may do; the simulation cannot go on."""


def random_for(seed: int, purpose: str) -> Random:
    """The random source for one purpose in a simulation, independent of those for others."""
    return Random(f"{seed}/{purpose}")  # a str is hashed with SHA-512, the same in each process


class Simulator(Generic[Command, Output]):
    """Runs engines in virtual time.

    seed: of everything random in the network. link: the fate of each message. on_output: called with (time,
    peer, output) for each output that is not for the network; it may post, call, add and crash.

    now: virtual seconds, from 0.
    """

    def __init__(
        self,
        seed: int,
        link: Link,
        on_output: Callable[[float, PeerId, Output], None],
        config: SimulatorConfig | None = None,
    ) -> None:
        self.now = 0.0
        self.seed, self.link, self.on_output = seed, link, on_output
        self._rng = random_for(seed, "link")
        self._queue = EventQueue()
        self._config = config or SimulatorConfig()
        self._network = SimNetwork(self._config, link, self._rng, self._queue)
        self._handled = 0
        self._added = 0
        self._running = False
        self._untraced: list[Entry] = []
        # Of times, ends and kinds, each by itself: so it does not matter where batches end.
        self._trace = blake2b(), blake2b(), blake2b()
        self._counts: Counter[type[object]] = Counter()
        self._kinds: dict[type[object], int] = {}

    # What a scenario does -----------------------------------------------------------------------------------

    def add(
        self,
        peer: PeerId,
        engine: Engine[Command, Output],
        *,
        addresses: tuple[Address, ...] | None = None,
        source: Address | None = None,
    ) -> None:
        """Start a peer. addresses: where it listens; by default a made-up one, () when nobody can dial it.
        source: where its connections come from, as those see it whom it dials (PeerUp.remote); by default its first
        address, else a made-up one. Peers may share one: they run on one host then."""
        if peer in self._network.nodes:
            raise UsageError(f"{peer} runs already; crash it first, or add another peer")
        self._added += 1
        if addresses is None:
            addresses = (sim_address(self._added),)
        if source is None:
            source = addresses[0] if addresses else sim_address(self._added)
        node = Node(peer, self._added, engine, addresses, source)
        if self._config.signed_records and addresses:
            node.record = seal_record(peer, addresses, self._added, sim_sign(peer))
        self._network.nodes[peer] = node
        self._schedule_tick(node, engine.deadline())

    def crash(self, peer: PeerId, notice_s: float | None = None) -> None:
        """Stop a peer without a word; `add` may start it again, with a new engine.

        notice_s: seconds until those connected get PeerDown. None: one link delay, as when a process is
        killed and its system closes the sockets; a machine that loses power is only noticed by its silence.
        """
        self._network.crash(self._node(peer), self.now, notice_s)

    def connect(self, peer: PeerId, to: PeerId) -> None:
        """Have `peer` connect to another that runs, at once and without a dial: for a network that stands already
        when the scenario begins. Nothing happens when they are connected."""
        self._network.connect_now(self._node(peer), self._node(to), self.now)

    def post(self, peer: PeerId, event: NetworkEvent | Command, delay: float = 0.0) -> None:
        """Hand an event to a peer's engine `delay` seconds from now, unless it has crashed by then."""
        self._queue.push(self._time(delay), self._node(peer).here, event)

    def call(self, action: Callable[[], None], delay: float = 0.0) -> None:
        """Call the scenario back `delay` seconds from now: to add, crash, post or measure."""
        self._queue.push(self._time(delay), self._network.here, Call(action))

    def run(self, until: float) -> None:
        """Work off everything up to and including the time `until`, which is then `now`."""
        if self._running:
            raise UsageError("the simulator runs already: on_output and calls cannot run it themselves")
        if until < self.now:
            raise UsageError(f"it is {self.now} s already; time cannot go back to {until} s")
        # Engines make no cycles worth collecting, and the collector would walk over all of them again and
        # again: with 10,000 engines it took half of the time.
        collecting = gc.isenabled()
        gc.disable()
        self._running = True
        try:
            while (bucket := self._queue.open_next(until)) is not None:
                try:
                    self._work_off(bucket, self._queue.open_slot, until)
                finally:
                    self._untraced += self._queue.close(until)
                if len(self._untraced) > _TRACE_BATCH:
                    self._record()
            if until < math.inf:
                self.now = until
        finally:
            self._running = False
            if collecting:
                gc.enable()

    # What a scenario looks at -------------------------------------------------------------------------------

    @property
    def peers(self) -> tuple[PeerId, ...]:
        """The peers that run, in the order in which they were added."""
        return tuple(self._network.nodes)

    def engine(self, peer: PeerId) -> Engine[Command, Output]:
        """The engine of a peer that runs."""
        return self._node(peer).engine

    def addresses(self, peer: PeerId) -> tuple[Address, ...]:
        """Where a peer listens."""
        return self._node(peer).addresses

    def connected(self, peer: PeerId) -> tuple[PeerId, ...]:
        """The peers that a peer is connected to, in the order in which the connections were made."""
        return tuple(self._node(peer).up)

    @property
    def events(self) -> int:
        """Events handed to engines so far. (This and the other counters are exact between runs.)"""
        return self._handled - self._network.handled

    @property
    def sent(self) -> int:
        """Messages sent so far over connections, lost ones included."""
        return self._network.sent

    @property
    def lost(self) -> int:
        """Messages lost so far: by the link, or because too many waited for a dial."""
        return self._network.lost

    @property
    def dials(self) -> int:
        """Dials so far."""
        return self._network.dials

    @property
    def counts(self) -> dict[str, int]:
        """How many of each kind were worked off so far: class names of messages, other events and
        commands."""
        self._record()
        names: Counter[str] = Counter()
        for kind, count in self._counts.items():
            names[kind.__name__] += count
        return {name: names[name] for name in sorted(names)}

    @property
    def trace_hash(self) -> str:
        """A hash over time, sender, target and kind of everything worked off so far, in order."""
        self._record()
        return blake2b(b"".join(part.digest() for part in self._trace), digest_size=16).hexdigest()

    # Inside -------------------------------------------------------------------------------------------------

    def _work_off(self, bucket: list[Entry], slot: int, until: float) -> None:
        """Hand the entries of a sorted bucket to their engines.

        The hot loop: it has EventQueue.push inlined and keeps what it can in locals.
        """
        queue, network, rng = self._queue, self._network, self._rng
        buckets, slots, delay_of = queue.buckets, queue.slots, self.link.delay
        handled = sent = lost = 0
        now, target, event = self.now, network.here.target, None
        output: Any
        try:
            # New entries of this bucket are inserted behind the current one, whose time they cannot precede.
            for now, edge, event in bucket:
                if now > until:
                    break
                if not edge.open:
                    continue
                target = edge.target
                engine = target.engine
                self.now = now
                if event is _TICK:
                    if now != target.tick_at:
                        continue
                    target.tick_at = math.inf
                    due = engine.deadline()
                    if due > now:  # it has moved since
                        self._schedule_tick(target, due)
                        continue
                handled += 1
                source, up = target.peer, target.up
                message = received = None
                for output in engine.handle(event, now):
                    kind = output.__class__
                    if kind is Send:
                        out = up.get(output.to)
                        if out is None:
                            network.dial(target, output.to, output.message, now)
                            continue
                        sent += 1
                        if out.target.refused and network.refuse(target, out, output.message, now):
                            continue
                        delay = delay_of(now, source, output.to, rng)
                        if delay is None:
                            lost += 1
                            continue
                        arrival = now + delay
                        if arrival > out.last:
                            out.last = arrival
                        else:
                            arrival = out.last
                        if message is not output.message:  # one Received serves all it is sent to
                            message = output.message
                            received = Received(source, message)
                        at = int(arrival * SLOTS_PER_S)
                        waiting = buckets.get(at)
                        if waiting is not None:
                            waiting.append((arrival, out, received))
                        elif at == slot:
                            insort_right(bucket, (arrival, out, received), key=time_of)
                        else:
                            buckets[at] = [(arrival, out, received)]
                            heappush(slots, at)
                    elif kind is Introduce:
                        network.introduce(target, output)
                    elif kind is Disconnect:
                        network.disconnect(target, output.peer, now)
                    elif kind is Protect:
                        pass  # connections cost nothing here: all of them are kept
                    elif kind is Serve:
                        network.serve(target, output, now)
                    else:
                        self.on_output(now, source, output)
                due = engine.deadline()
                if due < target.tick_at:
                    if event is _TICK and due <= now:
                        raise BrokenPromise(f"a due Tick must move the deadline past now, it stands at {due}")
                    self._schedule_tick(target, due)
        except Exception as problem:
            where = f"at {target.peer}" if target is not network.here.target else "in the network"
            problem.add_note(f"simulation with seed {self.seed}: at {now} s, {where}, event {event!r}")
            raise
        finally:
            self._handled += handled
            network.sent += sent
            network.lost += lost

    def _schedule_tick(self, node: Node, due: float) -> None:
        if due < node.tick_at:
            node.tick_at = max(due, self.now)
            self._queue.push(node.tick_at, node.here, _TICK)

    def _record(self) -> None:
        """Add what was worked off to the trace, in batches: three times as fast as one by one."""
        entries = self._untraced
        kinds = [
            event.message.__class__ if event.__class__ is Received else event.__class__
            for _, _, event in entries
        ]
        self._counts.update(kinds)
        for kind in self._counts.keys() - self._kinds.keys():
            self._kinds[kind] = crc32(kind.__qualname__.encode())
        times, ends, kind_numbers = self._trace
        times.update(array("d", [time for time, _, _ in entries]))
        ends.update(array("Q", [edge.code for _, edge, _ in entries]))
        kind_numbers.update(array("I", [self._kinds[kind] for kind in kinds]))
        entries.clear()

    def _time(self, delay: float) -> float:
        if not 0.0 <= delay < math.inf:
            raise UsageError(f"a delay is 0 or more seconds, not {delay}; nothing was scheduled")
        return self.now + delay

    def _node(self, peer: PeerId) -> Node:
        try:
            return self._network.nodes[peer]
        except KeyError:
            raise UsageError(f"no peer {peer} runs in this simulation; add it first") from None
