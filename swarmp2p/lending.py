"""What a peer lends: the announcement, the load signals and the workers that follow from the lease engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import trio

from .arguments import peer_argument, text_argument
from .dht.records import Attribute
from .errors import UsageError
from .gossip.load import LoadSignal, SetLoad
from .identity import PeerId
from .lender_paths import LenderPaths
from .paths import Paths
from .ray_bridge.events import (
    ClosePath,
    LeaseCommand,
    LeaseEnded,
    LeaseGranted,
    LeaseId,
    LeaseOutput,
    Lend,
    Offer,
    OpenPath,
    TakeBack,
    Versions,
)
from .ray_bridge.jailer import Jailer
from .ray_bridge.lender import Lender, Place
from .ray_bridge.presenting import OWNERS_ATTRIBUTE, owners_text
from .ray_bridge.revocations import RevocationList, peer_name
from .ray_bridge.signed_lease import SignedLease
from .ready import WARM, Stock, stock_sizes
from .scopes import TaskStatus, start
from .transport.mesh.events import Invited, MeshFailed
from .transport.mesh.members import Carrier

if TYPE_CHECKING:
    from .announcement import Announcement
    from .peer import Peer

RAY_SERVICE: Final = "ray-worker"
KEEPS_ATTRIBUTE: Final = "snapshots"
"""Of the service record: true of a lender that keeps snapshots of its borrowers' clusters."""

_STOP_S: Final = 10.0  # how long closing waits for the workers' trees to end; supervisors go on by themselves


