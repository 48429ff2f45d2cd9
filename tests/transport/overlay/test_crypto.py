"""Keys: the chain, both hellos, and what either side refuses."""

from random import Random

import pytest
from cryptography.exceptions import InvalidTag

from swarmp2p.transport.overlay.crypto import (
    EPOCHS_AHEAD_MOST,
    FIRST_BYTES,
    SECOND_BYTES,
    Chain,
    Cipher,
    Direction,
    Greeting,
    answer,
)
from swarmp2p.transport.overlay.faults import Untrue

SECRET = bytes(range(32))
NONCE = bytes(12)


def same(one: Direction, other: Direction) -> bool:
    return other.decrypt(NONCE, one.encrypt(NONCE, b"probe", None), None) == b"probe"


def hellos(
    ours: Chain, theirs: Chain, rng: Random, aes: tuple[bool, bool] = (True, True)
) -> tuple[Greeting, bytes, Direction, Direction]:
    greeting = Greeting(ours, rng, aes[0])
    return (greeting, *answer(theirs, greeting.first, rng, aes[1]))


def test_both_sides_come_to_the_same_keys_and_directions_differ() -> None:
    greeting, second, to_responder, to_initiator = hellos(Chain(SECRET), Chain(SECRET), Random(1))
    assert len(greeting.first) == FIRST_BYTES
    assert len(second) == SECOND_BYTES
    mine, theirs = greeting.answered(second)
    assert same(mine, to_responder)
    assert same(theirs, to_initiator)
    with pytest.raises(InvalidTag):
        same(mine, to_initiator)


def test_each_carrier_connection_has_keys_of_its_own() -> None:
    ours, theirs, rng = Chain(SECRET), Chain(SECRET), Random(1)
    seen: list[bytes] = []
    for _ in range(20):
        greeting, second, _, _ = hellos(ours, theirs, rng)
        seen += [key.encrypt(NONCE, b"same", None) for key in greeting.answered(second)]
    assert len(dict.fromkeys(seen)) == 40


def test_a_chain_forgets_earlier_epochs() -> None:
    chain = Chain(SECRET)
    assert chain.at(3) == Chain(SECRET).at(3)
    chain.move(3, chain.at(3))
    assert chain.at(5) == Chain(SECRET).at(5)
    assert chain.at(1) == chain.at(3)  # what was before cannot be had any more
    kept = [getattr(chain, name) for name in Chain.__slots__]
    assert SECRET not in kept
    assert not [epoch for epoch in range(3) if Chain(SECRET).at(epoch) in kept]


def test_a_rekeyed_direction_opens_nothing_that_was_sealed_before() -> None:
    one, other = Direction(SECRET, Cipher.AES_256_GCM), Direction(SECRET, Cipher.AES_256_GCM)
    old = one.encrypt(NONCE, b"old", None)
    one.rekey()
    other.rekey()
    assert same(one, other)
    with pytest.raises(InvalidTag):
        other.decrypt(NONCE, old, None)


def test_a_first_hello_is_good_once() -> None:
    ours, theirs, rng = Chain(SECRET), Chain(SECRET), Random(1)
    greeting, *_ = hellos(ours, theirs, rng)
    with pytest.raises(Untrue, match="epoch 1 after 1"):
        answer(theirs, greeting.first, rng, aes=True)


def test_a_withheld_first_hello_is_worth_nothing_after_a_later_one() -> None:
    ours, theirs, rng = Chain(SECRET), Chain(SECRET), Random(1)
    withheld = Greeting(ours, rng, aes=True)
    hellos(ours, theirs, rng)
    with pytest.raises(Untrue, match="epoch 1 after 2"):
        answer(theirs, withheld.first, rng, aes=True)


def test_the_initiator_may_fail_often_but_not_without_end() -> None:
    ours, theirs, rng = Chain(SECRET), Chain(SECRET), Random(1)
    ours.move(EPOCHS_AHEAD_MOST - 1, ours.at(EPOCHS_AHEAD_MOST - 1))
    hellos(ours, theirs, rng)
    assert theirs.epoch == EPOCHS_AHEAD_MOST
    far = theirs.epoch + EPOCHS_AHEAD_MOST
    ours.move(far, ours.at(far))
    with pytest.raises(Untrue, match="epoch"):
        answer(theirs, Greeting(ours, rng, aes=True).first, rng, aes=True)
    assert theirs.epoch == EPOCHS_AHEAD_MOST


def test_every_changed_bit_of_a_first_hello_is_noticed_and_changes_nothing() -> None:
    ours, theirs, rng = Chain(SECRET), Chain(SECRET), Random(1)
    first = Greeting(ours, rng, aes=True).first
    for bit in range(8 * FIRST_BYTES):
        changed = bytearray(first)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Untrue):
            answer(theirs, bytes(changed), rng, aes=True)
    assert theirs.epoch == 0
    answer(theirs, first, rng, aes=True)


def test_every_changed_bit_of_a_second_hello_gives_other_keys_or_none() -> None:
    ours, theirs, rng = Chain(SECRET), Chain(SECRET), Random(1)
    greeting, second, to_responder, to_initiator = hellos(ours, theirs, rng)
    agreed = 0
    for bit in range(8 * SECOND_BYTES):
        changed = bytearray(second)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            mine, from_responder = greeting.answered(bytes(changed))
        except Untrue:
            continue
        for one, other in ((mine, to_responder), (from_responder, to_initiator)):
            try:
                agreed += same(one, other)
            except InvalidTag:
                continue
    assert agreed == 0


@pytest.mark.parametrize("aes", [(True, False), (False, True), (False, False), (True, True)])
def test_aes_is_taken_where_both_have_it(aes: tuple[bool, bool]) -> None:
    _, second, *_ = hellos(Chain(SECRET), Chain(SECRET), Random(1), aes)
    assert second[1] == (2 if all(aes) else 1)


def test_a_second_hello_may_not_take_what_was_not_offered() -> None:
    greeting, second, *_ = hellos(Chain(SECRET), Chain(SECRET), Random(1), (False, True))
    for cipher in (0, 2, 3, 4):
        with pytest.raises(Untrue, match="not offered"):
            greeting.answered(second[:1] + bytes([cipher]) + second[2:])


def test_another_secret_or_session_is_refused() -> None:
    theirs, rng = Chain(SECRET), Random(1)
    with pytest.raises(Untrue, match="another session"):
        answer(theirs, Greeting(Chain(bytes(32)), rng, aes=True).first, rng, aes=True)
    forged = Chain(bytes(32))
    forged.tag = theirs.tag
    with pytest.raises(Untrue, match="pair's secret"):
        answer(theirs, Greeting(forged, rng, aes=True).first, rng, aes=True)


def test_keys_that_give_no_secret_are_refused() -> None:
    greeting, second, *_ = hellos(Chain(SECRET), Chain(SECRET), Random(1))
    with pytest.raises(Untrue, match="X25519"):
        greeting.answered(second[:2] + bytes(32))


def test_a_pair_secret_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        Chain(bytes(31))
