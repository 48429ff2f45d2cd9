"""Our pubsub and py-libp2p's GossipSub, in a line: theirs, ours, theirs. What goes from one end to the other is
relayed by ours, with its publisher's signature."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import pytest
import trio
from libp2p.abc import IHost, ISubscriptionAPI
from libp2p.custom_types import TProtocol
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service

from benchmarks.libp2p_hosts import libp2p_host, where
from swarmp2p.opening import open_peer
from swarmp2p.peer import Peer
from swarmp2p.subscription import Subscription

pytestmark = pytest.mark.slow

TOPIC: Final = "weather"
PATIENCE_S: Final = 30.0
AGAIN_S: Final = 0.2


@dataclass
class Theirs:
    """One py-libp2p node that subscribes to the topic."""

    host: IHost
    pubsub: Pubsub
    subscription: ISubscriptionAPI

    async def publish(self, data: bytes) -> None:
        await self.pubsub.publish(TOPIC, data)

    async def until(self, data: bytes) -> bytes:
        """Read until these data arrive; returns the peer id of who signed them."""
        while True:
            message = await self.subscription.get()
            if message.data == data:
                return bytes(message.from_id)


@asynccontextmanager
async def theirs(protocol: str) -> AsyncGenerator[Theirs, None]:
    """protocol: the version of gossipsub that it speaks."""
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(libp2p_host())
        KadDHT(host, DHTMode.SERVER)  # whom we connect to, we ask for peers
        router = GossipSub(
            [TProtocol(protocol)], 6, 5, 12, heartbeat_interval=1, adaptive_gossip_enabled=False
        )
        pubsub = Pubsub(host, router)
        await stack.enter_async_context(background_trio_service(pubsub))
        await stack.enter_async_context(background_trio_service(router))
        await pubsub.wait_until_ready()
        yield Theirs(host, pubsub, await pubsub.subscribe(TOPIC))


@dataclass
class Line:
    """theirs (which ours dialled), ours, theirs (which dialled ours)."""

    dialled: Theirs
    ours: Peer
    ours_reads: Subscription
    dialler: Theirs

    async def ours_until(self, data: bytes) -> bytes:
        async for message in self.ours_reads:
            if message.data == data:
                return bytes(message.source)
        raise AssertionError("a subscription has no end")


@pytest.fixture(params=["/meshsub/1.0.0", "/meshsub/1.1.0", "/meshsub/1.2.0"])
async def line(request: pytest.FixtureRequest) -> AsyncGenerator[Line, None]:
    async with theirs(request.param) as dialled, theirs(request.param) as dialler:
        with trio.fail_after(PATIENCE_S):
            async with (
                open_peer(dht_protocol="/ipfs/kad/1.0.0") as ours,
                ours.subscribe(TOPIC) as subscription,
            ):
                await ours.connect(str(dialled.host.get_addrs()[0]))
                await dialler.host.connect(where(ours.addresses[0]))
                yield Line(dialled, ours, subscription, dialler)


async def again_until(
    publish: Callable[[bytes], Awaitable[None]], data: bytes, arrived: Callable[[], Awaitable[None]]
) -> None:
    """Publish until it has arrived: nobody says when a mesh has formed."""
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            await arrived()
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait)
        while True:
            await publish(data)
            await trio.sleep(AGAIN_S)


async def test_we_publish_and_they_receive(line: Line) -> None:
    async def arrived() -> None:
        assert await line.dialled.until(b"rain") == line.ours.id
        assert await line.dialler.until(b"rain") == line.ours.id

    await again_until(lambda data: line.ours.publish(TOPIC, data), b"rain", arrived)


async def test_they_publish_and_we_receive(line: Line) -> None:
    for node, data in ((line.dialled, b"sun"), (line.dialler, b"moon")):

        async def arrived(node: Theirs = node, data: bytes = data) -> None:
            assert await line.ours_until(data) == node.host.get_id().to_bytes()

        await again_until(node.publish, data, arrived)


async def test_we_relay_from_one_of_them_to_the_other(line: Line) -> None:
    for source, target, data in (
        (line.dialled, line.dialler, b"there"),
        (line.dialler, line.dialled, b"back"),
    ):

        async def arrived(source: Theirs = source, target: Theirs = target, data: bytes = data) -> None:
            assert await target.until(data) == source.host.get_id().to_bytes()

        await again_until(source.publish, data, arrived)
