"""Links: what happens to a message between two peers. Used by the simulator and the in-memory network."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Protocol

from ..identity import PeerId


class Link(Protocol):
    """The fate of each message, as a function."""

    def delay(self, now: float, source: PeerId, target: PeerId, rng: Random) -> float | None:
        """One-way delay in seconds, or None when the message is lost."""
        ...


@dataclass(frozen=True, slots=True)
class UniformLink:
    """The same delay and loss everywhere.

    delay_s: mean one-way delay in seconds. jitter: relative, 0.1 means ± 10 % uniformly. loss: probability, 0 to 1.
    """

    delay_s: float = 0.025
    jitter: float = 0.0
    loss: float = 0.0

    def delay(self, now: float, source: PeerId, target: PeerId, rng: Random) -> float | None:
        if self.loss and rng.random() < self.loss:
            return None
        if not self.jitter:
            return self.delay_s
        return self.delay_s * (1.0 + self.jitter * (2.0 * rng.random() - 1.0))


class Partition:
    """Another link, cut between groups of peers until `heal()`.

    groups: peer to group number; peers in different groups, and peers in none, do not reach each other.
    """

    def __init__(self, inner: Link) -> None:
        self._inner = inner
        self._groups: dict[PeerId, int] | None = None

    def split(self, groups: dict[PeerId, int]) -> None:
        """Cut every link between different groups."""
        self._groups = dict(groups)

    def heal(self) -> None:
        """Restore every link."""
        self._groups = None

    def delay(self, now: float, source: PeerId, target: PeerId, rng: Random) -> float | None:
        if self._groups is not None:
            here, there = self._groups.get(source), self._groups.get(target)
            if here is None or here != there:
                return None
        return self._inner.delay(now, source, target, rng)
