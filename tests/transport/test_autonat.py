"""AutoNAT over loopback: who is dialled back and who is not, and what the DHT makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from swarmp2p import open_peer
from swarmp2p.transport import autonat, host, reachability
from swarmp2p.transport.addresses import to_multiaddr
from swarmp2p.transport.autonat import ask, ask_around
from swarmp2p.transport.host import Host
from swarmp2p.transport.muxer import MuxedConnection
from swarmp2p.transport.reachability import Scope
from tests.transport.rawpeer import RawServer, raw_peer, raw_stream, rest_of
from tests.transport.station import PATIENCE_S, Station, eventually, named
from tests.transport.test_host_network import HostWorld

MALLORY = named("mallory").peer_id


def closed_port() -> bytes:
    """An address where nobody listens."""
    server = RawServer("nobody")
    (address,) = server.addresses
    server.listener.shut()
    return address


def everywhere(host: str) -> Scope:
    """Whatever the address, it stands for one of the internet."""
    del host
    return Scope.GLOBAL


@pytest.fixture
def world(nursery: trio.Nursery) -> HostWorld:
    return HostWorld(nursery)


async def asking(world: HostWorld) -> tuple[Station, Station, MuxedConnection]:
    """Alice, whom bob is connected to, and his connection."""
    alice, bob = await world.pair()
    await bob.network.dial_peer(alice.peer)
    assert isinstance(bob.network, Host)
    connection = bob.network._links().get(alice.peer)  # pyright: ignore[reportPrivateUsage]
    assert connection is not None
    return alice, bob, connection


async def test_who_listens_is_reached(world: HostWorld) -> None:
    _, bob, connection = await asking(world)
    (address,) = bob.network.addresses
    assert await ask(connection, bob.peer, [address]) == address
    assert await ask(connection, bob.peer, [closed_port(), address]) == address, "where it could"


async def test_who_does_not_listen_is_not(world: HostWorld) -> None:
    alice, bob, connection = await asking(world)
    assert await ask(connection, bob.peer, [closed_port()]) == b""
    assert await ask(connection, bob.peer, alice.network.addresses) == b""  # somebody else answers there


async def test_nobody_else_is_dialled(world: HostWorld) -> None:
    _, bob, connection = await asking(world)
    elsewhere = [to_multiaddr("127.0.0.2", 4001), to_multiaddr("192.0.2.1", 4001), b"nonsense"]
    assert await ask(connection, bob.peer, elsewhere) is None
    assert await ask(connection, named("carol").peer_id, bob.network.addresses) is None


async def test_who_dialled_us_is_not_asked(world: HostWorld) -> None:
    """Anybody can dial us, and say then that we cannot be dialled."""
    alice, bob, connection = await asking(world)
    assert isinstance(alice.network, Host)
    inbound = alice.network._links().get(bob.peer)  # pyright: ignore[reportPrivateUsage]
    assert inbound is not None
    for station, link, status in ((alice, inbound, "unknown"), (bob, connection, "reachable")):
        reach = reachability.Reachability(station.network.addresses)
        reach.dialled("127.0.0.1", 0.0)
        await ask_around([link], reach, station.peer, station.network.addresses)
        assert reach.status == status


async def test_too_many_requests_are_refused(world: HostWorld) -> None:
    _, bob, connection = await asking(world)
    answers = [await ask(connection, bob.peer, bob.network.addresses) for _ in range(5)]
    assert answers == [*bob.network.addresses] * 3 + [None, None]


async def test_nonsense_costs_its_stream(world: HostWorld) -> None:
    alice = await world.station("alice")
    async with raw_peer(alice.network) as connection:
        for nonsense in (b"\x05\xff\xff\xff\xff\xff", b"\xff\xff\xff\xff\xff\xff", b"\x00", b""):
            stream = await raw_stream(connection, autonat.PROTOCOL_ID)
            stream.push(nonsense)
            stream.finish()
            await rest_of(stream)
        assert await ask(connection, MALLORY, [closed_port()]) == b""


# What the DHT makes of it ---------------------------------------------------------------------------------------


async def test_a_peer_that_does_not_listen_is_a_client_that_nobody_hands_out() -> None:
    with trio.fail_after(PATIENCE_S):
        async with open_peer() as server, open_peer(bootstrap=server.addresses) as other:
            async with open_peer(listen=(), bootstrap=server.addresses) as client:
                assert (client.reachability, client.dht.mode) == ("unreachable", "client")
                assert (server.dht.mode, other.dht.mode) == ("server", "server")
                await client.dht.provide(b"key")
                await other.dht.refresh()
                for peer in (server, other):
                    assert client.id not in {known.id for known in peer.dht.table}
                assert client.id not in {peer.id for peer in await other.dht.closest(bytes(client.id))}
                found = [peer.id async for peer in other.dht.find_providers(b"key")]
                assert found in ([], [client.id])  # without an address it may not be listed


async def test_a_peer_whose_listener_cannot_be_dialled_turns_into_a_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """127.0.0.1 stands for the internet here, and the second peer's port for one that a firewall closes."""
    for module in (reachability, autonat):
        monkeypatch.setattr(module, "scope_of", everywhere)
    with trio.fail_after(PATIENCE_S):
        async with open_peer() as server:
            closed = closed_port()

            def elsewhere(bound: Sequence[tuple[str, int]]) -> tuple[bytes, ...]:
                del bound
                return (closed,)

            monkeypatch.setattr(host, "reachable", elsewhere)
            async with open_peer(bootstrap=server.addresses) as firewalled:
                await eventually(lambda: firewalled.dht.mode == "client")
                assert firewalled.reachability == "unreachable"
                await eventually(lambda: firewalled.id not in {known.id for known in server.dht.table})


async def test_a_peer_that_others_can_dial_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reachability, autonat):
        monkeypatch.setattr(module, "scope_of", everywhere)
    with trio.fail_after(PATIENCE_S):
        async with open_peer() as server, open_peer(bootstrap=server.addresses) as peer:
            await eventually(lambda: peer.reachability == "reachable")
            assert peer.dht.mode == "server"
            await eventually(lambda: peer.id in {known.id for known in server.dht.table})
