"""What lookups prove about the peers of a part of the keyspace, against brute force."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.dht.coverage import Coverage
from swarmp2p.dht.keys import ID_BITS, key_id, peer_key
from swarmp2p.dht.sweep import Sweep, by_region, region_bits
from swarmp2p.engine import PeerInfo

from .network import peer_info

PEERS = [peer_info(number) for number in range(300)]


def nearest(peers: Sequence[PeerInfo], target: int, k: int) -> tuple[PeerInfo, ...]:
    """By brute force."""
    return tuple(sorted(peers, key=lambda info: peer_key(info.peer) ^ target)[:k])


def key(number: int) -> bytes:
    return b"key %d" % number


numbers = st.integers(0, 10_000)


@given(
    st.integers(0, 300), st.integers(1, 20), st.lists(numbers, max_size=30), st.lists(numbers, max_size=30)
)
def test_nothing_is_claimed_that_is_not_so(
    count: int, k: int, looked_up: list[int], asked: list[int]
) -> None:
    peers, coverage = PEERS[:count], Coverage(k)
    for number in looked_up:
        coverage.learn(key_id(key(number)), nearest(peers, key_id(key(number)), k))
    for number in asked:
        target = key_id(key(number))
        found = coverage.nearest(target)
        if coverage.gap(target, found) is None:
            assert found == nearest(peers, target, k)


@given(st.integers(0, 300), st.integers(1, 20), st.lists(numbers, max_size=30), st.integers(0, 1 << ID_BITS))
def test_no_unknown_peer_is_where_all_are_known(
    count: int, k: int, looked_up: list[int], anywhere: int
) -> None:
    peers, coverage = PEERS[:count], Coverage(k)
    known: dict[int, None] = {}
    for number in looked_up:
        found = nearest(peers, key_id(key(number)), k)
        known.update((peer_key(info.peer), None) for info in found)
        coverage.learn(key_id(key(number)), found)
    assert all(peer_key(info.peer) in known for info in peers if peer_key(info.peer) in coverage)


def test_two_lookups_beside_each_other_tell_the_holders_of_the_keys_between() -> None:
    coverage, target = Coverage(20), key_id(key(1))
    for each in (target, target ^ 1 << 251, target ^ 1 << 252, target ^ 3 << 251):
        coverage.learn(each, nearest(PEERS, each, 20))
    beside = target ^ 1
    assert beside in coverage
    assert coverage.gap(beside, coverage.nearest(beside)) is None
    assert coverage.nearest(beside) == nearest(PEERS, beside, 20)
    far = target ^ 1 << 255
    assert far not in coverage
    assert coverage.gap(far, coverage.nearest(far)) is not None


def test_fewer_than_k_peers_are_all_there_are() -> None:
    coverage = Coverage(20)
    coverage.learn(key_id(key(1)), nearest(PEERS[:19], key_id(key(1)), 20))
    assert coverage.gap(key_id(key(2)), coverage.nearest(key_id(key(2)))) is None
    assert coverage.nearest(key_id(key(2))) == nearest(PEERS[:19], key_id(key(2)), 20)


def swept(
    keys: Sequence[bytes], peers: Sequence[PeerInfo], k: int
) -> tuple[dict[bytes, tuple[PeerInfo, ...]], int]:
    """Where a sweep puts each key, and the lookups that it took."""
    sweep, holders, lookups = Sweep(keys, k), dict[bytes, tuple[PeerInfo, ...]](), 0
    while True:
        while ready := sweep.ready(7):
            assert len(ready) <= 7
            assert not any(each in holders for each, _ in ready)
            holders.update(ready)
        target = sweep.target()
        if target is None:
            return holders, lookups
        lookups += 1
        closest = nearest(peers, key_id(target), k)
        sweep.found(target, closest, whole=True)
        holders[target] = closest


@given(st.integers(0, 300), st.integers(1, 20), st.sets(numbers, max_size=60))
def test_a_sweep_puts_every_key_at_its_nearest_peers(count: int, k: int, some: set[int]) -> None:
    keys = [key(number) for number in sorted(some)]
    holders, lookups = swept(keys, PEERS[:count], k)
    assert holders == {each: nearest(PEERS[:count], key_id(each), k) for each in keys}
    assert lookups <= len(keys)


def test_many_keys_take_few_lookups() -> None:
    """300 peers, 3,000 keys: one lookup for each ball of 20 peers would be 15."""
    _, lookups = swept([key(number) for number in range(3_000)], PEERS, 20)
    assert lookups <= 60


def test_a_lookup_that_did_not_end_by_itself_proves_nothing() -> None:
    sweep = Sweep([key(1), key(2)], 20)
    target = sweep.target()
    assert target is not None
    sweep.found(target, nearest(PEERS[:5], key_id(target), 20), whole=False)
    assert sweep.ready(9) == []
    assert sweep.rest() == [each for each in (key(1), key(2)) if each != target]


@given(st.sets(numbers, max_size=60), st.integers(0, 12))
def test_regions_share_their_leading_bits(some: set[int], bits: int) -> None:
    keys = [key(number) for number in sorted(some)]
    regions = by_region(keys, bits)
    assert sorted(each for region in regions for each in region) == sorted(keys)
    prefixes = [{key_id(each) >> (ID_BITS - bits) for each in region} for region in regions]
    assert all(len(prefix) == 1 for prefix in prefixes)
    assert len({min(prefix) for prefix in prefixes}) == len(regions)


def test_a_region_holds_at_least_the_nearest_peers_of_its_keys() -> None:
    assert region_bits(1 << ID_BITS) == 0
    assert region_bits((1 << ID_BITS - 8) - 1) == 7
