"""Runs one engine under trio: events as they come, one queue of commands, one timer, one loop.

What the network delivers is handled at once, in the task that brought it: reading from a connection goes as fast as
the engine takes what was read, and no task has to be woken for a message. The loop takes the rest: a Tick when
`deadline()` has come, what the network delivered while another event was being handled, then the application's
commands. Each goes through `handle`, whose outputs are carried out at
once. No protocol rule is here: what would need a unit test belongs into an engine.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, cast

import trio

from .engine import (
    Command,
    Disconnect,
    Engine,
    Introduce,
    NetworkEvent,
    NetworkOutput,
    Output,
    Protect,
    Send,
    Serve,
    Tick,
)
from .errors import SwarmError
from .scopes import TaskStatus, background_nursery, cancel_scope, start
from .transport.network import Network

_MAX_COMMANDS: Final = 65_536
# Unix time this far ahead of engine time means that the machine slept; less may be a clock being corrected.
_SLEPT_S: Final = 10.0
# Commands handled before other tasks get a turn: writers then send what these produced in few large writes.
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
        self._events: deque[NetworkEvent] = deque()  # from the network, in its order
        self._handling = False
        self._deadline = engine.deadline()  # as of the last event: nothing else changes it
        self._bug: BaseException | None = None
        self._news = trio.Event()
        self._timer = cancel_scope()  # of the loop, while it waits
        self._timer_at = math.inf  # the deadline that it is set to, in engine time
        self._host: tuple[trio.lowlevel.TrioToken, trio.abc.Clock] | None = None  # of the run
        self._offset: float | None = None  # engine time minus trio's time
        self._latest = 0.0

    def now(self) -> float:
        """The engine's time: Unix time when first asked, then as trio's monotonic clock goes. In trio's thread.

        The monotonic clock stands still while a machine sleeps. Engine time then catches up with Unix time:
        others would take everything signed here for expired, and this peer everything of theirs for forged.
        """
        try:
            monotonic = trio.current_time()
        except RuntimeError:  # a plain call between two turns of a run that is a guest (aio)
            if self._host is None:
                raise
            monotonic = self._host[1].current_time()
        offset = self._clock() - monotonic
        if self._offset is None or offset - self._offset > _SLEPT_S:
            self._offset = offset
        self._latest = max(self._latest, monotonic + self._offset)
        return self._latest

    def post(self, command: Command) -> None:
        """Hand a command to the engine, which takes it soon, in the order they were posted. Never blocks. In trio's
        thread.

        Raises Overloaded when too many wait.
        """
        if len(self._commands) >= _MAX_COMMANDS:
            raise Overloaded(
                f"{_MAX_COMMANDS} commands wait for the engine; this one was not taken: post slower"
            )
        self._commands.append(command)
        if self._host is None or cast(Any, trio.lowlevel).in_trio_run():
            self._news.set()
        else:
            try:
                self._host[0].run_sync_soon(self._wake)
            except trio.RunFinishedError:
                pass  # nobody takes commands any more

    def _wake(self) -> None:
        self._news.set()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled. task_status.started() is called once the network can be reached.

        Raises what the network raises when it cannot start (ListenError), as itself.
        """
        self._host = trio.lowlevel.current_trio_token(), trio.lowlevel.current_clock()
        async with background_nursery() as nursery:
            await start(nursery, self._run_network)
            task_status.started()
            await self._loop()

    async def _run_network(self, *, task_status: TaskStatus[None]) -> None:
        await self._network.run(self._deliver, task_status=task_status)

    def _deliver(self, event: NetworkEvent) -> None:
        """Have an event from the network handled now. Never raises: a bug of the engine's ends the loop.

        What the network delivers while an event is being handled waits: for the next event to be delivered, or for
        the loop. None overtakes another.
        """
        if self._bug is not None:
            return
        self._events.append(event)
        if self._handling:
            self._news.set()
            return
        try:
            now = self.now()
            if self._deadline <= now:
                self._handle(Tick(), now)
            for _ in range(len(self._events)):
                self._handle(self._events.popleft(), now)
        except BaseException as bug:  # noqa: BLE001 - whatever it is, the loop raises it
            self._bug = bug
            self._news.set()
            return
        if self._deadline < self._timer_at:
            self._set_timer()

    async def _loop(self) -> None:
        while True:
            for _ in range(_BATCH):
                if self._bug is not None:
                    raise self._bug
                event = self._next()
                if event is None:
                    await self._wait()
                    break
                self._handle(event, self._latest)
            else:
                await trio.lowlevel.checkpoint()

    def _next(self) -> NetworkEvent | Command | None:
        """What is to be handled now, or None when there is nothing."""
        if self._deadline <= self.now():
            return Tick()
        if self._events:
            return self._events.popleft()
        return self._commands.popleft() if self._commands else None

    async def _wait(self) -> None:
        """Until there is something to do, or the deadline has come."""
        if self._news.is_set():
            self._news = trio.Event()
            if self._commands or self._events or self._bug is not None:
                return
        with cancel_scope() as self._timer:
            self._set_timer()
            await self._news.wait()
        if self._timer.cancelled_caught:
            # The difference of two large floats may fall short of the deadline by its last digit.
            self._latest = max(self._latest, self._timer_at)

    def _set_timer(self) -> None:
        assert self._offset is not None
        self._timer_at = self._deadline
        self._timer.deadline = self._deadline - self._offset

    def _handle(self, event: NetworkEvent | Command, now: float) -> None:
        self._handling = True
        try:
            for output in self._engine.handle(event, now):
                self._carry_out(output)
        finally:
            self._handling = False
        self._deadline = self._engine.deadline()
        if isinstance(event, Tick):
            assert self._deadline > now, f"{self._engine!r} did not move its deadline past a due Tick"

    def _carry_out(self, output: NetworkOutput | Output) -> None:
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
