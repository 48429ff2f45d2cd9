"""Two checks that trio's stream rules ask of every stream."""

from __future__ import annotations

from operator import index
from types import TracebackType

import trio


class Alone:
    """A context that one task at a time may be in; raises trio.BusyResourceError for a second one."""

    __slots__ = ("_busy", "_doing")

    def __init__(self, doing: str) -> None:
        self._doing, self._busy = doing, False

    def __enter__(self) -> None:
        if self._busy:
            raise trio.BusyResourceError(f"another task is {self._doing} this stream")
        self._busy = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._busy = False


def check_size(max_bytes: int | None) -> None:
    """Raises TypeError or ValueError for what no `receive_some` can be asked for."""
    if max_bytes is not None and index(max_bytes) < 1:
        raise ValueError("max_bytes must be at least 1")
