"""Our DHT and js-libp2p's in one network: providers, peers, values and services, whoever dialled whom.

What js holds others to (its @libp2p/kad-dht, src/rpc and src/record):
- ADD_PROVIDER and GET_PROVIDERS whose key is no multihash abort their stream; so does PUT_VALUE whose record has no
  validator for its key's namespace, and a record without `timeReceived` in RFC 3339 with nanoseconds.
- A provider must be the sender and have an address; nobody without an address is named.
- A PUT_VALUE counts as done when the reply's record has the same value.
- A peer enters the routing table when it names the protocol in identify and answers a ping.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.keys import service_key
from swarmp2p.dht.records import Attribute
from swarmp2p.errors import LookupFailed
from swarmp2p.identity import PeerId
from swarmp2p.node import NodeConfig
from swarmp2p.opening import open_peer
from swarmp2p.peer import Peer
from swarmp2p.queries import RemotePeer
from tests.interop.js_peers import JsPeer, JsPeers, js_peers
from tests.interop.py_peers import IPFS, until
from tests.interop.swarm_values import SwarmValues

pytestmark = pytest.mark.slow

KEY = b"\x12\x20" + hashlib.sha256(b"model weights").digest()
CONFIG = NodeConfig(dht=DhtConfig(validators={"swarm": SwarmValues()}))


@dataclass
class Network:
    """Ours, and two of theirs of which only `near` was ever told to ours, or ours to it."""

    ours: Peer
    near: JsPeer
    far: JsPeer
    peers: JsPeers


both_directions = pytest.mark.parametrize("network", ["we dial", "they dial"], indirect=True)


@pytest.fixture
async def network(request: pytest.FixtureRequest) -> AsyncGenerator[Network, None]:
    async with js_peers() as peers:
        near, far = await peers.start(IPFS), await peers.start(IPFS)
        await far.dial(near.address)
        we_dial = getattr(request, "param", "we dial") == "we dial"
        bootstrap = [near.address] if we_dial else []
        async with open_peer(dht_protocol=IPFS, bootstrap=bootstrap, config=CONFIG) as ours:
            if not we_dial:
                await near.dial(ours.addresses[0])
            await acquainted(ours, near, far)
            yield Network(ours, near, far, peers)


async def acquainted(ours: Peer, *others: JsPeer) -> None:
    """Wait until all tables hold everybody. js learns of peers when they connect to it, or are named to it."""
    everybody = {ours.id, *(other.id for other in others)}

    async def complete() -> bool:
        if {known.id for known in ours.dht.table} < everybody - {ours.id}:
            await ours.dht.refresh()
            return False
        for other in others:
            if await other.table() < everybody - {other.id}:
                await other.closest(bytes(other.id))
                return False
        return True

    await until(complete)


def leads_to(found: RemotePeer, node: JsPeer) -> bool:
    return found.id == node.id and node.address in {str(address) for address in found.addresses}


def of(peer: Peer) -> set[str]:
    """Its addresses as js tells them: without /p2p/<id>."""
    return {str(address.decapsulate_code(0x01A5)) for address in peer.addresses}


async def found_by(peer: Peer, key: bytes) -> dict[PeerId, RemotePeer]:
    return {found.id: found async for found in peer.dht.find_providers(key, limit=None)}


@both_directions
async def test_providers_both_ways(network: Network) -> None:
    """far and ours provide one key; everybody finds both, with addresses that can be dialled."""
    ours, near, far = network.ours, network.near, network.far
    assert await far.provide(KEY) == 2
    await until(lambda: _all_found(ours, KEY, {far.id}))
    assert leads_to((await found_by(ours, KEY))[far.id], far)
    assert await ours.dht.provide(KEY) == 2
    for node in (near, far):
        await until(partial(_holds, node, KEY, ours.id))
        providers = await node.providers(KEY)
        assert providers.keys() >= {ours.id}
        assert set(providers[ours.id]) >= of(ours)


async def _holds(node: JsPeer, key: bytes, provider: PeerId) -> bool:
    return provider in await node.holds(key)


async def _all_found(peer: Peer, key: bytes, wanted: set[PeerId]) -> bool:
    return (await found_by(peer, key)).keys() >= wanted


async def test_a_latecomer_of_either_side_finds_what_only_the_other_holds(network: Network) -> None:
    ours, near, far = network.ours, network.near, network.far
    assert await far.provide(KEY) == 2
    await until(lambda: _holds(near, KEY, far.id))
    async with open_peer(dht_protocol=IPFS, bootstrap=[near.address]) as late:
        assert leads_to((await found_by(late, KEY))[far.id], far)
    other = b"\x12\x20" + hashlib.sha256(b"other weights").digest()
    assert await ours.dht.provide(other) == 2
    late_js = await network.peers.start(IPFS)
    await late_js.dial(ours.addresses[0])
    await until(lambda: _in_table(late_js, ours.id))
    assert ours.id in await late_js.providers(other)


async def _in_table(node: JsPeer, peer: PeerId) -> bool:
    return peer in await node.table()


@both_directions
async def test_peers_both_ways(network: Network) -> None:
    """FIND_NODE for a peer and for the nearest of a key."""
    ours, near, far = network.ours, network.near, network.far
    assert leads_to(await ours.dht.find_peer(far.id), far)
    assert set(await far.find_peer(ours.id)) >= of(ours)
    nearest = {peer.id for peer in await ours.dht.closest(b"anything")}
    assert nearest == {near.id, far.id}
    assert (await far.closest(b"anything")).keys() == {near.id, ours.id}


@both_directions
async def test_values_both_ways(network: Network) -> None:
    """Under a namespace for which both sides have the same rules. The newest wins wherever it was put."""
    ours, near, far = network.ours, network.near, network.far
    stored, errors = await far.put(b"/swarm/greeting", b"1:hello")
    assert (stored, errors) == (2, [])
    assert await ours.dht.get(b"/swarm/greeting") == b"1:hello"
    assert await ours.dht.put(b"/swarm/greeting", b"2:hello again") == 2
    assert await near.get(b"/swarm/greeting") == b"2:hello again"
    assert await far.get(b"/swarm/greeting") == b"2:hello again"


async def test_values_that_break_the_rules_are_refused_by_both(network: Network) -> None:
    """js aborts the stream then; we answer with another value than was put, which js calls "not put correctly".
    An answer without a record would be a nil pointer in go's PutValue (pb/protocol_messenger.go)."""
    ours, near, far = network.ours, network.near, network.far
    with pytest.raises(LookupFailed):
        await ours.dht.put(b"/unknown/greeting", b"hello")
    _, errors = await far.put(b"/swarm/greeting", b"without a number")
    assert len(errors) == 2
    assert sum("not put correctly" in error for error in errors) == 1
    assert await near.get(b"/swarm/greeting") is None


