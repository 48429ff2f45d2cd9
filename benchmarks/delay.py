"""A round-trip time on loopback: a proxy in user space that holds back every byte.

    with delayed(50.0):      # every TCP connection that this process makes goes through the proxy
        trio.run(...)

    python -m benchmarks.delay --rtt-ms 50     # the proxy: prints its port, ends when stdin does

The proxy is a process of its own, so that its CPU is not counted. Whoever connects says first, in two bytes, which
port of 127.0.0.1 is meant; what follows leaves the proxy half a round trip after it came, in either direction.
What was sent first is held back by a whole round trip more: TCP's own handshake, which loopback does not show.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import trio

_ROOT: Final = Path(__file__).resolve().parents[1]
_PORT_BYTES: Final = 2


class _Half(asyncio.Protocol):
    """One of the two connections that a proxied one consists of; passes on to `other` what it receives."""

    def __init__(self, delay_s: float) -> None:
        self.other: _Half | None = None
        self.transport: asyncio.Transport | None = None
        self._delay_s = delay_s
        self._loop = asyncio.get_running_loop()
        self._not_before = 0.0
        self._waiting: deque[tuple[float, bytes]] = deque()  # when it is due; b"" is the end
        self._timer: asyncio.TimerHandle | None = None

    def hold_back(self, seconds: float) -> None:
        """Nothing leaves before that."""
        self._not_before = self._loop.time() + seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        due = max(self._loop.time(), self._not_before) + self._delay_s
        self._waiting.append((due, data))
        self.wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self.data_received(b"")

    def wait(self) -> None:
        """Pass on what has come, when it is due."""
        if self._waiting and self._timer is None:
            self._timer = self._loop.call_at(self._waiting[0][0], self._pass_on)

    def _pass_on(self) -> None:
        """Pass on what is due; in one write, as it would have come. It waits where nobody is there to take it yet."""
        self._timer = None
        if self.other is None or self.other.transport is None:
            return
        due: list[bytes] = []
        now = self._loop.time()
        while self._waiting and self._waiting[0][0] <= now:
            due.append(self._waiting.popleft()[1])
        self.wait()
        data = b"".join(due)
        if data:
            self.other.transport.write(data)
        if due and not due[-1]:
            self.other.transport.close()


class _Front(_Half):
    """The connection that came in: its first bytes name the port."""

    def __init__(self, rtt_s: float) -> None:
        super().__init__(rtt_s / 2)
        self._rtt_s = rtt_s
        self._early = bytearray()
        self._dial: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.hold_back(self._rtt_s)

    def data_received(self, data: bytes) -> None:
        if self._dial is not None:
            super().data_received(data)
            return
        self._early += data
        if len(self._early) >= _PORT_BYTES:
            port = int.from_bytes(self._early[:_PORT_BYTES], "big")
            self._dial = self._loop.create_task(self._connect(port))
            if len(self._early) > _PORT_BYTES:
                super().data_received(bytes(self._early[_PORT_BYTES:]))

    async def _connect(self, port: int) -> None:
        back = _Half(self._delay_s)
        back.other = self
        assert self.transport is not None
        try:
            await self._loop.create_connection(lambda: back, "127.0.0.1", port)
        except OSError:
            self.transport.abort()
            return
        self.other = back
        self.wait()  # on a busy machine what came first was due before there was this connection


async def _serve(rtt_s: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Front(rtt_s), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # until whoever started this is done, or gone
    server.close()


@contextmanager
def proxy(rtt_ms: float) -> Generator[int, None, None]:
    """The proxy, for the length of the context; the port that it listens at."""
    command = [sys.executable, "-m", "benchmarks.delay", f"--rtt-ms={rtt_ms}"]
    with subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


@contextmanager
def delayed(rtt_ms: float) -> Generator[None, None, None]:
    """Have all TCP connections that this process makes through trio take `rtt_ms` for a round trip; 0 changes
    nothing. Only connections to 127.0.0.1 are made."""
    if not rtt_ms:
        yield
        return
    with proxy(rtt_ms) as port:
        where = "127.0.0.1", port
        # Both sides of the comparison connect by this method, whatever they do around it.
        with trio.socket.from_stdlib_socket(socket.socket()) as one:
            sockets: Any = type(one)
        connect = sockets.connect

        async def connect_delayed(self: trio.socket.SocketType, address: tuple[str, int]) -> None:
            await connect(self, where)
            await self.send(address[1].to_bytes(_PORT_BYTES, "big"))

        sockets.connect = connect_delayed
        try:
            yield
        finally:
            sockets.connect = connect


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.delay", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rtt-ms", type=float, required=True)
    asyncio.run(_serve(parser.parse_args().rtt_ms / 1000))
