"""How the initiating side of a pair gets a carrier: endpoints in turn, again and again, ever more slowly.

    idle -> connecting (a new attempt every `_STAGGER_S`, the first that stands is taken) -> idle
                 `-> all failed: ask for a libp2p stream, and wait `_pause_s` -> connecting ...

A carrier that broke must be back before the session's limit of silence (1.5 s and more), hence the first attempt
comes at once and the first pauses are short. While only a stream is there, TCP is tried again every
`_BETTER_S`. An endpoint that took our connection and then did not prove to be the other plane (another machine at
the same private address, say) is tried again after those that did not.
"""

from __future__ import annotations

import errno
import math
import socket
from collections.abc import Callable, Sequence
from typing import Final

from .connection import prepare
from .loop import ERROR, WRITABLE, Loop

_STAGGER_S: Final = 0.25
"""Seconds that one attempt has before the next is begun beside it (RFC 8305's Connection Attempt Delay)."""
_GIVE_UP_S: Final = 5.0
"""Seconds after which an attempt has failed."""
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 5.0
_BETTER_S: Final = 15.0
"""Seconds between attempts at TCP while a stream carries. A guess."""

MOST_ENDPOINTS: Final = 16

Endpoint = tuple[str, int]


class Attempt:
    """One TCP connection in the making."""

    __slots__ = ("_dialler", "endpoint", "give_up_at", "socket")

    def __init__(self, dialler: Dialler, sock: socket.socket, endpoint: Endpoint, give_up_at: float) -> None:
        self._dialler, self.socket, self.endpoint, self.give_up_at = dialler, sock, endpoint, give_up_at

    def ready(self, mask: int) -> None:
        """The loop's: it stands, or failed."""
        if mask & (WRITABLE | ERROR):
            self._dialler.settled(self)


class Dialler:
    """See the module.

    connected: called with a connected socket, which it then owns. lacking: called when a round over all endpoints
    (there may be none) has failed. wake_at: when `wake` must be called; math.inf when idle.
    """

    def __init__(
        self, loop: Loop, connected: Callable[[socket.socket], None], lacking: Callable[[], None]
    ) -> None:
        self._loop, self._connected, self._lacking = loop, connected, lacking
        self._endpoints: list[Endpoint] = []
        self._attempts: dict[int, Attempt] = {}
        self._left: list[Endpoint] = []  # of this round
        self._next_at = math.inf
        self._pause_s = _FIRST_PAUSE_S
        self._used: Endpoint | None = None
        self.wake_at = math.inf

    def aim(self, endpoints: Sequence[Endpoint]) -> None:
        """Set where to dial."""
        self._endpoints = list(endpoints[:MOST_ENDPOINTS])
        self._pause_s = _FIRST_PAUSE_S

    def start(self) -> None:
        """Get a connection as soon as possible, unless that is under way."""
        if not self._attempts and not self._left and self._next_at > self._loop.now:
            self._begin()

    def proved(self) -> None:
        """The connection that was made is a carrier."""
        self._pause_s = _FIRST_PAUSE_S

    def failed(self) -> None:
        """The connection that was made did not become a carrier: try the others first, later."""
        if self._used in self._endpoints:
            self._endpoints.remove(self._used)
            self._endpoints.append(self._used)
        self._used = None
        self._wait()

    def rest(self, better: bool) -> None:
        """A carrier is there: stop. better: look for a better one later."""
        self._abandon()
        self._next_at = self._loop.now + _BETTER_S if better and self._endpoints else math.inf
        self._set()

    def wake(self) -> None:
        """`wake_at` has come."""
        now = self._loop.now
        for attempt in [each for each in self._attempts.values() if each.give_up_at <= now]:
            self._drop(attempt)
        if self._next_at <= now:
            if self._left:
                self._attempt()
            else:
                self._begin()
        elif not self._attempts and not self._left and self._next_at == math.inf:
            self._lacks()
        self._set()

    def settled(self, attempt: Attempt) -> None:
        """An attempt stands or failed."""
        sock = attempt.socket
        status = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if status != 0 or _is_own(sock):
            self._drop(attempt)
            self._proceed()
            return
        self._attempts.pop(sock.fileno(), None)
        self._loop.forget(sock.fileno())
        self._used = attempt.endpoint
        self.rest(better=False)
        self._connected(sock)

    def end(self) -> None:
        """Stop for good."""
        self._abandon()
        self._endpoints = []
        self._next_at = self.wake_at = math.inf

    def _begin(self) -> None:
        """A round over all endpoints."""
        self._left = list(self._endpoints)
        self._next_at = math.inf
        if self._left:
            self._attempt()
        else:
            self._lacks()
        self._set()

    def _attempt(self) -> None:
        endpoint = self._left.pop(0)
        now = self._loop.now
        self._next_at = now + _STAGGER_S if self._left else math.inf
        family = socket.AF_INET6 if ":" in endpoint[0] else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError:
            self._proceed()
            return
        try:
            prepare(sock)
            status = sock.connect_ex(endpoint)
        except (OSError, OverflowError, UnicodeError):
            status = errno.EINVAL
        if status not in (0, errno.EINPROGRESS):
            sock.close()
            self._proceed()
            return
        self._attempts[sock.fileno()] = attempt = Attempt(self, sock, endpoint, now + _GIVE_UP_S)
        self._loop.watch(sock.fileno(), attempt)
        self._set()

    def _proceed(self) -> None:
        """An attempt failed: the next one, or, when it was the last, the pause."""
        if self._left:
            self._attempt()
        elif not self._attempts:
            self._lacks()
        self._set()

    def _lacks(self) -> None:
        self._wait()
        self._lacking()

    def _wait(self) -> None:
        self._next_at = self._loop.now + self._pause_s
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        self._set()

    def _drop(self, attempt: Attempt) -> None:
        self._attempts.pop(attempt.socket.fileno(), None)
        self._loop.close(attempt.socket)

    def _abandon(self) -> None:
        for attempt in list(self._attempts.values()):
            self._drop(attempt)
        self._left = []

    def _set(self) -> None:
        give_up = min([attempt.give_up_at for attempt in self._attempts.values()], default=math.inf)
        self.wake_at = min(self._next_at, give_up)


def _is_own(sock: socket.socket) -> bool:
    """Whether a socket connected to itself, which TCP does when both ports happen to be the same; or is not
    connected at all."""
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:
        return True
