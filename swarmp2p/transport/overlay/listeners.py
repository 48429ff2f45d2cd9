"""Local listeners at the addresses and ports of other members.

There may be thousands (20 members with 64 ports each), so one costs a descriptor, a small object and an entry in the
epoll. The sockets come from the plane's `SocketSource`, 128 at a time where a cell makes them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from .accepting import Acceptor
from .loop import Loop
from .sockets import SocketSource

if TYPE_CHECKING:
    from .partner import Partner

MOST: Final = 16_384
"""Listeners of a plane. The limit of open files, usually 2^20 on a server and 2^19 on a desktop, is higher."""

_BACKLOG: Final = 128

Done = Callable[[str | None], None]
"""Is told when all listeners of a request stand (None), or why not."""


class LocalListener:
    """One listening socket. partner: whose port it stands for."""

    __slots__ = ("_acceptor", "_partner", "port", "socket")

    def __init__(self, acceptor: Acceptor, partner: Partner, sock: socket.socket, port: int) -> None:
        self._acceptor, self._partner, self.socket, self.port = acceptor, partner, sock, port

    def ready(self, mask: int) -> None:
        """The loop's: connections wait."""
        for sock, _ in self._acceptor.accept(self.socket):
            self._partner.accept(sock, self.port)


class LocalListeners:
    """The listeners of a plane, by member."""

    def __init__(self, loop: Loop, source: SocketSource, acceptor: Acceptor) -> None:
        self._loop, self._source, self.acceptor = loop, source, acceptor
        self._by_target: dict[bytes, dict[tuple[str, int], LocalListener]] = {}
        self.count = 0

    def listen(self, partner: Partner, address: str, ports: Sequence[int], done: Done) -> None:
        """Listen at a member's ports, those that do not stand already. All or none; done is told."""
        own = self._by_target.setdefault(partner.target, {})
        wanted = [port for port in ports if (address, port) not in own]
        if self.count + len(wanted) > MOST:
            done(f"a plane has at most {MOST} listeners, and {self.count} stand already")
            return
        if not wanted:
            done(None)
            return
        _Request(self, self._loop, partner, address, wanted, done).start(self._source)

    def unlisten(self, target: bytes, some: Sequence[tuple[str, int]] | None = None) -> None:
        """Close the listeners of a member: all, or those at some addresses and ports."""
        own = self._by_target.get(target, {})
        for at in list(own) if some is None else some:
            listener = own.pop(at, None)
            if listener is not None:
                self._loop.close(listener.socket)
                self.count -= 1
        if not own:
            self._by_target.pop(target, None)

    def add(self, partner: Partner, address: str, made: list[LocalListener]) -> None:
        """A request is done."""
        own = self._by_target.setdefault(partner.target, {})
        for listener in made:
            own[address, listener.port] = listener
            self.count += 1
            self._loop.watch_level(listener.socket.fileno(), listener)

    def end(self) -> None:
        """Close all."""
        for target in list(self._by_target):
            self.unlisten(target)


class _Request:
    """Listeners in the making: bound one by one as sockets come, watched when all are."""

    def __init__(
        self,
        listeners: LocalListeners,
        loop: Loop,
        partner: Partner,
        address: str,
        ports: list[int],
        done: Done,
    ) -> None:
        self._listeners, self._loop, self._partner = listeners, loop, partner
        self._address, self._ports, self._done = address, ports, done
        self._left = list(reversed(ports))
        self._made: list[LocalListener] = []
        self._problem: str | None = None

    def start(self, source: SocketSource) -> None:
        """Ask for the sockets."""
        for _ in self._ports:
            source.take(self._take)

    def _take(self, made: socket.socket | int) -> None:
        port = self._left.pop()
        if isinstance(made, int):
            self._problem = self._problem or f"no socket can be made: {os.strerror(made)}"
        elif self._problem is not None:
            made.close()
        else:
            try:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind((self._address, port))
                made.listen(_BACKLOG)
            except (OSError, OverflowError) as error:
                made.close()
                self._problem = f"cannot listen on {self._address}:{port}: {error}"
            else:
                self._made.append(LocalListener(self._listeners.acceptor, self._partner, made, port))
        if self._left:
            return
        if self._problem is None:
            self._listeners.add(self._partner, self._address, self._made)
        else:
            for listener in self._made:
                self._loop.close(listener.socket)
        self._done(self._problem)
