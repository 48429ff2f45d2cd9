"""One end of our overlay, for benchmarks/mesh.py: a plane, and, where that carries, a libp2p host beside it.

    python -m benchmarks.mesh_plane CARRIER SECRET LISTEN OWN OTHER PORTS ROLE

CARRIER is tcp or libp2p, SECRET what both ends share, in hex, LISTEN this machine's address, OWN and OTHER those of the
two members in the overlay, PORTS a JSON list, ROLE who begins: "dials" or "waits". It prints where it takes carriers,
as a JSON list of address and port, reads where the other end does, and prints "up" when a carrier stands.
"""

from __future__ import annotations

import json
import socket
import sys
from contextlib import AsyncExitStack
from typing import Final

import trio

from swarmp2p.engine import NetworkEvent
from swarmp2p.identity import Identity
from swarmp2p.scopes import start
from swarmp2p.transport.addresses import parse_transport
from swarmp2p.transport.host import Host
from swarmp2p.transport.network import PeerStream
from swarmp2p.transport.overlay.plane import CarrierUp, PlaneEvent, open_plane

_PROTOCOL: Final = "/swarm/carrier/1.0.0"


def _deliver(event: NetworkEvent) -> None:
    """Nothing here is an engine's."""


async def _line() -> tuple[str, int]:
    host, port = json.loads(await trio.to_thread.run_sync(sys.stdin.readline))
    return host, port


def _identity(dials: bool) -> Identity:
    return Identity((b"a" if dials else b"b") * 32)


async def _host(listen: str, dials: bool, nursery: trio.Nursery) -> Host:
    host = Host(_identity(dials), [f"/ip4/{listen}/tcp/0"], [])
    await start(nursery, host.run, _deliver)
    return host


def _dialled_at(host: Host) -> tuple[str, int]:
    address = parse_transport(host.addresses[0])
    assert address is not None
    return str(address.value_for_protocol("ip4")), int(str(address.value_for_protocol("tcp")))


async def run(
    carrier: str, secret: str, listen: str, own: str, other: str, ports: list[int], dials: bool
) -> None:
    """Until the input ends."""
    member, target = (socket.inet_aton(address) * 4 for address in (own, other))
    stands = trio.Event()

    def on_event(event: PlaneEvent) -> None:
        if isinstance(event, CarrierUp):
            stands.set()

    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        plane = await stack.enter_async_context(open_plane(member, listen=[listen], on_event=on_event))
        host: Host | None = None
        if carrier == "libp2p":
            host = await _host(listen, dials, nursery)

            async def take(stream: PeerStream) -> None:
                await plane.carry(target, stream)
                await trio.sleep_forever()  # the stream ends with this

            host.set_handler(_PROTOCOL, take)
        endpoint = plane.endpoints[0] if host is None else _dialled_at(host)
        print(json.dumps(endpoint), flush=True)
        there = await _line()
        await plane.serve("127.0.0.1", ports)
        await plane.listen(target, other, ports)
        await plane.session(target, bytes.fromhex(secret), dials, [] if host is not None else [there])
        if host is not None and dials:
            peer = await host.dial(f"/ip4/{there[0]}/tcp/{there[1]}/p2p/{_identity(dials=False).peer_id}")
            await plane.carry(target, await host.open_stream(peer, _PROTOCOL))
        await stands.wait()
        print("up", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


def main() -> None:
    """One end."""
    carrier, secret, listen, own, other, ports, role = sys.argv[1:]
    trio.run(run, carrier, secret, listen, own, other, json.loads(ports), role == "dials")


if __name__ == "__main__":
    main()
