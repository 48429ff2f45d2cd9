"""What an application asks of the lease engine, and what the engine tells it.

One engine plays both roles: *lender* (gives leases to borrowers, has workers started) and *borrower* (asks
for leases). A lease is named by 16 random bytes that the borrower chose.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from ..identity import PeerId

LeaseId = bytes

JAIL: Final = "jail"
"""Isolation: the worker runs in a jail and reaches nothing but its cluster."""

NO_ISOLATION: Final = "none"
"""Isolation: the worker runs with the rights of the lender's account."""

ISOLATIONS: Final = (JAIL, NO_ISOLATION)


@dataclass(frozen=True, slots=True)
class Versions:
    """What must match between a head and its workers: Ray exactly, Python in major.minor."""

    ray: str
    python: str
    swarmp2p: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What a lender is ready to lend.

    cpus, gpus: counts for Ray, for all leases together: each gets of them what its Need asks for. memory_bytes: the
    same, 0 leaves it to Ray. kind: a provider kind of providers.py. region: free text for searching. max_leases:
    leases at a time, of whatever is left. node_ip: the address that
    the worker's Ray node listens on and is reached at. labels: extra Ray node labels. isolation: JAIL or NO_ISOLATION.
    """

    cpus: float = 1
    gpus: float = 0
    memory_bytes: int = 0
    kind: str = "individual"
    region: str = ""
    max_leases: int = 1
    node_ip: str = "127.0.0.1"
    labels: tuple[tuple[str, str], ...] = ()
    isolation: str = JAIL


@dataclass(frozen=True, slots=True)
class Need:
    """What a borrower asks of each worker. cpus, gpus, memory_bytes: at least. kind, region: "" for any. labels: that
    the offer must have, all of them: at most messages.MAX_LABELS, of messages.MAX_NAME_CHARS characters each."""

    cpus: float = 1
    gpus: float = 0
    memory_bytes: int = 0
    kind: str = ""
    region: str = ""
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class JoinSecret:
    """What a worker needs to join a head. It travels sealed to the lender's key, and `token` is not shown.

    address: host:port of the head's GCS.
    """

    address: str
    token: str = field(repr=False)


class Role(Enum):
    """Which side of a lease this peer is."""

    LENDER = "lender"
    BORROWER = "borrower"


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """What a side must still know of a lease after a crash. Written whole; the newest of a lease counts.

    state: GivenState or TakenState by its value. agreement: what the lender signed; b"" before it did. need: what the
    worker gets. sequence: above that of every renewal sent so far is whatever follows it after a restart. until: end
    of the term when this was written, seconds as `now`; renewals move it and are not written down. gang: of a
    borrower's lease, until all of its gang are active: none of those is resumed. request, proof: what the borrower
    signed (signed_lease.py).
    """

    lease: LeaseId
    role: Role
    peer: PeerId
    cluster: str
    need: Need
    state: str
    agreement: bytes = field(default=b"", repr=False)
    sequence: int = 0
    until: float = 0.0
    gang: bytes = b""
    request: bytes = field(default=b"", repr=False)
    proof: bytes = field(default=b"", repr=False)


# Commands ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lend:
    """Start lending, or change what is lent and to whom. Leases that stand are kept, whatever it says.

    allow: peers that may lease; None for everybody. grantors: owners' keys, whose grants count as well.
    """

    offer: Offer
    versions: Versions
    allow: frozenset[PeerId] | None
    grantors: frozenset[PeerId] = frozenset()


@dataclass(frozen=True, slots=True)
class StopLending:
    """Refuse further requests and end the leases given."""

    reason: str = "the lender stopped lending"


@dataclass(frozen=True, slots=True)
class RequestLease:
    """Ask one provider for a worker. Ends in LeaseRefusal, or LeaseEnded once it was granted.

    gang: 16 bytes that several requests share, of which all are to be given or none: once the provider has set the
    worker aside (LeaseHeld), it waits for CommitGang; b"" for a lease by itself. grants: a chain of permissions, the
    owner's first (grants.py). queue_s: how long to wait in the provider's queue when it is full, in seconds; 0 to be
    refused at once.
    """

    lease: LeaseId
    provider: PeerId
    need: Need
    versions: Versions
    secret: JoinSecret
    cluster: str
    gang: bytes = b""
    grants: tuple[bytes, ...] = field(default=(), repr=False)
    queue_s: float = 0.0


@dataclass(frozen=True, slots=True)
class CommitGang:
    """Borrower: take all that is held for a gang, and take back what else was asked for it. From here on, until all
    of them are active, the end of one is the end of all."""

    gang: bytes


@dataclass(frozen=True, slots=True)
class EndLease:
    """End a lease, from either side; the other side is told. Nothing happens when it is over already."""

    lease: LeaseId
    reason: str


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Lender: the owner wants the machine back. The borrower is told now, and the lease ends after the notice.

    lease: None for all of them; then nothing more is lent either, until the next Lend. notice_s: seconds; 0 ends at
    once. A second notice can only bring the end nearer.
    """

    lease: LeaseId | None
    notice_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Revoke:
    """Lender: permissions are no longer valid; the leases that rest on them end at once.

    grants: ids of grants, of any link of a chain. borrowers: whose leases end, whatever they rest on.
    """

    grants: frozenset[bytes] = frozenset()
    borrowers: frozenset[PeerId] = frozenset()
    reason: str = "its permission was revoked"


