"""Accepting connections, also when no descriptors are left.

A listener is watched by level, since a round accepts only so many. When the process is out of descriptors, the
connection that waits stays, and the listener is ready again at once, for ever: the loop would spin. So one
descriptor is kept in reserve. It is given up to accept the connection and to close it, and taken again.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

_MOST_A_ROUND: Final = 32
_OUT_OF_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)


class Acceptor:
    """Accepts for all listeners of a plane. shed: connections closed because no descriptors were left."""

    __slots__ = ("_reserve", "shed")

    def __init__(self) -> None:
        self._reserve = self._take_reserve()
        self.shed = 0

    def accept(self, listening: socket.socket) -> list[tuple[socket.socket, str]]:
        """What has connected, at most 32, each with the address that it came from. They do not block."""
        accepted: list[tuple[socket.socket, str]] = []
        while len(accepted) < _MOST_A_ROUND:
            try:
                sock, address = listening.accept()
            except OSError as problem:
                # Others: nobody is left, or somebody went away again; if more wait, the next round comes at once.
                if problem.errno in _OUT_OF_DESCRIPTORS:
                    self._shed(listening)
                break
            sock.setblocking(False)
            accepted.append((sock, str(address[0])))
        return accepted

    def end(self) -> None:
        """Let go of the reserve."""
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1

    def _shed(self, listening: socket.socket) -> None:
        self.end()
        try:
            sock, _ = listening.accept()
        except OSError:
            pass  # somebody else took the descriptor; or nobody waits any more
        else:
            self.shed += 1
            sock.close()
        self._reserve = self._take_reserve()

    @staticmethod
    def _take_reserve() -> int:
        try:
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return -1
