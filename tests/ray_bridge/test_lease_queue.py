"""Requests that wait at a full lender: order, bounds, patience, and that nothing is set aside for them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.engine import NetworkOutput, Received, Send, Tick
from swarmp2p.identity import PeerId
from swarmp2p.ray_bridge.events import (
    EndLease,
    LeaseOutput,
    LeaseQueued,
    LeaseRefusal,
    Lend,
    Need,
    Offer,
    StopLending,
)
from swarmp2p.ray_bridge.lease import GivenState, LeaseConfig, Leases, TakenState
from swarmp2p.ray_bridge.lease_queue import LeaseQueue
from swarmp2p.ray_bridge.messages import Challenge, LeaseMessage, LeaseRequest, Queued, Refuse, Release

from .keys import VERSIONS, cheap_keys, lease_id, peer
from .two import lender, sent
from .world import Weather, World

ALICE, BOB, CAROL = peer(3), peer(4), peer(5)
LENDER = peer(1)
CONFIG = LeaseConfig(lease_s=60.0)


def ask(number: int, cpus: float = 1, queue_s: float = 60.0) -> LeaseRequest:
    return LeaseRequest(lease_id(number), Need(cpus=cpus), VERSIONS, "c", queue_s=queue_s)


def feed(engine: Leases, sender: PeerId, message: LeaseMessage, now: float = 0.0) -> list[LeaseMessage]:
    return sent(engine.handle(Received(sender, message), now))


def told_to(outputs: Sequence[NetworkOutput | LeaseOutput]) -> list[tuple[PeerId, type[object]]]:
    return [(out.to, type(out.message)) for out in outputs if isinstance(out, Send)]


def full(cpus: float = 1, config: LeaseConfig = CONFIG) -> Leases:
    """A lender all of whose CPUs are set aside for ALICE's lease 1."""
    engine = lender(Offer(cpus=cpus, max_leases=8), config)
    assert isinstance(feed(engine, ALICE, ask(1, cpus))[0], Challenge)
    return engine


# The table ----------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from((ALICE, BOB, CAROL)), max_size=12), st.integers(0, 20))
def test_positions_are_the_order_in_which_requests_are_served(borrowers: list[PeerId], turns: int) -> None:
    queue = LeaseQueue(CONFIG)
    for number, borrower in enumerate(borrowers):
        queue.add(borrower, ask(number), 0.0)
    for _ in range(min(turns, len(queue))):  # whatever went on before
        queue.remove(queue.firsts()[0].lease, served=True)
    told = sorted(queue.leases(), key=queue.position)
    assert [queue.position(lease) for lease in told] == list(range(1, len(queue) + 1))
    served: list[bytes] = []
    while len(queue):
        served.append(queue.firsts()[0].lease)
        queue.remove(served[-1], served=True)
    assert told == served


@given(st.lists(st.sampled_from((ALICE, BOB, CAROL)), min_size=1, max_size=24))
def test_borrowers_take_turns_and_each_ones_own_are_in_order(borrowers: list[PeerId]) -> None:
    queue = LeaseQueue(CONFIG)
    for number, borrower in enumerate(borrowers):
        queue.add(borrower, ask(number), 0.0)
    turns: list[tuple[PeerId, bytes]] = []
    left = {borrower: min(8, borrowers.count(borrower)) for borrower in dict.fromkeys(borrowers)}
    while len(queue):
        first = queue.firsts()[0]
        waits = {borrower for borrower, count in left.items() if count}
        recent = [borrower for borrower, _ in turns[-(len(waits) - 1) :]] if len(waits) > 1 else []
        assert first.borrower not in recent, "nobody has two turns before each of the others has one"
        turns.append((first.borrower, first.lease))
        left[first.borrower] -= 1
        queue.remove(first.lease, served=True)
    for borrower in left:
        own = [lease for who, lease in turns if who == borrower]
        assert own == sorted(own)


def test_the_queue_is_bounded_for_all_and_for_each() -> None:
    queue = LeaseQueue(LeaseConfig(max_queue=5, max_queue_per_peer=2))
    assert [queue.add(ALICE, ask(number), 0.0) for number in range(3)] == [True, True, False]
    assert [queue.add(peer(9 + number), ask(9 + number), 0.0) for number in range(4)] == [True] * 3 + [False]
    assert len(queue) == 5


# The lender ---------------------------------------------------------------------------------------------------


def test_who_would_not_wait_is_refused_and_who_would_is_queued() -> None:
    engine = full()
    (refusal,) = feed(engine, BOB, ask(2, queue_s=0.0))
    assert isinstance(refusal, Refuse)
    assert refusal.retry_after_s == 5.0
    assert feed(engine, BOB, ask(3)) == [Queued(lease_id(3), 1)]
    assert feed(engine, CAROL, ask(4)) == [Queued(lease_id(4), 2)]
    assert feed(engine, BOB, ask(3)) == [Queued(lease_id(3), 1)]  # repeated: where it is now
    assert engine.states()[lease_id(3)] is GivenState.QUEUED


def test_what_can_never_be_given_does_not_wait() -> None:
    (refusal,) = feed(full(), BOB, ask(2, cpus=64))
    assert isinstance(refusal, Refuse)
    assert refusal.retry_after_s is None


def test_room_goes_to_whose_turn_it_is() -> None:
    engine = full()
    for number in (2, 3, 4):
        feed(engine, BOB, ask(number))
    feed(engine, CAROL, ask(5))
    order: list[bytes] = []
    holder, lease = ALICE, lease_id(1)
    for _ in range(4):
        (answer,) = [
            out
            for out in engine.handle(Received(holder, Release(lease, "done")), 1.0)
            if isinstance(out, Send)
        ]
        assert isinstance(answer.message, Challenge)
        holder, lease = answer.to, answer.message.lease
        order.append(lease)
    assert order == [lease_id(2), lease_id(5), lease_id(3), lease_id(4)]


