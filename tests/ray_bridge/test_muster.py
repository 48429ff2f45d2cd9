"""All of a cluster's first workers, or none."""

from __future__ import annotations

import math
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.ray_bridge.muster import Muster


def lease(number: int) -> bytes:
    return number.to_bytes(16, "big")


def mustered(size: int) -> Muster:
    muster = Muster(size, Random(1))
    for number in range(size):
        muster.asked(lease(number))
    return muster


def test_it_commits_once_all_are_held() -> None:
    muster = mustered(3)
    gang = muster.gang
    assert len(gang) == 16
    assert [muster.held(lease(n)) for n in (0, 1, 1)] == [b""] * 3
    assert muster.waits(0.0) == 0.0
    assert muster.held(lease(2)) == gang
    assert muster.waits(0.0) == math.inf, "nobody else is asked while they start"
    for number in range(3):
        assert not muster.complete
        muster.active(lease(number))
    assert muster.complete
    assert (muster.gang, muster.waits(0.0)) == (b"", 0.0)


def test_one_that_refuses_is_replaced() -> None:
    muster = mustered(2)
    muster.held(lease(0))
    muster.over(lease(1), 0.0)
    muster.asked(lease(2))
    assert muster.held(lease(2)) == muster.gang


def test_with_nobody_left_to_ask_all_is_let_go_of_and_begun_again_after_a_pause() -> None:
    muster = mustered(2)
    gang = muster.gang
    muster.held(lease(0))
    assert muster.give_up(0.0) == (), "the other's answer is out"
    muster.over(lease(1), 0.0)
    assert muster.give_up(0.0) == (lease(0),)
    assert muster.gang != gang
    assert 0 < muster.waits(0.0) < 20
    muster.over(lease(0), 0.0)
    assert not muster.complete


def test_a_gang_that_ends_while_it_starts_is_begun_again() -> None:
    muster = mustered(2)
    gang = [muster.held(lease(n)) for n in (0, 1)][1]
    muster.active(lease(0))
    for number in (1, 0):
        muster.over(lease(number), 0.0)
    assert muster.gang not in (gang, b"")
    assert muster.waits(0.0) < math.inf


def test_a_cluster_without_gangs() -> None:
    muster = mustered(0)
    assert (muster.gang, muster.waits(0.0), muster.complete) == (b"", 0.0, True)
    assert muster.held(lease(0)) == b""
    assert muster.give_up(0.0) == ()


@given(
    st.lists(st.tuples(st.sampled_from(["ask", "held", "over", "give up"]), st.integers(0, 5)), max_size=60)
)
def test_it_never_commits_fewer_than_all_nor_the_same_gang_twice(steps: list[tuple[str, int]]) -> None:
    muster, names = Muster(3, Random(2)), iter(range(1000))
    out: dict[bytes, bool] = {}
    committed: dict[bytes, None] = {}
    for action, index in steps:
        name = list(out)[index % len(out)] if out else b"?"
        match action:
            case "ask" if not muster.waits(1e9):
                out[lease(number := next(names))] = False
                muster.asked(lease(number))
            case "held":
                gang = muster.held(name)
                if name in out:
                    out[name] = True
                if gang:
                    assert sum(out.values()) >= 3
                    assert gang not in committed
                    committed[gang] = None
            case "over":
                muster.over(name, 0.0)
                out.pop(name, None)
            case _:
                gone = muster.give_up(0.0)
                assert not gone or all(out.values())
                for each in gone:
                    del out[each]
