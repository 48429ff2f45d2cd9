"""Who comes and goes: slots whose peers run for a session, crash, and are back after a pause.

Sessions and pauses are Weibull: many short, some very long (Stutzbach & Rejaie, "Understanding churn in
peer-to-peer networks", 2006, found shapes of .34 to .59). A slot that comes back has an empty state and, half of the
time, another id. Half of the crashes are killed processes, whose connections close at once; the others are
machines that are gone, which those connected notice by their silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from swarmp2p.identity import PeerId
from swarmp2p.transport.sim_peers import sim_peer

from .swarm import DhtSwarm


@dataclass(frozen=True, slots=True)
class ChurnConfig:
    """How peers come and go. Times in seconds.

    shape, session_s: of the Weibull distribution of sessions; its scale, not its mean: 42 min and .5 mean 84 min,
    and half of the sessions are shorter than 20 min. pause_factor: how much longer pauses are; 2, so that three
    slots are needed for each churning peer that runs. new_id: share of returns under another id. silent: share of
    crashes that nobody is told of. notice_s: until the silence of a connection is noticed; 35 s, since our transport
    asks after 15 s and closes after 15 more, looking every 5 (transport/config.py). history_s: for how long slots
    have come and gone before the beginning, so that long sessions are as frequent as later.
    """

    shape: float = 0.5
    session_s: float = 42 * 60.0
    pause_factor: float = 2.0
    new_id: float = 0.5
    silent: float = 0.5
    notice_s: float = 35.0
    history_s: float = 7 * 86_400.0

    @property
    def mean_session_s(self) -> float:
        """The mean of the Weibull distribution."""
        return self.session_s * math.gamma(1.0 + 1.0 / self.shape)

    def session(self, rng: Random) -> float:
        """How long a peer runs."""
        return rng.weibullvariate(self.session_s, self.shape)

    def pause(self, rng: Random) -> float:
        """How long it is away."""
        return rng.weibullvariate(self.session_s * self.pause_factor, self.shape)


@dataclass(slots=True)
class Slot:
    """One that comes and goes. peer: its present or last id. up: whether it runs. until: when that changes."""

    peer: PeerId
    up: bool
    until: float


class Churn:
    """Starts and crashes the peers of some slots.

    slots: how many; 1 / (1 + pause_factor) of them run at a time. first_peer: number of the first of their ids. on_up:
    called with a slot when its peer has been started, to make it join. on_down: when it has crashed.

    crashes, returns: counts.
    """

    def __init__(
        self,
        swarm: DhtSwarm,
        config: ChurnConfig,
        slots: int,
        first_peer: int,
        on_up: Callable[[Slot], None],
        on_down: Callable[[Slot], None],
    ) -> None:
        self._swarm, self._config, self._next_peer = swarm, config, first_peer
        self._on_up, self._on_down = on_up, on_down
        self.crashes = self.returns = 0
        self.slots = [self._slot() for _ in range(slots)]

    def begin(self, interval_s: float) -> None:
        """Start those that run, one after the other, and from then on let them come and go."""
        starting = 0
        for slot in self.slots:
            delay = 0.0
            if slot.up:
                delay = starting * interval_s
                starting += 1
                self._swarm.sim.call(partial(self._start, slot), delay)
            self._later(slot, delay + slot.until)

    def _slot(self) -> Slot:
        """A slot as it is found after a long time of coming and going."""
        config, rng = self._config, self._swarm.rng
        until, up = -config.history_s, rng.random() < 1.0 / (1.0 + config.pause_factor)
        while True:
            until += config.session(rng) if up else config.pause(rng)
            if until > 0.0:
                return Slot(self._new_id(), up, until)
            up = not up

    def _new_id(self) -> PeerId:
        self._next_peer += 1
        return sim_peer(self._next_peer - 1)

    def _later(self, slot: Slot, delay: float) -> None:
        self._swarm.sim.call(lambda: self._change(slot), delay)

    def _start(self, slot: Slot) -> None:
        self._swarm.start(slot.peer)
        self._on_up(slot)

    def _change(self, slot: Slot) -> None:
        config, swarm = self._config, self._swarm
        rng = swarm.rng
        slot.up = not slot.up
        if slot.up:
            self.returns += 1
            if rng.random() < config.new_id:
                slot.peer = self._new_id()
            self._start(slot)
            self._later(slot, config.session(rng))
        else:
            self.crashes += 1
            swarm.sim.crash(slot.peer, config.notice_s if rng.random() < config.silent else None)
            self._on_down(slot)
            self._later(slot, config.pause(rng))
