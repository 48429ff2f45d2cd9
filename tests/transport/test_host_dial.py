"""Listening and dialling: what works, and that each failure is one clear error with nothing left behind."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator
from contextlib import ExitStack

import pytest
import trio
import trio.testing

from swarmp2p.engine import PeerDown, PeerUp, Received
from swarmp2p.errors import AddressError, DialError, ListenError, PeerMismatch, UsageError
from swarmp2p.identity import Identity, PeerId
from swarmp2p.scopes import start
from swarmp2p.transport.addresses import host_and_port, parse_transport, to_multiaddr
from swarmp2p.transport.host import Host, HostConfig
from swarmp2p.transport.network import PeerNetwork
from tests.transport.network_conformance import answering
from tests.transport.rawpeer import raw_peer
from tests.transport.station import PATIENCE_S, Station, eventually, named
from tests.transport.test_host_network import HostWorld
from tests.transport.toy import TOYS, Answer, Ask, Shout

STRANGER = named("stranger")


@pytest.fixture
def world(nursery: trio.Nursery) -> HostWorld:
    return HostWorld(nursery)


def port_of(network: PeerNetwork) -> int:
    address = parse_transport(network.addresses[0])
    assert address is not None
    return host_and_port(address)[1]


@pytest.fixture
def shut_port() -> Generator[Callable[[], int], None, None]:
    """Ports that refuse connections, and that nobody else is given meanwhile: bound, and not listened on."""
    with ExitStack() as stack:

        def another() -> int:
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            return int(sock.getsockname()[1])

        yield another


def host_of(station: Station) -> Host:
    assert isinstance(station.network, Host)
    return station.network


def at(station: Station, peer: object = None) -> str:
    """A station's address, naming that peer or another one."""
    return f"/ip4/127.0.0.1/tcp/{port_of(station.network)}/p2p/{peer or station.peer}"


async def test_a_port_in_use_is_refused_and_its_owner_undisturbed(world: HostWorld) -> None:
    alice = await world.station("alice")
    taken = f"/ip4/127.0.0.1/tcp/{port_of(alice.network)}"
    second = Host(STRANGER, ["/ip4/127.0.0.1/tcp/0", taken], TOYS)
    with pytest.raises(ListenError, match=r"(?i)address already in use; choose another port") as caught:
        await start(world.nursery, second.run, None)
    assert caught.value.address == taken
    assert second.addresses == ()
    bob = await world.station("bob")
    assert await host_of(bob).dial(at(alice)) == alice.peer


async def test_an_address_of_another_machine_is_not_blamed_on_the_port(world: HostWorld) -> None:
    with pytest.raises(ListenError, match="name an address that this machine has") as caught:
        await start(world.nursery, Host(STRANGER, ["/ip4/192.0.2.1/tcp/0"], TOYS).run, None)
    assert "another port" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["nonsense", "/ip4/127.0.0.1", "/ip4/127.0.0.1/udp/1", "/dns4/x/tcp/1", ""]
)
def test_what_cannot_be_listened_on_is_refused_at_once(address: str) -> None:
    with pytest.raises(AddressError):
        Host(STRANGER, [address], TOYS)


async def test_the_same_port_can_be_listened_on_again_after_a_stop(world: HostWorld) -> None:
    alice = await world.station("alice")
    bob = await world.station("bob")
    bob.knows(alice)
    await bob.network.dial_peer(alice.peer)
    port = port_of(alice.network)
    await alice.stop()
    again = Host(alice.identity, [f"/ip4/127.0.0.1/tcp/{port}"], TOYS)
    assert port_of((await world.station("alice", again)).network) == port


async def test_listening_everywhere_is_reachable_at_real_addresses(world: HostWorld) -> None:
    alice = await world.station("alice", Host(STRANGER, ["/ip4/0.0.0.0/tcp/0"], TOYS))
    bob = await world.station("bob")
    assert alice.network.addresses
    assert alice.network.addresses[-1][:5] == b"\x04\x7f\x00\x00\x01"  # loopback last
    assert not any(address.startswith(b"\x04\x00\x00\x00\x00") for address in alice.network.addresses)
    bob.network.introduce(alice.peer, alice.network.addresses[-1:])
    await bob.network.dial_peer(alice.peer)


