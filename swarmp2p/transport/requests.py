"""Our requests to one peer in one protocol: a small pool of streams that stay open.

Requests go out one behind the other; replies come in the order of the requests on their stream, so nothing on
the wire needs an id. When the oldest request of every stream has waited long, another stream is opened, so that
one slow reply does not hold up the others. A stream that ends with requests unanswered (go closes idle ones
after 60 s, whatever is under way) gives each of them one more try on another stream. What cannot be answered
any more is told to the engine at once.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from ..engine import Received
from ..errors import BadMessage, ProtocolUnsupported
from ..wire import WireProtocol
from .decoding import decoded
from .framing import FrameBuffer, encode_frame
from .multistream import NegotiationEnded, Proposal, begin, conclude
from .muxer import MuxedStream

if TYPE_CHECKING:
    from .session import PeerSession


class _Pending:
    """A request that has not been answered. number: the engine's id."""

    __slots__ = ("again", "frame", "number", "since")

    def __init__(self, number: int, frame: bytes) -> None:
        self.number, self.frame = number, frame
        self.since = trio.current_time()
        self.again = False  # this is its second try


class _Line:
    """One stream of the pool. agreed: whether requests may be written, being understood or known to be."""

    __slots__ = ("agreed", "pending", "stream", "used_at")

    def __init__(self, stream: MuxedStream, agreed: bool) -> None:
        self.stream, self.agreed = stream, agreed
        self.pending: deque[_Pending] = deque()
        self.used_at = trio.current_time()


class RequestPool:
    """Our requests to one peer in one protocol."""

    def __init__(self, session: PeerSession, protocol: WireProtocol) -> None:
        assert protocol.decode_reply is not None
        self._session, self._protocol = session, protocol
        self._decode = protocol.decode_reply
        self._lines: list[_Line] = []
        self._early: deque[_Pending] = deque()  # from before the connection stood
        self._waiting = 0
        # Requests follow the proposal without waiting for the answer to it. Who does not speak the protocol may
        # choke on them: then the next stream waits.
        self._hopeful = len(protocol.ids) == 1

    @property
    def waiting(self) -> int:
        """How many requests have no reply."""
        return self._waiting

    def put(self, number: int, body: bytes) -> None:
        """Send a request; dropped when too many wait for replies."""
        if self._waiting >= self._session.config.queue_messages:
            self._fail("queue full", number)
            return
        self._waiting += 1
        request = _Pending(number, encode_frame(body, self._protocol.framing))
        if self._session.nursery is None:
            self._early.append(request)
        else:
            self._send(request)

    def flush(self) -> None:
        """The connection stands: send what came before it did."""
        while self._early:
            self._send(self._early.popleft())

    def sweep(self, now: float) -> None:
        """Close streams that are idle, and those whose oldest request will not be answered any more."""
        for line in list(self._lines):
            if line.pending:
                if now - line.pending[0].since > self._session.config.reply_timeout_s:
                    line.stream.reset()
            elif now - line.used_at > self._session.config.idle_s or self._is_behind(line):
                self._lines.remove(line)
                line.stream.abandon()

    def _send(self, request: _Pending) -> None:
        line = self._pick()
        if line is None or line.stream.unsent > self._session.config.queue_bytes:
            self._waiting -= 1
            self._fail("no stream" if line is None else "queue full", request.number)
            return
        line.pending.append(request)
        line.used_at = trio.current_time()
        if line.agreed:
            line.stream.push(request.frame)
            self._session.stats.sent += 1

    def _is_behind(self, line: _Line) -> bool:
        """Whether its stream runs through a relay, and something better stands."""
        connection = line.stream.connection
        return connection.relay is not None and self._session.connection() is not connection

    def _pick(self) -> _Line | None:
        """The stream with the fewest requests, or a new one when all of them are slow."""
        config = self._session.config
        usable = [line for line in self._lines if not line.stream.broken and not self._is_behind(line)]
        best = min(usable, key=lambda line: len(line.pending), default=None)
        if best is not None:
            stalled = best.pending and trio.current_time() - best.pending[0].since > config.stall_s
            if not stalled or len(usable) >= config.request_streams:
                return best
        connection, nursery = self._session.connection(), self._session.nursery
        if connection is None or nursery is None:
            return best
        stream = connection.open()
        line = _Line(stream, agreed=self._hopeful)
        self._lines.append(line)
        nursery.start_soon(self._read, line, begin(stream, self._protocol.ids))
        return line

    async def _read(self, line: _Line, proposal: Proposal) -> None:
        session, stream = self._session, line.stream
        buffer = FrameBuffer(self._protocol.framing, self._protocol.max_frame_bytes)
        try:
            with trio.fail_after(session.config.negotiate_timeout_s):
                stream.protocol = await conclude(stream, proposal)
            if not line.agreed:
                line.agreed = True
                stream.push(b"".join(request.frame for request in line.pending))
                session.stats.sent += len(line.pending)
            while chunk := await stream.read():
                for body in buffer.feed(chunk):
                    if not line.pending:
                        raise BadMessage("a reply that nobody waits for")
                    request = line.pending.popleft()
                    self._waiting -= 1
                    try:
                        message = decoded(self._decode, session.peer, body, request.number)
                    except BadMessage:
                        self._fail("bad reply", request.number)
                        raise
                    session.stats.received += 1
                    session.useful_at = trio.current_time()
                    session.deliver(Received(session.peer, message))
            if buffer.partial:
                raise BadMessage("the stream ended within a message")
            stream.finish()
        except ProtocolUnsupported:
            session.refuse(self._protocol.name)
        except BadMessage as problem:
            session.offence(str(problem))
            self._hopeful = self._hopeful and bool(stream.protocol)
        except (NegotiationEnded, trio.BrokenResourceError, trio.TooSlowError):
            self._hopeful = self._hopeful and bool(stream.protocol)
        stream.reset()
        self._lost(line)

    def _lost(self, line: _Line) -> None:
        """A stream is over: its requests get one more try, unless they have waited long enough."""
        if line in self._lines:
            self._lines.remove(line)
        session, now = self._session, trio.current_time()
        refused = session.refuses(self._protocol.name)
        lost: list[int] = []
        for request in line.pending:
            late = now - request.since > session.config.reply_timeout_s
            if request.again or refused or late or session.connection() is None:
                self._waiting -= 1
                lost.append(request.number)
            else:
                request.again = True
                self._send(request)
        if lost or refused:
            self._fail("unsupported" if refused else "stream lost", *lost, unsupported=refused)

    def _fail(self, cause: str, *numbers: int, unsupported: bool = False) -> None:
        """These requests will not be answered."""
        self._session.drop(cause, len(numbers))
        self._session.fail(self._protocol.name, numbers, unsupported=unsupported)
