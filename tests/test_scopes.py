"""background_nursery: one error comes out as itself."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import ref

import pytest
import trio
import trio.testing

from swarmp2p.errors import UsageError
from swarmp2p.scopes import background_nursery, cancel_scope


async def test_background_tasks_end_with_the_body() -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("yes")

    async with background_nursery() as nursery:
        nursery.start_soon(forever)
        await trio.lowlevel.checkpoint()
    assert ended == ["yes"]


async def test_an_error_of_the_body_is_raised_as_itself() -> None:
    with pytest.raises(UsageError, match="of the body"):
        async with background_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise UsageError("of the body")


async def test_an_error_of_a_task_is_raised_as_itself_and_ends_the_body() -> None:
    async def fail() -> None:
        raise UsageError("of a task")

    with pytest.raises(UsageError, match="of a task"):
        async with background_nursery() as nursery:
            nursery.start_soon(fail)
            await trio.sleep_forever()


async def test_several_errors_stay_together() -> None:
    async def fail() -> None:
        raise UsageError("of a task")

    with pytest.raises(ExceptionGroup) as caught:
        async with background_nursery() as nursery:
            nursery.start_soon(fail)
            raise KeyError("of the body")
    assert len(caught.value.exceptions) == 2


async def test_cancellation_passes_through() -> None:
    scopes: list[trio.CancelScope] = []

    async def body() -> None:
        with cancel_scope() as scope:
            scopes.append(scope)
            async with background_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                scope.cancel()
                await trio.sleep_forever()

    await body()
    assert scopes[0].cancelled_caught


async def test_what_a_cancelled_body_held_is_freed_at_once() -> None:
    """Without Python's collector: no exception that went through is in a cycle with the frames it went through."""

    class Held:
        pass

    @asynccontextmanager
    async def in_a_stack() -> AsyncGenerator[None, None]:
        async with AsyncExitStack() as stack:
            nursery = await stack.enter_async_context(background_nursery())
            nursery.start_soon(trio.sleep_forever)
            yield

    async def body(scope: trio.CancelScope) -> None:
        held = Held()
        watched.append(ref(held))
        with scope:
            async with in_a_stack(), trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await trio.sleep_forever()

    watched: list[ref[Held]] = []
    gc.disable()
    try:
        async with trio.open_nursery() as nursery:
            scope = cancel_scope()
            nursery.start_soon(body, scope)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
        assert watched[0]() is None
    finally:
        gc.enable()


async def test_an_error_that_is_raised_as_itself_does_not_keep_its_group() -> None:
    with pytest.raises(UsageError) as caught:
        async with background_nursery():
            raise UsageError("of the body")
    assert caught.value.__context__ is None, "the group that it came in"


async def test_what_an_error_came_from_stays_with_it() -> None:
    """Also where the body was cancelled for it, which Python would name instead."""

    async def fail() -> None:
        try:
            raise KeyError("first")
        except KeyError:
            raise UsageError("of a task")  # noqa: B904  without `from`

    with pytest.raises(UsageError) as caught:
        async with background_nursery() as nursery:
            nursery.start_soon(fail)
            await trio.sleep_forever()
    assert isinstance(caught.value.__context__, KeyError)
    assert not caught.value.__suppress_context__, "it is printed"
