"""Pairings: both sides come to the same secret, and nobody who is not one of them changes or learns anything."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.errors import BadMessage
from swarmp2p.identity import Identity, verify
from swarmp2p.transport.mesh.config import MeshConfig
from swarmp2p.transport.mesh.pairing import (
    Between,
    MeshKeys,
    Statement,
    Step,
    agree,
    read_statement,
    sign_statement,
)
from swarmp2p.transport.mesh.pairs import Agreed, Pairs, Say

from .made import CLUSTER, member_id

A, B, OTHER = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
CONFIG = MeshConfig()
BETWEEN = Between(CLUSTER, member_id(1), A.peer_id, member_id(2), B.peer_id)


def keys(identity: Identity, seed: int = 0) -> MeshKeys:
    return MeshKeys(identity.sign, verify, Random(seed).randbytes)


def two(seed: int = 0) -> tuple[Pairs, Pairs]:
    return Pairs(keys(A, seed), CONFIG), Pairs(keys(B, seed + 1), CONFIG)


def envelopes(said: list[Say | Agreed]) -> list[bytes]:
    return [each.envelope for each in said if isinstance(each, Say)]


def secrets(said: list[Say | Agreed]) -> list[bytes]:
    return [each.secret for each in said if isinstance(each, Agreed)]


def paired(now: float = 0.0) -> tuple[Pairs, Pairs, bytes, bytes, bytes]:
    """Both sides after one round, with its offer, its answer and its secret."""
    a, b = two()
    assert b.want(BETWEEN.reversed, False, now) == []
    (offer,) = envelopes(a.want(BETWEEN, True, now))
    told = b.receive(BETWEEN.source, offer, now)
    (answer,), (theirs,) = envelopes(told), secrets(told)
    (ours,) = secrets(a.receive(BETWEEN.target, answer, now))
    assert ours == theirs
    return a, b, offer, answer, ours


def test_both_come_to_the_same_secret_and_rest() -> None:
    a, b, _, _, secret = paired()
    assert len(secret) == 32
    assert a.deadline() == b.deadline() == float("inf")
    assert a.waiting_since(BETWEEN.target) == b.waiting_since(BETWEEN.source) == float("inf")


def test_each_round_has_another_secret_and_either_may_ask_for_it() -> None:
    a, b, _, _, first = paired()
    (offer,) = envelopes(a.again(BETWEEN.target, 1.0))
    (answer,) = envelopes(b.receive(BETWEEN.source, offer, 1.0))
    (second,) = secrets(a.receive(BETWEEN.target, answer, 1.0))
    (wish,) = envelopes(b.again(BETWEEN.source, 2.0))
    assert b.again(BETWEEN.source, 2.1) == []  # already asked
    (offer,) = envelopes(a.receive(BETWEEN.target, wish, 2.0))
    (third,) = secrets(b.receive(BETWEEN.source, offer, 2.0))
    assert len({first, second, third}) == 3
    assert b.deadline() == float("inf"), "the wish is granted"


def test_a_lost_message_is_said_again_and_a_repeated_offer_has_the_same_answer() -> None:
    a, b = two()
    b.want(BETWEEN.reversed, False, 0.0)
    (offer,) = envelopes(a.want(BETWEEN, True, 0.0))
    assert a.deadline() == CONFIG.retry_s
    assert envelopes(a.tick(a.deadline())) == [offer]
    first = b.receive(BETWEEN.source, offer, 0.5)
    again = b.receive(BETWEEN.source, offer, 0.6)
    assert envelopes(first) == envelopes(again)
    assert secrets(again) == []


def test_an_offer_that_stays_unanswered_is_made_anew_before_it_expires() -> None:
    a, _ = two()
    (offer,) = envelopes(a.want(BETWEEN, True, 0.0))
    seen = {offer}
    while a.deadline() < CONFIG.pairing_life_s:
        seen |= set(envelopes(a.tick(a.deadline())))
    assert len(seen) > 1


def test_replays_change_nothing() -> None:
    a, b, offer, answer, _ = paired()
    (newer,) = envelopes(a.again(BETWEEN.target, 1.0))
    assert secrets(b.receive(BETWEEN.source, newer, 1.0))
    assert b.receive(BETWEEN.source, offer, 1.1) == []
    assert a.receive(BETWEEN.target, answer, 1.1) == []


def test_replays_change_nothing_after_a_session_was_not_wanted_for_a_while() -> None:
    _, b, offer, _, _ = paired()
    b.rest(BETWEEN.source)
    assert b.receive(BETWEEN.source, offer, 1.0) == b.again(BETWEEN.source, 1.0) == []
    b.want(BETWEEN.reversed, False, 2.0)
    assert b.receive(BETWEEN.source, offer, 2.0) == []
    b.keep({BETWEEN.target})
    assert BETWEEN.source not in b


def test_who_answers_an_old_offer_does_not_finish_a_new_one() -> None:
    a, b = two()
    b.want(BETWEEN.reversed, False, 0.0)
    (old,) = envelopes(a.want(BETWEEN, True, 0.0))
    (answer,) = envelopes(b.receive(BETWEEN.source, old, 0.0))
    (_,) = envelopes(a.want(BETWEEN, True, 0.1))
    assert a.receive(BETWEEN.target, answer, 0.2) == []


def test_the_one_who_passes_messages_on_can_neither_pair_in_anothers_name_nor_alter() -> None:
    middle = Pairs(keys(OTHER, 9), CONFIG)
    a, b = two()
    b.want(BETWEEN.reversed, False, 0.0)
    (genuine,) = envelopes(a.want(BETWEEN, True, 0.0))
    (forged,) = envelopes(middle.want(BETWEEN, True, 0.0))
    assert b.receive(BETWEEN.source, forged, 0.0) == []
    altered = bytearray(genuine)
    altered[len(altered) // 2] ^= 1
    assert b.receive(BETWEEN.source, bytes(altered), 0.0) == []
    fake = Pairs(keys(OTHER, 8), CONFIG)
    fake.want(BETWEEN.reversed, False, 0.0)
    told = fake.receive(BETWEEN.source, genuine, 0.0)  # it can read an offer, but not answer for B
    assert all(a.receive(BETWEEN.target, each, 0.0) == [] for each in envelopes(told))
    assert secrets(b.receive(BETWEEN.source, genuine, 0.0))


@pytest.mark.parametrize(
    "other",
    [
        Between(b"x" * 16, BETWEEN.source, A.peer_id, BETWEEN.target, B.peer_id),
        Between(CLUSTER, member_id(7), A.peer_id, BETWEEN.target, B.peer_id),
        Between(CLUSTER, BETWEEN.source, A.peer_id, member_id(7), B.peer_id),
        Between(CLUSTER, BETWEEN.source, A.peer_id, BETWEEN.target, OTHER.peer_id),
        Between(CLUSTER, BETWEEN.source, OTHER.peer_id, BETWEEN.target, B.peer_id),
    ],
)
def test_a_statement_is_worth_nothing_anywhere_else(other: Between) -> None:
    envelope = sign_statement(BETWEEN, Statement(Step.OFFER, 1, b"k" * 32), 30.0, A.sign)
    assert read_statement(envelope, BETWEEN, 0.0, 0.0, verify).round == 1
    with pytest.raises(BadMessage):
        read_statement(envelope, other, 0.0, 0.0, verify)


def test_an_expired_statement_is_refused() -> None:
    envelope = sign_statement(BETWEEN, Statement(Step.OFFER, 1, b"k" * 32), 30.0, A.sign)
    assert read_statement(envelope, BETWEEN, 59.0, 30.0, verify)
    with pytest.raises(BadMessage, match="expired"):
        read_statement(envelope, BETWEEN, 61.0, 30.0, verify)


def test_a_key_of_low_order_leads_to_no_secret() -> None:
    assert agree(b"p" * 32, bytes(32), b"offer", b"answer", BETWEEN) is None
    a, b = two()
    del a
    b.want(BETWEEN.reversed, False, 0.0)
    envelope = sign_statement(BETWEEN, Statement(Step.OFFER, 1, bytes(32)), 30.0, A.sign)
    assert b.receive(BETWEEN.source, envelope, 0.0) == []


def test_the_secret_depends_on_every_word_that_was_said() -> None:
    private, public = b"p" * 32, B.peer_id.public_key
    assert public is not None
    point = keys(B).random_bytes(32)
    first = agree(private, point, b"offer", b"answer", BETWEEN)
    others = [
        agree(private, point, b"offer!", b"answer", BETWEEN),
        agree(private, point, b"offer", b"answer!", BETWEEN),
        agree(private, point, b"offer", b"answer", BETWEEN.reversed),
    ]
    assert len({first, *others}) == 4


def test_a_member_that_talks_too_much_is_not_listened_to() -> None:
    _, b, offer, _, _ = paired()
    heard = [b.receive(BETWEEN.source, offer, 1.0) for _ in range(100)]
    assert 0 < sum(map(bool, heard)) <= CONFIG.pairings_burst


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_bytes_that_are_no_statement_change_nothing(data: bytes) -> None:
    a, b, _, _, _ = paired()
    assert a.receive(BETWEEN.target, data, 5.0) == b.receive(BETWEEN.source, data, 5.0) == []
