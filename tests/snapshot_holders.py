"""Two lenders that keep snapshots, in a process of its own, for tests: prints the first one's address, and a line each
time that all leases have ended; ends with its standard input."""

from __future__ import annotations

import sys

import trio

from swarmp2p import Lending, Offer, open_peer
from swarmp2p.scopes import background_nursery


async def lend(room: int) -> None:
    async with (
        open_peer() as first,
        open_peer(bootstrap=first.addresses[0]) as second,
        first.lend(Offer(isolation="none"), allow=None, paths=["direct"], snapshots_bytes=room) as one,
        second.lend(Offer(isolation="none"), allow=None, paths=["direct"], snapshots_bytes=room) as other,
        background_nursery() as nursery,
    ):
        print(first.addresses[0], flush=True)
        nursery.start_soon(tell_when_free, one, other)
        nursery.start_soon(tell_when_free, other, one)
        await trio.to_thread.run_sync(sys.stdin.read)


async def tell_when_free(lending: Lending, other: Lending) -> None:
    had = False
    while True:
        await lending.changed()
        if had and not lending.borrowers and not other.borrowers:
            await lending.ended()
            print("free", flush=True)
        had = bool(lending.borrowers)


if __name__ == "__main__":
    trio.run(lend, 16 * 2**20)
