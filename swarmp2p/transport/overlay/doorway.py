"""Where carrier connections come in, and wait until it is known whose they are.

A connection begins with the initiator's hello (`crypto.py`); until it is complete, the connection costs no more than
a descriptor and those bytes, and no session hears of it. Bounds: `MOST_WAITING` connections wait, the one that has
waited longest makes place for a new one; at most `MOST_OF_A_SOURCE` of them come from one address, or as streams of
one member; each has `PATIENCE_S`. A hello that names a session which we do not have yet waits as well, since the other
side may be told of a lease a little before us. A probe (`dialling.py`) is answered once, and a hello may follow it.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from typing import Final

from .accepting import Acceptor
from .connection import STREAM, TCP, prepare
from .crypto import FIRST_BYTES as HELLO_BYTES
from .crypto import TAG_BYTES
from .dialling import PROBE, PROBED, Endpoint
from .loop import Loop

MOST_WAITING: Final = 128
MOST_OF_A_SOURCE: Final = 16
"""Connections without a proven hello from one address. Many planes may share one behind a NAT. Of IPv6 a whole /64
counts as one: that is what a single machine has."""
PATIENCE_S: Final = 3.0
_BACKLOG: Final = 128

Claim = Callable[[socket.socket, str, bytes], bool | None]
"""Gets a connection with its kind and hello, and says whether it took it; None: nobody knows that session yet.
After False or None the socket is still the doorway's."""


class Waiting:
    """A connection whose hello is not complete, or names a session that is not known yet."""

    __slots__ = ("_doorway", "hello", "kind", "probed", "socket", "source", "until")

    def __init__(self, doorway: Doorway, sock: socket.socket, kind: str, source: str, until: float) -> None:
        self._doorway, self.socket, self.kind, self.source, self.until = doorway, sock, kind, source, until
        self.hello = b""
        self.probed = False

    def ready(self, mask: int) -> None:
        """The loop's: more of the hello, or its end."""
        self._doorway.read(self)


class Listener:
    """A socket on which carriers come in."""

    __slots__ = ("_doorway", "socket")

    def __init__(self, doorway: Doorway, sock: socket.socket) -> None:
        self._doorway, self.socket = doorway, sock

    def ready(self, mask: int) -> None:
        """The loop's: connections wait."""
        self._doorway.accept(self.socket)


class Doorway:
    """See the module. knows: whether a tag names a session of ours. claim: whose a connection is. counters: what was
    turned away, by cause."""

    def __init__(
        self,
        loop: Loop,
        acceptor: Acceptor,
        knows: Callable[[bytes], bool],
        claim: Claim,
        counters: dict[str, int],
    ) -> None:
        self._loop, self._acceptor, self._knows, self._claim = loop, acceptor, knows, claim
        self._counters = counters
        self._listeners: list[Listener] = []
        self._waiting: dict[int, Waiting] = {}  # by descriptor; in order of arrival
        self._sources: dict[str, int] = {}
        self.wake_at = math.inf
        loop.timed.append(self)

    def listen(self, endpoint: Endpoint) -> Endpoint:
        """Take carriers at an address; port 0 for any. Returns where. Raises OSError."""
        family = socket.AF_INET6 if ":" in endpoint[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(endpoint)
            sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            raise
        listener = Listener(self, sock)
        self._listeners.append(listener)
        self._loop.watch_level(sock.fileno(), listener)
        where = sock.getsockname()
        return where[0], where[1]

    def accept(self, listening: socket.socket) -> None:
        """Take in what has connected."""
        for sock, address in self._acceptor.accept(listening):
            prepare(sock)
            self._admit(sock, TCP, source_of(address))

    def admit_stream(self, sock: socket.socket, member: bytes) -> None:
        """A libp2p stream's connection, which begins with a hello too. member: who is said to have opened it."""
        sock.setblocking(False)
        self._admit(sock, STREAM, member.hex())

    def known(self) -> None:
        """A session has become known: offer again those whose hello is complete."""
        for waiting in list(self._waiting.values()):
            if len(waiting.hello) == HELLO_BYTES:
                self._offer(waiting)

    def read(self, waiting: Waiting) -> None:
        """Read more of a hello, and not a byte beyond it."""
        while True:
            while missing := HELLO_BYTES - len(waiting.hello):
                try:
                    data = waiting.socket.recv(missing)
                except BlockingIOError:
                    return
                except OSError:
                    data = b""
                if not data:
                    self._counters["no_hello"] += 1
                    self._turn_away(waiting)
                    return
                waiting.hello += data
            if not waiting.hello.startswith(PROBE):
                self._offer(waiting)
                return
            if not self._answer(waiting):
                self._turn_away(waiting)
                return

    def wake(self) -> None:
        """Turn those away who took too long."""
        now = self._loop.now
        for waiting in list(self._waiting.values()):
            if waiting.until > now:
                break
            self._counters["unknown" if len(waiting.hello) == HELLO_BYTES else "no_hello"] += 1
            self._turn_away(waiting)
        self._set_wake()

    def end(self) -> None:
        """Close everything."""
        for listener in self._listeners:
            self._loop.close(listener.socket)
        for waiting in list(self._waiting.values()):
            self._turn_away(waiting)

    def _admit(self, sock: socket.socket, kind: str, source: str) -> None:
        if self._sources.get(source, 0) >= MOST_OF_A_SOURCE:
            self._counters["source_full"] += 1
            sock.close()
            return
        if len(self._waiting) >= MOST_WAITING:
            self._counters["crowded_out"] += 1
            self._turn_away(next(iter(self._waiting.values())))
        waiting = Waiting(self, sock, kind, source, self._loop.now + PATIENCE_S)
        self._waiting[sock.fileno()] = waiting
        self._sources[source] = self._sources.get(source, 0) + 1
        self._loop.watch(sock.fileno(), waiting)
        self._set_wake()

    def _answer(self, waiting: Waiting) -> bool:
        """Say that the session that a probe names is ours; a hello may follow. Returns whether it was said."""
        if waiting.probed or not self._knows(waiting.hello[len(PROBE) : len(PROBE) + TAG_BYTES]):
            self._counters["unknown"] += 1
            return False
        waiting.hello = b""
        waiting.probed = True
        try:
            waiting.socket.send(PROBED)
        except OSError:
            return False
        return True

    def _offer(self, waiting: Waiting) -> None:
        self._loop.forget(waiting.socket.fileno())
        taken = self._claim(waiting.socket, waiting.kind, waiting.hello)
        if taken is None:
            # its end is not waited for any more: it goes when its time is over
            return
        if not taken:
            self._counters["forged"] += 1
            self._turn_away(waiting)
        else:
            self._release(waiting)

    def _turn_away(self, waiting: Waiting) -> None:
        self._release(waiting)
        self._loop.close(waiting.socket)

    def _release(self, waiting: Waiting) -> None:
        self._waiting.pop(waiting.socket.fileno(), None)
        left = self._sources.get(waiting.source, 0) - 1
        if left > 0:
            self._sources[waiting.source] = left
        else:
            self._sources.pop(waiting.source, None)
        self._set_wake()

    def _set_wake(self) -> None:
        first = next(iter(self._waiting.values()), None)
        self.wake_at = math.inf if first is None else first.until


def source_of(address: str) -> str:
    """Whom connections from an address are counted for."""
    if ":" not in address:
        return address
    return socket.inet_pton(socket.AF_INET6, address.partition("%")[0])[:8].hex()
