"""Where others see us, through whole hosts: loopback addresses stand for the internet, its subnets for other places."""

from __future__ import annotations

import pytest
import trio
from multiaddr.multiaddr import Multiaddr

from swarmp2p import open_peer
from swarmp2p.engine import PeerUp
from swarmp2p.identity import Identity, verify
from swarmp2p.peer_record import open_record
from swarmp2p.transport import autonat, identify, observed, reachability, tcp
from swarmp2p.transport.addresses import to_multiaddr
from swarmp2p.transport.host import Host, HostConfig
from swarmp2p.transport.own_addresses import Origin
from swarmp2p.transport.reachability import Scope
from tests.transport.station import Station, World, eventually
from tests.transport.toy import TOYS


def nowhere(host: str) -> bool:
    """Whatever the address, it is not of this machine."""
    del host
    return False


def everywhere(host: str) -> Scope:
    """Whatever the address, it stands for one of the internet."""
    del host
    return Scope.GLOBAL


class Places(World):
    """Hosts that listen, each in a subnet of its own."""

    number = 0

    def network(self, identity: Identity) -> Host:
        self.number += 1
        return Host(identity, [f"/ip4/127.0.{self.number}.1/tcp/0"], TOYS, HostConfig(ask_records=True))


@pytest.fixture
def places(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> Places:
    for module in (reachability, autonat, observed):
        monkeypatch.setattr(module, "scope_of", everywhere)
    monkeypatch.setattr(tcp, "_is_loopback", nowhere)
    return Places(nursery)


def host_of(station: Station) -> Host:
    assert isinstance(station.network, Host)
    return station.network


OUTSIDE = to_multiaddr("127.99.0.1", 4001)


def seen_outside(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A NAT: others see who dials from this port at OUTSIDE."""

    def translated(host: str, at: int) -> bytes:
        return OUTSIDE if at == port else to_multiaddr(host, at)

    monkeypatch.setattr(identify, "to_multiaddr", translated)


async def test_what_three_say_is_told_to_everybody(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [await places.station(name) for name in ("one", "two", "three")]
    alice = await places.station("alice")
    (inside,) = alice.network.addresses
    port = Multiaddr(inside).value_for_protocol("tcp")
    seen_outside(int(str(port)), monkeypatch)
    for number, other in enumerate(others):
        await alice.network.dial_peer(other.peer, other.network.addresses)
        if number < 2:
            assert alice.network.addresses == (inside,)
    await eventually(lambda: len(alice.network.addresses) == 2)
    assert set(alice.network.addresses) == {inside, OUTSIDE}
    assert host_of(alice).mapping == "same"
    late = await places.station("late")
    await alice.network.dial_peer(late.peer, late.network.addresses)
    record = (await late.next(PeerUp)).record
    assert set(open_record(record, verify).info.addresses) == {inside, OUTSIDE}


async def test_two_liars_are_not_believed_and_told_to_nobody(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [await places.station(name) for name in ("one", "two")]
    alice = await places.station("alice")
    seen_outside(int(str(Multiaddr(alice.network.addresses[0]).value_for_protocol("tcp"))), monkeypatch)
    for other in others:
        await alice.network.dial_peer(other.peer, other.network.addresses)
    await eventually(lambda: host_of(alice).candidates == (OUTSIDE,))
    assert OUTSIDE not in alice.network.addresses
    assert host_of(alice).mapping == "unknown"


async def test_those_who_dialled_us_are_not_asked(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their word comes with each push, and counts for nothing."""
    alice = await places.station("alice")
    seen_outside(int(str(Multiaddr(alice.network.addresses[0]).value_for_protocol("tcp"))), monkeypatch)
    for name in ("one", "two", "three"):
        other = await places.station(name)
        await other.network.dial_peer(alice.peer, alice.network.addresses)
        await alice.next(PeerUp, other.peer)
        other.network.serve("shout", False)  # which is pushed
    assert host_of(alice).candidates == ()


async def test_the_dht_is_told_when_addresses_change() -> None:
    async with open_peer() as alice:
        network = alice._network  # pyright: ignore[reportPrivateUsage]
        assert isinstance(network, Host)
        running = network._running  # pyright: ignore[reportPrivateUsage]
        assert running is not None
        async with open_peer(bootstrap=alice.addresses) as bob:
            running.own.set(Origin.MAPPED, [OUTSIDE])
            assert any("127.99.0.1" in str(address) for address in alice.addresses)
            await eventually(
                lambda: OUTSIDE in alice._engine.dht._publisher.addresses  # pyright: ignore[reportPrivateUsage]
            )
            await alice.dht.provide(b"key")
            found = [provider async for provider in bob.dht.find_providers(b"key")]
            assert any("127.99.0.1" in str(address) for one in found for address in one.addresses)
