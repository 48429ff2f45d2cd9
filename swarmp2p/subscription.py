"""A topic as a subscriber reads it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Final

import trio

from .errors import PeerClosed
from .gossip.events import GossipMessage

# What a slow subscriber may leave unread; beyond either the oldest messages are dropped.
_MAX_MESSAGES: Final = 1024
_MAX_BYTES: Final = 16 * 2**20


class Subscription(AsyncIterator[GossipMessage]):
    """Messages of one topic: source, data, sequence number. dropped: messages lost because they were not read."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.dropped = 0
        self._unread: deque[GossipMessage] = deque()
        self._unread_bytes = 0
        self._news = trio.Event()
        self._closed = False

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> GossipMessage:
        while not self._unread:
            if self._closed:
                raise PeerClosed("the peer was closed; this subscription has no further messages")
            self._news = trio.Event()
            await self._news.wait()
        await trio.lowlevel.checkpoint()
        return self._take()

    def deliver(self, message: GossipMessage) -> None:
        """Queue a message; when the queue is full the oldest is dropped and counted."""
        self._unread.append(message)
        self._unread_bytes += len(message.data)
        while len(self._unread) > _MAX_MESSAGES or self._unread_bytes > _MAX_BYTES:
            self._take()
            self.dropped += 1
        self._news.set()

    def _take(self) -> GossipMessage:
        message = self._unread.popleft()
        self._unread_bytes -= len(message.data)
        return message

    def close(self) -> None:
        """Wake the reader with PeerClosed once everything is read."""
        self._closed = True
        self._news.set()
