"""One member of a tunnel as a process of its own, for tests: python -m tests.transport.wireguard.member

The first line of its input is the plan as JSON, with the key and, as `cell`, a process in whose network namespace the
interface goes. It says `{"kind", "port", "keeper"}`, or `{"failed"}`. Each further line is `{"apply": peers}`, answered
`{"touched"}`, or `{"wait": key, "within_s"}`, answered `{"up"}`. If the interface is lost it says `{"lost": why}`. Ends
with its input.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import trio

from swarmp2p.errors import WireGuardFailed
from swarmp2p.transport.wireguard.description import TunnelPeer, TunnelPlace
from swarmp2p.transport.wireguard.keys import WireGuardKey
from swarmp2p.transport.wireguard.tunnel import Tunnel, open_tunnel

_LOOK_S = 0.1


def peers_to_json(peers: tuple[TunnelPeer, ...]) -> list[list[Any]]:
    return [
        [each.key.hex(), each.address, each.alias, each.ports.start, each.ports.stop, each.endpoint]
        for each in peers
    ]


def peers_from_json(told: list[list[Any]]) -> tuple[TunnelPeer, ...]:
    return tuple(
        TunnelPeer(
            bytes.fromhex(key), address, alias, range(first, end), tuple(endpoint) if endpoint else None
        )
        for key, address, alias, first, end, endpoint in told
    )


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def obey(tunnel: Tunnel, lines: Any) -> None:
    async for line in lines:
        told = json.loads(line)
        if "apply" in told:
            done = await tunnel.apply(peers_from_json(told["apply"]))
            touched = [*done.remove, *done.add, *done.update]
            say(touched=sorted({each.key.hex() for each in touched}))
        if "wait" in told:
            say(up=await agreed(tunnel, bytes.fromhex(told["wait"]), told["within_s"]))


async def agreed(tunnel: Tunnel, key: bytes, within_s: float) -> bool:
    """Whether keys are agreed with a peer within that time. `wg` has no way to wait for that."""
    end, found = trio.current_time() + within_s, 0
    while not found and trio.current_time() < end:
        await trio.sleep(_LOOK_S)
        found = (await tunnel.handshakes()).get(key, 0)
    return found > 0


@contextmanager
def namespace_of(pid: int) -> Generator[int, None, None]:
    """A descriptor of a process's network namespace. It means that one, whoever has the pid later."""
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def main() -> None:
    lines = trio.wrap_file(sys.stdin)
    told = json.loads(await lines.readline())
    key = WireGuardKey(bytes.fromhex(told["private"]), bytes.fromhex(told["public"]))
    place = TunnelPlace(told["interface"], told["address"], told["alias"], range(*told["ports"]))
    with ExitStack() as stack:
        namespace = stack.enter_context(namespace_of(told["cell"])) if told["cell"] else -1
        try:
            async with (
                open_tunnel(
                    place.interface,
                    key,
                    listen_port=told["listen_port"],
                    namespace=namespace,
                    runtime=Path(told["runtime"]),
                ) as tunnel,
                trio.open_nursery() as nursery,
            ):
                await tunnel.settle(place)
                await tunnel.apply(peers_from_json(told["peers"]))
                say(kind=tunnel.kind, port=tunnel.port, keeper=tunnel.keeper)
                nursery.start_soon(tell_loss, tunnel)
                await obey(tunnel, lines)
                nursery.cancel_scope.cancel()
        except WireGuardFailed as failed:
            say(failed=str(failed))


async def tell_loss(tunnel: Tunnel) -> None:
    say(lost=await tunnel.lost())


if __name__ == "__main__":
    assert os.geteuid() == 0
    trio.run(main)
