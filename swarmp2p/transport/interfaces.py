"""This machine's network interfaces: which addresses a listener has."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from multiaddr.utils import get_network_addrs

from ..engine import Address
from .addresses import to_multiaddr


def reachable(bound: Sequence[tuple[str, int]]) -> tuple[Address, ...]:
    """Where others can dial listeners: a listener on all interfaces is reached at each interface's address.

    Loopback addresses come last: they help on this machine only.
    """
    found: dict[Address, bool] = {}
    for host, port in bound:
        ip = ipaddress.ip_address(host)
        hosts = [host]
        if ip.is_unspecified:
            hosts = (
                [*get_network_addrs(4), "127.0.0.1"] if ip.version == 4 else [*get_network_addrs(6), "::1"]
            )
        for one in hosts:
            this = ipaddress.ip_address(one.partition("%")[0])
            if not this.is_unspecified and not this.is_link_local:
                found[to_multiaddr(str(this), port)] = this.is_loopback
    return tuple(sorted(found, key=found.__getitem__))
