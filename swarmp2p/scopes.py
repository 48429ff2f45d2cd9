"""Nurseries for things that run in the background of an `async with` body, and what is raised there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import trio

if TYPE_CHECKING:
    # py-libp2p pulls in the old trio-stubs, which hide trio's own types: they lack trio.TaskStatus, and
    # describe Nursery.start in a way that only mypy understands.
    from trio_typing import TaskStatus as TaskStatus
else:
    from trio import TaskStatus as TaskStatus


async def start(nursery: trio.Nursery, async_fn: Callable[..., Awaitable[object]], *args: object) -> Any:
    """`nursery.start(async_fn, *args)`, for type checkers that see trio-stubs."""
    return await cast(Any, nursery).start(async_fn, *args)


def cancel_scope(*, shield: bool = False) -> trio.CancelScope:
    """`trio.CancelScope(shield=...)`, for the same reason. shield: whether cancellation waits outside."""
    scope: trio.CancelScope = cast(Any, trio.CancelScope)(shield=shield)
    return scope


@asynccontextmanager
async def background_nursery() -> AsyncGenerator[trio.Nursery, None]:
    """A nursery whose tasks are cancelled when the body ends.

    When one single exception comes out, of the body or of a task, it is raised as itself, so that callers
    write `except SwarmError` and not `except*`. Several at once stay an exception group. When all are cancelled, what
    the body raised is: it is what an exit stack around this threw in. Another one would be kept by that stack's frames
    and keep them, with all that they hold, until Python looks for garbage.
    """
    raised: BaseException | None = None
    problem: BaseException | None = None
    try:
        try:
            async with trio.open_nursery() as nursery:
                try:
                    yield nursery
                except BaseException as error:
                    raised = error
                    raise
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            problem = _one_of(group, raised)
            if problem is None:
                raise
        if problem is not None:
            # `raise` puts what is being handled in its place: the group, in there; out here maybe a Cancelled
            context = problem.__context__
            try:
                raise problem
            finally:
                problem.__context__ = context
                del context
    finally:
        del raised, problem  # this frame is in their tracebacks


def _one_of(group: BaseExceptionGroup[BaseException], raised: BaseException | None) -> BaseException | None:
    """What stands for a group; None when there are several. raised: what of it comes from the body."""
    if raised is not None and group.split(trio.Cancelled)[1] is None:
        return raised
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return None if isinstance(error, BaseExceptionGroup) else error


def first_of(problem: BaseException) -> BaseException:
    """The first of what may be groups of groups."""
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    return problem
