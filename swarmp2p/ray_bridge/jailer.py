"""The jails of one lender's workers: which GPUs whose is, and how much of the machine."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from ..errors import NoJail
from .cells import cell_problem
from .events import JAIL, LeaseId, Need, Offer
from .gpus import GpuTable, find_gpus
from .jail import Jail
from .jails import device_nodes, jail_problem, worker_jail
from .node_tree import OBJECT_STORE_BYTES


@dataclass(frozen=True, slots=True)
class Jailer:
    """Makes the jails of what an offer lends; made by `open_jailer`."""

    offer: Offer
    gpus: GpuTable

    @contextmanager
    def jail(self, lease: LeaseId, need: Need) -> Generator[Jail, None, None]:
        """The jail of one lease's worker, whose GPUs are nobody else's until the context ends. Raises NoJail."""
        gpus = self.gpus.take(lease, need.gpus)
        if gpus is None:
            raise NoJail(f"{need.gpus:g} GPUs were leased, and not as many whole ones are free")
        try:
            yield worker_jail(
                cpus=need.cpus,
                memory_bytes=need.memory_bytes or self._share_bytes,
                store_bytes=OBJECT_STORE_BYTES,
                leases=self.offer.max_leases,
                gpus=gpus,
            )
        finally:
            self.gpus.give_back(lease)

    def spare(self) -> Jail:
        """A jail for whoever comes: of an even part of what is lent, without GPUs. Raises NoJail."""
        share = self.offer.cpus / self.offer.max_leases
        return worker_jail(
            cpus=share,
            memory_bytes=self._share_bytes,
            store_bytes=OBJECT_STORE_BYTES,
            leases=self.offer.max_leases,
        )

    def fits(self, need: Need) -> bool:
        """Whether a lease may have a spare jail."""
        enough = need.cpus <= max(1.0, self.offer.cpus / self.offer.max_leases)
        return enough and not need.gpus and need.memory_bytes <= self._share_bytes

    @property
    def _share_bytes(self) -> int:
        return self.offer.memory_bytes // self.offer.max_leases


async def open_jailer(offer: Offer) -> Jailer | None:
    """Whoever makes the offer's jails; None where it lends without. Raises NoJail where this machine makes none, with
    the command that enables them."""
    if offer.isolation != JAIL:
        return None
    problem = await trio.to_thread.run_sync(jail_problem) or await cell_problem()
    if problem is not None:
        raise NoJail(problem)
    gpus = find_gpus(device_nodes(), os.environ) if offer.gpus else ()
    if offer.gpus > len(gpus):
        raise NoJail(
            f"{offer.gpus:g} GPUs are to be lent, and of {len(gpus)} there are device nodes in /dev that may be; lend "
            "fewer, or install the GPU's driver"
        )
    return Jailer(offer, GpuTable(gpus))
