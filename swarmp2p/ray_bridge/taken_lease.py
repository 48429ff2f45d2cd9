"""One lease at its borrower: its state, what is sent for it, and its ends."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Final, assert_never

from ..engine import Send
from ..fields import Fields
from ..identity import PeerId
from ..signed import Verify, pack_map
from .auth import LeaseKeys, NotAuthentic, make_proof, read_agreement
from .events import JoinSecret, JournalRecord, LeaseId, Need, RequestLease, Role
from .lease_config import LeaseConfig
from .messages import FORM, MAX_SEQUENCE, LeaseRequest, Proof, Renew
from .signed_lease import SignedLease
from .standing import check_standing
from .wire import read_request, request_fields


class TakenState(Enum):
    """Where a lease stands at its borrower."""

    REQUESTING = "requesting"
    """Asked for; sends LeaseRequest."""

    QUEUED = "queued"
    """The lender is full and lets the request wait; sends LeaseRequest now and then."""

    HELD = "held"
    """Set aside for a gang that is not complete; sends nothing."""

    PROVING = "proving"
    """Challenged; sends Proof."""

    STARTING = "starting"
    """Granted, the worker is being started; sends Renew."""

    ACTIVE = "active"
    """The worker has joined; sends Renew."""

    RESUMING = "resuming"
    """Found in the journal; sends Renew, to find out whether it stands."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a borrower asks, and how long it believes in an answer."""

    config: LeaseConfig
    rng: Random

    def patience_s(self, state: TakenState) -> float:
        """Silence that ends a lease in this state."""
        match state:
            case TakenState.ACTIVE:
                return self.config.silence_s
            case TakenState.STARTING | TakenState.RESUMING:
                return self.config.starting_silence_s
            case TakenState.REQUESTING | TakenState.QUEUED | TakenState.HELD | TakenState.PROVING:
                return self.config.step_timeout_s
            case _:
                assert_never(state)


GRANTED = (TakenState.STARTING, TakenState.ACTIVE)


