"""A burst of provider records from one honest peer, over real connections: all of them are stored."""

from __future__ import annotations

from contextlib import AsyncExitStack

import trio

from swarmp2p import Peer, open_peer

KEYS = [b"burst %d" % number for number in range(100)]


async def test_a_hundred_keys_provided_at_once_are_all_found() -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_peer())
        peers: list[Peer] = [first]
        for _ in range(5):
            peers.append(await stack.enter_async_context(open_peer(bootstrap=first.addresses)))
        stored: list[int] = []

        async def provide(key: bytes) -> None:
            stored.append(await peers[1].dht.provide(key))

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for key in KEYS:
                    nursery.start_soon(provide, key)
            assert stored == [5] * len(KEYS)
            for finder in (peers[2], peers[5]):
                for key in KEYS:
                    found = [peer.id async for peer in finder.dht.find_providers(key, limit=1)]
                    assert found == [peers[1].id]
