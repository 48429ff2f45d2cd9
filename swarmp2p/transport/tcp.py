"""TCP connections and listeners whose writes never wait.

A `TcpPipe` writes at once what the system takes and keeps the rest; a connection's cipher and multiplexer can
therefore work in plain functions, and no cancelled task can leave half a packet behind. Reads take whatever has
arrived, up to 64 KiB.

py-libp2p's own listener binds with SO_REUSEPORT, so that a second peer on the same port goes unnoticed and
takes half of its connections; this one sets that option once it is bound, for dials of ours from the same port.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import trio
from libp2p.abc import IListener
from multiaddr.multiaddr import Multiaddr

from ..descriptors import OUT_OF_DESCRIPTORS, remedy
from ..errors import ListenError
from .addresses import host_and_port, to_multiaddr
from .pipe import Pipe

_CHUNK_BYTES: Final = 65_536
_BACKLOG: Final = 256
_IN_USE: Final = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL})
"""A connection between these two ends stands, or stood a minute ago."""

_CLOSED: Final = frozenset({errno.ECONNREFUSED, errno.ECONNRESET})
"""Nobody listens there, or a NAT says so for somebody who is not dialling us yet."""

_PUNCHES: Final = 6
_PUNCH_PAUSE_S: Final = 0.05  # doubled each time: 1.5 s in all

_WAIT_FOR: Final = OUT_OF_DESCRIPTORS | {errno.ENOBUFS, errno.ENOMEM}

_log = logging.getLogger(__name__)


class TcpPipe(Pipe):
    """One TCP connection. unsent: bytes that wait for the other side to read; `drain` sends them. local: (ip, port) of
    this end. shares_port: we dialled, from a port that we listen on."""

    def __init__(self, sock: socket.socket, is_initiator: bool) -> None:
        self.is_initiator = is_initiator
        self._socket = sock
        self._remote = _address_of(sock.getpeername())
        self.local = _address_of(sock.getsockname())
        self.shares_port = False
        self._kept = b""  # read and put back
        self._unsent = bytearray()
        self._closed = False

    @property
    def unsent(self) -> int:
        """How many bytes wait."""
        return len(self._unsent)

    def push(self, data: bytes) -> None:
        """Send what can be sent now and keep the rest. A broken connection takes everything and sends nothing:
        who reads from it will notice."""
        if self._closed:
            return
        if self._unsent:
            self._unsent += data
            return
        sent = self._send(data)
        if sent < len(data):
            self._unsent += data[sent:]

    async def drain(self) -> None:
        """Send what waits, until nothing does or the connection is closed."""
        while self._unsent and not self._closed:
            try:
                await trio.lowlevel.wait_writable(self._socket.fileno())
            except trio.ClosedResourceError:
                return
            with memoryview(self._unsent) as waiting:
                sent = self._send(waiting[:_CHUNK_BYTES])
            del self._unsent[:sent]

    async def receive(self) -> bytes:
        """The next bytes, at most 64 KiB; b"" at the end, however it came."""
        if self._kept:
            data, self._kept = self._kept, b""
            return data
        while not self._closed:
            try:
                await trio.lowlevel.wait_readable(self._socket.fileno())
                return self._socket.recv(_CHUNK_BYTES)
            except (BlockingIOError, InterruptedError):
                continue
            except (OSError, trio.ClosedResourceError):
                break
        return b""

    def unread(self, data: bytes) -> None:
        """Put bytes back in front of those to be read."""
        self._kept = data + self._kept

    def shut(self) -> None:
        """Close the connection; what waits is lost."""
        if not self._closed:
            self._closed = True
            self._unsent.clear()
            trio.lowlevel.notify_closing(self._socket.fileno())
            self._socket.close()

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            return len(data)

    def get_remote_address(self) -> tuple[str, int]:
        return self._remote


async def dial_tcp(host: str, port: int, sources: Sequence[tuple[str, int]] = ()) -> TcpPipe:
    """Connect. host: an IP address or a name. sources: where listeners of ours are bound; the connection leaves from
    one of them where it can, so that a NAT gives it the address at which others can dial the listener.

    Raises OSError when nobody listens, or the name is unknown.
    """
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # a name that multiaddr takes and Python's older IDNA does not
        raise OSError(errno.EADDRNOTAVAIL, f"{host!r} cannot be a host's name") from None
    problem: OSError | None = None
    for family, _, _, _, address in found:
        for source in (*_sources(sources, family, str(address[0])), None):
            try:
                return await _connect(family, address, source)
            except OSError as this:
                problem = this
                if source is None or this.errno not in _IN_USE:
                    break
    raise problem or OSError(errno.EADDRNOTAVAIL, f"{host} has no address")


async def _connect(family: int, address: tuple[Any, ...], source: tuple[str, int] | None) -> TcpPipe:
    sock = _new_socket(family)
    try:
        # Also where the system chooses the port: a hole may have to be punched from it (`punch_tcp`).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if source is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(source)
        await trio.socket.from_stdlib_socket(sock).connect(address)
        pipe = TcpPipe(sock, is_initiator=True)
        pipe.shares_port = source is not None
        return pipe
    except BaseException:
        sock.close()
        raise


async def punch_tcp(host: str, port: int, source: tuple[str, int]) -> TcpPipe | None:
    """Connect to somebody who connects to us at the same moment, from `source`, which may be the end of other
    connections and of a listener. Tried again while it is refused, six times at most; None when that is of no use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    pause_s = _PUNCH_PAUSE_S
    for _ in range(_PUNCHES):
        try:
            return await _connect(family, (host, port), source)
        except OSError as problem:
            if problem.errno not in _CLOSED:
                return None
        await trio.sleep(pause_s)
        pause_s *= 2
    return None