class Lending:
    """What a peer lends; made by `Peer.lend`."""

    def __init__(
        self,
        peer: Peer,
        post: Callable[[LeaseCommand | SetLoad], None],
        offer: Offer,
        versions: Versions,
        allowed: frozenset[PeerId] | None,
        logs: Path | None,
        paths: Paths,
        carriers: tuple[Carrier, ...],
        jailer: Jailer | None,
        grantors: frozenset[PeerId] = frozenset(),
        signed: Callable[[LeaseId], SignedLease | None] = lambda lease: None,
        keeping: bool = False,
    ) -> None:
        """keeping: whether it also keeps borrowers' snapshots."""
        self.grantors, self._signed, self._keeping = grantors, signed, keeping
        self._peer, self._post, self._versions = peer, post, versions
        self.offer = offer
        self.allowed = allowed
        self.announcement: Announcement | None = None
        self._given: dict[LeaseId, LeaseGranted] = {}
        self._changed = trio.Event()
        self._all_paths, self._carriers = paths, carriers
        sizes = stock_sizes(WARM, offer.max_leases, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        self._stock = Stock(jailer, Carrier.DIRECT in carriers, sizes)
        self._paths: LenderPaths | None = None
        self.lender = Lender(offer, str(peer.id), logs, post, self._place, jailer)

    @property
    def borrowers(self) -> tuple[PeerId, ...]:
        """Who holds a lease now, one entry a lease."""
        return tuple(given.peer for given in self._given.values())

    @property
    def leases(self) -> tuple[SignedLease, ...]:
        """The leases that stand, each under both signatures as it is now; see SignedLease."""
        found = [self._signed(lease) for lease in self._given]
        return tuple(signed for signed in found if signed is not None)

    def lends_to(self, peer: PeerId) -> bool:
        """Whether a peer is on the list, or has a lease: whose snapshots are kept."""
        return self.allowed is None or peer in self.allowed or peer in self.borrowers

    async def allow(self, peers: Iterable[PeerId | str] | None) -> None:
        """Replace the list of peers that may lease; None for everybody. Leases that stand are kept."""
        self.allowed = peer_set(peers)
        self._post(Lend(self.offer, self._versions, self.allowed, self.grantors))
        # a newer record tells those who were refused that asking again may help
        if self.announcement is not None:
            await self.announcement.update(self.attributes())

    def take_back(self, notice_s: float, reason: str = "its owner wants the machine back") -> None:
        """End all leases after a notice, of which the borrowers are told now, and give no more of them until `allow`
        is called. notice_s: seconds; 0 ends them at once."""
        self._post(TakeBack(None, notice_s, text_argument(reason, "a reason")))

    def learn(self, told: RevocationList) -> None:
        """An owner has revoked something. When it is this peer itself, whom it names loses its place among the allowed;
        what ends by it is the lease engine's affair."""
        if told.owner != self._peer.id or self.allowed is None:
            return
        names = {name for name, _ in told.entries}
        gone = {peer for peer in self.allowed if peer_name(peer) in names}
        if gone:
            self.allowed = self.allowed - gone
            self._post(Lend(self.offer, self._versions, self.allowed, self.grantors))

    async def changed(self) -> None:
        """Wait for the next lease to begin or end."""
        await self._changed.wait()

    def attributes(self) -> dict[str, Attribute]:
        """What the service record says."""
        trusted: dict[str, Attribute] = (
            {OWNERS_ATTRIBUTE: owners_text(self.grantors)} if self.grantors else {}
        )
        keeps: dict[str, Attribute] = {KEEPS_ATTRIBUTE: True} if self._keeping else {}
        return (
            trusted
            | keeps
            | {
                "kind": self.offer.kind,
                "region": self.offer.region,
                "cpus": self.offer.cpus,
                "gpus": self.offer.gpus,
                "isolation": self.offer.isolation,
                "ray": self._versions.ray,
                "python": self._versions.python,
                "swarmp2p": self._versions.swarmp2p,
            }
        )

    def output(self, output: LeaseOutput | Invited | MeshFailed) -> None:
        """Take an output of the lease or mesh engine about a lease given by this peer."""
        if isinstance(output, OpenPath | ClosePath | Invited | MeshFailed) and self._paths is not None:
            given = self._given.get(output.lease)
            self._paths.handle(output, None if given is None else given.need)
        if isinstance(output, Invited | MeshFailed):
            return
        match output:
            case LeaseGranted(lease=lease):
                self._given[lease] = output
            case LeaseEnded(lease=lease):
                self._given.pop(lease, None)
            case _:
                pass
        self.lender.handle(output)
        self._changed.set()
        self._changed = trio.Event()

    def signal(self) -> LoadSignal:
        """How loaded this lender is now: requests in flight are leases, and of two with as many the one with more CPUs
        has more room. Free is what a further lease would be granted (policy.py): what the leases that stand did not
        ask for, and nothing once there are as many as may be. How long a lease lasts nobody knows, so that no latency
        is told."""
        taken = [given.need for given in self._given.values()]
        leases, offer = len(taken), self.offer
        room = leases < offer.max_leases
        return LoadSignal(
            cpus_free=max(0.0, offer.cpus - sum(need.cpus for need in taken)) * room,
            memory_free_bytes=max(0, offer.memory_bytes - sum(need.memory_bytes for need in taken)) * room,
            gpus_free=max(0.0, offer.gpus - sum(need.gpus for need in taken)) * room,
            in_flight=leases,
            leases=leases,
            latency_s=0.0,
            kind=self.offer.kind,
            region=self.offer.region,
            speed=self.offer.cpus,
        )

    async def _publish_loads(self) -> None:
        try:
            while True:
                changed = self._changed
                await self._peer.set_load(self.signal())
                await changed.wait()
        finally:
            self._post(SetLoad(None))

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Lend until cancelled."""
        async with trio.open_nursery() as nursery:
            await start(nursery, self._stock.run)
            self._paths = LenderPaths(self._all_paths, self._carriers, self.offer, self._stock, nursery)
            await start(nursery, self.lender.run)
            self._post(Lend(self.offer, self._versions, self.allowed, self.grantors))
            nursery.start_soon(self._publish_loads)
            task_status.started()

    def _place(self, lease: LeaseId) -> AbstractContextManager[Place | None]:
        return nullcontext(None) if self._paths is None else self._paths.use(lease)

    async def until_ready(self) -> None:
        """Wait until a worker is ready to be started for the next lease."""
        await self._stock.until_ready()

    async def ended(self) -> None:
        """Wait until no worker is left, a few seconds at most."""
        with trio.move_on_after(_STOP_S):
            await self.lender.idle()


def peer_set(peers: Iterable[PeerId | str] | None) -> frozenset[PeerId] | None:
    """Peer ids or their texts as a set; raises UsageError for a text that is none."""
    if peers is None:
        return None
    if isinstance(peers, str | bytes):  # a PeerId is bytes
        peers = (peers,)
    if not isinstance(cast(object, peers), Iterable):
        raise UsageError(
            f"peers that may lease are given as a list of peer ids, or None for all; not {peers!r}"
        )
    return frozenset(peer_argument(peer) for peer in peers)
