"""Objects of swarmp2p as asyncio code sees them: each stands for one of trio's, with the same names.

A plain attribute or result is what it is there. A coroutine runs in trio and is awaited in asyncio; what is entered
with `async with`, iterated over with `async for` or has methods that are awaited is a Proxy in its turn. Functions that
are passed in are called from trio, and what they return is awaited in asyncio.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from types import TracebackType
from typing import Any, Final

import trio

from ..announcement import Announcement
from ..dht_client import Dht
from ..lending import Lending
from ..opening import open_peer as open_peer_in_trio
from ..peer import Peer
from ..ray_bridge.cluster import Cluster
from ..scopes import cancel_scope
from .guest import Guest, open_guest

_WITH_AWAITED_METHODS: Final = (Peer, Dht, Announcement, Lending, Cluster)


@asynccontextmanager
async def open_peer(**arguments: Any) -> AsyncGenerator[Any, None]:
    """See swarmp2p.open_peer."""
    await asyncio.to_thread(
        import_module, "swarmp2p.transport.host"
    )  # py-libp2p: half a second of the loop's otherwise
    async with open_guest() as guest, Proxy(guest, open_peer_in_trio(**arguments)) as peer:
        yield peer


class Proxy:
    """Stands for one object of swarmp2p in asyncio code."""

    __slots__ = ("__weakref__", "_entered", "_guest", "_object")

    def __init__(self, guest: Guest, of: Any) -> None:
        self._guest, self._object = guest, of
        self._entered: _Entered | None = None

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What it stands for: isinstance() says what annotations say."""
        return type(self._object)

    def __repr__(self) -> str:
        return f"<{self._object!r} in asyncio>"

    def __getattr__(self, name: str) -> Any:
        return _seen(self._guest, getattr(self._object, name))

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return _called(self._guest, self._object, arguments, named)

    def __aiter__(self) -> Any:
        iterator = self._object.__aiter__()
        return self if iterator is self._object else Proxy(self._guest, iterator)

    async def __anext__(self) -> Any:
        return _seen(self._guest, await self._guest.run(self._object.__anext__))

    async def __aenter__(self) -> Any:
        self._entered = _Entered(self._guest, self._object)
        return _seen(self._guest, await self._entered.enter())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        entered, self._entered = self._entered, None
        assert entered is not None
        return await entered.leave(error)


class _Entered:
    """A context manager of trio's that asyncio code is in: entered and left by one trio task, as trio demands.

    Where the context cancels its body, as a cluster does whose head has failed, the body is cancelled in asyncio, and
    waited for; what the context then raises is raised instead of asyncio.CancelledError.
    """

    def __init__(self, guest: Guest, manager: AbstractAsyncContextManager[Any]) -> None:
        self._guest, self._manager = guest, manager
        self._inside: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._left = trio.Event()
        self._error: BaseException | None = None
        self._body: asyncio.Task[Any] | None = None
        self._interrupted = False
        self._task: asyncio.Task[bool] | None = None

    async def enter(self) -> Any:
        """Enter; what the context manager gives. Cancelled, it is cancelled on its way in, and waited for."""
        self._body = asyncio.current_task()
        self._task = asyncio.ensure_future(self._guest.run(self._stay))
        try:
            await asyncio.wait([self._task, self._inside], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._task.cancel()
            await _ended(self._task)
            raise
        if not self._inside.done():
            self._task.result()  # raises why it could not be entered
            raise RuntimeError("a context ended before it was entered")
        return self._inside.result()

    async def leave(self, error: BaseException | None) -> bool:
        """Leave, with what the body raised. Whether that is swallowed; raises what the context raises instead."""
        assert self._task is not None
        self._error = None if self._interrupted else error
        self._guest.soon(self._left.set)
        await _ended(self._task)
        if self._interrupted and self._body is not None:
            self._body.uncancel()
        if self._task.cancelled():
            raise asyncio.CancelledError
        raised = self._task.exception()
        if raised is not None and raised is not error:
            raise raised
        if self._interrupted:
            return True  # the context has cancelled its body and that was all, as trio's may
        return error is not None and raised is None and not isinstance(error, asyncio.CancelledError)

    async def _stay(self) -> bool:
        """In trio: be in the context from `enter` to `leave`."""
        async with self._manager as value:
            self._inside.set_result(value)
            try:
                await self._left.wait()
            except trio.Cancelled:
                self._interrupt()
                with cancel_scope(shield=True):
                    await self._left.wait()
                raise
            if self._error is not None and not isinstance(self._error, asyncio.CancelledError):
                raise self._error
        return True

    def _interrupt(self) -> None:
        if self._body is not None and not self._body.done():
            self._interrupted = True
            self._body.cancel()


async def _ended(task: asyncio.Task[Any]) -> None:
    """Wait for a task, however often this is cancelled meanwhile."""
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            continue


def _seen(guest: Guest, value: Any) -> Any:
    """A value of trio's side as asyncio code may use it."""
    if inspect.isroutine(value):

        @functools.wraps(value)
        def call(*arguments: Any, **named: Any) -> Any:
            return _called(guest, value, arguments, named)

        return call
    if isinstance(value, Proxy) or not (
        isinstance(value, _WITH_AWAITED_METHODS)
        or any(hasattr(type(value), name) for name in ("__aenter__", "__aiter__"))
    ):
        return value
    return Proxy(guest, value)


def _called(guest: Guest, function: Callable[..., Any], arguments: Any, named: Any) -> Any:
    given = [_given(guest, argument) for argument in arguments]
    given_by_name = {name: _given(guest, argument) for name, argument in named.items()}
    if inspect.iscoroutinefunction(function):
        return _awaited(guest, functools.partial(function, *given, **given_by_name))
    result = function(*given, **given_by_name)
    if inspect.isawaitable(result):  # an async generator's methods are no coroutine functions

        async def wait() -> Any:
            return await result

        return _awaited(guest, wait)
    return _seen(guest, result)


async def _awaited(guest: Guest, call: Callable[[], Any]) -> Any:
    return _seen(guest, await guest.run(call))


def _given(guest: Guest, argument: Any) -> Any:
    """An argument of asyncio code's as trio's side may use it."""
    if type(argument) is Proxy:
        return argument._object  # pyright: ignore[reportPrivateUsage]
    if inspect.isroutine(argument) or isinstance(argument, functools.partial):

        @functools.wraps(argument)
        def call(*arguments: Any, **named: Any) -> Any:
            seen = [_seen(guest, one) for one in arguments]
            result = argument(*seen, **named)
            return guest.wait_for(result) if inspect.isawaitable(result) else result

        return call
    return argument
