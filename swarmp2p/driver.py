"""Runs one engine under trio: one inbox, one timer, one loop.

The loop takes what is due first: a Tick when `deadline()` has come, then the application's commands, then
events from the network; each goes through `handle`, whose outputs are carried out at once. No protocol rule
is here: what would need a unit test belongs into an engine.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final, Generic

import trio

from .engine import (
    Command,
    Disconnect,
    Engine,
    Introduce,
    NetworkEvent,
    Output,
    Protect,
    Send,
    Serve,
    Tick,
)
from .errors import SwarmError
from .scopes import TaskStatus, background_nursery, start
from .transport.network import Network

_MAX_EVENTS: Final = 256
_MAX_COMMANDS: Final = 65_536
# Unix time this far ahead of engine time means that the machine slept; less may be a clock being corrected.
_SLEPT_S: Final = 10.0
# Events handled before other tasks get a turn: writers then send what these produced in few large writes.
_BATCH: Final = 32


class Overloaded(SwarmError):
    """65,536 commands wait already; this one was not taken. Find out what holds the loop up."""


def _ignore(output: object) -> None:
    del output


class Driver(Generic[Command, Output]):
    """One engine over one network.

    engine, network: both belong to this driver from now on. on_output: called, in the loop, with each output
    that is not for the network; it must not block, and what it raises ends the run. It may be set until `run`
    starts. clock: Unix time in seconds.

    Events from the network wait in a queue of 256; when it is full, `deliver` waits, and so do the senders.
    An exception from the engine is a bug: it leaves `run`, and with it the peer ends.
    """

    def __init__(
        self,
        engine: Engine[Command, Output],
        network: Network,
        on_output: Callable[[Output], None] = _ignore,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.on_output = on_output
        self._engine = engine
        self._network = network
        self._clock = clock
        self._commands: deque[Command] = deque()
        self._events: deque[NetworkEvent] = deque()
        self._news = trio.Event()
        self._room = trio.lowlevel.ParkingLot()
        self._offset: float | None = None  # engine time minus trio's time
        self._latest = 0.0

    def now(self) -> float:
        """The engine's time: Unix time when first asked, then as trio's monotonic clock goes. Within trio.

        The monotonic clock stands still while a machine sleeps. Engine time then catches up with Unix time:
        others would take everything signed here for expired, and this peer everything of theirs for forged.
        """
        monotonic = trio.current_time()
        offset = self._clock() - monotonic
        if self._offset is None or offset - self._offset > _SLEPT_S:
            self._offset = offset
        self._latest = max(self._latest, monotonic + self._offset)
        return self._latest

    def post(self, command: Command) -> None:
        """Hand a command to the engine, which takes it soon, before anything from the network. Never blocks.

        Raises Overloaded when too many wait.
        """
        if len(self._commands) >= _MAX_COMMANDS:
            raise Overloaded(
                f"{_MAX_COMMANDS} commands wait for the engine; this one was not taken: post slower"
            )
        self._commands.append(command)
        self._news.set()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled. task_status.started() is called once the network can be reached.

        Raises what the network raises when it cannot start (ListenError), as itself.
        """
        async with background_nursery() as nursery:
            await start(nursery, self._run_network)
            task_status.started()
            await self._loop()

    async def _run_network(self, *, task_status: TaskStatus[None]) -> None:
        await self._network.run(self._deliver, task_status=task_status)

    async def _deliver(self, event: NetworkEvent) -> None:
        while len(self._events) >= _MAX_EVENTS:
            await self._room.park()
        self._events.append(event)
        self._news.set()

    async def _loop(self) -> None:
        while True:
            for _ in range(_BATCH):
                event = self._next()
                if event is None:
                    await self._wait()
                    break
                self._handle(event)
            else:
                await trio.lowlevel.checkpoint()

    def _next(self) -> NetworkEvent | Command | None:
        """What is to be handled now, or None when there is nothing."""
        if self._engine.deadline() <= self.now():
            return Tick()
        if self._commands:
            return self._commands.popleft()
        if self._events:
            self._room.unpark()
            return self._events.popleft()
        return None

    async def _wait(self) -> None:
        """Until something is in the inbox, or the deadline has come."""
        if self._news.is_set():
            self._news = trio.Event()
            if self._commands or self._events:
                return
        deadline = self._engine.deadline()
        assert self._offset is not None
        with trio.move_on_at(deadline - self._offset) as timer:
            await self._news.wait()
        if timer.cancelled_caught:
            # The difference of two large floats may fall short of the deadline by its last digit.
            self._latest = max(self._latest, deadline)

    def _handle(self, event: NetworkEvent | Command) -> None:
        now = self.now()
        outputs = self._engine.handle(event, now)
        for output in outputs:
            if isinstance(output, Send):
                self._network.send(output.to, output.message)
            elif isinstance(output, Introduce):
                self._network.introduce(output.peer, output.addresses)
            elif isinstance(output, Disconnect):
                self._network.disconnect(output.peer)
            elif isinstance(output, Serve):
                self._network.serve(output.protocol, output.serving)
            elif isinstance(output, Protect):
                self._network.protect(output.peer, output.protected)
            else:
                self.on_output(output)
        if isinstance(event, Tick):
            assert self._engine.deadline() > now, (
                f"{self._engine!r} did not move its deadline past a due Tick"
            )
