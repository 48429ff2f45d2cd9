"""Two planes side by side, a proxy between them that can be cut, and servers behind one of them."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

import pytest
import trio

from swarmp2p.scopes import background_nursery
from swarmp2p.transport.overlay.config import SessionConfig
from swarmp2p.transport.overlay.plane import CarrierUp, Endpoint, Plane, PlaneEvent, open_plane

HEAD, WORKER = b"h" * 16, b"w" * 16
WAIT_S = 30.0
"""Seconds after which what a test waits for will never happen."""


def own_address() -> str:
    """An address of this machine's loopback that no other run uses at the same time."""
    low = os.getpid() % 65536
    return f"127.{64 + os.urandom(1)[0] % 64}.{low >> 8}.{low & 255}"


@contextmanager
def free_ports(address: str, count: int) -> Generator[list[int], None, None]:
    """Ports that nobody else is given for the length of the context, and who says so (SO_REUSEADDR) may listen on."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in held:
            sock.bind((address, 0))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        yield [sock.getsockname()[1] for sock in held]


class Heard:
    """What a plane told, and a way to wait for more of it."""

    def __init__(self) -> None:
        self.events: list[PlaneEvent] = []
        self._changed = trio.Event()

    def __call__(self, event: PlaneEvent) -> None:
        self.events.append(event)
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, kind: type[PlaneEvent], count: int = 1) -> PlaneEvent:
        """The count-th event of a kind."""
        with trio.fail_after(WAIT_S):
            while True:
                found = [event for event in self.events if isinstance(event, kind)]
                if len(found) >= count:
                    return found[count - 1]
                await self._changed.wait()


class Proxy:
    """TCP between two planes that a test can cut, refuse or stop. budgets: bytes until it cuts by itself, and again.
    record: what the head sent, when that is wanted."""

    def __init__(self, nursery: trio.Nursery, to: Endpoint) -> None:
        self._nursery, self._to = nursery, to
        self._listener = trio.socket.socket()
        self._streams: list[trio.SocketStream] = []
        self.connections = 0
        self.refusing = False
        self.budgets: list[int] = []
        self.record: bytes | None = None
        self.endpoint: Endpoint = ("", 0)
        self._flowing = trio.Event()
        self._flowing.set()

    async def start(self) -> None:
        await self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.endpoint = self._listener.getsockname()
        self._nursery.start_soon(self._accept)

    def cut(self) -> None:
        """Break every connection, as a router that restarts does."""
        for stream in self._streams:
            abort(stream)
        self._streams.clear()

    def stop(self) -> None:
        """Swallow everything from now on; connections stay."""
        self._flowing = trio.Event()

    async def _accept(self) -> None:
        with self._listener:
            await self._accept_all()

    async def _accept_all(self) -> None:
        while True:
            sock, _ = await self._listener.accept()
            if self.refusing:
                sock.close()
                continue
            self.connections += 1
            self._nursery.start_soon(self._serve, trio.SocketStream(sock))

    async def _serve(self, near: trio.SocketStream) -> None:
        try:
            far = await trio.open_tcp_stream(*self._to)
        except OSError:
            near.socket.close()
            return
        self._streams += [near, far]
        with near.socket, far.socket:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, near, far, True)
                nursery.start_soon(self._pump, far, near, False)

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, outwards: bool) -> None:
        try:
            while data := await source.receive_some(65536):
                await self._flowing.wait()
                await sink.send_all(data)
                if self.record is not None and outwards:
                    self.record += data
                if self.budgets:
                    self.budgets[0] -= len(data)
                    if self.budgets[0] < 0:
                        self.budgets.pop(0)
                        self.cut()
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            source.socket.close()
            sink.socket.close()


@dataclass
class Pair:
    """A head's plane and a worker's. The head listens at `address` for the worker's `ports`."""

    head: Plane
    worker: Plane
    head_heard: Heard
    worker_heard: Heard
    address: str
    ports: list[int]
    proxy: Proxy
    nursery: trio.Nursery

    async def connect(self, index: int = 0) -> trio.SocketStream:
        """A connection to the head's listener for the worker's port."""
        return await trio.open_tcp_stream(self.address, self.ports[index])

    async def idle(self) -> None:
        """Until neither plane has a connection left."""
        for plane in (self.head, self.worker):
            while (await plane.stats())["forwards"]:
                await trio.lowlevel.checkpoint()

    async def refused(self) -> None:
        """Connect, and see the connection reset, be it before or after it stood."""
        with trio.socket.socket() as sock:
            with pytest.raises(ConnectionResetError):
                await sock.connect((self.address, self.ports[0]))
                await sock.recv(1)

    async def serve(self, handler: Callable[[trio.SocketStream], Awaitable[None]], index: int = 0) -> None:
        """Serve a port of the worker, at the address where its plane connects to."""
        listeners = await trio.open_tcp_listeners(self.ports[index], host="127.0.0.1")
        self.nursery.start_soon(_serve, handler, listeners)


async def _serve(
    handler: Callable[[trio.SocketStream], Awaitable[None]], listeners: list[trio.SocketListener]
) -> None:
    async def guarded(stream: trio.SocketStream) -> None:
        try:
            await handler(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    await trio.serve_listeners(guarded, listeners)


@asynccontextmanager
async def pair(
    ports: int = 1,
    config: SessionConfig | None = None,
    secret: bytes = b"s" * 32,
    establish: bool = True,
) -> AsyncGenerator[Pair, None]:
    """Two planes with a session between them, over a proxy. The head dials."""
    with free_ports("127.0.0.1", ports) as numbers:
        async with _pair(numbers, config or SessionConfig(), secret, establish) as both:
            yield both


@asynccontextmanager
async def _pair(
    numbers: list[int], config: SessionConfig, secret: bytes, establish: bool
) -> AsyncGenerator[Pair, None]:
    head_heard, worker_heard = Heard(), Heard()
    async with (
        background_nursery() as nursery,
        open_plane(HEAD, on_event=head_heard, config=config) as head,
        open_plane(WORKER, on_event=worker_heard, config=config) as worker,
    ):
        proxy = Proxy(nursery, worker.endpoints[0])
        await proxy.start()
        address = own_address()
        await worker.serve("127.0.0.1", numbers)
        await head.listen(WORKER, address, numbers)
        both = Pair(head, worker, head_heard, worker_heard, address, numbers, proxy, nursery)
        if establish:
            await worker.session(HEAD, secret, initiator=False)
            await head.session(WORKER, secret, initiator=True, endpoints=[proxy.endpoint])
            await head_heard.until(CarrierUp)
            await worker_heard.until(CarrierUp)
        yield both
        nursery.cancel_scope.cancel()


def abort(stream: trio.SocketStream) -> None:
    """End a connection with a reset."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def how_it_ends(stream: trio.SocketStream) -> type[object] | None:
    """Read to the end; the kind of the system's error there, or None for an orderly end."""
    try:
        while await stream.receive_some(65536):
            pass
    except trio.BrokenResourceError as error:
        return type(error.__cause__)
    return None


async def echo(stream: trio.SocketStream) -> None:
    """Send everything back, then end."""
    while data := await stream.receive_some(65536):
        await stream.send_all(data)
    await stream.send_eof()
