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

import hashlib
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio
from multiaddr.multiaddr import Multiaddr

from .arguments import many_argument
from .errors import SwarmError, UsageError, WireGuardFailed
from .identity import PeerId
from .ray_bridge.cells import Cell
from .ray_bridge.events import LeaseId, PathFailed, PathUp
from .transport.mesh.events import MeshCommand, PairAgain, Paired, Planned
from .transport.mesh.members import (
    MAX_ADDRESS_BYTES,
    MAX_ADDRESSES,
    MAX_ENDPOINTS,
    Carrier,
    Endpoint,
    Facts,
    MemberId,
    Roster,
)
from .transport.mesh.plan import NOTHING, MachinePlan, changes
from .transport.overlay.carrier_streams import CarrierStreams
from .transport.overlay.plane import (
    CarrierLost,
    CarrierUp,
    Ended,
    NeedStream,
    Plane,
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
"""What waits to be carried out for one membership; more, and it fails. A new member brings two entries."""

_IP_CODES: Final = (0x04, 0x29)
_RELAYED: Final = 0x0122


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


def machine(cluster: MemberId, head: PeerId) -> bytes:
    """What members of one cluster compare to see whether they share the head's machine and network namespace; says
    nothing to others, and cannot be repeated by another head. Empty where it cannot be told."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            boot = file.read().strip()
        namespace = os.stat("/proc/self/ns/net")
    except OSError:
        return b""
    said = b"%s|%s|%s|%d|%d" % (cluster, head, boot, namespace.st_dev, namespace.st_ino)
    return hashlib.sha256(said).digest()


def is_own_ip(ip: str) -> bool:
    """Whether an address is this machine's: nobody else's can be bound."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((ip, 0))
    except OSError:
        return False
    return ip not in ("", "0.0.0.0", "::")


def free(address: str, port: int) -> bool:
    """Whether a port is nobody's on this machine, at any address: Ray's nodes listen at all of them."""
    del address
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


@dataclass(slots=True)
class Membership:
    """One membership of this peer. own, cluster: ids. send: what is to be carried out.

    guest, stands: whether the path to the head needs no session, and whether it stands.
    """

    own: MemberId
    cluster: MemberId
    send: trio.MemorySendChannel[Planned | Paired | PlaneEvent | CarrierEvent]
    receive: trio.MemoryReceiveChannel[Planned | Paired | PlaneEvent | CarrierEvent]
    plan: MachinePlan = NOTHING
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
    """The memberships of one peer; leading.py and attending.py say when they begin and end."""

    def __init__(self, peer: Peer, post: Post) -> None:
        self._peer, self.post = peer, post
        self._members: dict[MemberId, Membership] = {}
        self._rosters: dict[MemberId, Roster] = {}
        self._planes: dict[MemberId, Plane] = {}
        self._unlucky: dict[PeerId, None] = {}
        self.streams = CarrierStreams(peer.id, peer.open_stream, self._rosters, self._planes)

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
        """It is over."""
        self._members.pop(membership.own, None)
        self._planes.pop(membership.own, None)
        if not any(other.cluster == membership.cluster for other in self._members.values()):
            self._rosters.pop(membership.cluster, None)
            self.streams.prune(membership.cluster)

    def equip(self, membership: Membership, plane: Plane) -> None:
        """A membership has its plane."""
        membership.plane = self._planes[membership.own] = plane

    async def equip_wireguard(
        self, stack: AsyncExitStack, membership: Membership, head: PeerId | None = None
    ) -> str:
        """Give a membership a WireGuard interface, in its cell if it has one; returns why not, "" if it has it.

        head: of a cluster that is another peer's.
        """
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
        """Where carrier connections are taken: at those of the peer's addresses that are this machine's, any port. Not
        where others see it, nor at its router's."""
        ips = [ip for ip in dict.fromkeys(own_ips(self._peer.addresses)) if is_own_ip(ip)]
        return ips[:MAX_ENDPOINTS] or ["127.0.0.1"]

    def facts(
        self, membership: Membership, carriers: Iterable[Carrier], lacks: Mapping[Carrier, str]
    ) -> Facts:
        """What this peer says of itself as a member."""
        addresses = [_transport(address) for address in self._peer.addresses]
        endpoints = () if membership.plane is None else membership.plane.endpoints
        return Facts(
            carriers=tuple(carriers),
            lacks=tuple(lacks.items()),
            endpoints=tuple(Endpoint(ip, port) for ip, port in endpoints)[:MAX_ENDPOINTS],
            reachable=self._peer.reachability != "unreachable",
            addresses=tuple(each for each in addresses if len(each) <= MAX_ADDRESS_BYTES)[:MAX_ADDRESSES],
            machine=machine(membership.cluster, self._peer.id)
            if membership.own == membership.cluster
            else b"",
            wireguard_key=b"" if membership.wireguard is None else membership.wireguard.key,
            wireguard_endpoints=self._udp(membership),
        )

    def _udp(self, membership: Membership) -> tuple[Endpoint, ...]:
        """Where WireGuard's packets are taken: nowhere for who cannot be reached from outside."""
        if membership.wireguard is None or self._peer.reachability == "unreachable":
            return ()
        port, ips = membership.wireguard.port, list(dict.fromkeys(own_ips(self._peer.addresses)))
        return tuple(Endpoint(ip, port) for ip in ips if not ip.startswith("127."))[:MAX_ENDPOINTS]

    async def serve(
        self, membership: Membership, up: Callable[[], None], failed: Callable[[str], None]
    ) -> None:
        """Carry out what comes, until cancelled. up: the path to the head stands. failed: it cannot any more."""
        async with trio.open_nursery() as nursery:
            async for item in membership.receive:
                match item:
                    case Planned():
                        try:
                            await self._planned(membership, item, failed)
                        except WireGuardFailed as problem:
                            failed(str(problem))
                        if item.plan.guest and not membership.stands:
                            membership.stands = True
                            up()
                    case Paired():
                        await self._paired(membership, item)
                    case CarrierUp(target=target, kind=kind):
                        membership.carriers[target] = kind
                        if target == membership.cluster and not membership.stands:
                            membership.stands = True
                            up()
                    case CarrierLost():
                        pass  # the plane dials again
                    case Silent(target=target):
                        self.post(PairAgain(membership.own, target))
                    case NeedStream(target=target):
                        nursery.start_soon(self._carry, membership, target)
                    case Ended(reason=reason):
                        failed(f"the process that forwards its connections ended: {reason}")
                    case LinkUp(member=target):
                        assert membership.wireguard is not None
                        membership.carriers[target] = membership.wireguard.kind
                        if target == membership.cluster and not membership.stands:
                            membership.stands = True
                            up()
                    case LinkLost(member=target, reason=reason):
                        self._link_lost(membership, target, reason, failed)
                    case TunnelLost(reason=reason):
                        failed(f"its WireGuard interface is lost: {reason}")

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

    async def _planned(self, membership: Membership, planned: Planned, failed: Callable[[str], None]) -> None:
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
        for serve in difference.serves.new:
            await plane.serve(serve.address, serve.block.ports)
        for listener in difference.listeners.new:
            try:
                await plane.listen(listener.through, listener.address, listener.block.ports)
            except PlaneRefused as problem:  # such as a port that somebody has taken meanwhile
                if membership.own == membership.cluster:
                    self.post(PathFailed(listener.through, str(problem)))
                else:
                    failed(str(problem))

    async def _paired(self, membership: Membership, paired: Paired) -> None:
        sessions = {each.member: each for each in membership.plan.sessions}
        session = sessions.get(paired.target)
        if session is None or membership.plane is None:
            return
        endpoints = [(each.ip, each.port) for each in session.endpoints]
        await membership.plane.session(paired.target, paired.secret, paired.initiator, endpoints)

    async def _carry(self, membership: Membership, target: MemberId) -> None:
        """Give the plane a libp2p stream; when there is none it asks again."""
        try:
            await self.streams.carry(membership.cluster, membership.own, target)
        except (SwarmError, OSError, KeyError):
            pass


def fail(post: Post, lease: LeaseId) -> Callable[[str], None]:
    """What says that a lease's path failed."""
    return lambda reason: post(PathFailed(lease, reason))


def own_ips(addresses: Iterable[Multiaddr]) -> Iterable[str]:
    """The IP addresses among those that a peer is dialled at itself."""
    for address in addresses:
        codes = [protocol.code for protocol in address.protocols()]
        if _RELAYED not in codes and codes[0] in _IP_CODES:
            text = address.value_for_protocol(codes[0])
            if text and "%" not in text:
                yield text


def _transport(address: Multiaddr) -> bytes:
    return bytes(address.decapsulate_code(0x01A5).to_bytes())
