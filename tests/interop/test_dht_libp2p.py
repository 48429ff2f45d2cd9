"""Our DHT and py-libp2p's KadDHT in one network.

py-libp2p's `protocol_prefix` does not change the protocol id that it speaks, so these networks speak
"/ipfs/kad/1.0.0".
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest
import trio
from libp2p.peer.id import ID

from swarmp2p.dht.keys import service_key
from swarmp2p.opening import open_peer
from swarmp2p.peer import Peer
from swarmp2p.queries import RemotePeer
from tests.interop.py_peers import IPFS, PATIENCE_S, PyPeer, py_peer, until

pytestmark = pytest.mark.slow

KEY = b"\x12\x20" + hashlib.sha256(b"model weights").digest()


def is_at(found: RemotePeer, node: PyPeer) -> bool:
    """Whether what we found leads to a node. py-libp2p's addresses end in /p2p/<id>; ours say so once."""
    return found.id == node.id and {str(address) for address in found.addresses} == {node.address}


@dataclass
class Network:
    """Ours, and two of theirs of which only `near` was ever told to ours, or ours to it."""

    ours: Peer
    near: PyPeer
    far: PyPeer


@pytest.fixture(params=["we dial", "they dial"])
async def network(request: pytest.FixtureRequest) -> AsyncGenerator[Network, None]:
    async with py_peer() as near, py_peer() as far:
        await far.join(near.address)
        bootstrap = [near.address] if request.param == "we dial" else []
        async with open_peer(dht_protocol=IPFS, bootstrap=bootstrap) as ours:
            if not bootstrap:
                await near.join(ours.addresses[0])
            with trio.fail_after(PATIENCE_S):
                yield Network(ours, near, far)


async def test_they_provide_and_we_find(network: Network) -> None:
    """far sends its record to us, as to everybody."""
    assert await network.far.dht.provide(KEY.hex())
    (found,) = [provider async for provider in network.ours.dht.find_providers(KEY)]
    assert is_at(found, network.far)


async def test_a_latecomer_finds_what_only_they_know() -> None:
    with trio.fail_after(PATIENCE_S):
        async with py_peer() as near, py_peer() as far:
            await far.join(near.address)
            assert await far.dht.provide(KEY.hex())
            await until(lambda: near.provides(KEY, far.id))
            async with open_peer(dht_protocol=IPFS, bootstrap=[near.address]) as ours:
                (found,) = [provider async for provider in ours.dht.find_providers(KEY)]
                assert is_at(found, far)


async def test_we_provide_and_they_find(network: Network) -> None:
    ours, near, far = network.ours, network.near, network.far
    assert await ours.dht.provide(KEY) >= 1
    await until(lambda: near.provides(KEY, ours.id) or far.provides(KEY, ours.id))
    (found,) = await far.dht.find_providers(KEY.hex(), count=1)
    assert found.peer_id.to_bytes() == ours.id
    assert {str(address) for address in found.addrs} >= {
        str(address.decapsulate_code(0x01A5)) for address in ours.addresses
    }


async def test_we_find_each_other_s_addresses(network: Network) -> None:
    found = await network.ours.dht.find_peer(network.far.id)
    assert is_at(found, network.far)
    info = await network.far.dht.find_peer(ID(network.ours.id))
    assert info is not None
    assert info.peer_id.to_bytes() == network.ours.id


async def test_the_nearest_peers_are_theirs(network: Network) -> None:
    nearest = await network.ours.dht.closest(b"anything")
    assert {peer.id for peer in nearest} == {network.near.id, network.far.id}
    assert all(is_at(peer, network.near) or is_at(peer, network.far) for peer in nearest)


async def test_values_they_put_and_we_get(network: Network) -> None:
    await network.far.dht.put_value("greeting", b"hello")
    assert await network.ours.dht.get(b"greeting") == b"hello"


async def test_values_we_put_and_they_get(network: Network) -> None:
    assert await network.ours.dht.put(b"greeting", b"hello") >= 1
    assert await network.far.dht.get_value("greeting") == b"hello"


async def test_they_serve_our_services_without_knowing_them(network: Network) -> None:
    """A signed service record rides in a field of provider messages that they skip."""
    async with (
        network.ours.announce("ray-worker", {"gpu": "h100"}),
        open_peer(dht_protocol=IPFS, bootstrap=[network.near.address]) as other,
    ):
        found = [record async for record in other.find("ray-worker")]
        assert [(record.provider, dict(record.attributes)) for record in found] == [
            (network.ours.id, {"gpu": "h100"})
        ]
        key = service_key("ray-worker")
        await until(lambda: network.near.provides(key, network.ours.id))
        (provider,) = await network.far.dht.find_providers(key.hex(), count=1)
        assert provider.peer_id.to_bytes() == network.ours.id
