"""Which network a peer lives in, so that nobody fills a bucket from one subnet.

An eclipse needs many ids close together; ids are cheap, networks are not. Only public addresses are counted:
machines of one lab, and tests on loopback, are meant to share a subnet. A peer with several addresses counts in each
subnet, and enters only when all of them have room. A relayed address counts as the relay's: whoever cannot be dialled
itself lives where its relays do.

What counts is what peers say of themselves. One that makes its addresses up is found out when it is dialled: when
its own connection has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from ..engine import Address

# Codes and sizes of the multiaddr table (multiformats/multiaddr, protocols.csv); both are one byte as
# varints.
_IP4 = 0x04
_IP6 = 0x29
_NAT64 = IPv6Address("64:ff9b::").packed[:12]  # RFC 6052: an IPv4 address follows
_PREFIX_BYTES = {_IP4: 3, _IP6: 6}  # /24 and /48


def address_groups(addresses: Sequence[Address]) -> tuple[bytes, ...]:
    """The public subnets that some addresses lie in, each once; () for private, loopback and DNS
    addresses."""
    groups = {group: None for address in addresses if (group := _group(address)) is not None}
    return tuple(groups)


@lru_cache(maxsize=8_192)
def _group(address: Address) -> bytes | None:
    """The /24 or /48 at the beginning of a binary multiaddr, or None. Looks no further than the first
    component: of a relayed address that is the relay's."""
    if not address:
        return None
    code, rest = address[0], address[1:]
    if code == _IP4 and len(rest) >= 4:
        public = IPv4Address(rest[:4]).is_global
    elif code == _IP6 and len(rest) >= 16:
        ip = IPv6Address(rest[:16])
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and rest.startswith(_NAT64):
            inner = IPv4Address(rest[12:16])
        if inner is not None:  # one IPv4 address is a whole /48 of 6to4
            return _group(bytes([_IP4]) + inner.packed)
        public = ip.is_global
    else:
        return None
    return address[: 1 + _PREFIX_BYTES[code]] if public else None


def has_room(groups: Sequence[bytes], others: Iterable[Sequence[bytes]], limit: int) -> bool:
    """Whether, of peers in `others`, each of some groups has fewer than `limit`."""
    if not groups:
        return True
    counted = dict.fromkeys(groups, 0)
    for other in others:
        for group in other:
            if group in counted:
                counted[group] += 1
    return max(counted.values()) < limit


class GroupCount:
    """How many peers there are of each group, for a limit on them."""

    __slots__ = ("_counts", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: dict[bytes, int] = {}

    def has_room(self, groups: Sequence[bytes]) -> bool:
        """Whether one more peer of these groups is within the limit."""
        return all(self._counts.get(group, 0) < self._limit for group in groups)

    def add(self, groups: Sequence[bytes]) -> None:
        """One peer more."""
        for group in groups:
            self._counts[group] = self._counts.get(group, 0) + 1

    def remove(self, groups: Sequence[bytes]) -> None:
        """One of them is gone."""
        for group in groups:
            self._counts[group] -= 1
            if not self._counts[group]:
                del self._counts[group]
