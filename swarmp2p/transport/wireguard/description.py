"""What one member's WireGuard interface is to be, and what differs between two lists of its peers. Pure.

Ray's processes know every member by a loopback address: the head is 127.0.0.1, a worker 127.64.x.y. That stays so over
WireGuard, so that a pair's carrier is nobody's business but the pair's. Inside the interface a member has an address of
its own, and address translation at both ends leads from the one to the other:

    here                                      |  the tunnel               |  there
    connect to 127.64.0.7:port of its block --> 100.66.0.3 to 100.66.0.7 --> 127.64.0.7:port

WireGuard itself lets a packet in from a member's own address alone, because that is the only address allowed to its
key; `firewall.py` lets it go on to the own block of ports alone.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ...errors import UsageError
from .keys import KEY_BYTES

INTERFACE_PREFIX: Final = "swarm"
"""What the names of our interfaces begin with."""

INTERFACE_CHARS: Final = 15
"""Linux's longest name of an interface, and the length of ours."""

MAX_PEERS: Final = 1_024
"""Of one interface: more than there are blocks of ports for."""

MTU: Final = 1_420
"""Bytes of a packet inside: 1,500 of Ethernet, less WireGuard's 80 over IPv6 (wg-quick's default too)."""

KEEPALIVE_S: Final = 25
"""WireGuard's own advice for who is behind a NAT; the first packet goes at once and brings the tunnel up."""

_INSIDE: Final = ipaddress.IPv4Network("100.64.0.0/10")
_LOOPBACK: Final = ipaddress.IPv4Network("127.0.0.0/8")


@dataclass(frozen=True, slots=True)
class TunnelPeer:
    """Another member, as one interface knows it.

    key: its WireGuard key. address: inside the tunnel, the only one allowed to that key. alias: the loopback address
    that stands for it on this machine. ports: its block. endpoint: where its packets are sent, IP and UDP port; None
    when it is the one who sends first. keepalive_s: between packets that keep a NAT open; 0 for none.
    """

    key: bytes
    address: str
    alias: str
    ports: range
    endpoint: tuple[str, int] | None = None
    keepalive_s: int = KEEPALIVE_S

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise UsageError(f"a WireGuard key has {KEY_BYTES} bytes, not {len(self.key)}")
        _check_place(self.address, self.alias, self.ports)
        if not 0 <= self.keepalive_s <= 65_535:
            raise UsageError(f"a keepalive is 0 to 65535 seconds, not {self.keepalive_s}")
        if self.endpoint is not None:
            host, port = self.endpoint
            try:
                ipaddress.ip_address(host)
            except ValueError:
                raise UsageError(f"an endpoint is an IP address and a port, not {host!r}") from None
            if not 0 < port < 65_536:
                raise UsageError(f"an endpoint's port is 1 to 65535, not {port}")


@dataclass(frozen=True, slots=True)
class TunnelPlace:
    """This member, as its own interface has it.

    interface: from `interface_name`. address: inside the tunnel. alias, ports: where its Ray node is reached.
    """

    interface: str
    address: str
    alias: str
    ports: range

    def __post_init__(self) -> None:
        if not is_ours(self.interface):
            raise UsageError(
                f"{self.interface!r} is no name of an interface of ours; interface_name() makes one"
            )
        _check_place(self.address, self.alias, self.ports)


@dataclass(frozen=True, slots=True)
class PeerChanges:
    """What turns one list of peers into another: first `remove`, then `add`, both from top to bottom.

    A peer whose address, alias or ports changed is in both. `update`: only its endpoint or keepalive differ.
    """

    remove: tuple[TunnelPeer, ...] = ()
    add: tuple[TunnelPeer, ...] = ()
    update: tuple[TunnelPeer, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.remove or self.add or self.update)


def interface_name(cluster: bytes, member: bytes) -> str:
    """The name of a member's interface: our mark, and 40 bits of a hash, so that two clusters' do not meet."""
    digest = hashlib.sha256(b"swarmp2p interface\0" + cluster + member).hexdigest()
    return INTERFACE_PREFIX + digest[: INTERFACE_CHARS - len(INTERFACE_PREFIX)]


def is_ours(interface: str) -> bool:
    """Whether a name is one that `interface_name` makes."""
    digits = interface.removeprefix(INTERFACE_PREFIX)
    return (
        len(interface) == INTERFACE_CHARS and digits != interface and set(digits) <= set("0123456789abcdef")
    )


def changes(old: Sequence[TunnelPeer], new: Sequence[TunnelPeer]) -> PeerChanges:
    """What has to be done to peers, so that those that stay are not touched.

    An endpoint that is the same in both is left to WireGuard, which follows a peer that moves.
    """
    before = {peer.key: peer for peer in old}
    after = {peer.key: peer for peer in new}
    remove, add, update = list[TunnelPeer](), list[TunnelPeer](), list[TunnelPeer]()
    for key, peer in before.items():
        if key not in after or _place(after[key]) != _place(peer):
            remove.append(peer)
    for key, peer in after.items():
        known = before.get(key)
        if known is None or _place(known) != _place(peer):
            add.append(peer)
        elif known != peer:
            update.append(peer)
    return PeerChanges(tuple(remove), tuple(add), tuple(update))


def check_peers(peers: Sequence[TunnelPeer], own_address: str) -> None:
    """Raises UsageError unless each key and address is one peer's, none of them ours, and they are not too many."""
    if len(peers) > MAX_PEERS:
        raise UsageError(f"{len(peers)} peers of one interface; at most {MAX_PEERS}")
    for what, values in (
        ("key", {peer.key for peer in peers}),
        ("address", {peer.address for peer in peers} - {own_address}),
        ("alias", {peer.alias for peer in peers}),
    ):
        if len(values) != len(peers):
            raise UsageError(f"two members of one tunnel have the same {what}; nothing was changed")


def _place(peer: TunnelPeer) -> tuple[str, str, range]:
    return peer.address, peer.alias, peer.ports


def _check_place(address: str, alias: str, ports: range) -> None:
    try:
        inside, outside = ipaddress.IPv4Address(address), ipaddress.IPv4Address(alias)
    except ValueError:
        raise UsageError(f"{address!r} and {alias!r} are not both IPv4 addresses") from None
    if inside not in _INSIDE:
        raise UsageError(f"an address inside a tunnel is one of {_INSIDE}, not {address}")
    if outside not in _LOOPBACK:
        raise UsageError(f"what stands for a member is one of {_LOOPBACK}, not {alias}")
    if not ports or ports.step != 1 or ports.start < 1 or ports.stop > 65_536:
        raise UsageError(f"a block of ports is a range of some from 1 to 65535, not {ports}")
