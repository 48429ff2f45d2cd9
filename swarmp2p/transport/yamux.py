"""Yamux: many streams over one connection, without I/O (hashicorp's spec.md, as libp2p profiles it).

Why not py-libp2p's own: it costs 0.5 ms a message (a window update for each read, a lock and a formatted log
line at each step), a write fails after 5 s without window, and a peer that ignores its window makes it grow.

A `Session` takes the bytes that arrive (`receive`) and gives those to be sent (`take`). Between the calls,
`accepted` holds new streams, `touched` those on which something happened; the caller empties both.

What one connection can hold is bounded: `max_inbound` streams that the other side opened, each with one receive
window of unread data, 256 KiB unless its user has widened it; and 64 KiB of answers to pings and the like,
which cannot be sent because the other side does not read. More than that is a `YamuxError`, as is anything that
breaks the protocol: the connection is over then. `controls` counts frames that carry nothing: streams that are
opened and reset again and again, or pings, cost the other side less than us, and the caller may lose patience.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final

from ..errors import BadMessage

PROTOCOL_ID: Final = "/yamux/1.0.0"
WINDOW_BYTES: Final = 256 * 1024  # "Initial stream window size is 256KB"
_MAX_SEND_WINDOW: Final = 1 << 31
_MAX_FRAME_BYTES: Final = 32 * 1024  # of ours: small enough for streams to take turns
_MAX_CONTROL_BYTES: Final = 64 * 1024
_HEADER: Final = Struct("!BBHII")  # version, type, flags, stream id, length


class YamuxError(BadMessage):
    """The other side broke the protocol; the connection cannot go on."""


class _Type(IntEnum):
    DATA = 0
    WINDOW = 1
    PING = 2
    GO_AWAY = 3


class _Flag(IntFlag):
    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


# Plain integers: IntFlag's operators cost 0.4 µs each, at several a frame.
_DATA, _WINDOW, _PING, _GO_AWAY = (int(kind) for kind in _Type)
_SYN, _ACK, _FIN, _RST = (int(flag) for flag in (_Flag.SYN, _Flag.ACK, _Flag.FIN, _Flag.RST))


class Stream:
    """One stream of a Session. Only the Session changes it.

    unread: received and not taken yet. unsent: written and not yet under way. eof: the other side sends no
    more. finished: nothing more may be written. broken: reset by either side, or the connection is over.
    abandoned: nobody reads any more. fin_due: our end is still to be sent. flags: SYN or ACK, to go with our
    first frame. send_window, receive_window: bytes that may be sent, or come, before the next grant. credit:
    bytes that the reader took and that are not granted again yet. window: how far receive_window goes at
    most. owner: for whoever uses the session.
    """

    __slots__ = (
        "abandoned",
        "broken",
        "credit",
        "eof",
        "fin_due",
        "finished",
        "flags",
        "id",
        "inbound",
        "owner",
        "receive_window",
        "send_window",
        "unread",
        "unsent",
        "window",
    )

    def __init__(self, number: int, inbound: bool) -> None:
        self.id = number
        self.inbound = inbound
        self.unread = bytearray()
        self.unsent = bytearray()
        self.eof = self.finished = self.broken = self.abandoned = self.fin_due = False
        self.flags = _ACK if inbound else _SYN
        self.send_window = self.receive_window = self.window = WINDOW_BYTES
        self.credit = 0
        self.owner: object = None


class Session:
    """One connection. is_client: whether we opened it (odd stream ids are the client's)."""

    def __init__(self, is_client: bool, max_inbound: int) -> None:
        self.accepted: list[Stream] = []
        self.touched: dict[Stream, None] = {}
        self.gone_away = False  # the other side wants to end the connection
        self.pongs = 0  # answers to our pings
        self.controls = 0  # frames without data that came
        self._streams: dict[int, Stream] = {}
        self._next_id = 1 if is_client else 2
        self._inbound_parity = 0 if is_client else 1
        self._inbound = 0
        self._max_inbound = max_inbound
        self._ready: OrderedDict[Stream, None] = OrderedDict()  # something can be sent on them
        self._control = bytearray()
        self._header = bytearray()  # the incomplete one
        self._body: Stream | None = None  # whose data frame is arriving; None: it is to be skipped
        self._body_left = 0
        self._body_flags = 0

    # Writing --------------------------------------------------------------------------------------------------

    def open(self) -> Stream:
        """A new stream; the other side learns of it with the first bytes written."""
        stream = Stream(self._next_id, inbound=False)
        self._next_id += 2
        self._streams[stream.id] = stream
        return stream

    def write(self, stream: Stream, data: bytes | bytearray | memoryview) -> None:
        """Queue data on a stream; how much waits is the caller's to bound. Ignored on a broken stream."""
        if stream.broken:
            return
        assert not stream.finished, "write after finish"
        stream.unsent += data
        if stream.send_window > 0:
            self._ready[stream] = None

    def finish(self, stream: Stream) -> None:
        """End our half after what was written."""
        if stream.finished or stream.broken:
            return
        stream.finished = stream.fin_due = True
        self._ready[stream] = None

    def abandon(self, stream: Stream) -> None:
        """Nobody reads or writes any more: end our half after what was written, and drop what still comes."""
        self.finish(stream)
        stream.unread.clear()
        stream.abandoned = stream.eof = True
        self.touched[stream] = None

    def reset(self, stream: Stream) -> None:
        """End both halves at once."""
        if stream.broken or self._streams.get(stream.id) is not stream:
            return
        if not stream.flags & _SYN:  # else the other side never heard of it
            self._control += _HEADER.pack(0, _WINDOW, _RST, stream.id, 0)
        self._break(stream)

    def ping(self) -> None:
        """Ask for a pong, which counts in `pongs`."""
        self._control += _HEADER.pack(0, _PING, _SYN, 0, 1)

    def go_away(self, protocol_error: bool = False) -> None:
        """Tell the other side that the connection ends."""
        self._control += _HEADER.pack(0, _GO_AWAY, 0, 0, int(protocol_error))

    def grant(self, stream: Stream, count: int) -> None:
        """The reader took `count` bytes. The other side may send as many again; it is told in half windows."""
        stream.credit += count
        if stream.credit >= stream.window // 2 and not stream.eof and not stream.broken:
            self._control += _HEADER.pack(0, _WINDOW, stream.flags, stream.id, stream.credit)
            stream.flags = 0
            stream.receive_window += stream.credit
            stream.credit = 0

    def widen(self, stream: Stream, window_bytes: int) -> None:
        """Let the other side have so many bytes under way, for streams in bulk over long distances; never fewer than
        before. 256 KiB are 5 MB/s at a round trip of 50 ms."""
        more = window_bytes - stream.window
        if more > 0:
            stream.window = window_bytes
            self.grant(stream, more)

    def take(self, max_bytes: int) -> bytes:
        """Bytes to be sent, at most `max_bytes`; b"" when nothing is to be sent now. Streams take turns."""
        out, self._control = self._control, bytearray()
        if len(out) > max_bytes:
            self._control = out[max_bytes:]
            return bytes(out[:max_bytes])
        while self._ready and len(out) + _HEADER.size < max_bytes:
            stream, _ = self._ready.popitem(last=False)
            room = max_bytes - len(out) - _HEADER.size
            size = min(len(stream.unsent), stream.send_window, room, _MAX_FRAME_BYTES)
            last = stream.fin_due and size == len(stream.unsent)
            if not size and not last:
                continue  # no window: the next window update makes it ready again
            flags = stream.flags | _FIN if last else stream.flags
            out += _HEADER.pack(0, _DATA, flags, stream.id, size)
            out += stream.unsent[:size]
            del stream.unsent[:size]
            stream.flags = 0
            stream.send_window -= size
            self.touched[stream] = None
            if last:
                stream.fin_due = False
                self._forget_if_over(stream)
            elif (stream.unsent and stream.send_window) or (stream.fin_due and not stream.unsent):
                self._ready[stream] = None
        return bytes(out)

    # Reading --------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take bytes from the connection. Raises YamuxError."""
        position, end = 0, len(data)
        while position < end:
            if self._body_left:
                size = min(self._body_left, end - position)
                if self._body is not None and not self._body.eof:
                    self._body.unread += data[position : position + size]
                    self.touched[self._body] = None
                self._body_left -= size
                position += size
                if not self._body_left:
                    self._end_body()
                continue
            if not self._header and end - position >= _HEADER.size:
                header = _HEADER.unpack_from(data, position)
                position += _HEADER.size
            else:
                part = data[position : position + _HEADER.size - len(self._header)]
                self._header += part
                position += len(part)
                if len(self._header) < _HEADER.size:
                    return
                header = _HEADER.unpack(self._header)
                self._header.clear()
            version, kind, flags, number, length = header
            if not (version or kind or flags) and 0 < length <= end - position:
                position = self._data(data, position, number, length)
            else:
                self._frame(version, kind, flags, number, length)

    def close(self) -> None:
        """The connection is over: every stream is broken."""
        for stream in list(self._streams.values()):
            self._break(stream)

    def _frame(self, version: int, kind: int, flags: int, number: int, length: int) -> None:
        if version != 0:
            raise YamuxError(f"yamux version {version}")
        if kind != _DATA or not length:
            self.controls += 1
        if kind in (_DATA, _WINDOW):
            stream = self._stream(flags, number)
            if kind == _DATA:
                self._begin_body(stream, flags, number, length)
            elif stream is not None:
                if length:
                    self._widen(stream, length)
                self._flags(stream, flags)
        elif kind == _PING:
            if flags & _SYN:
                self._answer(_HEADER.pack(0, _PING, _ACK, 0, length))
            else:
                self.pongs += 1
        elif kind == _GO_AWAY:
            self.gone_away = True
        else:
            raise YamuxError(f"yamux frame of type {kind}")

    def _data(self, data: bytes, position: int, number: int, length: int) -> int:
        """A plain data frame that has come as a whole, as nearly all do. Returns the position after it."""
        stream = self._streams.get(number)
        if stream is None or stream.eof or length > stream.receive_window:
            self._frame(0, _DATA, 0, number, length)
            return position
        stream.receive_window -= length
        stream.unread += data[position : position + length]
        self.touched[stream] = None
        return position + length

    def _stream(self, flags: int, number: int) -> Stream | None:
        """The stream of a frame; None when it is unknown, over, or one too many."""
        if not flags & _SYN:
            return self._streams.get(number)
        if number == 0 or number % 2 != self._inbound_parity or number in self._streams:
            raise YamuxError(f"yamux stream {number} cannot be opened by the other side")
        if self._inbound >= self._max_inbound:
            self._answer(_HEADER.pack(0, _WINDOW, _RST, number, 0))
            return None
        stream = self._streams[number] = Stream(number, inbound=True)
        self._inbound += 1
        self.accepted.append(stream)
        return stream

    def _begin_body(self, stream: Stream | None, flags: int, number: int, length: int) -> None:
        if stream is None:
            # Crossed with the end of the stream here; its sender should stop. Not for the end itself.
            if length and not flags & (_FIN | _RST):
                self._answer(_HEADER.pack(0, _WINDOW, _RST, number, 0))
            if length > WINDOW_BYTES:
                raise YamuxError(f"yamux frame of {length} bytes")
        else:
            if length > stream.receive_window or (stream.eof and not stream.abandoned):
                raise YamuxError(f"yamux stream {number}: {length} bytes beyond its window or its end")
            stream.receive_window -= length
        self._body, self._body_left, self._body_flags = stream, length, flags
        if not length:
            self._end_body()

    def _end_body(self) -> None:
        stream, self._body = self._body, None
        if stream is not None and not stream.broken:
            self._flags(stream, self._body_flags)

    def _flags(self, stream: Stream, flags: int) -> None:
        if flags & _RST:
            self._break(stream)
        elif flags & _FIN and not stream.eof:
            stream.eof = True
            self.touched[stream] = None
            self._forget_if_over(stream)

    def _widen(self, stream: Stream, length: int) -> None:
        stream.send_window += length
        if stream.send_window > _MAX_SEND_WINDOW:
            raise YamuxError(f"yamux stream {stream.id}: window of {stream.send_window} bytes")
        if stream.unsent:
            self._ready[stream] = None

    def _answer(self, frame: bytes) -> None:
        """Queue what the other side made us say."""
        self._control += frame
        if len(self._control) > _MAX_CONTROL_BYTES:
            raise YamuxError("yamux: the other side asks much and does not read the answers")

    def _break(self, stream: Stream) -> None:
        stream.broken = stream.eof = stream.finished = True
        stream.unsent.clear()
        self._ready.pop(stream, None)
        self.touched[stream] = None
        self._forget(stream)

    def _forget_if_over(self, stream: Stream) -> None:
        if stream.eof and stream.finished and not stream.fin_due and not stream.unsent:
            self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        if self._streams.pop(stream.id, None) is not None and stream.inbound:
            self._inbound -= 1

    @property
    def pending(self) -> bool:
        """Whether `take` has something to give."""
        return bool(self._control or self._ready)

    @property
    def streams(self) -> int:
        """How many streams are open in either direction."""
        return len(self._streams)
