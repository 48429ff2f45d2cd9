"""Our pubsub and js-libp2p's gossipsub, real nodes on loopback.

What js holds others to (@libp2p/gossipsub 17): a message's signature covers its known fields, encoded in order; an
IDONTWANT goes out for messages of 512 bytes and more; peer exchange is followed from whom scores at least
`acceptPXThreshold` (0).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from swarmp2p.identity import PeerId, verify
from swarmp2p.opening import open_peer
from swarmp2p.peer_record import open_record
from tests.interop.js_gossip import JsGossip
from tests.interop.js_peers import JsPeers, js_peers
from tests.interop.py_peers import until

pytestmark = pytest.mark.slow

TOPIC = "weather"
V12, V11, V10 = "/meshsub/1.2.0", "/meshsub/1.1.0", "/meshsub/1.0.0"


@pytest.fixture
async def peers() -> AsyncGenerator[JsPeers, None]:
    async with js_peers() as peers:
        yield peers


@pytest.mark.parametrize("version", [V12, V11, V10])
@pytest.mark.parametrize("we_dial", [True, False], ids=["we dial", "they dial"])
async def test_each_receives_what_the_other_publishes(peers: JsPeers, version: str, we_dial: bool) -> None:
    js = await JsGossip.start(peers, {"versions": [version]})
    async with open_peer() as ours, ours.subscribe(TOPIC) as reads:
        await js.subscribe(TOPIC)
        if we_dial:
            await ours.connect(js.address)
        else:
            await js.dial(ours.addresses[0])

        async def meshed() -> bool:
            return ours.id in await js.mesh(TOPIC)

        await until(meshed)
        await js.publish(TOPIC, b"rain")
        message = await anext(aiter(reads))
        assert (message.data, message.source) == (b"rain", js.id)
        await ours.publish(TOPIC, b"sun")

        async def arrived() -> bool:
            return await js.has(b"sun", PeerId(ours.id))

        await until(arrived)


async def test_each_takes_the_others_signed_record(peers: JsPeers) -> None:
    js = await JsGossip.start(peers)
    async with open_peer() as ours:
        await js.dial(ours.addresses[0])

        async def stored() -> bool:
            return bool((await js.record(PeerId(ours.id)))[0])

        await until(stored)
        envelope, certified = await js.record(PeerId(ours.id))
        assert open_record(envelope, verify, PeerId(ours.id)).info.addresses
        assert certified == [str(address).split("/p2p/")[0] for address in ours.addresses]
