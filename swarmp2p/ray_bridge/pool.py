"""A pool of things that take a while to make: a few are made ahead of time, and others in the background when they go.

    async with pool.take(key) as thing:   # None when none could be made lately: the caller does without
        ...

What it is filled with follows what was asked for last: of so many requests, one thing each. Something that nobody asked
for lately makes room. It keeps `least` of them; or, for a while (KEEP_S), as many as were taken within BURST_S, up to
`most`, and none is made beyond `least` that could not be taken.

One thing at a time is made ahead, and only when nobody waits for one or has taken any for a while (REST_S), for whoever
took one is busy with it just then. Whoever finds none that is ready or in the making has one made for himself. One that
ends by itself is replaced; when making fails, it is tried again later and later. A taken thing is ended when its
context is left; all are when the pool is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Final, Generic, Protocol, TypeVar

import trio

from ..errors import SwarmError
from ..scopes import TaskStatus, cancel_scope, first_of

REST_S: Final = 1.0
"""Seconds after the last request before more is made. A worker's start takes 0.5 s, more on a busy machine."""

PATIENCE_S: Final = 20.0
"""Seconds that one is waited for that is being made. On two idle cores it takes 0.7 s; eight at a time take 6 s, and to
do without takes longer still. What fails is not waited for, so that this is for what hangs."""

BURST_S: Final = 5.0
"""Seconds within which those that are taken should all have been ready: what it takes to rest and make two."""

KEEP_S: Final = 600.0
"""Seconds after which it is forgotten that so many were taken at a time."""

AGAIN_S: Final = 5.0
MOST_AGAIN_S: Final = 300.0
"""Seconds until making is tried again after a failure: doubled each time, up to this."""


class Thing(Protocol):
    """What a pool holds."""

    async def died(self) -> str:
        """Until it has ended by itself. Returns why."""
        ...


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a pool. least: things that wait always; most: after many were taken at a time. total: with those that are
    taken there are so many of these at most. 0 of all: nothing is made."""

    least: int
    most: int
    total: int

    def __post_init__(self) -> None:
        assert 0 <= self.least <= self.most <= self.total


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
        sizes: Sizes,
        make: Callable[[K], AbstractAsyncContextManager[T]],
        first: K,
        rest_s: float = REST_S,
    ) -> None:
        """make: raises SwarmError or OSError when it cannot. first: what is asked for, probably."""
        self._sizes, self._make, self._rest_s = sizes, make, rest_s
        self._asked: deque[K] = deque([first] * sizes.most, maxlen=sizes.most)
        self._taken_at: deque[float] = deque(maxlen=sizes.most)
        self._keep_until = [float("-inf")] * sizes.most  # for the first that waits, the second, ...: falling
        self._entries: list[_Entry[K, T]] = []
        self._not_before = float("-inf")
        self._again_s = AGAIN_S
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None
        self.problem: str | None = None
        """Why the last one could not be made; None when it could."""

    @property
    def ready(self) -> int:
        """How many wait."""
        return sum(each.thing is not None and not each.taken for each in self._entries)

    @asynccontextmanager
    async def take(self, key: K) -> AsyncGenerator[T | None, None]:
        """Have one for the length of the context, that waits, is being made, or is made now; None if that fails."""
        self._asked.append(key)
        self._count()
        entry = self._free(key)
        if entry is None:
            self._wake()
            yield None
            return
        entry.taken = True
        self._wake()
        try:
            with trio.move_on_after(PATIENCE_S):
                await entry.made.wait()
            yield entry.thing
        finally:
            entry.leave.cancel()
            with cancel_scope(shield=True):
                await entry.over.wait()

    async def until_ready(self, count: int = 1) -> None:
        """Wait until so many wait."""
        while self.ready < count:
            await self._changed.wait()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the pool filled until cancelled; all that is in it is ended before this returns."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            try:
                while True:
                    changed = self._changed
                    for spare in self._spare():
                        spare.leave.cancel()
                    with trio.move_on_at(self._next()):
                        await changed.wait()
                    missing = self._missing()
                    rested = trio.current_time() >= self._not_before
                    if missing is not None and rested and not self._making():
                        self._start(missing)
            finally:
                self._nursery = None

    def _next(self) -> float:
        """When there is something to do, if nothing changes until then."""
        now = trio.current_time()
        forget = min((until for until in self._keep_until[self._sizes.least :] if until > now), default=inf)
        if self._missing() is None or self._making():
            return forget
        return min(forget, self._not_before)

    def _start(self, key: K) -> _Entry[K, T]:
        entry: _Entry[K, T] = _Entry(key)
        self._entries.append(entry)
        assert self._nursery is not None
        self._nursery.start_soon(self._keep, entry)
        return entry

    def _making(self) -> bool:
        return not all(each.made.is_set() for each in self._entries)

    def _free(self, key: K) -> _Entry[K, T] | None:
        """One that nobody has: ready, else being made, else made now; None when that failed lately."""
        free = [each for each in self._wanted() if each.key == key]
        free = [
            each for each in free if each.thing is not None or not each.made.is_set()
        ]  # not one that ends
        if free:
            return min(free, key=lambda each: each.thing is None)
        if self._nursery is None or self.problem is not None or not self._sizes.most:
            return None
        return self._start(key)

    def _count(self) -> None:
        """One more is asked for: how many should have been ready?"""
        now = trio.current_time()
        self._taken_at.append(now)
        burst = sum(at > now - BURST_S for at in self._taken_at)
        self._keep_until[:burst] = [now + KEEP_S] * burst
        self._rest()

    def _rest(self) -> None:
        self._not_before = max(self._not_before, trio.current_time() + self._rest_s)

    def _wished(self) -> list[K]:
        """What should wait now; what was asked for last comes first."""
        now = trio.current_time()
        burst = sum(until > now for until in self._keep_until)
        return list(self._asked)[::-1][: max(self._sizes.least, burst)]

    def _wanted(self) -> list[_Entry[K, T]]:
        """The entries that wait, or will, as far as they have been asked for."""
        return [each for each in self._entries if not each.taken and not each.leave.cancel_called]

    def _missing(self) -> K | None:
        """What was asked for last, and is not there."""
        there, taken = [each.key for each in self._wanted()], sum(each.taken for each in self._entries)
        for key in self._wished()[: max(self._sizes.least, self._sizes.total - taken)]:
            if key not in there:
                return key
            there.remove(key)
        return None

    def _spare(self) -> list[_Entry[K, T]]:
        """What is there, and was not asked for."""
        wished, spare = self._wished(), list[_Entry[K, T]]()
        for entry in self._wanted():
            if entry.key in wished:
                wished.remove(entry.key)
            else:
                spare.append(entry)
        return spare

    async def _keep(self, entry: _Entry[K, T]) -> None:
        """One thing, from its making to its end."""
        try:
            with entry.leave:
                async with self._make(entry.key) as thing:
                    entry.thing, self.problem, self._again_s = thing, None, AGAIN_S
                    if entry.taken:
                        self._rest()  # whoever waited for it starts now
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
