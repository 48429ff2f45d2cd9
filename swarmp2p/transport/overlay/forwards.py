"""One forwarded TCP connection: a local socket on one side, a channel of the session on the other.

    accepted here:  Local listener -> Forward (open) -> channel -> ... -> Forward on the other machine
    opened there:   channel -> Forward (connecting -> open) -> the served port

What is read locally goes into the session at once, at most as much as the channel has credit for; what comes from
the session goes to the local socket at once, and waits in `_pending` while that takes nothing. Credit returns to the
other side only for what the socket took, so `_pending` never exceeds the channel's window. Small pieces are joined
in it: each by itself would cost 60 bytes of memory, however small.

Either direction ends by itself (half-close), and the connection when both have. An error of the local socket, and
a reset by the other side, end it at once; a local reset is passed on as one (SO_LINGER 0 makes close(2) send RST).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Final

from .loop import ENDING, ERROR, READABLE, WRITABLE

if TYPE_CHECKING:
    from .partner import Partner

_SMALLEST_READ_BYTES: Final = 16_384
_LARGEST_READ_BYTES: Final = 262_144
"""Reads grow to this while they fill: larger ones gained nothing here, and would cost memory per connection."""

_SMALL_BYTES: Final = 2048
_JOINED_BYTES: Final = 16_384

_ABORT: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 s


class Forward:
    """See the module. channel: the session's number of it. port: which the other side asked for, or 0. queued: whether
    the partner will call `read`."""

    __slots__ = (
        "_connecting",
        "_ending",
        "_finished_here",
        "_finished_there",
        "_partner",
        "_pending",
        "_read_bytes",
        "_readable",
        "_socket",
        "channel",
        "port",
        "queued",
    )

    def __init__(self, partner: Partner, sock: socket.socket | None, channel: int, port: int = 0) -> None:
        self._partner, self._socket, self.channel, self.port = partner, sock, channel, port
        self._connecting = sock is None
        self._readable = self._ending = False
        self._finished_here = self._finished_there = False
        self._pending: deque[memoryview | bytes | bytearray] | None = None
        self._read_bytes = _SMALLEST_READ_BYTES
        self.queued = False
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            partner.loop.watch(sock.fileno(), self)

    # The local side ---------------------------------------------------------------------------------------------

    def connect(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """Begin to connect a forward that the other side opened."""
        self._socket = sock
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            status = sock.connect_ex(address)
        except OSError as error:
            status = error.errno or errno.ECONNREFUSED
        if status not in (0, errno.EINPROGRESS):
            self._partner.reset(self)
            return
        self._partner.loop.watch(sock.fileno(), self)

    def ready(self, mask: int) -> None:
        """The loop's: something happened to the local socket."""
        sock = self._socket
        if sock is None:
            return
        if mask & ERROR:
            self._partner.reset(self)
            return
        if mask & READABLE:
            self._readable = True
            if mask & ENDING:
                self._ending = True
            if not self.queued and not self._connecting and not self._pass_on(sock):
                self._partner.queue(self)
        if mask & WRITABLE:
            if self._connecting:
                self._connecting = False
                if self._readable and not self.queued:
                    self._partner.queue(self)
            if self._pending is not None:
                self._flush(sock)

    def _pass_on(self, sock: socket.socket) -> bool:
        """Move a short message straight to the carrier, if it is all that there is to do. Returns whether it was."""
        partner = self._partner
        session = partner.session
        if (
            not partner.loop.alone
            or self._ending
            or self._finished_here
            or self._read_bytes != _SMALLEST_READ_BYTES
            or session is None
            or (carrier := partner.idle_carrier()) is None
            or session.room(self.channel) < _SMALLEST_READ_BYTES
        ):
            return False
        try:
            data = sock.recv(_SMALLEST_READ_BYTES)
        except OSError:
            return False  # `read` meets it again
        record = None
        if 0 < len(data) < _SMALLEST_READ_BYTES:
            self._readable = False
            record = session.send_at_once(carrier.carrier, self.channel, data, partner.loop.now)
        if record is not None:
            carrier.write_now(record)
            return True
        session.send(self.channel, data)
        partner.mark()
        return not self._readable

    def read(self) -> bool:
        """Move one piece from the local socket to the channel. Returns whether to call again soon."""
        sock, session = self._socket, self._partner.session
        if not self._readable or self._finished_here or sock is None or session is None:
            return False
        room = session.room(self.channel)
        if room <= 0:
            return False  # Room will come
        most = min(room, self._read_bytes)
        try:
            data = sock.recv(most)
        except BlockingIOError:
            self._readable = False
            return False
        except OSError:
            self._partner.reset(self)
            return False
        if not data:
            self._readable = False
            self._finished_here = True
            session.finish(self.channel)
            self._end_if_done()
            return False
        session.send(self.channel, data)
        if len(data) < _SMALL_BYTES:
            self._read_bytes = _SMALLEST_READ_BYTES  # the bulk is over
        if len(data) < most and not self._ending:
            self._readable = False  # drained: the next byte, or the end, is a new edge (epoll(7))
            return False
        if most == self._read_bytes and most < _LARGEST_READ_BYTES:
            self._read_bytes = most * 4
        return True

    # The channel's side -----------------------------------------------------------------------------------------

    def deliver(self, data: bytes | memoryview) -> None:
        """Data came."""
        pending = self._pending
        if pending is not None:
            last = pending[-1] if pending else None
            if len(data) >= _SMALL_BYTES:
                pending.append(data)
            elif isinstance(last, bytearray) and len(last) < _JOINED_BYTES:
                last += data
            else:
                pending.append(bytearray(data))
            return
        sock = self._socket
        sent = 0
        if sock is not None and not self._connecting:
            try:
                sent = sock.send(data)
            except BlockingIOError:
                pass
            except OSError:
                self._partner.reset(self)
                return
            if sent:
                self._partner.consumed(self, sent)
        if sent < len(data):
            self._pending = deque((memoryview(data)[sent:],))

    def finish(self) -> None:
        """The other side sends no more."""
        self._finished_there = True
        if self._pending is None and self._socket is not None and not self._connecting:
            self._shut(self._socket)

    def room(self) -> None:
        """There is credit again."""
        if self._readable and not self.queued and not self._connecting:
            self._partner.queue(self)

    def abort(self) -> None:
        """End the local connection with a reset; the partner has forgotten this forward."""
        sock, self._socket = self._socket, None
        self._pending = None
        if sock is not None:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            except OSError:
                pass
            self._partner.loop.close(sock)

    def _flush(self, sock: socket.socket) -> None:
        """Send what waits, as far as the local socket takes it."""
        pending = self._pending
        taken = 0
        try:
            while pending:
                piece = pending[0]
                sent = sock.send(piece)
                taken += sent
                if sent < len(piece):
                    pending[0] = memoryview(piece)[sent:]
                    break
                pending.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._partner.reset(self)
            return
        if taken:
            self._partner.consumed(self, taken)
        if not pending:
            self._pending = None
            if self._finished_there:
                self._shut(sock)

    def _shut(self, sock: socket.socket) -> None:
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._partner.reset(self)
            return
        self._end_if_done()

    def _end_if_done(self) -> None:
        """Close when both directions have ended and everything was delivered."""
        if self._finished_here and self._finished_there and self._pending is None and not self._connecting:
            sock, self._socket = self._socket, None
            if sock is not None:
                self._partner.loop.close(sock)
            self._partner.forget(self)
