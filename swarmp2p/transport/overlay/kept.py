"""Counted records that the partner has not acknowledged: kept in the clear, to be sealed again for the next
carrier connection.

Both sides number counted records from 1, by counting alone: a carrier connection keeps order, and each begins
with records that are not counted, which say how many each side has taken. So what was lost with the one before
is sent first, and nothing twice.
"""

from __future__ import annotations

from collections import deque

from .faults import Broken

# A record that holds a few bytes costs memory for objects.
_RECORD_BYTES = 256

Kept = tuple[bytes, bytes | memoryview | None, int]
"""Frames, body, and what keeping them counts for."""


def kept(frames: bytes, body: bytes | memoryview | None) -> Kept:
    """A record to keep."""
    return frames, body, len(frames) + _RECORD_BYTES + (0 if body is None else len(body))


class Outbox:
    """What is kept.

    kept_bytes: with an allowance for each record.
    """

    __slots__ = ("_acknowledged", "_again", "_kept", "kept_bytes")

    def __init__(self) -> None:
        self._acknowledged = 0
        self._kept: deque[Kept] = deque()
        self._again: deque[Kept] = deque()
        self.kept_bytes = 0

    @property
    def repeating(self) -> bool:
        """Whether something waits to be sent again."""
        return bool(self._again)

    def keep(self, record: Kept) -> None:
        self._kept.append(record)
        self.kept_bytes += record[2]

    def acknowledged(self, received: int) -> None:
        """The partner has taken so many in all."""
        more = received - self._acknowledged
        if more == 0:
            return
        if not 0 < more <= len(self._kept):
            raise Broken(f"the partner acknowledges record {received}, which it cannot")
        self._acknowledged = received
        kept = self._kept
        for _ in range(more):
            self.kept_bytes -= kept.popleft()[2]

    def restart(self) -> None:
        """A carrier connection begins: all that is kept is to be sent on it, in order."""
        self._again = deque(self._kept)

    def again(self) -> Kept | None:
        """The next record to be sent again."""
        return self._again.popleft() if self._again else None
