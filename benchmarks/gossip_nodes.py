"""The two pubsubs that benchmarks/gossip.py compares, behind one interface: nodes over real libp2p connections on
loopback."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final

from libp2p.abc import IHost, ISubscriptionAPI
from libp2p.custom_types import TProtocol
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service
from multiaddr.multiaddr import Multiaddr

from swarmp2p.driver import Driver
from swarmp2p.gossip.codec import pubsub_protocol
from swarmp2p.gossip.config import GossipConfig
from swarmp2p.gossip.events import Delivered, GossipCommand, GossipOutput, Publish, Subscribe
from swarmp2p.gossip.router import GossipRouter
from swarmp2p.identity import Identity, verify
from swarmp2p.scopes import background_nursery, start
from swarmp2p.transport.host import Host

from .libp2p_hosts import LOOPBACK, libp2p_host, where

TOPIC: Final = "benchmark"
OURS: Final = "ours"
PY: Final = "py-libp2p"

OnMessage = Callable[[int, bytes], None]
"""Called with the number of the node that a message reached, and its data."""


class Node(ABC):
    """One pubsub node that subscribes to the topic."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Where others dial it: a multiaddr that ends in /p2p."""

    @abstractmethod
    async def dial(self, address: str) -> None:
        """Connect to another node."""

    @abstractmethod
    async def publish(self, data: bytes) -> None:
        """Sign data and send it."""


class Ours(Node):
    """A GossipRouter over a Host: a peer without DHT and leases, which would dial more than the graph has."""

    def __init__(self, number: int, flush_interval_s: float, on_message: OnMessage) -> None:
        identity = Identity.generate()
        self.host = Host(identity, [LOOPBACK], [pubsub_protocol()])
        config = GossipConfig(flush_interval_s=flush_interval_s)
        router = GossipRouter(identity.peer_id, identity.sign, verify, random.Random(number), config)
        self.driver: Driver[GossipCommand, GossipOutput] = Driver(router, self.host, self._output)
        self._number, self._on_message = number, on_message

    def _output(self, output: GossipOutput) -> None:
        if isinstance(output, Delivered):
            self._on_message(self._number, output.message.data)

    @property
    def address(self) -> str:
        return f"{Multiaddr(self.host.addresses[0])}/p2p/{self.host.peer_id}"

    async def dial(self, address: str) -> None:
        await self.host.dial(address)

    async def publish(self, data: bytes) -> None:
        self.driver.post(Publish(TOPIC, data))


class Theirs(Node):
    """py-libp2p's GossipSub with go's parameters, as fast as it gets.

    Without what throttles it: its limit of 10 messages a second, and the adaptation that turns a heartbeat of 1 s
    into one of 60. By the first version of the protocol: it then sends no IDONTWANT, which it does for every
    message of whatever size, and takes two thirds of the CPU and of the bytes that it takes by 1.1.
    """

    def __init__(self, host: IHost) -> None:
        self.host = host
        self.router = GossipSub(
            protocols=[TProtocol("/meshsub/1.0.0")],
            degree=6,
            degree_low=5,
            degree_high=12,
            heartbeat_interval=1,
            adaptive_gossip_enabled=False,
            spam_protection_enabled=False,
        )
        self.pubsub = Pubsub(host, self.router)

    @property
    def address(self) -> str:
        return str(self.host.get_addrs()[0])

    async def dial(self, address: str) -> None:
        await self.host.connect(where(Multiaddr(address)))

    async def publish(self, data: bytes) -> None:
        await self.pubsub.publish(TOPIC, data)


@asynccontextmanager
async def our_nodes(
    numbers: Sequence[int], flush_interval_s: float, on_message: OnMessage
) -> AsyncGenerator[Sequence[Node], None]:
    """Nodes of this library, subscribed."""
    nodes = [Ours(number, flush_interval_s, on_message) for number in numbers]
    async with background_nursery() as nursery:
        for node in nodes:
            await start(nursery, node.driver.run)
            node.driver.post(Subscribe(TOPIC))
        yield nodes


@asynccontextmanager
async def their_nodes(
    numbers: Sequence[int], _flush_interval_s: float, on_message: OnMessage
) -> AsyncGenerator[Sequence[Node], None]:
    """py-libp2p hosts with pubsub, subscribed. They have nothing that coalesces."""

    async def listen(number: int, subscription: ISubscriptionAPI) -> None:
        while True:
            on_message(number, (await subscription.get()).data)

    async with AsyncExitStack() as stack:
        nodes = [Theirs(await stack.enter_async_context(libp2p_host())) for _ in numbers]
        for node in nodes:
            await stack.enter_async_context(background_trio_service(node.pubsub))
            await stack.enter_async_context(background_trio_service(node.router))
            await node.pubsub.wait_until_ready()
        nursery = await stack.enter_async_context(background_nursery())
        for number, node in zip(numbers, nodes, strict=True):
            nursery.start_soon(listen, number, await node.pubsub.subscribe(TOPIC))
        yield nodes


Opening = Callable[[Sequence[int], float, OnMessage], AbstractAsyncContextManager[Sequence[Node]]]

OPENINGS: Final[Mapping[str, Opening]] = {OURS: our_nodes, PY: their_nodes}
"""How the nodes of each side are made: their numbers, the flush interval in seconds, and whom to tell of messages."""
