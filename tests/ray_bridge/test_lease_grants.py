"""Leases under grants: given, bounded, counted, ended with the grant and by revocation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarmp2p.engine import Tick
from swarmp2p.identity import verify
from swarmp2p.ray_bridge.auth import read_agreement
from swarmp2p.ray_bridge.events import (
    LearnRevocations,
    LeaseActive,
    LeaseEnded,
    LeaseGranted,
    Lend,
    Need,
    Offer,
    Revoke,
    StartWorker,
    StopWorker,
)
from swarmp2p.ray_bridge.lease import GivenState
from swarmp2p.ray_bridge.messages import Agreement, Challenge, Queued, Refuse, Release, Renew, Renewed
from swarmp2p.ray_bridge.revocations import RevocationList, revoke

from .granted import (
    ALICE,
    BOB,
    LENDER,
    NOW,
    OWNER,
    TERMS,
    answers,
    grant,
    lease,
    lender,
    refusal,
    request,
    send,
)
from .keys import VERSIONS, lease_id


def test_a_grant_is_as_good_as_the_lenders_list() -> None:
    engine, passed = lender(), grant().narrow(ALICE, BOB.peer_id, TERMS.within(cpus=1), NOW)
    out = lease(engine, BOB, request(1, passed))
    assert [type(one) for one in out if isinstance(one, LeaseGranted | StartWorker | LeaseActive)] == [
        LeaseGranted,
        StartWorker,
        LeaseActive,
    ]
    assert engine.states() == {lease_id(1): GivenState.ACTIVE}


def test_without_one_nobody_is_allowed() -> None:
    assert "has not allowed peer" in refusal(lender(), ALICE, request(1, ()))
    assert "given to another peer" in refusal(lender(), BOB, request(1, grant()))
    assert "covers 2 CPUs" in refusal(lender(), ALICE, request(1, grant(), Need(cpus=3)))


def test_who_is_on_the_list_needs_none() -> None:
    engine = lender()
    terms = Lend(Offer(cpus=64), VERSIONS, frozenset({BOB.peer_id}), frozenset())
    engine.handle(terms, NOW)
    assert isinstance(answers(send(engine, BOB.peer_id, request(1, (b"junk",))))[0], Challenge)
    assert "do not count here" in refusal(engine, ALICE, request(2, grant()))


def test_a_lease_ends_with_its_grant_however_often_it_is_renewed() -> None:
    for terms, left_s in ((replace(TERMS, lease_s=100), 100), (replace(TERMS, expires=NOW + 130), 130)):
        engine = lender()
        out = lease(engine, ALICE, request(1, grant(terms=terms)))
        agreed = next(one for one in answers(out) if isinstance(one, Agreement))
        assert read_agreement(agreed.envelope, LENDER.peer_id, verify).lease_s == 60.0
        now = NOW
        for sequence in range(1, left_s // 5):
            now = NOW + 5 * sequence
            said = answers(send(engine, ALICE.peer_id, Renew(lease_id(1), sequence), now))
            renewed = next(one for one in said if isinstance(one, Renewed))
            assert isinstance(renewed, Renewed)
            assert now + renewed.lease_s <= NOW + left_s
        assert engine.deadline() == NOW + left_s
        out = list(engine.handle(Tick(), NOW + left_s))
        assert [one.reason for one in out if isinstance(one, LeaseEnded)] == ["its grant is over"]
        assert isinstance(answers(out)[0], Release)


def test_the_first_term_is_no_longer_than_the_grant() -> None:
    engine = lender()
    out = lease(engine, ALICE, request(1, grant(terms=replace(TERMS, lease_s=20))))
    agreed = next(one for one in answers(out) if isinstance(one, Agreement))
    terms = read_agreement(agreed.envelope, LENDER.peer_id, verify)
    assert (terms.lease_s, terms.expires) == (20, NOW + 20)
    late = grant(terms=replace(TERMS, expires=NOW + 0.5))
    assert "leaves no time" in refusal(engine, ALICE, request(2, late))


def test_so_many_leases_at_a_time() -> None:
    engine, root = lender(), grant(terms=replace(TERMS, leases=2))
    bobs = root.narrow(ALICE, BOB.peer_id, root.terms, NOW)
    lease(engine, ALICE, request(1, root))
    (challenge,) = answers(send(engine, BOB.peer_id, request(2, bobs)))
    assert isinstance(challenge, Challenge), "a reservation counts"
    (answer,) = answers(send(engine, BOB.peer_id, request(3, bobs)))
    assert isinstance(answer, Refuse)
    assert (answer.reason, answer.retry_after_s) == (
        "the grant is for 2 leases at a time, and as many stand",
        5.0,
    )
    send(engine, ALICE.peer_id, Release(lease_id(1), "done"))
    assert isinstance(answers(send(engine, BOB.peer_id, request(4, bobs)))[0], Challenge)


def told(one: RevocationList) -> LearnRevocations:
    return LearnRevocations(one.owner, one.envelope)


@pytest.mark.parametrize("what", ["grant", "link", "peer", "everything"])
def test_a_revocation_ends_the_worker_at_once(what: str) -> None:
    engine, root = lender(), grant()
    bobs = root.narrow(ALICE, BOB.peer_id, TERMS, NOW)
    lease(engine, BOB, request(1, bobs))
    lease(engine, ALICE, request(2, grant(issued=NOW + 20)))
    send(engine, BOB.peer_id, request(3, bobs))
    match what:
        case "grant":
            one = revoke(OWNER, None, NOW + 4, grants=[root.id])
        case "link":
            one = revoke(OWNER, None, NOW + 4, grants=[bobs.id])
        case "peer":
            one = revoke(OWNER, None, NOW + 4, peers=[BOB.peer_id])
        case _:
            one = revoke(OWNER, None, NOW + 4, everything=True)
    out = list(engine.handle(told(one), NOW + 4))
    assert [stop.lease for stop in out if isinstance(stop, StopWorker)] == [lease_id(1)]
    assert [type(message) for message in answers(out)] == [Release, Refuse], "the reservation, too"
    assert engine.states() == {lease_id(2): GivenState.ACTIVE}
    assert "revoked" in refusal(engine, BOB, request(4, bobs), NOW + 6)
    assert engine.handle(told(one), NOW + 7) == [], "no news"


def test_lists_of_others_end_nothing() -> None:
    engine = lender()
    lease(engine, ALICE, request(1, grant()))
    for one in (
        told(revoke(BOB, None, NOW, peers=[ALICE.peer_id], everything=True)),
        LearnRevocations(OWNER.peer_id, revoke(BOB, None, NOW, everything=True).envelope),
        LearnRevocations(OWNER.peer_id, b"junk"),
    ):
        assert engine.handle(one, NOW) == []
    assert engine.states() == {lease_id(1): GivenState.ACTIVE}


def test_the_lenders_own_list_ends_whatever_it_gave() -> None:
    engine = lender()
    engine.handle(Lend(Offer(cpus=64, max_leases=8), VERSIONS, None), NOW)
    lease(engine, ALICE, request(1, ()))
    lease(engine, BOB, request(2, ()))
    out = engine.handle(told(revoke(LENDER, None, NOW, peers=[ALICE.peer_id])), NOW)
    assert [stop.lease for stop in out if isinstance(stop, StopWorker)] == [lease_id(1)]
    assert "revoked this peer" in refusal(engine, ALICE, request(3, ()))
    newer = grant(by=LENDER, issued=NOW + 1)
    assert isinstance(answers(send(engine, ALICE.peer_id, request(4, newer), NOW + 1))[0], Challenge)


def test_grants_and_borrowers_that_the_application_names() -> None:
    engine, root = lender(), grant()
    lease(engine, ALICE, request(1, root))
    lease(engine, BOB, request(2, grant(BOB)))
    out = engine.handle(Revoke(grants=frozenset({root.id}), reason="enough"), NOW)
    assert [(stop.lease, stop.reason) for stop in out if isinstance(stop, StopWorker)] == [
        (lease_id(1), "enough")
    ]
    out = engine.handle(Revoke(borrowers=frozenset({BOB.peer_id})), NOW)
    assert [stop.lease for stop in out if isinstance(stop, StopWorker)] == [lease_id(2)]


def test_a_queue_is_for_who_lacks_room_and_not_for_who_lacks_a_grant() -> None:
    """Waiting for others would not help it, and others would wait for it in the end."""
    engine, root = lender(max_leases=1), grant(terms=replace(TERMS, leases=1))
    bobs = grant(BOB)
    lease(engine, BOB, request(1, bobs))
    first, second = (replace(request(number, root), queue_s=60.0) for number in (2, 3))
    for asked in (first, second):
        assert isinstance(answers(send(engine, ALICE.peer_id, asked))[0], Queued), "none stands under it yet"
    out = engine.handle(
        Lend(Offer(cpus=64, max_leases=8), VERSIONS, frozenset(), frozenset({OWNER.peer_id})), NOW
    )
    challenge, refused = answers(out)
    assert isinstance(challenge, Challenge)
    assert isinstance(refused, Refuse)
    assert (refused.lease, refused.retry_after_s) == (second.lease, 5.0)
    assert "1 leases at a time" in refused.reason
    third = replace(request(4, root), queue_s=60.0)
    assert "1 leases at a time" in refusal(engine, ALICE, third), "at once"
