"""What the two sides of a lease tell each other. wire.py turns these into bytes; lease.py says when.

    borrower                lender
       | LeaseRequest -------> |   may I have a worker?
       | <--------- Challenge  |   prove that you are this key, now
       | Proof --------------> |   signed; carries the join secret, sealed to the lender
       | <------------- Grant  |   signed; the worker is being started
       | <----------- Started  |   it has joined
       | Renew --------------> |   again and again, while the lease is used
       | <----------- Renewed  |

`Refuse` answers a request or a proof; `Release` ends a lease from either side. Every message carries the
16-byte id of its lease, may be lost, repeated or late, and is harmless when it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from ..engine import Message
from .events import LeaseId, Need, Versions

LEASE_ID_BYTES: Final = 16
NONCE_BYTES: Final = 32
MAX_ENVELOPE_BYTES: Final = 4096
"""Longest signed proof or grant: about four times what one with every field at its longest needs."""

MAX_REASON_CHARS: Final = 500
MAX_NAME_CHARS: Final = 64
MAX_COUNT: Final = 1e6
MAX_MEMORY_BYTES: Final = 1 << 50
MAX_SEQUENCE: Final = 1 << 53
MAX_LEASE_S: Final = 86_400.0
"""Longest term between two renewals, in seconds; whatever a lender says, silence ends a lease within it."""

MIN_LEASE_S: Final = 1.0
MAX_RETRY_S: Final = 86_400.0


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
    """Borrower: asks for one worker. cluster: the borrower's name for what the worker joins."""

    need: Need
    versions: Versions
    cluster: str


@dataclass(frozen=True, slots=True)
class Challenge(LeaseMessage):
    """Lender: what was asked for is set aside until the borrower signs this. nonce: 32 fresh bytes."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class Proof(LeaseMessage):
    """Borrower: the signed answer to a challenge. envelope: see auth.py."""

    envelope: bytes


@dataclass(frozen=True, slots=True)
class Grant(LeaseMessage):
    """Lender: agreed. envelope: the terms under the lender's signature; see auth.py."""

    envelope: bytes


@dataclass(frozen=True, slots=True)
class Refuse(LeaseMessage):
    """Lender: no. Nothing is set aside. retry_after_s: None when asking again will not help."""

    reason: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class Started(LeaseMessage):
    """Lender: the worker has joined the head."""


@dataclass(frozen=True, slots=True)
class Renew(LeaseMessage):
    """Borrower: still used. sequence: grows by one when the last one was answered; repeated until then."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Renewed(LeaseMessage):
    """Lender: the lease stands for `lease_s` seconds more. sequence: of the Renew.

    started: whether the worker has joined, in case `Started` was lost.
    """

    sequence: int
    lease_s: float
    started: bool


@dataclass(frozen=True, slots=True)
class Release(LeaseMessage):
    """Either side: the lease is over, or was never known here. Never answered, so it cannot go in circles."""

    reason: str


AnyLeaseMessage = LeaseRequest | Challenge | Proof | Grant | Refuse | Started | Renew | Renewed | Release
