"""What leases keep within bounds, and what is refused before it is asked."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.engine import Received, Tick
from swarmp2p.identity import PeerId
from swarmp2p.ray_bridge.events import (
    EndLease,
    JoinSecret,
    LeaseRefusal,
    Need,
    Offer,
    RequestLease,
    StartWorker,
    Versions,
)
from swarmp2p.ray_bridge.finished import Finished
from swarmp2p.ray_bridge.lease import GivenState, Leases, TakenState
from swarmp2p.ray_bridge.messages import (
    AnyLeaseMessage,
    Challenge,
    LeaseMessage,
    Refuse,
    Release,
    Renew,
)

from .keys import lease_id, peer, real_identity, real_keys, request
from .test_messages import MESSAGES
from .two import BORROWER, CONFIG, LEASE, LENDER, Two, ask, borrower, lender, sent, told

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
