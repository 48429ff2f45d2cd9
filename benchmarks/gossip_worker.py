"""One process of a gossip benchmark, with some of its nodes. benchmarks/gossip_fleet.py starts these and talks to them
in lines of JSON:

    -> {"addresses": {NODE: MULTIADDR}}                      it listens
    <- {"dial": {NODE: MULTIADDR}}                           of all processes
    -> {"connected": true}
    <- {"closed": {"at_s": T, "seconds": S}}                 16 publishers, over all processes, that wait until their
    -> {"deliveries": N}                                     message is everywhere
    <- {"open": {"phase": N, "at_s": T, "rate": R, "seconds": S}}
    -> {"drained": true}                                     everything came, or nothing more comes
    <- {"tell": true}
    -> {"count", "expected", "latencies_ms", "cpu_s", "bytes", "segments", "memory_mb"}     of the open loop
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from random import Random
from typing import Any, Final

import trio

from .gossip_nodes import OPENINGS, Node
from .gossip_workload import Arrivals, Loop, Plan, make_data, read_data
from .graph import regular_graph
from .line_worker import orders, tell
from .report import Meter, memory_mb
from .sockets import Sent, sent

_PUBLISHERS: Final = 16
_GIVE_UP_S: Final = 5.0  # on a message, in the closed loop
_DRAIN_S: Final = 120.0  # for late messages, at most
_QUIET_S: Final = 10.0  # without a delivery: the rest is lost


class Worker:
    """The nodes of one process, and what is measured of them. folder: where the processes' sockets are."""

    def __init__(self, plan: Plan, process: int, folder: str) -> None:
        self._plan, self._process, self._folder = plan, process, folder
        self._nodes: dict[int, Node] = {}
        self._arrivals: Arrivals | None = None
        self._phase = 0  # of the open loop; the closed loop's is 0
        self._waiting: dict[int, tuple[int, trio.Event]] = {}  # closed loop: processes left, for each message
        self._here: dict[tuple[int, int], int] = {}  # nodes left of this process
        self._deliveries = 0
        self._meter, self._before = Meter(), Sent()
        self._memory: list[float] = []
        self._out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    async def run(self) -> None:
        """Until stdin ends, which ends this process at once: other implementations take long to close."""
        opening = OPENINGS[self._plan.side]
        own = self._plan.nodes(self._process)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            async with opening(own, self._plan.coalesce_ms / 1000, self._arrived) as nodes:
                self._nodes = dict(zip(own, nodes, strict=True))
                tell({"addresses": {node: self._nodes[node].address for node in own}})
                async for order in orders():
                    tell(await self._obey(order))
                os._exit(0)

    async def _obey(self, order: dict[str, Any]) -> object:
        match order:
            case {"dial": addresses}:
                await self._dial(addresses)
                return {"connected": True}
            case {"closed": {"at_s": at_s, "seconds": seconds}}:
                return {"deliveries": await self._closed_loop(at_s, seconds)}
            case {"open": loop}:
                await self._open_loop(Loop(**loop))
                return {"drained": True}
            case _:
                return self._figures()

    async def _dial(self, addresses: dict[str, str]) -> None:
        plan = self._plan
        for one, other in regular_graph(len(plan.owners), plan.degree, Random(plan.seed)):
            if one in self._nodes:
                await self._nodes[one].dial(addresses[str(other)])

    def _arrived(self, node: int, data: bytes) -> None:
        phase, process, number = read_data(data)
        if phase == 0:
            self._deliveries += 1
            self._count_down(process, number)
        elif self._arrivals is not None and phase == self._phase:
            self._arrivals.arrived(node, number)

    # Closed loop ----------------------------------------------------------------------------------------------

    async def _closed_loop(self, at_s: float, seconds: float) -> int:
        await _until(at_s)
        self._deliveries, publishers = 0, _PUBLISHERS // self._plan.processes or 1
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for number in range(publishers):
                    nursery.start_soon(
                        self._publisher, Random(self._process * 100 + number), number, publishers
                    )
        return self._deliveries

    async def _publisher(self, rng: Random, number: int, step: int) -> None:
        own = [node for node in self._nodes if node in self._plan.publishers]
        while True:
            node, everywhere = rng.choice(own), trio.Event()
            self._waiting[number] = (self._plan.processes, everywhere)
            if len(self._nodes) == 1:
                self._everywhere_here(self._process, number)
            else:
                self._here[self._process, number] = len(self._nodes) - 1
            await self._nodes[node].publish(make_data(0, self._process, number))
            with trio.move_on_after(_GIVE_UP_S):
                await everywhere.wait()
            self._waiting.pop(number, None)
            number += step

    def _count_down(self, process: int, number: int) -> None:
        left = self._here.get((process, number), len(self._nodes)) - 1
        self._here[process, number] = left
        if not left:
            del self._here[process, number]
            self._everywhere_here(process, number)

    def _everywhere_here(self, process: int, number: int) -> None:
        """A message has reached all nodes of this process: tell the one whose publisher waits."""
        if process == self._process:
            self._acknowledged(number)
        else:
            self._out.sendto(number.to_bytes(8, "big"), f"{self._folder}/{process}")

    async def _listen(self) -> None:
        acks = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        await acks.bind(f"{self._folder}/{self._process}")
        while True:
            self._acknowledged(int.from_bytes(await acks.recv(8), "big"))

    def _acknowledged(self, number: int) -> None:
        left, everywhere = self._waiting.get(number, (0, None))
        if everywhere is not None:
            self._waiting[number] = (left - 1, everywhere)
            if left == 1:
                everywhere.set()

    # Open loop ------------------------------------------------------------------------------------------------

    async def _open_loop(self, loop: Loop) -> None:
        self._arrivals, self._phase = Arrivals(self._plan, self._process, loop), loop.phase
        arrivals = self._arrivals
        await _until(loop.at_s)
        self._before, self._meter, self._memory = sent(), Meter(), []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sample)
            for number, publisher in enumerate(arrivals.publishers):
                if publisher in self._nodes:
                    await _until(loop.scheduled_s(number))
                    await self._nodes[publisher].publish(make_data(loop.phase, self._process, number))
            await _until(loop.at_s + loop.seconds)
            ended_s = time.perf_counter()
            while arrivals.count < arrivals.expected:
                await trio.sleep(0.05)
                now = time.perf_counter()
                if now - max(arrivals.latest_s, ended_s) > _QUIET_S or now - ended_s > _DRAIN_S:
                    break
            nursery.cancel_scope.cancel()

    async def _sample(self) -> None:
        while True:
            self._memory.append(round(memory_mb(), 2))
            await trio.sleep(1.0)

    def _figures(self) -> dict[str, object]:
        assert self._arrivals is not None
        wire = sent().since(self._before)
        return {
            "count": self._arrivals.count,
            "expected": self._arrivals.expected,
            "latencies_ms": [round(1000 * latency, 2) for latency in self._arrivals.latencies_s],
            "cpu_s": self._meter.cpu_s,
            "bytes": wire.on_the_wire,
            "segments": wire.segments,
            "memory_mb": self._memory,
        }


async def _until(at_s: float) -> None:
    await trio.sleep(max(0.0, at_s - time.perf_counter()))


def main() -> None:
    """python -m benchmarks.gossip_worker PLAN PROCESS FOLDER"""
    plan = json.loads(sys.argv[1])
    plan["owners"], plan["publishers"] = tuple(plan["owners"]), tuple(plan["publishers"])
    trio.run(Worker(Plan(**plan), int(sys.argv[2]), sys.argv[3]).run)


if __name__ == "__main__":
    main()
