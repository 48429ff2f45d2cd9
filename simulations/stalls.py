"""Nodes that stop for a while: an engine between the simulator and a node's own.

While it stalls nothing is handled. What arrives waits, and is handled in order when it goes on, after its own overdue
Tick: timers of a process that was stopped are due at once, and what came to its sockets has yet to be read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Generic

from swarmp2p.engine import Command, Engine, NetworkEvent, NetworkOutput, Output, Tick


class Stalls(Engine[Command, Output], Generic[Command, Output]):
    """A node's engine, stalled at planned times."""

    def __init__(self, engine: Engine[Command, Output]) -> None:
        self.engine = engine
        self._plan: list[tuple[float, float]] = []
        self._waiting: list[NetworkEvent | Command] = []
        self._resume = 0.0

    def plan(self, begin: float, end: float) -> None:
        """Stall between two times; each later than those planned before."""
        assert begin < end
        assert not self._plan or self._plan[-1][1] <= begin
        self._plan.append((begin, end))

    def stalled_since(self, since: float, now: float) -> bool:
        """Whether it stalled at any moment between these."""
        return any(begin <= now and end >= since for begin, end in self._plan)

    def handle(self, event: NetworkEvent | Command, now: float) -> Sequence[NetworkOutput | Output]:
        until = self._until(now)
        if until > now:
            if not isinstance(event, Tick):
                self._waiting.append(event)
                self._resume = until
            return ()
        out: list[NetworkOutput | Output] = []
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            if self.engine.deadline() <= now:
                out += self.engine.handle(Tick(), now)
            for each in waiting:
                out += self.engine.handle(each, now)
        if not isinstance(event, Tick) or self.engine.deadline() <= now:
            out += self.engine.handle(event, now)
        return out

    def deadline(self) -> float:
        due = min(self.engine.deadline(), self._resume) if self._waiting else self.engine.deadline()
        for begin, end in self._plan:
            if begin <= due < end:
                return end
            if begin > due:
                break
        return due

    def _until(self, now: float) -> float:
        """When the stall that it is in ends; `now` or earlier for none."""
        place = bisect_right(self._plan, (now, float("inf"))) - 1
        return self._plan[place][1] if place >= 0 else now
