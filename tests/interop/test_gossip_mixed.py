"""Our pubsub, js-libp2p's and py-libp2p's in one network: meshes of all three, lines that relay, and gossip alone.

Each message is published once, when the meshes stand: it must come, and come once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Final

import pytest
import trio

from swarmp2p.gossip import rpc_pb2 as pb
from swarmp2p.gossip.config import GossipConfig
from swarmp2p.gossip.events import Acceptance, GossipMessage
from swarmp2p.identity import Identity
from tests.interop.gossip_nodes import TOPIC, V10, V12, GossipNode, Swarm, arrives, meshed, swarm
from tests.interop.js_peers import js_peers
from tests.interop.py_peers import until

pytestmark = pytest.mark.slow

LAZY: Final = GossipConfig(mesh_degree=0, mesh_low=0, mesh_high=0, flood_publish=False)
"""In no mesh: whatever it hears or says goes by IHAVE and IWANT."""

JS_ONE: Final = {"D": 1, "Dlo": 1, "Dhi": 1, "Dout": 0, "Dscore": 0, "floodPublish": False}


@pytest.fixture
async def nodes() -> AsyncGenerator[Swarm, None]:
    async with js_peers() as js, swarm(js) as nodes:
        yield nodes


async def test_in_a_mesh_every_sender_reaches_every_receiver(nodes: Swarm) -> None:
    everybody: list[GossipNode] = [
        await nodes.node(kind) for kind in ("ours", "js", "py", "ours", "js", "ours")
    ]
    for number, node in enumerate(everybody):  # a ring and its chords, dialled in either direction
        for step in (1, 2):
            await node.dial(everybody[(number + step) % len(everybody)].address)
    for number, node in enumerate(everybody):
        for step in (1, 2):
            await meshed((node, everybody[(number + step) % len(everybody)]))
    for number, source in enumerate(everybody):
        data = b"from %d" % number
        await source.publish(data)
        await arrives(data, source, *(node for node in everybody if node is not source))


@pytest.mark.parametrize(
    "kinds",
    [
        ("js", "ours", "js"),
        ("ours", "js", "ours"),
        ("py", "ours", "js"),
        ("ours", "py", "ours"),
        ("js", "ours", "ours", "py"),
    ],
    ids="-".join,
)
async def test_in_a_line_each_end_hears_the_other(nodes: Swarm, kinds: tuple[str, ...]) -> None:
    line = [await nodes.node(kind) for kind in kinds]
    for number, node in enumerate(line[1:]):
        here, there = (node, line[number]) if number % 2 else (line[number], node)  # dialled from either side
        await here.dial(there.address)
        await meshed((here, there))
    for source in (line[0], line[-1]):
        data = b"from " + bytes(source.id)
        await source.publish(data)
        await arrives(data, source, *(node for node in line if node is not source))


async def test_what_we_publish_reaches_others_by_gossip_alone(nodes: Swarm) -> None:
    ours, js, py = await nodes.ours(LAZY), await nodes.js(), await nodes.py()
    for node in (js, py):
        await node.dial(ours.address)
    await until(lambda: len(ours.router.subscribers(TOPIC)) == 2)
    await ours.publish(b"lazily")
    await arrives(b"lazily", ours, js, py)
    assert ours.router.mesh(TOPIC) == ()


async def test_what_others_publish_reaches_us_by_gossip_alone(nodes: Swarm) -> None:
    first, second = await nodes.js(JS_ONE), await nodes.js(JS_ONE)
    await first.dial(second.address)
    await meshed((first, second))
    ours = await nodes.ours(LAZY)
    await ours.dial(first.address)

    async def known() -> bool:
        return ours.id in await first.node.subscribers(TOPIC)

    await until(known)
    await first.publish(b"lazily")
    await arrives(b"lazily", first, second, ours)
    assert ours.id not in await first.mesh()
    assert ours.router.mesh(TOPIC) == ()


@pytest.mark.parametrize("version", [V12, V10])
async def test_large_messages_pass_both_ways(nodes: Swarm, version: str) -> None:
    ours, js, py = await nodes.ours(), await nodes.js({"versions": [version]}), await nodes.py(version)
    for node in (js, py):
        await node.dial(ours.address)
        await meshed((node, ours))
    everybody: list[GossipNode] = [ours, js, py]
    for source in everybody:
        data = bytes(source.id)[-20:] * 25_000
        await source.publish(data)
        await arrives(data, source, *(node for node in everybody if node is not source))


async def test_fields_that_nobody_knows_survive_our_relaying(nodes: Swarm) -> None:
    """A message with a field of the future: its signature covers it, and whoever knows it will want it. (js and py
    build the signed bytes anew from the fields that they know, and drop it.)"""
    first, second = await nodes.ours(), await nodes.ours()
    source, target = await nodes.raw(), await nodes.raw()
    await first.dial(second.address)
    await meshed((first, second))
    await target.dial(second.address)
    await target.say(second.id, pb.RPC(subscriptions=[pb.RPC.SubOpts(subscribe=True, topicid=TOPIC)]))
    await until(lambda: target.id in second.router.mesh(TOPIC))
    message = signed(Identity.generate(), b"new", 1, b"\xc2\x3e\x06future")  # field 1000
    await source.dial(first.address)
    await source.say(first.id, pb.RPC(publish=[message]))
    await until(lambda: bool(target.published))
    assert target.published == [message], "byte for byte, after two of ours"
    assert [one.data for one in second.messages] == [b"new"]


async def test_a_js_node_that_restarts_with_its_id_is_meshed_again(nodes: Swarm) -> None:
    ours = await nodes.ours()
    js = await nodes.js(seed=b"j" * 32)
    port = int(js.address.split("/tcp/")[1].split("/")[0])
    await js.dial(ours.address)
    await meshed((js, ours))
    await js.node.stop()
    await until(lambda: js.id not in ours.router.mesh(TOPIC))
    again = await nodes.js(seed=b"j" * 32, port=port)
    assert again.id == js.id
    await again.dial(ours.address)
    await meshed((again, ours))
    await ours.publish(b"welcome back")
    await arrives(b"welcome back", ours, again)
    await again.publish(b"thanks")
    await arrives(b"thanks", again, ours)


async def test_we_heed_what_js_does_not_want(nodes: Swarm) -> None:
    """gossipsub 1.2: js says IDONTWANT of 512 bytes and more as soon as it has them."""
    ours, js, source = await nodes.ours(), await nodes.js({"asyncValidation": True}), await nodes.raw()
    await js.dial(ours.address)
    await meshed((js, ours))
    message = signed(Identity.generate(), bytes(1000), 1)
    await source.dial(js.address)
    await source.say(js.id, pb.RPC(publish=[message]))
    await until(lambda: ours.router.sizes()["unwanted"] == 1)
    assert not ours.messages, "js keeps it until it is judged, which nobody does"
    await source.dial(ours.address)
    await source.say(ours.id, pb.RPC(publish=[message]))
    await until(lambda: len(ours.messages) == 1)
    assert ours.router.stats.forwarded == 0


async def test_js_heeds_what_we_do_not_want(nodes: Swarm) -> None:
    """We say it before anybody here has judged the message, so that nothing else tells js that we have it."""
    ours, js, source = await nodes.ours(), await nodes.js(), await nodes.raw()
    await js.dial(ours.address)
    await meshed((js, ours))
    author = Identity.generate()
    first, second = (signed(author, bytes(2000), seqno) for seqno in (1, 2))
    await source.dial(js.address)
    await source.dial(ours.address)
    await source.say(js.id, pb.RPC(publish=[first]))
    await until(lambda: ours.router.sizes()["unwanted"] == 1)  # now we know how js names messages

    async def judge(message: GossipMessage) -> Acceptance:
        if len(message.data) == 2000:
            await trio.sleep_forever()
        return Acceptance.ACCEPT

    async with ours.peer.validate(TOPIC, judge):
        await source.say(ours.id, pb.RPC(publish=[second]))

        async def told() -> bool:
            return await js.node.unwanted(ours.id) > 0

        await until(told)
        await source.say(js.id, pb.RPC(publish=[second]))

        async def received() -> bool:
            return await js.node.received() == 2

        await until(received)
        duplicates = ours.router.stats.duplicates
        await js.publish(b"after it")
        await arrives(b"after it", js, ours)
    assert ours.router.stats.duplicates == duplicates == 0, "js kept it to itself"


async def test_js_and_ours_know_each_others_names_of_messages(nodes: Swarm) -> None:
    """What is offered by IHAVE and was had already is not asked for, and no promise is found broken."""
    brief = replace(LAZY, history=3, history_gossip=2, iwant_followup_s=1.0)
    ours, js, raw = await nodes.ours(brief), await nodes.js(), await nodes.raw()
    await raw.dial(js.address)
    await raw.dial(ours.address)
    await js.dial(ours.address)

    async def known() -> bool:
        return ours.id in await js.node.subscribers(TOPIC)

    await until(known)
    author = Identity.generate()
    messages = [signed(author, b"%d" % seqno, seqno) for seqno in range(1, 6)]
    heard = ours.router.stats
    await raw.say(ours.id, pb.RPC(publish=messages))
    await until(lambda: heard.delivered == 5)  # before js can offer them: else asking would be right
    await raw.say(js.id, pb.RPC(publish=messages))
    await until(
        lambda: bool(ours.router.sizes()["cached"] == 0)
    )  # all of it was advertised, and is too old now
    assert (heard.duplicates, heard.promises_broken) == (0, 0)


def signed(author: Identity, data: bytes, seqno: int, more: bytes = b"") -> bytes:
    """A message as everybody makes them. more: further fields, encoded."""
    body = pb.Message(data=data, seqno=seqno.to_bytes(8, "big"), topic=TOPIC)
    setattr(body, "from", bytes(author.peer_id))
    unsigned = body.SerializeToString() + more
    return unsigned + b"\x2a\x40" + author.sign(b"libp2p-pubsub:" + unsigned)
