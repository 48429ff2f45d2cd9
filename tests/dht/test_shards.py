"""The arithmetic of splitting: where providers publish, and when they go deeper or come back."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.dht.keys import ID_BITS, is_multihash_key, service_key
from swarmp2p.dht.shards import MAX_DEPTH, attribute_key, height, next_depth, prefix, shard_key, shards_of

ROOT = service_key("svc")
IDS = st.integers(0, (1 << ID_BITS) - 1)
DEPTHS = st.integers(0, MAX_DEPTH)
COUNTS = st.lists(st.integers(0, 1000), max_size=20)
TOLD = st.lists(DEPTHS, max_size=20)


@given(IDS, DEPTHS)
def test_a_provider_publishes_at_its_leaf_and_at_some_shards_right_above(id: int, depth: int) -> None:
    shards = shards_of(ROOT, id, depth)
    levels = [level for level, _ in shards]
    assert levels == list(range(depth, depth - len(levels), -1))
    assert len(levels) == min(height(ROOT, id), depth) + 1
    for level, key in shards:
        assert key == shard_key(ROOT, level, prefix(id, level))
        assert is_multihash_key(key)


@given(IDS, DEPTHS.filter(bool))
def test_a_shard_s_place_is_that_of_the_one_above_and_one_bit(id: int, depth: int) -> None:
    assert prefix(id, depth) >> 1 == prefix(id, depth - 1)


def test_all_shards_have_keys_of_their_own() -> None:
    roots = [ROOT, service_key("other"), attribute_key("svc", "gpu", "h100")]
    keys = [
        shard_key(root, depth, place) for root in roots for depth in range(6) for place in range(1 << depth)
    ]
    assert len(set(keys)) == len(keys)
    assert shard_key(ROOT, 0, 0) == ROOT


def test_no_two_attributes_share_a_key() -> None:
    assert (
        len({attribute_key(*parts) for parts in [("ab", "c", "d"), ("a", "bc", "d"), ("a", "b", "cd")]}) == 3
    )


def test_each_shard_above_the_leaves_holds_about_as_many_as_a_leaf() -> None:
    rng, depth = Random(1), 6
    held = Counter(
        level for _ in range(64 * 24) for level, _ in shards_of(ROOT, rng.getrandbits(ID_BITS), depth)
    )
    for level in range(depth):
        assert 12 < held[level] / (1 << level) < 40  # about 24


def test_who_is_at_the_root_differs_from_root_to_root() -> None:
    rng, other = Random(1), service_key("other")
    ids = [rng.getrandbits(ID_BITS) for _ in range(1000)]
    high = [id for id in ids if height(ROOT, id) >= 5]
    assert 15 < len(high) < 50
    assert sum(height(other, id) >= 5 for id in high) < 5


@given(DEPTHS, COUNTS, TOLD)
def test_a_provider_moves_one_step_or_where_others_say_they_are(
    depth: int, counts: list[int], told: list[int]
) -> None:
    there = next_depth(depth, counts, told, split_above=32, merge_below=8)
    assert 0 <= there <= MAX_DEPTH
    assert abs(there - depth) <= 1 or there in told


@given(st.integers(0, 23), st.lists(st.integers(8, 32), min_size=11, max_size=11), COUNTS, TOLD)
def test_fewer_than_half_of_the_holders_move_nobody(
    depth: int, honest: list[int], lies: list[int], false: list[int]
) -> None:
    there = next_depth(depth, honest + lies[:10], [depth] * 11 + false[:10], split_above=32, merge_below=8)
    assert there == depth


def test_a_shard_that_is_too_large_splits_and_one_that_is_too_small_merges() -> None:
    def after(depth: int, counts: list[int], told: list[int]) -> int:
        return next_depth(depth, counts, told, split_above=32, merge_below=8)

    assert after(0, [33, 33, 2], []) == 1
    assert after(3, [32, 32, 32], [3]) == 3
    assert after(3, [7, 7, 30], [3, 3]) == 2
    assert after(0, [1], [0]) == 0
    assert after(0, [], []) == 0
    assert after(0, [20, 20], [12, 12]) == 12
    assert after(MAX_DEPTH, [999], []) == MAX_DEPTH
