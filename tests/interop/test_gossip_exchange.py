"""Peer exchange between implementations: who is pruned learns of others, with records that they signed, and dials them.

js follows from a score of 10 on unless it is told otherwise, and py at any; neither has a score of anybody here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

import pytest

from swarmp2p.gossip.config import GossipConfig
from tests.interop.gossip_nodes import TOPIC, Swarm, arrives, meshed, swarm
from tests.interop.js_peers import js_peers
from tests.interop.py_peers import until

pytestmark = pytest.mark.slow

OFFERING: Final = GossipConfig(
    peer_exchange=True, mesh_degree=1, mesh_low=1, mesh_high=1, mesh_score=0, mesh_outbound=0
)
"""Has room for one in its mesh, and tells others of it."""

JS_OFFERING: Final = {"doPX": True, "D": 1, "Dlo": 1, "Dhi": 1, "Dout": 0, "Dscore": 0}
JS_FOLLOWS: Final = {"scoreThresholds": {"acceptPXThreshold": 0}}


@pytest.fixture
async def nodes() -> AsyncGenerator[Swarm, None]:
    async with js_peers() as js, swarm(js) as nodes:
        yield nodes


async def test_js_dials_whom_we_name(nodes: Swarm) -> None:
    hub, member = await nodes.ours(OFFERING), await nodes.ours()
    await member.dial(hub.address)
    await meshed((hub, member))
    js = await nodes.js(JS_FOLLOWS)
    await js.dial(hub.address)

    async def dialled() -> bool:
        return member.id in await js.node.connected()

    await until(dialled)
    envelope, certified = await js.node.record(member.id)
    assert envelope, "it came with the PRUNE, and js verified it"
    assert certified == [member.address.split("/p2p/")[0]]
    await meshed((js, member))
    await js.publish(b"nice to meet you")
    await arrives(b"nice to meet you", js, member)


async def test_we_name_js_to_js(nodes: Swarm) -> None:
    """A record of js's own, which we only handed on; the hub dialled that node, and asked it."""
    hub, member = await nodes.ours(OFFERING), await nodes.js()
    await hub.dial(member.address)
    await meshed((hub, member))
    await until(lambda: hub.router.sizes()["records"] == 1)
    js = await nodes.js(JS_FOLLOWS)
    await js.dial(hub.address)
    await meshed((js, member))


async def test_we_dial_whom_js_names(nodes: Swarm) -> None:
    hub, member = await nodes.js(JS_OFFERING), await nodes.js()
    await member.dial(hub.address)
    await meshed((hub, member))
    ours = await nodes.ours()
    await ours.dial(hub.address)
    await meshed((ours, member))
    assert ours.router.stats.exchange_dials == 1
    assert ours.router.stats.bad_records == 0
    await ours.publish(b"nice to meet you")
    await arrives(b"nice to meet you", ours, member)


async def test_we_dial_whom_js_names_when_it_leaves(nodes: Swarm) -> None:
    hub, member, ours = await nodes.js({"doPX": True}), await nodes.ours(), await nodes.ours()
    for node in (member, ours):
        await node.dial(hub.address)
        await meshed((hub, node))
    await hub.node.unsubscribe(TOPIC)
    await meshed((ours, member))


async def test_py_dials_whom_we_name(nodes: Swarm) -> None:
    hub, member = await nodes.ours(OFFERING), await nodes.ours()
    await member.dial(hub.address)
    await meshed((hub, member))
    py = await nodes.py()
    await py.dial(hub.address)
    await until(lambda: member.id in {peer.to_bytes() for peer in py.host.get_connected_peers()})


async def test_we_dial_whom_py_names(nodes: Swarm) -> None:
    """py-libp2p takes every GRAFT, and names others when it leaves."""
    hub, member, ours = await nodes.py(do_px=True), await nodes.ours(), await nodes.ours()
    for node in (member, ours):
        await node.dial(hub.address)
        await meshed((hub, node))
    await hub.pubsub.unsubscribe(TOPIC)
    await meshed((ours, member))
