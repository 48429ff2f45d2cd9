"""Peers that speak libp2p up to their streams and then say whatever a test wants."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
from multiaddr.multiaddr import Multiaddr

from swarmp2p.errors import BadMessage, SwarmError
from swarmp2p.identity import PeerId
from swarmp2p.scopes import TaskStatus
from swarmp2p.transport.addresses import host_and_port, parse_transport, to_multiaddr
from swarmp2p.transport.framing import FrameBuffer, encode_frame
from swarmp2p.transport.multistream import choose, propose
from swarmp2p.transport.muxer import MuxedConnection, MuxedStream, mux
from swarmp2p.transport.network import PeerNetwork
from swarmp2p.transport.secure import secure
from swarmp2p.transport.swarm import LibP2P
from swarmp2p.transport.tcp import TcpListener, TcpPipe, dial_tcp
from swarmp2p.wire import Framing
from tests.transport.station import PATIENCE_S, named


async def tcp_to(network: PeerNetwork) -> TcpPipe:
    """A bare TCP connection."""
    address = parse_transport(network.addresses[0])
    assert address is not None
    return await dial_tcp(*host_and_port(address))


@asynccontextmanager
async def raw_peer(network: PeerNetwork, name: str = "mallory") -> AsyncGenerator[MuxedConnection, None]:
    """A secure, multiplexed connection to a network. Every stream opened to it is reset."""
    channel = await secure(await tcp_to(network), LibP2P(named(name)).security, network.peer_id)
    async with trio.open_nursery() as nursery:
        connection = await mux(channel, True, 64, lambda stream: stream.reset(), nursery)
        nursery.start_soon(connection.run)
        yield connection
        connection.close()


async def raw_stream(connection: MuxedConnection, protocol: str) -> MuxedStream:
    """A stream of some protocol."""
    stream = connection.open()
    await propose(stream, [protocol])
    return stream


async def rest_of(stream: MuxedStream) -> bytes | None:
    """Everything until the end; None when the stream was reset."""
    received = b""
    try:
        with trio.fail_after(PATIENCE_S):
            while data := await stream.read():
                received += data
    except trio.BrokenResourceError:
        return None
    return received


async def read_until(stream: MuxedStream, size: int) -> bytes:
    """At least so many bytes."""
    received = b""
    with trio.fail_after(PATIENCE_S):
        while len(received) < size:
            data = await stream.read()
            if not data:
                raise BadMessage("the stream ended early")
            received += data
    return received


class RawServer:
    """Listens, and gives each stream that is opened to it to the test. protocols: what it agrees to."""

    def __init__(self, name: str, *protocols: str) -> None:
        self.identity = named(name)
        self.protocols = dict.fromkeys(protocols)
        self.listener = TcpListener(Multiaddr("/ip4/127.0.0.1/tcp/0"))
        self.connections: list[MuxedConnection] = []
        self._streams: trio.MemorySendChannel[MuxedStream]
        self._streams, self._received = trio.open_memory_channel[MuxedStream](math.inf)
        self._security = LibP2P(self.identity).security
        self._nursery: trio.Nursery | None = None

    @property
    def peer(self) -> PeerId:
        return self.identity.peer_id

    @property
    def addresses(self) -> tuple[bytes, ...]:
        return (to_multiaddr(*self.listener.bound),)

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await self.listener.serve(self._accept, nursery, 16)
        finally:
            self.listener.shut()

    async def _accept(self, pipe: TcpPipe) -> None:
        assert self._nursery is not None
        channel = await secure(pipe, self._security, None)
        connection = await mux(channel, False, 64, self._on_stream, self._nursery)
        self.connections.append(connection)
        await connection.run()

    def _on_stream(self, stream: MuxedStream) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._agree, stream)

    async def _agree(self, stream: MuxedStream) -> None:
        try:
            stream.protocol = await choose(stream, self.protocols.__contains__)
            self._streams.send_nowait(stream)
        except (SwarmError, trio.BrokenResourceError):
            stream.reset()

    async def stream(self) -> MuxedStream:
        """The next stream that was opened and agreed on."""
        with trio.fail_after(PATIENCE_S):
            return await self._received.receive()

    async def frame(self, stream: MuxedStream, framing: Framing) -> bytes:
        """The next frame of a stream; frames of one chunk are told one by one."""
        buffer = FrameBuffer(framing, 1_000_000)
        with trio.fail_after(PATIENCE_S):
            while True:
                chunk = await stream.read()
                if not chunk:
                    raise BadMessage("the stream ended")
                bodies = buffer.feed(chunk)
                if bodies:
                    assert not buffer.partial, "tests send frames whole"
                    stream.unread(b"".join(encode_frame(body, framing) for body in bodies[1:]))
                    return bodies[0]

    async def frame_of(self, stream: MuxedStream, size: int) -> bytes:
        """The next bytes of a stream, exactly so many."""
        received = b""
        with trio.fail_after(PATIENCE_S):
            while len(received) < size:
                received += await stream.read()
        stream.unread(received[size:])
        return received[:size]
