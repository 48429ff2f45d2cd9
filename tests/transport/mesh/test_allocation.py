"""Places: nothing is given twice, nothing that is taken is given, and what comes back can be given again."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.errors import UsageError
from swarmp2p.transport.mesh.allocation import MAX_BLOCK, Allocation, NoRoom, Place, block_size

from .made import CLUSTER, member_id


def anything(address: str, port: int) -> bool:
    return True


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 999),
    st.lists(st.tuples(st.integers(1, 12), st.sampled_from((None, 0.5, 1, 8, 1e6))), max_size=40),
    st.frozensets(st.integers(10_000, 10_400), max_size=30),
)
def test_no_two_members_share_an_address_or_a_port(
    seed: int, happenings: list[tuple[int, float | None]], taken: frozenset[int]
) -> None:
    allocation = Allocation(Random(seed), lambda address, port: port not in taken, 10_000, 12_500)
    given_now: dict[bytes, Place] = {CLUSTER: allocation.head(CLUSTER)}
    for number, cpus in happenings:
        member = member_id(number)
        if cpus is None:
            allocation.release(member)
            given_now.pop(member, None)
            continue
        try:
            place = allocation.give(member, cpus)
        except NoRoom:
            assert member not in given_now
            continue
        assert given_now.setdefault(member, place) == place
    assert len(allocation) == len(given_now)
    places = list(given_now.values())
    ports = [port for place in places for port in place.block.ports]
    assert len(ports) == len(set(ports))
    assert not taken & set(ports)
    assert all(10_000 <= port < 12_500 for port in ports)
    assert len({place.address for place in places}) == len(places)


def test_when_nothing_is_left_it_says_so_and_what_is_released_can_be_given_again() -> None:
    allocation = Allocation(Random(1), anything, 10_000, 10_000 + 10 * block_size(1))
    with pytest.raises(NoRoom, match="let workers go"):
        for number in range(1, 12):
            allocation.give(member_id(number), 1)
    assert len(allocation) >= 9
    allocation.release(member_id(2))
    assert allocation.give(member_id(20), 1).block.count == block_size(1)


def test_the_head_is_at_localhost_and_workers_are_not() -> None:
    allocation = Allocation(Random(1), anything)
    assert allocation.head(CLUSTER).address == "127.0.0.1"
    assert allocation.give(member_id(1), 1).address.startswith("127.64.")
    allocation.release(CLUSTER)
    assert allocation.get(CLUSTER) is None


def test_what_is_taken_is_asked_of_the_workers_own_address() -> None:
    asked: set[str] = set()

    def free(address: str, port: int) -> bool:
        asked.add(address)
        return True

    place = Allocation(Random(1), free).give(member_id(1), 1)
    assert asked == {place.address}


def test_blocks_grow_with_cpus_up_to_a_bound() -> None:
    assert block_size(0) == block_size(1) < block_size(2) < block_size(64)
    assert block_size(1e9) == MAX_BLOCK
    for wrong in (-1, math.inf, math.nan):
        with pytest.raises(UsageError):
            block_size(wrong)