async def test_a_host_without_a_listener_can_dial(world: HostWorld) -> None:
    alice = await world.station("alice")
    bob = await world.station("bob", Host(STRANGER, [], TOYS))
    bob.knows(alice)
    bob.network.send(alice.peer, Shout(b"hi"))
    assert await alice.message() == Shout(b"hi")
    assert (await alice.next(PeerUp)).addresses == ()


async def test_dial_returns_the_peer(world: HostWorld) -> None:
    alice, bob = await world.pair()
    assert await host_of(alice).dial(at(bob)) == bob.peer
    assert await host_of(alice).dial(at(bob)) == bob.peer  # connected already
    assert host_of(alice).stats.dials == 1
    assert host_of(alice).connected == (bob.peer,)


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("nonsense", "cannot use the address 'nonsense'"),
        ("/ip4/127.0.0.1/tcp/4001", "/p2p/<peer id> is missing"),
        (f"/p2p/{STRANGER.peer_id}", "does not say where"),
        (f"/ip4/127.0.0.1/udp/1/quic-v1/p2p/{STRANGER.peer_id}", "only TCP addresses can be dialled"),
        ("/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWnonsense", "cannot use"),
        ("/ip4/300.0.0.1/tcp/4001/p2p/" + str(STRANGER.peer_id), "cannot use"),
    ],
)
async def test_what_is_no_address_is_said_to_be_none(world: HostWorld, address: str, problem: str) -> None:
    alice = await world.station("alice")
    with pytest.raises(AddressError, match=problem):
        await host_of(alice).dial(address)


async def test_nobody_there(world: HostWorld, shut_port: Callable[[], int]) -> None:
    alice = await world.station("alice")
    address = f"/ip4/127.0.0.1/tcp/{shut_port()}/p2p/{STRANGER.peer_id}"
    with pytest.raises(DialError, match=r"refused.*check that the peer runs") as caught:
        await host_of(alice).dial(address)
    assert caught.value.address == address
    assert not alice.events  # nobody sent anything: nothing to report


async def test_another_peer_there(world: HostWorld) -> None:
    alice, bob = await world.pair()
    with pytest.raises(PeerMismatch, match="another peer answers"):
        await host_of(alice).dial(at(bob, STRANGER.peer_id))
    assert host_of(alice).connected == ()
    assert not bob.events


async def test_the_peer_itself(world: HostWorld) -> None:
    alice = await world.station("alice")
    with pytest.raises(DialError, match="this peer itself"):
        await host_of(alice).dial(at(alice))
    alice.network.send(alice.peer, Shout(b"to myself"))
    assert host_of(alice).stats.dropped == {"to itself": 1}


@pytest.mark.parametrize(
    "speech", [None, b"HTTP/1.1 400 Bad Request\r\n" * 4, b"\x13/multistream/1.0.0\n\x03na\n"]
)
async def test_something_else_there(world: HostWorld, speech: bytes | None) -> None:
    config = HostConfig(dial_timeout_s=0.2 if speech is None else 30.0)
    alice = await world.station("alice", Host(STRANGER, [], TOYS, config))

    async def other(stream: trio.SocketStream) -> None:
        if speech is not None:
            await stream.send_all(speech)
        await trio.sleep_forever()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    world.nursery.start_soon(trio.serve_listeners, other, listeners)
    port = listeners[0].socket.getsockname()[1]
    with pytest.raises(
        DialError, match="no answer within 0.2 s" if speech is None else "check that a libp2p peer"
    ):
        await host_of(alice).dial(f"/ip4/127.0.0.1/tcp/{port}/p2p/{Identity(b'x' * 32).peer_id}")


