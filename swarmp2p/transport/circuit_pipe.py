"""A connection through a relay: a Pipe over a stream to the relay, which passes on what comes (circuit v2)."""

from __future__ import annotations

import trio

from .muxer import MuxedStream
from .pipe import Limit, Pipe


class CircuitPipe(Pipe):
    """A stream to a relay that has become a connection to somebody else. It ends when the relay, or the connection to
    it, does."""

    def __init__(self, stream: MuxedStream, is_initiator: bool, limit: Limit | None) -> None:
        self.is_initiator, self.limit = is_initiator, limit
        self.relay, self.local = stream.peer, stream.connection.local
        self._stream = stream
        self._closed = False
        stream.connection.in_use += 1

    @property
    def unsent(self) -> int:
        return self._stream.unsent

    def push(self, data: bytes) -> None:
        if not self._closed:
            self._stream.push(data)

    async def drain(self) -> None:
        await self._stream.drained()

    async def receive(self) -> bytes:
        try:
            return b"" if self._closed else await self._stream.read()
        except trio.BrokenResourceError:
            return b""

    def unread(self, data: bytes) -> None:
        self._stream.unread(data)

    def shut(self) -> None:
        """Close the connection. What was pushed still leaves, as over TCP: the last words of a multiplexer."""
        if not self._closed:
            self._closed = True
            self._stream.connection.in_use -= 1
            self._stream.abandon()

    def get_remote_address(self) -> tuple[str, int]:
        return self._stream.connection.remote
