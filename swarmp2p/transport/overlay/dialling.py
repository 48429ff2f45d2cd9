"""How the initiating side of a pair gets a carrier: endpoints in turn, again and again, ever more slowly.

    idle -> connecting (a new attempt every `_STAGGER_S`, the first that stands is taken) -> idle
                 `-> all failed: ask for a libp2p stream, and wait `_pause_s` -> connecting ...

A carrier that broke must be back before the session's limit of silence (1.5 s and more), hence the first attempt
comes at once and the first pauses are short. Who lets us connect only to hang up again makes us pause, too: as long as
this comes again within `_STEADY_S`, ever longer. An endpoint that took our connection and then did not prove to be the
other plane (another machine at the same private address, say) has failed like one that did not answer: the round goes
on with those that are left.

While a libp2p stream carries, TCP is tried again every `_BETTER_S`, with care: a session has one carrier, and to begin
on a new one gives the old one up. So such an attempt first asks, by a probe, whether a plane with this session is
there. The answer proves nothing, but mistakes are found out without harm.

    initiator -> responder   PROBE | tag of the session | zeros, as long as a hello
    responder -> initiator   PROBED, and the connection goes on as any other; or its end
"""

from __future__ import annotations

import errno
import math
import socket
from collections.abc import Callable, Sequence
from typing import Final

from .connection import prepare
from .crypto import FIRST_BYTES
from .loop import ERROR, READABLE, WRITABLE, Loop

_STAGGER_S: Final = 0.25
"""Seconds that one attempt has before the next is begun beside it (RFC 8305's Connection Attempt Delay)."""
_GIVE_UP_S: Final = 5.0
"""Seconds after which an attempt has failed."""
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 5.0
_STEADY_S: Final = 5.0
_LONGEST_QUICK_S: Final = 0.8
"""The longest such pause: short of the silence after which the session would be over."""
_BETTER_S: Final = 15.0
"""Seconds between attempts at TCP while a stream carries. A guess."""

MOST_ENDPOINTS: Final = 16

PROBE: Final = b"swarm carrier?\n\0"
"""16 bytes where a hello has its tag, which nobody can choose."""
PROBED: Final = b"!"

Endpoint = tuple[str, int]


class Attempt:
    """One TCP connection in the making. probing: it stands, and was asked whether the right plane is there."""

    __slots__ = ("_dialler", "endpoint", "give_up_at", "probing", "socket")

    def __init__(self, dialler: Dialler, sock: socket.socket, endpoint: Endpoint, give_up_at: float) -> None:
        self._dialler, self.socket, self.endpoint, self.give_up_at = dialler, sock, endpoint, give_up_at
        self.probing = False

    def ready(self, mask: int) -> None:
        """The loop's: it stands, has an answer, or failed."""
        if mask & (READABLE if self.probing else WRITABLE | ERROR):
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
        self._taken: Endpoint = ("", 0)
        self._tag = b""
        self._careful = False
        self._started_at = -math.inf
        self._quick_s = 0.0
        self.wake_at = math.inf

    def aim(self, endpoints: Sequence[Endpoint], tag: bytes) -> None:
        """Set where to dial. tag: of the session."""
        self._endpoints = list(endpoints[:MOST_ENDPOINTS])
        self._tag = tag
        self._pause_s = _FIRST_PAUSE_S
        self._started_at = -math.inf

    def move(self, endpoints: Sequence[Endpoint]) -> None:
        """The other side is elsewhere: the next round goes there. What is under way goes on."""
        self._endpoints = list(endpoints[:MOST_ENDPOINTS])
        self._pause_s = _FIRST_PAUSE_S
        if self._careful and not (self._attempts or self._left):
            self._next_at = self._loop.now + _BETTER_S  # there may have been none to try
            self._set()

    def start(self) -> None:
        """Get a connection as soon as possible, unless that is under way."""
        if self._careful or not (self._attempts or self._left):
            self._abandon()
            self._careful = False
            now = self._loop.now
            pause_s = self._quick_s if now - self._started_at < _STEADY_S else 0.0
            self._started_at = now
            self._quick_s = min(max(2 * pause_s, _FIRST_PAUSE_S), _LONGEST_QUICK_S)
            if pause_s:
                self._next_at = now + pause_s
                self._set()
            else:
                self._begin()

    def proved(self) -> None:
        """The connection that was made is a carrier: its endpoint comes first from now on."""
        self._pause_s = _FIRST_PAUSE_S
        if self._taken in self._endpoints:
            self._endpoints.remove(self._taken)
            self._endpoints.insert(0, self._taken)

    def failed(self) -> None:
        """The connection that was made did not become a carrier: on with the others."""
        self._careful = False
        self._proceed()

    def rest(self, better: bool) -> None:
        """A carrier is there: stop. better: look for a better one later."""
        self._abandon()
        self._careful = better
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
        """An attempt stands, was answered, or failed."""
        if not (self._answered(attempt) if attempt.probing else self._stands(attempt)):
            self._drop(attempt)
            self._proceed()
        elif self._careful and not attempt.probing:
            attempt.probing = True
        else:
            self._taken = attempt.endpoint
            self._attempts.pop(attempt.socket.fileno())
            self._loop.forget(attempt.socket.fileno())
            # those under way are tried again should this one not prove itself
            self._left += [other.endpoint for other in self._attempts.values()]
            for other in list(self._attempts.values()):
                self._drop(other)
            self._next_at = math.inf
            self._set()
            self._connected(attempt.socket)

    def _stands(self, attempt: Attempt) -> bool:
        sock = attempt.socket
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0 or _is_own(sock):
            return False
        probe = (PROBE + self._tag).ljust(FIRST_BYTES, b"\0")
        try:
            return not self._careful or sock.send(probe) == FIRST_BYTES
        except OSError:
            return False

    def _answered(self, attempt: Attempt) -> bool:
        try:
            return attempt.socket.recv(len(PROBED)) == PROBED
        except OSError:
            return False

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
            # A name would be looked up, and everything would wait for the answer.
            socket.inet_pton(family, endpoint[0])
            prepare(sock)
            status = sock.connect_ex(endpoint)
        except (OSError, OverflowError, ValueError):
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