async def test_of_several_addresses_the_one_that_works_is_used(
    world: HostWorld, shut_port: Callable[[], int]
) -> None:
    config = HostConfig(dial_stagger_s=0.01)
    alice, bob = await world.station("alice", Host(STRANGER, [], TOYS, config)), await world.station("bob")
    silent = await trio.open_tcp_listeners(0, host="127.0.0.1")  # accepts, and never says anything
    await alice.network.dial_peer(
        bob.peer,
        [
            to_multiaddr("127.0.0.1", silent[0].socket.getsockname()[1]),
            to_multiaddr("127.0.0.1", shut_port()),
            b"\x04nonsense",
            *bob.network.addresses,
        ],
    )
    assert (await alice.next(PeerUp)).addresses == bob.network.addresses
    for listener in silent:
        await listener.aclose()


async def test_when_all_addresses_fail_each_is_named(world: HostWorld, shut_port: Callable[[], int]) -> None:
    alice = await world.station("alice")
    ports = [shut_port(), shut_port()]
    addresses = [to_multiaddr("127.0.0.1", port) for port in ports]
    with pytest.raises(DialError) as caught:
        await alice.network.dial_peer(STRANGER.peer_id, addresses)
    assert all(f"/tcp/{port}/" in str(caught.value) for port in ports)


async def test_many_dials_to_one_peer_are_one(world: HostWorld) -> None:
    alice, bob = await world.pair()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(alice.network.dial_peer, bob.peer)
    assert host_of(alice).stats.dials == 1


async def test_of_two_connections_that_crossed_one_is_closed_when_unused(world: HostWorld) -> None:
    config = HostConfig(sweep_s=0.01, duplicate_s=1000.0, idle_s=0.05)
    stations = [
        await world.station(name, Host(named(name), ["/ip4/127.0.0.1/tcp/0"], TOYS, config))
        for name in ("alice", "bob")
    ]
    alice, bob = stations
    alice.knows(bob)
    bob.knows(alice)
    answering(alice)
    answering(bob)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alice.network.dial_peer, bob.peer)
        nursery.start_soon(bob.network.dial_peer, alice.peer)
    counts = [host_of(station).connections for station in stations]
    assert counts == [2, 2]
    smaller, larger = sorted(stations, key=lambda station: station.peer)
    assert dialled_preferred(smaller, larger)  # both open streams on the same one
    assert not dialled_preferred(larger, smaller)
    for station in stations:
        for connection in host_of(station)._links().all():  # pyright: ignore[reportPrivateUsage]
            connection.since -= 2 * config.duplicate_s
    await eventually(lambda: [host_of(station).connections for station in stations] == [1, 1])
    for number in range(20):
        alice.network.send(bob.peer, Ask(number, b"a"))
        bob.network.send(alice.peer, Ask(number, b"b"))
    for station in stations:
        await station.settled(
            lambda station=station: sum(_is_answer(event) for event in station.events) == 20  # type: ignore[misc]
        )
        assert not [event for event in station.events if isinstance(event, PeerDown)]


def dialled_preferred(station: Station, other: Station) -> bool:
    """Whether the connection that a station opens streams on is one that it dialled."""
    connection = host_of(station)._links().get(other.peer)  # pyright: ignore[reportPrivateUsage]
    assert connection is not None
    return connection.dialled is not None


async def test_a_peer_that_does_not_answer_is_left_alone_for_a_while(world: HostWorld) -> None:
    alice, bob = await world.pair()
    addresses = bob.network.addresses
    await bob.stop()
    alice.network.introduce(bob.peer, addresses)
    for _ in range(5):
        alice.network.send(bob.peer, Shout(b"?"))
        await alice.next(PeerDown)
    assert host_of(alice).stats.dials == 3
    with pytest.raises(DialError, match="several times"):
        await alice.network.dial_peer(bob.peer)
    with pytest.raises(DialError, match="refused"):  # whoever names an address means it
        await alice.network.dial_peer(bob.peer, addresses)
    again = await world.station("bob")
    alice.knows(again)  # at another address
    alice.network.send(again.peer, Shout(b"found"))
    assert await again.message() == Shout(b"found")


async def test_of_many_addresses_three_are_tried(world: HostWorld, shut_port: Callable[[], int]) -> None:
    alice = await world.station("alice")
    addresses = [to_multiaddr("127.0.0.1", shut_port()) for _ in range(6)]
    with pytest.raises(DialError):
        await alice.network.dial_peer(STRANGER.peer_id, addresses)
    assert host_of(alice).stats.dials == 3


