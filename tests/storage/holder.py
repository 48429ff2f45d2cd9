"""A peer in a process of its own that holds what others give it, until it is killed. Run with the paths of its key and
its state file; prints JSON lines."""

from __future__ import annotations

import json
import sys

import trio

import swarmp2p


async def main(identity: str, state: str) -> None:
    async with swarmp2p.open_peer(identity=identity, state=state) as peer:
        dht = peer._engine.dht  # pyright: ignore[reportPrivateUsage]
        print(json.dumps({"address": str(peer.addresses[0])}), flush=True)
        while True:
            keeper = dht._keeper  # pyright: ignore[reportPrivateUsage]
            assert keeper is not None
            held = len(dht._providers)  # pyright: ignore[reportPrivateUsage]
            # Read without letting anything else run: what is held and neither noted nor waiting is on the disk.
            if not keeper.journal and not peer.dht.storage.waiting:
                print(json.dumps({"kept": held}), flush=True)
            await trio.sleep(0.02)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
