"""Shards: their names, when they are split and merged, and that those who follow a few see a fair sample."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.errors import UsageError
from swarmp2p.gossip.load_interest import Following, Known, Publishing, ShardConfig
from swarmp2p.gossip.load_shards import (
    PLACE_BITS,
    is_shard,
    place_of,
    points,
    shard_of,
    shard_topic,
    topic_shard,
    within,
)
from swarmp2p.gossip.load_signal import LOAD_TOPIC, MAX_DEPTH

from .network import peer_id

SPACE = 1 << PLACE_BITS
CONFIG = ShardConfig(
    split_above=32, merge_below=8, followed=4, review_s=5.0, overlap_s=30.0, hold_s=60.0, quiet_s=30.0
)

places = st.integers(0, SPACE - 1)


# Names ------------------------------------------------------------------------------------------------------


@given(places, st.integers(0, MAX_DEPTH))
def test_a_place_is_in_its_shard_and_in_none_beside(place: int, depth: int) -> None:
    shard = shard_of(place, depth)
    assert len(shard) == depth
    assert within(place, shard)
    assert topic_shard(shard_topic(shard)) == shard
    if depth:
        assert is_shard(shard)
        assert not within(place, shard[:-1] + "10"[int(shard[-1])])


@pytest.mark.parametrize(
    "topic",
    ["swarm/load/1/", "swarm/load/1/2", "swarm/load/1/" + "0" * 17, "swarm/load/2", "", "swarm/load/1/0 "],
)
def test_other_topics_are_no_shards(topic: str) -> None:
    assert topic_shard(topic) is None


def test_the_shard_of_all_has_the_old_topic() -> None:
    assert shard_topic("") == LOAD_TOPIC == "swarm/load/1"
    assert shard_topic("011") == "swarm/load/1/011"


def test_places_are_spread_evenly() -> None:
    counts = Counter(shard_of(place_of(peer_id(number)), 4) for number in range(4000))
    assert len(counts) == 16
    assert max(counts.values()) < 250 + 5 * 16
    assert min(counts.values()) > 250 - 5 * 16


# A fair sample ----------------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(1, 8), st.integers(0, 6))
def test_points_lie_in_different_shards(seed: int, count: int, depth: int) -> None:
    shards = {shard_of(point, depth) for point in points(Random(seed), count)}
    if count & (count - 1) == 0:  # a power of two divides the space as shards do
        assert len(shards) == min(count, 1 << depth)


@given(st.lists(st.integers(0, 1), min_size=63, max_size=63), st.sampled_from([1, 2, 4]))
@settings(max_examples=60, deadline=None)
def test_every_provider_is_equally_likely_to_be_followed(split: list[int], followed: int) -> None:
    """Whatever the tree of shards: over points everywhere in their parts of the space, each leaf is covered for the
    same share of them, once followers have come to rest, unless followers see different parts of an uneven tree.
    Trees of up to 3 levels, points in each eighth of their part."""
    leaves = _tree(split, 3)
    known = [(int(leaf.ljust(PLACE_BITS, "0"), 2), len(leaf)) for leaf in leaves]
    covered: Counter[str] = Counter()
    for step in range(8):
        follower = Following(_Always((step + 0.5) / 8), ShardConfig(followed=followed))
        _settle(follower, known)
        for (place, _), leaf in zip(known, leaves, strict=True):
            covered[leaf] += follower.covers(place) * 1
        # of each depth in the tree, at most `followed` subtrees of the shallowest that it sees
        assert len({shard[: follower.depth] for shard in follower.shards}) <= followed
    if len({len(leaf) for leaf in leaves}) == 1:
        assert len(set(covered.values())) == 1, covered
    assert all(covered[leaf] > 0 for leaf in leaves)


def test_a_sample_is_fair_where_depths_differ() -> None:
    """Half of the shards of depth 5 are split once more, at random: providers at depth 6 are followed as often as
    those at depth 5, by all followers together."""
    rng = Random(3)
    leaves: list[str] = []
    for number in range(32):
        name = format(number, "05b")
        leaves += [name + "0", name + "1"] if rng.random() < 0.5 else [name]
    known = [(int(leaf.ljust(PLACE_BITS, "0"), 2) + 1, len(leaf)) for leaf in leaves]
    covered = Counter[int]()
    followers = 2000
    for _ in range(followers):
        follower = Following(rng, ShardConfig(followed=4))
        _settle(follower, known)
        for place, depth in known:
            covered[depth] += follower.covers(place)
    shares = [covered[depth] / sum(len(leaf) == depth for leaf in leaves) / followers for depth in (5, 6)]
    assert shares[0] == pytest.approx(4 / 32, rel=0.06)
    assert shares[1] == pytest.approx(4 / 32, rel=0.10)


class _Always(Random):
    """Draws one number."""

    def __init__(self, number: float) -> None:
        super().__init__(0)
        self._number = number

    def random(self) -> float:
        return self._number


def _tree(split: list[int], levels: int) -> list[str]:
    """The leaves of a tree in which each node is split or not."""
    found: list[str] = []
    open_, number = [""], 0
    while open_:
        name = open_.pop()
        if len(name) < levels and (not name or split[number]):
            open_ += [name + "0", name + "1"]
        else:
            found.append(name)
        number += 1
    return sorted(found)


def _settle(follower: Following, known: Known) -> None:
    """Reviews until nothing moves; a follower hears whoever is in a shard above or below its own."""
    for step in range(20):
        before = follower.shards
        heard = [
            (place, depth)
            for place, depth in known
            if any((within(place, s[:depth]) and len(s) >= depth) or within(place, s) for s in before)
        ]
        follower.review(heard, 40.0 * step)
        if step > 3 and follower.shards == before:
            return


# Providers --------------------------------------------------------------------------------------------------


def test_a_small_swarm_stays_in_one_topic() -> None:
    it = Publishing(0, CONFIG)
    it.review([(place << 40, 0) for place in range(31)], 0.0)
    assert (it.shard, it.targets(), it.wanted(), it.members) == ("", [""], [""], 32)


def test_a_full_shard_is_split_and_the_old_topic_kept_for_a_while() -> None:
    it = Publishing(0, CONFIG)
    known = [(number * (SPACE // 64), 0) for number in range(64)]
    it.review(known, 100.0)
    assert it.shard == "0"
    assert it.targets() == ["0", ""]
    assert dict.fromkeys(it.wanted()) == {"0": None, "": None}
    assert it.members == 33
    known = [(place, 1) for place, _ in known]
    it.review(known, 131.0)
    assert it.shard == "0", "held for a minute"
    assert it.targets() == ["0"]
    assert it.wanted() == ["0", ""], "it hears what happens above"
    it.review(known, 161.0)
    assert it.shard == "00"


def test_an_empty_shard_is_merged() -> None:
    it = Publishing(0, CONFIG)
    it.review([(number * (SPACE // 64), 0) for number in range(64)], 0.0)
    it.review([(number, 1) for number in range(7)], 59.0)
    assert it.shard == "0"
    it.review([(number, 1) for number in range(7)], 60.0)
    assert it.shard == "0", "eight providers are enough"
    it.review([(number, 1) for number in range(6)], 65.0)
    assert (it.shard, it.targets()) == ("", ["", "0"])


def test_most_of_the_others_are_followed_down_and_up() -> None:
    it = Publishing(0, CONFIG)
    it.review([(number, 1) for number in range(10)], 0.0)
    assert it.shard == "0"
    high = SPACE // 2
    known = [(number, 1) for number in range(10)] + [(high + number, 0) for number in range(12)]
    it.review(known, 60.0)
    assert it.shard == "", "the other half merged"
    newcomer = Publishing(SPACE - 1, CONFIG)
    newcomer.review([(number, 9) for number in range(10)], 0.0)
    assert newcomer.depth == 9


def test_a_half_that_merged_does_not_draw_the_other_into_a_shard_that_is_too_full() -> None:
    it = Publishing(0, CONFIG)
    it.review([(number, 1) for number in range(10)], 0.0)
    known = [(number, 1) for number in range(16)] + [(SPACE // 2 + number, 0) for number in range(18)]
    it.review(known, 60.0)
    assert it.shard == "0"


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (20, 1), (33, 2), (70, 3), (129, 4), (200, 5), (500, 7)])
def test_providers_agree_as_the_swarm_grows_and_shrinks(count: int, seed: int) -> None:
    """Each knows its own shard and the one above. After growth and after shrinking, shards are neither too full nor
    needlessly small, and all providers of a shard are in it."""
    rng = Random(seed)
    everybody = [Publishing(rng.getrandbits(PLACE_BITS), CONFIG) for _ in range(count)]
    now = _run(everybody, 0.0)
    _check(everybody)
    rest = everybody[: max(1, count // 10)]
    _run(rest, now)
    _check(rest)


def _run(providers: list[Publishing], now: float) -> float:
    """Reviews with what each hears: the signals in the topics that it is in."""
    for _ in range(50):
        spoken = [(it, frozenset(it.targets())) for it in providers]
        for it in providers:
            topics = frozenset(it.wanted())
            place = it._place  # pyright: ignore[reportPrivateUsage]
            heard = [
                (other._place, other.depth)  # pyright: ignore[reportPrivateUsage]
                for other, targets in spoken
                if other is not it and topics & targets
            ]
            assert within(place, it.shard)
            it.review(heard, now)
        now += 15.0
    return now


def _check(providers: list[Publishing]) -> None:
    sizes = Counter(it.shard for it in providers)
    for it in providers:
        assert sizes[it.shard] <= CONFIG.split_above
        above = it.shard[:-1]
        around = sum(size for shard, size in sizes.items() if shard.startswith(above))
        assert not it.depth or around >= CONFIG.merge_below
        assert not any(other != it.shard and (other.startswith(it.shard)) for other in sizes), (
            "nobody stays above a split"
        )


# Followers --------------------------------------------------------------------------------------------------


def test_a_follower_begins_with_the_topic_of_all() -> None:
    it = Following(Random(1), CONFIG)
    assert it.wanted() == [""]
    it.review([(number, 0) for number in range(5)], 0.0)
    assert it.wanted() == [""]


def test_a_follower_goes_down_with_the_providers_and_keeps_the_old_topic_for_a_while() -> None:
    it = Following(Random(1), CONFIG)
    it.review([(number * (SPACE // 64), 1) for number in range(64)], 100.0)
    assert sorted(it.shards) == ["0", "1"]
    assert sorted(it.wanted()) == ["", "0", "1"]
    it.review([(number * (SPACE // 64), 1) for number in range(64)], 130.0)
    assert sorted(it.wanted()) == ["0", "1"]


def test_a_newcomer_goes_straight_to_where_the_providers_are() -> None:
    it = Following(Random(1), CONFIG)
    it.review([(number * (SPACE // 64), 10) for number in range(64)], 0.0)
    assert [len(shard) for shard in it.shards] == [10] * 4
    assert len({shard[:2] for shard in it.shards}) == 4


def test_a_silent_shard_is_left_for_the_one_above() -> None:
    it = Following(Random(1), CONFIG)
    it.review([(number * (SPACE // 64), 3) for number in range(64)], 0.0)
    it.review([], 29.0)
    assert it.depth == 3
    it.review([], 31.0)
    assert it.depth == 2


@given(
    st.lists(st.lists(st.tuples(places, st.integers(0, MAX_DEPTH)), max_size=60), max_size=12),
    st.integers(1, 6),
    st.randoms(use_true_random=False),
)
@settings(max_examples=80, deadline=None)
def test_whatever_providers_say_few_shards_are_followed(
    tables: list[Known], followed: int, rng: Random
) -> None:
    config = ShardConfig(followed=followed)
    it = Following(rng, config)
    for number, known in enumerate(tables):
        it.review(known, 5.0 * number)
        assert 1 <= len(it.shards) <= 4 * followed
        for shard in it.shards:
            assert not any(other != shard and other.startswith(shard) for other in it.shards)
        assert len(it.wanted()) <= 4 * followed * (1 + config.overlap_s / config.review_s + 1)


@pytest.mark.parametrize(
    "change",
    [{"merge_below": 100}, {"followed": 0}, {"review_s": 0.0}, {"overlap_s": 100.0}, {"quiet_s": 0.0}],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        ShardConfig(**change)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
