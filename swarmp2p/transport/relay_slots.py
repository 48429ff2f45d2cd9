"""Whom a relay serves: reservations and circuits, and how many of each there may be. Pure.

A reservation holds until it expires or the peer's last direct connection is over (circuit v2, "Reservation"), and may
be renewed at any time. Both tables are bounded by the configuration: what is one too many is refused.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from ..identity import PeerId
from ..rates import Rates
from .reachability import Scope, scope_of
from .relay_config import RelayConfig
from .sources import subnet_of

_MAX_RATES: Final = 4_096
_AHEAD_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Reservation:
    """One peer's. host: the IP address it is at. expires: in s, as `now`."""

    host: str
    expires: float


class Slots:
    """The tables of one relay."""

    def __init__(self, config: RelayConfig) -> None:
        self._config = config
        self._reserved: dict[PeerId, Reservation] = {}
        self._held = Counter[str]()  # reservations by public address and subnet
        self._circuits = Counter[PeerId]()  # by both of their ends
        self.circuits = 0
        self._connects = Rates[PeerId](config.connects_per_s, config.connects_burst, _MAX_RATES)

    def __len__(self) -> int:
        """Reservations that were not found to be over."""
        return len(self._reserved)

    def reserve(self, peer: PeerId, host: str, now: float) -> bool:
        """Give or renew a reservation; whether there was room for it."""
        config = self._config
        self.release(peer)
        if len(self._reserved) >= config.reservations:
            self.sweep(now)
        if len(self._reserved) >= config.reservations:
            return False
        if scope_of(host) is Scope.GLOBAL and (
            self._held[host] >= config.per_ip or self._held[subnet_of(host)] >= config.per_subnet
        ):
            return False
        self._reserved[peer] = Reservation(host, now + config.reservation_s)
        for key in _places(host):
            self._held[key] += 1
        return True

    def is_reserved(self, peer: PeerId, now: float) -> bool:
        """Whether connections to a peer may be made."""
        reservation = self._reserved.get(peer)
        return reservation is not None and now < reservation.expires

    def sweep(self, now: float) -> list[PeerId]:
        """Forget reservations that have expired; whose."""
        over = [peer for peer, reservation in self._reserved.items() if now >= reservation.expires]
        for peer in over:
            self.release(peer)
        return over

    def release(self, peer: PeerId) -> bool:
        """A peer has left; whether it had a reservation."""
        reservation = self._reserved.pop(peer, None)
        if reservation is None:
            return False
        for key in _places(reservation.host):
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]
        return True

    def admits(self, peer: PeerId, now: float) -> bool:
        """Whether a peer may ask for another circuit already."""
        return self._connects.admits(peer, now)

    def connect(self, source: PeerId, target: PeerId) -> bool:
        """Take in a circuit; whether there was room for it. Undone by one `disconnect`."""
        most = self._config.circuits_per_peer
        if (
            self.circuits >= self._config.circuits
            or self._circuits[source] >= most
            or self._circuits[target] >= most
        ):
            return False
        self.circuits += 1
        self._circuits[source] += 1
        self._circuits[target] += 1
        return True

    def disconnect(self, source: PeerId, target: PeerId) -> None:
        """A circuit is over."""
        self.circuits -= 1
        for peer in (source, target):
            self._circuits[peer] -= 1
            if not self._circuits[peer]:
                del self._circuits[peer]


class Pace:
    """Keeps all circuits together at a rate. per_s: bytes; 0 for no limit."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._paid_until = 0.0  # what was passed on takes until then

    def spend(self, size: int, now: float) -> float:
        """So many bytes were passed on; how long to wait before the next ones, in s. What is a quarter of a second
        ahead, and one read, goes at once."""
        if not self._per_s:
            return 0.0
        self._paid_until = max(self._paid_until, now) + size / self._per_s
        return max(0.0, self._paid_until - now - _AHEAD_S)


def _places(host: str) -> tuple[str, ...]:
    return (host, subnet_of(host)) if scope_of(host) is Scope.GLOBAL else ()
