"""Can others dial this peer? Decided from what the transport sees and what other peers tell it.

    listens nowhere                                   no
    the peers that we dialled, and that tried to      what most of them say (AutoNAT)
    dial us back
    unless somebody dialled us not long ago           yes, whatever they say
    otherwise, if somebody dialled us, or if we       yes
    listen, as widely as those whom we dialled are
    away
    otherwise                                         no: listening on 192.168.1.5 only and dialling public
                                                      peers, we are behind a NAT; on 127.0.0.1 only, alone

"Widely" has three steps: this machine, private networks, the internet. So a swarm on one machine or one LAN works
at once and asks nobody; and what a neighbour on the LAN can reach says nothing about the internet.

No I/O here; host.py tells it what happens and autonat.py asks.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, Literal

from ..engine import Address
from ..identity import PeerId
from .addresses import host_and_port, parse_transport

_MAX_VERDICTS: Final = 5  # the newest; more than three have to agree in AutoNAT's specification
_RETRY_S: Final = 90.0  # after nobody had an answer (go-libp2p)
_REFRESH_S: Final = 900.0  # go-libp2p

Status = Literal["unknown", "reachable", "unreachable"]


class Scope(IntEnum):
    """How far an IP address is known."""

    NONE = 0
    MACHINE = 1
    PRIVATE = 2
    GLOBAL = 3


def scope_of(host: str) -> Scope:
    """The scope of an IP address; NONE for what is none, such as a name."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return Scope.NONE
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_loopback:
        return Scope.MACHINE
    return Scope.GLOBAL if ip.is_global else Scope.PRIVATE


class Reachability:
    """What is known of one peer's reachability. addresses: where it listens."""

    def __init__(self, addresses: Iterable[Address]) -> None:
        targets = (parse_transport(address) for address in addresses)
        self._listens = max(
            (scope_of(host_and_port(target)[0]) for target in targets if target is not None),
            default=Scope.NONE,
        )
        self._dialled_by = Scope.NONE
        self._arrivals: dict[Scope, float] = {}  # when somebody dialled us last, by how far away
        self._dialled = Scope.NONE
        self._verdicts: OrderedDict[PeerId, bool] = OrderedDict()
        self._ask_at = math.inf

    @property
    def farthest(self) -> Scope:
        """The scope of the farthest peer that was dialled: those of it are worth asking."""
        return self._dialled

    @property
    def ask_at(self) -> float:
        """When others should be asked next; math.inf for never."""
        return self._ask_at

    @property
    def status(self) -> Status:
        """What others say, or can be told without them; "unknown" while it is a guess."""
        if self._listens is Scope.NONE:
            return "unreachable"
        said = self._majority()
        if said is not None:
            return "reachable" if said else "unreachable"
        if self._dialled is not Scope.NONE and self._dialled_by >= self._dialled:
            return "reachable"
        return "unknown"

    @property
    def reachable(self) -> bool:
        """The best guess now."""
        if self._listens is Scope.NONE:
            return False
        said = self._majority()
        return max(self._listens, self._dialled_by) >= self._dialled if said is None else said

    def dialled(self, host: str, now: float) -> None:
        """We have a connection that we dialled."""
        scope = scope_of(host)
        if scope > self._dialled:
            self._dialled = scope
            self._verdicts.clear()  # of peers less far away
            if scope > Scope.MACHINE and self._listens is not Scope.NONE:
                self._ask_at = now

    def dialled_by(self, host: str, now: float) -> None:
        """Somebody dialled us: a fact, which others cannot talk away."""
        scope = scope_of(host)
        self._dialled_by = max(self._dialled_by, scope)
        self._arrivals[scope] = now
        if scope >= self._dialled:
            for server in [server for server, reached in self._verdicts.items() if not reached]:
                del self._verdicts[server]

    def ask_soon(self, now: float) -> None:
        """There is another address to be tried: others should be asked again, where they are asked at all."""
        if self._ask_at < math.inf and self.status != "reachable":
            self._ask_at = min(self._ask_at, now)

    def asked(self, now: float) -> None:
        """Others were asked; their answers have been told."""
        self._ask_at = now + (_RETRY_S if self._majority() is None else _REFRESH_S)

    def verdict(self, server: PeerId, host: str, reached: bool, now: float) -> None:
        """A peer tried to dial us. host: where it is. That it could not is not believed when somebody else could."""
        arrived = max(
            (when for scope, when in self._arrivals.items() if scope >= self._dialled), default=-math.inf
        )
        if scope_of(host) is self._dialled and (reached or now - arrived > _REFRESH_S):
            self._verdicts[server] = reached
            self._verdicts.move_to_end(server)
            if len(self._verdicts) > _MAX_VERDICTS:
                self._verdicts.popitem(last=False)

    def _majority(self) -> bool | None:
        yes = sum(self._verdicts.values())
        no = len(self._verdicts) - yes
        return None if yes == no else yes > no
