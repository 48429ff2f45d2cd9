"""A peer of benchmarks/bridge.py, as a process of its own: it lends, or borrows and says what becomes of that.

    python -m benchmarks.bridge_peer OPTIONS

OPTIONS is a JSON object: `listen`, `bootstrap`, and `lend`: null, or the fields of an Offer. It prints a JSON object a
line: first {"peer", "address"}; then one for each line of its input:

    {"do": "borrow", "workers", "idle_s"}    {"environment"}
    {"do": "workers"}                        {"workers": [{"peer", "path"}, ...]}
    {"do": "events"}                         {"events": [[when, kind, peer, reason], ...]}, when as time.monotonic()
    {"do": "release"}                        {}

What fails gives {"error"}. It ends when its input does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import AsyncExitStack
from typing import Any, Final

import trio

from swarmp2p import Offer, Peer, SwarmError, open_peer
from swarmp2p.demo.process import lines_of
from swarmp2p.ray_bridge.cluster import Cluster

_LIMIT_S: Final = 120.0


class _Borrower:
    def __init__(self, peer: Peer, stack: AsyncExitStack) -> None:
        self._peer, self._stack = peer, stack
        self._cluster: Cluster | None = None

    async def answer(self, request: dict[str, Any]) -> dict[str, object]:
        match request["do"], self._cluster:
            case "borrow", None:
                workers = request["workers"]
                opened = self._peer.borrow(
                    workers=tuple(workers) if isinstance(workers, list) else workers,
                    idle_s=request["idle_s"],
                    timeout_s=_LIMIT_S,
                )
                self._cluster = await self._stack.enter_async_context(opened)
                return {"environment": self._cluster.environment}
            case "workers", Cluster() as cluster:
                return {"workers": [{"peer": str(each.peer), "path": each.path} for each in cluster.workers]}
            case "events", Cluster() as cluster:
                ahead = time.monotonic() - self._peer.now()
                told = [
                    [each.at + ahead, each.kind.value, str(each.peer), each.reason]
                    for each in cluster.past_events
                ]
                return {"events": told}
            case "release", Cluster():
                self._cluster = None
                await self._stack.aclose()
                return {}
            case unknown, _:
                raise ValueError(unknown)


async def run(options: dict[str, Any]) -> None:
    """Until the input ends."""
    async with (
        open_peer(listen=options["listen"], bootstrap=options["bootstrap"]) as peer,
        AsyncExitStack() as lends,
        AsyncExitStack() as borrows,
    ):
        if options.get("lend") is not None:
            await lends.enter_async_context(peer.lend(Offer(**options["lend"]), allow=None))
        address = next(str(each) for each in peer.addresses)
        print(json.dumps({"peer": str(peer.id), "address": address}), flush=True)
        borrower = _Borrower(peer, borrows)
        async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as requests:
            async for line in lines_of(requests):
                try:
                    told = await borrower.answer(json.loads(line))
                except SwarmError as problem:
                    told = {"error": str(problem)}
                print(json.dumps(told), flush=True)


if __name__ == "__main__":
    trio.run(run, json.loads(sys.argv[1]))
