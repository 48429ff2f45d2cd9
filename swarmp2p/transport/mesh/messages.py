"""What the members of a cluster tell each other. All of it goes over the head; wire.py turns it into bytes.

    head                     worker
      | Invite ---------------> |   a lease of ours: this is the cluster, and these are my facts
      | <---------------- Join  |   my facts
      | Update ---------------> |   who is a member, in the head's order of changes; sent until it is
      | <--------------- Heard  |   acknowledged
      | <-- Pairing, Pairing -> |   of two members, signed by one for the other; the head passes on

`Heard` of change 0 says that the worker waits to be invited. Nothing says good-bye: a membership ends with its lease.
Each carries the id of the lease that it travels under: both ends of that lease, and they alone, are listened to about
it. Each may be lost, repeated or late.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from ...engine import Message
from ...identity import PeerId
from .members import MemberId, PortBlock

MAX_ENTRIES: Final = 24
"""Members in one Update: with facts at their longest, 100 kB."""

MAX_DEPARTED: Final = 256
MAX_PAIRING_BYTES: Final = 512
"""Longest signed statement of a pairing: about twice what one takes."""


@dataclass(frozen=True, slots=True)
class MeshMessage(Message):
    """Base of all. lease: which a worker holds from the head."""

    protocol: ClassVar[str] = "mesh"
    lease: MemberId


@dataclass(frozen=True, slots=True)
class Invite(MeshMessage):
    """Head: the lease's worker belongs to this cluster. facts: the head's, signed."""

    cluster: MemberId
    facts: bytes


@dataclass(frozen=True, slots=True)
class Join(MeshMessage):
    """Worker: its facts, signed; again whenever they change, until an Update shows that they arrived."""

    facts: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """A member, as the head placed it. facts: as the member signed them."""

    member: MemberId
    peer: PeerId
    host: int
    address: str
    block: PortBlock
    facts: bytes


@dataclass(frozen=True, slots=True)
class Update(MeshMessage):
    """Head: what changed after its change number `base`, up to number `upto`; each member only as it is now.

    entries: members that joined or changed, at most MAX_ENTRIES. departed: members that left, at most MAX_DEPARTED.
    """

    base: int
    upto: int
    entries: tuple[Entry, ...]
    departed: tuple[MemberId, ...]


@dataclass(frozen=True, slots=True)
class Heard(MeshMessage):
    """Worker: has taken all changes up to number `upto`."""

    upto: int


@dataclass(frozen=True, slots=True)
class Pairing(MeshMessage):
    """What member `source` says to member `target`; the head passes it on. envelope: see pairing.py."""

    source: MemberId
    target: MemberId
    envelope: bytes


AnyMeshMessage = Invite | Join | Update | Heard | Pairing
