"""Channels: forwarded connections with credit of their own, and whose turn it is to send.

    each direction:   open --finish--> finished          a channel goes when both directions are finished and
    both at once:     open --reset---> gone              what came has been consumed, or with a reset

Credit. A channel may send `first_window_bytes` at once; what the other side's local connection takes comes back
as credit, a quarter of the window at a time. So a stalled connection holds back at most its own window, and no
other channel. A window that is used up within about two round trips is what limits the channel: it doubles, up
to `window_most_bytes`, as long as all windows together stay within `growth_most_bytes` of growth.

Turns. A channel that was idle and has something to send goes first, once; then it stands in line with the
others, and each turn sends at most one record's body. So a small message does not wait for 200 bulk transfers,
and nobody gains by sending in small pieces.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import SessionConfig

# Windows grow on short paths as if they had this round-trip time: scheduling alone takes milliseconds.
_RTT_LEAST_S = 0.002
# A channel that had no room is told of room when it is worth a read, or when its queue is empty.
_ROOM_LEAST = 32 << 10
# Pieces below the first are joined up to the second: larger ones cost less as records of their own than by
# copying. Two sessions in one process, MB/s in pieces of 4 and 16 KiB: joined 747 and 892, each alone 404 and
# 720; pieces of 64 KiB: 2063 alone, 1339 joined to 256 KiB.
_JOINED_BELOW_BYTES = 32 << 10
_JOIN_BYTES = 64 << 10


class Channel:
    """One forwarded connection, as one side sees it.

    credit: bytes that may still be handed to the partner. queue, queued: what waits for that.
    allowance: bytes that the partner may still send. held: what came and is not consumed.
    unreturned: consumed, and not yet given back as credit.
    listed: stands in line. starved: its owner found no room and wants to hear of it.
    """

    __slots__ = (
        "allowance",
        "credit",
        "credit_at",
        "finish_came",
        "finish_sent",
        "finish_wanted",
        "gone",
        "held",
        "listed",
        "number",
        "queue",
        "queued",
        "starved",
        "unreturned",
        "window",
    )

    def __init__(self, number: int, window: int, now: float) -> None:
        self.number = number
        self.credit = self.allowance = self.window = window
        self.credit_at = now
        self.queue: deque[bytes | memoryview] | None = None  # made when first used: 600 bytes
        self.queued = self.held = self.unreturned = 0
        self.finish_wanted = self.finish_sent = self.finish_came = False
        self.gone = self.listed = self.starved = False

    @property
    def over(self) -> bool:
        return self.finish_sent and self.finish_came and not self.held


class Lines:
    """Who sends next: channels that were idle, then those that had a turn, in turn."""

    __slots__ = ("_fresh", "_turned")

    def __init__(self) -> None:
        self._fresh: deque[Channel] = deque()
        self._turned: deque[Channel] = deque()

    def join(self, channel: Channel) -> None:
        if not channel.listed:
            channel.listed = True
            self._fresh.append(channel)

    def next(self) -> Channel | None:
        """Who has something to send, and whose turn it is: goes to the end of the line."""
        while True:
            line = self._fresh or self._turned
            if not line:
                return None
            channel = line.popleft()
            if channel.gone:
                continue
            if channel.queued or (channel.finish_wanted and not channel.finish_sent):
                self._turned.append(channel)
                return channel
            channel.listed = False

    def alone(self) -> bool:
        """Whether at most one channel stands in line."""
        return len(self._fresh) + len(self._turned) <= 1


class Windows:
    """What this side lets its partner send, over all channels."""

    __slots__ = ("_config", "_grown", "held")

    def __init__(self, config: SessionConfig) -> None:
        self._config = config
        self._grown = 0
        self.held = 0

    def came(self, channel: Channel, size: int) -> bool:
        """Bytes came; False when the partner had no credit for them."""
        if size > channel.allowance:
            return False
        channel.allowance -= size
        channel.held += size
        self.held += size
        return True

    def consumed(self, channel: Channel, size: int) -> bool:
        """The local connection took bytes. Whether credit is due for them, which mostly it is not."""
        channel.held -= size
        self.held -= size
        channel.unreturned += size
        return 4 * channel.unreturned >= channel.window and not channel.finish_came

    def credit(self, channel: Channel, rtt_s: float, now: float) -> int:
        """What to give back now."""
        window = channel.window
        credit = channel.unreturned
        if now - channel.credit_at < max(rtt_s, _RTT_LEAST_S) / 2:
            growth = min(
                window, self._config.window_most_bytes - window, self._config.growth_most_bytes - self._grown
            )
            if growth > 0:
                channel.window += growth
                self._grown += growth
                credit += growth
        channel.credit_at = now
        channel.unreturned = 0
        channel.allowance += credit
        return credit

    def gone(self, channel: Channel) -> None:
        self.held -= channel.held
        self._grown -= channel.window - self._config.first_window_bytes
        channel.held = 0


class Queues:
    """What waits to be sent, over all channels."""

    __slots__ = ("_config", "_starved", "lines", "queued")

    def __init__(self, config: SessionConfig) -> None:
        self._config = config
        self.lines = Lines()
        self.queued = 0
        self._starved: dict[int, Channel] = {}

    def room(self, channel: Channel) -> int:
        """Bytes that may be queued now; with 0, the channel is told of room later."""
        room = self._room(channel)
        if room <= 0:
            channel.starved = True
            return 0
        return room

    def _room(self, channel: Channel) -> int:
        config = self._config
        most = config.queue_most_bytes if self.queued < config.queues_most_bytes else config.queue_least_bytes
        return min(channel.credit, most) - channel.queued

    def put(self, channel: Channel, data: bytes | memoryview) -> None:
        if channel.queue is None:
            channel.queue = deque()
        channel.queue.append(data)
        channel.queued += len(data)
        self.queued += len(data)
        self.lines.join(channel)

    def take(self, channel: Channel, most: int) -> bytes | memoryview:
        """The channel's next bytes, small pieces joined."""
        queue = channel.queue
        if not queue:
            return b""
        piece = queue.popleft()
        size = len(piece)
        if size > most:
            whole = memoryview(piece)
            piece = whole[:most]
            queue.appendleft(whole[most:])
            size = most
        elif size < _JOINED_BELOW_BYTES and queue and len(queue[0]) < _JOINED_BELOW_BYTES:
            most = min(most, _JOIN_BYTES)
            pieces = [piece]
            while queue and size + len(queue[0]) <= most:
                pieces.append(queue.popleft())
                size += len(pieces[-1])
            if len(pieces) > 1:
                piece = b"".join(pieces)
        channel.queued -= size
        channel.credit -= size
        self.queued -= size
        if channel.starved:
            self.fed(channel)
        return piece

    def fed(self, channel: Channel) -> None:
        """A channel's queue became shorter or its credit larger."""
        if not channel.starved or channel.finish_wanted:
            return
        room = self._room(channel)
        if room >= _ROOM_LEAST or (room > 0 and not channel.queued):
            channel.starved = False
            self._starved[channel.number] = channel

    @property
    def has_roomy(self) -> bool:
        """Whether `roomy` has something to say."""
        return bool(self._starved)

    def roomy(self) -> list[int]:
        """Channels that had no room and have some now; each is told once."""
        if not self._starved:
            return []
        numbers = [number for number, channel in self._starved.items() if not channel.gone]
        self._starved.clear()
        return numbers

    def gone(self, channel: Channel) -> None:
        self.queued -= channel.queued
        channel.queued = 0
        channel.queue = None
        self._starved.pop(channel.number, None)
