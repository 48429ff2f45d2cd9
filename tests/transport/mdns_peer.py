"""A peer in a process of its own that finds others by multicast DNS; tests/transport/test_mdns.py runs it in a network
namespace. Prints its id, then whom it found, then which threads are left when it is closed."""

from __future__ import annotations

import sys
import threading

import trio

import swarmp2p


async def main(listen: str) -> None:
    with trio.fail_after(40):
        async with swarmp2p.open_peer(listen=listen, mdns=True) as peer:
            print(peer.id, flush=True)
            while not peer.dht.table:  # noqa: ASYNC110 - nothing tells of a change of the table
                await trio.sleep(0.02)
            print(*(entry.peer for entry in peer.dht.table), flush=True)
            await trio.to_thread.run_sync(sys.stdin.read)  # the other one finds this one too
    print(*(thread.name for thread in threading.enumerate() if "rio" not in thread.name), flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
