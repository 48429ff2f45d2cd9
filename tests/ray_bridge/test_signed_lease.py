"""A lease under both signatures: whole or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.engine import Received
from swarmp2p.identity import PeerId
from swarmp2p.ray_bridge.auth import NotAuthentic, make_proof
from swarmp2p.ray_bridge.events import EndLease, Journal, PathUp, RestoreLeases, WorkerStarted
from swarmp2p.ray_bridge.messages import Challenge, Proof, Refuse
from swarmp2p.ray_bridge.signed_lease import SignedLease

from .keys import SECRET, VERSIONS, cheap_keys, lease_id, peer, request
from .two import BORROWER, LEASE, LENDER, Two, ask, borrower, lender, sent

VERIFY = cheap_keys(peer(9)).verify


def signed(one: PeerId = BORROWER, two: Two | None = None) -> SignedLease:
    shown = (two or Two().activate()).engines[one].signed(LEASE)
    assert shown is not None
    return shown


def test_both_sides_can_show_it_and_a_third_can_check_it() -> None:
    two = Two().activate()
    two.run(30.0)
    assert signed(LENDER, two) == signed(BORROWER, two)
    facts = SignedLease.from_bytes(signed(two=two).to_bytes()).check(VERIFY)
    assert facts.request == request()
    assert facts.head == SECRET.address
    assert (facts.terms.lender, facts.terms.borrower, facts.terms.versions) == (LENDER, BORROWER, VERSIONS)
    assert facts.standing is not None
    assert facts.standing.sequence > 20
    assert SECRET.token.encode() in signed(two=two).to_bytes(), "the stand-in for a box hides nothing"


def test_it_is_there_from_the_agreement_to_the_end() -> None:
    two = Two()
    assert two.engines[BORROWER].signed(LEASE) is None
    two.feed(BORROWER, ask())
    assert signed(two=two).check(VERIFY).standing is None
    two.feed(BORROWER, EndLease(LEASE, "done"))
    assert [engine.signed(LEASE) for engine in two.engines.values()] == [None, None]


def test_a_borrower_that_restarts_still_has_it() -> None:
    takes, record = borrower(), None
    gives = lender()
    (asked,) = sent(takes.handle(ask(), 0.0))
    (challenge,) = sent(gives.handle(Received(BORROWER, asked), 0.0))
    (proof,) = sent(takes.handle(Received(LENDER, challenge), 0.0))
    (agreement,) = sent(gives.handle(Received(BORROWER, proof), 0.0))
    for output in takes.handle(Received(LENDER, agreement), 0.0):
        record = output.record if isinstance(output, Journal) else record
    assert record is not None
    again = borrower()
    again.handle(RestoreLeases((record,), resume=True), 1.0)
    shown = again.signed(LEASE)
    assert shown is not None
    assert shown == takes.signed(LEASE) == gives.signed(LEASE)
    shown.check(VERIFY)


def test_parts_of_different_leases_are_none() -> None:
    two = Two()
    two.feed(BORROWER, ask(2))
    two.feed(LENDER, PathUp(lease_id(2)))
    two.feed(LENDER, WorkerStarted(lease_id(2)))
    ours, other = signed(), two.engines[BORROWER].signed(lease_id(2))
    assert other is not None
    other.check(VERIFY)
    for part in ("request", "proof", "agreement", "standing"):
        with pytest.raises(NotAuthentic):
            replace(ours, **{part: getattr(other, part)}).check(VERIFY)
    for swapped in (replace(ours, lender=BORROWER), replace(ours, borrower=LENDER)):
        with pytest.raises(NotAuthentic):
            swapped.check(VERIFY)


@settings(max_examples=300)
@given(st.data())
def test_no_byte_can_be_changed(data: st.DataObject) -> None:
    whole = bytearray(signed().to_bytes())
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(NotAuthentic):
        SignedLease.from_bytes(bytes(whole)).check(VERIFY)


def test_a_proof_that_says_another_head_than_its_secret_is_refused() -> None:
    gives, keys = lender(), cheap_keys(BORROWER)
    (challenge,) = sent(gives.handle(Received(BORROWER, request()), 0.0))
    assert isinstance(challenge, Challenge)

    def seal_another(to: PeerId, box: bytes) -> bytes:
        return keys.seal_to(to, box.replace(b":6379", b":6380"))

    lying = replace(keys, seal_to=seal_another)
    proof = make_proof(lying, request(), challenge.nonce, LENDER, BORROWER, SECRET, 5.0)
    (refusal,) = sent(gives.handle(Received(BORROWER, Proof(LEASE, proof)), 0.0))
    assert isinstance(refusal, Refuse)
    assert refusal.reason == "the proof says another address of the head than the join secret"
