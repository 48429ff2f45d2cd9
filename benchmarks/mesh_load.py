"""What loads a path between two machines: a server and clients, of the standard library alone, one process each.

    python -m benchmarks.mesh_load serve ADDRESS PORT            until its input ends
    python -m benchmarks.mesh_load bulk ADDRESS PORT BYTES
    python -m benchmarks.mesh_load echo ADDRESS PORT COUNT
    python -m benchmarks.mesh_load first ADDRESS PORT COUNT
    python -m benchmarks.mesh_load many ADDRESS PORT CONNECTIONS SECONDS
    python -m benchmarks.mesh_load hashed ADDRESS PORT BYTES
    python -m benchmarks.mesh_load idle ADDRESS PORT CONNECTIONS

A client prints one JSON value, on a line of its own. `hashed` and `idle` print "going" before, and `idle` says after
which instant of the monotonic clock none of its connections stood any more; so does the server for such connections.
A connection begins with a byte for what it is and eight for how much.
"""

from __future__ import annotations

import hashlib
import json
import resource
import select
import socket
import statistics
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

_BEGIN: Final = struct.Struct(">cQ")
_ECHO, _COUNT, _HASH, _STALL, _IDLE = (bytes([one]) for one in b"echsi")
_CHUNK: Final = 1 << 20
_ECHO_BYTES: Final = 64  # as small as a call is
_WARM_UP: Final = 50
_TURNS: Final = 10
_FOREVER: Final = 1 << 62
_PROGRESS: Final = 0.2  # of the bytes, after which `hashed` is going


# The server -------------------------------------------------------------------------------------------------


class _Connection:
    """One that came in. begun: its first bytes, until they are complete."""

    def __init__(self, one: socket.socket) -> None:
        self.socket, self.begun, self.kind, self.left = one, bytearray(), b"", 0
        self.hash = hashlib.sha256()

    def read(self, buffer: bytearray) -> bool:
        """Take what came; whether there may be more one day."""
        if not self.kind:
            self.begun += self.socket.recv(_BEGIN.size - len(self.begun)) or b"-" * _BEGIN.size
            if len(self.begun) > _BEGIN.size:
                return False
            if len(self.begun) == _BEGIN.size:
                self.kind, self.left = _BEGIN.unpack(bytes(self.begun))
                if self.kind == _IDLE:
                    self.socket.sendall(b"k")
            return True
        if self.kind == _STALL:
            return True
        size = self.socket.recv_into(buffer)
        if self.kind == _ECHO:
            self.socket.sendall(memoryview(buffer)[:size])
        elif self.kind == _HASH:
            self.hash.update(memoryview(buffer)[:size])
        self.left -= size
        if not self.left and self.kind in (_COUNT, _HASH):
            self.socket.sendall(b"k" if self.kind == _COUNT else self.hash.digest())
        return size > 0


def serve(address: str, port: int) -> None:
    """Serve until the input ends."""
    poll, buffer = select.epoll(), bytearray(_CHUNK)
    found: dict[int, _Connection] = {}
    with socket.create_server((address, port), backlog=2048) as server:
        poll.register(server, select.EPOLLIN)
        poll.register(sys.stdin, select.EPOLLIN)
        print("ready", flush=True)
        while True:
            for number, _ in poll.poll():
                if number == sys.stdin.fileno():
                    return
                if number == server.fileno():
                    one, _ = server.accept()
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    found[one.fileno()] = _Connection(one)
                    poll.register(one, select.EPOLLIN)
                    continue
                connection = found[number]
                try:
                    stands = connection.read(buffer)
                except OSError:
                    stands = False
                if connection.kind == _STALL:
                    poll.unregister(number)
                if not stands:
                    if connection.kind == _IDLE:
                        print(time.monotonic(), flush=True)
                    connection.socket.close()
                    del found[number]


# The clients ------------------------------------------------------------------------------------------------


def _open(where: tuple[str, int], kind: bytes, size: int = 0) -> socket.socket:
    one = socket.create_connection(where)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    one.sendall(_BEGIN.pack(kind, size))
    return one


def bulk(where: tuple[str, int], size: int) -> float:
    """MB/s of one connection, until the last byte is acknowledged by the other end."""
    data = bytes(_CHUNK)
    with _open(where, _COUNT, size) as one:
        began = time.perf_counter()
        left = size
        while left:
            left -= one.send(data if left >= _CHUNK else data[:left])
        assert one.recv(1) == b"k"
        return size / (time.perf_counter() - began) / 1e6