def _is_answer(event: object) -> bool:
    return isinstance(event, Received) and isinstance(event.message, Answer)


async def test_dials_that_wait_for_another_fail_with_it(
    world: HostWorld, shut_port: Callable[[], int]
) -> None:
    alice = await world.station("alice")
    address = to_multiaddr("127.0.0.1", shut_port())
    failures: list[str] = []

    async def dial() -> None:
        try:
            await alice.network.dial_peer(STRANGER.peer_id, [address])
        except DialError as failure:
            failures.append(str(failure))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(dial)
    assert len(failures) == 5
    assert host_of(alice).stats.dials == 1


async def test_a_cancelled_dial_leaves_the_next_one_free(world: HostWorld) -> None:
    alice, bob = await world.pair()
    with trio.move_on_after(0):
        await alice.network.dial_peer(bob.peer)
    with trio.fail_after(PATIENCE_S):
        await alice.network.dial_peer(bob.peer)


async def test_more_connections_than_allowed_are_refused(world: HostWorld) -> None:
    alice = await world.station(
        "alice", Host(STRANGER, ["/ip4/127.0.0.1/tcp/0"], TOYS, HostConfig(max_connections=2))
    )
    async with raw_peer(alice.network, "one"), raw_peer(alice.network, "two"):
        await alice.next(PeerUp)
        await alice.next(PeerUp)
        async with raw_peer(alice.network, "three") as third:
            with trio.fail_after(PATIENCE_S):
                await third.closed.wait()
    assert not [event for event in alice.events if isinstance(event, PeerUp)]


async def test_more_connections_of_one_peer_than_allowed_are_refused(world: HostWorld) -> None:
    config = HostConfig(max_connections_per_peer=1)
    alice = await world.station("alice", Host(STRANGER, ["/ip4/127.0.0.1/tcp/0"], TOYS, config))
    async with raw_peer(alice.network), raw_peer(alice.network) as second:
        with trio.fail_after(PATIENCE_S):
            await second.closed.wait()


async def test_a_host_that_does_not_run_says_so() -> None:
    host = Host(STRANGER, [], TOYS)
    host.send(STRANGER.peer_id, Shout(b"x"))
    host.introduce(STRANGER.peer_id, [])
    host.disconnect(STRANGER.peer_id)
    assert host.connected == ()
    with pytest.raises(UsageError, match="does not run"):
        await host.dial_peer(STRANGER.peer_id)


@pytest.mark.parametrize("mute", [True, False], ids=["mute", "closed"])
async def test_an_address_learnt_during_a_dial_is_tried_too(world: HostWorld, mute: bool) -> None:
    """Who named the peer first may have lied: nobody answers there, or not at all."""
    alice, bob = await world.station("alice"), await world.station("bob")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if mute:
            silent.listen()
        bob.network.introduce(alice.peer, (to_multiaddr("127.0.0.1", silent.getsockname()[1]),))
        bob.network.send(alice.peer, Shout(b"hi"))
        await trio.testing.wait_all_tasks_blocked()
        bob.network.introduce(alice.peer, alice.network.addresses)
        if not mute:
            bob.network.send(alice.peer, Shout(b"hi"))
        with trio.fail_after(PATIENCE_S):
            assert await alice.message() == Shout(b"hi")


async def test_many_dials_that_nobody_answers_keep_no_other_waiting(world: HostWorld) -> None:
    """Two answers of a liar name as many peers, all at a place where nobody speaks."""
    alice, bob = await world.station("alice"), await world.station("bob")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(128)
        place = to_multiaddr("127.0.0.1", silent.getsockname()[1])
        for number in range(HostConfig().handshakes):
            nobody = PeerId.from_public_key(number.to_bytes(32, "big"))
            bob.network.introduce(nobody, (place,))
            bob.network.send(nobody, Shout(b"hi"))
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(HostConfig().dial_timeout_s / 2):
            assert await host_of(bob).dial(at(alice)) == alice.peer
