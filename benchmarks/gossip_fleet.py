"""The processes of a gossip benchmark: started, told what to do, and asked what they measured."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

import trio

from .gossip_workload import Loop, Plan
from .line_worker import LineWorker
from .report import Figures, SideFailed, percentile

_SOON_S: Final = 0.2  # from an order to its beginning, so that all processes have it by then


@dataclass(frozen=True, slots=True)
class Measured:
    """Of an open loop, all processes that were asked together. memory_mb: once a second."""

    count: int
    expected: int
    latencies_ms: list[float]
    cpu_s: float
    bytes: int
    segments: int
    memory_mb: list[float]

    def figures(self) -> Figures:
        """What benchmarks/gossip.py prints of it."""
        if not self.count:
            raise SideFailed("no message reached anybody")
        return {
            "delivered": self.count / self.expected,
            "p50_ms": percentile(self.latencies_ms, 0.5),
            "p99_ms": percentile(self.latencies_ms, 0.99),
            "cpu_ms_per_delivery": 1000 * self.cpu_s / self.count,
            "bytes_per_delivery": self.bytes / self.count,
            "packets_per_delivery": self.segments / self.count,
        }


class Fleet:
    """All processes of one side; each answers for its own nodes."""

    def __init__(self, workers: list[LineWorker]) -> None:
        self._workers = workers
        self._stopped: set[int] = set()

    async def connect(self) -> None:
        """Have the nodes dial one another."""
        addresses: dict[str, str] = {}
        for worker in self._workers:
            addresses |= (await worker.answer())["addresses"]
        for worker in self._workers:  # in turn: the order of connections is part of the graph
            await worker.ask({"dial": addresses})

    def stop(self, process: int) -> None:
        """One process does nothing any more, with its connections open; it is not asked any more either."""
        self._stopped.add(process)
        self._workers[process].stop()

    async def closed_loop(self, seconds: float) -> float:
        """Deliveries a second of 16 publishers that wait until their message is everywhere."""
        order = {"closed": {"at_s": time.perf_counter() + _SOON_S, "seconds": seconds}}
        deliveries: int = sum(answer["deliveries"] for answer in await self._ask_all(order))
        return deliveries / seconds

    async def open_loop(self, phase: int, rate: float, seconds: float, of: int | None = None) -> Measured:
        """Messages at fixed instants. phase: from 1; another one for each loop. of: the process to tell of; None for
        all that run."""
        await self._ask_all({"open": asdict(Loop(phase, time.perf_counter() + _SOON_S, rate, seconds))})
        if of is None:
            answers = await self._ask_all({"tell": True})
        else:
            answers = [await self._workers[of].ask({"tell": True})]
        latencies: list[float] = []
        for answer in answers:
            latencies += answer["latencies_ms"]
        memory: list[float] = [
            sum(some) for some in zip(*(answer["memory_mb"] for answer in answers), strict=False)
        ]
        totals = {
            name: sum(answer[name] for answer in answers)
            for name in ("count", "expected", "cpu_s", "bytes", "segments")
        }
        return Measured(**totals, latencies_ms=latencies, memory_mb=memory)

    async def _ask_all(self, order: object) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []

        async def ask(worker: LineWorker) -> None:
            answers.append(await worker.ask(order))

        async with trio.open_nursery() as nursery:
            for number, worker in enumerate(self._workers):
                if number not in self._stopped:
                    nursery.start_soon(ask, worker)
        return answers


@asynccontextmanager
async def fleet(plan: Plan) -> AsyncGenerator[Fleet, None]:
    """Start a side's processes and connect their nodes; the meshes are still to form. Raises SideFailed."""
    workers: list[LineWorker] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for process in range(plan.processes):
                workers.append(
                    await LineWorker.start(
                        "benchmarks.gossip_worker", json.dumps(asdict(plan)), str(process), folder
                    )
                )
            started = Fleet(workers)
            await started.connect()
            yield started
        finally:
            for worker in workers:
                worker.end()


def spread(nodes: int, processes: int) -> tuple[int, ...]:
    """Nodes over processes, in turn."""
    return tuple(node % processes for node in range(nodes))
