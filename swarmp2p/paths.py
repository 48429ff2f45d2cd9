"""Paths: what joins a lease's path with the mesh engine, planes and cells.

The mesh engine (transport/mesh/) decides who is a member and what its machine needs; a plane (transport/overlay/) does
it; a cell (ray_bridge/cells.py) is the network that a worker lives in. Here each membership of this peer has one task
that carries out, one after the other, what the engine puts out and what the plane reports:

    Planned  -> serve, listen, drop      CarrierUp of the head -> the lease's path stands: PathUp
    Paired   -> session                  Silent -> PairAgain        NeedStream -> a libp2p stream, carried
    MeshFailed, a plane or a cell that ended -> PathFailed

Whichever way a lease ends, its ClosePath cancels that task, and plane and cell go with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from .arguments import many_argument
from .errors import SwarmError, UsageError, WireGuardFailed
from .identity import PeerId
from .own_facts import is_own_ip, listening, machine, own_facts
from .ray_bridge.cells import Cell
from .ray_bridge.events import LeaseId, PathFailed, PathUp
from .transport.mesh.events import MeshCommand, PairAgain, Paired, Planned, TellFacts
from .transport.mesh.members import MAX_WHY_CHARS, Carrier, Facts, MemberId, Roster
from .transport.mesh.plan import NOTHING, MachinePlan, changes
from .transport.overlay.carrier_streams import CarrierStreams
from .transport.overlay.plane import (
    CarrierLost,
    CarrierUp,
    Ended,
    NeedStream,
    Plane,
    PlaneEnded,
    PlaneEvent,
    PlaneRefused,
    Silent,
)
from .transport.wireguard.carrier import CarrierEvent, TunnelLost, WireGuardCarrier, open_carrier
from .transport.wireguard.links import LinkLost, LinkUp
from .transport.wireguard.problem import wireguard_problem

if TYPE_CHECKING:
    from .peer import Peer

Post = Callable[[MeshCommand | PathFailed | PathUp], None]

DEFAULT_PATHS: Final = (Carrier.DIRECT, Carrier.OVERLAY)
_MAX_UNLUCKY: Final = 256
"""Heads remembered to whom no WireGuard packets go; the one heard of least lately is forgotten."""

_MAX_WAITING: Final = 4096
"""What waits to be carried out for one membership; a new member brings two entries. What comes on top is dropped: a
plane that is so far behind does not answer, and its silence ends the lease."""

_CARRIER_S: Final = 20.0
"""Seconds from the secret to a carrier connection. All TCP endpoints together get 9 at most, then a stream is opened,
by way of a relay maybe. Without either the lease ends, and another lender is asked."""

_LOOK_S: Final = 2.0  # between looks at whether this peer's facts are still the same


def paths_argument(paths: object) -> tuple[Carrier, ...]:
    """Which paths a peer allows, of their names; raises UsageError for others."""
    names = many_argument(paths, "paths") if not isinstance(paths, str) else (paths,)
    known = {carrier.value: carrier for carrier in Carrier}
    for name in names:
        if name not in known:
            raise UsageError(f"a path is one of {', '.join(known)}, not {name!r}. Nothing was changed")
    allowed = tuple(dict.fromkeys(known[str(name)] for name in names))
    if not allowed:
        raise UsageError(f"at least one path must be allowed, of {', '.join(known)}. Nothing was changed")
    return allowed


@dataclass(slots=True)
class Membership:
    """One membership of this peer. own, cluster: ids. send: what is to be carried out.

    stands: whether the path to the head does. planned: what was carried out last. say: this peer's facts as they are
    now. trouble: why the last libp2p stream could not be opened.
    """

    own: MemberId
    cluster: MemberId
    send: trio.MemorySendChannel[Planned | Paired | PlaneEvent | CarrierEvent]
    receive: trio.MemoryReceiveChannel[Planned | Paired | PlaneEvent | CarrierEvent]
    plan: MachinePlan = NOTHING
    planned: Planned | None = None
    say: Callable[[], Facts] | None = None
    trouble: str = ""
    plane: Plane | None = None
    cell: Cell | None = None
    wireguard: WireGuardCarrier | None = None
    node_ip: str = ""
    ports: range = range(0)
    stands: bool = False
    carriers: dict[MemberId, str] = field(default_factory=dict[MemberId, str])

    @classmethod
    def new(cls, own: MemberId, cluster: MemberId) -> Membership:
        send, receive = trio.open_memory_channel[Planned | Paired | PlaneEvent | CarrierEvent](_MAX_WAITING)
        return cls(own, cluster, send, receive)


class Paths:
    """The memberships of one peer; head_paths.py and lender_paths.py say when they begin and end."""

    def __init__(self, peer: Peer, post: Post) -> None:
        self._peer, self.post = peer, post
        self._members: dict[MemberId, Membership] = {}
        self._rosters: dict[MemberId, Roster] = {}
        self._planes: dict[MemberId, Plane] = {}
        self._unlucky: dict[PeerId, None] = {}
        self.streams = CarrierStreams(peer.id, peer.open_stream, self._rosters, self._planes)

    def now(self) -> float:
        """The peer's clock."""
        return self._peer.now()

    def addresses(self, cluster: MemberId) -> dict[MemberId, str]:
        """Where each member's Ray node is reached."""
        roster = self._rosters.get(cluster)
        return {} if roster is None else {each.member: each.address for each in roster.members}

    def output(self, output: Planned | Paired) -> None:
        """Take what the mesh engine says to a membership."""
        membership = self._members.get(output.member)
        if membership is not None:
            self._hand(membership, output)

    def enter(self, membership: Membership) -> None:
        """A membership begins."""
        self._members[membership.own] = membership

    def leave(self, membership: Membership) -> None:
        """It is over. It and its plane, which has its events heard here, let go of one another."""
        membership.plane = membership.say = None
        self._members.pop(membership.own, None)
        self._planes.pop(membership.own, None)
        if not any(other.cluster == membership.cluster for other in self._members.values()):
            self._rosters.pop(membership.cluster, None)
            self.streams.prune(membership.cluster)

    def equip(self, membership: Membership, plane: Plane) -> None:
        """A membership has its plane."""
        membership.plane = self._planes[membership.own] = plane

    async def equip_wireguard(
        self,
        stack: AsyncExitStack,
        membership: Membership,
        carriers: tuple[Carrier, ...],
        head: PeerId | None = None,
    ) -> tuple[tuple[Carrier, ...], Mapping[Carrier, str]]:
        """Give a membership a WireGuard interface where that is among its carriers, in its cell if it has one.

        head: of a cluster that is another peer's. Returns the carriers that it has, and why not WireGuard if it was
        wanted and cannot be had.
        """
        if Carrier.WIREGUARD not in carriers:
            return carriers, {}
        problem = await self._wireguard_lacks(stack, membership, head)
        if not problem:
            return carriers, {}
        left = tuple(each for each in carriers if each is not Carrier.WIREGUARD)
        return left, {Carrier.WIREGUARD: problem[:MAX_WHY_CHARS]}

    async def _wireguard_lacks(
        self, stack: AsyncExitStack, membership: Membership, head: PeerId | None
    ) -> str:
        """Open the interface; why that cannot be, "" if it is there."""
        if head in self._unlucky:
            return "no WireGuard packets went between these two the last time"
        problem = await trio.to_thread.run_sync(wireguard_problem)
        if problem is not None:
            return problem
        namespace = -1 if membership.cell is None else membership.cell.namespaces[-1]
        opening = open_carrier(
            membership.cluster, membership.own, on_event=self.hear(membership), namespace=namespace
        )
        try:
            membership.wireguard = await stack.enter_async_context(opening)
        except WireGuardFailed as failed:
            return failed.problem
        return ""

    def is_here(self, peer: PeerId) -> bool:
        """Whether a connected peer is on this machine, as the operating system says."""
        return is_own_ip(self._peer.ip_of(peer))

    def hear(self, membership: Membership) -> Callable[[PlaneEvent | CarrierEvent], None]:
        """What a plane, or a WireGuard carrier, calls with its events."""
        return lambda event: self._hand(membership, event)

    def listen(self) -> list[str]:
        """Where carrier connections are taken."""
        return listening(self._peer.addresses)

    def facts(
        self, membership: Membership, carriers: Iterable[Carrier], lacks: Mapping[Carrier, str]
    ) -> Facts:
        """What this peer says of itself as a member."""
        plane, wireguard = membership.plane, membership.wireguard
        udp = None if wireguard is None else (wireguard.key, wireguard.port)
        return own_facts(
            self._peer.addresses,
            reachable=self._peer.reachability != "unreachable",
            carriers=tuple(carriers),
            lacks=tuple(lacks.items()),
            endpoints=() if plane is None else plane.endpoints,
            machine=machine(membership.cluster, self._peer.id)
            if membership.own == membership.cluster
            else b"",
            wireguard=udp,
        )

    async def serve(
        self,
        membership: Membership,
        up: Callable[[], None],
        failed: Callable[[str], None],
        refused: Callable[[MemberId, str], None],
    ) -> str:
        """Carry out what comes, until cancelled or the plane's process ends; then returns why. May be called again with
        another plane.

        up: the path to the head stands. failed: it cannot any more. refused: what a member needs cannot be had here.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._retell, membership)
            if membership.planned is not None:  # by the plane before
                membership.plan = NOTHING
                membership.carriers.clear()
                await self._carried_out(membership, membership.planned, failed, refused)
            async for item in membership.receive:
                match item:
                    case Planned():
                        await self._carried_out(membership, item, failed, refused)
                        if item.plan.guest:
                            self._stands(membership, up)
                    case Paired(target=target):
                        await self._paired(membership, item)
                        if target == membership.cluster and not membership.stands:
                            nursery.start_soon(self._hurry, membership, item.initiator, failed)
                    case CarrierUp(target=target, kind=kind):
                        membership.carriers[target] = kind
                        if target == membership.cluster:
                            self._stands(membership, up)
                    case CarrierLost():
                        pass  # the plane dials again
                    case Silent(target=target):
                        self.post(PairAgain(membership.own, target))
                    case NeedStream(target=target):
                        nursery.start_soon(self._carry, membership, target)
                    case Ended(reason=reason):
                        self._planes.pop(membership.own, None)
                        membership.plane = None
                        failed(f"the process that forwards its connections ended: {reason}")
                        nursery.cancel_scope.cancel()
                        return reason
                    case LinkUp(member=target):
                        assert membership.wireguard is not None
                        membership.carriers[target] = membership.wireguard.kind
                        if target == membership.cluster:
                            self._stands(membership, up)
                    case LinkLost(member=target, reason=reason):
                        self._link_lost(membership, target, reason, failed)
                    case TunnelLost(reason=reason):
                        failed(f"its WireGuard interface is lost: {reason}")
        raise AssertionError("a membership's channel is never closed")

    def _stands(self, membership: Membership, up: Callable[[], None]) -> None:
        if not membership.stands:
            membership.stands = True
            up()

    async def _retell(self, membership: Membership) -> None:
        """Tell the others when something about this peer changes, such as its addresses, or relays."""
        assert membership.say is not None
        told = membership.say()
        while True:
            await trio.sleep(_LOOK_S)
            facts = membership.say()
            if facts != told:
                told = facts
                self.post(TellFacts(membership.own, facts))

    async def _hurry(self, membership: Membership, initiator: bool, failed: Callable[[str], None]) -> None:
        """Give a path up that has no connection for long."""
        await trio.sleep(_CARRIER_S)
        if not membership.stands:
            what = "the borrower's machine opened none"
            if initiator:
                tried = [each for each in membership.plan.sessions if each.member == membership.cluster]
                at = ", ".join(f"{each.ip} port {each.port}" for each in tried[0].endpoints) if tried else ""
                what = (
                    f"TCP to {at or 'nowhere'} failed, a libp2p stream: {membership.trouble or 'no answer'}"
                )
            failed(f"no connection with the cluster's head within {_CARRIER_S:g} s: {what}")

    def _link_lost(
        self, membership: Membership, target: MemberId, reason: str, failed: Callable[[str], None]
    ) -> None:
        """One of the two ends its lease; the next one between the two peers is not by WireGuard."""
        if membership.own == membership.cluster:
            self.post(PathFailed(target, reason))
        elif target == membership.cluster or membership.own > target:
            head = self._rosters[membership.cluster].head
            self._unlucky.pop(head, None)
            self._unlucky[head] = None
            if len(self._unlucky) > _MAX_UNLUCKY:
                del self._unlucky[next(iter(self._unlucky))]
            failed(reason)

    def _hand(self, membership: Membership, item: Planned | Paired | PlaneEvent | CarrierEvent) -> None:
        try:
            membership.send.send_nowait(item)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it is ending, or a plane that does not answer is: then its silence ends the lease

    async def _carried_out(
        self,
        membership: Membership,
        planned: Planned,
        failed: Callable[[str], None],
        refused: Callable[[MemberId, str], None],
    ) -> None:
        membership.planned = planned
        try:
            await self._planned(membership, planned, refused)
        except WireGuardFailed as problem:
            failed(str(problem))
        except PlaneEnded:
            pass  # it says so itself

    async def _planned(
        self, membership: Membership, planned: Planned, refused: Callable[[MemberId, str], None]
    ) -> None:
        self._rosters[membership.cluster] = planned.roster
        self.streams.prune(membership.cluster)
        own = planned.roster.get(membership.own)
        assert own is not None, "a plan names its own member"
        membership.node_ip, membership.ports = own.address, own.block.ports
        difference = changes(membership.plan, planned.plan)
        membership.plan = planned.plan
        if membership.wireguard is not None:
            await membership.wireguard.settle(own.wireguard_address, own.address, own.block)
            await membership.wireguard.follow(planned.plan.wireguard)
        plane = membership.plane
        if plane is None:
            return
        stay = {each.member for each in difference.sessions.new}
        for session in difference.sessions.gone:
            if session.member not in stay:
                membership.carriers.pop(session.member, None)
                await plane.drop(session.member)
        for moved in difference.moved:
            await plane.aim(moved.member, [(each.ip, each.port) for each in moved.endpoints])
        for served in difference.serves.gone:
            await plane.unserve(served.block.ports)
        for serve in difference.serves.new:
            await plane.serve(serve.address, serve.block.ports)
        for listened in difference.listeners.gone:
            await plane.unlisten(listened.through, listened.address, listened.block.ports)
        for listener in difference.listeners.new:
            try:
                await plane.listen(listener.through, listener.address, listener.block.ports)
            except PlaneRefused as problem:  # such as a port that somebody has taken meanwhile
                refused(listener.through, problem.reason)

    async def _paired(self, membership: Membership, paired: Paired) -> None:
        sessions = {each.member: each for each in membership.plan.sessions}
        session = sessions.get(paired.target)
        if session is None or membership.plane is None:
            return
        endpoints = [(each.ip, each.port) for each in session.endpoints]
        with suppress(PlaneEnded):  # it says so itself
            await membership.plane.session(paired.target, paired.secret, paired.initiator, endpoints)

    async def _carry(self, membership: Membership, target: MemberId) -> None:
        """Give the plane a libp2p stream; when there is none it asks again."""
        try:
            await self.streams.carry(membership.cluster, membership.own, target)
        except KeyError:
            pass  # it has left, or the plane has ended
        except (SwarmError, OSError) as problem:
            membership.trouble = str(problem)


def fail(post: Post, lease: LeaseId) -> Callable[[str], None]:
    """What says that a lease's path failed."""
    return lambda reason: post(PathFailed(lease, reason))