@dataclass(slots=True)
class TakenLease:
    """A lease or request.

    form: of the messages. request, secret: while it is asked for. nonce: while it is held.
    message: what is sent, again and again, until it is answered; each can be repeated without harm. None
        between an answered renewal and the next one, and while it is held. first_sent: when it was first sent.
        next_send: when it, or the next renewal, is due.
    heard: when the lender last answered. unanswered: how often something was sent since. silent_by: when its
        silence ends the lease, if so much was sent that it counts. downs: how often PeerDown came since. silent:
        whether the application was told that it does not answer.
    expires, start_by, give_up_at: ends that nothing but a renewal, the worker's start, or an answer moves: of the
        term, of the start, of waiting in a queue or for a gang. ends: of a notice; nothing moves it back.
    asked, proven, agreement, standing: what was signed: request and proof by this side, the others by the lender.
    position: in the lender's queue. journaled: whether the journal knows of it.
    """

    lease: LeaseId
    provider: PeerId
    need: Need
    cluster: str
    form: int
    request: LeaseRequest | None
    secret: JoinSecret | None
    message: LeaseRequest | Proof | Renew | None
    first_sent: float
    next_send: float
    heard: float
    silent_by: float
    state: TakenState = TakenState.REQUESTING
    nonce: bytes = b""
    unanswered: int = 0
    silent: bool = False
    downs: int = 0
    position: int = 0
    sequence: int = 0
    asked: bytes = field(default=b"", repr=False)
    proven: bytes = field(default=b"", repr=False)
    agreement: bytes = field(default=b"", repr=False)
    standing: bytes = field(default=b"", repr=False)
    isolation: str = ""
    node_ip: str = ""
    expires: float = math.inf
    start_by: float = math.inf
    give_up_at: float = math.inf
    ends: float = math.inf
    end_reason: str = ""
    journaled: bool = False

    @property
    def last_by(self) -> float:
        """When it is over, whatever is answered."""
        return min(self.expires, self.start_by, self.give_up_at, self.ends)

    def due(self, pace: Pace) -> float:
        """When something is to be sent, or it is over."""
        due = min(self.next_send, self.last_by)
        return min(due, self.silent_by) if self.silence_counts(pace) else due

    def silence_counts(self, pace: Pace) -> bool:
        """Whether so much was sent that no answer means that there will be none."""
        return self.unanswered >= pace.config.probes

    def send(self, pace: Pace, now: float) -> Send:
        """What the state asks for: the unanswered message once more, or the next renewal."""
        if self.message is None and self.state is TakenState.HELD:
            self.message = self.request  # whether it is still held: the same challenge says so
        if self.message is None:
            self.sequence += 1
            self.message, self.first_sent = Renew(self.lease, self.sequence), now
        self.unanswered += 1
        self.next_send = now + pace.config.retry_s
        if self.unanswered == pace.config.probes:
            self.silent_by = max(self.silent_by, self.next_send)  # this one may be answered, too
        return Send(self.provider, self.message)

    def hear(self, pace: Pace, now: float) -> None:
        """The lender answered: all is well for a while."""
        self.heard, self.unanswered, self.downs = now, 0, 0
        self.silent_by = now + pace.patience_s(self.state)
        if self.state is TakenState.HELD:
            self.next_send = math.inf
        elif self.message is None:
            # up to a tenth sooner, so that many leases' renewals do not keep in step
            self.next_send = now + pace.config.renew_interval_s * (1.0 - 0.1 * pace.rng.random())

    def proof(self, nonce: bytes, borrower: PeerId, keys: LeaseKeys, expires: float) -> Proof:
        """The answer to a challenge. Raises UsageError when the lender's id holds no usable key."""
        assert self.request is not None
        assert self.secret is not None
        between = (self.provider, borrower)
        self.asked = pack_map(request_fields(self.request))
        self.proven = make_proof(keys, self.request, nonce, *between, self.secret, expires)
        return Proof(self.lease, self.proven)

    def stands(self, envelope: bytes, peer: PeerId, keys: LeaseKeys) -> bool:
        """Whether the lender signed that the worker runs, and where. Takes over what it signed."""
        try:
            standing = check_standing(keys, envelope, self.lease, self.provider, peer, self.agreement)
        except NotAuthentic:
            return False
        self.node_ip, self.standing = standing.node_ip, envelope
        return True

    def record(self, gang: bytes) -> JournalRecord:
        """What a restarted borrower must know of it."""
        return JournalRecord(
            self.lease,
            Role.BORROWER,
            self.provider,
            self.cluster,
            self.need,
            self.state.value,
            self.agreement,
            self.sequence,
            0.0 if self.expires == math.inf else self.expires,
            gang,
            self.asked,
            self.proven,
        )

    def signed(self, borrower: PeerId) -> SignedLease:
        """What both sides have signed."""
        return SignedLease(self.provider, borrower, self.asked, self.proven, self.agreement, self.standing)


def as_read(command: RequestLease) -> LeaseRequest:
    """The request as the lender will read it; raises BadMessage for what it would not understand."""
    asked = LeaseRequest(
        command.lease,
        command.need,
        command.versions,
        command.cluster,
        command.gang,
        command.grants,
        command.queue_s,
    )
    return read_request(Fields(request_fields(asked)))


_EPOCH: Final = 0xFFFF_FFFF
"""Renewals that one life of a borrower sends at most: one a second for 136 years. They are not written down one by one,
so that each life counts in a range of its own."""


def resumed(record: JournalRecord, peer: PeerId, verify: Verify, pace: Pace, now: float) -> TakenLease | None:
    """A lease of an earlier life, to be asked about; None when it cannot stand, or must not be gone on with."""
    sequence = (record.sequence | _EPOCH) + 1
    stood = record.state in [state.value for state in (*GRANTED, TakenState.RESUMING)]
    if not stood or record.gang or sequence + _EPOCH > MAX_SEQUENCE:
        return None
    try:
        terms = read_agreement(record.agreement, record.peer, verify)
    except NotAuthentic:
        return None
    if (terms.lease, terms.borrower) != (record.lease, peer):
        return None
    return TakenLease(
        lease=record.lease,
        provider=record.peer,
        need=terms.need,
        cluster=terms.cluster,
        form=1 if terms.versions is None else FORM,
        request=None,
        secret=None,
        message=None,
        first_sent=now,
        next_send=now,
        heard=now,
        silent_by=now + pace.patience_s(TakenState.RESUMING),
        state=TakenState.RESUMING,
        sequence=sequence,
        asked=record.request,
        proven=record.proof,
        agreement=record.agreement,
        isolation=terms.isolation,
        node_ip=terms.node_ip,
    )
