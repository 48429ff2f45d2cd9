"""The lender's hands: starts, watches and stops the Ray workers that the lease engine says.

Every decision is lease.py's. This file turns `StartWorker` into a process tree under a supervisor, `StopWorker`
into its end, and tells the engine what became of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio

from ..errors import SwarmError
from ..scopes import TaskStatus, cancel_scope
from .events import (
    ClosePath,
    JoinSecret,
    LeaseCommand,
    LeaseId,
    LeaseOutput,
    Offer,
    OpenPath,
    StartWorker,
    StopWorker,
    WorkerFailed,
    WorkerStarted,
)
from .ways import DirectWays, Ways
from .worker import PEER_LABEL, start_worker


class Lender:
    """Runs the workers of the leases that this peer gives. `run` owns every process."""

    def __init__(
        self,
        offer: Offer,
        peer_label: str,
        logs: Path | None,
        post: Callable[[LeaseCommand], None],
        ways: Ways | None = None,
    ) -> None:
        """ways: for the leases' traffic; None for direct ones.

        peer_label: the lender's peer id as text; it becomes the Ray node's name and label.

        logs: where workers' logs go, one folder a lease; None keeps those of failed workers only.
        """
        self.offer = offer
        self._label, self._logs, self._post = peer_label, logs, post
        self._ways: Ways = ways or DirectWays(post, offer.node_ip)
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
            case OpenPath():
                self._ways.open(output)
            case StartWorker():
                if self._nursery is not None:
                    scope = self._stops[output.lease] = cancel_scope()
                    self._at_work += 1
                    self._nursery.start_soon(self._work, output, scope)
            case StopWorker(lease=lease):
                if lease in self._stops:
                    self._stops[lease].cancel()
            case ClosePath(lease=lease):
                self._ways.close(lease)
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
            with scope:
                place = self._ways.place(order)
                async with (
                    self._room,
                    start_worker(
                        JoinSecret(place.head_address, order.secret.token),
                        need=order.need,
                        node_ip=place.node_ip,
                        ports=place.ports,
                        cell=place.cell,
                        labels={**dict(self.offer.labels), PEER_LABEL: self._label},
                        directory=None if self._logs is None else self._logs / order.lease.hex()[:12],
                    ) as worker,
                ):
                    self._post(WorkerStarted(order.lease))
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
