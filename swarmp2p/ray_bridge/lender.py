"""The lender's hands: starts, watches and stops the Ray workers that the lease engine says.

Every decision is lease.py's. This file turns `StartWorker` into a process tree under a supervisor, `StopWorker`
into its end, and tells the engine what became of it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

import trio

from ..errors import SwarmError
from ..scopes import TaskStatus, cancel_scope
from .cells import Cell
from .demand import node_labels
from .events import (
    LeaseCommand,
    LeaseId,
    LeaseOutput,
    Offer,
    OpenPath,
    PathUp,
    StartWorker,
    StopWorker,
    WorkerFailed,
    WorkerStarted,
)
from .jailer import Jailer
from .kept_logs import KeptLogs
from .warm import WarmNode
from .worker import start_worker


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker runs, as its path has it. node_ip: where it is reached. ports: all that it may listen at. cell:
    its own network; None for this machine's. warm: what starts it, jailed if it is to be; None to start it cold."""

    node_ip: str
    ports: Sequence[int]
    cell: Cell | None
    warm: WarmNode | None = None


Places = Callable[[LeaseId], AbstractContextManager[Place | None]]
"""The place of a lease's worker, kept while the context is open; None for the offer's address and any ports."""


def direct_path_problem(head_address: str, node_ip: str) -> str | None:
    """Why Ray's traffic may not go directly between these two addresses; None when it may.

    Ray authenticates by token but does not encrypt, so a direct path stays on one machine.
    """
    head_host = head_address.rpartition(":")[0].strip("[]")
    for host in (head_host, node_ip):
        try:
            if not ipaddress.ip_address(host).is_loopback:
                return (
                    f"{host} is not a loopback address, and Ray's traffic would cross the network unencrypted"
                )
        except ValueError:
            return f"{host} is not an IP address"
    return None


def _block(place: Place | None) -> tuple[int, int]:
    """First and count of a worker's ports; (0, 0) for any."""
    if place is None or not place.ports:
        return 0, 0
    return min(place.ports), len(place.ports)


class Lender:
    """Runs the workers of the leases that this peer gives. `run` owns every process."""

    def __init__(
        self,
        offer: Offer,
        peer_label: str,
        logs: Path | None,
        post: Callable[[LeaseCommand], None],
        places: Places | None = None,
        jailer: Jailer | None = None,
    ) -> None:
        """places: made by whoever answers OpenPath; None: every path is direct, and answered here.

        peer_label: the lender's peer id as text; it becomes the Ray node's name and label.

        jailer: whoever makes its workers' jails; None lends without.

        logs: where workers' logs go, one folder a lease, of which the latest are kept (kept_logs.py); None keeps those
        of failed workers only.
        """
        self.offer = offer
        self._label, self._post = peer_label, post
        self._logs = None if logs is None else KeptLogs(logs)
        self._places, self._jailer = places, jailer
        self._stops: dict[LeaseId, trio.CancelScope] = {}
        self._at_work = 0  # workers that run, start, are being stopped, or wait for one of those
        # A lease is over before its worker's last process is. Who takes and returns leases as fast as it can
        # would have any number of workers end side by side; so a worker waits until one of them is gone.
        self._room = trio.CapacityLimiter(offer.max_leases)
        self._nursery: trio.Nursery | None = None
        self._fewer = trio.Event()

    async def idle(self) -> None:
        """Until no worker runs, starts, or is being stopped."""
        while self._at_work:
            await self._fewer.wait()

    def handle(self, output: LeaseOutput) -> None:
        """Take what the lease engine says about a lease given by this peer."""
        match output:
            case OpenPath(lease=lease):
                # Whether it may be direct is checked when the head's address is known.
                if self._places is None:
                    self._post(PathUp(lease))
            case StartWorker():
                if self._nursery is not None:
                    scope = self._stops[output.lease] = cancel_scope()
                    self._at_work += 1
                    self._nursery.start_soon(self._work, output, scope)
            case StopWorker(lease=lease):
                if lease in self._stops:
                    self._stops[lease].cancel()
            case _:
                pass

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the workers until cancelled; all of them are stopped before this returns."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def _work(self, order: StartWorker, scope: trio.CancelScope) -> None:
        reason = "the worker was stopped"
        try:
            kept = nullcontext(None) if self._places is None else self._places(order.lease)
            with scope, kept as place:
                node_ip = self.offer.node_ip if place is None else place.node_ip
                cell = None if place is None else place.cell
                problem = direct_path_problem(order.secret.address, node_ip)
                if problem is None and self._jailer is not None and cell is None:
                    problem = (
                        "this lender jails its workers, which takes a network of their own and no direct path"
                    )
                if problem is not None:
                    reason = problem
                    return
                warm = None if place is None else place.warm
                jailed = (
                    nullcontext(None if warm is None else warm.jail)
                    if self._jailer is None or warm is not None
                    else self._jailer.jail(order.lease, order.need)
                )
                async with self._room, AsyncExitStack() as stack:
                    directory = None
                    if self._logs is not None:
                        stack.push_async_callback(self._prune, self._logs)
                        directory = stack.enter_context(self._logs.of(order.lease))
                    jail = stack.enter_context(jailed)
                    starting = start_worker(
                        order.secret,
                        need=order.need,
                        node_ip=node_ip,
                        ports=() if place is None else place.ports,
                        cell=cell,
                        jail=jail,
                        warm=warm,
                        labels=node_labels(self.offer, self._label, order.lease),
                        directory=directory,
                    )
                    worker = await stack.enter_async_context(starting)
                    self._post(WorkerStarted(order.lease, node_ip, _block(place)))
                    reason = await worker.died()
        except (SwarmError, OSError) as problem:  # OSError: no room, no more processes
            reason = str(problem)
        finally:
            self._at_work -= 1
            if self._stops.get(order.lease) is scope:  # else a borrower used the id of an earlier lease again
                del self._stops[order.lease]
            self._fewer.set()
            self._fewer = trio.Event()
            self._post(WorkerFailed(order.lease, reason))

    @staticmethod
    async def _prune(logs: KeptLogs) -> None:
        """One lease's log is added to those that are kept."""
        with cancel_scope(shield=True):
            await trio.to_thread.run_sync(logs.prune)
