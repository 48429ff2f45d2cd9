"""One DHT of four peers of ours, four of js-libp2p and four of py-libp2p: who finds what each of them provided."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import pytest

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.keys import service_key
from swarmp2p.identity import PeerId
from swarmp2p.node import NodeConfig
from swarmp2p.opening import open_peer
from swarmp2p.peer import Peer
from tests.interop.js_peers import JsPeer, JsPeers, js_peers
from tests.interop.py_peers import IPFS, PyPeer, py_peer, until

pytestmark = pytest.mark.slow

EACH = 4
SERVICE = "ray-worker"


def key_of(peer: PeerId) -> bytes:
    """What a peer provides in these tests: a key of its own, so that finding it takes a right lookup."""
    return b"\x12\x20" + hashlib.sha256(b"provided by " + peer).digest()


@dataclass
class Mixed:
    """The twelve. They were introduced in a chain: each joined through the one before it, kinds taking turns."""

    ours: list[Peer]
    js: list[JsPeer]
    py: list[PyPeer]
    process: JsPeers

    @property
    def ids(self) -> list[PeerId]:
        kinds: tuple[Sequence[Peer | JsPeer | PyPeer], ...] = (self.ours, self.js, self.py)
        return [peer.id for kind in kinds for peer in kind]


@pytest.fixture
async def mixed() -> AsyncGenerator[Mixed, None]:
    async with js_peers() as process, AsyncExitStack() as stack:
        network = Mixed([], [], [], process)
        last: str | None = None
        for _ in range(EACH):
            bootstrap = [] if last is None else [last]
            ours = await stack.enter_async_context(open_peer(dht_protocol=IPFS, bootstrap=bootstrap))
            network.ours.append(ours)
            js = await process.start(IPFS)
            network.js.append(js)
            await js.dial(ours.addresses[0])
            py = await stack.enter_async_context(py_peer())
            network.py.append(py)
            await py.join(js.address)
            last = py.address
        yield network


# Nobody confirms a provider record, so a busy machine's nodes may hold it a little later than its provider returns.


async def found_by_ours(peer: Peer, key: bytes, wanted: set[PeerId]) -> bool:
    return {found.id async for found in peer.dht.find_providers(key)} == wanted


async def found_by_js(peer: JsPeer, key: bytes, wanted: set[PeerId]) -> bool:
    return (await peer.providers(key)).keys() == wanted


async def found_by_py(peer: PyPeer, key: bytes, wanted: set[PeerId]) -> bool:
    return await peer.find(key) == wanted


async def attributes_found(peer: Peer, wanted: dict[PeerId, str]) -> bool:
    return {record.provider: record.attributes["gpu"] async for record in peer.find(SERVICE)} == wanted


async def test_newcomers_of_each_kind_find_what_everybody_provides(mixed: Mixed) -> None:
    """They hold nothing themselves, and each knows one of the twelve, of another kind."""
    for ours in mixed.ours:
        await ours.dht.provide(key_of(ours.id))
    for js in mixed.js:
        await js.provide(key_of(js.id))
    for py in mixed.py:
        await py.dht.provide(key_of(py.id).hex())
    async with open_peer(dht_protocol=IPFS, bootstrap=[mixed.py[-1].address]) as finder:
        for id in mixed.ids:
            await until(partial(found_by_ours, finder, key_of(id), {id}))
    js_finder = await mixed.process.start(IPFS)
    await js_finder.dial(mixed.ours[1].addresses[0])
    await until(js_finder.table)
    for id in mixed.ids:
        await until(partial(found_by_js, js_finder, key_of(id), {id}))
    async with py_peer() as py_finder:
        await py_finder.join(mixed.ours[2].addresses[0])
        for id in mixed.ids:
            await until(partial(found_by_py, py_finder, key_of(id), {id}))


async def test_a_service_is_found_with_its_attributes_by_ours_and_without_by_others(mixed: Mixed) -> None:
    """js and py hold the record without its signed part; two of ours announce, one of them as a client. py looks no
    further than its own store when that has anybody."""
    key = service_key(SERVICE)
    server = mixed.ours[0]
    client_config = NodeConfig(dht=DhtConfig(server=False))
    async with (
        open_peer(dht_protocol=IPFS, bootstrap=[mixed.js[0].address], config=client_config) as client,
        client.announce(SERVICE, {"gpu": "h100"}),
        server.announce(SERVICE, {"gpu": "a100"}),
    ):
        for bootstrap in (mixed.py[-1].address, mixed.js[-1].address):
            async with open_peer(dht_protocol=IPFS, bootstrap=[bootstrap]) as finder:
                await until(partial(attributes_found, finder, {client.id: "h100", server.id: "a100"}))
        both = {client.id, server.id}
        await until(partial(found_by_js, mixed.js[-1], key, both))
        last = mixed.py[-1]
        await until(lambda: all(last.provides(key, one) for one in both))
        assert await last.find(key) == both


async def test_values_reach_everybody_who_has_rules_for_them(mixed: Mixed) -> None:
    """py takes any value; js those of a namespace that it has rules for."""
    assert await mixed.ours[0].dht.put(b"/swarm/version", b"7:seven") >= 2 * EACH - 1
    for ours in mixed.ours:
        assert await ours.dht.get(b"/swarm/version") == b"7:seven"
    for js in mixed.js:
        assert await js.get(b"/swarm/version") == b"7:seven"
    for py in mixed.py:
        assert await py.dht.get_value("/swarm/version") == b"7:seven"
