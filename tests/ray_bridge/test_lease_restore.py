"""What is written down, when, and what a peer that starts again makes of it."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from swarmp2p.engine import NetworkEvent, Received, Send, Tick
from swarmp2p.identity import PeerId
from swarmp2p.ray_bridge.events import (
    JAIL,
    EndLease,
    Journal,
    JournalRecord,
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
    RestoreLeases,
    Role,
    StartWorker,
)
from swarmp2p.ray_bridge.lease import Leases, TakenState
from swarmp2p.ray_bridge.messages import Release, Renew

from .keys import VERSIONS, cheap_keys, peer, request
from .two import BORROWER, CONFIG, LEASE, LENDER, Outputs, Two, ask, borrower, lender, sent, told
from .world import Weather, World

TERMS = Lend(Offer(), VERSIONS, None)


def notes(outputs: Outputs) -> list[JournalRecord | None]:
    return [output.record for output in outputs if isinstance(output, Journal)]


class Written(Two):
    """Both sides, with what each has written down, in order."""

    def __init__(self) -> None:
        super().__init__(CONFIG)
        self.records: dict[PeerId, list[JournalRecord | None]] = {LENDER: [], BORROWER: []}

    def handle(self, one: PeerId, event: NetworkEvent | LeaseCommand) -> Outputs:
        outputs = super().handle(one, event)
        self.records[one] += notes(outputs)
        return outputs


def restarted_lender() -> Leases:
    return Leases(LENDER, cheap_keys(LENDER), Random(5), CONFIG)


def active() -> tuple[Written, JournalRecord, JournalRecord]:
    """Both sides with an active lease, and what each has written down of it."""
    written = Written()
    written.activate()
    ours, theirs = written.records[LENDER][-1], written.records[BORROWER][-1]
    assert ours is not None
    assert theirs is not None
    return written, ours, theirs


def test_each_side_writes_before_it_says_or_starts_what_relies_on_it() -> None:
    gives, takes = lender(), borrower()
    (asked,) = sent(takes.handle(ask(), 0.0))
    (challenge,) = sent(gives.handle(Received(BORROWER, asked), 0.0))
    proving = takes.handle(Received(LENDER, challenge), 0.0)
    (proof,) = sent(proving)
    assert [type(output) for output in proving] == [Journal, Send]
    agreeing = gives.handle(Received(BORROWER, proof), 0.0)
    assert [type(output) for output in agreeing] == [Journal, Send, LeaseGranted, OpenPath]
    assert [type(output) for output in gives.handle(PathUp(LEASE), 0.0)] == [Journal, StartWorker]


def test_the_states_that_are_written_and_the_end() -> None:
    written, _, _ = active()
    assert [record and record.state for record in written.records[LENDER]] == [
        "opening",
        "starting",
        "active",
    ]
    assert [record and record.state for record in written.records[BORROWER]] == [
        "proving",
        "starting",
        "active",
    ]
    written.run(100.0)
    assert [len(records) for records in written.records.values()] == [3, 3], "renewals are not written down"
    written.feed(BORROWER, EndLease(LEASE, "done"))
    assert [records[-1] for records in written.records.values()] == [None, None]


def test_a_record_says_what_a_restart_needs() -> None:
    _, ours, theirs = active()
    assert (ours.role, ours.peer, theirs.role, theirs.peer) == (Role.LENDER, BORROWER, Role.BORROWER, LENDER)
    assert ours.agreement == theirs.agreement != b""
    assert ours.need == theirs.need == Need()
    assert ours.cluster == theirs.cluster == "test-cluster"
    assert "secret" not in JournalRecord.__dataclass_fields__


def test_a_refused_request_that_was_written_down_is_forgotten() -> None:
    gives, takes = lender(), borrower()
    (asked,) = sent(takes.handle(ask(), 0.0))
    (challenge,) = sent(gives.handle(Received(BORROWER, asked), 0.0))
    takes.handle(Received(LENDER, challenge), 0.0)
    outputs = takes.handle(EndLease(LEASE, "changed my mind"), 0.0)
    assert [type(output) for output in outputs] == [Send, LeaseRefusal, Journal]


# A lender -----------------------------------------------------------------------------------------------------


def test_a_restarted_lender_tells_its_borrower_and_never_gives_the_lease_again() -> None:
    _, ours, _ = active()
    engine = restarted_lender()
    outputs = engine.handle(RestoreLeases((ours,)), 100.0)
    assert outputs == [Send(BORROWER, Release(LEASE, "the lender restarted")), Journal(LEASE, None)]
    assert engine.states() == {}
    engine.handle(TERMS, 100.0)
    assert sent(engine.handle(Received(BORROWER, request()), 100.0)) == [
        Release(LEASE, "the lender restarted")
    ]
    assert sent(engine.handle(Received(BORROWER, Renew(LEASE, 9)), 100.0)) == [
        Release(LEASE, "the lender restarted")
    ]


# A borrower ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["proving", "starting", "active", "resuming", "whatever"])
def test_what_is_not_resumed_is_released(state: str) -> None:
    _, _, theirs = active()
    engine = borrower()
    outputs = engine.handle(RestoreLeases((replace(theirs, state=state),), resume=False), 100.0)
    assert outputs == [Send(LENDER, Release(LEASE, "the borrower restarted")), Journal(LEASE, None)]
    assert engine.states() == {}


def test_what_was_not_granted_or_is_half_a_gang_or_not_authentic_is_released_even_so() -> None:
    _, _, theirs = active()
    for record in (
        replace(theirs, state="proving", agreement=b""),
        replace(theirs, gang=b"g" * 16),
        replace(theirs, agreement=b"nonsense"),
        replace(theirs, lease=b"x" * 16),
        replace(theirs, peer=peer(9)),
        replace(theirs, sequence=1 << 53),
    ):
        outputs = borrower().handle(RestoreLeases((record,), resume=True), 100.0)
        (message,) = sent(outputs)
        assert isinstance(message, Release), record
        assert notes(outputs) == [None]


def test_a_resumed_lease_goes_on_where_it_was() -> None:
    two, _, theirs = active()
    two.run(20.0)
    two.engines[BORROWER], two.log[BORROWER] = borrower(), []
    two.feed(BORROWER, RestoreLeases((theirs,), resume=True))
    assert [type(output) for output in two.log[BORROWER]] == [LeaseGranted, OpenPath, LeaseActive]
    granted, _, live = two.log[BORROWER]
    assert isinstance(granted, LeaseGranted)
    assert granted.expires == 80.0
    assert live == LeaseActive(LEASE, Role.BORROWER, LENDER, "127.0.0.1", JAIL)
    two.run(200.0)
    assert TakenState.ACTIVE in two.states()
    two.feed(BORROWER, EndLease(LEASE, "done"))
    assert two.states() == []


def test_a_resumed_lease_that_its_lender_gave_up_is_refused() -> None:
    two, _, theirs = active()
    two.feed(LENDER, EndLease(LEASE, "gone"))
    two.engines[BORROWER], two.log[BORROWER] = borrower(), []
    two.feed(BORROWER, RestoreLeases((theirs,), resume=True))
    (refusal,) = two.log[BORROWER]
    assert isinstance(refusal, LeaseRefusal)
    assert two.states() == []


def test_a_lender_that_is_gone_when_the_borrower_comes_back_is_given_up_after_ten_seconds() -> None:
    _, _, theirs = active()
    engine = borrower()
    engine.handle(RestoreLeases((theirs,), resume=True), 100.0)
    assert engine.states() == {LEASE: TakenState.RESUMING}
    while engine.deadline() < 110.0:
        assert told(engine.handle(Tick(), engine.deadline())) == []
    assert engine.deadline() == pytest.approx(110.0)
    assert [type(output) for output in told(engine.handle(Tick(), engine.deadline()))] == [LeaseRefusal]


def test_every_life_renews_with_sequences_above_those_of_the_last() -> None:
    """Also when it crashes again before it is answered, and however many renewals were not written down."""
    _, _, record = active()
    seen = 5000
    for _ in range(3):
        outputs = borrower().handle(RestoreLeases((record,), resume=True), 100.0)
        (renew,) = sent(outputs)
        assert isinstance(renew, Renew)
        assert renew.sequence > seen
        (written,) = notes(outputs)
        assert written is not None
        assert written.state == "resuming"
        seen, record = renew.sequence + 5000, written


def test_a_lease_that_stands_is_not_restored_over() -> None:
    two, _, theirs = active()
    assert two.engines[BORROWER].handle(RestoreLeases((theirs,), resume=True), 0.5) == []
    assert TakenState.ACTIVE in two.states()


def test_both_sides_crash_and_come_back_through_loss() -> None:
    for seed in range(20):
        world = World(seed, Weather(loss=0.1, copies=0.2, delay_s=(0.01, 0.2)))
        world.add(LENDER, TERMS)
        world.add(BORROWER)
        lease = world.request(BORROWER, LENDER)
        world.run(20.0)
        assert isinstance(world.outputs(BORROWER, lease)[-1][1], LeaseActive)
        world.crash(BORROWER)
        world.run(22.0)
        world.restart(BORROWER, resume=True)
        world.run(40.0)
        assert world.nodes[BORROWER].engine.states() == {lease: TakenState.ACTIVE}, seed
        world.crash(LENDER)
        world.restart(LENDER, resume=True)
        world.run(60.0)
        assert isinstance(world.outputs(BORROWER, lease)[-1][1], LeaseEnded)
        world.settle()
