"""A whole peer in a network of the laboratory: one line of JSON out for each thing that it has seen.

usage: nat_peer.py NAME ROLE LISTEN [BOOTSTRAP]
    relay     says where it is
    provider  says when it has told others through whom it is reached; echoes
    user      finds the provider, talks to it, and says through whom; again until it is direct, or for a while
"""

from __future__ import annotations

import json
import sys

import trio

from swarmp2p.opening import open_peer
from swarmp2p.peer import Peer
from swarmp2p.transport.host import Host
from tests.transport.network_conformance import echo
from tests.transport.station import named

ECHO = "/echo/1.0.0"
_LOOKS = 40  # at what the connection runs through, a quarter of a second apart


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def host_of(peer: Peer) -> Host:
    network = peer._network  # pyright: ignore[reportPrivateUsage]
    assert isinstance(network, Host)
    return network


async def relay(peer: Peer) -> None:
    say(addresses=[str(one) for one in peer.addresses])
    await trio.sleep_forever()


async def provider(peer: Peer) -> None:
    host_of(peer).set_handler(ECHO, echo)
    async with peer.announce("thing", {}):
        while not host_of(peer).relays:  # noqa: ASYNC110
            await trio.sleep(0.05)
        say(addresses=[str(one) for one in peer.addresses], mode=peer.dht.mode)
        await trio.sleep_forever()


async def user(peer: Peer) -> None:
    found = None
    while found is None:
        async for one in peer.find("thing"):
            found = one.provider
            break
        await trio.sleep(0.1)
    stream = await peer.open_stream(found, ECHO)
    await stream.send_all(b"through")
    said = await stream.receive_some()
    first = host_of(peer).path(found)
    say(said=said.decode(), relayed=first == named("relay").peer_id)
    for _ in range(_LOOKS):
        if host_of(peer).path(found) == found:
            break
        await trio.sleep(0.25)
    direct = host_of(peer).path(found) == found
    other = await peer.open_stream(found, ECHO)
    await other.send_all(b"again")
    again = await other.receive_some()
    await stream.send_all(b"still")  # what was opened through the relay goes on
    still = await stream.receive_some()
    say(direct=direct, said=again.decode(), before=still.decode(), counters=host_of(peer).counters)


async def main() -> None:
    name, role, listen, *bootstrap = sys.argv[1:]
    async with open_peer(
        identity=named(name), listen=[listen] if listen else [], bootstrap=bootstrap
    ) as peer:
        await {"relay": relay, "provider": provider, "user": user}[role](peer)


if __name__ == "__main__":
    trio.run(main)
