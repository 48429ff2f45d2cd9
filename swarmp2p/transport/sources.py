"""How much may come from one place: connections that came in, and those being made, by IP address and by subnet.

Identities cost nothing, addresses of the internet do. Loopback and private addresses are not limited here: a LAN, a
carrier's NAT inside of which peers see each other, or many peers on one machine are no attack. Pure.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import Final

from ..rates import Rates
from .config import HostConfig
from .reachability import Scope, scope_of

_MAX_RATES: Final = 4_096  # subnets whose rate is remembered; the one heard of least lately is forgotten


def subnet_of(host: str) -> str:
    """The /24 (IPv4) or /48 (IPv6) of an address: what one party usually has."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return str(ipaddress.ip_network((ip, 24 if ip.version == 4 else 48), strict=False))


class Sources:
    """Who is where. Each `admit` that returned True is undone by one `release`."""

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        self._held = Counter[str]()
        self._rates = Rates[str](config.subnet_per_s, config.subnet_burst, _MAX_RATES)

    def __len__(self) -> int:
        return len(self._held)

    def admit(self, host: str, now: float) -> bool:
        """Whether a connection from this address may be made; it is counted then."""
        if scope_of(host) is not Scope.GLOBAL:
            return True
        config, subnet = self._config, subnet_of(host)
        if self._held[host] >= config.max_per_ip or self._held[subnet] >= config.max_per_subnet:
            return False
        if not self._rates.admits(subnet, now):
            return False
        self._held[host] += 1
        self._held[subnet] += 1
        return True

    def release(self, host: str) -> None:
        """A connection from this address is over, or was not made."""
        if scope_of(host) is Scope.GLOBAL:
            for key in (host, subnet_of(host)):
                self._held[key] -= 1
                if self._held[key] <= 0:
                    del self._held[key]
