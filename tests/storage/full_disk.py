"""A whole peer whose state stands on a disk of 200 KiB that fills up; tests/storage/test_full_disk.py runs it in a
mount namespace of its own, with the disk mounted at the path that is given."""

from __future__ import annotations

import os
import sys

import trio

import swarmp2p


def fill(path: str) -> None:
    """Take all the room there is."""
    with open(path, "wb", buffering=0) as file:
        try:
            while file.write(bytes(512)):
                pass
        except OSError:
            pass


async def wait_for(peer: swarmp2p.Peer, state: str) -> None:
    with trio.fail_after(30):
        while peer.dht.storage.state != state or (state == "ok" and peer.dht.storage.waiting):  # noqa: ASYNC110
            await trio.sleep(0.02)


async def found(peer: swarmp2p.Peer, key: bytes) -> int:
    return len([each async for each in peer.dht.find_providers(key)])


async def main(disk: str) -> None:
    path, filler = os.path.join(disk, "state"), os.path.join(disk, "filler")
    keys = [b"key %d" % n for n in range(40)]
    async with swarmp2p.open_peer(identity=os.path.join(disk, "key"), state=path) as holder:
        address = holder.addresses[0]
        async with swarmp2p.open_peer(bootstrap=address) as provider:
            await provider.dht.provide(keys[0])
            await trio.sleep(1)
            await wait_for(holder, "ok")
            fill(filler)
            for key in keys[1:]:
                await provider.dht.provide(key)
            await wait_for(holder, "failing")
            print(holder.dht.storage)
        async with swarmp2p.open_peer(bootstrap=address) as finder:
            assert [await found(finder, key) for key in keys] == [1] * len(keys), "not served from memory"
        os.remove(filler)
        await wait_for(holder, "ok")
    async with swarmp2p.open_peer(identity=os.path.join(disk, "key"), state=path) as holder:
        async with swarmp2p.open_peer(bootstrap=holder.addresses[0]) as finder:
            assert [await found(finder, key) for key in keys] == [1] * len(keys), (
                "not all of it was caught up with"
            )
    await trio.run_process(["mount", "-o", "remount,ro", disk])
    try:
        async with swarmp2p.open_peer(state=path):
            pass
    except swarmp2p.SwarmError as problem:
        print(problem)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
