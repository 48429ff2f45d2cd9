"""A round-trip time between two machines of the laboratory: a proxy for TCP that holds back every byte and keeps the
bandwidth.

    python -m tests.lab.delay --rtt-ms 50 --listen 10.0.0.1:0 [--to 10.0.0.2:7000] [--queue-mb 64]

It prints the port that it listens at and ends when its input does. Lines of its input: `cut` resets all connections
and refuses new ones, `mend` takes them again. Without --to, connections go on to where they were going when a rule of
nftables brought them here.

What is sent arrives half a round trip later, in either direction; what was sent first, one and a half: TCP's handshake,
which has to be seen in the figures although the two halves of the connection make theirs at once. A direction
that has --queue-mb under way is not read from until some of that has arrived: the bandwidth-delay product of
1 GB/s at 50 ms is 25 MB each way.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from tests.lab.namespaces import LabError, Node

_READ_BYTES: Final = 1 << 18
_READS: Final = 4  # of one connection before others have their turn
_BUFFERS: Final = 16  # in one write
_SOCKET_BYTES: Final = 4 << 20
_SO_ORIGINAL_DST: Final = 80
_RESET: Final = struct.pack("ii", 1, 0)
_READ: Final = select.EPOLLIN | select.EPOLLRDHUP


@dataclass(slots=True)
class Delay:
    """A running proxy. port: where it listens, on every address of `node`."""

    node: Node
    port: int
    pid: int
    _lines: int

    def cut(self) -> None:
        """Reset all connections and refuse new ones: what was under way is lost."""
        os.write(self._lines, b"cut\n")

    def mend(self) -> None:
        """Take connections again."""
        os.write(self._lines, b"mend\n")


@contextmanager
def delay(
    node: Node, rtt_ms: float, to: tuple[str, int] | None = None, port: int = 0
) -> Generator[Delay, None, None]:
    """Hold TCP connections back on a machine.

    to: where connections to the proxy's port go on to. None: `node` is a router, and all TCP that it passes on is held
    back, from now on; those at the other end see the router's address. port: to listen at; 0: any.
    """
    target = [] if to is None else ["--to", f"{to[0]}:{to[1]}"]
    process = node.python(
        "-m", "tests.lab.delay", "--rtt-ms", str(rtt_ms), "--listen", f"0.0.0.0:{port}", *target
    )
    assert process.stdin is not None
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise LabError(f"{node.name}: the proxy ended at once; its messages are above")
    found = Delay(node, int(line), process.pid, process.stdin.fileno())
    table = f"delay_{found.port}"
    if to is None:
        node.nft(
            f"table ip {table} {{\n chain in {{\n  type nat hook prerouting priority dstnat\n"
            f"  fib daddr type != local meta l4proto tcp redirect to :{found.port}\n }}\n}}"
        )
    try:
        yield found
    finally:
        if to is None:
            node.nft(f"delete table ip {table}")
        process.stdin.close()
        process.wait()


class _Way:
    """One direction of a connection: from `source` to `sink`, when that is connected."""

    __slots__ = ("bytes", "done", "ended", "full", "queue", "sink", "source")

    def __init__(self, source: socket.socket) -> None:
        self.source, self.sink = source, None
        self.queue: deque[tuple[float, memoryview]] = deque()  # when it is due; empty: the end
        self.bytes = 0
        self.full = self.ended = self.done = False

    sink: socket.socket | None


class _Proxy:
    """The event loop."""

    def __init__(self, rtt_s: float, to: tuple[str, int] | None, queue_bytes: int) -> None:
        self._rtt_s, self._to, self._queue_bytes = rtt_s, to, queue_bytes
        self._poll = select.epoll()
        self._reads: dict[int, _Way] = {}
        self._writes: dict[int, _Way] = {}
        self._interest: dict[int, int] = {}
        self._timers: list[tuple[float, int, _Way | socket.socket]] = []
        self._order = itertools.count()
        self._cut = False

    def run(self, listener: socket.socket) -> None:
        """Until the input ends."""
        self._poll.register(listener, select.EPOLLIN)
        self._poll.register(sys.stdin, select.EPOLLIN)
        while True:
            wait_s = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1
            for number, _ in self._poll.poll(wait_s):
                if number == sys.stdin.fileno():
                    line = os.read(number, 100)
                    if not line:
                        return
                    self._command(line)
                elif number == listener.fileno():
                    self._accept(listener)
                else:
                    if (way := self._writes.get(number)) is not None and self._interest[
                        number
                    ] & select.EPOLLOUT:
                        self._write(way)
                    if (way := self._reads.get(number)) is not None:
                        self._read(way)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                what = heapq.heappop(self._timers)[2]
                if isinstance(what, socket.socket):
                    self._dial(what)
                else:
                    self._write(what)

    def _command(self, line: bytes) -> None:
        self._cut = b"cut" in line
        if self._cut:
            for way in list(self._reads.values()):
                self._reset(way)

    def _accept(self, listener: socket.socket) -> None:
        front, _ = listener.accept()
        if self._cut:
            front.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            front.close()
            return
        _prepare(front)
        way = _Way(front)
        self._reads[front.fileno()] = way
        self._want(front, _READ)
        self._later(time.monotonic() + 1.5 * self._rtt_s, front)

    def _dial(self, front: socket.socket) -> None:
        there = self._reads.get(front.fileno())
        if there is None:  # gone meanwhile
            return
        back = socket.socket()
        _prepare(back)
        to = self._to
        if to is None:
            raw = front.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16)
            to = socket.inet_ntoa(raw[4:8]), int.from_bytes(raw[2:4], "big")
        back.connect_ex(to)
        here = _Way(back)
        there.sink, here.sink = back, front
        self._reads[back.fileno()] = here
        self._writes[front.fileno()], self._writes[back.fileno()] = here, there
        self._want(back, _READ)
        self._write(there)

    def _read(self, way: _Way) -> None:
        if way.full or way.ended:
            return
        for _ in range(_READS):
            try:
                data = way.source.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                self._reset(way)
                return
            due = time.monotonic() + self._rtt_s / 2
            way.queue.append((due, memoryview(data)))
            way.bytes += len(data)
            if len(way.queue) == 1:
                self._later(due, way)
            if not data:
                way.ended = True
            elif way.bytes >= self._queue_bytes:
                way.full = True
            if way.ended or way.full:
                self._want(way.source, 0, _READ)
                return
            if len(data) < _READ_BYTES:
                return

    def _write(self, way: _Way) -> None:
        if way.sink is None or way.done:  # not yet connected: `_dial` calls again
            return
        now = time.monotonic()
        while way.queue and way.queue[0][0] <= now:
            due = [data for at, data in itertools.islice(way.queue, _BUFFERS) if at <= now and data]
            if not due:
                way.queue.popleft()
                way.done = True
                self._finish(way)
                return
            try:
                sent = way.sink.sendmsg(due)
            except BlockingIOError:
                self._want(way.sink, select.EPOLLOUT)
                return
            except OSError:
                self._reset(way)
                return
            self._took(way, sent)
        self._want(way.sink, 0, select.EPOLLOUT)
        if way.queue:
            self._later(way.queue[0][0], way)

    def _took(self, way: _Way, sent: int) -> None:
        way.bytes -= sent
        while sent:
            at, data = way.queue[0]
            if sent < len(data):
                way.queue[0] = at, data[sent:]
                break
            sent -= len(data)
            way.queue.popleft()
        if way.full and way.bytes < self._queue_bytes:
            way.full = False
            self._want(way.source, _READ)

    def _finish(self, way: _Way) -> None:
        """All of one direction has arrived; when that is so of the other too, the connection is over."""
        assert way.sink is not None
        back = self._reads[way.sink.fileno()]
        if back.done:
            self._close(way.source, way.sink)
            return
        self._want(way.sink, 0, select.EPOLLOUT)
        with suppress(OSError):
            way.sink.shutdown(socket.SHUT_WR)

    def _reset(self, way: _Way) -> None:
        way.done = True
        ends = [way.source] if way.sink is None else [way.source, way.sink]
        for one in ends:
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._close(*ends)

    def _close(self, *ends: socket.socket) -> None:
        for one in ends:
            number = one.fileno()
            if number < 0:
                continue
            for table in (self._reads, self._writes):
                gone = table.pop(number, None)
                if gone is not None:
                    gone.done = True
                    gone.queue.clear()
            if self._interest.pop(number, None) is not None:
                self._poll.unregister(number)
            one.close()

    def _want(self, one: socket.socket, more: int, less: int = 0) -> None:
        number = one.fileno()
        before = self._interest.get(number)
        after = ((before or 0) | more) & ~less
        if before is None:
            self._poll.register(number, after)
        elif before != after:
            self._poll.modify(number, after)
        self._interest[number] = after

    def _later(self, when: float, what: _Way | socket.socket) -> None:
        heapq.heappush(self._timers, (when, next(self._order), what))


def _prepare(one: socket.socket) -> None:
    one.setblocking(False)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        one.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BYTES)


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> None:
    """The proxy."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.delay")
    parser.add_argument("--rtt-ms", type=float, required=True)
    parser.add_argument("--listen", type=_endpoint, required=True)
    parser.add_argument("--to", type=_endpoint)
    parser.add_argument("--queue-mb", type=int, default=64)
    options = parser.parse_args()
    with socket.create_server(options.listen, backlog=1024) as listener:
        print(listener.getsockname()[1], flush=True)
        _Proxy(options.rtt_ms / 1000, options.to, options.queue_mb << 20).run(listener)


if __name__ == "__main__":
    main()
