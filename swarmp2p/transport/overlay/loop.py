"""The plane's loop: one epoll, one thread, handlers by descriptor, one deadline.

Everything is registered edge-triggered and once: a handler remembers that its descriptor was readable or
writable until a call returns EAGAIN. So taking turns and waiting for credit cost no epoll_ctl(2), which for
short messages would be a third of all system calls.

Descriptors are closed when all events of a round were handled, so that no event of it can meet another socket that
got the same number meanwhile.
"""

from __future__ import annotations

import math
import select
import socket
import time
from collections.abc import Callable
from typing import Final, Protocol

READABLE: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
WRITABLE: Final = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
ERROR: Final = select.EPOLLERR
ENDING: Final = select.EPOLLRDHUP | select.EPOLLHUP
"""The end has come: after it there is no edge, so that a short read does not mean that all was read."""

_EDGES: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_LEVELS: Final = select.EPOLLIN
_MAX_EVENTS: Final = 256
_LONGEST_WAIT_S: Final = 3600.0


class Handler(Protocol):
    """What is called when something happens to a descriptor."""

    def ready(self, mask: int) -> None:
        """mask: epoll's bits. May come without cause, once a descriptor was ready before."""
        ...


class Worker(Protocol):
    """What is called once in each round in which it was marked, after the round's events."""

    marked: bool

    def work(self) -> None:
        """Do a bounded amount of what is to be done; mark yourself again when there is more."""
        ...


class Timed(Protocol):
    """What wants to be woken. wake_at: when, in seconds of `Loop.now`; math.inf for never. An attribute, since it
    is looked at in every round."""

    wake_at: float

    def wake(self) -> None:
        """The time has come; `wake_at` must have moved when this returns."""
        ...


class Loop:
    """See the module. now: monotonic seconds, read once a round. timed: who may want to be woken. alone: whether this
    round's event is its only one, and nobody was marked before it: what it asks for can be done at once."""

    __slots__ = ("_closing", "_handlers", "_marked", "_poller", "_stopped", "alone", "now", "timed")

    def __init__(self) -> None:
        self._poller = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._closing: list[socket.socket] = []
        self._marked: list[Worker] = []
        self._stopped = False
        self.alone = False
        self.now = time.monotonic()
        self.timed: list[Timed] = []

    def watch(self, fd: int, handler: Handler) -> None:
        """Have a handler told of each edge of a descriptor."""
        self._handlers[fd] = handler
        self._poller.register(fd, _EDGES)

    def watch_level(self, fd: int, handler: Handler) -> None:
        """Have a handler told in each round in which a descriptor is readable."""
        self._handlers[fd] = handler
        self._poller.register(fd, _LEVELS)

    def forget(self, fd: int) -> None:
        """Watch a descriptor no more."""
        if self._handlers.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def close(self, sock: socket.socket) -> None:
        """Forget a socket, and close it once this round's events were handled."""
        self.forget(sock.fileno())
        self._closing.append(sock)

    def mark(self, worker: Worker) -> None:
        """Have a worker work at the end of this round, or of the next when it is working already."""
        if not worker.marked:
            worker.marked = True
            self._marked.append(worker)

    def stop(self) -> None:
        """Return from `run` after this round."""
        self._stopped = True

    def run(self, until: Callable[[], bool] | None = None) -> None:
        """Turn until stopped."""
        while not self._stopped and (until is None or not until()):
            self.turn()

    def turn(self, most_s: float = _LONGEST_WAIT_S) -> None:
        """One round: wait, events, deadlines, work. most_s: the longest wait, in seconds."""
        wait_s = 0.0 if self._marked else most_s
        if wait_s > 0.0 and self.timed:
            soonest = min([timed.wake_at for timed in self.timed])
            if soonest != math.inf:
                wait_s = min(wait_s, max(0.0, soonest - time.monotonic()))
        try:
            events = self._poller.poll(wait_s, _MAX_EVENTS)
        except InterruptedError:
            events = []
        now = self.now = time.monotonic()
        handlers = self._handlers
        self.alone = len(events) == 1 and not self._marked
        for fd, mask in events:
            handler = handlers.get(fd)
            if handler is not None:
                handler.ready(mask)
        self.alone = False
        for timed in self.timed[:]:
            if timed.wake_at <= now:
                timed.wake()
        if self._closing:
            self._close()  # before the work, which may tell somebody that it is done
        if self._marked:
            marked, self._marked = self._marked, []
            for worker in marked:
                worker.marked = False
                worker.work()
            if self._closing:
                self._close()

    def end(self) -> None:
        """Let go of everything."""
        self._close()
        self._handlers.clear()
        self._marked.clear()
        self.timed.clear()
        self._poller.close()

    def _close(self) -> None:
        for sock in self._closing:
            sock.close()
        self._closing.clear()
