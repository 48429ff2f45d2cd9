"""Leases by the clock: everything that ends one, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarmp2p.engine import PeerDown, Received, Tick
from swarmp2p.ray_bridge.events import (
    Doubt,
    EndLease,
    LeaseEnded,
    LeaseGranted,
    LeaseRefusal,
    LeaseSilent,
    Lend,
    Offer,
    OpenPath,
    PathUp,
    Role,
    StopLending,
    StopWorker,
    WorkerFailed,
    WorkerStarted,
)
from swarmp2p.ray_bridge.lease import GivenState, TakenState
from swarmp2p.ray_bridge.messages import (
    LeaseMessage,
    LeaseRequest,
    Refuse,
    Release,
    Renew,
    Renewed,
)

from .keys import VERSIONS, peer, request
from .two import BORROWER, CONFIG, LEASE, LENDER, Two, ask, borrower, lender, sent, told


def test_the_borrower_never_counts_on_more_than_the_lender_gives() -> None:
    """It counts from sending, the lender from receiving."""
    gives, takes = lender(), borrower()
    (asked,) = sent(takes.handle(ask(), 0.0))
    (challenge,) = sent(gives.handle(Received(BORROWER, asked), 0.1))
    (proof,) = sent(takes.handle(Received(LENDER, challenge), 0.2))
    ours, _ = told(gives.handle(Received(BORROWER, proof), 3.0))
    (agreement,) = sent(gives.handle(Received(BORROWER, proof), 3.5))
    theirs, _ = told(takes.handle(Received(LENDER, agreement), 4.0))
    assert isinstance(ours, LeaseGranted)
    assert isinstance(theirs, LeaseGranted)
    assert (theirs.expires, ours.expires) == (60.2, 63.0)


def test_a_doubted_lender_is_asked_at_once_and_only_its_own_silence_ends_the_lease() -> None:
    two = Two().activate()
    two.run(30.2)
    takes = two.engines[BORROWER]
    assert [type(message) for message in sent(takes.handle(Doubt(LENDER), two.now))] == [Renew]
    assert takes.handle(Doubt(LENDER), two.now) == [], "it is being asked already"
    assert takes.handle(Doubt(peer(9)), two.now) == []
    two.run(60.0)
    assert takes.states() == {LEASE: TakenState.ACTIVE}


def test_of_a_lender_that_does_not_answer_the_borrower_is_told_before_it_is_the_end() -> None:
    def silences(two: Two) -> list[bool]:
        assert not any(isinstance(each, LeaseEnded) for each in two.log[BORROWER])
        return [each.silent for each in two.log[BORROWER] if isinstance(each, LeaseSilent)]

    two = Two().activate()
    two.run(30.2)
    two.cut = True
    two.run(31.2)
    assert silences(two) == []
    two.run(32.2)
    assert silences(two) == [True]
    two.cut = False
    two.run(33.0)
    assert silences(two) == [True, False]
    two.run(60.0)
    assert silences(two) == [True, False]


def test_without_renewal_the_lender_ends_it_when_the_term_is_over() -> None:
    two = Two().activate()
    two.run(30.0)
    last = two.now
    two.cut = True
    two.run(200.0)
    ended = two.log[LENDER][-1]
    assert isinstance(ended, LeaseEnded)
    assert ended.reason == "the borrower did not renew it in time"
    assert isinstance(two.log[LENDER][-3], StopWorker)
    assert two.log[BORROWER][-1] == LeaseEnded(
        LEASE, Role.BORROWER, LENDER, "the lender did not answer for 3.0 s"
    )
    assert last < 60  # it was renewed before


def test_a_renewal_that_comes_late_does_not_revive_a_lease() -> None:
    """The Tick was not delivered in time; the term is over all the same."""
    two = Two().activate()
    outputs = two.engines[LENDER].handle(Received(BORROWER, Renew(LEASE, 1)), 60.0)
    assert isinstance(told(outputs)[0], StopWorker)
    assert [type(message) for message in sent(outputs)] == [Release, Release]


def test_a_repeated_renewal_extends_the_term_once() -> None:
    two = Two().activate()
    engine = two.engines[LENDER]
    for now, sequence, extended in [
        (1.0, 1, 61.0),
        (2.0, 1, 61.0),
        (3.0, 5, 63.0),
        (4.0, 4, 63.0),
        (5.0, 5, 63.0),
    ]:
        answers = [
            replace(answer, envelope=b"") if isinstance(answer, Renewed) else answer
            for answer in sent(engine.handle(Received(BORROWER, Renew(LEASE, sequence)), now))
        ]
        assert answers == ([] if sequence == 4 else [Renewed(LEASE, sequence, 60.0, True)])
        assert engine.deadline() == extended


def test_a_worker_that_does_not_start_is_given_up_after_a_minute() -> None:
    two = Two()
    two.feed(BORROWER, ask())
    two.feed(LENDER, PathUp(LEASE))
    two.run(59.9)
    assert two.states() == [GivenState.STARTING, TakenState.STARTING]
    two.run(60.1)
    assert two.states() == []
    ended = two.log[BORROWER][-1]
    assert isinstance(ended, LeaseEnded)
    assert ended.reason == "the lender ended it: the worker was not ready within 60 s"


def test_a_lender_that_only_renews_and_never_starts_is_given_up_too() -> None:
    two = Two()
    two.feed(BORROWER, ask())
    now = 0.0
    engine = two.engines[BORROWER]
    while engine.states():
        now = engine.deadline()
        for message in sent(engine.handle(Tick(), now)):
            if isinstance(message, Renew):
                engine.handle(Received(LENDER, Renewed(LEASE, message.sequence, 60.0, False)), now)
    assert now == pytest.approx(65.0)


def test_a_busy_lender_has_ten_seconds_while_the_worker_starts() -> None:
    two = Two()
    two.feed(BORROWER, ask())
    two.cut = True
    two.run(9.9)
    assert TakenState.STARTING in two.states()
    two.run(10.1)
    assert TakenState.STARTING not in two.states()


def test_a_borrower_that_was_stopped_itself_does_not_blame_the_lender() -> None:
    """After a pause of 20 s (a laptop's sleep) it asks again before it believes in silence."""
    two = Two().activate()
    two.now = 20.0
    two.cut = True
    two.feed(BORROWER, Tick())
    assert TakenState.ACTIVE in two.states()
    two.cut = False
    two.run(20.6)
    assert two.states() == [GivenState.ACTIVE, TakenState.ACTIVE]
    two.now, two.cut = 50.0, True
    two.run(51.4)
    assert TakenState.ACTIVE in two.states()
    two.run(51.6)  # three probes of half a second each
    assert TakenState.ACTIVE not in two.states()


def test_an_answer_that_waited_while_the_borrower_was_stopped_still_counts() -> None:
    two = Two().activate()
    engine, gives = two.engines[BORROWER], two.engines[LENDER]
    renewals: list[LeaseMessage] = []
    for now in (1.0, 1.5, 2.0, 2.5):
        renewals += sent(engine.handle(Tick(), now))
    assert renewals == [Renew(LEASE, 1)] * 4
    (renewed,) = sent(gives.handle(Received(BORROWER, Renew(LEASE, 1)), 1.0))
    outputs = engine.handle(Received(LENDER, renewed), 20.0)  # Tick was due at 3.0
    assert told(outputs) == [LeaseSilent(LEASE, LENDER, False)]
    assert engine.states() == {LEASE: TakenState.ACTIVE}


def test_a_closed_connection_is_a_suspicion_that_an_answer_removes() -> None:
    two = Two().activate()
    for _ in range(5):
        two.feed(BORROWER, PeerDown(LENDER))  # renews at once, which is answered
    assert two.states() == [GivenState.ACTIVE, TakenState.ACTIVE]


def test_after_a_closed_connection_two_seconds_without_answer_are_the_end() -> None:
    two = Two().activate()
    two.run(10.0)
    two.cut = True
    two.feed(BORROWER, PeerDown(LENDER))
    two.run(11.9)
    assert TakenState.ACTIVE in two.states()
    two.run(12.1)
    assert TakenState.ACTIVE not in two.states()


def test_a_closed_connection_after_long_silence_adds_no_patience() -> None:
    two = Two().activate()
    heard = two.now
    two.cut = True
    two.run(heard + 2.9)
    two.feed(BORROWER, PeerDown(LENDER))
    two.run(heard + 3.0)
    assert TakenState.ACTIVE not in two.states()


def test_a_request_to_one_who_cannot_be_reached_is_refused_at_the_second_failed_dial() -> None:
    engine = borrower()
    engine.handle(ask(), 0.0)
    for now in (0.1, 0.2):
        assert [type(message) for message in sent(engine.handle(PeerDown(LENDER), now))] == [LeaseRequest]
    (refusal,) = told(engine.handle(PeerDown(LENDER), 0.3))
    assert isinstance(refusal, LeaseRefusal)
    assert refusal.reason.startswith("the lender cannot be reached")


def test_a_borrower_whose_connection_closed_has_ten_seconds_to_renew() -> None:
    two = Two().activate()
    two.feed(LENDER, PeerDown(BORROWER))
    assert two.engines[LENDER].deadline() == 10.0
    two.run(2.0)
    assert two.engines[LENDER].deadline() > 60.0  # it renewed
    two.feed(LENDER, PeerDown(BORROWER))
    two.cut = True
    two.run(12.1)
    assert isinstance(two.log[LENDER][-1], LeaseEnded)


def test_a_second_closed_connection_does_not_lengthen_the_term() -> None:
    engine = Two().activate().engines[LENDER]
    engine.handle(PeerDown(BORROWER), 3.0)
    engine.handle(PeerDown(BORROWER), 9.0)
    assert engine.deadline() == 13.0


def test_a_lender_that_dies_right_after_it_started_the_worker_is_noticed_as_soon() -> None:
    two = Two()
    two.feed(BORROWER, ask())
    two.feed(LENDER, PathUp(LEASE))
    two.run(1.0)  # a renewal has just been answered or is under way
    two.cut = True
    two.run(1.2)
    (started,) = sent(two.engines[LENDER].handle(WorkerStarted(LEASE), 1.2))
    two.engines[BORROWER].handle(Received(LENDER, started), 1.2)
    two.run(4.1)
    assert TakenState.ACTIVE in two.states()
    two.run(4.3)
    assert TakenState.ACTIVE not in two.states()


def test_a_renewal_under_way_is_repeated_on_time_whatever_else_is_heard() -> None:
    engine = borrower()
    gives = lender()
    (asked,) = sent(engine.handle(ask(), 0.0))
    (challenge,) = sent(gives.handle(Received(BORROWER, asked), 0.0))
    (proof,) = sent(engine.handle(Received(LENDER, challenge), 0.0))
    (agreement,) = sent(gives.handle(Received(BORROWER, proof), 0.0))
    engine.handle(Received(LENDER, agreement), 0.0)
    due = engine.deadline()
    assert sent(engine.handle(Tick(), due)) == [Renew(LEASE, 1)]
    gives.handle(PathUp(LEASE), due)
    (started,) = sent(gives.handle(WorkerStarted(LEASE), due))
    engine.handle(Received(LENDER, started), due + 0.1)
    assert engine.states() == {LEASE: TakenState.ACTIVE}
    assert engine.deadline() == due + 0.5


def test_a_failed_workers_reason_arrives_fit_to_be_printed() -> None:
    two = Two().activate()
    two.feed(LENDER, WorkerFailed(LEASE, "exit 1\nTraceback: \x1b[31m" + "x" * 1000))
    ended = two.log[BORROWER][-1]
    assert isinstance(ended, LeaseEnded)
    assert ended.reason.startswith("the lender ended it: the worker failed: exit 1 Traceback:  [31mxxx")
    assert ended.reason.isprintable()
    assert len(ended.reason) < 600


def test_stop_lending_ends_all_and_lend_starts_anew() -> None:
    two = Two().activate()
    two.feed(LENDER, StopLending())
    assert two.states() == []
    two.feed(BORROWER, ask(2))
    refusal = two.log[BORROWER][-1]
    assert isinstance(refusal, LeaseRefusal)
    assert refusal.reason.startswith("it lends nothing")
    two.feed(LENDER, Lend(Offer(), VERSIONS, None))
    two.feed(BORROWER, ask(3))
    assert isinstance(two.log[BORROWER][-1], OpenPath)


def test_other_terms_leave_standing_leases_alone() -> None:
    two = Two().activate()
    two.feed(LENDER, Lend(Offer(cpus=0.5, node_ip="127.0.0.2"), replace(VERSIONS, ray="3"), frozenset()))
    two.run(100.0)
    assert two.states() == [GivenState.ACTIVE, TakenState.ACTIVE]


def test_terms_that_change_between_request_and_proof_count() -> None:
    gives, takes = lender(), borrower()
    (asked,) = sent(takes.handle(ask(), 0.0))
    (challenge,) = sent(gives.handle(Received(BORROWER, asked), 0.0))
    (proof,) = sent(takes.handle(Received(LENDER, challenge), 0.0))
    gives.handle(Lend(Offer(), VERSIONS, frozenset()), 0.0)
    (refusal,) = sent(gives.handle(Received(BORROWER, proof), 0.0))
    assert isinstance(refusal, Refuse)
    assert "has not allowed" in refusal.reason


def test_a_late_copy_of_the_request_does_not_revive_what_ended() -> None:
    two = Two().activate()
    two.feed(LENDER, EndLease(LEASE, "the owner is back"))
    answer = sent(two.engines[LENDER].handle(Received(BORROWER, request()), two.now))
    assert answer == [Release(LEASE, "the owner is back")]
    assert sent(two.engines[LENDER].handle(Received(peer(9), request()), two.now)) == [
        Release(LEASE, "this lease is not known here (any more)")  # others are told nothing about it
    ]


def test_an_agreement_that_is_older_than_its_term_is_given_back() -> None:
    config = replace(CONFIG, lease_s=2.0)
    gives, takes = lender(config=config), borrower(config)
    (asked,) = sent(takes.handle(ask(), 0.0))
    (challenge,) = sent(gives.handle(Received(BORROWER, asked), 0.0))
    (proof,) = sent(takes.handle(Received(LENDER, challenge), 0.0))
    (agreement,) = sent(gives.handle(Received(BORROWER, proof), 0.0))
    for tick in (0.5, 1.0, 1.5):
        takes.handle(Tick(), tick)
    outputs = takes.handle(Received(LENDER, agreement), 2.0)
    assert [type(output) for output in told(outputs)] == [LeaseRefusal]
    assert [type(message) for message in sent(outputs)] == [Release]
