"""DHT peers under a test's control: one that asks over bare streams, one that answers as go does."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import trio
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from multiaddr.multiaddr import Multiaddr

from swarmp2p.errors import SwarmError
from swarmp2p.identity import Identity, PeerId
from swarmp2p.opening import node_protocols, open_peer
from swarmp2p.peer import Peer
from swarmp2p.queries import with_peer
from swarmp2p.scopes import start
from swarmp2p.transport.framing import FrameBuffer, encode_frame
from swarmp2p.transport.host import Host
from swarmp2p.transport.muxer import MuxedConnection, MuxedStream
from swarmp2p.wire import Framing
from tests.interop.py_peers import IPFS, PATIENCE_S
from tests.interop.strict import check_request
from tests.transport.rawpeer import RawServer, raw_peer, raw_stream
from tests.transport.station import named

MAX_BYTES: Final = 4 << 20  # go's network.MessageSizeMax


@asynccontextmanager
async def our_peer(*bootstrap: object) -> AsyncGenerator[tuple[Peer, Host], None]:
    """A peer of ours on loopback, and its host."""
    identity = Identity.generate()
    host = Host(identity, ["/ip4/127.0.0.1/tcp/0"], node_protocols(IPFS))
    async with open_peer(identity=identity, network=host, bootstrap=[str(one) for one in bootstrap]) as peer:
        yield peer, host


@asynccontextmanager
async def asker(host: Host, name: str = "asker") -> AsyncGenerator[Asker, None]:
    """A connection to our peer. name: of its key."""
    async with raw_peer(host, name) as connection:
        yield Asker(connection, named(name).peer_id)


class Asker:
    """Somebody with a connection and no DHT of its own."""

    def __init__(self, connection: MuxedConnection, peer: PeerId) -> None:
        self._connection, self.peer = connection, peer

    async def stream(self) -> AskerStream:
        """A new stream of the DHT."""
        return AskerStream(await raw_stream(self._connection, IPFS))

    def open(self) -> MuxedStream:
        """A stream on which nothing was agreed yet."""
        return self._connection.open()


class AskerStream:
    """One stream of the DHT."""

    def __init__(self, stream: MuxedStream) -> None:
        self.raw = stream
        self._buffer = FrameBuffer(Framing.UVARINT, MAX_BYTES)
        self._frames: list[bytes] = []

    def push(self, *messages: Message) -> None:
        """Write requests in one piece."""
        self.raw.push(b"".join(frame(message) for message in messages))

    async def reply(self) -> bytes:
        """The next reply. Raises trio.BrokenResourceError when the stream was reset."""
        with trio.fail_after(PATIENCE_S):
            while not self._frames:
                chunk = await self.raw.read()
                assert chunk, "the stream ended"
                self._frames += self._buffer.feed(chunk)
            return self._frames.pop(0)

    async def ask(self, message: Message) -> Message:
        """One request and its reply."""
        self.push(message)
        return Message.FromString(await self.reply())


def frame(message: Message) -> bytes:
    """A message with its length."""
    return encode_frame(message.SerializeToString(), Framing.UVARINT)


class GoLike:
    """Serves the DHT as go does: it answers everything but ADD_PROVIDER, to which it says nothing, and knows nobody.

    Each request is held to what others hold requests to. requests: all of them, in order. echo: whether it writes
    ADD_PROVIDER back, as py does.
    """

    def __init__(self, name: str, *, echo: bool = False) -> None:
        self.server = RawServer(name, IPFS)
        self.requests: list[Message] = []
        self.providers: dict[bytes, dict[PeerId, Message.Peer]] = {}
        self.values: dict[bytes, bytes] = {}
        self._echo = echo

    @property
    def peer(self) -> PeerId:
        return self.server.peer

    @property
    def address(self) -> Multiaddr:
        return with_peer(self.server.addresses[0], self.peer)

    def seen(self, kind: int) -> list[Message]:
        """The requests of one type."""
        return [request for request in self.requests if request.type == kind]

    async def _serve(self, stream: MuxedStream) -> None:
        try:
            while True:
                body = await self.server.frame(stream, Framing.UVARINT)
                request = check_request(body, stream.peer)
                self.requests.append(request)
                reply = self._answer(stream.peer, request)
                if reply is not None:
                    stream.push(frame(reply))
        except (SwarmError, trio.BrokenResourceError):
            stream.reset()

    def _answer(self, sender: PeerId, request: Message) -> Message | None:
        reply = Message(type=request.type, key=request.key)
        match request.type:
            case Message.ADD_PROVIDER:
                self.providers.setdefault(request.key, {})[sender] = request.providerPeers[0]
                return request if self._echo else None
            case Message.GET_PROVIDERS:
                reply.providerPeers.extend(self.providers.get(request.key, {}).values())
            case Message.PUT_VALUE:
                self.values[request.key] = request.record.value
                return request
            case Message.GET_VALUE if request.key in self.values:
                reply.record.key, reply.record.value = request.key, self.values[request.key]
            case _:
                pass
        return reply

    async def run(self, nursery: trio.Nursery) -> None:
        """Listen; streams are served in the nursery."""
        await start(nursery, self.server.run)

        async def accept() -> None:
            while True:
                try:
                    stream = await self.server.stream()
                except trio.TooSlowError:
                    continue
                nursery.start_soon(self._serve, stream)

        nursery.start_soon(accept)


@asynccontextmanager
async def go_like(*names: str, echo: bool = False) -> AsyncGenerator[list[GoLike], None]:
    """Peers that serve the DHT as go does."""
    peers = [GoLike(name, echo=echo) for name in names]
    async with trio.open_nursery() as nursery:
        for peer in peers:
            await peer.run(nursery)
        yield peers
        nursery.cancel_scope.cancel()
