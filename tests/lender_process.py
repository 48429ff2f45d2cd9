"""A lender as a process of its own, for tests: prints its address, lends one worker, ends with its standard input."""

from __future__ import annotations

import sys

import trio

from swarmp2p import Offer, open_peer
from swarmp2p.scopes import background_nursery


async def lend(paths: list[str]) -> None:
    async with (
        open_peer() as peer,
        peer.lend(Offer(isolation="none"), allow=None, paths=paths),
        background_nursery(),
    ):
        print(peer.addresses[0], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    trio.run(lend, sys.argv[1:])
