"""What a gossip benchmark publishes, and what has arrived of it.

A message is 150 bytes: its phase, the process that waits for it (closed loop), its number, and filling.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from random import Random
from typing import Final

MESSAGE_BYTES: Final = 150


@dataclass(frozen=True, slots=True)
class Plan:
    """How nodes are spread over processes, and who publishes.

    owners: the process of each node. publishers: the nodes that publish. degree: neighbours of each node.
    coalesce_ms: the flush interval of our routers; 0 for none.
    """

    side: str
    owners: tuple[int, ...]
    publishers: tuple[int, ...]
    degree: int
    seed: int = 1
    coalesce_ms: float = 0.0

    @property
    def processes(self) -> int:
        """How many there are."""
        return max(self.owners) + 1

    def nodes(self, process: int) -> list[int]:
        """Those of one process."""
        return [node for node, owner in enumerate(self.owners) if owner == process]


@dataclass(frozen=True, slots=True)
class Loop:
    """An open loop: the same in all processes, without a word between them. at_s: its beginning, on the clock of
    time.perf_counter(), which all processes of a (Linux) machine share."""

    phase: int
    at_s: float
    rate: float
    seconds: float

    @property
    def messages(self) -> int:
        """How many are published."""
        return max(1, round(self.rate * self.seconds))

    def scheduled_s(self, number: int) -> float:
        """The instant of a message."""
        return self.at_s + number / self.rate

    def by(self, plan: Plan) -> list[int]:
        """Who publishes each message."""
        rng = Random(plan.seed * 1000 + self.phase)
        return [rng.choice(plan.publishers) for _ in range(self.messages)]


def make_data(phase: int, process: int, number: int) -> bytes:
    """The data of a message."""
    return (bytes((phase, process)) + number.to_bytes(6, "big")).ljust(MESSAGE_BYTES, b".")


def read_data(data: bytes) -> tuple[int, int, int]:
    """(phase, process, number)."""
    return data[0], data[1], int.from_bytes(data[2:8], "big")


class Arrivals:
    """Which message of an open loop has reached which node of this process, and how late."""

    def __init__(self, plan: Plan, process: int, loop: Loop) -> None:
        nodes = plan.nodes(process)
        self.publishers = loop.by(plan)
        self.expected = sum(len(nodes) - (publisher in nodes) for publisher in self.publishers)
        self.latencies_s: list[float] = []
        self.latest_s = -math.inf
        self._loop = loop
        self._missing = [{node for node in nodes if node != publisher} for publisher in self.publishers]

    @property
    def count(self) -> int:
        """Deliveries so far; repeats do not count."""
        return len(self.latencies_s)

    def arrived(self, node: int, number: int) -> None:
        """A message reached a node."""
        missing = self._missing[number]
        if node in missing:
            missing.remove(node)
            self.latest_s = time.perf_counter()
            self.latencies_s.append(self.latest_s - self._loop.scheduled_s(number))
