"""Members of a cluster, and what each says of itself.

A *member* is the cluster's head (its member id is the cluster's id) or one leased worker (its member id is the id of
its lease). The head gives each member its address and its block of ports. What a member can and where it is reached
are its *facts*, which it signs for this cluster and this membership: the head passes them on and cannot alter them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from ...engine import Address
from ...identity import PeerId

MEMBER_ID_BYTES: Final = 16
MACHINE_BYTES: Final = 32
WIREGUARD_KEY_BYTES: Final = 32
MAX_ENDPOINTS: Final = 6
MAX_ADDRESSES: Final = 6
MAX_ADDRESS_BYTES: Final = 200
"""Of one libp2p address: one with a relay's peer id and two host names is about 150 bytes."""

MAX_WHY_CHARS: Final = 100
MAX_IP_CHARS: Final = 45
HEAD_ADDRESS: Final = "127.0.0.1"
"""Where a head listens: Ray's processes then listen on localhost alone, and nobody outside the machine reaches them."""

HEAD_HOST: Final = 1
MAX_HOST: Final = 0xFFFE

MemberId = bytes


class Carrier(Enum):
    """How the traffic of two members goes."""

    DIRECT = "direct"
    """Plain TCP, within one machine and one network namespace."""

    WIREGUARD = "wireguard"
    """Through a WireGuard interface, kernel or user space: both sides need the right to make one."""

    OVERLAY = "overlay"
    """Through this package's sessions: needs no rights."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where TCP (the overlay's carrier connections) or UDP (WireGuard) is taken. ip: without a zone."""

    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class PortBlock:
    """`count` ports from `first` on."""

    first: int
    count: int

    @property
    def ports(self) -> range:
        return range(self.first, self.first + self.count)

    def overlaps(self, other: PortBlock) -> bool:
        return self.first < other.first + other.count and other.first < self.first + self.count


@dataclass(frozen=True, slots=True)
class Facts:
    """What a member says of itself.

    sequence: newer facts of a member have a higher one. carriers: what it can and allows. lacks: why it does not have
    the others, for people. endpoints: where it takes carrier connections. reachable: whether others can dial it there,
    as far as it knows. addresses: where its peer can be dialled by libp2p. machine: the same bytes for two members on
    one machine and in one network namespace, empty when it does not tell. address: where its Ray node listens when the
    path to the head is direct; "" for where the head says. wireguard_key: public. wireguard_endpoints: where it takes
    WireGuard's packets; none when nobody can send to it first.
    """

    sequence: int = 0
    carriers: tuple[Carrier, ...] = (Carrier.OVERLAY,)
    lacks: tuple[tuple[Carrier, str], ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    reachable: bool = True
    addresses: tuple[Address, ...] = ()
    machine: bytes = b""
    address: str = ""
    wireguard_key: bytes = b""
    wireguard_endpoints: tuple[Endpoint, ...] = ()

    def why_not(self, carrier: Carrier) -> str:
        """Why this member does not have a carrier, in words."""
        return dict(self.lacks).get(carrier, "it does not allow it")


@dataclass(frozen=True, slots=True)
class Member:
    """One member, as the head placed it.

    address: where its Ray node is reached by every other member. host: 16-bit number that its addresses are made
    from. block: the only ports that can be asked of it. envelope: its facts as it signed them, for others.
    """

    member: MemberId
    peer: PeerId
    host: int
    address: str
    block: PortBlock
    facts: Facts
    envelope: bytes = field(default=b"", repr=False)

    @property
    def wireguard_address(self) -> str:
        """Its address on WireGuard interfaces."""
        return wireguard_address(self.host)


@dataclass(frozen=True, slots=True)
class Roster:
    """All members of a cluster, as its head says.

    cluster: its id, and the head's member id. head: the head's peer. sequence: of the head's last change.
    members: by member id, ascending; the head is one of them.
    """

    cluster: MemberId
    head: PeerId
    sequence: int
    members: tuple[Member, ...]

    def get(self, member: MemberId) -> Member | None:
        """A member by its id."""
        return next((each for each in self.members if each.member == member), None)


def overlay_address(host: int) -> str:
    """The loopback address that stands for a worker: 127.64.x.y."""
    return f"127.64.{host >> 8}.{host & 255}"


def wireguard_address(host: int) -> str:
    """The address on a WireGuard interface: 100.66.x.y, of the range for carriers' own use (RFC 6598)."""
    return f"100.66.{host >> 8}.{host & 255}"


def roster(cluster: MemberId, head: PeerId, sequence: int, members: Iterable[Member]) -> Roster:
    """A roster with its members in order."""
    return Roster(cluster, head, sequence, tuple(sorted(members, key=lambda each: each.member)))
