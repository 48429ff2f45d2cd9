"""A peer of a whole network, as a process of a laboratory: lends, or borrows and lets tasks be run.

    python -m tests.whole.member OPTIONS

OPTIONS is a JSON object: `seed` (a byte, of the key), `listen`, `bootstrap`, `network_key` (null, or the contents of
its file), `relays` (whether it relays, and is relayed to); `lend`: how many workers, for everybody; `paths`: by which.
It prints a JSON object a line: first {"peer", "addresses"}. Each line of its input is a request, an object with "do":

    borrow  {"workers", "timeout_s", "paths"?} -> {"environment", "workers": [{"peer", "node_ip", "path", "reason"}]}
    release                             -> {}

A request that fails gives {"error"}. It ends when its input does.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import trio

from swarmp2p import Offer, Peer, SwarmError, open_peer
from swarmp2p.demo.process import lines_of
from swarmp2p.identity import Identity

_PATHS = ("direct", "overlay")


@dataclass
class _Member:
    peer: Peer
    borrowed: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def answer(self, request: dict[str, Any]) -> dict[str, object]:
        match request["do"]:
            case "borrow":
                cluster = await self.borrowed.enter_async_context(
                    self.peer.borrow(
                        workers=request["workers"],
                        timeout_s=request["timeout_s"],
                        paths=request.get("paths", _PATHS),
                    )
                )
                workers = [
                    {
                        "peer": str(one.peer),
                        "node_ip": one.node_ip,
                        "path": str(one.path),
                        "reason": str(getattr(one, "path_reason", "")),
                    }
                    for one in cluster.workers
                ]
                return {"environment": cluster.environment, "workers": workers}
            case "release":
                await self.borrowed.aclose()
                return {}
            case unknown:
                raise ValueError(unknown)


def _tell(what: object) -> None:
    print(json.dumps(what), flush=True)


async def run(options: dict[str, Any]) -> None:
    """Until the input ends."""
    identity = Identity(bytes([options["seed"]]) * 32)
    async with (
        open_peer(
            identity=identity,
            listen=options["listen"],
            bootstrap=options["bootstrap"],
            network_key=options.get("network_key"),
            relay=options.get("relays", True),
            relayed=options.get("relays", True),
        ) as peer,
        AsyncExitStack() as stack,
    ):
        if options.get("lend"):
            # an offer's CPUs are for all of its leases together
            isolation = options.get("isolation") or "none"
            offer = Offer(cpus=options["lend"], max_leases=options["lend"], isolation=isolation)
            await stack.enter_async_context(
                peer.lend(
                    offer,
                    allow=None,
                    logs=os.environ.get("LAB_LOGS"),
                    paths=options.get("paths") or _PATHS,
                )
            )
        _tell({"peer": str(peer.id), "addresses": [str(address) for address in peer.addresses]})
        member = _Member(peer)
        stack.push_async_callback(member.borrowed.aclose)
        async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as requests:
            async for line in lines_of(requests):
                try:
                    _tell(await member.answer(json.loads(line)))
                except SwarmError as problem:
                    _tell({"error": str(problem)})


def main() -> None:
    """The peer."""
    trio.run(run, json.loads(sys.argv[1]))


if __name__ == "__main__":
    main()
