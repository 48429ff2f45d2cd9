"""When what this peer publishes is stored again.

A few keys have a time each, an interval after they were stored. Many take turns: the keyspace passes by once in an
interval, and each region of it has its moment, when all the keys in it are due together (sweep.py). So the work is
spread over the interval by itself, whenever the keys came, and a region's lookups serve all its keys.

    now ......|........|........|........|........|.... one interval
          region 3  region 0  region 1  region 2  region 3      the phase is each peer's own
"""

from __future__ import annotations

import math

from .keys import ID_BITS
from .publisher import Publication
from .timers import Timers

SPREAD = 0.1
"""Of intervals: by chance, so that peers started together do not stay in step; and how soon after it was stored a
key's turn may come."""


class Slot:
    """Publications that are due at one time."""

    __slots__ = ("publications", "timer", "when")

    def __init__(self, when: float) -> None:
        self.when, self.timer = when, 0
        self.publications: dict[bytes, Publication] = {}


class Renewals:
    """The time at which each publication is due. timers: the engine's; slots in them come back through `take`."""

    def __init__(self, timers: Timers[object]) -> None:
        self._timers = timers
        self._slots: dict[float, Slot] = {}

    def set(self, publication: Publication, when: float) -> None:
        """Have a publication due then, and no more when it was before."""
        self.cancel(publication)
        slot = self._slots.get(when)
        if slot is None:
            slot = self._slots[when] = Slot(when)
            slot.timer = self._timers.add(when, slot)
        slot.publications[publication.key] = publication
        publication.due = when

    def cancel(self, publication: Publication) -> None:
        """A publication is not due any more."""
        slot = self._slots.get(publication.due)
        if slot is not None and slot.publications.get(publication.key) is publication:
            del slot.publications[publication.key]
            if not slot.publications:
                self._timers.cancel(slot.timer)
                del self._slots[slot.when]
        publication.due = -math.inf

    def take(self, slot: Slot) -> list[Publication]:
        """A slot's time has come: what is due."""
        self._slots.pop(slot.when, None)
        return list(slot.publications.values())


def turn(id: int, bits: int, interval_s: float, phase: float, now: float) -> float:
    """When the region of an id is next due, at most `interval_s` from now.

    bits: leading bits that a region's ids share. phase: 0 to 1, of the peer.
    """
    period = interval_s * (1.0 - SPREAD)
    region = (id >> (ID_BITS - bits)) / (1 << bits)
    offset = (region + phase) * period
    return offset + period * math.ceil((now + SPREAD * period - offset) / period)
