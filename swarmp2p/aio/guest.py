"""trio as a guest of an asyncio loop, in the loop's thread: how code of one waits for code of the other.

    asyncio task --- run(coroutine function) ---> trio task        cancelled with it, and waited for
    trio task ------ wait_for(awaitable) --------> asyncio task     cancelled with it, and waited for

One guest run for each loop, begun by the first who needs it and ended with the last. Code of either runs in turns, in
the same thread, so that plain calls and properties need no bridge; only what wakes a trio task has to be done inside of
trio (`soon`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import outcome
import trio

from ..errors import PeerClosed
from ..scopes import cancel_scope

Item = TypeVar("Item")

_guests: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Guest]] = WeakKeyDictionary()


class Guest:
    """A trio run inside of an asyncio loop; made by `open_guest`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._users = 0
        self._ready: asyncio.Future[None] = loop.create_future()
        self._over: asyncio.Future[None] = loop.create_future()
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._stop = trio.Event()

    def start(self) -> None:
        """Begin the run; `ready` says when it stands."""
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._call_threadsafe,
            run_sync_soon_not_threadsafe=self._call,
            done_callback=self._done,
            host_uses_signal_set_wakeup_fd=True,
        )

    async def ready(self) -> None:
        """Until it stands."""
        await asyncio.shield(self._ready)

    async def end(self) -> None:
        """End the run, and wait for it; not cut short by cancellation."""
        self.soon(self._stop.set)
        await _uncancelled(self._over)
        self._over.result()

    def join(self) -> int:
        """One more uses it. Returns how many do."""
        self._users += 1
        return self._users

    def part(self) -> int:
        """One less uses it. Returns how many do."""
        self._users -= 1
        return self._users

    def soon(self, call: Callable[[], object]) -> None:
        """Have something called inside of trio soon."""
        assert self._token is not None
        try:
            self._token.run_sync_soon(call)
        except trio.RunFinishedError:
            pass  # there is nobody left whom it could wake

    async def run(self, call: Callable[[], Awaitable[Item]]) -> Item:
        """Call an async function in a trio task of its own, and wait for what it returns or raises. From asyncio.

        Cancelled, it cancels the trio task and waits for its end. Raises PeerClosed where the run ends before.
        """
        if self._nursery is None:
            raise PeerClosed("swarmp2p has ended in this loop; open a new peer with open_peer()")
        done: asyncio.Future[None] = self._loop.create_future()
        scope = cancel_scope()
        results: list[outcome.Outcome[Item]] = []

        async def task() -> None:
            try:
                with scope:
                    result = await outcome.acapture(call)
                    if isinstance(result, outcome.Error) and isinstance(result.error, trio.Cancelled):
                        raise result.error  # trio wants it back
                    results.append(result)
            finally:
                if not done.done():
                    done.set_result(None)

        nursery = self._nursery
        self.soon(lambda: nursery.start_soon(task))
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            self.soon(scope.cancel)
            await _uncancelled(done)
            raise
        if not results:
            raise PeerClosed("the peer was closed meanwhile; open a new one with open_peer()")
        return results[0].unwrap()

    async def wait_for(self, awaitable: Awaitable[Item]) -> Item:
        """Wait for something of asyncio's. From trio; cancelled, it cancels that, and waits for its end."""
        future = asyncio.ensure_future(awaitable, loop=self._loop)
        ended = trio.Event()
        future.add_done_callback(lambda _: self.soon(ended.set))
        try:
            await ended.wait()
        except trio.Cancelled:
            future.cancel()
            with cancel_scope(shield=True):
                await ended.wait()
            if not future.cancelled():
                future.exception()  # looked at: it comes too late for anybody
            raise
        if future.cancelled():
            raise RuntimeError("what swarmp2p waited for in asyncio was cancelled by somebody else")
        return future.result()

    async def _main(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery, self._token = nursery, trio.lowlevel.current_trio_token()
            self._ready.set_result(None)
            await self._stop.wait()
            self._nursery = None
            nursery.cancel_scope.cancel()

    def _call(self, call: Callable[[], object]) -> None:
        self._loop.call_soon(call)

    def _call_threadsafe(self, call: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(call)

    def _done(self, result: outcome.Outcome[None]) -> None:
        for future in (self._ready, self._over):
            if future.done():
                continue
            if isinstance(result, outcome.Error):
                future.set_exception(result.error)
            else:
                future.set_result(None)


@asynccontextmanager
async def open_guest() -> AsyncGenerator[Guest, None]:
    """The running loop's guest while the context is open."""
    loop = asyncio.get_running_loop()
    guest = _guests.get(loop)
    if guest is None:
        guest = _guests[loop] = Guest(loop)
        guest.start()
    guest.join()
    try:
        await guest.ready()
        yield guest
    finally:
        if not guest.part():
            del _guests[loop]
            await guest.end()


async def _uncancelled(future: asyncio.Future[Any]) -> None:
    """Wait for a future, however often this is cancelled meanwhile."""
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            continue
        except Exception:  # noqa: BLE001  it is the caller's to look at
            return
