"""Streams over a secure connection, under trio: a Yamux session with somebody to wake.

Whatever can be sent is sent in plain functions, at once, by whoever has something to say; one task per
connection reads. Nothing is lost or cut in half when a task that writes is cancelled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final
from weakref import ref

import trio

from ..engine import Address
from ..identity import PeerId
from .multistream import choose, propose
from .secure import SecureChannel
from .yamux import PROTOCOL_ID, Session, Stream, YamuxError

_MAX_PACKET: Final = 65_519  # what fits into one Noise packet
# Bytes handed to the system ahead of what it takes: more would only make small messages wait behind large ones.
_MAX_AHEAD: Final = 131_072


class MuxedStream:
    """One stream, both ways. Reading and writing do not checkpoint while they need not wait.

    protocol: what was negotiated on it, "" until then.
    """

    __slots__ = ("__weakref__", "_act", "_connection", "_core", "_kept", "_problem", "_waiting", "protocol")

    def __init__(self, connection: MuxedConnection, core: Stream) -> None:
        core.owner = ref(self)  # weak: no cycle that outlives the stream
        self.protocol = ""
        self._connection = connection
        self._core = core
        self._kept = b""
        self._act: Callable[[bytes], None] | None = None
        self._problem: Exception | None = None  # what it raised
        self._waiting = trio.lowlevel.ParkingLot()

    @property
    def connection(self) -> MuxedConnection:
        """What it runs over."""
        return self._connection

    @property
    def peer(self) -> PeerId:
        """The other side."""
        return self._connection.peer

    @property
    def inbound(self) -> bool:
        """Whether the other side opened it."""
        return self._core.inbound

    @property
    def broken(self) -> bool:
        """Whether it was reset, or its connection is over."""
        return self._core.broken

    @property
    def unsent(self) -> int:
        """Bytes pushed and not yet under way."""
        return len(self._core.unsent)

    def push(self, data: bytes | bytearray | memoryview) -> None:
        """Send, or keep what cannot be sent now: bounding `unsent` is the caller's part. Lost when broken."""
        self._connection.session.write(self._core, data)
        self._connection.flush()

    async def drained(self, most: int = 0) -> None:
        """Wait until at most so many bytes are unsent, or the stream is broken."""
        while len(self._core.unsent) > most and not self._core.broken:
            await self._waiting.park()

    async def read(self) -> bytes:
        """What has arrived; b"" at the end. Raises trio.BrokenResourceError when it was reset."""
        if self._kept:
            data, self._kept = self._kept, b""
            return data
        core = self._core
        while not core.unread:
            if core.broken:
                raise trio.BrokenResourceError("the stream was reset, or its connection broke")
            if core.eof:
                return b""
            await self._waiting.park()
        return self._take()

    async def pour(self, act: Callable[[bytes], None]) -> None:
        """Have all that arrives handed to `act` where it arrives, without a task being woken for it, until the end.

        Raises trio.BrokenResourceError when the stream was reset, and what `act` raises, which gets no more then.
        Nobody may read, or wait for `drained`, meanwhile.
        """
        self._act = act
        if self._kept:
            self._core.unread[:0] = self._kept
            self._kept = b""
        try:
            self.wake()
            while self._problem is None and not self._core.broken and not self._core.eof:
                await self._waiting.park()
        finally:
            self._act = None
        if self._problem is not None:
            raise self._problem
        if self._core.broken:
            raise trio.BrokenResourceError("the stream was reset, or its connection broke")

    def _take(self) -> bytes:
        core, session = self._core, self._connection.session
        data = bytes(core.unread)
        core.unread.clear()
        session.grant(core, len(data))
        if session.pending:
            self._connection.flush()
        return data

    def unread(self, data: bytes) -> None:
        """Put bytes back in front of those to be read."""
        self._kept = data + self._kept

    def widen(self, window_bytes: int) -> None:
        """Let the other side have so many bytes under way."""
        self._connection.session.widen(self._core, window_bytes)
        self._connection.flush()

    def finish(self) -> None:
        """Send no more than what was pushed."""
        self._connection.session.finish(self._core)
        self._connection.flush()

    def abandon(self) -> None:
        """As `finish`, and drop what still comes."""
        self._connection.session.abandon(self._core)
        self._connection.flush()

    def reset(self) -> None:
        """End both ways at once."""
        self._connection.session.reset(self._core)
        self._connection.flush()

    def wake(self) -> None:
        """Something happened."""
        act, core = self._act, self._core
        if act is not None:
            if core.unread and self._problem is None:
                try:
                    act(self._take())
                except Exception as problem:  # noqa: BLE001 - raised where `act` came from
                    self._problem = problem
            if self._problem is None and not core.eof and not core.broken:
                return
        if self._waiting:
            self._waiting.unpark_all()


