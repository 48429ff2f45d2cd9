"""Requests that come in, and the engine's replies to them.

A request gets an id when it arrives. The engine may answer in any order, or never: a reply waits until those
before it on its stream have left, since the other side matches them by their order. A stream whose oldest
request is not answered in time is reset.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import count
from typing import TYPE_CHECKING, Final

import trio

from ..engine import Received, Request
from ..errors import BadMessage
from ..wire import WireProtocol
from .decoding import decoded
from .framing import FrameBuffer, encode_frame
from .muxer import MuxedStream

if TYPE_CHECKING:
    from .session import PeerSession

_MAX_UNSENT_BYTES: Final = 65_536  # beyond the window; held for each stream whose replies nobody reads


class Desk:
    """Where the engine's replies find the streams that their requests came on; one for all peers."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._open: OrderedDict[int, RequestServer] = OrderedDict()  # oldest first

    def number(self) -> int:
        """An id for a request that came in."""
        return next(self._numbers)

    def expect(self, number: int, server: RequestServer) -> None:
        """The engine will answer this request."""
        self._open[number] = server

    def reply(self, number: int, body: bytes) -> bool:
        """Give the engine's reply to its stream; False when nobody waits for it any more."""
        server = self._open.pop(number, None)
        if server is None:
            return False
        server.reply(number, body)
        return True

    def forget(self, number: int) -> None:
        """Nobody waits for this reply any more."""
        self._open.pop(number, None)

    def sweep(self, since: float) -> None:
        """Give up the streams that still wait for replies from before `since`."""
        while self._open:
            number, server = next(iter(self._open.items()))
            if not server.late(number, since):
                return
            server.close()


class RequestServer:
    """The requests that come on one stream which the other side opened."""

    def __init__(self, session: PeerSession, protocol: WireProtocol, stream: MuxedStream, desk: Desk) -> None:
        self._session, self._protocol, self._stream, self._desk = session, protocol, stream, desk
        self._slots: OrderedDict[int, bytes | None] = OrderedDict()  # by arrival; None: not answered yet
        self._since: dict[int, float] = {}
        self._room = trio.lowlevel.ParkingLot()
        self._ended = False  # no further requests come

    async def run(self) -> None:
        """Deliver requests until no more come."""
        session, stream = self._session, self._stream
        protocol = self._protocol
        buffer = FrameBuffer(protocol.framing, protocol.max_request_bytes or protocol.max_frame_bytes)
        try:
            while chunk := await stream.read():
                for body in buffer.feed(chunk):
                    while len(self._slots) >= session.config.unanswered:
                        await self._room.park()
                    await stream.drained(_MAX_UNSENT_BYTES)
                    self._take(body)
            if buffer.partial:
                raise BadMessage("the stream ended within a request")
            self._ended = True
            if not self._slots:
                stream.finish()
        except BadMessage as problem:
            session.offence(str(problem))
        except trio.BrokenResourceError:
            pass
        finally:
            if not self._ended:
                self.close()

    def _take(self, body: bytes) -> None:
        number = self._desk.number()
        request = decoded(self._protocol.decode, self._session.peer, body, number)
        if isinstance(request, Request) and request.expects_reply:
            self._slots[number] = None
            self._since[number] = trio.current_time()
            self._desk.expect(number, self)
        self._session.stats.received += 1
        self._session.deliver(Received(self._session.peer, request))

    def reply(self, number: int, body: bytes) -> None:
        """The engine's answer to one request."""
        self._slots[number] = encode_frame(body, self._protocol.framing)
        frames: list[bytes] = []
        while self._slots:
            first, frame = next(iter(self._slots.items()))
            if frame is None:
                break
            frames.append(frame)
            del self._slots[first], self._since[first]
        if frames:
            self._stream.push(b"".join(frames))
            self._session.stats.sent += len(frames)
            self._room.unpark_all()
            if self._ended and not self._slots:
                self._stream.finish()

    def late(self, number: int, since: float) -> bool:
        """Whether this request has waited for its answer since before `since`."""
        return self._since[number] < since

    def close(self) -> None:
        """Give the stream up, and the answers that it waits for."""
        self._stream.reset()
        for number in self._slots:
            self._desk.forget(number)
        self._slots.clear()
        self._since.clear()
        self._room.unpark_all()
