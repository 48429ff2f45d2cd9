"""Carrier connections over libp2p streams: whose are taken, which are passed on, and what comes through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from swarmp2p.errors import SwarmError
from swarmp2p.identity import Identity, PeerId
from swarmp2p.transport.memory_streams import MemoryStream, serve, stream_pair
from swarmp2p.transport.mesh.members import Facts, Member, MemberId, PortBlock, Roster, roster
from swarmp2p.transport.network import PeerStream
from swarmp2p.transport.overlay.carrier_streams import (
    HEADER_BYTES,
    PROTOCOL,
    CarrierStreams,
    Header,
    Here,
    Onward,
    route,
)

HEAD, ONE, TWO, STRANGER = (Identity(bytes([number]) * 32).peer_id for number in range(4))
CLUSTER, FIRST, SECOND = b"c" * 16, b"1" * 16, b"2" * 16


def members() -> Roster:
    return roster(
        CLUSTER,
        HEAD,
        1,
        [
            Member(member, peer, host, f"127.64.0.{host}", PortBlock(20000 + 100 * host, 100), Facts())
            for host, (member, peer) in enumerate([(CLUSTER, HEAD), (FIRST, ONE), (SECOND, TWO)], 1)
        ],
    )


def test_a_stream_of_a_member_is_taken_from_its_own_peer_and_from_the_heads() -> None:
    header = Header(CLUSTER, FIRST, SECOND)
    assert route(header, ONE, TWO, members()) == Here(SECOND)
    assert route(header, HEAD, TWO, members()) == Here(SECOND)
    assert route(header, STRANGER, TWO, members()) is None


def test_only_the_head_passes_streams_on_and_only_for_members() -> None:
    header = Header(CLUSTER, FIRST, SECOND)
    assert route(header, ONE, HEAD, members()) == Onward(TWO)
    assert route(header, TWO, HEAD, members()) is None  # another member's name
    assert route(header, STRANGER, HEAD, members()) is None
    assert route(header, ONE, STRANGER, members()) is None
    assert route(Header(CLUSTER, FIRST, b"x" * 16), ONE, HEAD, members()) is None
    assert route(Header(CLUSTER, b"x" * 16, SECOND), ONE, TWO, members()) is None
    assert route(Header(CLUSTER, FIRST, FIRST), ONE, ONE, members()) is None
    assert route(header, ONE, TWO, None) is None


def test_a_header_has_48_bytes() -> None:
    header = Header(CLUSTER, FIRST, SECOND)
    assert len(header.encode()) == HEADER_BYTES == 48
    assert Header.decode(header.encode()) == header


class FakePlane:
    """Keeps the streams that it is given."""

    def __init__(self) -> None:
        self.given: list[tuple[MemberId, PeerStream]] = []
        self.over = trio.Event()
        self.came = trio.Event()

    async def carry(self, target: MemberId, stream: PeerStream) -> trio.Event:
        self.given.append((target, stream))
        self.came.set()
        return self.over


class Unreachable(SwarmError):
    """No way to a peer."""


class World:
    """Peers with a CarrierStreams each. unreachable: pairs (who, whom) that cannot connect."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.unreachable: list[tuple[PeerId, PeerId]] = []
        self.planes = {member: FakePlane() for member in (CLUSTER, FIRST, SECOND)}
        own = {HEAD: CLUSTER, ONE: FIRST, TWO: SECOND}
        self.rosters = {peer: {CLUSTER: members()} for peer in own}
        self.streams = {
            peer: CarrierStreams(peer, self._opener(peer), self.rosters[peer], {member: self.planes[member]})
            for peer, member in own.items()
        }

    def _opener(self, me: PeerId) -> Callable[[PeerId, str], Awaitable[PeerStream]]:
        async def open_stream(peer: PeerId, protocol: str) -> PeerStream:
            await trio.lowlevel.checkpoint()
            assert protocol == PROTOCOL
            if (me, peer) in self.unreachable:
                raise Unreachable("no way")
            near, far = stream_pair(me, peer, protocol)
            self._nursery.start_soon(serve, self.streams[peer].handle, far)
            return near

        return open_stream


async def exchange(near: PeerStream, plane: FakePlane, source: MemberId) -> None:
    """Bytes go both ways between a stream and what the plane at the other end was given."""
    await plane.came.wait()
    [(target, far)] = plane.given
    assert target == source
    await near.send_all(b"there")
    assert await far.receive_some(5) == b"there"
    await far.send_all(b"back")
    assert await near.receive_some(5) == b"back"


async def test_a_stream_goes_directly_where_it_can() -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        world.unreachable += [(ONE, HEAD), (HEAD, TWO)]
        near = await world.streams[ONE].open(CLUSTER, FIRST, SECOND)
        await exchange(near, world.planes[SECOND], FIRST)
        nursery.cancel_scope.cancel()


