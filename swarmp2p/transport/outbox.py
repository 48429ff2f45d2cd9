"""One-way traffic with one peer in one protocol: what it is told, and what it tells.

Each side writes on a stream of its own, opened when there is something to send and kept. Everything queued in
one turn of the loop leaves in one write: 16 small messages in one cost a third of what two cost alone.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import trio

from ..engine import Received
from ..errors import BadMessage, ProtocolUnsupported
from ..wire import Exchange, WireProtocol
from .decoding import decoded
from .framing import FrameBuffer, encode_frame
from .multistream import NegotiationEnded, propose
from .muxer import MuxedConnection, MuxedStream

if TYPE_CHECKING:
    from .session import PeerSession

_MAX_WRITE_BYTES: Final = 65_536
_BACKLOG_BYTES: Final = 65_536  # as much again as the stream holds ready: from here on the engine is to wait
_TRIES: Final = 2  # a stream that breaks while it is opened is opened once more


class Outbox:
    """The queue of one peer in one protocol, and the stream that it leaves by.

    When the queue is full, what comes is dropped. discard: read what the other side writes, and drop it. For
    requests without reply: some implementations answer them all the same, and would stop reading if nobody
    took the answers.
    """

    def __init__(self, session: PeerSession, protocol: WireProtocol, discard: bool) -> None:
        self._session, self._protocol, self._discard = session, protocol, discard
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._stream: MuxedStream | None = None
        self._preferred: MuxedConnection | None = None  # as long as it stands
        self._busy = False  # a task opens the stream, or waits for it to drain
        self._congested = False  # the engine was told to wait
        self._used_at = 0.0

    @property
    def waiting(self) -> int:
        """How many messages have not left."""
        return len(self._queue)

    def put(self, body: bytes) -> None:
        """Queue a message; it leaves with the others of this turn of the loop."""
        config = self._session.config
        frame = encode_frame(body, self._protocol.framing)
        if len(self._queue) >= config.queue_messages or self._queued_bytes + len(frame) > config.queue_bytes:
            self._session.drop("queue full")
            return
        self._queue.append(frame)
        self._queued_bytes += len(frame)
        self._session.soon(self.flush)

    def flush(self) -> None:
        """Send what the stream takes, and tell the engine when that is not enough, or enough again."""
        self._send()
        if self._congested != (self._queued_bytes > (0 if self._congested else _BACKLOG_BYTES)):
            self._tell()

    def _tell(self) -> None:
        if self._protocol.exchange is Exchange.MESSAGES:
            told = self._session.congest(self._protocol.name, not self._congested)
            self._congested ^= told

    def _send(self) -> None:
        nursery = self._session.nursery
        if nursery is None or self._busy or not self._queue:
            return
        stream = self._stream
        if stream is None or stream.broken:
            self._busy = True
            nursery.start_soon(self._open)
            return
        if self._is_behind(stream):
            self._leave(stream)
            self._send()
            return
        self._used_at = trio.current_time()
        while self._queue and stream.unsent < _MAX_WRITE_BYTES:
            stream.push(self._join())
        if self._queue:
            self._busy = True
            nursery.start_soon(self._wait, stream)

    def move(self, connection: MuxedConnection) -> None:
        """Use a stream over this connection from now on."""
        self._preferred = connection
        if self._stream is not None and self._stream.connection is not connection:
            self._stream.reset()
            self.flush()

    def _is_behind(self, stream: MuxedStream) -> bool:
        """Whether the stream runs through a relay, and something better stands."""
        return stream.connection.relay is not None and self._session.connection() is not stream.connection

    def _leave(self, stream: MuxedStream) -> None:
        """Use a new stream from now on. What is under way on the old one still arrives."""
        self._stream = self._preferred = None
        stream.abandon()

    def sweep(self, now: float) -> None:
        """Close a stream that has been idle for long, or is better had elsewhere."""
        stream = self._stream
        if stream is not None and not self._busy and not stream.broken and self._is_behind(stream):
            self._leave(stream)
            if self._protocol.exchange is Exchange.MESSAGES and self._session.nursery is not None:
                self._busy = True  # the other side should have a way to be told at once
                self._session.nursery.start_soon(self._open)
        idle = now - self._used_at > self._session.config.idle_s
        if self._discard and idle and self._stream is not None and not self._queue:
            self._stream.abandon()
            self._stream = None

    def _join(self) -> bytes:
        """The next write: whole frames, at least one, up to 64 KiB."""
        frames, size = [self._queue.popleft()], 0
        size = len(frames[0])
        while self._queue and size + len(self._queue[0]) <= _MAX_WRITE_BYTES:
            frames.append(self._queue.popleft())
            size += len(frames[-1])
        self._queued_bytes -= size
        self._session.stats.sent += len(frames)
        self._session.useful_at = trio.current_time()
        return b"".join(frames)

    async def _open(self) -> None:
        for _ in range(_TRIES):
            connection = self._preferred
            if connection is None or connection.closed.is_set():
                connection = self._session.connection()
            if connection is None:
                break
            stream = connection.open()
            try:
                with trio.fail_after(self._session.config.negotiate_timeout_s):
                    stream.protocol = await propose(stream, self._protocol.ids)
            except ProtocolUnsupported:
                stream.reset()
                self._session.refuse(self._protocol.name)
                self._session.fail(self._protocol.name, (), unsupported=True)
                self._give_up("unsupported")
                return
            except (BadMessage, NegotiationEnded, trio.BrokenResourceError, trio.TooSlowError):
                stream.reset()
                continue
            self._stream, self._busy = stream, False
            if self._protocol.exchange is Exchange.MESSAGES and self._session.up.is_set():
                self._session.speaks(self._protocol, stream.protocol)
            self.flush()
            if self._discard:
                await _discard(stream)
            return
        self._give_up("no stream")

    def _give_up(self, cause: str) -> None:
        self._session.drop(cause, len(self._queue))
        self._queue.clear()
        self._queued_bytes = 0
        self._busy = False
        self.flush()

    async def _wait(self, stream: MuxedStream) -> None:
        await stream.drained(_MAX_WRITE_BYTES // 2)
        self._busy = False
        self.flush()


async def _discard(stream: MuxedStream) -> None:
    try:
        while await stream.read():
            pass
    except trio.BrokenResourceError:
        pass


async def receive_messages(session: PeerSession, protocol: WireProtocol, stream: MuxedStream) -> None:
    """Deliver what comes on a stream that the other side opened, until it ends."""
    buffer = FrameBuffer(protocol.framing, protocol.max_frame_bytes)
    peer, stats, deliver, decode = session.peer, session.stats, session.deliver, protocol.decode

    def arrived(chunk: bytes) -> None:
        bodies = buffer.feed(chunk)
        if bodies and not session.rate.admits(None, trio.current_time(), len(bodies)):
            raise BadMessage("more messages a second than anybody needs")
        for body in bodies:
            message = decoded(decode, peer, body, 0)
            stats.received += 1
            deliver(Received(peer, message))

    try:
        await stream.pour(arrived)
        if buffer.partial:
            raise BadMessage("the stream ended within a message")
        stream.finish()
    except BadMessage as problem:
        stream.reset()
        session.offence(str(problem))
    except trio.BrokenResourceError:
        pass
