"""What an application asks of the lease engine, and what the engine tells it.

One engine plays both roles: *lender* (gives leases to borrowers, has workers started) and *borrower* (asks
for leases). A lease is named by 16 random bytes that the borrower chose.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ..identity import PeerId

LeaseId = bytes


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
    the worker's Ray node listens on and is reached at. labels: extra Ray node labels.
    """

    cpus: float = 1
    gpus: float = 0
    memory_bytes: int = 0
    kind: str = "individual"
    region: str = ""
    max_leases: int = 1
    node_ip: str = "127.0.0.1"
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Need:
    """What a borrower asks of each worker. cpus, gpus, memory_bytes: at least. kind, region: "" for any."""

    cpus: float = 1
    gpus: float = 0
    memory_bytes: int = 0
    kind: str = ""
    region: str = ""


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


# Commands ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lend:
    """Start lending, or change what is lent and to whom. Leases that stand are kept, whatever it says.

    allow: peers that may lease; None for everybody.
    """

    offer: Offer
    versions: Versions
    allow: frozenset[PeerId] | None


@dataclass(frozen=True, slots=True)
class StopLending:
    """Refuse further requests and end the leases given."""

    reason: str = "the lender stopped lending"


@dataclass(frozen=True, slots=True)
class RequestLease:
    """Ask one provider for a worker. Ends in LeaseActive, LeaseRefused or LeaseEnded."""

    lease: LeaseId
    provider: PeerId
    need: Need
    versions: Versions
    secret: JoinSecret
    cluster: str


@dataclass(frozen=True, slots=True)
class EndLease:
    """End a lease, from either side; the other side is told. Nothing happens when it is over already."""

    lease: LeaseId
    reason: str


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
    """The lease's Ray worker has joined (answer to StartWorker)."""

    lease: LeaseId


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
    Lend | StopLending | RequestLease | EndLease | PathUp | PathFailed | WorkerStarted | WorkerFailed | Doubt
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

    grant: what the lender signed (auth.read_grant), to be shown to others. need: what the worker gets.
    """

    lease: LeaseId
    role: Role
    peer: PeerId
    expires: float
    grant: bytes = field(default=b"", repr=False)
    need: Need = Need()


@dataclass(frozen=True, slots=True)
class LeaseActive:
    """The worker runs and has joined the head. node_ip: where its Ray node listens."""

    lease: LeaseId
    role: Role
    peer: PeerId
    node_ip: str


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
    OpenPath | ClosePath | StartWorker | StopWorker | LeaseGranted | LeaseActive | LeaseRefusal | LeaseEnded
)
