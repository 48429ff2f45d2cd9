"""What a lender does with grants: what covers a request, what it costs to find out, which leases a list ends."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.identity import PeerId, verify
from swarmp2p.ray_bridge.events import Need
from swarmp2p.ray_bridge.grant_book import (
    CHECKS_PER_S,
    MAX_BORROWERS,
    MAX_LINKS_KNOWN,
    GrantBook,
)
from swarmp2p.ray_bridge.grant_terms import Terms
from swarmp2p.ray_bridge.grants import Grant
from swarmp2p.ray_bridge.policy import Refusal
from swarmp2p.ray_bridge.revocations import revoke
from swarmp2p.signed import pack

from .keys import peer, real_identity

OWNER, ALICE, BOB, LENDER = (real_identity(number) for number in (1, 2, 3, 4))
NOW = 1_000_000.0
TERMS = Terms(expires=NOW + 100, cpus=2)
SMALL = Need()
GRANTORS = frozenset({OWNER.peer_id})


class Counted:
    """A lender's book that counts the signatures it checks."""

    def __init__(self) -> None:
        self.checked = 0
        self.book = GrantBook(LENDER.peer_id, self._verify, 30.0)

    def _verify(self, signer: PeerId, data: bytes, signature: bytes) -> bool:
        self.checked += 1
        return verify(signer, data, signature)

    def read(
        self, grant: Grant, who: PeerId = ALICE.peer_id, need: Need = SMALL, now: float = NOW
    ) -> Grant | Refusal:
        return self.book.read(grant.envelopes, who, need, GRANTORS, now)

    def problem(self, grant: Grant, who: PeerId = ALICE.peer_id, need: Need = SMALL, now: float = NOW) -> str:
        found = self.read(grant, who, need, now)
        assert isinstance(found, Refusal)
        return found.reason


def to_alice(terms: Terms = TERMS) -> Grant:
    return Grant.issue(OWNER, ALICE.peer_id, terms, NOW)


def test_a_grant_covers_what_it_says() -> None:
    counted, grant = Counted(), to_alice()
    assert counted.read(grant, need=Need(cpus=2)) == grant
    passed = grant.narrow(ALICE, BOB.peer_id, TERMS.within(cpus=1), NOW)
    assert counted.read(passed, who=BOB.peer_id) == passed
    assert counted.checked == 2, "its beginning was known"
    assert counted.read(passed, who=BOB.peer_id) == passed
    assert counted.checked == 2


def test_the_lenders_own_key_counts() -> None:
    own = Grant.issue(LENDER, ALICE.peer_id, TERMS, NOW)
    assert Counted().read(own) == own


def test_what_does_not_cover_costs_no_signature() -> None:
    counted, grant = Counted(), to_alice()
    for problem, said in (
        (counted.problem(grant, who=BOB.peer_id), "given to another peer"),
        (counted.problem(Grant.issue(BOB, ALICE.peer_id, TERMS, NOW)), "do not count here; ask"),
        (counted.problem(grant, need=Need(cpus=3)), "covers 2 CPUs"),
        (counted.problem(grant, now=NOW + 100), "expired"),
        (counted.problem(to_alice(replace(TERMS, lenders=(BOB.peer_id,)))), "other lenders"),
        (counted.problem(grant, now=NOW - 31), "later than now; set both"),
        (counted.problem(Grant((), ())), "1 to 8 links"),
    ):
        assert said in problem
    assert counted.checked == 0


def test_a_forged_signature_is_found_each_time() -> None:
    counted, grant = Counted(), to_alice()
    forged = replace(grant, envelopes=(pack([payload(grant), b"f" * 64]),))
    for _ in range(2):
        assert "not genuine" in counted.problem(forged)
    assert counted.read(grant) == grant
    assert "not genuine" in counted.problem(forged), "the same link with another signature"


def payload(grant: Grant) -> bytes:
    import msgpack

    found: bytes = msgpack.unpackb(grant.envelopes[-1])[0]
    return found


