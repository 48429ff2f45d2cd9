"""background_nursery: one error comes out as itself."""

from __future__ import annotations

import pytest
import trio

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
