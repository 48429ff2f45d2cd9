"""What is done for one membership when things go wrong: planes that refuse or end, connections that never stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from multiaddr.multiaddr import Multiaddr
from trio.testing import MockClock, wait_all_tasks_blocked

from swarmp2p.own_facts import is_own_ip, listening
from swarmp2p.paths import Membership, Paths
from swarmp2p.peer import Peer
from swarmp2p.scopes import background_nursery
from swarmp2p.transport.mesh.events import Paired, Planned, TellFacts
from swarmp2p.transport.mesh.members import Carrier, Endpoint, Facts, Member, MemberId, roster
from swarmp2p.transport.mesh.plan import plan
from swarmp2p.transport.overlay.plane import CarrierUp, Ended, Plane, PlaneEnded, PlaneRefused

from .transport.mesh.made import CLUSTER, head, worker


class MadeUpPlane:
    """Writes down what it is asked to do. taken: the addresses whose ports it cannot have."""

    endpoints = (("127.0.0.1", 7),)

    def __init__(self, *taken: str, ended: bool = False) -> None:
        self.taken, self.ended = taken, ended
        self.served: list[str] = []
        self.listened: list[str] = []
        self.aimed: list[tuple[MemberId, list[tuple[str, int]]]] = []

    async def serve(self, address: str, ports: Sequence[int]) -> None:
        if self.ended:
            raise PlaneEnded("it was ended")
        self.served.append(address)

    async def unserve(self, ports: Sequence[int]) -> None:
        del self.served[-1]

    async def listen(self, target: MemberId, address: str, ports: Sequence[int]) -> None:
        if address in self.taken:
            raise PlaneRefused("listen", "somebody listens there")
        self.listened.append(address)

    async def unlisten(self, target: MemberId, address: str, ports: Sequence[int]) -> None:
        self.listened.remove(address)

    async def session(self, *arguments: object) -> None:
        pass

    async def aim(self, target: MemberId, endpoints: list[tuple[str, int]]) -> None:
        self.aimed.append((target, endpoints))

    async def drop(self, target: MemberId) -> None:
        pass


@dataclass
class World:
    """A peer's paths with one membership of `own`. said: what was told to the engines, or became of members."""

    own: MemberId
    addresses: tuple[Multiaddr, ...] = (Multiaddr("/ip4/127.0.0.1/tcp/9"),)
    said: list[object] = field(default_factory=list[object])

    def __post_init__(self) -> None:
        async def open_stream(*arguments: object) -> None:
            raise OSError("nobody answers")

        self.peer = SimpleNamespace(
            id=head().peer, addresses=self.addresses, reachability="unknown", open_stream=open_stream
        )
        self.paths = Paths(cast("Peer", self.peer), self.said.append)
        self.membership = Membership.new(self.own, CLUSTER)
        self.membership.say = lambda: self.paths.facts(self.membership, [Carrier.OVERLAY], {})
        self.paths.enter(self.membership)

    async def serve(self, plane: MadeUpPlane) -> str:
        """By this plane, until it ends."""
        self.paths.equip(self.membership, cast("Plane", plane))
        return await self.paths.serve(
            self.membership,
            lambda: self.said.append("up"),
            lambda reason: self.said.append(f"failed: {reason}"),
            lambda member, reason: self.said.append((member, reason)),
        )

    def planned(self, *members: Member) -> None:
        found = roster(CLUSTER, head().peer, 1, members)
        self.paths.output(Planned(self.own, found, plan(found, self.own)))

    def hear(self, event: Any) -> None:
        self.paths.hear(self.membership)(event)


async def settle() -> None:
    await wait_all_tasks_blocked()


async def test_ports_that_cannot_be_had_cost_that_worker_alone(autojump_clock: MockClock) -> None:
    one, other, world = worker(1), worker(2), World(CLUSTER)
    plane = MadeUpPlane(one.address)
    async with background_nursery() as nursery:
        nursery.start_soon(world.serve, plane)
        world.planned(head(), one, other)
        await settle()
        assert world.said == [(one.member, "somebody listens there")]
        assert plane.listened == [other.address]


