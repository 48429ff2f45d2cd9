"""What the two sides of a lease tell each other. wire.py turns these into bytes; lease.py says when.

    borrower                lender
       | LeaseRequest -------> |   may I have a worker?
       | <------------ Queued  |   only if it is full, and the request may wait
       | <--------- Challenge  |   prove that you are this key, now
       | Proof --------------> |   signed; carries the join secret, sealed to the lender
       | <--------- Agreement  |   signed; the worker is being started
       | <----------- Started  |   it has joined; signed, with where it listens
       | Renew --------------> |   again and again, while the lease is used
       | <----------- Renewed  |
       | <------------ Notice  |   it will end then, whatever is renewed

`Refuse` answers a request or a proof; `Release` ends a lease from either side. Every message carries the
16-byte id of its lease, may be lost, repeated or late, and is harmless when it is.

Two *forms* of these messages exist. The first has none of gangs, grants, queues, labels, notices and signed standing;
peers that know only that one refuse a field that they do not know. The request says its form, and all that is said
about its lease has that form, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from ..engine import Message
from .events import LeaseId, Need, Versions

LEASE_ID_BYTES: Final = 16
NONCE_BYTES: Final = 32
MAX_ENVELOPE_BYTES: Final = 4096
"""Longest signed proof or agreement: nearly three times what one with every field at its longest needs."""

FORM: Final = 2
"""The newest form of the messages; see above."""

GANG_BYTES: Final = 16
MAX_LABELS: Final = 8
MAX_GRANTS: Final = 8
"""Links of a chain of grants."""

MAX_GRANT_BYTES: Final = 1024
"""Longest link of a chain: eight of them, with everything else at its longest, fit into a frame."""

MIN_QUEUE_S: Final = 1e-3
MAX_QUEUE_S: Final = 3600.0
MAX_POSITION: Final = 1 << 16
MAX_REASON_CHARS: Final = 500
MAX_NAME_CHARS: Final = 64
MAX_NODE_IP_CHARS: Final = 45
MAX_COUNT: Final = 1e6
MAX_MEMORY_BYTES: Final = 1 << 50
MAX_SEQUENCE: Final = 1 << 53
MAX_LEASE_S: Final = 86_400.0
"""Longest term between two renewals, in seconds; whatever a lender says, silence ends a lease within it."""

MIN_LEASE_S: Final = 1.0
MAX_RETRY_S: Final = 86_400.0
MAX_NOTICE_S: Final = 86_400.0


def tidy(text: str, most: int = MAX_REASON_CHARS) -> str:
    """A reason as it may be sent: printable, on one line, at most `most` characters."""
    if not text.isprintable():
        text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= most else text[: most - 1] + "…"


@dataclass(frozen=True, slots=True)
class LeaseMessage(Message):
    """Base of all. lease: 16 bytes, chosen at random by the borrower, never used again."""

    protocol: ClassVar[str] = "lease"
    lease: LeaseId


@dataclass(frozen=True, slots=True)
class LeaseRequest(LeaseMessage):
    """Borrower: asks for one worker. cluster: the borrower's name for what the worker joins. gang, grants, queue_s: as
    in RequestLease; not in form 1."""

    need: Need
    versions: Versions
    cluster: str
    gang: bytes = b""
    grants: tuple[bytes, ...] = ()
    queue_s: float = 0.0
    form: int = FORM


@dataclass(frozen=True, slots=True)
class Queued(LeaseMessage):
    """Lender: full now; the request waits. position: in its queue, from 1."""

    position: int


@dataclass(frozen=True, slots=True)
class Challenge(LeaseMessage):
    """Lender: what was asked for is set aside until the borrower signs this. nonce: 32 fresh bytes."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class Proof(LeaseMessage):
    """Borrower: the signed answer to a challenge. envelope: see auth.py."""

    envelope: bytes


@dataclass(frozen=True, slots=True)
class Agreement(LeaseMessage):
    """Lender: agreed. envelope: the terms under the lender's signature; see auth.py."""

    envelope: bytes


@dataclass(frozen=True, slots=True)
class Refuse(LeaseMessage):
    """Lender: no. Nothing is set aside. retry_after_s: None when asking again will not help."""

    reason: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class Started(LeaseMessage):
    """Lender: the worker has joined the head. envelope: what stands (standing.py), signed; b"" in form 1."""

    envelope: bytes = b""


@dataclass(frozen=True, slots=True)
class Renew(LeaseMessage):
    """Borrower: still used. sequence: grows by one when the last one was answered; repeated until then."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Renewed(LeaseMessage):
    """Lender: the lease stands for `lease_s` seconds more. sequence: of the Renew.

    started: whether the worker has joined, in case `Started` was lost. envelope: what stands now, once it has;
        b"" in form 1.
    notice_s, notice: what is left by a notice, in seconds, and its reason, in case `Notice` was lost; None and "" where
        there is none, and in form 1.
    """

    sequence: int
    lease_s: float
    started: bool
    envelope: bytes = b""
    notice_s: float | None = None
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Notice(LeaseMessage):
    """Lender: the lease ends in `left_s` seconds, whatever is renewed. Said once; Renewed repeats it."""

    left_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Release(LeaseMessage):
    """Either side: the lease is over, or was never known here. One that ends a lease is answered by one at its lender;
    one about a lease that does not stand never is, so that none goes in circles."""

    reason: str


AnyLeaseMessage = (
    LeaseRequest
    | Queued
    | Challenge
    | Proof
    | Agreement
    | Refuse
    | Started
    | Renew
    | Renewed
    | Notice
    | Release
)
