"""Leases by the clock: the way to a worker, and what is sent again on it."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest

from swarmp2p.engine import NetworkEvent, Received, Tick
from swarmp2p.identity import PeerId
from swarmp2p.providers import KINDS
from swarmp2p.ray_bridge.auth import read_agreement
from swarmp2p.ray_bridge.events import (
    JAIL,
    EndLease,
    LeaseActive,
    LeaseCommand,
    LeaseEnded,
    LeaseGranted,
    LeaseRefusal,
    Lend,
    Need,
    Offer,
    OpenPath,
    PathUp,
    Role,
    StartWorker,
    StopWorker,
    WorkerStarted,
)
from swarmp2p.ray_bridge.lease import GivenState, LeaseConfig, Leases, TakenState
from swarmp2p.ray_bridge.messages import (
    Agreement,
    Challenge,
    LeaseRequest,
    Proof,
    Release,
    Renew,
    Renewed,
    Started,
)

from .keys import SECRET, VERSIONS, real_identity, real_keys, request
from .two import BORROWER, LEASE, LENDER, Outputs, Two, ask, borrower, lender, sent, told

# The way to a worker ----------------------------------------------------------------------------------------


def test_from_request_to_worker_to_release() -> None:
    two = Two()
    two.feed(BORROWER, ask())
    granted = two.log[LENDER][0]
    assert isinstance(granted, LeaseGranted)
    assert two.log[LENDER] == [
        LeaseGranted(LEASE, Role.LENDER, BORROWER, 60.0, granted.agreement, ask().need),
        OpenPath(LEASE, BORROWER, Role.LENDER),
    ]
    assert two.log[BORROWER] == [
        LeaseGranted(LEASE, Role.BORROWER, LENDER, 60.0, granted.agreement, ask().need),
        OpenPath(LEASE, LENDER, Role.BORROWER),
    ]
    two.feed(LENDER, PathUp(LEASE))
    assert two.log[LENDER][-1] == StartWorker(LEASE, BORROWER, SECRET, Need())
    two.feed(LENDER, WorkerStarted(LEASE))
    assert two.log[LENDER][-1] == LeaseActive(LEASE, Role.LENDER, BORROWER, "127.0.0.1", JAIL)
    assert two.log[BORROWER][-1] == LeaseActive(LEASE, Role.BORROWER, LENDER, "127.0.0.1", JAIL)
    two.feed(BORROWER, EndLease(LEASE, "the job is done"))
    assert two.log[BORROWER][-1] == LeaseEnded(LEASE, Role.BORROWER, LENDER, "the job is done")
    reason = "the borrower ended it: the job is done"
    assert two.log[LENDER][-3] == StopWorker(LEASE, reason)
    assert two.log[LENDER][-1] == LeaseEnded(LEASE, Role.LENDER, BORROWER, reason)
    assert [engine.deadline() for engine in two.engines.values()] == [math.inf, math.inf]


def test_the_same_with_real_keys() -> None:
    ours, theirs = real_identity(1), real_identity(2)
    gives = Leases(ours.peer_id, real_keys(ours), Random(1))
    takes = Leases(theirs.peer_id, real_keys(theirs), Random(2))
    gives.handle(Lend(Offer(node_ip="127.0.0.9"), VERSIONS, frozenset({theirs.peer_id})), 0.0)
    (asked,) = sent(takes.handle(ask(lender=ours.peer_id), 0.0))
    (challenge,) = sent(gives.handle(Received(theirs.peer_id, asked), 0.0))
    (proof,) = sent(takes.handle(Received(ours.peer_id, challenge), 0.0))
    (agreement,) = sent(gives.handle(Received(theirs.peer_id, proof), 0.0))
    granted, _ = told(takes.handle(Received(ours.peer_id, agreement), 0.0))
    assert isinstance(granted, LeaseGranted)
    terms = read_agreement(granted.agreement, ours.peer_id, theirs.verify)
    assert (terms.lent_as, terms.isolation, terms.versions) == ("individual", JAIL, VERSIONS)
    assert (terms.lender, terms.borrower, terms.node_ip) == (ours.peer_id, theirs.peer_id, "127.0.0.9")
    (start,) = told(gives.handle(PathUp(LEASE), 0.0))
    assert isinstance(start, StartWorker)
    assert start.secret == SECRET


def test_a_refusal_reaches_the_borrower_with_its_reason() -> None:
    two = Two()
    two.feed(LENDER, Lend(Offer(), replace(VERSIONS, ray="2.59.1"), None))
    two.feed(BORROWER, ask())
    (refusal,) = two.log[BORROWER]
    assert isinstance(refusal, LeaseRefusal)
    assert refusal.reason.endswith("install the same with: pip install 'ray==2.59.1'")
    assert two.states() == []


def test_the_term_is_what_the_providers_kind_says_unless_configured() -> None:
    for kind, row in [*KINDS.items(), ("something new", KINDS["individual"])]:
        two = Two(LeaseConfig(), Offer(kind=kind))
        two.feed(BORROWER, ask())
        granted = two.log[BORROWER][0]
        assert isinstance(granted, LeaseGranted)
        assert granted.expires == row.lease_s


# Sending again ----------------------------------------------------------------------------------------------


def test_a_request_is_repeated_every_half_second_and_given_up_after_five() -> None:
    engine = borrower()
    first = sent(engine.handle(ask(), 100.0))
    now = 100.0
    outputs: Outputs = ()
    while engine.states():
        now = engine.deadline()
        outputs = engine.handle(Tick(), now)
        if engine.states():
            assert sent(outputs) == first
    assert now == pytest.approx(105.0)
    (refusal,) = told(outputs)
    assert isinstance(refusal, LeaseRefusal)
    assert refusal.reason == "the lender did not answer for 5.0 s"
    assert [type(message) for message in sent(outputs)] == [Release]  # in case it did hear


def test_every_message_of_the_handshake_may_be_lost_once() -> None:
    class Lossy(Two):
        """Loses the first message of each type in each direction."""

        def feed(self, one: PeerId, event: NetworkEvent | LeaseCommand) -> None:
            if isinstance(event, Received) and type(event.message) not in lost:
                lost.append(type(event.message))
            else:
                super().feed(one, event)

    lost: list[type] = []
    two = Lossy()
    two.feed(BORROWER, ask())
    two.run(3.0)
    two.feed(LENDER, PathUp(LEASE))
    two.feed(LENDER, WorkerStarted(LEASE))
    two.run(10.0)
    assert set(lost) >= {LeaseRequest, Challenge, Proof, Agreement, Started, Renew, Renewed}
    assert two.states() == [GivenState.ACTIVE, TakenState.ACTIVE]
    two.run(600.0)
    assert two.states() == [GivenState.ACTIVE, TakenState.ACTIVE]


def test_a_repeated_request_gets_the_same_challenge() -> None:
    engine = lender()
    once = sent(engine.handle(Received(BORROWER, request()), 0.0))
    assert sent(engine.handle(Received(BORROWER, request()), 1.0)) == once


def test_renewals_go_out_about_once_a_second_and_never_later() -> None:
    two = Two().activate()
    gaps: list[float] = []
    for _ in range(200):
        before = two.now
        two.run(two.engines[BORROWER].deadline())
        gaps.append(two.now - before)
    assert max(gaps) <= 1.0
    assert min(gaps) >= 0.9
    assert len({round(gap, 6) for gap in gaps}) > 100  # spread, so that many leases do not keep in step
