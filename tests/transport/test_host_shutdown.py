"""A host that ends leaves nothing: no task, no socket, no file descriptor, no warning, no word on stderr."""

from __future__ import annotations

import logging
import os

import pytest
import trio

from swarmp2p.engine import PeerDown, PeerUp
from swarmp2p.scopes import start
from swarmp2p.transport.host import Host
from swarmp2p.transport.network import PeerStream
from swarmp2p.transport.tcp import TcpPipe
from tests.transport.network_conformance import answering, echo
from tests.transport.rawpeer import RawServer, raw_peer, tcp_to
from tests.transport.station import PATIENCE_S, eventually, named
from tests.transport.test_host_network import HostWorld
from tests.transport.toy import TOYS, Answer, Ask, Shout, Tell


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


@pytest.fixture(autouse=True)
def silence(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


async def busy_pair(nursery: trio.Nursery) -> TcpPipe:
    """Everything a host does, with things under way. Returns a connection that got through no handshake."""
    world = HostWorld(nursery)
    alice, bob = await world.pair()
    answering(bob)
    bob.network.set_handler("/mine/1.0.0", echo)
    streams: list[PeerStream] = [await alice.network.open_stream(bob.peer, "/mine/1.0.0") for _ in range(3)]
    await streams[0].send_all(bytes(200_000))
    alice.network.send(bob.peer, Ask(1, b"one"))
    assert await alice.message() == Answer(1, b"one")
    bob.on_message = None
    for number in range(50):
        alice.network.send(bob.peer, Shout(bytes(50_000)))
        alice.network.send(bob.peer, Ask(number, b"never answered"))
        bob.network.send(alice.peer, Tell(number, b"tell"))
    alice.network.send(named("nobody").peer_id, Shout(b"?"))
    await bob.next(PeerUp)
    return await tcp_to(alice.network)


@pytest.mark.parametrize("ending", ["cancelled", "an error"])
async def test_nothing_is_left(ending: str, caplog: pytest.LogCaptureFixture) -> None:
    await trio.lowlevel.checkpoint()
    before = tasks(), descriptors()
    pipe: TcpPipe | None = None
    try:
        async with trio.open_nursery() as nursery:
            pipe = await busy_pair(nursery)
            nursery.start_soon(trio.sleep_forever)
            if ending == "an error":
                raise ZeroDivisionError
            nursery.cancel_scope.cancel()
    except* ZeroDivisionError:
        pass
    await eventually(lambda: tasks() == before[0])
    assert pipe is not None
    pipe.shut()
    assert descriptors() == before[1]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_hosts_can_run_again(nursery: trio.Nursery) -> None:
    world = HostWorld(nursery)
    host = Host(named("alice"), ["/ip4/127.0.0.1/tcp/0"], TOYS)
    for _ in range(3):
        alice = await world.station("alice", host)
        bob = await world.station("bob")
        bob.knows(alice)
        bob.network.send(alice.peer, Shout(b"hello"))
        assert await alice.message() == Shout(b"hello")
        await alice.stop()
        assert host.addresses == ()
        assert host.connected == ()
        await bob.next(PeerDown)
        await bob.stop()


async def test_connections_that_end_leave_no_tasks(nursery: trio.Nursery) -> None:
    world = HostWorld(nursery)
    alice = await world.station("alice")
    bob = await world.station("bob")
    bob.knows(alice)
    answering(alice)
    before = tasks()
    for number in range(4):
        bob.network.send(alice.peer, Ask(number, b"?"))
        assert await bob.message() == Answer(number, b"?")
        bob.network.disconnect(alice.peer)
        await bob.next(PeerDown)
        await alice.next(PeerDown)
        await eventually(lambda: tasks() == before)  # py-libp2p takes 0.1 s to see a connection off
    async with raw_peer(alice.network):
        pass
    server = RawServer("server")
    await start(nursery, server.run)
    with trio.fail_after(PATIENCE_S):
        await alice.network.dial_peer(server.peer, server.addresses)
