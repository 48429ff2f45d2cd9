"""A lender takes its machine back: both sides are told, nothing is renewed past the end, and nothing new is lent."""

from __future__ import annotations

from dataclasses import replace

from swarmp2p.engine import Received, Send, Speaks, Tick
from swarmp2p.ray_bridge.events import (
    LeaseEnded,
    LeaseNotice,
    LeaseRefusal,
    Lend,
    Offer,
    PathUp,
    Role,
    StopWorker,
    TakeBack,
    WorkerStarted,
)
from swarmp2p.ray_bridge.lease import GivenState, TakenState
from swarmp2p.ray_bridge.messages import Challenge, LeaseRequest, Notice, Refuse, Renew, Renewed
from swarmp2p.ray_bridge.wire import FIRST_PROTOCOL_ID

from .keys import VERSIONS, lease_id, request
from .two import BORROWER, LEASE, LENDER, Two, ask, borrower, lender, sent, told

BACK = "the owner is back"


def notices(two: Two, side: bytes) -> list[LeaseNotice]:
    return [
        output
        for who, log in two.log.items()
        for output in log
        if who == side and isinstance(output, LeaseNotice)
    ]


def test_both_sides_are_told_and_the_lease_ends_then_and_not_before() -> None:
    two = Two().activate()
    two.run(10.0)
    two.feed(LENDER, TakeBack(LEASE, 30.0, BACK))
    assert notices(two, LENDER) == [LeaseNotice(LEASE, Role.LENDER, BORROWER, 40.0, BACK)]
    assert notices(two, BORROWER) == [LeaseNotice(LEASE, Role.BORROWER, LENDER, 40.0, BACK)]
    two.run(39.9)
    assert two.states() == [GivenState.ACTIVE, TakenState.ACTIVE], "it is renewed until then"
    two.run(40.0)
    assert two.states() == []
    ended = two.log[BORROWER][-1]
    assert isinstance(ended, LeaseEnded)
    assert BACK in ended.reason
    assert [type(output) for output in two.log[LENDER][-3:]] == [
        StopWorker,
        type(two.log[LENDER][-2]),
        LeaseEnded,
    ]


def test_a_notice_that_is_lost_comes_with_the_next_renewal() -> None:
    two = Two().activate()
    two.run(10.0)
    two.cut = True
    two.feed(LENDER, TakeBack(LEASE, 30.0, BACK))
    two.cut = False
    assert notices(two, BORROWER) == []
    two.run(11.5)
    (notice,) = notices(two, BORROWER)
    assert (notice.ends, notice.reason) == (40.0, BACK)
    two.run(60.0)
    assert len(notices(two, BORROWER)) == 1, "once"


def test_the_end_needs_no_message() -> None:
    two = Two().activate()
    two.run(10.0)
    two.feed(LENDER, TakeBack(LEASE, 2.5, BACK))
    two.run(12.0)
    two.cut = True
    two.run(12.5)
    ends = [two.log[side][-1] for side in (LENDER, BORROWER)]
    assert ends == [
        LeaseEnded(LEASE, Role.LENDER, BORROWER, BACK),
        LeaseEnded(LEASE, Role.BORROWER, LENDER, f"the lender took it back: {BACK}"),
    ]


def test_no_renewal_reaches_past_the_notice() -> None:
    engine = Two().activate().engines[LENDER]
    engine.handle(TakeBack(LEASE, 30.0, BACK), 10.0)
    for sequence, now in enumerate((12.0, 25.0, 39.5), 1):
        (renewed,) = sent(engine.handle(Received(BORROWER, Renew(LEASE, sequence)), now))
        assert isinstance(renewed, Renewed)
        assert renewed.notice_s == 40.0 - now
        assert renewed.lease_s == max(1.0, 40.0 - now)
    assert engine.deadline() == 40.0


def test_a_second_notice_only_brings_the_end_nearer() -> None:
    two = Two().activate()
    two.feed(LENDER, TakeBack(LEASE, 30.0, BACK))
    two.feed(LENDER, TakeBack(LEASE, 50.0, "later"))
    assert two.engines[LENDER].deadline() == 30.0
    two.feed(LENDER, TakeBack(LEASE, 10.0, "sooner"))
    assert [notice.ends for notice in notices(two, BORROWER)] == [30.0, 10.0]
    two.feed(LENDER, TakeBack(LEASE, 0.0, "now"))
    assert two.states() == []