class MuxedConnection:
    """One connection to one peer and its streams.

    on_stream: called with each stream that the other side opens. nursery: of the tasks that send what the system does
    not take at once; they end with the connection. control: frames without data that may come a second, and at once.

    closed: set when the connection is over. in_use: embedders' streams, circuits and reservations. punched: both sides
    dialled at once, so that it says nothing of who can be dialled. relay: through whom it runs, where it does; `local`
    and `remote` are those of the connection to the relay then. limit: what that relay allows. superseded: set when it
    runs through a relay, and a direct one has come about.
    """

    def __init__(
        self,
        channel: SecureChannel,
        is_client: bool,
        max_inbound: int,
        on_stream: Callable[[MuxedStream], None],
        nursery: trio.Nursery,
        control: tuple[float, float] = (math.inf, math.inf),
    ) -> None:
        self.peer = channel.peer
        self.remote = channel.pipe.get_remote_address()
        self.local = channel.pipe.local
        self.relay, self.limit = channel.pipe.relay, channel.pipe.limit
        self.session = Session(is_client, max_inbound)
        self.closed, self.superseded = trio.Event(), trio.Event()
        self.since = trio.current_time()
        self.dialled: Address | None = None  # where we dialled it; None when it dialled us
        self.on_closed: Callable[[MuxedConnection], None] | None = None
        self.fault: str | None = None  # how the other side broke the protocol
        self._channel = channel
        self._on_stream = on_stream
        self._nursery = nursery
        self._draining = False
        self._per_s, self._burst = control
        self._budget, self._budget_at = self._burst, self.since
        self.in_use = 0
        self.punched = False
        self._heard = True  # something came since the last `probe`
        self._probes = 0

    def open(self) -> MuxedStream:
        """A new stream. On a connection that is over it is broken from the start."""
        core = self.session.open()
        stream = MuxedStream(self, core)
        if self.closed.is_set():
            self.session.reset(core)
        return stream

    async def run(self) -> None:
        """Read until the connection is over; raises nothing but cancellation."""
        try:
            self.flush()
            await self._read()
        finally:
            self.close()

    async def _read(self) -> None:
        session = self.session
        while not session.gone_away:
            data = await self._channel.read()
            if not data or self.closed.is_set():
                return
            self._heard = True
            try:
                session.receive(data)
                if session.controls:
                    self._spend(session.controls)
                    session.controls = 0
            except YamuxError as problem:
                self.fault = str(problem)
                session.go_away(protocol_error=True)
                self.flush()
                return
            accepted, session.accepted = session.accepted, []
            for core in accepted:
                self._on_stream(MuxedStream(self, core))
            self.flush()

    def _spend(self, controls: int) -> None:
        """Frames without data came; raises YamuxError when they come too fast."""
        now = trio.current_time()
        self._budget = min(self._burst, self._budget + (now - self._budget_at) * self._per_s) - controls
        self._budget_at = now
        if self._budget < 0.0:
            raise YamuxError("yamux: the other side opens and resets streams, or pings, too fast")

    def flush(self) -> None:
        """Send what may be sent now, and wake whom it concerns."""
        session, channel = self.session, self._channel
        while session.pending and channel.unsent < _MAX_AHEAD:
            data = session.take(_MAX_PACKET)
            if not data:
                break
            channel.push(data)
        if channel.unsent and not self._draining and not self.closed.is_set():
            self._draining = True
            self._nursery.start_soon(self._drain)
        if session.touched:
            touched, session.touched = session.touched, {}
            for core in touched:
                stream = core.owner() if isinstance(core.owner, ref) else None
                if isinstance(stream, MuxedStream):
                    stream.wake()

    async def _drain(self) -> None:
        while self._channel.unsent and not self.closed.is_set():
            await self._channel.pipe.drain()
            self.flush()
        self._draining = False

    def probe(self) -> None:
        """Called at intervals: asks a silent other side for a sign of life, then gives the connection up."""
        if self._heard:
            self._heard, self._probes = False, 0
        elif self._probes:
            self.fault = "silent"
            self.close()
        else:
            self._probes += 1
            self.session.ping()
            self.flush()

    def close(self) -> None:
        """End the connection and all its streams at once."""
        if self.closed.is_set():
            return
        self.session.go_away()
        self.flush()
        self.closed.set()
        self.session.close()
        self._channel.pipe.shut()
        self.flush()
        if self.on_closed is not None:
            self.on_closed(self)


async def mux(
    channel: SecureChannel,
    is_client: bool,
    max_inbound: int,
    on_stream: Callable[[MuxedStream], None],
    nursery: trio.Nursery,
    control: tuple[float, float] = (math.inf, math.inf),
) -> MuxedConnection:
    """Agree on Yamux. Raises BadMessage, ProtocolUnsupported; the channel is left to the caller to close."""
    if is_client:
        await propose(channel, [PROTOCOL_ID])
    else:
        await choose(channel, PROTOCOL_ID.__eq__)
    return MuxedConnection(channel, is_client, max_inbound, on_stream, nursery, control)