async def test_a_js_node_finds_a_service_by_its_key(network: Network) -> None:
    """docs/interop.md: the formula of service keys, computed in JavaScript, and what others see of a service."""
    ours, far = network.ours, network.far
    key = await network.peers.service_key("ray-worker")
    assert key == service_key("ray-worker")
    assert f"`{key.hex()}`" in (Path(__file__).parents[2] / "docs" / "interop.md").read_text()
    assert await network.peers.service_key("κόσμος/λ") == service_key("κόσμος/λ")
    attributes: dict[str, Attribute] = {
        "gpu": "h100",
        "cpus": 64,
        "load": 0.25,
        "spot": True,
        "delta": -70000,
    }
    async with ours.announce("ray-worker", attributes):
        found = await far.content_routing(key)
        assert set(found[ours.id]) >= of(ours)
        record = await far.record(ours.id, "ray-worker")
        assert record is not None
        assert record["attributes"] == attributes
        assert await far.record(ours.id, "something else") is None


async def test_a_service_keeps_its_attributes_where_only_js_nodes_held_it() -> None:
    """They drop the signed record; the finder asks the provider itself, which they told it of."""
    config = NodeConfig(dht=DhtConfig(server=False))
    async with js_peers() as peers:
        near, far = await peers.start(IPFS), await peers.start(IPFS)
        await far.dial(near.address)
        async with (
            open_peer(dht_protocol=IPFS, bootstrap=[near.address], config=config) as provider,
            provider.announce("ray-worker", {"gpu": "h100"}),
        ):
            await until(lambda: _holds(near, service_key("ray-worker"), provider.id))
            async with open_peer(dht_protocol=IPFS, bootstrap=[near.address]) as finder:
                found = [record async for record in finder.find("ray-worker", where={"gpu": "h100"})]
                assert {record.provider: record.attributes["gpu"] for record in found} == {
                    provider.id: "h100"
                }


async def test_a_js_client_is_served_and_never_handed_out(network: Network) -> None:
    """kad-dht spec, "Client and server mode": a client asks and provides, and is in nobody's table."""
    ours, near = network.ours, network.near
    client = await network.peers.start(IPFS, client=True)
    await client.dial(ours.addresses[0])
    await until(lambda: _in_table(client, ours.id))
    assert await client.provide(KEY) >= 1
    await until(lambda: _all_found(ours, KEY, {client.id}))
    await ours.dht.refresh()
    assert client.id not in {known.id for known in ours.dht.table}
    assert client.id not in {peer.id for peer in await ours.dht.closest(bytes(client.id))}
    assert client.id not in await near.closest(hashlib.sha256(b"somewhere").digest())


async def test_a_client_of_ours_is_served_by_js_and_never_handed_out(network: Network) -> None:
    """It does not offer the protocol, so that js neither asks it nor names it."""
    ours, near = network.ours, network.near
    config = NodeConfig(dht=DhtConfig(server=False))
    async with open_peer(dht_protocol=IPFS, bootstrap=[near.address], config=config) as client:
        await client.connect(ours.addresses[0])
        assert await ours.dht.provide(KEY) >= 1
        await until(lambda: _all_found(client, KEY, {ours.id}))
        assert await client.dht.provide(KEY) >= 1
        await until(lambda: _holds(near, KEY, client.id))
        assert client.id not in await near.table()
        assert client.id not in await network.far.closest(bytes(client.id))
        assert client.id not in {known.id for known in ours.dht.table}
        assert client.id not in {peer.id for peer in await ours.dht.closest(bytes(client.id))}
        assert (await near.providers(KEY)).keys() == {ours.id, client.id}