def test_each_borrower_has_so_many_signatures_a_second() -> None:
    counted, grant = Counted(), to_alice()
    forged = replace(grant, envelopes=(pack([payload(grant), b"f" * 64]),))
    told = [counted.read(forged) for _ in range(CHECKS_PER_S + 50)]
    assert counted.checked == CHECKS_PER_S
    assert told[-1] == Refusal("it has checked enough of your grants for this second", 1.0)
    bobs = Grant.issue(OWNER, BOB.peer_id, TERMS, NOW)
    assert counted.read(bobs, who=BOB.peer_id) == bobs, "others do not wait for it"
    assert counted.read(grant, now=NOW + 1.0) == grant, "nor does it a second later"


def test_tables_are_bounded() -> None:
    book = GrantBook(LENDER.peer_id, lambda signer, data, signature: True, 30.0)
    for number in range(MAX_LINKS_KNOWN + 10):
        who = PeerId.from_public_key(number.to_bytes(32, "big"))
        grant = Grant.issue(OWNER, who, TERMS, NOW)
        assert book.read(grant.envelopes, who, SMALL, GRANTORS, NOW) == grant
    assert book.sizes() == (MAX_LINKS_KNOWN, MAX_BORROWERS)


# How many ---------------------------------------------------------------------------------------------------------


def test_every_link_counts_its_leases() -> None:
    root = to_alice(replace(TERMS, leases=3))
    one = root.narrow(ALICE, BOB.peer_id, root.terms.within(leases=2), NOW)
    other = root.narrow(ALICE, peer(9), root.terms, NOW)
    crowded = GrantBook.crowded
    assert crowded(one, [one]) is None
    assert crowded(one, [one, one]) == Refusal("the grant is for 2 leases at a time, and as many stand", 5.0)
    assert crowded(other, [one, one]) is None
    full = crowded(other, [one, one, other])
    assert full is not None, "three of the root's, whoever holds them"
    assert "3 leases" in full.reason
    assert crowded(to_alice(), [to_alice()] * 50) is None
    never = crowded(to_alice(replace(TERMS, leases=0)), [])
    assert never is not None
    assert never.retry_after_s is None


def test_when_a_lease_is_over() -> None:
    assert GrantBook.ends(to_alice(), NOW) == NOW + 100
    assert GrantBook.ends(to_alice(replace(TERMS, lease_s=30)), NOW) == NOW + 30
    assert GrantBook.ends(to_alice(replace(TERMS, lease_s=30)), NOW + 90) == NOW + 100


# Revocations ------------------------------------------------------------------------------------------------------


def test_what_a_list_ends() -> None:
    counted, grant = Counted(), to_alice()
    book = counted.book
    told = revoke(OWNER, None, NOW + 5, grants=[grant.id])
    assert book.learn(OWNER.peer_id, told.envelope) == told
    assert book.learn(OWNER.peer_id, told.envelope) is None, "no news"
    assert book.learn(LENDER.peer_id, told.envelope) is None, "another owner's"
    assert "revoked the grant" in str(book.voids(told, grant, ALICE.peer_id))
    assert book.voids(told, None, ALICE.peer_id) is None, "the lender allowed it by name"
    own = Grant.issue(LENDER, ALICE.peer_id, TERMS, NOW)
    assert book.voids(told, own, ALICE.peer_id) is None
    assert "revoked the grant" in counted.problem(grant)


def test_the_lenders_own_list_ends_what_was_allowed_by_name() -> None:
    book = Counted().book
    told = revoke(LENDER, None, NOW, peers=[ALICE.peer_id])
    book.learn(LENDER.peer_id, told.envelope)
    assert "revoked this peer" in str(book.voids(told, None, ALICE.peer_id))
    assert book.voids(told, None, BOB.peer_id) is None
    assert book.banned(ALICE.peer_id)
    assert not book.banned(BOB.peer_id)
    others = revoke(OWNER, None, NOW, peers=[BOB.peer_id])
    book.learn(OWNER.peer_id, others.envelope)
    assert book.voids(others, None, BOB.peer_id) is None
    assert not book.banned(BOB.peer_id)


@given(st.lists(st.binary(max_size=80), max_size=10))
def test_anything_is_answered(chain: list[bytes]) -> None:
    assert isinstance(Counted().book.read(chain, ALICE.peer_id, Need(), GRANTORS, NOW), Refusal)
