"""A process without file descriptors: errors that say so, and a peer that goes on when there are some again."""

from __future__ import annotations

import logging
import socket

import pytest
import trio
from dns.asyncresolver import Resolver
from dns.resolver import NoResolverConfiguration
from multiaddr.multiaddr import Multiaddr

from swarmp2p.errors import DialError, ListenError
from swarmp2p.transport.tcp import TcpListener, TcpPipe
from tests.no_descriptors import no_descriptors
from tests.transport.test_host_dial import at, host_of
from tests.transport.test_host_network import HostWorld


@pytest.fixture
def world(nursery: trio.Nursery) -> HostWorld:
    return HostWorld(nursery)


def test_a_listener_without_a_socket_says_why() -> None:
    with no_descriptors(), pytest.raises(ListenError, match="ulimit -n") as caught:
        TcpListener(Multiaddr("/ip4/127.0.0.1/tcp/0"))
    assert "port" not in str(caught.value)


async def test_a_dial_without_a_socket_says_why_and_works_later(world: HostWorld) -> None:
    alice, bob = await world.station("alice"), await world.station("bob")
    with no_descriptors(), pytest.raises(DialError, match="ulimit -n"):
        await host_of(bob).dial(at(alice))
    assert await host_of(bob).dial(at(alice)) == alice.peer


async def test_connections_that_cannot_be_accepted_wait(caplog: pytest.LogCaptureFixture) -> None:
    listener = TcpListener(Multiaddr("/ip4/127.0.0.1/tcp/0"))
    client = socket.socket()
    accepted = trio.Event()

    async def take(pipe: TcpPipe) -> None:
        accepted.set()
        pipe.shut()
        listener.shut()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve, take, nursery, 1)
        with no_descriptors(), caplog.at_level(logging.WARNING):
            client.connect(listener.bound)
            while not caplog.messages:
                await trio.lowlevel.checkpoint()
            assert not accepted.is_set()
        await accepted.wait()
    client.close()
    assert len(caplog.messages) == 1
    assert "ulimit -n" in caplog.messages[0]


async def test_a_machine_without_resolv_conf_runs_a_peer(
    world: HostWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(self: Resolver, filename: str) -> None:
        raise NoResolverConfiguration

    monkeypatch.setattr(Resolver, "read_resolv_conf", missing)
    alice, bob = await world.station("alice"), await world.station("bob")
    assert await host_of(bob).dial(at(alice)) == alice.peer
    with pytest.raises(NoResolverConfiguration):
        Resolver()
