"""One carrier connection's socket: a TCP connection, or a socketpair that a libp2p stream is pumped through.

Bytes go straight from the socket into the session's buffer, and what the session seals goes to the socket in one
vectored write. What the session gave out and the socket has not taken waits in `_unsent`, at most one portion: what
is decided late can still be overtaken by a short message.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from .loop import ENDING, ERROR, READABLE, WRITABLE

if TYPE_CHECKING:
    from .carrier import Carrier
    from .partner import Partner

TCP: Final = "tcp"
STREAM: Final = "stream"

_PORTION_BYTES: Final = 262_144
_MAX_VECTORS: Final = 512  # of the 1,024 that sendmsg(2) takes (IOV_MAX)
_UNSENT_BYTES: Final = 524_288
"""Bytes that the kernel holds unsent before the socket counts as writable no more (TCP_NOTSENT_LOWAT): what a short
message may have to wait behind."""


def prepare(sock: socket.socket) -> None:
    """Set the options of a carrier's TCP socket, before it connects or when it was accepted."""
    sock.setblocking(False)
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)


class Connection:
    """See the module. kind: TCP or STREAM. carrier: its side in the session. readable, writable: whether the socket
    may have, or take, more."""

    __slots__ = ("_ending", "_partner", "_unsent", "carrier", "kind", "readable", "socket", "writable")

    def __init__(self, partner: Partner, sock: socket.socket, kind: str, carrier: Carrier) -> None:
        self._partner, self.socket, self.kind, self.carrier = partner, sock, kind, carrier
        self.readable = self.writable = self._ending = False
        self._unsent: list[bytes | memoryview] = []
        partner.loop.watch(sock.fileno(), self)

    def ready(self, mask: int) -> None:
        """The loop's: something happened to the socket."""
        if mask & (READABLE | ERROR):
            self.readable = True
            if mask & ENDING:
                self._ending = True
        if mask & WRITABLE:
            self.writable = True
        partner = self._partner
        alone = partner.loop.alone and mask & READABLE and not mask & (ENDING | ERROR) and self.idle
        if not (alone and partner.read_alone(self)):
            partner.mark()

    @property
    def idle(self) -> bool:
        """Whether it takes what is written now."""
        return self.writable and not self._unsent

    def write_now(self, record: bytes) -> None:
        """Write a record to an idle connection; what it does not take, or an error, is left to `write`."""
        try:
            sent = self.socket.send(record)
        except BlockingIOError:
            self.writable = False
            sent = 0
        except OSError:
            sent = 0
        self._partner.sent_bytes += sent
        if sent < len(record):
            self._unsent = [memoryview(record)[sent:]]
            self._partner.mark()

    def read(self, most: int) -> int | None:
        """Read one portion, of at most so many bytes, into the session's buffer. Returns how many there were; None when
        the connection has ended."""
        room = self.carrier.buffer()[:most]
        try:
            count = self.socket.recv_into(room)
        except BlockingIOError:
            self.readable = False
            return 0
        except OSError:
            return None
        if count < len(room):
            if not count:
                return None
            self.readable = self._ending
        return count

    def write(self, now: float) -> bool:
        """Write until the socket takes no more or nothing is left. Returns whether the connection stands."""
        while self.writable:
            unsent = self._unsent
            if not unsent:
                unsent = self._unsent = [*self.carrier.outgoing(_PORTION_BYTES, now)]
                if not unsent:
                    break
            try:
                sent = self.socket.sendmsg(unsent[:_MAX_VECTORS] if len(unsent) > _MAX_VECTORS else unsent)
            except BlockingIOError:
                self.writable = False
                break
            except OSError:
                return False
            self._partner.sent_bytes += sent
            done = 0
            for piece in unsent:
                if sent < len(piece):
                    break
                sent -= len(piece)
                done += 1
            if done == len(unsent):
                self._unsent = []
            else:
                del unsent[:done]
                if sent:
                    unsent[0] = memoryview(unsent[0])[sent:]
        return True

    def close(self) -> None:
        """End the connection."""
        self._unsent = []
        self._partner.loop.close(self.socket)
