"""Peers that listen nowhere are reached through a relay, over real sockets."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio
from libp2p.relay.circuit_v2.pb import circuit_pb2 as pb
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch
from trio.testing import MockClock

from swarmp2p import open_peer
from swarmp2p.engine import Located, PeerDown, PeerUp, Received
from swarmp2p.errors import BadMessage, DialError, ProtocolUnsupported, UsageError
from swarmp2p.identity import verify
from swarmp2p.scopes import start
from swarmp2p.transport.addresses import circuit_address, split_circuit
from swarmp2p.transport.circuit_wire import HOP_ID, PUNCH_ID, STOP_ID, check_voucher, hear, seal_voucher, tell
from swarmp2p.transport.framing import encode_frame
from swarmp2p.transport.host import Host, HostConfig
from swarmp2p.transport.muxer import MuxedConnection, MuxedStream
from swarmp2p.transport.relay_config import RelayConfig
from swarmp2p.wire import Framing
from tests.transport.network_conformance import answering, echo
from tests.transport.rawpeer import RawServer, raw_peer, raw_stream, rest_of
from tests.transport.station import PATIENCE_S, Station, eventually, named
from tests.transport.test_host_network import HostWorld
from tests.transport.toy import TOYS, Answer, Ask, Shout

LISTEN = ["/ip4/127.0.0.1/tcp/0"]
IMPATIENT = HostConfig(sweep_s=0.02, duplicate_s=0.1, idle_s=0.1)


@pytest.fixture
def world(nursery: trio.Nursery) -> HostWorld:
    return HostWorld(nursery)


async def a_host(
    world: HostWorld,
    name: str,
    relay: RelayConfig,
    listen: Sequence[str] = (),
    config: HostConfig | None = None,
) -> Station:
    """config: all but relaying."""
    config = replace(config or HostConfig(), relay=relay)
    return await world.station(name, Host(named(name), listen, TOYS, config))


def host_of(station: Station) -> Host:
    assert isinstance(station.network, Host)
    return station.network


async def reserved(station: Station, *relays: Station) -> None:
    """Wait until it holds reservations with all of these."""
    await eventually(lambda: {relay.peer for relay in relays} <= set(host_of(station).relays))


async def hidden(world: HostWorld, name: str, *relays: Station, config: RelayConfig | None = None) -> Station:
    """A peer that listens nowhere and has reserved with some relays."""
    station = await a_host(world, name, config or RelayConfig(punch=False), config=IMPATIENT)
    for relay in relays:
        await host_of(station).dial_peer(relay.peer, relay.network.addresses)
    await reserved(station, *relays)
    return station


async def trio_of(world: HostWorld, config: RelayConfig | None = None) -> tuple[Station, Station, Station]:
    """(a relay, two peers that listen nowhere and know each other's addresses)."""
    relay = await a_host(world, "relay", config or RelayConfig(), LISTEN)
    alice, bob = await hidden(world, "alice", relay), await hidden(world, "bob", relay)
    alice.knows(bob)
    return relay, alice, bob


async def test_two_peers_that_listen_nowhere_talk_through_a_third(world: HostWorld) -> None:
    relay, alice, bob = await trio_of(world)
    (address,) = bob.network.addresses
    assert split_circuit(address) == (relay.peer, relay.network.addresses[0])
    answering(bob)
    alice.network.send(bob.peer, Ask(1, b"hello"))
    assert await alice.message() == Answer(1, b"hello")
    up = await alice.next(PeerUp, bob.peer)
    assert (up.outbound, up.addresses) == (True, (address,))
    up = await bob.next(PeerUp, alice.peer)
    assert (up.outbound, up.addresses) == (False, alice.network.addresses)
    bob.network.send(alice.peer, Shout(b"and back"))
    assert (await alice.next(Received, bob.peer)).message == Shout(b"and back")
    assert host_of(relay).counters["relay: circuits"] == 1
    alice.network.disconnect(bob.peer)
    await bob.next(PeerDown, alice.peer)
    await eventually(lambda: host_of(relay).circuits == 0)


async def test_streams_of_megabytes_pass_both_ways(world: HostWorld) -> None:
    _, alice, bob = await trio_of(world)
    bob.network.set_handler("/echo/1.0.0", echo)
    stream = await alice.network.open_stream(bob.peer, "/echo/1.0.0")
    data = bytes(range(256)) * 8192
    received = bytearray()

    async def receive() -> None:
        while len(received) < len(data):
            received.extend(await stream.receive_some())

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await stream.send_all(data)
    assert received == data
    await stream.aclose()


async def test_who_is_reached_through_a_relay_dials_who_can_be_dialled_and_nobody_notices(
    world: HostWorld,
) -> None:
    """DCUtR, "unilateral connection upgrade": messages go on over the direct connection, the other one is closed."""
    relay = await a_host(world, "relay", RelayConfig(), LISTEN)
    bob = await hidden(world, "bob", relay, config=RelayConfig())
    alice = await a_host(world, "alice", RelayConfig(), LISTEN, IMPATIENT)
    alice.knows(bob)
    answering(bob)
    sent = 0
    with trio.fail_after(PATIENCE_S):
        while host_of(relay).counters.get("relay: bytes", 0) == 0 or host_of(relay).circuits:
            sent += 1
            alice.network.send(bob.peer, Ask(sent, b"hello"))
            assert await alice.message() == Answer(sent, b"hello")
            alice.network.send(bob.peer, Shout(b"%d" % sent))
            await trio.sleep(0.01)
    assert host_of(bob).counters["relay: dialled after all"] == 1
    assert host_of(alice).connections == host_of(bob).connections == 2  # the relay, and each other
    await bob.settled(
        lambda: sum(isinstance(e, Received) and isinstance(e.message, Shout) for e in bob.events) == sent
    )
    assert not [event for event in (*alice.events, *bob.events) if isinstance(event, PeerDown)]


async def test_a_stream_through_a_relay_is_told_when_there_is_a_direct_connection(world: HostWorld) -> None:
    relay = await a_host(world, "relay", RelayConfig(), LISTEN)
    bob = await hidden(world, "bob", relay)
    alice = await a_host(world, "alice", RelayConfig(punch=False), LISTEN, IMPATIENT)
    alice.knows(bob)
    bob.network.set_handler("/echo/1.0.0", echo)
    stream = await alice.network.open_stream(bob.peer, "/echo/1.0.0")
    assert host_of(alice).path(bob.peer) == relay.peer
    told = trio.Event()

    async def wait() -> None:
        await stream.superseded()
        told.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await stream.send_all(b"still the relay's")
        assert await stream.receive_some()
        assert not told.is_set()
        async with raw_peer(alice.network, "bob"):
            with trio.fail_after(PATIENCE_S):
                await told.wait()
            assert host_of(alice).path(bob.peer) == bob.peer


async def test_where_no_hole_can_be_punched_the_relay_stays(world: HostWorld) -> None:
    """On one machine a SYN is answered before the other side has sent its own."""
    relay = await a_host(world, "relay", RelayConfig(), LISTEN)
    quick = RelayConfig(punches=2, punch_timeout_s=0.2)
    bob = await hidden(world, "bob", relay, config=quick)
    alice = await hidden(world, "alice", relay, config=quick)
    alice.knows(bob)
    answering(bob)
    alice.network.send(bob.peer, Ask(1, b"hello"))
    assert await alice.message() == Answer(1, b"hello")
    await eventually(lambda: host_of(bob).counters.get("relay: punches failed", 0) == 1)
    assert host_of(bob).counters["relay: punches that missed"] == 2
    assert host_of(alice).counters["relay: punches that missed"] == 2
    alice.network.send(bob.peer, Ask(2, b"still there"))
    assert await alice.message() == Answer(2, b"still there")


# Reservations ---------------------------------------------------------------------------------------------------


async def test_reservations_come_and_go_with_their_relays_and_everybody_is_told(world: HostWorld) -> None:
    one, two = [await a_host(world, name, RelayConfig(), LISTEN) for name in ("one", "two")]
    alice = await hidden(world, "alice", one, two)
    assert {split_circuit(address)[0] for address in alice.network.addresses} == {one.peer, two.peer}
    bob = await a_host(world, "bob", RelayConfig(), LISTEN)
    await host_of(alice).dial_peer(bob.peer, bob.network.addresses)
    up = await bob.next(PeerUp, alice.peer)
    assert {split_circuit(address)[0] for address in up.addresses} >= {one.peer, two.peer}
    await one.stop()
    moved = await bob.next(Located, alice.peer)
    while one.peer in {split_circuit(address)[0] for address in moved.addresses}:
        moved = await bob.next(Located, alice.peer)
    assert set(host_of(alice).relays) == {two.peer, bob.peer}


async def test_peers_relay_and_are_relayed_unless_they_are_told_not_to() -> None:
    async with open_peer(relay=False) as closed, open_peer() as relay:
        seeds = [*closed.addresses, *relay.addresses]
        async with (
            open_peer(listen=[], bootstrap=seeds, relayed=False) as unreached,
            open_peer(listen=[], bootstrap=seeds) as reached,
        ):
            await eventually(lambda: len(reached.addresses) > 0)
            assert all(f"/p2p/{relay.id}/p2p-circuit/" in str(address) for address in reached.addresses)
            await unreached.connect(reached.addresses[0])
            assert unreached.addresses == ()
    with pytest.raises(UsageError, match="relayed is True or False"):
        async with open_peer(relayed=1):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            pass


async def test_reservations_are_renewed_before_they_end(mock_clock: MockClock, nursery: trio.Nursery) -> None:
    mock_clock.rate = 50.0  # a minute's reservation is renewed after a second
    world = HostWorld(nursery)
    patient = HostConfig(negotiate_timeout_s=600.0, dial_timeout_s=600.0, probe_s=600.0)
    relay = await a_host(world, "relay", RelayConfig(reservation_s=60.0, punch=False), LISTEN, patient)
    bob = await a_host(world, "bob", RelayConfig(punch=False), config=patient)
    alice = await a_host(world, "alice", RelayConfig(punch=False), config=patient)
    for one in (bob, alice):
        await host_of(one).dial_peer(relay.peer, relay.network.addresses)
    began = trio.current_time()
    while host_of(relay).counters.get("relay: reservations", 0) < 6 or not host_of(bob).relays:  # noqa: ASYNC110
        await trio.sleep(1.0)
    assert trio.current_time() - began > 60.0  # the first ones are over
    assert host_of(bob).counters["relay: reserved"] == 1  # and nobody was without one in between
    await host_of(alice).dial_peer(bob.peer, bob.network.addresses)
    assert host_of(alice).path(bob.peer) == relay.peer


async def test_who_can_be_dialled_reserves_nowhere(world: HostWorld) -> None:
    relay = await a_host(world, "relay", RelayConfig(), LISTEN)
    alice = await a_host(world, "alice", RelayConfig(), LISTEN)
    await host_of(alice).dial_peer(relay.peer, relay.network.addresses)
    answering(relay)
    alice.network.send(relay.peer, Ask(1, b"hello"))
    await alice.message()
    assert host_of(alice).relays == ()
    assert "relay: reservations" not in host_of(relay).counters


@pytest.mark.parametrize("listen", [(), LISTEN])
async def test_who_is_switched_off_or_cannot_be_dialled_does_not_relay(
    world: HostWorld, listen: Sequence[str]
) -> None:
    station = await a_host(world, "relay", RelayConfig(serve=not listen), listen)
    server = RawServer("server")
    await start(world.nursery, server.run)
    await host_of(station).dial_peer(server.peer, server.addresses)
    await eventually(lambda: bool(server.connections))
    with pytest.raises(ProtocolUnsupported):
        await refused(server.connections[0])


async def refused(
    connection: MuxedConnection, kind: pb.HopMessage.Type.ValueType = pb.HopMessage.RESERVE
) -> int:
    """The status that a relay answers with."""
    return (await asked(connection, pb.HopMessage(type=kind))).status


async def asked(connection: MuxedConnection, message: pb.HopMessage) -> pb.HopMessage:
    stream = await raw_stream(connection, HOP_ID)
    tell(stream, message)
    with trio.fail_after(PATIENCE_S):
        return await hear(stream, pb.HopMessage)


def connect_to(peer: bytes) -> pb.HopMessage:
    return pb.HopMessage(type=pb.HopMessage.CONNECT, peer=pb.PeerId(id=peer))


async def test_a_reservation_is_what_the_spec_says(world: HostWorld) -> None:
    relay = await a_host(world, "relay", RelayConfig(circuit_s=60, circuit_bytes=1000), LISTEN)
    async with raw_peer(relay.network) as connection:
        answer = await asked(connection, pb.HopMessage(type=pb.HopMessage.RESERVE))
    assert (answer.type, answer.status) == (pb.HopMessage.STATUS, pb.OK)
    assert 3500 < answer.reservation.expire - time.time() <= 3600
    (address,) = answer.reservation.addrs
    assert address == relay.network.addresses[0] + b"\xa5\x03" + bytes((len(relay.peer),)) + relay.peer
    check_voucher(
        answer.reservation.voucher, relay.peer, named("mallory").peer_id, answer.reservation.expire, verify
    )
    assert (answer.limit.duration, answer.limit.data) == (60, 1000)


async def test_reservations_are_bounded_renewable_and_expire(world: HostWorld) -> None:
    config = RelayConfig(reservations=2, reservation_s=0.5)
    relay = await a_host(world, "relay", config, LISTEN, HostConfig(sweep_s=0.05))
    async with raw_peer(relay.network, "one") as one, raw_peer(relay.network, "two") as two:
        assert [await refused(peer) for peer in (one, two, one)] == [pb.OK] * 3
        async with raw_peer(relay.network, "three") as three:
            assert await refused(three) == pb.RESERVATION_REFUSED
            await eventually(lambda: host_of(relay).reservations == 0)
            assert await refused(three) == pb.OK
            answer = await asked(three, connect_to(named("one").peer_id))
            assert answer.status == pb.NO_RESERVATION
        await eventually(lambda: host_of(relay).reservations == 0)  # it left


# Circuits -------------------------------------------------------------------------------------------------------


async def test_what_a_relay_refuses_and_why(world: HostWorld) -> None:
    relay, alice, _ = await trio_of(world)
    async with raw_peer(relay.network) as connection:
        strange = named("somebody").peer_id
        assert (await asked(connection, connect_to(strange))).status == pb.NO_RESERVATION
        assert (await asked(connection, connect_to(b"nobody"))).status == pb.MALFORMED_MESSAGE
        assert await refused(connection, pb.HopMessage.STATUS) == pb.UNEXPECTED_MESSAGE
        assert (await asked(connection, pb.HopMessage())).status == pb.UNEXPECTED_MESSAGE
        assert await refused(connection) == pb.OK
        assert (await asked(connection, connect_to(named("mallory").peer_id))).status == pb.CONNECTION_FAILED
        assert (await asked(connection, connect_to(named("relay").peer_id))).status == pb.NO_RESERVATION
    through = circuit_address(relay.peer, relay.network.addresses[0])
    with pytest.raises(DialError, match="no reservation"):
        await host_of(alice).dial_peer(strange, (through,))
    with pytest.raises(DialError, match="no relay between"):
        await host_of(relay).dial_peer(strange, (through,))


async def test_circuits_are_bounded_for_each_peer(world: HostWorld) -> None:
    relay = await a_host(world, "relay", RelayConfig(circuits_per_peer=2, connects_burst=5), LISTEN)
    bob = await hidden(world, "bob", relay)
    async with raw_peer(relay.network) as connection:
        ask = connect_to(bob.peer)
        assert [(await asked(connection, ask)).status for _ in range(3)] == [
            pb.OK,
            pb.OK,
            pb.RESOURCE_LIMIT_EXCEEDED,
        ]
    await eventually(lambda: host_of(relay).circuits == 0)
    async with raw_peer(relay.network) as connection:
        statuses = [(await asked(connection, ask)).status for _ in range(4)]
        assert statuses[-1] == pb.RESOURCE_LIMIT_EXCEEDED  # too often


async def test_a_circuit_ends_at_its_limit_of_bytes_and_the_peer_is_found_again(world: HostWorld) -> None:
    """go's relays allow 128 KiB."""
    relay, alice, bob = await trio_of(world, RelayConfig(circuit_bytes=128 << 10))
    bob.network.set_handler("/echo/1.0.0", echo)
    stream = await alice.network.open_stream(bob.peer, "/echo/1.0.0")
    with pytest.raises(trio.BrokenResourceError):
        for _ in range(64):
            await stream.send_all(bytes(16 << 10))
    await alice.next(PeerDown, bob.peer)
    assert host_of(relay).counters["relay: cut at their limit"] >= 1
    await eventually(lambda: bob.peer not in host_of(alice).connected)
    answering(bob)
    alice.network.send(bob.peer, Ask(1, b"again"))
    assert await alice.message() == Answer(1, b"again")


async def test_a_circuit_ends_at_its_time(world: HostWorld) -> None:
    relay, alice, bob = await trio_of(world, RelayConfig(circuit_s=1))
    await host_of(alice).dial_peer(bob.peer)
    assert bob.peer in host_of(alice).connected
    await eventually(lambda: host_of(relay).circuits == 0)
    await eventually(lambda: bob.peer not in host_of(alice).connected)


async def test_no_circuit_over_a_circuit(world: HostWorld) -> None:
    """The spec: neither reservations nor connections over relayed connections."""
    relay, alice, bob = await trio_of(world)
    await host_of(alice).dial_peer(bob.peer)
    behind_bob = circuit_address(bob.peer, relay.network.addresses[0])
    with pytest.raises(DialError):  # that is where the relay is, not bob
        await host_of(relay).dial_peer(named("carol").peer_id, (behind_bob,))
    with pytest.raises(DialError, match="can itself only be reached through another"):
        await host_of(alice).dial_peer(named("carol").peer_id, (behind_bob,))


# What malicious ones send ---------------------------------------------------------------------------------------


async def a_stop(connection: MuxedConnection, message: pb.StopMessage) -> tuple[MuxedStream, pb.StopMessage]:
    stream = await raw_stream(connection, STOP_ID)
    tell(stream, message)
    with trio.fail_after(PATIENCE_S):
        return stream, await hear(stream, pb.StopMessage)


async def test_only_a_relay_that_was_asked_may_bring_connections(world: HostWorld) -> None:
    station = await a_host(world, "victim", RelayConfig(), LISTEN)
    ask = pb.StopMessage(type=pb.StopMessage.CONNECT, peer=pb.PeerId(id=named("somebody").peer_id))
    async with raw_peer(station.network) as connection:
        _, answer = await a_stop(connection, ask)
        assert answer.status == pb.PERMISSION_DENIED


async def lying_relay(world: HostWorld, name: str = "liar") -> RawServer:
    server = RawServer(name, HOP_ID)
    await start(world.nursery, server.run)
    return server


async def test_a_relay_cannot_pass_somebody_off_as_somebody_else(world: HostWorld) -> None:
    server = await lying_relay(world)
    alice = await a_host(world, "alice", RelayConfig(), ())
    await host_of(alice).dial_peer(server.peer, server.addresses)
    await give(server, await server.stream(), alice)
    await reserved_with(alice, server)
    (connection,) = server.connections
    for source in (named("somebody").peer_id, alice.peer, server.peer, b"x"):
        stream = await raw_stream(connection, STOP_ID)
        tell(stream, pb.StopMessage(type=pb.StopMessage.CONNECT, peer=pb.PeerId(id=source)))
        stream.push(b"no handshake at all" * 100)
        stream.finish()
        await rest_of(stream)
    assert host_of(alice).connected == (server.peer,)


async def give(
    server: RawServer, stream: MuxedStream, to: Station, lasts_s: int = 3600, forge: bool = False
) -> None:
    """Answer a RESERVE."""
    assert (await hear(stream, pb.HopMessage)).type == pb.HopMessage.RESERVE
    expires = int(time.time()) + lasts_s
    answer = pb.HopMessage(type=pb.HopMessage.STATUS, status=pb.OK)
    answer.reservation.expire = expires
    answer.reservation.addrs.extend([b"", b"\x04", b"\x04\x01\x02\x03\x04\x06\x00\x07"] * 20)
    whose = named("another").peer_id if forge else to.peer
    answer.reservation.voucher = seal_voucher(server.peer, whose, expires, server.identity.sign)
    tell(stream, answer)
    stream.finish()


async def reserved_with(station: Station, server: RawServer) -> None:
    await eventually(lambda: host_of(station).relays == (server.peer,))


async def test_addresses_told_by_a_relay_are_few_and_behind_where_we_dialled_it(world: HostWorld) -> None:
    server = await lying_relay(world)
    alice = await a_host(world, "alice", RelayConfig(), ())
    await host_of(alice).dial_peer(server.peer, server.addresses)
    await give(server, await server.stream(), alice)
    await reserved_with(alice, server)
    first, second = [split_circuit(address) for address in alice.network.addresses]
    assert first == (server.peer, server.addresses[0])
    assert second == (server.peer, b"\x04\x01\x02\x03\x04\x06\x00\x07")


@pytest.mark.parametrize("fault", ["forged", "expired", "none", "garbage", "silent"])
async def test_a_false_reservation_is_none_and_the_next_relay_is_asked(world: HostWorld, fault: str) -> None:
    server = await lying_relay(world)
    honest = await a_host(world, "honest", RelayConfig(), LISTEN)
    patience = HostConfig(negotiate_timeout_s=0.3)
    alice = await a_host(world, "alice", RelayConfig(retry_s=0.2), (), patience)
    await host_of(alice).dial_peer(server.peer, server.addresses)
    stream = await server.stream()
    match fault:
        case "forged":
            await give(server, stream, alice, forge=True)
        case "expired":
            await give(server, stream, alice, lasts_s=-5)
        case "none":
            tell(stream, pb.HopMessage(type=pb.HopMessage.STATUS, status=pb.OK))
        case "garbage":
            stream.push(b"\xff" * 9)
        case _:
            pass
    await host_of(alice).dial_peer(honest.peer, honest.network.addresses)
    await reserved(alice, honest)
    assert host_of(alice).relays == (honest.peer,)
    again = await server.stream()  # after a while
    await give(server, again, alice)
    await eventually(lambda: set(host_of(alice).relays) == {honest.peer, server.peer})


async def test_hole_punching_is_asked_for_only_through_relays_and_by_the_right_side(world: HostWorld) -> None:
    relay = await a_host(world, "relay", RelayConfig(), LISTEN)
    async with raw_peer(relay.network) as connection:  # direct
        stream = await raw_stream(connection, PUNCH_ID)
        tell(stream, HolePunch(type=HolePunch.CONNECT))
        assert await rest_of(stream) is None
    alice, bob = [
        await hidden(world, name, relay, config=RelayConfig(punches=0)) for name in ("alice", "bob")
    ]
    await host_of(alice).dial_peer(bob.peer, bob.network.addresses)
    reached = await alice.network.open_stream(bob.peer, PUNCH_ID)  # it is bob who would ask
    with pytest.raises(trio.BrokenResourceError):
        await reached.send_all(b"\x02\x08\x64")
        await reached.receive_some()


async def test_a_punch_that_says_something_else_than_is_due_ends_there(world: HostWorld) -> None:
    relay = await a_host(world, "relay", RelayConfig(), LISTEN)
    alice, bob = [
        await hidden(world, name, relay, config=RelayConfig(punches=0)) for name in ("alice", "bob")
    ]
    await host_of(alice).dial_peer(bob.peer, bob.network.addresses)
    for bodies in ([HolePunch(type=HolePunch.SYNC)], [HolePunch(type=HolePunch.CONNECT)] * 2):
        stream = await bob.network.open_stream(alice.peer, PUNCH_ID)
        for body in bodies:
            await stream.send_all(encode_frame(body.SerializeToString(), Framing.UVARINT))
        with pytest.raises(trio.BrokenResourceError):
            while await stream.receive_some():
                pass


def test_a_voucher_is_for_one_peer_and_time() -> None:
    relay, peer = named("relay"), named("a").peer_id
    voucher = seal_voucher(relay.peer_id, peer, 1_700_000_000, relay.sign)
    check_voucher(voucher, relay.peer_id, peer, 1_700_000_000, verify)
    for other in (
        (relay.peer_id, peer, 1_700_000_001),
        (relay.peer_id, relay.peer_id, 1_700_000_000),
        (peer, peer, 0),
    ):
        with pytest.raises(BadMessage, match="another reservation"):
            check_voucher(voucher, *other, verify)
    with pytest.raises(BadMessage, match="did not sign"):
        check_voucher(voucher[:-1] + b"x", relay.peer_id, peer, 1_700_000_000, verify)