@dataclass(frozen=True, slots=True)
class LearnRevocations:
    """Lender: an owner's list of what it has revoked (revocations.py), wherever it came from. One that is not newer, or
    not signed by that owner, changes nothing; else leases that it voids end at once, and it is heeded from now on."""

    owner: PeerId
    envelope: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RestoreLeases:
    """What the journals of both roles hold when a peer starts again; the first command, before Lend.

    A lender tells the borrowers that those leases are over (their workers died with it, or the driver ended them
    before). A borrower releases them, or, with `resume`, renews those that were granted: LeaseGranted and LeaseActive
    come again for each that its lender still gives, LeaseRefusal for the others.
    """

    records: tuple[JournalRecord, ...]
    resume: bool = False


@dataclass(frozen=True, slots=True)
class PathUp:
    """The traffic path of a lease stands (answer to OpenPath)."""

    lease: LeaseId


@dataclass(frozen=True, slots=True)
class PathFailed:
    """The traffic path of a lease could not be made, or broke."""

    lease: LeaseId
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """The lease's Ray worker has joined (answer to StartWorker).

    node_ip: where it listens; "" for the offer's. ports: first and count of those it may listen at; (0, 0) for any.
    """

    lease: LeaseId
    node_ip: str = ""
    ports: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """The lease's Ray worker did not start, or died."""

    lease: LeaseId
    reason: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """A peer is suspected to be gone, by its silence elsewhere: ask it now, for each lease that it gives this one.

    A suspicion alone ends no lease: what does is that the lender itself does not answer.
    """

    peer: PeerId


LeaseCommand = (
    Lend
    | StopLending
    | RequestLease
    | CommitGang
    | EndLease
    | TakeBack
    | Revoke
    | LearnRevocations
    | RestoreLeases
    | PathUp
    | PathFailed
    | WorkerStarted
    | WorkerFailed
    | Doubt
)

# Outputs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenPath:
    """Make traffic possible between the two sides; answer with PathUp or PathFailed."""

    lease: LeaseId
    peer: PeerId
    role: Role


@dataclass(frozen=True, slots=True)
class ClosePath:
    """Take down what OpenPath made. Comes exactly once after each OpenPath."""

    lease: LeaseId


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Lender: start the lease's worker; answer with WorkerStarted or WorkerFailed."""

    lease: LeaseId
    borrower: PeerId
    secret: JoinSecret
    need: Need


@dataclass(frozen=True, slots=True)
class StopWorker:
    """Lender: stop the lease's worker, whatever state it is in. Comes exactly once after each StartWorker."""

    lease: LeaseId
    reason: str


@dataclass(frozen=True, slots=True)
class LeaseGranted:
    """The provider agreed; the worker is being started. expires: seconds as `now`.

    agreement: what the lender signed (auth.read_agreement), to be shown to others. need: what the worker gets.
    """

    lease: LeaseId
    role: Role
    peer: PeerId
    expires: float
    agreement: bytes = field(default=b"", repr=False)
    need: Need = Need()


@dataclass(frozen=True, slots=True)
class LeaseActive:
    """The worker runs and has joined the head. node_ip: where its Ray node listens. isolation: JAIL or NO_ISOLATION, as
    the lender signed it."""

    lease: LeaseId
    role: Role
    peer: PeerId
    node_ip: str
    isolation: str = NO_ISOLATION


@dataclass(frozen=True, slots=True)
class LeaseHeld:
    """Borrower: the provider has set the worker aside, and waits for CommitGang: a few seconds, then it is refused."""

    lease: LeaseId
    peer: PeerId


@dataclass(frozen=True, slots=True)
class LeaseQueued:
    """Borrower: the provider is full, and will answer when it has room. position: from 1; told when it changes."""

    lease: LeaseId
    peer: PeerId
    position: int


@dataclass(frozen=True, slots=True)
class LeaseNotice:
    """The lease will be ended by its lender at `ends` (seconds as `now`), whatever is renewed. Comes again only when
    the end comes nearer."""

    lease: LeaseId
    role: Role
    peer: PeerId
    ends: float
    reason: str


@dataclass(frozen=True, slots=True)
class LeaseSilent:
    """Borrower: the lender of an active lease has not answered for about a second (`probes` messages), and the lease
    may be about to end; or, with `silent` False, it has answered again."""

    lease: LeaseId
    peer: PeerId
    silent: bool


@dataclass(frozen=True, slots=True)
class Journal:
    """Write this down before the outputs after it are acted upon; None: the lease is over, forget it. All of one call
    of `handle` belong together: in one transaction."""

    lease: LeaseId
    record: JournalRecord | None


@dataclass(frozen=True, slots=True)
class LeaseRefusal:
    """Borrower: the provider declined, or could not be reached, before the lease was granted."""

    lease: LeaseId
    provider: PeerId
    reason: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class LeaseEnded:
    """A granted lease is over, on this side; exactly once a lease."""

    lease: LeaseId
    role: Role
    peer: PeerId
    reason: str


LeaseOutput = (
    OpenPath
    | ClosePath
    | StartWorker
    | StopWorker
    | LeaseGranted
    | LeaseActive
    | LeaseHeld
    | LeaseQueued
    | LeaseNotice
    | LeaseSilent
    | LeaseRefusal
    | LeaseEnded
    | Journal
)