async def test_who_leaves_is_listened_for_no_more(autojump_clock: MockClock) -> None:
    plane, world = MadeUpPlane(), World(CLUSTER)
    near = worker(1, Facts(carriers=(Carrier.DIRECT, Carrier.OVERLAY), machine=b"m" * 32))
    here = head(Facts(carriers=(Carrier.DIRECT, Carrier.OVERLAY), machine=b"m" * 32))
    async with background_nursery() as nursery:
        nursery.start_soon(world.serve, plane)
        world.planned(here, near, worker(2))
        await settle()
        assert (len(plane.served), len(plane.listened)) == (2, 1)
        world.planned(here)
        await settle()
        assert (len(plane.served), len(plane.listened)) == (1, 0)


async def test_who_moves_is_dialled_there_by_the_same_session(autojump_clock: MockClock) -> None:
    plane, world, there = MadeUpPlane(), World(CLUSTER), Endpoint("127.9.0.9", 4002)
    async with background_nursery() as nursery:
        nursery.start_soon(world.serve, plane)
        world.planned(head(), worker(1))
        world.planned(head(), worker(1, Facts(endpoints=(there,))))
        await settle()
        assert plane.aimed == [(worker(1).member, [(there.ip, there.port)])]


async def test_after_a_plane_the_next_one_gets_everything_anew(autojump_clock: MockClock) -> None:
    world, first, second = World(CLUSTER), MadeUpPlane(), MadeUpPlane()
    async with background_nursery() as nursery:
        world.planned(head(), worker(1))
        world.hear(Ended("killed"))
        assert await world.serve(first) == "killed"
        assert world.said == ["failed: the process that forwards its connections ended: killed"]
        nursery.start_soon(world.serve, second)
        await settle()
        assert (second.served, second.listened) == (first.served, first.listened) != ([], [])


async def test_a_plane_that_ends_while_it_is_asked_is_heard_of_once(autojump_clock: MockClock) -> None:
    world = World(CLUSTER)
    world.planned(head(), worker(1))
    world.hear(Ended("killed"))
    assert await world.serve(MadeUpPlane(ended=True)) == "killed"
    assert len(world.said) == 1


@pytest.mark.parametrize("initiator", [True, False])
async def test_a_connection_that_never_stands_is_given_up(
    autojump_clock: MockClock, *, initiator: bool
) -> None:
    own = worker(1)
    world = World(own.member)
    async with background_nursery() as nursery:
        nursery.start_soon(world.serve, MadeUpPlane())
        world.planned(head(), own)
        world.paths.output(Paired(own.member, CLUSTER, bytes(32), initiator, 1))
        await trio.sleep(19)
        assert world.said == []
        await trio.sleep(2)
        (said,) = world.said
        assert str(said).startswith("failed: no connection with the cluster's head within 20 s")
        assert ("libp2p stream" in str(said)) is initiator


async def test_a_connection_in_time_is_kept(autojump_clock: MockClock) -> None:
    own = worker(1)
    world = World(own.member)
    async with background_nursery() as nursery:
        nursery.start_soon(world.serve, MadeUpPlane())
        world.planned(head(), own)
        world.paths.output(Paired(own.member, CLUSTER, bytes(32), True, 1))
        await trio.sleep(19)
        world.hear(CarrierUp(CLUSTER, "tcp"))
        await trio.sleep(20)
        assert world.said == ["up"]


async def test_new_addresses_are_told_and_old_ones_are_not_repeated(autojump_clock: MockClock) -> None:
    world = World(CLUSTER)
    async with background_nursery() as nursery:
        nursery.start_soon(world.serve, MadeUpPlane())
        await trio.sleep(10)
        assert world.said == []
        world.peer.addresses = (*world.addresses, Multiaddr("/ip4/127.0.0.1/tcp/10"))
        await trio.sleep(10)
        (told,) = world.said
        assert isinstance(told, TellFacts)
        assert told.member == CLUSTER
        assert len(told.facts.addresses) == 2


def test_carriers_are_taken_where_this_machine_is_and_not_where_others_see_it() -> None:
    assert is_own_ip("127.0.0.1")
    assert not is_own_ip("203.0.113.5")  # kept for documentation: nobody's
    seen = [Multiaddr("/ip4/203.0.113.5/tcp/1"), Multiaddr("/ip4/127.0.0.1/tcp/2")]
    assert listening(seen) == ["127.0.0.1"]
    assert listening(seen[:1]) == ["127.0.0.1"]
