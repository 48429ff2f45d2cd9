"""Gossip nodes of three implementations behind one face: ours, js-libp2p's, py-libp2p's, all on one topic; and a raw
one, which says what it is told to and keeps what it hears as it came."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar, cast

import trio
from libp2p.abc import IHost, ISubscriptionAPI
from libp2p.custom_types import TProtocol
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service
from multiaddr.multiaddr import Multiaddr

from benchmarks.libp2p_hosts import libp2p_host, where
from swarmp2p.engine import NetworkEvent
from swarmp2p.gossip import rpc_pb2 as pb
from swarmp2p.gossip.config import GossipConfig
from swarmp2p.gossip.events import GossipMessage
from swarmp2p.gossip.router import GossipRouter
from swarmp2p.identity import Identity, PeerId
from swarmp2p.node import NodeConfig
from swarmp2p.opening import open_peer
from swarmp2p.peer import Peer
from swarmp2p.scopes import TaskStatus, start
from swarmp2p.subscription import Subscription
from swarmp2p.transport.framing import FrameBuffer, encode_frame
from swarmp2p.transport.host import Host
from swarmp2p.transport.network import PeerStream
from swarmp2p.wire import Framing
from tests.interop.js_gossip import JsGossip
from tests.interop.js_peers import JsPeers
from tests.interop.py_peers import until

TOPIC: Final = "weather"
V12: Final = "/meshsub/1.2.0"
V11: Final = "/meshsub/1.1.0"
V10: Final = "/meshsub/1.0.0"
_MAX_RPC_BYTES: Final = 1 << 21
Entered = TypeVar("Entered")


class GossipNode(Protocol):
    """A node that subscribes to TOPIC."""

    id: PeerId
    address: str

    async def dial(self, address: str) -> None:
        """Connect to another."""
        ...

    async def publish(self, data: bytes) -> None:
        """Publish on the topic."""
        ...

    async def has(self, data: bytes, source: PeerId) -> bool:
        """Whether it received these data of this publisher; each message it received once."""
        ...

    async def mesh(self) -> set[PeerId]:
        """Who is in its mesh of the topic."""
        ...


class Ours:
    """One of ours."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.id, self.address = PeerId(peer.id), str(peer.addresses[0])
        self.messages: list[GossipMessage] = []

    @property
    def router(self) -> GossipRouter:
        """Its engine, to look into."""
        return cast(GossipRouter, cast(Any, self.peer)._engine.gossip)

    async def read(self, subscription: Subscription) -> None:
        async for message in subscription:
            self.messages.append(message)

    async def dial(self, address: str) -> None:
        await self.peer.connect(address)

    async def publish(self, data: bytes) -> None:
        await self.peer.publish(TOPIC, data)

    async def has(self, data: bytes, source: PeerId) -> bool:
        return _once([message.data == data and message.source == source for message in self.messages])

    async def mesh(self) -> set[PeerId]:
        return set(self.router.mesh(TOPIC))


class Js:
    """One of js-libp2p's."""

    def __init__(self, node: JsGossip) -> None:
        self.node = node
        self.id, self.address = node.id, node.address

    async def dial(self, address: str) -> None:
        await self.node.dial(address)

    async def publish(self, data: bytes) -> None:
        await self.node.publish(TOPIC, data)

    async def has(self, data: bytes, source: PeerId) -> bool:
        messages = await self.node.messages()
        return _once([message.carries(data) and message.source == source for message in messages])

    async def mesh(self) -> set[PeerId]:
        return await self.node.mesh(TOPIC)


class Py:
    """One of py-libp2p's."""

    def __init__(self, host: IHost, pubsub: Pubsub, router: GossipSub) -> None:
        self.host, self.pubsub, self.router = host, pubsub, router
        self.id, self.address = PeerId(host.get_id().to_bytes()), str(host.get_addrs()[0])
        self._received: list[tuple[bytes, bytes]] = []

    async def read(self, subscription: ISubscriptionAPI) -> None:
        with suppress(trio.EndOfChannel):
            while True:
                message = await subscription.get()
                self._received.append((message.data, message.from_id))

    async def dial(self, address: str) -> None:
        await self.host.connect(where(Multiaddr(address)))

    async def publish(self, data: bytes) -> None:
        await self.pubsub.publish(TOPIC, data)

    async def has(self, data: bytes, source: PeerId) -> bool:
        return _once([one == (data, bytes(source)) for one in self._received])

    async def mesh(self) -> set[PeerId]:
        return {PeerId(peer.to_bytes()) for peer in self.router.mesh.get(TOPIC, ())}


def _once(found: list[bool]) -> bool:
    assert found.count(True) <= 1, "received twice"
    return any(found)


