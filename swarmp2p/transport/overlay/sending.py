"""What a session sends next: counted records, made as late as possible.

Control frames go before data, and a record that a broken carrier connection left unacknowledged before both.
One record takes small pieces of several channels, and at most one body.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from .channels import Channel, Queues
from .frames import DATA_HEAD_BYTES, body_frame, credit_frame, data_head, finish_frame
from .kept import Kept, Outbox, kept
from .records import BODY_MOST, CONTROL_MOST

if TYPE_CHECKING:
    from .config import SessionConfig

# Sealing a body of its own costs 1 us, about what copying 8 KiB twice does.
INLINE_MOST = 8 << 10
# What one record takes of small pieces.
_CONTROL_FULL = 16 << 10
_CREDIT_BYTES = 9
# With several channels in line a turn is shorter: 200 of them go round in 13 MB.
_TURN_BYTES = 64 << 10


class Sending:
    """Frames and data that wait, and what is kept until it is acknowledged.

    finishing: how many channels' FINISH waits. finished: channels whose FINISH has just been put into a record; for
    the session to look at and clear.
    """

    __slots__ = ("_config", "_control", "_credits", "finished", "finishing", "outbox", "queues")

    def __init__(self, config: SessionConfig) -> None:
        self._config = config
        self._control: deque[bytes] = deque()
        self._credits: dict[int, int] = {}
        self.finished: list[Channel] = []
        self.finishing = 0
        self.queues = Queues(config)
        self.outbox = Outbox()

    def frame(self, frame: bytes) -> bool:
        """A control frame waits; False when more wait than a partner that reads would leave."""
        self._control.append(frame)
        return len(self._control) <= self._config.pending_most

    def credit(self, channel: int, credit_bytes: int) -> None:
        self._credits[channel] = self._credits.get(channel, 0) + credit_bytes

    def forget(self, channel: int) -> None:
        self._credits.pop(channel, None)

    def passes(self, channel: Channel, data: bytes) -> bool:
        """Whether a message may go by itself, provided that nothing waits."""
        return (
            len(data) <= INLINE_MOST
            and not channel.finish_wanted
            and len(data) <= channel.credit
            and self.outbox.kept_bytes < self._config.unacknowledged_most_bytes
        )

    def message(self, channel: Channel, data: bytes) -> bytes:
        """The frames of a message that goes by itself; they are kept like any other record."""
        channel.credit -= len(data)
        frames = data_head(channel.number, len(data)) + data
        self.outbox.keep(kept(frames, None))
        return frames

    def next(self) -> Kept | None:
        """The next record's frames and body, or None; it is kept until `outbox` hears that it was received."""
        record = self.outbox.again()
        if record is None:
            record = self._compose()
            if record is not None:
                self.outbox.keep(record)
        return record

    @property
    def quiet(self) -> bool:
        """Nothing waits to be sent. Costs less than to ask for the next record."""
        return not (
            self.queues.queued or self._control or self._credits or self.finishing or self.outbox.repeating
        )

    @property
    def unread(self) -> bool:
        """Whether the partner has left more unacknowledged than data alone can explain."""
        return self.outbox.kept_bytes > 2 * self._config.unacknowledged_most_bytes

    def _compose(self) -> Kept | None:
        frames: list[bytes] = []
        size = 0
        control = self._control
        while control and size < _CONTROL_FULL:
            frames.append(control.popleft())
            size += len(frames[-1])
        credits_ = self._credits
        while credits_ and size < CONTROL_MOST // 2:
            frames.append(credit_frame(*credits_.popitem()))
            size += _CREDIT_BYTES
        body = None
        if not control and self.outbox.kept_bytes < self._config.unacknowledged_most_bytes:
            body = self._data(frames, size)
        if not frames:
            return None
        return kept(frames[0] if len(frames) == 1 else b"".join(frames), body)

    def _data(self, frames: list[bytes], size: int) -> bytes | memoryview | None:
        queues = self.queues
        lines = queues.lines
        while size < _CONTROL_FULL:
            channel = lines.next()
            if channel is None:
                return None
            piece = queues.take(channel, BODY_MOST if lines.alone() else _TURN_BYTES)
            number = channel.number
            length = len(piece)
            finishes = channel.finish_wanted and not channel.queued
            if length > INLINE_MOST:
                frames.append(body_frame(number))
            elif length:
                frames.append(data_head(number, length))
                frames.append(bytes(piece))
                size += DATA_HEAD_BYTES + length
            if finishes:
                channel.finish_sent = True
                self.finishing -= 1
                self.finished.append(channel)
                frames.append(finish_frame(number))
            if length > INLINE_MOST:
                return piece
        return None
