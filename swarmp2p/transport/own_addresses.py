"""Where this peer can be dialled, as far as is known: what it tells others of itself.

Several pieces find addresses: the listeners, the router that was asked for a port, what others see us at, relays. Each
says all that it has, again whenever that changes; here they become one list, and whoever carries it on (identify, the
signed record, the DHT, `Peer.addresses`) is told when it is another one.

Others remember but a few addresses of a peer, the first ones. So public ones come first, then those through relays,
then private ones, and loopback last. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Final

from ..engine import Address
from .addresses import host_and_port, parse_transport
from .reachability import Scope, scope_of

MAX_ADDRESSES: Final = 16
"""That are told; as many as are read of others (identify.py, autonat.py)."""


class Origin(IntEnum):
    """Who found an address; of equally good ones the earlier come first."""

    LISTENING = 0
    MAPPED = 1
    OBSERVED = 2
    RELAYED = 3


class OwnAddresses:
    """The addresses of one running host. listening: where it listens. on_change: called after each change."""

    def __init__(self, listening: Iterable[Address]) -> None:
        self.listening = tuple(listening)
        self.on_change: list[Callable[[], None]] = []
        self._found: dict[Origin, tuple[Address, ...]] = {Origin.LISTENING: self.listening}
        self._all = self._merged()

    @property
    def all(self) -> tuple[Address, ...]:
        """At most 16, the most useful first."""
        return self._all

    def set(self, origin: Origin, addresses: Iterable[Address]) -> None:
        """All that is known from one origin; replaces what it said before."""
        self._found[origin] = tuple(dict.fromkeys(addresses))
        merged = self._merged()
        if merged != self._all:
            self._all = merged
            for tell in list(self.on_change):
                tell()

    def _merged(self) -> tuple[Address, ...]:
        ranks: dict[Address, tuple[int, Origin]] = {}
        for origin in Origin:
            for address in self._found.get(origin, ()):
                ranks.setdefault(address, (_rank(origin, address), origin))
        return tuple(sorted(ranks, key=ranks.__getitem__))[:MAX_ADDRESSES]


def _rank(origin: Origin, address: Address) -> int:
    if origin is Origin.RELAYED:
        return 1
    target = parse_transport(address)
    scope = Scope.NONE if target is None else scope_of(host_and_port(target)[0])
    return {Scope.GLOBAL: 0, Scope.PRIVATE: 2, Scope.NONE: 2, Scope.MACHINE: 3}[scope]