class Relayed(MemoryStream):
    """A stream whose connection is superseded once `better` is set."""

    better: trio.Event

    async def superseded(self) -> None:
        await self.better.wait()


async def test_a_carrier_moves_to_the_direct_connection_that_comes_about() -> None:
    opened: list[Relayed] = []

    async def open_stream(peer: PeerId, protocol: str) -> PeerStream:
        await trio.lowlevel.checkpoint()
        near, _ = stream_pair(ONE, peer, protocol)
        near.__class__ = Relayed
        assert isinstance(near, Relayed)
        near.better = trio.Event()
        opened.append(near)
        return near

    plane, done = FakePlane(), trio.Event()
    streams = CarrierStreams(ONE, open_stream, {CLUSTER: members()}, {FIRST: plane})

    async def carry() -> None:
        await streams.carry(CLUSTER, FIRST, SECOND)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(carry)
        await wait_all_tasks_blocked()
        assert plane.given == [(SECOND, opened[0])]
        opened[0].better.set()
        await wait_all_tasks_blocked()
        assert plane.given == [(SECOND, opened[0]), (SECOND, opened[1])]
        assert not done.is_set()
        plane.over.set()
        await done.wait()
    assert len(opened) == 2


async def test_two_that_cannot_connect_go_through_the_head() -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        world.unreachable += [(ONE, TWO), (TWO, ONE)]
        near = await world.streams[ONE].open(CLUSTER, FIRST, SECOND)
        await exchange(near, world.planes[SECOND], FIRST)
        # either end's end is the other's
        near.reset()
        [(_, far)] = world.planes[SECOND].given
        with pytest.raises(trio.BrokenResourceError):
            await far.receive_some(1)
        nursery.cancel_scope.cancel()


async def test_when_the_head_cannot_pass_it_on_the_stream_is_reset() -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        world.unreachable += [(ONE, TWO), (HEAD, TWO)]
        near = await world.streams[ONE].open(CLUSTER, FIRST, SECOND)
        with pytest.raises(trio.BrokenResourceError):
            await near.receive_some(1)
        nursery.cancel_scope.cancel()


async def test_nobody_to_go_through_is_an_error() -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        world.unreachable += [(ONE, HEAD), (HEAD, ONE)]
        with pytest.raises(Unreachable):
            await world.streams[ONE].open(CLUSTER, FIRST, CLUSTER)
        with pytest.raises(Unreachable):
            await world.streams[HEAD].open(CLUSTER, CLUSTER, FIRST)


@pytest.mark.parametrize(
    "first",
    [b"", b"short", Header(CLUSTER, SECOND, FIRST).encode(), bytes(48)],
    ids=["nothing", "short", "another's name", "no cluster"],
)
async def test_what_is_not_a_members_is_refused(first: bytes) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        near, far = stream_pair(STRANGER, ONE, PROTOCOL)
        nursery.start_soon(serve, world.streams[ONE].handle, far)
        with pytest.raises(trio.BrokenResourceError):
            await near.send_all(first)
            await near.send_eof()
            await near.receive_some(1)
        assert world.streams[ONE].refused == 1
        assert not world.planes[FIRST].given


async def through_the_head(world: World) -> PeerStream:
    """A stream of the first worker to the second, which the head passes on: it stands."""
    near = await world.streams[ONE].open(CLUSTER, FIRST, SECOND)
    plane = world.planes[SECOND]
    await plane.came.wait()
    plane.came = trio.Event()
    return near


async def test_two_members_have_one_stream_through_the_head_and_a_newer_one_takes_its_place() -> None:
    """A single member could take all of the head's places else."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        world.unreachable += [(ONE, TWO), (TWO, ONE)]
        first = await through_the_head(world)
        second = await through_the_head(world)
        with pytest.raises(trio.BrokenResourceError):
            await first.receive_some(1)
        await second.send_all(b"on")
        assert await world.planes[SECOND].given[1][1].receive_some(2) == b"on"
        assert len(world.streams[HEAD]._spliced) == 1  # pyright: ignore[reportPrivateUsage]
        nursery.cancel_scope.cancel()


async def test_the_head_passes_nothing_on_for_who_is_no_member_any_more() -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        world.unreachable += [(ONE, TWO), (TWO, ONE)]
        near = await through_the_head(world)
        head = world.streams[HEAD]
        head.prune(CLUSTER)
        await near.send_all(b"still")
        assert await world.planes[SECOND].given[0][1].receive_some(5) == b"still"
        world.rosters[HEAD][CLUSTER] = roster(
            CLUSTER, HEAD, 2, [each for each in members().members if each.member != SECOND]
        )
        head.prune(CLUSTER)
        with pytest.raises(trio.BrokenResourceError):
            await near.receive_some(1)
        assert not head._spliced  # pyright: ignore[reportPrivateUsage]
        nursery.cancel_scope.cancel()
