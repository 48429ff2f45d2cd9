"""Grants: what they say, that narrowing never widens, and what is said of one that is not what it should be."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import base58
import msgpack
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from swarmp2p.errors import BadMessage, GrantError, UsageError
from swarmp2p.identity import Identity, PeerId, verify
from swarmp2p.ray_bridge.events import Need
from swarmp2p.ray_bridge.grant_terms import MAX_GRANT_S, MAX_LENDERS, Terms
from swarmp2p.ray_bridge.grants import MAX_LINK_BYTES, MAX_LINKS, Grant, is_grant, read_grant
from swarmp2p.signed import pack, sign_map

from .keys import real_identity

OWNER, ALICE, BOB, CAROL = (real_identity(number) for number in (1, 2, 3, 4))
LENDER, OTHER = real_identity(5).peer_id, real_identity(6).peer_id
NOW = 1_000_000.0
TERMS = Terms(expires=NOW + 3600, cpus=4, gpus=1, memory_bytes=8 << 30, leases=2, lease_s=600)


def given_to_alice(terms: Terms = TERMS) -> Grant:
    return Grant.issue(OWNER, ALICE.peer_id, terms, NOW)


# What it says -----------------------------------------------------------------------------------------------------


def test_everything_comes_back() -> None:
    terms = replace(TERMS, not_before=NOW - 5, lenders=(LENDER, OTHER))
    made = given_to_alice(terms).narrow(ALICE, BOB.peer_id, terms.within(cpus=2, lenders=[LENDER]), NOW + 1)
    read = Grant.parse(made.text, verify)
    assert read == made
    assert (read.owner, read.holder, len(read.links)) == (OWNER.peer_id, BOB.peer_id, 2)
    assert read.terms == replace(terms, cpus=2, lenders=(LENDER,))
    assert read.id != read.links[0].id
    assert not read.is_ticket
    assert is_grant(made.text)
    assert read.text.startswith("grant1_")


def test_a_grant_without_bounds_has_none() -> None:
    read = Grant.parse(given_to_alice(Terms(expires=NOW + 1)).text, verify)
    assert read.terms == Terms(expires=NOW + 1)
    assert read.terms.refusal(Need(cpus=1e6, gpus=1e6, memory_bytes=1 << 50), LENDER, NOW, 0.0) is None


def test_it_is_short_enough_for_an_invite() -> None:
    bounded = given_to_alice(replace(TERMS, lenders=(LENDER, OTHER)))
    assert len(bounded.to_bytes()) < 350
    assert len(given_to_alice(Terms(expires=NOW + 1)).to_bytes()) < 220


def test_the_longest_link_fits() -> None:
    lenders = tuple(real_identity(number).peer_id for number in range(MAX_LENDERS))
    terms = replace(TERMS, not_before=NOW - 1, lenders=lenders)
    grant = given_to_alice(terms).narrow(ALICE, BOB.peer_id, terms, NOW)
    assert max(len(envelope) for envelope in grant.envelopes) <= MAX_LINK_BYTES


# Narrowing --------------------------------------------------------------------------------------------------------

amounts = st.none() | st.floats(0, 64)
counts = st.none() | st.integers(0, 64)
peers = st.lists(st.sampled_from([real_identity(n).peer_id for n in range(4)]), max_size=3, unique=True)
terms_made = st.builds(
    Terms,
    expires=st.floats(NOW + 50, NOW + 100),
    not_before=st.just(-math.inf) | st.floats(NOW - 100, NOW + 40),
    cpus=amounts,
    gpus=amounts,
    memory_bytes=st.none() | st.integers(0, 1 << 34),
    leases=counts,
    lease_s=amounts,
    lenders=peers.map(tuple),
)
needs = st.builds(
    Need, cpus=st.floats(0, 80), gpus=st.floats(0, 80), memory_bytes=st.sampled_from([0, 1, 1 << 33, 1 << 40])
)
lenders_asked = st.sampled_from([real_identity(n).peer_id for n in range(6)])


@given(terms_made, terms_made, needs, lenders_asked, st.floats(NOW - 200, NOW + 200))
def test_what_is_no_widening_allows_nothing_more(
    parent: Terms, child: Terms, need: Need, lender: PeerId, now: float
) -> None:
    assume(child.widening(parent) is None)
    if child.refusal(need, lender, now, 0.0) is None:
        assert parent.refusal(need, lender, now, 0.0) is None
    for ours, theirs in ((child.leases, parent.leases), (child.lease_s, parent.lease_s)):
        assert theirs is None or (ours is not None and ours <= theirs)


@given(terms_made, st.data())
def test_narrowing_gives_terms_within_or_says_so(parent: Terms, data: st.DataObject) -> None:
    wish = data.draw(terms_made)
    changes: dict[str, Any] = {
        name: getattr(wish, name)
        for name in ("expires", "cpus", "gpus", "memory_bytes", "leases", "lease_s", "lenders")
        if data.draw(st.booleans())
    }
    try:
        child = parent.within(**changes)
    except UsageError:
        return
    assert child.widening(parent) is None
    assert parent.widening(parent) is None


@given(terms_made, terms_made)
def test_a_chain_that_widens_is_no_grant_whoever_signed_it(parent: Terms, child: Terms) -> None:
    """Alice signs what Grant.narrow would refuse to sign, with her own genuine key."""
    grant = given_to_alice(parent)
    forged = Grant.issue(ALICE, BOB.peer_id, child, NOW)  # for its fields
    fields = msgpack.unpackb(msgpack.unpackb(forged.envelopes[0])[0]) | {"up": grant.id}
    chain = [*grant.envelopes, sign_map("lease-grant-link", fields, ALICE.sign)]
    if child.widening(parent) is None:
        assert read_grant(chain).verify(verify)
    else:
        with pytest.raises(BadMessage, match="widens"):
            read_grant(chain)


@pytest.mark.parametrize(
    "changes",
    [
        {"cpus": 5},
        {"gpus": 2},
        {"memory_bytes": 9 << 30},
        {"leases": 3},
        {"lease_s": 601},
        {"expires": NOW + 3601},
        {"lenders": [CAROL.peer_id]},
        {"not_before": NOW - 10},
    ],
)
def test_each_widening_is_an_error(changes: dict[str, Any]) -> None:
    parent = replace(TERMS, lenders=(LENDER,), not_before=NOW)
    with pytest.raises(UsageError, match=r"can only be narrowed: .*Nothing was signed"):
        parent.within(**changes)
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}
    wide = replace(parent, **fields)
    with pytest.raises(UsageError, match="can only be narrowed"):
        given_to_alice(parent).narrow(ALICE, BOB.peer_id, wide, NOW)


def test_only_its_holder_passes_it_on() -> None:
    with pytest.raises(UsageError, match=r"another key\. Nothing was signed"):
        given_to_alice().narrow(BOB, CAROL.peer_id, TERMS, NOW)


def test_it_is_passed_on_seven_times() -> None:
    grant, keys = given_to_alice(), [ALICE, *(real_identity(number) for number in range(20, 40))]
    for by, to in pairwise(keys[:MAX_LINKS]):
        grant = grant.narrow(by, to.peer_id, TERMS, NOW)
    assert len(grant.links) == MAX_LINKS
    assert Grant.parse(grant.text, verify) == grant
    with pytest.raises(UsageError, match="7 times, which is the most; ask its owner"):
        grant.narrow(keys[MAX_LINKS - 1], BOB.peer_id, TERMS, NOW)


# Tickets ----------------------------------------------------------------------------------------------------------


def test_a_ticket_is_for_whoever_has_it() -> None:
    key = Identity(b"t" * 32)
    ticket = Grant.issue(OWNER, key.peer_id, TERMS, NOW).as_ticket(b"t" * 32)
    assert ticket.is_ticket
    assert ticket.text.startswith("grant1secret_")
    assert "7474" not in repr(ticket)
    read = Grant.parse(ticket.text, verify)
    for who in (BOB, CAROL):
        redeemed = read.redeem(who.peer_id, NOW + 5)
        assert (redeemed.holder, redeemed.owner, redeemed.terms) == (who.peer_id, OWNER.peer_id, TERMS)
        assert redeemed.verify(verify)
        assert not redeemed.secret, "lenders never see it"
    assert given_to_alice().redeem(BOB.peer_id, NOW) == given_to_alice()


def test_a_wrong_secret_makes_no_ticket() -> None:
    with pytest.raises(UsageError, match="not the secret"):
        given_to_alice().as_ticket(b"x" * 32)
    raw = pack([list(given_to_alice().envelopes), b"x" * 32])
    with pytest.raises(BadMessage, match="not the secret"):
        Grant.from_bytes(raw, verify)


# Forgeries --------------------------------------------------------------------------------------------------------


def test_a_link_of_somebody_else_is_found_out() -> None:
    grant = given_to_alice()
    fields = msgpack.unpackb(msgpack.unpackb(grant.envelopes[0])[0])
    forged = read_grant([sign_map("lease-grant-link", fields | {"cpus": 64.0}, ALICE.sign)])
    assert not forged.verify(verify)
    with pytest.raises(GrantError, match="not genuine"):
        Grant.parse(forged.text, verify)
    other_use = read_grant([sign_map("lease-proof", fields, OWNER.sign)])
    assert not other_use.verify(verify)


def test_a_chain_that_does_not_hang_together() -> None:
    grant = given_to_alice().narrow(ALICE, BOB.peer_id, TERMS, NOW)
    elsewhere = given_to_alice(replace(TERMS, cpus=3)).narrow(ALICE, BOB.peer_id, replace(TERMS, cpus=2), NOW)
    by_bob = Grant.issue(BOB, CAROL.peer_id, TERMS, NOW)
    for chain in (
        (grant.envelopes[0], elsewhere.envelopes[1]),
        (grant.envelopes[0], by_bob.envelopes[0]),
        (grant.envelopes[0], grant.envelopes[0]),
        (grant.envelopes[1], grant.envelopes[0]),
        (*grant.envelopes, grant.envelopes[1]),
    ):
        with pytest.raises(BadMessage, match=r"does not follow|lacks its beginning"):
            read_grant(chain)
    with pytest.raises(BadMessage, match="lacks its beginning"):
        read_grant(grant.envelopes[1:])
    with pytest.raises(BadMessage, match="1 to 8 links"):
        read_grant([])
    with pytest.raises(BadMessage, match="1 to 8 links"):
        read_grant([grant.envelopes[0]] * 9)
    with pytest.raises(BadMessage, match="no bytes"):
        read_grant(["text"])


@pytest.mark.parametrize(
    "change",
    [
        {"cpus": math.nan},
        {"cpus": -1.0},
        {"cpus": True},
        {"end": math.inf},
        {"end": "soon"},
        {"mem": 1.5},
        {"n": -1},
        {"lenders": []},
        {"lenders": [b"short"]},
        {"lenders": [b"k" * 32] * 17},
        {"by": b"k" * 31},
        {"to": 7},
        {"up": b""},
        {"also": "something new"},
        {"end": NOW + MAX_GRANT_S + 1},
    ],
)
def test_a_link_that_says_something_odd_is_refused(change: dict[str, Any]) -> None:
    fields = msgpack.unpackb(msgpack.unpackb(given_to_alice().envelopes[0])[0]) | change
    with pytest.raises(BadMessage):
        read_grant([sign_map("lease-grant-link", fields, OWNER.sign)])


def test_what_was_verified_is_not_verified_again() -> None:
    grant = given_to_alice().narrow(ALICE, BOB.peer_id, TERMS, NOW)
    asked: list[PeerId] = []

    def counting(peer: PeerId, data: bytes, signature: bytes) -> bool:
        asked.append(peer)
        return verify(peer, data, signature)

    known = {grant.links[0].id: grant.envelopes[0]}
    assert grant.verify(counting, known)
    assert asked == [ALICE.peer_id]
    altered = pack([msgpack.unpackb(grant.envelopes[0])[0], b"x" * 64])
    assert not read_grant([altered, grant.envelopes[1]]).verify(counting, known), "same id, other bytes"


@given(st.binary(max_size=300))
def test_any_bytes_are_a_grant_or_a_bad_message(data: bytes) -> None:
    with pytest.raises(BadMessage):
        read_grant([data])
    with pytest.raises(BadMessage):
        Grant.from_bytes(data, verify)


@given(st.data())
def test_a_changed_byte_is_found_out(data: st.DataObject) -> None:
    raw = given_to_alice().to_bytes()
    at = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(BadMessage):
        Grant.from_bytes(raw[:at] + bytes([raw[at] ^ data.draw(st.integers(1, 255))]) + raw[at + 1 :], verify)


def test_texts_that_are_none() -> None:
    text = given_to_alice().text
    assert Grant.parse(f" {text[:40]}\n{text[40:]} ", verify) == given_to_alice()
    for wrong in (
        "",
        "grant2_abc",
        text[:-1],
        text + "1",
        text[:40] + "O" + text[41:],
        "grant1_" + "1" * 20_000,
    ):
        with pytest.raises(GrantError, match="copy it again"):
            Grant.parse(wrong, verify)
    swapped = "grant1secret_" + base58.b58encode(base58.b58decode(text[len("grant1_") :])).decode()
    with pytest.raises(GrantError):
        Grant.parse(swapped, verify)


# Times and amounts ------------------------------------------------------------------------------------------------


def test_when_it_counts() -> None:
    terms = replace(TERMS, not_before=NOW + 100)
    need = Need(memory_bytes=1)
    assert "begins in 69 s" not in str(terms.refusal(need, LENDER, NOW + 70, 30.0)), "clocks differ"
    assert "begins in 31 s" in str(terms.refusal(need, LENDER, NOW + 69, 30.0))
    assert terms.refusal(need, LENDER, NOW + 3599, 30.0) is None
    assert "expired 0 s ago" in str(terms.refusal(need, LENDER, NOW + 3600, 30.0)), "its end is its end"


def test_what_it_covers() -> None:
    for need, said in (
        (Need(cpus=5, memory_bytes=1), "covers 4 CPUs a lease, and 5 were asked for"),
        (Need(gpus=2, memory_bytes=1), "covers 1 GPUs"),
        (Need(memory_bytes=9 << 30), "covers 8 GiB of memory"),
        (Need(), "ask for at most 8 GiB"),
    ):
        assert said in str(TERMS.refusal(need, LENDER, NOW, 0.0))
    only = replace(TERMS, lenders=(OTHER,))
    assert "other lenders" in str(only.refusal(Need(memory_bytes=1), LENDER, NOW, 0.0))


@pytest.mark.parametrize(
    "change",
    [
        {"cpus": -1},
        {"cpus": math.nan},
        {"leases": 1.5},
        {"memory_bytes": -1},
        {"lease_s": math.inf},
        {"lenders": (LENDER,) * 17},
        {"expires": math.nan},
        {"not_before": NOW + 7200},
        {"expires": NOW + MAX_GRANT_S + 1},
    ],
)
def test_terms_that_cannot_be_granted(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        given_to_alice(replace(TERMS, **change))


def test_an_id_without_a_key_can_hold_nothing() -> None:
    hashed = PeerId.from_bytes(b"\x12\x20" + b"h" * 32)
    with pytest.raises(UsageError, match="only the hash of a key"):
        Grant.issue(OWNER, hashed, TERMS, NOW)
