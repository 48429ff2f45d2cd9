"""Peers of before the second form of the lease messages: what they are sent they can read, in both roles.

`first_form` reads a frame as such a peer does: with the fields that its version had, and no others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import pytest

from swarmp2p.engine import PeerUp, Received, Send, Speaks
from swarmp2p.errors import BadMessage
from swarmp2p.identity import PeerId
from swarmp2p.ray_bridge.auth import read_agreement
from swarmp2p.ray_bridge.events import (
    NO_ISOLATION,
    EndLease,
    LeaseActive,
    LeaseRefusal,
    Need,
    PathUp,
    RequestLease,
    TakeBack,
    WorkerStarted,
)
from swarmp2p.ray_bridge.forms import Forms
from swarmp2p.ray_bridge.lease import GivenState, LeaseConfig, Leases, TakenState
from swarmp2p.ray_bridge.messages import Agreement, LeaseMessage, LeaseRequest
from swarmp2p.ray_bridge.wire import FIRST_PROTOCOL_ID, encode, read_message

from .keys import SECRET, VERSIONS, cheap_keys, peer
from .two import BORROWER, LEASE, LENDER, ask, borrower, lender, sent, told

FIRST_FIELDS = {
    "request": "cluster cpus gpus memory_bytes kind region ray python swarmp2p",
    "challenge": "nonce",
    "proof": "envelope",
    "grant": "envelope",
    "refuse": "reason retry_after_s",
    "started": "",
    "renew": "sequence",
    "renewed": "sequence lease_s started",
    "release": "reason",
}
"""Of the messages that the first version had."""

FIRST_TERMS = (
    "lease lender borrower request cluster cpus gpus memory_bytes kind region node_ip issued expires lease_s"
)
ONLY_FIRST = Speaks(LENDER, "lease", True, FIRST_PROTOCOL_ID)


def first_form(message: LeaseMessage) -> LeaseMessage:
    """The message as a peer of the first version reads it; raises BadMessage when it cannot."""
    frame = encode(message)
    fields: dict[str, Any] = msgpack.unpackb(frame, raw=False)
    known = {"type", "lease", *FIRST_FIELDS.get(fields["type"], "no such message").split()}
    if set(fields) != known:
        raise BadMessage(f"{set(fields) ^ known}")
    if isinstance(message, Agreement):
        terms: dict[str, Any] = msgpack.unpackb(msgpack.unpackb(message.envelope)[0], raw=False)
        if set(terms) != set(FIRST_TERMS.split()):
            raise BadMessage(f"{set(terms) ^ set(FIRST_TERMS.split())}")
    return read_message(frame)


def wants(**changes: Any) -> RequestLease:
    return replace(RequestLease(LEASE, LENDER, Need(), VERSIONS, SECRET, "c"), **changes)


def talk(gives: Leases, takes: Leases, until: tuple[GivenState, TakenState], *commands: object) -> None:
    """Pass every message between the two through `first_form`."""
    queue: list[tuple[PeerId, object]] = [(BORROWER, wants()), *((LENDER, command) for command in commands)]
    while queue:
        side, event = queue.pop(0)
        engine = gives if side == LENDER else takes
        for output in engine.handle(event, 0.0):  # type: ignore[arg-type]
            if isinstance(output, Send):
                assert isinstance(output.message, LeaseMessage)
                queue.insert(0, (output.to, Received(side, first_form(output.message))))
    assert [*gives.states().values(), *takes.states().values()] == list(until)


def test_a_whole_lease_in_the_first_form() -> None:
    """The frames are those that both sides' first versions had, so either side may be one of them."""
    gives, takes = lender(), borrower()
    takes.handle(ONLY_FIRST, 0.0)
    commands = (PathUp(LEASE), WorkerStarted(LEASE, "10.0.0.5", (20000, 100)), TakeBack(LEASE, 20.0, "back"))
    talk(gives, takes, (GivenState.ACTIVE, TakenState.ACTIVE), *commands)
    (renew,) = sent(takes.handle(EndLease(LEASE, "done"), 1.0))
    assert first_form(renew) == renew


def test_what_an_old_lender_signs_says_no_isolation() -> None:
    gives, takes = lender(), borrower()
    takes.handle(ONLY_FIRST, 0.0)
    talk(gives, takes, (GivenState.OPENING, TakenState.STARTING))
    gives.handle(PathUp(LEASE), 0.0)
    (started,) = sent(gives.handle(WorkerStarted(LEASE), 0.0))
    (active,) = told(takes.handle(Received(LENDER, started), 0.0))
    assert isinstance(active, LeaseActive)
    assert active.isolation == NO_ISOLATION


def test_a_request_that_left_too_early_is_put_in_other_words() -> None:
    """Which form a peer reads is known only once it said so; the first try may be lost on it."""
    takes = borrower()
    (asked,) = sent(takes.handle(wants(queue_s=30.0), 0.0))
    with pytest.raises(BadMessage):
        first_form(asked)
    (again,) = sent(takes.handle(ONLY_FIRST, 0.1))
    assert first_form(again) == LeaseRequest(LEASE, Need(), VERSIONS, "c", form=1)
    assert takes.handle(ONLY_FIRST, 0.2) == [], "once"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"gang": b"g" * 16}, "gangs"),
        ({"grants": (b"x",)}, "grants"),
        ({"need": Need(labels=(("a", "b"),))}, "labels"),
    ],
)
def test_what_an_old_lender_cannot_do_is_refused_with_the_remedy(changes: dict[str, Any], name: str) -> None:
    early, late = borrower(), borrower()
    early.handle(wants(**changes), 0.0)
    late.handle(ONLY_FIRST, 0.0)
    for outputs in (early.handle(ONLY_FIRST, 0.1), late.handle(wants(**changes), 0.1)):
        (refusal,) = outputs
        assert isinstance(refusal, LeaseRefusal)
        assert (
            refusal.reason
            == f"this lender's swarmp2p is older and knows no {name}; it needs: pip install -U swarmp2p"
        )


def test_a_lender_that_came_back_newer_is_asked_in_full() -> None:
    takes = borrower()
    takes.handle(ONLY_FIRST, 0.0)
    takes.handle(PeerUp(LENDER, ()), 1.0)
    (asked,) = sent(takes.handle(wants(queue_s=30.0), 1.0))
    assert asked == LeaseRequest(LEASE, Need(), VERSIONS, "c", queue_s=30.0)


def test_a_lease_under_way_keeps_its_form() -> None:
    gives, takes = lender(), borrower()
    (asked,) = sent(takes.handle(ask(), 0.0))
    (challenge,) = sent(gives.handle(Received(BORROWER, asked), 0.0))
    (proof,) = sent(takes.handle(Received(LENDER, challenge), 0.0))
    assert takes.handle(ONLY_FIRST, 0.0) == []
    (agreement,) = sent(gives.handle(Received(BORROWER, proof), 0.0))
    assert isinstance(agreement, Agreement)
    terms = read_agreement(agreement.envelope, LENDER, cheap_keys(LENDER).verify)
    assert (terms.isolation, terms.versions) == ("jail", VERSIONS)
    takes.handle(Received(LENDER, agreement), 0.0)
    assert takes.states() == {LEASE: TakenState.STARTING}


def test_so_many_old_peers_are_remembered() -> None:
    forms = Forms(LeaseConfig(max_strangers=3))
    for number in range(5):
        forms.learn(peer(number), first_only=True)
    assert [forms.first_only(peer(number)) for number in range(5)] == [False, False, True, True, True]
