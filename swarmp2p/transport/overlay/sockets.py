"""Where the plane's local sockets come from: its own network namespace, or a worker's cell.

A socket belongs for good to the namespace that it was made in. So a cell only has to make sockets and to pass
them out; the plane binds, listens and connects them itself, and no connection waits for the cell.

The wire between plane and cell (`ray_bridge/cell.py` is the other side), on a Unix SOCK_SEQPACKET socket:

    plane -> cell   2 bytes, big-endian: how many sockets are wanted, 1 to 128
    cell -> plane   b"s" with the descriptors (SCM_RIGHTS) of new IPv4 TCP sockets,
                    or b"e" and the errno in 2 bytes, big-endian

The plane does not wait for an answer: requests follow one another, and are answered in order.
"""

from __future__ import annotations

import array
import errno
import socket
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from .loop import Loop

MOST_AT_ONCE: Final = 128
"""Sockets that a request asks for at most; the kernel passes 253 descriptors in one message (SCM_MAX_FD)."""

_STOCK: Final = 16
"""Sockets kept for connections that may come; a Ray worker that starts opens about as many within 10 ms."""

_REQUESTS: Final = 2
"""Requests under way at a time: what is wanted meanwhile goes into one, so that 1,280 listeners take a dozen."""

Taker = Callable[[socket.socket | int], None]
"""Gets the socket, or the errno that says why there is none."""


class SocketSource(Protocol):
    """Makes TCP sockets."""

    def take(self, taker: Taker) -> None:
        """Give one new, non-blocking IPv4 TCP socket to the taker, at once or later."""
        ...

    def end(self) -> None:
        """Let go of what is in stock."""
        ...


class OwnSockets:
    """Sockets of the plane's own namespace."""

    def take(self, taker: Taker) -> None:
        try:
            made = socket.socket(
                socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            )
        except OSError as error:
            taker(error.errno or errno.EMFILE)
            return
        taker(made)

    def end(self) -> None:
        """There is no stock."""


class CellSockets:
    """Sockets of a cell. Who asks for one when the cell has died is told ENETDOWN.

    Takers wait in order; there are as many as connections and listeners are being made, which their own bounds
    limit.
    """

    def __init__(self, loop: Loop, channel: socket.socket) -> None:
        self._loop, self._channel = loop, channel
        channel.setblocking(False)
        self._stock: deque[socket.socket] = deque()
        self._takers: deque[Taker] = deque()
        self._asked: deque[int] = deque()
        self._underway = 0  # sockets asked for
        self._dead = False
        loop.watch_level(channel.fileno(), self)
        self._refill()

    def take(self, taker: Taker) -> None:
        if self._dead:
            taker(errno.ENETDOWN)
        elif self._stock:
            taker(self._stock.popleft())
        else:
            self._takers.append(taker)
        self._refill()

    def end(self) -> None:
        self._dead = True
        for sock in self._stock:
            sock.close()
        self._stock.clear()
        self._loop.close(self._channel)
        while self._takers:
            self._takers.popleft()(errno.ENETDOWN)

    def ready(self, mask: int) -> None:
        """Take in one answer of the cell."""
        try:
            answer, descriptors = receive_descriptors(self._channel, 16, MOST_AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            answer, descriptors = b"", []
        if not answer:
            self.end()
            return
        if self._asked:
            self._underway -= self._asked.popleft()
        for descriptor in descriptors:
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)
            made.setblocking(False)
            self._stock.append(made)
        while not descriptors and self._takers:
            self._takers.popleft()(int.from_bytes(answer[1:3], "big") or errno.EMFILE)
        while self._takers and self._stock:
            self._takers.popleft()(self._stock.popleft())
        if descriptors:
            self._refill()

    def _refill(self) -> None:
        while not self._dead and len(self._asked) < _REQUESTS:
            missing = len(self._takers) + _STOCK - len(self._stock) - self._underway
            if missing < _STOCK // 2 and (self._asked or not self._takers):
                return
            count = min(missing, MOST_AT_ONCE)
            try:
                self._channel.send(count.to_bytes(2, "big"))
            except BlockingIOError:
                return  # its answers will call this again
            except OSError:
                self.end()
                return
            self._asked.append(count)
            self._underway += count


def receive_descriptors(channel: socket.socket, most_bytes: int, most: int) -> tuple[bytes, list[int]]:
    """One packet and the descriptors that came with it, closed on exec. Raises OSError."""
    numbers = array.array("i")
    data, ancillary, _, _ = channel.recvmsg(
        most_bytes, socket.CMSG_SPACE(most * numbers.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
    return data, list(numbers)