def _sources(bound: Sequence[tuple[str, int]], family: int, target: str) -> list[tuple[str, int]]:
    """Those of our listeners' ends that a connection to `target` can leave from; one at most."""
    if _is_loopback(target):
        return []  # nothing in between; and two peers that dial each other at once would meet in one connection
    fitting = [one for one in bound if (":" in one[0]) == (family == socket.AF_INET6)]
    return [one for one in fitting if not _is_loopback(one[0])][:1]


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


class TcpListener(IListener):
    """A listening socket, bound when made."""

    def __init__(self, address: Multiaddr) -> None:
        """address: /ip4 or /ip6 and /tcp. Raises ListenError when it cannot be bound."""
        host, port = host_and_port(address)
        try:
            self._socket = _new_socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as problem:  # no descriptor left, or no IPv6 here
            raise _listen_error(address, problem) from None
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if ":" in host:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.bind((host, port))
            self._socket.listen(_BACKLOG)
            if not _is_loopback(host):
                # Only now: another listener on this port was refused, and our own dials may leave from it.
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        except OSError as problem:
            self._socket.close()
            raise _listen_error(address, problem) from None
        self._bound = _address_of(self._socket.getsockname())
        self._closed = False
        self._warned = False

    @property
    def bound(self) -> tuple[str, int]:
        """(ip, port) where it listens; the port that the system chose for /tcp/0."""
        return self._bound

    async def serve(
        self,
        handler: Callable[[TcpPipe], Awaitable[None]],
        nursery: trio.Nursery,
        at_once: int,
        patience_s: float = 1.0,
    ) -> None:
        """Run `handler` in the nursery for each connection that comes, until the listener is closed.

        at_once: handlers that run at the same time; further connections wait in the system's queue. When they do, the
        connection whose handler has run for longest is shut once that is `patience_s` seconds: connections that say
        nothing must not keep others out.
        """
        running: dict[TcpPipe, float] = {}  # since when; oldest first
        room = trio.lowlevel.ParkingLot()

        async def run(pipe: TcpPipe) -> None:
            try:
                await handler(pipe)
            finally:
                running.pop(pipe, None)
                room.unpark_all()

        while not self._closed:
            while len(running) >= at_once:
                oldest, since = next(iter(running.items()))
                with trio.move_on_at(since + patience_s):
                    await room.park()
                if trio.current_time() >= since + patience_s and running.pop(oldest, None) is not None:
                    oldest.shut()
            pipe = await self._accept()
            if pipe is None:
                return
            running[pipe] = trio.current_time()
            nursery.start_soon(run, pipe)

    async def _accept(self) -> TcpPipe | None:
        while not self._closed:
            try:
                await trio.lowlevel.wait_readable(self._socket.fileno())
                sock, _ = self._socket.accept()
                return TcpPipe(_prepared(sock), is_initiator=False)
            except trio.ClosedResourceError:
                break
            except OSError as problem:  # the connection was gone before it was accepted, or
                if problem.errno in _WAIT_FOR:
                    self._warn(problem)
                    await trio.sleep(0.1)  # as trio.serve_listeners does: others may close theirs
        return None

    def _warn(self, problem: OSError) -> None:
        if not self._warned:  # once is enough: it may go on for long, ten times a second
            self._warned = True
            told = (problem.strerror or str(problem)).lower()
            advice = remedy(problem, "have programs on this machine use less memory")
            _log.warning("connections to this peer wait until one can be accepted: %s; %s", told, advice)

    async def listen(self, maddr: Multiaddr) -> None:
        """It listens already."""

    def get_addrs(self) -> tuple[Multiaddr, ...]:
        """Where it is bound."""
        return (Multiaddr(to_multiaddr(*self._bound)),)

    def shut(self) -> None:
        """Stop listening."""
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._socket.fileno())
            self._socket.close()

    async def close(self) -> None:
        """As `shut`."""
        self.shut()


def _listen_error(address: Multiaddr, problem: OSError) -> ListenError:
    advice = {
        errno.EADDRNOTAVAIL: "name an address that this machine has, or /ip4/0.0.0.0 for all of them",
        errno.EAFNOSUPPORT: "this machine has no such addresses: listen on one of another kind",
        errno.EACCES: "choose a port above 1023, or run with the right to bind it",
    }.get(problem.errno or 0, "")
    return ListenError(str(address), problem.strerror or str(problem), remedy(problem, advice))


def _new_socket(family: int) -> socket.socket:
    return _prepared(socket.socket(family, socket.SOCK_STREAM))


def _prepared(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _address_of(name: tuple[str, int] | tuple[str, int, int, int]) -> tuple[str, int]:
    return name[0].partition("%")[0], name[1]