class Raw:
    """Neither subscribes nor relays by itself. heard: the RPCs that came, as they came."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.id = host.peer_id
        self.heard: list[bytes] = []
        self._streams: dict[PeerId, PeerStream] = {}

    @property
    def address(self) -> str:
        """Where it can be dialled."""
        return f"{Multiaddr(self.host.addresses[0])}/p2p/{self.id}"

    @property
    def published(self) -> list[bytes]:
        """Messages that came, byte for byte."""
        return [raw for rpc in self.heard for raw in pb.RPC.FromString(rpc).publish]

    async def listen(self, stream: PeerStream) -> None:
        buffer = FrameBuffer(Framing.UVARINT, _MAX_RPC_BYTES)
        while chunk := await stream.receive_some():
            self.heard += buffer.feed(bytes(chunk))

    async def dial(self, address: str) -> PeerId:
        """Connect to a peer; returns its id."""
        return await self.host.dial(address)

    async def say(self, to: PeerId, rpc: pb.RPC) -> None:
        """Send an RPC to a connected peer."""
        if to not in self._streams:
            self._streams[to] = await self.host.open_stream(to, V12)
        await self._streams[to].send_all(encode_frame(rpc.SerializeToString(), Framing.UVARINT))


class Swarm:
    """Starts nodes that live as long as its context, all subscribed to TOPIC."""

    def __init__(self, js: JsPeers, nursery: trio.Nursery, readers: trio.Nursery) -> None:
        self._js, self._nursery, self._readers = js, nursery, readers
        self.over = trio.Event()

    async def _enter(self, context: AbstractAsyncContextManager[Entered]) -> Entered:
        """What a context gives, in a task of its own until all is over: a test and its fixtures are different ones."""

        async def keep(*, task_status: TaskStatus[Entered]) -> None:
            async with context as value:
                task_status.started(value)
                await self.over.wait()

        return cast(Entered, await start(self._nursery, keep))

    async def node(self, kind: str) -> GossipNode:
        """One with the usual settings. kind: "ours", "js" or "py"."""
        makers: dict[str, Callable[[], Awaitable[GossipNode]]] = {
            "ours": self.ours,
            "js": self.js,
            "py": self.py,
        }
        return await makers[kind]()

    async def ours(self, config: GossipConfig | None = None) -> Ours:
        """One of ours."""
        settings = NodeConfig(gossip=config or GossipConfig())
        peer = await self._enter(open_peer(config=settings))
        ours = Ours(peer)
        subscription = await self._enter(peer.subscribe(TOPIC))
        self._readers.start_soon(ours.read, subscription)
        return ours

    async def js(
        self, settings: Mapping[str, object] | None = None, *, seed: bytes | None = None, port: int = 0
    ) -> Js:
        """One of js-libp2p's. settings: see JsGossip.start."""
        node = await JsGossip.start(self._js, settings, seed=seed, port=port)
        await node.subscribe(TOPIC)
        return Js(node)

    async def py(self, version: str = V12, degrees: tuple[int, int, int] = (6, 5, 12), **settings: Any) -> Py:
        """One of py-libp2p's. degrees: D, Dlo, Dhi. Its limits of ten messages a second and topic, and of peers from
        one address, are off."""
        host = await self._enter(libp2p_host())
        router = GossipSub(
            [TProtocol(version)],
            *degrees,
            heartbeat_interval=1,
            adaptive_gossip_enabled=False,
            spam_protection_enabled=False,
            eclipse_protection_enabled=False,
            **settings,
        )
        pubsub = Pubsub(host, router)
        await self._enter(background_trio_service(pubsub))
        await self._enter(background_trio_service(router))
        await pubsub.wait_until_ready()
        py = Py(host, pubsub, router)
        self._readers.start_soon(py.read, await pubsub.subscribe(TOPIC))
        return py

    async def raw(self) -> Raw:
        """A raw one."""

        def ignore(_event: NetworkEvent) -> None:
            pass

        raw = Raw(Host(Identity.generate(), ["/ip4/127.0.0.1/tcp/0"], ()))
        for version in (V12, V11, V10):
            raw.host.set_handler(version, raw.listen)
        await start(self._readers, partial(raw.host.run, ignore))
        return raw


@asynccontextmanager
async def swarm(js: JsPeers) -> AsyncGenerator[Swarm, None]:
    """Nodes of all kinds, ended with the context."""
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as readers:
            nodes = Swarm(js, nursery, readers)
            yield nodes
            readers.cancel_scope.cancel()
        nodes.over.set()


async def meshed(*pairs: tuple[GossipNode, GossipNode]) -> None:
    """Wait until each has the other in its mesh."""
    for one, other in pairs:
        for here, there in ((one, other), (other, one)):

            async def both(here: GossipNode = here, there: GossipNode = there) -> bool:
                return there.id in await here.mesh()

            await until(both)


async def arrives(data: bytes, source: GossipNode, *targets: GossipNode) -> None:
    """Wait until all targets have it, signed by its source."""
    for target in targets:
        await until(partial(target.has, data, source.id))
