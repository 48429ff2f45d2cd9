"""The borrower's side of paths: the head's place and plane, and the places of its workers."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from .paths import Membership, Paths, fail, free
from .ray_bridge.events import ClosePath, LeaseId, Need, OpenPath, PathFailed
from .scopes import background_nursery
from .transport.mesh.allocation import Allocation, NoRoom
from .transport.mesh.events import Admit, CloseMesh, MeshFailed, OpenMesh
from .transport.mesh.members import MAX_WHY_CHARS, Carrier
from .transport.overlay.plane import open_plane

_DRIVERS = 16
"""CPUs by which the head's block is made: ports for GCS, the head's node, and some sixty drivers."""


class HeadPaths:
    """One cluster's paths; made by `open_head_paths`. ports: the head's own, the first one for GCS."""

    def __init__(self, paths: Paths, need: Need, allowed: tuple[Carrier, ...]) -> None:
        self._paths, self._need, self._allowed = paths, need, allowed
        self._allocation = Allocation(random.Random(os.urandom(16)), free)
        self.cluster = os.urandom(16)
        self._place = self._allocation.head(self.cluster, _DRIVERS)
        self._membership = Membership.new(self.cluster, self.cluster)
        self._waiting: dict[LeaseId, None] | None = {}  # leases that came before the mesh was open
        self._without: dict[LeaseId, str] = {}

    @property
    def ports(self) -> range:
        return self._place.block.ports

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

    @property
    def _addresses(self) -> dict[LeaseId, str]:
        return self._paths.addresses(self.cluster)

    def _admit(self, lease: LeaseId) -> None:
        try:
            place = self._allocation.give(lease, self._need.cpus)
        except NoRoom as problem:
            self._paths.post(PathFailed(lease, str(problem)))
            return
        self._paths.post(Admit(self.cluster, lease, place))

    async def run(self) -> None:
        """Lead until cancelled."""
        membership, paths = self._membership, self._paths
        async with AsyncExitStack() as stack:
            if Carrier.OVERLAY in self._allowed:
                plane = open_plane(self.cluster, listen=paths.listen(), on_event=paths.hear(membership))
                paths.equip(membership, await stack.enter_async_context(plane))
            await self._lead(await self._wireguard(stack))

    async def _wireguard(self, stack: AsyncExitStack) -> dict[Carrier, str]:
        """Why there is no WireGuard, if it is allowed and there is none."""
        if Carrier.WIREGUARD not in self._allowed:
            return {}
        problem = await self._paths.equip_wireguard(stack, self._membership)
        if problem:
            self._allowed = tuple(each for each in self._allowed if each is not Carrier.WIREGUARD)
        return {Carrier.WIREGUARD: problem[:MAX_WHY_CHARS]} if problem else {}

    async def _lead(self, lacks: dict[Carrier, str]) -> None:
        paths, membership = self._paths, self._membership
        paths.enter(membership)
        try:
            paths.post(OpenMesh(self.cluster, self._place, paths.facts(membership, self._allowed, lacks)))
            waiting, self._waiting = self._waiting or {}, None
            for lease in waiting:
                self._admit(lease)
            await paths.serve(membership, lambda: None, self._failed)
        finally:
            paths.leave(membership)
            paths.post(CloseMesh(self.cluster))

    def _failed(self, reason: str) -> None:
        plan = self._membership.plan
        members = [each.member for each in plan.sessions] + [each.member for each in plan.wireguard]
        for member in dict.fromkeys(members):
            fail(self._paths.post, member)(reason)


@asynccontextmanager
async def open_head_paths(
    paths: Paths, need: Need, allowed: tuple[Carrier, ...]
) -> AsyncGenerator[HeadPaths, None]:
    """A cluster's paths for the length of the context. Raises NoRoom."""
    async with background_nursery() as nursery:
        head = HeadPaths(paths, need, allowed)
        nursery.start_soon(head.run)
        await trio.lowlevel.checkpoint()
        yield head
