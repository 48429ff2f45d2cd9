"""Whom a borrower gives its snapshots to."""

from __future__ import annotations

import hashlib
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.identity import PeerId
from swarmp2p.snapshots.holders import Holders

PEERS = [PeerId.from_public_key(hashlib.sha256(b"%d" % index).digest()) for index in range(8)]


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(0, 2**32),
    st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=80),
)
def test_never_more_are_asked_than_are_missing(wanted: int, seed: int, steps: list[tuple[int, bool]]) -> None:
    holders, now = Holders(wanted, random.Random(seed)), 0.0
    for index, good in steps:
        now += 10
        holders.found([PEERS[index]])
        asked = holders.next(now)
        assert len(asked) <= holders.missing()
        assert not set(asked) & set(holders.have)
        for peer in asked:
            if good:
                assert holders.kept(peer, 1)
            else:
                assert not holders.failed(peer, now)
        assert len(holders.have) <= wanted
        assert not set(holders.next(now)) & set(asked)  # nobody twice in a row


def test_one_that_leaves_is_replaced_and_asked_again_later() -> None:
    holders = Holders(1, random.Random(1))
    holders.found(PEERS[:2])
    (first,) = holders.next(0)
    assert holders.kept(first, 1)
    assert not holders.kept(first, 2)
    assert holders.next(0) == ()
    assert holders.failed(first, 10)
    (second,) = holders.next(10)
    assert second != first
    assert not holders.failed(second, 10)
    assert holders.next(69) == ()
    assert set(holders.next(71)) <= {first, second}
    holders.failed(second, 71)
    holders.failed(first, 71)
    assert holders.next(140) == ()  # longer each time
    assert len(holders.next(200)) == 1


def test_it_remembers_a_bounded_number() -> None:
    holders = Holders(1, random.Random(1))
    holders.found(PeerId.from_public_key(hashlib.sha256(b"x%d" % n).digest()) for n in range(400))
    asked = set[PeerId]()
    while wanted := holders.next(0):
        asked.update(wanted)
        holders.failed(wanted[0], 0)
    assert len(asked) == 256