def test_taking_all_back_lends_nothing_more_until_lend() -> None:
    two = Two(offer=Offer(cpus=4, max_leases=4)).activate()
    asked = LeaseRequest(lease_id(7), request().need, VERSIONS, "c")
    engine = two.engines[LENDER]
    assert isinstance(sent(engine.handle(Received(BORROWER, asked), 0.0))[0], Challenge)
    outputs = engine.handle(TakeBack(None, 30.0, BACK), 1.0)
    assert [type(message) for message in sent(outputs)] == [Notice, Refuse]
    two.feed(BORROWER, ask(2))
    refusal = two.log[BORROWER][-1]
    assert isinstance(refusal, LeaseRefusal)
    assert "lends nothing" in refusal.reason
    two.feed(LENDER, Lend(Offer(cpus=4, max_leases=4), VERSIONS, None))
    two.feed(BORROWER, ask(3))
    assert len(two.engines[BORROWER].states()) == 2
    assert engine.deadline() == 31.0, "what was taken back stays taken back"


def test_a_notice_while_the_worker_starts() -> None:
    two = Two()
    two.feed(BORROWER, ask())
    two.feed(LENDER, TakeBack(LEASE, 5.0, BACK))
    two.feed(LENDER, PathUp(LEASE))
    two.feed(LENDER, WorkerStarted(LEASE))
    assert two.states() == [GivenState.ACTIVE, TakenState.ACTIVE]
    two.run(5.0)
    assert two.states() == []


def test_a_borrower_of_the_first_form_is_not_sent_what_it_cannot_read() -> None:
    gives, takes = lender(), borrower()
    takes.handle(Speaks(LENDER, "lease", True, FIRST_PROTOCOL_ID), 0.0)
    (asked,) = sent(takes.handle(ask(), 0.0))
    assert isinstance(asked, LeaseRequest)
    assert asked.form == 1
    (challenge,) = sent(gives.handle(Received(BORROWER, asked), 0.0))
    (proof,) = sent(takes.handle(Received(LENDER, challenge), 0.0))
    gives.handle(Received(BORROWER, proof), 0.0)
    outputs = gives.handle(TakeBack(LEASE, 30.0, BACK), 1.0)
    assert [type(output) for output in outputs] == [LeaseNotice]
    (renewed,) = sent(gives.handle(Received(BORROWER, Renew(LEASE, 1)), 11.0))
    assert renewed == Renewed(LEASE, 1, 20.0, False), "its term says the same"
    assert not [
        output for output in gives.handle(Tick(), 31.0) if isinstance(output, Send) and output.to != BORROWER
    ]
    assert gives.states() == {}


def test_reasons_arrive_fit_to_be_printed() -> None:
    two = Two().activate()
    two.feed(LENDER, TakeBack(LEASE, 30.0, "back\n\x1b[31m" + "x" * 1000))
    (notice,) = notices(two, BORROWER)
    assert notice.reason.isprintable()
    assert len(notice.reason) <= 500
    assert replace(notice, reason="") == LeaseNotice(LEASE, Role.BORROWER, LENDER, 30.0, "")
    assert told(two.engines[BORROWER].handle(Received(LENDER, Notice(LEASE, 29.9, "again")), 0.0)) == []


def test_a_borrower_believes_no_notice_that_moves_the_end_back() -> None:
    two = Two().activate()
    two.feed(LENDER, TakeBack(LEASE, 20.0, BACK))
    two.feed(BORROWER, Received(LENDER, Notice(LEASE, 50.0, "a late copy of an earlier one")))
    two.run(20.0)
    assert two.states() == []
    two.cut = True
    takes = borrower()
    assert takes.handle(Received(LENDER, Notice(LEASE, 50.0, "of what it does not hold")), 0.0) != []
    engine = Two().activate().engines[BORROWER]
    engine.handle(Received(LENDER, Notice(LEASE, 2.0, BACK)), 0.0)
    engine.handle(Received(LENDER, Notice(LEASE, 50.0, "later")), 0.0)
    assert LeaseEnded in [type(output) for output in engine.handle(Tick(), 2.0)]
