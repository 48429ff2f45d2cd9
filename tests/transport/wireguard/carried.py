"""A member with `open_carrier` as a process of its own, for tests.

    python -m tests.transport.wireguard.carried RUNTIME MEMBER CLUSTER

It says `{"key", "port"}`, reads one line `{"own": [inside, address, first, count], "partners": [[member, key,
[[ip, port], ...], inside, address, first, count], ...]}`, and then says each event as `[name, member or reason]`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import trio

from swarmp2p.transport.mesh.members import Endpoint, PortBlock
from swarmp2p.transport.mesh.plan import WireGuardPeer
from swarmp2p.transport.wireguard.carrier import CarrierEvent, TunnelLost, open_carrier
from swarmp2p.transport.wireguard.links import LinkConfig, LinkLost, LinkUp

CONFIG = LinkConfig(try_s=1.0, give_up_s=20.0, keepalive_s=1, silent_s=3.0, look_s=0.3)


def partner(told: list[Any]) -> WireGuardPeer:
    member, key, endpoints, inside, address, first, count = told
    return WireGuardPeer(
        bytes.fromhex(member),
        bytes.fromhex(key),
        tuple(Endpoint(ip, port) for ip, port in endpoints),
        inside,
        address,
        PortBlock(first, count),
    )


def say(what: Any) -> None:
    print(json.dumps(what), flush=True)


def tell(event: CarrierEvent) -> None:
    match event:
        case LinkUp(member=member) | LinkLost(member=member):
            say([type(event).__name__, member.hex()])
        case TunnelLost(reason=reason):
            say(["TunnelLost", reason])


async def main() -> None:
    lines = trio.wrap_file(sys.stdin)
    member, cluster = bytes.fromhex(sys.argv[2]), bytes.fromhex(sys.argv[3])
    async with open_carrier(
        cluster, member, on_event=tell, config=CONFIG, runtime=Path(sys.argv[1])
    ) as carrier:
        say({"key": carrier.key.hex(), "port": carrier.port})
        told = json.loads(await lines.readline())
        inside, address, first, count = told["own"]
        await carrier.settle(inside, address, PortBlock(first, count))
        await carrier.follow([partner(each) for each in told["partners"]])
        await lines.readline()


trio.run(main)
