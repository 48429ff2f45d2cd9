"""Leases by the clock: what is sent again and when, what ends when, and what stays within its bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.engine import NetworkEvent, NetworkOutput, PeerDown, Received, Send, Tick
from swarmp2p.identity import PeerId
from swarmp2p.providers import KINDS
from swarmp2p.ray_bridge.auth import read_grant
from swarmp2p.ray_bridge.events import (
    EndLease,
    JoinSecret,
    LeaseActive,
    LeaseCommand,
    LeaseEnded,
    LeaseGranted,
    LeaseOutput,
    LeaseRefusal,
    Lend,
    Need,
    Offer,
    OpenPath,
    PathUp,
    RequestLease,
    Role,
    StartWorker,
    StopLending,
    StopWorker,
    Versions,
    WorkerFailed,
    WorkerStarted,
)
from swarmp2p.ray_bridge.finished import Finished
from swarmp2p.ray_bridge.lease import GivenState, LeaseConfig, Leases, TakenState
from swarmp2p.ray_bridge.messages import (
    AnyLeaseMessage,
    Challenge,
    Grant,
    LeaseMessage,
    LeaseRequest,
    Proof,
    Refuse,
    Release,
    Renew,
    Renewed,
    Started,
)

from .keys import SECRET, VERSIONS, cheap_keys, lease_id, peer, real_identity, real_keys, request
from .test_messages import MESSAGES

LENDER, BORROWER = peer(1), peer(2)
LEASE = lease_id(1)
CONFIG = LeaseConfig(lease_s=60.0)
Outputs = Sequence[NetworkOutput | LeaseOutput]


def ask(number: int = 1, lender: PeerId = LENDER) -> RequestLease:
    return RequestLease(lease_id(number), lender, Need(), VERSIONS, SECRET, "test-cluster")


def lender(offer: Offer | None = None, config: LeaseConfig = CONFIG) -> Leases:
    engine = Leases(LENDER, cheap_keys(LENDER), Random(1), config)
    engine.handle(Lend(offer or Offer(), VERSIONS, None), 0.0)
    return engine


def borrower(config: LeaseConfig = CONFIG) -> Leases:
    return Leases(BORROWER, cheap_keys(BORROWER), Random(2), config)


def sent(outputs: Outputs) -> list[LeaseMessage]:
    return [
        output.message
        for output in outputs
        if isinstance(output, Send) and isinstance(output.message, LeaseMessage)
    ]


def told(outputs: Outputs) -> list[LeaseOutput]:
    return [output for output in outputs if not isinstance(output, NetworkOutput)]


class Two:
    """A lender and a borrower whose messages arrive at once. `cut` drops them instead."""

    def __init__(self, config: LeaseConfig = CONFIG, offer: Offer | None = None) -> None:
        self.engines = {LENDER: lender(offer, config), BORROWER: borrower(config)}
        self.now = 0.0
        self.cut = False
        self.log: dict[PeerId, list[LeaseOutput]] = {LENDER: [], BORROWER: []}

    def feed(self, one: PeerId, event: NetworkEvent | LeaseCommand) -> None:
        outputs = self.engines[one].handle(event, self.now)
        self.log[one] += told(outputs)
        for output in outputs:
            if isinstance(output, Send) and not self.cut:
                self.feed(output.to, Received(one, output.message))

    def run(self, until: float) -> None:
        while True:
            one = min(self.engines, key=lambda who: self.engines[who].deadline())
            if self.engines[one].deadline() > until:
                break
            self.now = max(self.now, self.engines[one].deadline())
            self.feed(one, Tick())
        self.now = until

    def activate(self) -> Two:
        self.feed(BORROWER, ask())
        self.feed(LENDER, PathUp(LEASE))
        self.feed(LENDER, WorkerStarted(LEASE))
        assert self.states() == [GivenState.ACTIVE, TakenState.ACTIVE]
        return self

    def states(self) -> list[GivenState | TakenState]:
        return [state for engine in self.engines.values() for state in engine.states().values()]


# The way to a worker ----------------------------------------------------------------------------------------


def test_from_request_to_worker_to_release() -> None:
    two = Two()
    two.feed(BORROWER, ask())
    granted = two.log[LENDER][0]
    assert isinstance(granted, LeaseGranted)
    assert two.log[LENDER] == [
        LeaseGranted(LEASE, Role.LENDER, BORROWER, 60.0, granted.grant),
        OpenPath(LEASE, BORROWER, Role.LENDER),
    ]
    assert two.log[BORROWER] == [
        LeaseGranted(LEASE, Role.BORROWER, LENDER, 60.0, granted.grant),
        OpenPath(LEASE, LENDER, Role.BORROWER),
    ]
    two.feed(LENDER, PathUp(LEASE))
    assert two.log[LENDER][-1] == StartWorker(LEASE, BORROWER, SECRET, Need())
    two.feed(LENDER, WorkerStarted(LEASE))
    assert two.log[LENDER][-1] == LeaseActive(LEASE, Role.LENDER, BORROWER, "127.0.0.1")
    assert two.log[BORROWER][-1] == LeaseActive(LEASE, Role.BORROWER, LENDER, "127.0.0.1")
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
    (grant,) = sent(gives.handle(Received(theirs.peer_id, proof), 0.0))
    granted, _ = told(takes.handle(Received(ours.peer_id, grant), 0.0))
    assert isinstance(granted, LeaseGranted)
    terms = read_grant(granted.grant, ours.peer_id, theirs.verify)
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
    assert set(lost) >= {LeaseRequest, Challenge, Proof, Grant, Started, Renew, Renewed}
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


# Ends -------------------------------------------------------------------------------------------------------


def test_the_borrower_never_counts_on_more_than_the_lender_gives() -> None:
    """It counts from sending, the lender from receiving."""
    gives, takes = lender(), borrower()
    (asked,) = sent(takes.handle(ask(), 0.0))
    (challenge,) = sent(gives.handle(Received(BORROWER, asked), 0.1))
    (proof,) = sent(takes.handle(Received(LENDER, challenge), 0.2))
    ours, _ = told(gives.handle(Received(BORROWER, proof), 3.0))
    (grant,) = sent(gives.handle(Received(BORROWER, proof), 3.5))
    theirs, _ = told(takes.handle(Received(LENDER, grant), 4.0))
    assert isinstance(ours, LeaseGranted)
    assert isinstance(theirs, LeaseGranted)
    assert (theirs.expires, ours.expires) == (60.2, 63.0)


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
        answers = sent(engine.handle(Received(BORROWER, Renew(LEASE, sequence)), now))
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
    engine = two.engines[BORROWER]
    renewals: list[LeaseMessage] = []
    for now in (1.0, 1.5, 2.0, 2.5):
        renewals += sent(engine.handle(Tick(), now))
    assert renewals == [Renew(LEASE, 1)] * 4
    outputs = engine.handle(Received(LENDER, Renewed(LEASE, 1, 60.0, True)), 20.0)  # Tick was due at 3.0
    assert told(outputs) == []
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
    two.engines[BORROWER].handle(Received(LENDER, Started(LEASE)), 1.2)
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
    (grant,) = sent(gives.handle(Received(BORROWER, proof), 0.0))
    engine.handle(Received(LENDER, grant), 0.0)
    due = engine.deadline()
    assert sent(engine.handle(Tick(), due)) == [Renew(LEASE, 1)]
    engine.handle(Received(LENDER, Started(LEASE)), due + 0.1)
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


def test_a_grant_that_is_older_than_its_term_is_given_back() -> None:
    config = replace(CONFIG, lease_s=2.0)
    gives, takes = lender(config=config), borrower(config)
    (asked,) = sent(takes.handle(ask(), 0.0))
    (challenge,) = sent(gives.handle(Received(BORROWER, asked), 0.0))
    (proof,) = sent(takes.handle(Received(LENDER, challenge), 0.0))
    (grant,) = sent(gives.handle(Received(BORROWER, proof), 0.0))
    for tick in (0.5, 1.0, 1.5):
        takes.handle(Tick(), tick)
    outputs = takes.handle(Received(LENDER, grant), 2.0)
    assert [type(output) for output in told(outputs)] == [LeaseRefusal]
    assert [type(message) for message in sent(outputs)] == [Release]


# Bounds -----------------------------------------------------------------------------------------------------


def test_a_reservation_counts_from_the_challenge_and_is_let_go_without_proof() -> None:
    engine = lender(Offer(max_leases=1))
    assert isinstance(sent(engine.handle(Received(BORROWER, request(1)), 0.0))[0], Challenge)
    assert isinstance(sent(engine.handle(Received(peer(3), request(2)), 1.0))[0], Refuse)
    assert engine.deadline() == 5.0
    assert engine.handle(Tick(), 5.0) == []
    assert engine.states() == {}
    assert isinstance(sent(engine.handle(Received(peer(3), request(3)), 5.0))[0], Challenge)


def test_challenges_under_way_are_bounded_for_each_peer_and_in_all() -> None:
    config = replace(CONFIG, max_half_open=5, max_half_open_per_peer=2)
    engine = lender(Offer(cpus=100, max_leases=100), config)
    answers: dict[PeerId, list[type]] = {}
    for number in range(12):
        who = peer(10 + number // 3)
        (answer,) = sent(engine.handle(Received(who, request(number + 1)), 0.0))
        answers.setdefault(who, []).append(type(answer))
    assert answers == {
        peer(10): [Challenge, Challenge, Refuse],
        peer(11): [Challenge, Challenge, Refuse],
        peer(12): [Challenge, Refuse, Refuse],
        peer(13): [Refuse, Refuse, Refuse],
    }
    assert len(engine.states()) == 5


def test_what_is_remembered_of_the_past_is_bounded() -> None:
    finished = Finished(replace(CONFIG, max_finished=3, max_strangers=2, strange_per_s=1))
    for number in range(10):
        finished.add(lease_id(number), BORROWER, "over")
    assert [number for number in range(10) if lease_id(number) in finished] == [7, 8, 9]
    for number in range(3):
        assert len(finished.answer(peer(number), LEASE, 0.0)) == 1
    assert finished.answer(peer(2), LEASE, 0.0) == []  # still counted
    assert len(finished.answer(peer(0), LEASE, 0.0)) == 1  # the oldest was forgotten


def test_a_lease_id_in_use_is_not_given_to_another() -> None:
    engine = lender(Offer(cpus=9, max_leases=9))
    engine.handle(Received(BORROWER, request(1)), 0.0)
    (refusal,) = sent(engine.handle(Received(peer(3), request(1)), 0.0))
    assert refusal == Refuse(LEASE, "this lease id is in use; choose one at random", None)


def test_an_id_names_one_lease_across_both_roles() -> None:
    both = lender(Offer(cpus=9, max_leases=9))
    both.handle(Received(BORROWER, request(1)), 0.0)
    (refusal,) = told(both.handle(ask(1, lender=BORROWER), 0.0))
    assert isinstance(refusal, LeaseRefusal)
    both.handle(ask(2, lender=BORROWER), 0.0)
    assert isinstance(sent(both.handle(Received(BORROWER, request(2)), 0.0))[0], Refuse)
    assert both.states() == {lease_id(1): GivenState.CHALLENGED, lease_id(2): TakenState.REQUESTING}


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (ask(lender=BORROWER), "cannot lease from itself"),
        (replace(ask(), secret=JoinSecret("--block", "t")), "not host:port"),
        (replace(ask(), cluster="x" * 65), "cannot be sent: cluster"),
        (replace(ask(), need=Need(cpus=-1)), "cannot be sent: cpus"),
        (replace(ask(), need=Need(region="\ud800")), "cannot be sent: region"),
        (replace(ask(), versions=Versions("2\n", "3", "0")), "cannot be sent: ray"),
        (replace(ask(), lease=b"short"), "cannot be sent: lease"),
    ],
)
def test_a_request_that_cannot_be_made_is_refused_here(command: RequestLease, reason: str) -> None:
    engine = borrower()
    outputs = engine.handle(command, 0.0)
    (refusal,) = told(outputs)
    assert isinstance(refusal, LeaseRefusal)
    assert reason in refusal.reason
    assert sent(outputs) == []
    assert engine.states() == {}


def test_a_lender_that_cannot_be_sealed_to_is_refused_here() -> None:
    hashed = PeerId.from_bytes(b"\x12\x20" + bytes(32))
    identity = real_identity(2)
    engine = Leases(identity.peer_id, real_keys(identity), Random(0))
    engine.handle(ask(lender=hashed), 0.0)
    (refusal,) = told(engine.handle(Received(hashed, Challenge(LEASE, bytes(32))), 0.0))
    assert isinstance(refusal, LeaseRefusal)
    assert "cannot seal to" in refusal.reason


def test_an_id_that_was_used_before_is_refused_here() -> None:
    engine = borrower()
    engine.handle(ask(), 0.0)
    assert engine.handle(ask(), 0.0) == []  # asked twice is asked once
    engine.handle(EndLease(LEASE, "never mind"), 0.0)
    (refusal,) = told(engine.handle(ask(), 0.0))
    assert isinstance(refusal, LeaseRefusal)
    assert "was used before" in refusal.reason


def test_a_borrower_holds_and_asks_for_a_bounded_number() -> None:
    engine = borrower(replace(CONFIG, max_taken=3))
    for number in range(1, 10):
        engine.handle(ask(number), 0.0)
    assert len(engine.states()) == 3


def test_messages_about_unknown_leases_are_answered_with_release_so_many_times_a_second() -> None:
    engine = lender(config=replace(CONFIG, strange_per_s=3))
    answers = [sent(engine.handle(Received(BORROWER, Renew(lease_id(n), 1)), 0.5)) for n in range(10)]
    assert [len(answer) for answer in answers] == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert len(sent(engine.handle(Received(peer(3), Renew(LEASE, 1)), 0.5))) == 1  # others are not hindered
    assert len(sent(engine.handle(Received(BORROWER, Renew(LEASE, 1)), 1.5))) == 1


@pytest.mark.parametrize("message", [Release(LEASE, "no"), Refuse(LEASE, "no", None)])
def test_a_release_or_refusal_of_nothing_is_answered_by_nothing(message: AnyLeaseMessage) -> None:
    assert borrower().handle(Received(LENDER, message), 0.0) == []


# The contract of engines ------------------------------------------------------------------------------------


def test_early_and_repeated_ticks_change_nothing() -> None:
    two = Two().activate()
    for engine in two.engines.values():
        before = engine.states(), engine.deadline()
        assert engine.handle(Tick(), 0.1) == []
        assert engine.handle(Tick(), 0.1) == []
        assert (engine.states(), engine.deadline()) == before


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([LENDER, BORROWER, peer(3)]),
            MESSAGES.map(lambda message: replace(message, lease=lease_id(message.lease[0] % 4))),
            st.sampled_from([0.0, 0.4, 3.0, 70.0]),
        ),
        max_size=30,
    )
)
def test_nothing_that_a_peer_can_send_raises(
    letters: list[tuple[PeerId, LeaseMessage, float]],
) -> None:
    two = Two(offer=Offer(cpus=5, max_leases=5)).activate()
    two.cut = True
    two.feed(BORROWER, ask(2))
    for engine in two.engines.values():
        now = two.now
        for sender, message, seconds in letters:
            now += seconds
            outputs = engine.handle(Received(sender, message), now)
            assert len(sent(outputs)) <= 20
            assert not [output for output in told(outputs) if isinstance(output, StartWorker)]
            assert len(engine.states()) <= 8
