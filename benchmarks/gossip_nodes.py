"""The two pubsubs that benchmarks/gossip.py compares, behind one interface: nodes in one process, over real libp2p
connections on loopback, joined along the edges of a graph and nowhere else."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import trio
from libp2p.abc import IHost, ISubscriptionAPI
from libp2p.custom_types import TProtocol
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service

from swarmp2p.driver import Driver
from swarmp2p.gossip.codec import pubsub_protocol
from swarmp2p.gossip.events import Delivered, GossipCommand, GossipOutput, Publish, Subscribe
from swarmp2p.gossip.router import GossipRouter
from swarmp2p.identity import Identity, verify
from swarmp2p.scopes import background_nursery, start
from swarmp2p.transport.host import Host

from .graph import Edge
from .libp2p_hosts import LOOPBACK, libp2p_host, where
from .report import say

TOPIC: Final = "benchmark"

OnMessage = Callable[[int, bytes], None]
"""Called with the number of the node that a message reached, and its data."""


class Node(ABC):
    """One pubsub node that subscribes to the topic."""

    @abstractmethod
    async def publish(self, data: bytes) -> None:
        """Sign data and send it."""


class Ours(Node):
    """A GossipRouter over a Host: a peer without DHT and leases, which would dial more than the graph has."""

    def __init__(self, number: int, on_message: OnMessage) -> None:
        identity = Identity.generate()
        self.host = Host(identity, [LOOPBACK], [pubsub_protocol()])
        router = GossipRouter(identity.peer_id, identity.sign, verify, random.Random(number))
        self.driver: Driver[GossipCommand, GossipOutput] = Driver(router, self.host, self._output)
        self._number, self._on_message = number, on_message

    def _output(self, output: GossipOutput) -> None:
        assert isinstance(output, Delivered)
        self._on_message(self._number, output.message.data)

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

    async def publish(self, data: bytes) -> None:
        await self.pubsub.publish(TOPIC, data)


@asynccontextmanager
async def our_nodes(
    count: int, edges: Sequence[Edge], on_message: OnMessage
) -> AsyncGenerator[Sequence[Node], None]:
    """Nodes of this library; connected and subscribed, but their meshes are still to form."""
    nodes = [Ours(number, on_message) for number in range(count)]
    async with background_nursery() as nursery:
        for node in nodes:
            await start(nursery, node.driver.run)
            node.driver.post(Subscribe(TOPIC))
        for one, other in edges:
            target = nodes[other].host
            await nodes[one].host.dial_peer(target.peer_id, target.addresses)
        say(f"{count} nodes of ours connected")
        yield nodes


@asynccontextmanager
async def their_nodes(
    count: int, edges: Sequence[Edge], on_message: OnMessage
) -> AsyncGenerator[Sequence[Node], None]:
    """py-libp2p hosts with pubsub, connected and subscribed."""

    async def listen(number: int, subscription: ISubscriptionAPI) -> None:
        while True:
            on_message(number, (await subscription.get()).data)

    async with AsyncExitStack() as stack:
        nodes = [Theirs(await stack.enter_async_context(libp2p_host())) for _ in range(count)]
        for node in nodes:
            await stack.enter_async_context(background_trio_service(node.pubsub))
            await stack.enter_async_context(background_trio_service(node.router))
            await node.pubsub.wait_until_ready()
        nursery = await stack.enter_async_context(background_nursery())
        for number, node in enumerate(nodes):
            nursery.start_soon(listen, number, await node.pubsub.subscribe(TOPIC))
        for one, other in edges:
            await nodes[one].host.connect(where(nodes[other].host))
            await trio.lowlevel.checkpoint()
        say(f"{count} py-libp2p hosts connected")
        yield nodes
