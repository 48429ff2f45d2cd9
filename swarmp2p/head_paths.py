"""The borrower's side of paths: the head's place and plane, and the places of its workers."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import Final

import trio

from .cluster_memory import ClusterMemory
from .own_facts import Reserved, free_again
from .paths import Membership, Paths, fail
from .ray_bridge.events import ClosePath, LeaseId, Need, OpenPath, PathFailed
from .scopes import background_nursery
from .transport.mesh.allocation import Allocation, NoRoom, Place
from .transport.mesh.events import Admit, CloseMesh, MeshFailed, OpenMesh, TellFacts
from .transport.mesh.members import MEMBER_ID_BYTES, Carrier
from .transport.overlay.plane import PlaneEnded, open_plane

HEAD_CPUS: Final = 16
"""CPUs by which the head's block is made: ports for GCS, the head's node, and some sixty drivers."""

_AGAIN_S: Final = 1.0  # from a plane's end to the next one
_LOOK_S: Final = 0.05
_SHORT_S: Final = 10.0
_MOST_SHORT: Final = 3
"""So many planes in a row that ended within `_SHORT_S` end the cluster."""


def ray_ports(place: Place) -> range:
    """Of a head's block, those of Ray's head, the first one for GCS."""
    return place.block.ports[:-1]


def index_port(place: Place) -> int:
    """Of a head's block, that of the door to the borrower's package index (ray_bridge/index_door.py). It stays the same
    as long as the block does, so workers find it again when their borrower was started anew."""
    return place.block.ports[-1]


class HeadPaths:
    """One cluster's paths; made by `open_head_paths`. resumes: whether workers of an earlier process find the head
    where it was."""

    def __init__(
        self,
        paths: Paths,
        need: Need,
        allowed: tuple[Carrier, ...],
        memory: ClusterMemory,
        reserved: Reserved,
        *,
        begun: bool = False,
    ) -> None:
        """reserved: what holds the head's ports; nothing when it was begun, for whoever began it does."""
        self._paths, self._need, self._allowed, self._memory = paths, need, allowed, memory
        self._allocation = Allocation(random.Random(os.urandom(16)), reserved.free)
        self.cluster = memory.cluster
        self._changes = 0
        before = None if begun or memory.head is None else memory.head.block.ports
        self.resumes = before is not None and free_again(before) and reserved.keep(before)
        if memory.head is not None and begun:
            self._place = memory.head
            self._allocation.take(self.cluster, self._place)
        elif memory.head is not None and self.resumes:
            self._place = memory.head
            self._allocation.take(self.cluster, self._place)
            # Nobody else gets what was another's in the same cluster: those who are still there remember it.
            for lease, place in memory.before.items():
                self._allocation.take(lease, place)
            self._changes = int(
                paths.now() * 1000
            )  # more than there can have been; milliseconds, as pairing's rounds
        else:
            if memory.head is not None:
                memory.cluster = self.cluster = os.urandom(MEMBER_ID_BYTES)
            self._place = self._allocation.head(self.cluster, HEAD_CPUS)
            reserved.keep(self._place.block.ports)
        memory.lead(self._place)
        self._membership = Membership.new(self.cluster, self.cluster)
        self._waiting: dict[LeaseId, None] | None = {}  # leases that came before the mesh was open
        self._without: dict[LeaseId, str] = {}

    @property
    def ports(self) -> range:
        """Of the head's block, those of Ray's head, the first one for GCS."""
        return ray_ports(self._place)

    @property
    def index_port(self) -> int:
        """Of the head's block, that of the door to the borrower's package index."""
        return index_port(self._place)

    def handle(self, output: OpenPath | ClosePath | MeshFailed) -> None:
        """Take what the lease and mesh engines say about a lease of this cluster."""
        match output:
            case OpenPath(lease=lease):
                if self._waiting is not None:
                    self._waiting[lease] = None
                else:
                    self._admit(lease)
            case ClosePath(lease=lease):
                self._allocation.release(lease)
                self._memory.forget(lease)
                self._without.pop(lease, None)
                if self._waiting is not None:
                    self._waiting.pop(lease, None)
            case MeshFailed(lease=lease, unsupported=True) if Carrier.DIRECT in self._allowed:
                self._without[lease] = "the lender speaks no mesh protocol (an older version)"
            case MeshFailed(lease=lease, reason=reason):
                self._paths.post(PathFailed(lease, reason))

    def path(self, lease: LeaseId) -> tuple[str, str, str]:
        """(carrier, why, address) of a worker; an empty address for the one that its lender told."""
        way = self._membership.plan.path(lease)
        if way is None or way.carrier is None:
            return Carrier.DIRECT.value, self._without.get(lease, "its lender made it"), ""
        kind = self._membership.carriers.get(lease)
        over = {
            "tcp": "; over TCP",
            "stream": "; over a libp2p stream",
            "wireguard-go": "; by wireguard-go",
        }.get(kind or "", "")
        return way.carrier.value, way.reason + over, self._addresses.get(lease, "")

    async def stand(self, leases: Iterable[LeaseId]) -> None:
        """Until there is a way to these workers, or they are no more; a lease may stand before its path does."""
        for lease in leases:
            while lease in self._memory.places and not self._stands(lease):  # noqa: ASYNC110  planes set no events
                await trio.sleep(_LOOK_S)

    def _stands(self, lease: LeaseId) -> bool:
        way = self._membership.plan.path(lease)
        if way is None or way.carrier is None:
            return lease in self._without
        return way.carrier is Carrier.DIRECT or lease in self._membership.carriers

    @property
    def _addresses(self) -> dict[LeaseId, str]:
        return self._paths.addresses(self.cluster)

    def _admit(self, lease: LeaseId) -> None:
        try:
            place = self._allocation.give(lease, self._need.cpus)
        except NoRoom as problem:
            self._paths.post(PathFailed(lease, str(problem)))
            return
        self._memory.keep(lease, place)
        self._paths.post(Admit(self.cluster, lease, place))

    async def run(self) -> None:
        """Lead until cancelled. A plane whose process ended is followed by another; raises PlaneEnded when they all
        end at once."""
        membership, paths = self._membership, self._paths
        async with AsyncExitStack() as stack:
            # around the planes: its nursery outlives theirs
            self._allowed, lacks = await paths.equip_wireguard(stack, membership, self._allowed)
            opened, short = False, 0
            try:
                while True:
                    began = trio.current_time()
                    async with self._plane():
                        if not opened:
                            opened = True
                            self._open(lacks)
                        else:
                            paths.post(TellFacts(self.cluster, paths.facts(membership, self._allowed, lacks)))
                        reason = await paths.serve(membership, lambda: None, self._failed, self._refused)
                    short = short + 1 if trio.current_time() < began + _SHORT_S else 1
                    if short == _MOST_SHORT:
                        raise PlaneEnded(reason)
                    await trio.sleep(_AGAIN_S)
            finally:
                paths.leave(membership)
                paths.post(CloseMesh(self.cluster))

    @asynccontextmanager
    async def _plane(self) -> AsyncGenerator[None, None]:
        """The cluster's plane, if it may have one."""
        if Carrier.OVERLAY not in self._allowed:
            yield
            return
        paths, membership = self._paths, self._membership
        async with open_plane(self.cluster, listen=paths.listen(), on_event=paths.hear(membership)) as plane:
            paths.equip(membership, plane)
            yield

    def _open(self, lacks: Mapping[Carrier, str]) -> None:
        """Begin the cluster, and admit those who came meanwhile."""
        paths, membership = self._paths, self._membership
        membership.say = lambda: paths.facts(membership, self._allowed, lacks)
        paths.enter(membership)
        paths.post(OpenMesh(self.cluster, self._place, membership.say(), self._changes))
        waiting, self._waiting = self._waiting or {}, None
        for lease in waiting:
            self._admit(lease)

    def _refused(self, member: LeaseId, reason: str) -> None:
        fail(self._paths.post, member)(f"its ports cannot be had on the borrower's machine: {reason}")

    def _failed(self, reason: str) -> None:
        plan = self._membership.plan
        members = [each.member for each in plan.sessions] + [each.member for each in plan.wireguard]
        for member in dict.fromkeys(members):
            fail(self._paths.post, member)(reason)


@asynccontextmanager
async def open_head_paths(
    paths: Paths, need: Need, allowed: tuple[Carrier, ...], memory: ClusterMemory, *, begun: bool = False
) -> AsyncGenerator[HeadPaths, None]:
    """A cluster's paths for the length of the context. begun: whether its head listens already, where the memory says.
    Raises NoRoom."""
    with closing(Reserved()) as reserved:
        async with background_nursery() as nursery:
            head = HeadPaths(paths, need, allowed, memory, reserved, begun=begun)
            nursery.start_soon(head.run)
            await trio.lowlevel.checkpoint()
            yield head
