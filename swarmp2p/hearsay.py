"""What is believed of the addresses that a peer names in its answers.

A liar can name anybody at any address, and whoever believes it dials: so one answer must not turn into many dials, nor
into dials inside the asker's own network. Of each peer that is named, at most three addresses count, no names (a
resolver would be asked for each), and from a peer at a public address no private ones: it cannot know them to work
here. In a private network, where everybody is at a private address, those count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from .engine import Address, PeerInfo

MAX_ADDRESSES: Final = 3
"""Of one peer that others name: IPv4, IPv6 and one more."""

# Codes of the multiaddr table (multiformats/multiaddr, protocols.csv); each is one byte as a varint.
_IP4, _IP6 = 0x04, 0x29
_NAMES = frozenset((0x35, 0x36, 0x37, 0x38))  # dns, dns4, dns6, dnsaddr


@lru_cache(maxsize=8_192)
def is_public(address: Address) -> bool | None:
    """Whether a multiaddr begins with a public IP address; None when it begins with no IP address."""
    if not address:
        return None
    code, rest = address[0], address[1:]
    if code == _IP4 and len(rest) >= 4:
        return IPv4Address(rest[:4]).is_global
    if code == _IP6 and len(rest) >= 16:
        ip = IPv6Address(rest[:16])
        return ip.is_global if ip.ipv4_mapped is None else ip.ipv4_mapped.is_global
    return None


def believable(named: Iterable[PeerInfo], teller: Sequence[Address]) -> list[PeerInfo]:
    """Of the peers that somebody names, those that remain with an address. teller: where that peer is dialled."""
    from_public = any(is_public(address) for address in teller)
    found: list[PeerInfo] = []
    for info in named:
        addresses = info.addresses
        kept = [address for address in addresses if _counts(address, from_public)][:MAX_ADDRESSES]
        if kept:
            found.append(info if len(kept) == len(addresses) else PeerInfo(info.peer, tuple(kept)))
    return found


def _counts(address: Address, from_public: bool) -> bool:
    if not address or address[0] in _NAMES:
        return False
    return not from_public or is_public(address) is not False
