"""Revocations: what a list says, how lists add up, what is forgotten when, and what holders in the DHT keep."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.errors import BadMessage, UsageError
from swarmp2p.identity import verify
from swarmp2p.ray_bridge.grant_terms import MAX_GRANT_S, Terms
from swarmp2p.ray_bridge.grants import Grant
from swarmp2p.ray_bridge.revocations import (
    MAX_ENTRIES,
    MAX_LIST_BYTES,
    MAX_OWNERS,
    MAX_VOID,
    RevocationList,
    RevocationRules,
    Revoked,
    read_revocations,
    revocation_key,
    revoke,
    union,
)
from swarmp2p.signed import sign_map

from .keys import real_identity

OWNER, ALICE, BOB, CAROL = (real_identity(number) for number in (1, 2, 3, 4))
NOW = 1_000_000.0
TERMS = Terms(expires=NOW + 1e6)


def issued(at: float = NOW) -> Grant:
    return Grant.issue(OWNER, ALICE.peer_id, TERMS, at)


def knowing(*lists: RevocationList) -> Revoked:
    revoked = Revoked()
    for told in lists:
        revoked.add(told)
    return revoked


# What a list says -------------------------------------------------------------------------------------------------


def test_everything_comes_back() -> None:
    made = revoke(OWNER, None, NOW, grants=[issued().id], peers=[BOB.peer_id])
    read = read_revocations(made.envelope, OWNER.peer_id, verify)
    assert read == made
    assert len(read.entries) == 2
    after = revoke(OWNER, read, NOW + 1, everything=True)
    assert read_revocations(after.envelope, OWNER.peer_id, verify).since == NOW + 1
    assert after.entries == (), "since says it all"
    assert after.sequence > read.sequence


def test_a_grant_that_is_named_is_void_with_all_that_was_made_of_it() -> None:
    grant, other = issued(), issued(NOW + 1)
    passed = grant.narrow(ALICE, BOB.peer_id, TERMS, NOW)
    sibling = grant.narrow(ALICE, CAROL.peer_id, TERMS, NOW)
    revoked = knowing(revoke(OWNER, None, NOW + 5, grants=[grant.id]))
    for void in (grant, passed, sibling):
        assert revoked.problem(void) == "its owner has revoked the grant"
    assert revoked.problem(other) is None
    one = knowing(revoke(OWNER, None, NOW + 5, grants=[passed.id]))
    assert one.problem(passed) is not None
    assert one.problem(sibling) is None
    assert one.problem(grant) is None


def test_a_peer_that_is_named_has_nothing_until_it_gets_a_new_grant() -> None:
    revoked = knowing(revoke(OWNER, None, NOW + 5, peers=[ALICE.peer_id]))
    before, after = issued(NOW), issued(NOW + 6)
    # what a holder says of the time does not count
    passed = before.narrow(ALICE, BOB.peer_id, TERMS, NOW + 100)
    assert "revoked what peer" in str(revoked.problem(before))
    assert "revoked what peer" in str(revoked.problem(passed)), "nor may others use what it passed on"
    assert revoked.problem(after) is None
    to_carol = Grant.issue(OWNER, CAROL.peer_id, TERMS, NOW)
    assert revoked.problem(to_carol) is None
    assert revoked.problem(to_carol.narrow(CAROL, ALICE.peer_id, TERMS, NOW + 100)) is not None


def test_everything_until_now() -> None:
    revoked = knowing(revoke(OWNER, None, NOW + 5, everything=True))
    assert "all grants of its time" in str(revoked.problem(issued(NOW + 5)))
    assert revoked.problem(issued(NOW + 6)) is None
    assert revoked.problem(Grant.issue(BOB, ALICE.peer_id, TERMS, NOW)) is None, "another owner's"


# How lists add up -------------------------------------------------------------------------------------------------


@given(st.permutations(range(6)), st.integers(0, 2**32))
def test_in_whatever_order_lists_come_the_newest_counts_and_nothing_is_forgotten(
    order: list[int], seed: int
) -> None:
    """An owner whose lists build on one another: whoever has the newest knows all that any list said."""
    rng, grants = Random(seed), [issued(NOW + number) for number in range(6)]
    lists: list[RevocationList] = []
    for number, grant in enumerate(grants):
        lists.append(revoke(OWNER, lists[-1] if lists else None, NOW + 10 + number, grants=[grant.id]))
    heard = [lists[at] for at in order if rng.random() < 0.7]
    revoked = knowing(*heard)
    newest = max(heard, key=lambda told: told.sequence, default=None)
    assert revoked.newest(OWNER.peer_id) is newest
    for number, grant in enumerate(grants):
        known = newest is not None and number <= lists.index(newest)
        assert (revoked.problem(grant) is not None) == known


def test_an_owner_that_lost_its_list_takes_nothing_back() -> None:
    first = revoke(OWNER, None, NOW, grants=[issued(NOW - 1).id])
    second = revoke(OWNER, None, NOW + 1, peers=[BOB.peer_id])
    assert second.sequence > first.sequence
    revoked = knowing(first, second)
    assert revoked.problem(issued(NOW - 1)) is not None
    assert revoked.names_peer(OWNER.peer_id, BOB.peer_id)
    assert not revoked.add(first), "it is not news any more"


def test_two_lists_of_an_owner_make_one() -> None:
    first = revoke(OWNER, None, NOW, grants=[issued(NOW - 1).id])
    second = revoke(OWNER, None, NOW + 1, peers=[BOB.peer_id])
    for both in (union(first, second), union(second, first)):
        assert both is not None
        made = revoke(OWNER, both, NOW + 2)
        assert made.entries == (*first.entries, *second.entries)
        assert made.sequence > second.sequence
    assert union(first, None) == first == union(None, first)
    assert union(None, None) is None


def test_what_expired_grants_were_about_is_left_out() -> None:
    old = revoke(OWNER, None, NOW, grants=[b"a" * 32])
    assert len(revoke(OWNER, old, NOW + MAX_GRANT_S, grants=[b"b" * 32]).entries) == 2
    assert len(revoke(OWNER, old, NOW + MAX_GRANT_S + 1, grants=[b"b" * 32]).entries) == 1


def test_a_full_list() -> None:
    full = revoke(OWNER, None, NOW, grants=[number.to_bytes(32, "big") for number in range(MAX_ENTRIES)])
    assert len(full.envelope) <= MAX_LIST_BYTES
    assert read_revocations(full.envelope, OWNER.peer_id, verify) == full
    with pytest.raises(UsageError, match=r"at most 256 entries.*--everything.*Nothing was revoked"):
        revoke(OWNER, full, NOW + 1, peers=[BOB.peer_id])
    room = revoke(OWNER, full, NOW + 1, everything=True)
    assert len(revoke(OWNER, room, NOW + 2, peers=[BOB.peer_id]).entries) == 1


def test_beyond_what_is_kept_of_an_owner_more_is_void_rather_than_less() -> None:
    revoked, grants = Revoked(), [issued(NOW + number) for number in range(3)]
    for batch in range(9):  # an owner that forgets each list that it made
        ids = [(batch * 1000 + number).to_bytes(32, "big") for number in range(MAX_ENTRIES - 1)]
        own = [grants[0].id] if batch == 0 else []
        revoked.add(revoke(OWNER, None, NOW + 10 + batch, grants=[*own, *ids]))
        assert revoked.sizes()[1] <= MAX_VOID
    assert revoked.problem(grants[0]) is not None
    assert revoked.problem(issued(NOW + 1000)) is None


def test_so_many_owners_are_known_and_those_that_count_are_not_dropped() -> None:
    revoked = knowing(revoke(OWNER, None, NOW, peers=[BOB.peer_id]))
    revoked.keep([OWNER.peer_id])
    others = [real_identity(number) for number in range(10, 20)]
    for number in range(MAX_OWNERS + 20):
        other = others[number % 10]
        # as many owners as wanted without as many signatures
        named = type(other.peer_id)(bytes(other.peer_id)[:-2] + number.to_bytes(2, "big"))
        revoked.add(RevocationList(named, 1))
    assert revoked.newest(OWNER.peer_id) is not None
    assert revoked.sizes()[0] == MAX_OWNERS


# Who signed it ----------------------------------------------------------------------------------------------------


def test_lists_of_others_and_odd_ones() -> None:
    made = revoke(OWNER, None, NOW, peers=[BOB.peer_id])
    with pytest.raises(BadMessage, match="signature"):
        read_revocations(made.envelope, ALICE.peer_id, verify)
    fields = {"owner": OWNER.peer_id, "sequence": 1, "since": -1e12, "void": [[b"n" * 16, NOW]]}
    read_revocations(sign_map("revocations", fields, OWNER.sign), OWNER.peer_id, verify)
    for change in (
        {"owner": ALICE.peer_id},
        {"sequence": -1},
        {"void": [[b"n" * 15, NOW]]},
        {"void": [[b"n" * 16, float("nan")]]},
        {"void": [[b"n" * 16, NOW]] * (MAX_ENTRIES + 1)},
        {"void": "all"},
        {"more": 1},
    ):
        with pytest.raises(BadMessage):
            read_revocations(sign_map("revocations", {**fields, **change}, OWNER.sign), OWNER.peer_id, verify)


def test_what_holders_in_the_dht_keep() -> None:
    rules, key = RevocationRules(verify), revocation_key(OWNER.peer_id)
    first = revoke(OWNER, None, NOW, peers=[BOB.peer_id])
    second = revoke(OWNER, first, NOW + 1, peers=[CAROL.peer_id])
    assert rules.validate(key, first.envelope, NOW)
    assert not rules.validate(revocation_key(ALICE.peer_id), first.envelope, NOW)
    assert not rules.validate(key, b"anything", NOW)
    assert not rules.validate(b"/swarm-revoked/odd", first.envelope, NOW)
    assert not rules.validate(b"odd", first.envelope, NOW)
    assert rules.select(key, [first.envelope, second.envelope]) == 1
    assert rules.select(key, [second.envelope, first.envelope]) == 0
    assert rules.select(key, [b"junk", first.envelope]) == 1


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BadMessage):
        read_revocations(data, OWNER.peer_id, verify)
    assert not RevocationRules(verify).validate(data, data, NOW)
