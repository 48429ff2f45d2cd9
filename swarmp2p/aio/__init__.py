"""swarmp2p in asyncio programs: the same objects, the same errors, awaited in asyncio.

    import asyncio
    import swarmp2p.aio

    async def main():
        async with swarmp2p.aio.open_peer(bootstrap=...) as peer:
            async with peer.borrow(workers=3) as cluster:
                results = await asyncio.to_thread(work)  # calls ray.init() and ray.get()

    asyncio.run(main())

`open_peer` takes and gives what `swarmp2p.open_peer` does; what its documentation says of trio is so of asyncio here.
Handlers, validators and other functions that are passed in may be asyncio's. A cancelled call is cancelled in swarmp2p,
too, and ends before its `asyncio.CancelledError` is raised; a context whose peer or cluster fails cancels its body, and
raises why. Streams raise trio's errors (trio.BrokenResourceError, trio.ClosedResourceError).

trio runs as a guest of the running loop, in its thread (guest.py): whatever blocks the loop for seconds blocks the
peer, whose leases then end. Run blocking code, such as `ray.get`, in `asyncio.to_thread`, or await Ray's references.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..opening import open_peer
else:
    from .proxies import open_peer

__all__ = ["open_peer"]
