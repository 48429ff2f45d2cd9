"""The lender's side of paths: a lease's cell and plane, from the head's invitation to the lease's end."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Final

import trio

from .errors import SwarmError
from .identity import PeerId
from .own_facts import machine
from .paths import Membership, Paths, fail
from .ray_bridge.events import ClosePath, LeaseId, Need, Offer, OpenPath, PathFailed, PathUp
from .ray_bridge.lender import Place, direct_path_problem
from .ready import Ready, Stock
from .scopes import cancel_scope, first_of
from .transport.mesh.events import Invited, MeshFailed, TellFacts
from .transport.mesh.members import HEAD_ADDRESS, Carrier, Facts

_ONLY_DIRECT: Final = "its borrower speaks no mesh protocol, and this lender allows no direct path"
_NOT_HERE: Final = "its borrower speaks no mesh protocol, and a direct path stays on one machine"


@dataclass(slots=True)
class _Lease:
    """borrower: whose it is. need: what its worker gets. ready: what that is started with. scope: of its task, once
    there is one. used: its worker is there still. over: it is to go when that is not."""

    borrower: PeerId
    need: Need
    ready: Ready | None = None
    membership: Membership | None = None
    scope: trio.CancelScope | None = None
    used: bool = False
    over: bool = False


class LenderPaths:
    """The paths of the leases that this peer gives; tasks belong to the nursery."""

    def __init__(
        self, paths: Paths, allowed: tuple[Carrier, ...], offer: Offer, stock: Stock, nursery: trio.Nursery
    ) -> None:
        self._paths, self._allowed, self._node_ip, self._nursery = paths, allowed, offer.node_ip, nursery
        self._stock = stock
        # Of cells and planes, those included that are ending. Who takes and gives up leases all the time waits.
        self._room = trio.CapacityLimiter(2 * offer.max_leases)
        self._leases: dict[LeaseId, _Lease] = {}
        self._apart = direct_path_problem(f"{HEAD_ADDRESS}:1", offer.node_ip)

    def __contains__(self, lease: LeaseId) -> bool:
        return lease in self._leases

    def handle(self, output: OpenPath | ClosePath | Invited | MeshFailed, need: Need | None = None) -> None:
        """Take what the lease and mesh engines say about a lease given by this peer. need: what its worker gets."""
        match output:
            case OpenPath(lease=lease, peer=peer):
                self._leases[lease] = _Lease(peer, need or Need())
            case ClosePath(lease=lease):
                held = self._leases.get(lease)
                if held is not None:
                    held.over = True
                    self._close(lease, held)
            case Invited(lease=lease) if lease in self._leases:
                self._nursery.start_soon(self._attend, output, self._leases[lease])
            case MeshFailed(lease=lease, unsupported=True) if lease in self._leases:
                if Carrier.DIRECT not in self._allowed:
                    self._paths.post(PathFailed(lease, _ONLY_DIRECT))
                elif not self._paths.is_here(self._leases[lease].borrower):
                    self._paths.post(PathFailed(lease, _NOT_HERE))
                else:
                    self._paths.post(PathUp(lease))
            case MeshFailed(lease=lease, reason=reason) if lease in self._leases:
                self._paths.post(PathFailed(lease, reason))
            case _:
                pass

    @contextmanager
    def use(self, lease: LeaseId) -> Generator[Place | None, None, None]:
        """Where a lease's worker runs; None for anywhere at its offer's address. Its cell stays until this ends."""
        held = self._leases.get(lease)
        membership = None if held is None else held.membership
        if held is None or membership is None:
            yield None
            return
        held.used = True
        try:
            ready = held.ready or Ready()
            yield Place(membership.node_ip, membership.ports, membership.cell, ready.warm)
        finally:
            held.used = False
            self._close(lease, held)

    def _close(self, lease: LeaseId, held: _Lease) -> None:
        if held.over and not held.used:
            if self._leases.get(lease) is held:
                del self._leases[lease]
            if held.scope is not None:
                held.scope.cancel()

    def _carriers(self, invited: Invited) -> tuple[Carrier, ...]:
        """What to offer: direct where both are in one place and allow it. A worker on a direct path is in no cell, so a
        head that only says to be here is not believed."""
        head = invited.facts
        near = (
            head.machine != b""
            and head.machine == machine(invited.cluster, invited.head)
            and self._paths.is_here(invited.head)
            and self._apart is None
        )
        both = [carrier for carrier in self._allowed if carrier in head.carriers]
        if Carrier.DIRECT in both and near:
            return (Carrier.DIRECT, *((Carrier.OVERLAY,) if Carrier.OVERLAY in both else ()))
        return tuple(each for each in (Carrier.WIREGUARD, Carrier.OVERLAY) if each in both)

    async def _attend(self, invited: Invited, held: _Lease) -> None:
        lease, paths = invited.lease, self._paths
        failed = fail(paths.post, lease)
        membership = Membership.new(lease, invited.cluster)
        carriers = self._carriers(invited)
        if not carriers:
            theirs = ", ".join(each.value for each in invited.facts.carriers)
            ours = ", ".join(each.value for each in self._allowed)
            apart = f" ({self._apart})" if self._apart else ""
            failed(
                f"the borrower allows {theirs}, this lender {ours}; what is direct stays on one machine{apart}"
            )
            return
        paths.enter(membership)
        try:
            with cancel_scope() as held.scope:
                if held.over:
                    return
                if Carrier.DIRECT in carriers:
                    async with self._stock.take(held.need, celled=False) as held.ready:
                        await self._run(membership, held, carriers, {}, head=invited.facts)
                    return
                async with (
                    self._room,
                    self._stock.take(held.need, celled=True) as ready,
                    trio.open_nursery() as nursery,
                    AsyncExitStack() as stack,  # inside, for what is entered below has nurseries of its own
                ):
                    plane = ready.plane
                    assert plane is not None
                    await plane.belong(lease, paths.listen(), paths.hear(membership))
                    held.ready, membership.cell = ready, ready.cell
                    paths.equip(membership, plane)
                    nursery.start_soon(self._watch, membership)
                    carriers, lacks = await paths.equip_wireguard(stack, membership, carriers, invited.head)
                    await self._run(membership, held, carriers, lacks)
        except* (SwarmError, OSError) as problems:
            failed(str(first_of(problems)))
        finally:
            paths.leave(membership)

    async def _run(
        self,
        membership: Membership,
        held: _Lease,
        carriers: tuple[Carrier, ...],
        lacks: Mapping[Carrier, str],
        head: Facts | None = None,
    ) -> None:
        """lacks: why there is no WireGuard. head: its facts, when it is on this machine."""
        held.membership = membership

        def say() -> Facts:
            facts = self._paths.facts(membership, carriers, lacks)
            if head is None:
                return facts
            return replace(facts, address=self._node_ip, endpoints=(), machine=head.machine)

        membership.say = say
        self._paths.post(TellFacts(membership.own, say()))
        lease = membership.own
        failed = fail(self._paths.post, lease)
        await self._paths.serve(
            membership,
            lambda: self._paths.post(PathUp(lease)),
            failed,
            lambda member, reason: failed(f"the worker's network cannot reach another member: {reason}"),
        )
        await trio.sleep_forever()  # until the worker is gone; then ClosePath

    async def _watch(self, membership: Membership) -> None:
        assert membership.cell is not None
        reason = await membership.cell.died()
        self._paths.post(PathFailed(membership.own, f"the worker's own network ended: {reason}"))