def echo(where: tuple[str, int], count: int) -> float:
    """Milliseconds from 64 bytes to the same 64 bytes, the median of `count` in a row."""
    found: list[float] = []
    with _open(where, _ECHO) as one:
        for _ in range(_WARM_UP + count):
            began = time.perf_counter()
            one.sendall(b"x" * _ECHO_BYTES)
            left = _ECHO_BYTES
            while left:
                left -= len(one.recv(left))
            found.append((time.perf_counter() - began) * 1e3)
    return statistics.median(found[_WARM_UP:])


def first(where: tuple[str, int], count: int) -> float:
    """Milliseconds from connect() to the first byte that comes back, on a new connection each."""
    found: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        with _open(where, _ECHO) as one:
            one.sendall(b"x")
            one.recv(1)
            found.append((time.perf_counter() - began) * 1e3)
    return statistics.median(found)


def many(where: tuple[str, int], connections: int, seconds: float) -> float:
    """What share of their throughput all but one of `connections` keep when the last one's reader stops: in turns of
    `seconds`, without and with; medians."""
    found: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(2 * _TURNS):
        stalled = bool(turn % 2)
        found[stalled].append(_pump(where, connections, seconds, stalled))
    return statistics.median(found[True]) / statistics.median(found[False])


def _pump(where: tuple[str, int], connections: int, seconds: float, stalled: bool) -> float:
    """Bytes/s of all but the last of these connections."""
    poll, data = select.epoll(), bytes(1 << 16)
    kinds = [*[_COUNT] * (connections - 1), _STALL if stalled else _COUNT]
    found = {one.fileno(): one for one in (_open(where, kind, _FOREVER) for kind in kinds)}
    last = next(reversed(found))
    for number, one in found.items():
        one.setblocking(False)
        poll.register(number, select.EPOLLOUT)
    began = warm = time.perf_counter()
    sent = 0
    while (now := time.perf_counter()) - began < 1.5 * seconds:
        if now - began < 0.5 * seconds:  # buffers fill, and the one that stalls comes to do so
            warm, sent = now, 0
        for number, _ in poll.poll(0.1):
            size = found[number].send(data)
            sent += size if number != last else 0
    spent_s = time.perf_counter() - warm
    for one in found.values():  # by a reset: what is still under way is not for the next turn to carry
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()
    return sent / spent_s


def hashed(where: tuple[str, int], size: int) -> bool:
    """Whether the other end has received what was sent, and all of it once and in order."""
    told = hashlib.sha256()
    with _open(where, _HASH, size) as one:
        left, chunk = size, 0
        going = False
        while left:
            data = hashlib.sha256(chunk.to_bytes(8, "big")).digest() * (_CHUNK // 32)
            data, chunk = data[:left], chunk + 1
            told.update(data)
            one.sendall(data)
            left -= len(data)
            if not going and size - left >= _PROGRESS * size:
                going = True
                print("going", flush=True)
        answer = b""
        while len(answer) < told.digest_size and (more := one.recv(told.digest_size)):
            answer += more
        return answer == told.digest()


def idle(where: tuple[str, int], connections: int) -> float:
    """Open so many connections, wait until all have ended, or the input has; that instant of the monotonic clock."""
    found = [_open(where, _IDLE) for _ in range(connections)]
    for one in found:
        assert one.recv(1) == b"k"
    print("going", flush=True)
    ended = threading.Thread(target=sys.stdin.read, daemon=True)
    ended.start()
    poll = select.poll()
    for one in found:
        poll.register(one, select.POLLIN)
    left = len(found)
    while left and ended.is_alive():
        for number, _ in poll.poll(50):
            poll.unregister(number)
            left -= 1
    return time.monotonic()


_CLIENTS: Final[Mapping[str, Callable[[tuple[str, int], list[str]], object]]] = {
    "bulk": lambda where, rest: bulk(where, int(rest[0])),
    "echo": lambda where, rest: echo(where, int(rest[0])),
    "first": lambda where, rest: first(where, int(rest[0])),
    "many": lambda where, rest: many(where, int(rest[0]), float(rest[1])),
    "hashed": lambda where, rest: hashed(where, int(rest[0])),
    "idle": lambda where, rest: idle(where, int(rest[0])),
}


def main() -> None:
    """The server or a client."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    what, address, port, *rest = sys.argv[1:]
    if what == "serve":
        serve(address, int(port))
    else:
        print(json.dumps(_CLIENTS[what]((address, int(port)), rest)), flush=True)


if __name__ == "__main__":
    main()