def test_a_small_request_passes_a_large_one_only_for_a_while() -> None:
    engine = full(cpus=4, config=LeaseConfig(challenge_timeout_s=1000.0))
    feed(engine, ALICE, Release(lease_id(1), "done"))
    assert isinstance(feed(engine, ALICE, ask(2, cpus=2))[0], Challenge)
    assert feed(engine, BOB, ask(3, cpus=4)) == [Queued(lease_id(3), 1)]
    assert isinstance(feed(engine, CAROL, ask(4, cpus=1), 1.0)[0], Challenge)
    assert feed(engine, BOB, ask(5, cpus=1), 1.0) == [Queued(lease_id(5), 2)], "not past one's own"
    for now in range(1, 31):
        feed(engine, BOB, ask(3, cpus=4), float(now))
        feed(engine, BOB, ask(5, cpus=1), float(now))
    assert feed(engine, CAROL, ask(6, cpus=1), 30.0) == [Queued(lease_id(6), 2)], "it has waited long enough"
    assert told_to(engine.handle(Tick(), 30.5)) == []
    assert lease_id(3) in engine.states()


def test_patience_and_silence_end_the_waiting() -> None:
    engine = full()
    feed(engine, ALICE, ask(9, queue_s=100.0))
    feed(engine, BOB, ask(2, queue_s=3.0))
    feed(engine, CAROL, ask(3, queue_s=100.0))
    engine.handle(Tick(), 3.0)
    assert told_to(engine.handle(Tick(), 3.0)) == []
    assert lease_id(2) not in engine.states()
    feed(engine, CAROL, ask(3, queue_s=100.0), 4.0)
    assert told_to(engine.handle(Tick(), 5.0)) == [(ALICE, Refuse), (CAROL, Challenge)], (
        "ALICE was silent for 5 s, and the challenge that nobody answered is over"
    )


@pytest.mark.parametrize(
    "end", [StopLending(), EndLease(lease_id(2), "no"), Lend(Offer(cpus=0.5), VERSIONS, None)]
)
def test_who_waits_is_told_when_it_waits_in_vain(end: StopLending | EndLease | Lend) -> None:
    engine = full()
    feed(engine, BOB, ask(2))
    assert (BOB, Refuse) in told_to(engine.handle(end, 1.0))
    assert lease_id(2) not in engine.states()
    assert [type(message) for message in feed(engine, BOB, ask(2), 1.0)] == [Release], (
        "late copies do not revive it"
    )


def test_a_stranger_cannot_touch_who_waits() -> None:
    engine = full()
    feed(engine, BOB, ask(2))
    assert feed(engine, CAROL, Release(lease_id(2), "mine")) == []
    assert isinstance(feed(engine, CAROL, ask(2))[0], Refuse)
    assert engine.states()[lease_id(2)] is GivenState.QUEUED
    assert feed(engine, BOB, Release(lease_id(2), "no more")) == []
    assert lease_id(2) not in engine.states()


# Both sides ---------------------------------------------------------------------------------------------------


def test_from_the_queue_to_a_worker_through_loss() -> None:
    for seed in range(10):
        world = World(seed, Weather(loss=0.05, copies=0.2, delay_s=(0.01, 0.3)))
        world.add(LENDER, Lend(Offer(cpus=1, max_leases=1), VERSIONS, None))
        world.add(ALICE)
        world.add(BOB)
        first = world.request(ALICE, LENDER)
        world.run(20.0)
        second = world.request(BOB, LENDER, queue_s=100.0)
        world.run(40.0)
        outputs = [output for _, output in world.outputs(BOB, second)]
        assert outputs == [LeaseQueued(second, LENDER, 1)]
        world.feed(ALICE, EndLease(first, "done"))
        world.run(110.0)  # the word that it is done may be lost: then its term runs out
        assert world.nodes[BOB].engine.states() == {second: TakenState.ACTIVE}
        world.settle()


def test_a_borrower_that_waited_long_enough_lets_go() -> None:
    world = World(1, Weather())
    world.add(LENDER, Lend(Offer(cpus=1, max_leases=1), VERSIONS, None))
    world.add(ALICE)
    world.add(BOB)
    world.request(ALICE, LENDER)
    world.run(10.0)
    second = world.request(BOB, LENDER, queue_s=7.0)
    world.run(20.0)
    last = world.outputs(BOB, second)[-1][1]
    assert isinstance(last, LeaseRefusal)
    assert last.reason == "there was no room within 7 s"
    assert second not in world.nodes[LENDER].engine.states()


def test_a_hundred_requests_of_one_do_not_keep_out_another() -> None:
    """Each borrower that waits gets its turn after at most one of everybody else's, however many those ask for."""
    config = LeaseConfig(lease_s=60.0)
    engine = Leases(LENDER, cheap_keys(LENDER), World(1, Weather()).rng, config)
    engine.handle(Lend(Offer(cpus=1), VERSIONS, None), 0.0)
    feed(engine, ALICE, ask(1))
    answers = [feed(engine, ALICE, ask(number)) for number in range(2, 102)]
    assert sum(isinstance(answer[0], Queued) for answer in answers) == config.max_queue_per_peer
    assert feed(engine, BOB, ask(200)) == [Queued(lease_id(200), 2)]
