"""A pool of things that take a while to make: a few are made ahead of time, and others in the background when they go.

    async with pool.take(key) as thing:   # None when none of that key is there or being made: the caller makes one
        ...

What it is filled with follows what was asked for last: of so many requests, one thing each. Something that nobody asked
for lately makes room. One thing at a time is made, and only when nobody has taken any for a while (REST_S), for whoever
took one is busy with it just then. One that ends by itself is replaced; when making fails, it is tried again later and
later. A taken thing is ended when its context is left; all are when the pool is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

import trio

from ..errors import SwarmError
from ..scopes import TaskStatus, cancel_scope

REST_S: Final = 1.0
"""Seconds after the last request before more is made. A worker's start takes 0.5 s, more on a busy machine."""

PATIENCE_S: Final = 5.0
"""Seconds that one is waited for that is being made. On two idle cores it takes 0.7 s."""

AGAIN_S: Final = 5.0
MOST_AGAIN_S: Final = 300.0
"""Seconds until making is tried again after a failure: doubled each time, up to this."""


class Thing(Protocol):
    """What a pool holds."""

    async def died(self) -> str:
        """Until it has ended by itself. Returns why."""
        ...


K = TypeVar("K", bound=Hashable)
T = TypeVar("T", bound=Thing)


@dataclass(slots=True, eq=False)
class _Entry(Generic[K, T]):
    """thing: once it is made, unless that failed. taken: somebody has it, or waits for it. leave: cancels its keeper,
    who ends it; over: that is done."""

    key: K
    leave: trio.CancelScope = field(default_factory=cancel_scope)
    made: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)
    thing: T | None = None
    taken: bool = False


class Pool(Generic[K, T]):
    """See the module. `run` owns what is in it."""

    def __init__(
        self,
        size: int,
        make: Callable[[K], AbstractAsyncContextManager[T]],
        first: K,
        rest_s: float = REST_S,
    ) -> None:
        """size: things that wait, at most; those taken come on top. make: raises SwarmError or OSError when it cannot.
        first: what is asked for, probably."""
        self._make, self._rest_s = make, rest_s
        self._size = size
        self._asked: deque[K] = deque([first] * size, maxlen=size)
        self._entries: list[_Entry[K, T]] = []
        self._not_before = float("-inf")
        self._again_s = AGAIN_S
        self._changed = trio.Event()
        self.problem: str | None = None
        """Why the last one could not be made; None when it could."""

    @property
    def ready(self) -> int:
        """How many wait."""
        return sum(each.thing is not None and not each.taken for each in self._entries)

    @asynccontextmanager
    async def take(self, key: K) -> AsyncGenerator[T | None, None]:
        """Have one for the length of the context, that waits or is being made; None at once if there is none."""
        self._asked.append(key)
        self._not_before = max(self._not_before, trio.current_time() + self._rest_s)
        self._wake()
        free = [each for each in self._wanted() if each.key == key]
        free = [
            each for each in free if each.thing is not None or not each.made.is_set()
        ]  # not one that ends
        for entry in sorted(free, key=lambda each: each.thing is None):
            entry.taken = True
            try:
                with trio.move_on_after(PATIENCE_S):
                    await entry.made.wait()
                yield entry.thing
            finally:
                entry.leave.cancel()
                with cancel_scope(shield=True):
                    await entry.over.wait()
            return
        yield None

    async def until_ready(self, count: int = 1) -> None:
        """Wait until so many wait."""
        while self.ready < count:
            await self._changed.wait()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the pool filled until cancelled; all that is in it is ended before this returns."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                changed = self._changed
                missing = self._missing()
                for spare in self._spare():
                    spare.leave.cancel()
                wait_s = self._not_before - trio.current_time()
                if missing is None:
                    await changed.wait()
                elif wait_s > 0:
                    with trio.move_on_after(wait_s):
                        await changed.wait()
                else:
                    entry: _Entry[K, T] = _Entry(missing)
                    self._entries.append(entry)
                    nursery.start_soon(self._keep, entry)
                    await entry.made.wait()

    def _wanted(self) -> list[_Entry[K, T]]:
        """The entries that wait, or will, as far as they have been asked for."""
        return [each for each in self._entries if not each.taken and not each.leave.cancel_called]

    def _missing(self) -> K | None:
        """What was asked for last, and is not there."""
        there = [each.key for each in self._wanted()]
        for key in reversed(self._asked):
            if key not in there:
                return key
            there.remove(key)
        return None

    def _spare(self) -> list[_Entry[K, T]]:
        """What is there, and was not asked for."""
        asked, spare = list(self._asked), list[_Entry[K, T]]()
        for entry in self._wanted():
            if entry.key in asked:
                asked.remove(entry.key)
            else:
                spare.append(entry)
        return spare

    async def _keep(self, entry: _Entry[K, T]) -> None:
        """One thing, from its making to its end."""
        try:
            with entry.leave:
                async with self._make(entry.key) as thing:
                    entry.thing, self.problem, self._again_s = thing, None, AGAIN_S
                    entry.made.set()
                    self._wake()
                    reason = await thing.died()
                    if entry.taken:
                        await trio.sleep_forever()  # who has it sees its end
                    entry.thing = None
                    self._failed(reason)
        except* (SwarmError, OSError) as problems:
            entry.thing = None
            self._failed(str(first_of(problems)))
        finally:
            self._entries.remove(entry)
            entry.made.set()
            entry.over.set()
            self._wake()

    def _failed(self, reason: str) -> None:
        self.problem = reason
        self._not_before = max(self._not_before, trio.current_time() + self._again_s)
        self._again_s = min(2 * self._again_s, MOST_AGAIN_S)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def first_of(problem: BaseException) -> BaseException:
    """The first of what may be groups of groups."""
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    return problem
