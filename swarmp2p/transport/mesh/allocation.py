"""Addresses and ports for a cluster's members, given by its head: no two members share either.

All Ray processes of a worker listen in its block, and nothing else of it can be asked for. The head's machine has a
listener for every worker's block, at the worker's address, and the head's own processes: what is taken there already,
by another cluster or by anything else, is passed over.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from ...errors import SwarmError, UsageError
from .members import HEAD_ADDRESS, HEAD_HOST, MAX_HOST, MemberId, PortBlock, overlay_address

Free = Callable[[str, int], bool]
"""Whether a port of an address can be listened on, on the head's machine."""

FIRST_PORT: Final = 10_000
END_PORT: Final = 32_768
"""Below the ports that Linux gives to outgoing connections (net.ipv4.ip_local_port_range begins at 32768)."""

FIXED_PORTS: Final = 16
"""For a node's own processes: raylet, object manager, agents, metrics; a head's GCS and dashboard. Ray 2.60 needs nine
at most."""

PORTS_PER_CPU: Final = 4
"""Worker processes each take a port: Ray starts one for each CPU, and more for actors that need none and for tasks
that wait in others."""

MAX_BLOCK: Final = 1_024


class NoRoom(SwarmError):
    """A cluster has no more addresses or ports to give; nothing was given."""


@dataclass(frozen=True, slots=True)
class Place:
    """What the head gives one member. host: 16-bit number that its address is made from."""

    host: int
    block: PortBlock

    @property
    def address(self) -> str:
        """The loopback address that stands for it on other members' machines."""
        return HEAD_ADDRESS if self.host == HEAD_HOST else overlay_address(self.host)


def block_size(cpus: float) -> int:
    """How many ports a node with so many CPUs gets."""
    if not 0 <= cpus < math.inf:
        raise UsageError(f"a number of CPUs is at least 0, not {cpus!r}")
    return min(MAX_BLOCK, FIXED_PORTS + PORTS_PER_CPU * max(1, math.ceil(min(cpus, MAX_BLOCK))))


class Allocation:
    """What one cluster has given. At most as many members as fit into the ports: 700 with one CPU each."""

    def __init__(self, rng: Random, free: Free, first: int = FIRST_PORT, end: int = END_PORT) -> None:
        """rng: spreads clusters over addresses and ports, so that two on one machine rarely meet. first, end: of the
        ports that may be given."""
        self._rng, self._free, self._first, self._end = rng, free, first, end
        self._start = rng.randrange(first, max(first + 1, (first + end) // 2))
        self._places: dict[MemberId, Place] = {}
        self._hosts: dict[int, None] = {HEAD_HOST: None}

    def __len__(self) -> int:
        return len(self._places)

    def get(self, member: MemberId) -> Place | None:
        """What a member has."""
        return self._places.get(member)

    def head(self, cluster: MemberId, cpus: float = 0) -> Place:
        """The head's own place; its address is 127.0.0.1. Raises NoRoom."""
        return self._give(cluster, HEAD_HOST, block_size(cpus))

    def give(self, member: MemberId, cpus: float) -> Place:
        """A place for a worker with so many CPUs; the same when it has one already. Raises NoRoom."""
        known = self._places.get(member)
        return known if known is not None else self._give(member, self._host(), block_size(cpus))

    def take(self, member: MemberId, place: Place) -> None:
        """Give a member the place that it had before; whether its ports are free is not looked at."""
        self._places[member] = place
        self._hosts[place.host] = None

    def release(self, member: MemberId) -> None:
        """A member has left: what it had may be given to another."""
        place = self._places.pop(member, None)
        if place is not None and place.host != HEAD_HOST:
            del self._hosts[place.host]

    def _host(self) -> int:
        if len(self._hosts) >= MAX_HOST // 2:
            raise NoRoom(f"all addresses of the cluster are given ({len(self._hosts)}); let workers go")
        while True:  # at most every second one is taken
            host = self._rng.randrange(HEAD_HOST + 1, MAX_HOST + 1)
            if host not in self._hosts and host & 255 not in (0, 255):
                return host

    def _give(self, member: MemberId, host: int, size: int) -> Place:
        place = Place(host, PortBlock(0, size))
        block = self._block(place.address, size)
        if block is None:
            raise NoRoom(
                f"no {size} ports in a row are free from {self._first} to {self._end - 1} on this machine "
                f"(the cluster's {len(self._places)} members have theirs); let workers go, or close other clusters"
            )
        given = self._places[member] = Place(host, block)
        self._hosts[host] = None
        return given

    def _block(self, address: str, size: int) -> PortBlock | None:
        """The first free block from where this cluster begins; then from the first port of all."""
        return self._first_free(address, size, self._start) or self._first_free(address, size, self._first)

    def _first_free(self, address: str, size: int, first: int) -> PortBlock | None:
        while first + size <= self._end:
            block = PortBlock(first, size)
            after = self._obstacle(block, address)
            if after is None:
                return block
            first = after
        return None

    def _obstacle(self, block: PortBlock, address: str) -> int | None:
        """The first port from which another block may begin, when this one cannot be given."""
        for place in self._places.values():
            if place.block.overlaps(block):
                return place.block.first + place.block.count
        return next((port + 1 for port in block.ports if not self._free(address, port)), None)
