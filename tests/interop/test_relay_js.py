"""Circuit relay v2 with js-libp2p: its client through our relay, ours through its, and both behind either."""

from __future__ import annotations

import pytest
import trio

from swarmp2p.opening import open_peer
from swarmp2p.peer import Peer
from swarmp2p.transport.host import Host
from tests.interop.js_peers import JsPeer, js_peers
from tests.interop.py_peers import until
from tests.transport.network_conformance import echo

pytestmark = pytest.mark.slow

ECHO = "/echo/1.0.0"


def host_of(peer: Peer) -> Host:
    network = peer._network  # pyright: ignore[reportPrivateUsage]
    assert isinstance(network, Host)
    return network


async def reserved(node: JsPeer) -> str:
    """Its address through a relay."""

    async def has_one() -> bool:
        return any("/p2p-circuit" in one for one in await node.addresses())

    await until(has_one)
    return next(one for one in await node.addresses() if "/p2p-circuit" in one)


async def relayed(peer: Peer) -> str:
    """Our address through a relay."""

    async def has_one() -> bool:
        return bool(host_of(peer).relays)

    await until(has_one)
    return next(str(one) for one in peer.addresses if "/p2p-circuit" in str(one))


async def test_js_is_reached_and_reaches_others_through_our_relay() -> None:
    async with js_peers() as peers, open_peer() as relay:
        node = await peers.start(relay="use")
        await node.dial(relay.addresses[0])
        address = await reserved(node)
        assert str(relay.id) in address
        async with open_peer(listen=(), bootstrap=[str(relay.addresses[0])]) as ours:
            assert await ours.connect(address) == node.id
            assert host_of(ours).path(node.id) == relay.id
            ours_at = await relayed(ours)
            other = await peers.start(relay="use")
            await other.dial(relay.addresses[0])
            (connection, *_) = await other.ping(ours_at)
            assert "/p2p-circuit" in connection["address"]
            assert connection["limited"]
            assert host_of(relay).counters["relay: circuits"] == 2


async def test_ours_are_reached_and_reach_others_through_js_s_relay() -> None:
    async with js_peers() as peers:
        relay = await peers.start(relay="serve")
        async with open_peer(listen=(), bootstrap=[]) as ours, open_peer(listen=()) as other:
            host_of(ours).set_handler(ECHO, echo)
            for one in (ours, other):
                await one.connect(relay.address)
            address = await relayed(ours)
            assert await other.connect(address) == ours.id
            assert host_of(other).path(ours.id) == relay.id
            stream = await other.open_stream(ours.id, ECHO)
            with trio.fail_after(30.0):
                await stream.send_all(b"through js")
                assert await stream.receive_some() == b"through js"
            await stream.aclose()
            node = await peers.start(relay="use")
            await node.dial(relay.address)
            await reserved(node)
            assert "/p2p-circuit" in (await node.ping(address))[0]["address"]
