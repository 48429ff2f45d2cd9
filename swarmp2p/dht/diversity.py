"""Which network a peer lives in, so that nobody fills a bucket from one subnet.

An eclipse needs many ids close together; ids are cheap, networks are not. Only public addresses are counted:
machines of one lab, and tests on loopback, are meant to share a subnet.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from ..engine import Address

# Codes and sizes of the multiaddr table (multiformats/multiaddr, protocols.csv); both are one byte as
# varints.
_IP4 = 0x04
_IP6 = 0x29
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
        if ip.ipv4_mapped is not None:
            return _group(bytes([_IP4]) + ip.ipv4_mapped.packed)
        public = ip.is_global
    else:
        return None
    return address[: 1 + _PREFIX_BYTES[code]] if public else None
