"""What an application asks of the mesh engine, and what the engine tells it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...identity import PeerId
from .allocation import Place
from .members import Facts, MemberId, Roster
from .plan import MachinePlan

# Commands ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Permit:
    """A lease stands between this peer and another, so that both may be members of one cluster. lender: this peer
    lends. NodeEngine says it when the lease engine opens a path; nobody is admitted without."""

    lease: MemberId
    peer: PeerId
    lender: bool


@dataclass(frozen=True, slots=True)
class Forbid:
    """The lease is over, and so is the membership. NodeEngine says it when the lease engine closes the path."""

    lease: MemberId


@dataclass(frozen=True, slots=True)
class OpenMesh:
    """Head: a cluster begins. cluster: 16 random bytes, never used again. place: the head's. facts: the head's.

    changes: how many there may have been already, when this peer led the cluster before and has forgotten."""

    cluster: MemberId
    place: Place
    facts: Facts
    changes: int = 0


@dataclass(frozen=True, slots=True)
class CloseMesh:
    """Head: the cluster is over. Leases end by themselves."""

    cluster: MemberId


@dataclass(frozen=True, slots=True)
class Admit:
    """Head: the worker of a permitted lease belongs to a cluster, at this place."""

    cluster: MemberId
    lease: MemberId
    place: Place


@dataclass(frozen=True, slots=True)
class TellFacts:
    """What a member says of itself: a worker's answer to `Invited`, and both roles' whenever something changes.

    Carriers, machine, address, WireGuard key and whether it is reachable stay as they were told first.
    `Facts.sequence` is filled in.
    """

    member: MemberId
    facts: Facts


@dataclass(frozen=True, slots=True)
class PairAgain:
    """A session was silent too long: agree on a new secret with `target`, and answer with `Paired`."""

    member: MemberId
    target: MemberId


MeshCommand = Permit | Forbid | OpenMesh | CloseMesh | Admit | TellFacts | PairAgain

# Outputs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Invited:
    """Worker: which cluster a lease belongs to, and what its head says of itself. Answer with TellFacts, once what it
    takes to be a member is there. Comes once a lease."""

    lease: MemberId
    cluster: MemberId
    head: PeerId
    facts: Facts


@dataclass(frozen=True, slots=True)
class Planned:
    """What this machine needs for its membership has changed (plan.changes says how). A worker's first names its own
    address and ports in `roster`."""

    member: MemberId
    roster: Roster
    plan: MachinePlan


@dataclass(frozen=True, slots=True)
class Paired:
    """A new secret, 32 bytes, with another member: the session has to begin anew with it. round: grows."""

    member: MemberId
    target: MemberId
    secret: bytes = field(repr=False)
    initiator: bool
    round: int


@dataclass(frozen=True, slots=True)
class MeshFailed:
    """A lease's worker cannot be a member; said once, on the side that found out. unsupported: because the other peer
    does not speak the mesh's protocol, so that only a direct path is left. lease: a cluster's id where OpenMesh or its
    TellFacts could not be followed; nothing has changed then."""

    lease: MemberId
    reason: str
    unsupported: bool = False


MeshOutput = Invited | Planned | Paired | MeshFailed
