"""What a peer believes about split keys: from what it holds, from what others say, from own finds."""

from __future__ import annotations

from random import Random

import pytest

from swarmp2p.dht.keys import peer_key, service_key
from swarmp2p.dht.messages import Provider, Split
from swarmp2p.dht.provider_store import ProviderStore
from swarmp2p.dht.records import make_record
from swarmp2p.dht.shards import attribute_key, height, prefix, shard_key
from swarmp2p.dht.splits import Splits, tree_of

from .network import address, fake_sign, peer_id

ROOT = service_key("svc")
TREE = tree_of(ROOT)


class Bench:
    """A store and what is known of splits; the time is 0."""

    def __init__(self) -> None:
        self.store = ProviderStore(
            peer_key(peer_id(0)),
            ttl_s=9999.0,
            clock_error_s=30.0,
            max_keys=9999,
            max_per_key=512,
            max_records=9999,
        )
        self.splits = Splits(self.store, Random(1))

    def hold(self, number: int, key: bytes, depth: int, attribute_depth: int = 0) -> None:
        """Keep a provider's record for a key."""
        peer = peer_id(number)
        depths = {"": depth, "gpu": attribute_depth}
        record = make_record(peer, "svc", {"gpu": "h100"}, 1, 9999.0, fake_sign(peer), depths)
        provider = Provider(peer, (address(number),), record.envelope)
        assert self.store.add(key, provider, 0.0)
        self.splits.kept(key, provider)

    def say(self, number: int, *splits: Split, now: float = 0.0) -> None:
        self.splits.told(peer_id(number), splits, now)


def leaf(number: int, depth: int, root: bytes = ROOT) -> bytes:
    return shard_key(root, depth, prefix(peer_key(peer_id(number)), depth))


def test_records_show_what_their_key_belongs_to() -> None:
    bench = Bench()
    shared = [number for number in range(200) if leaf(number, 3) == leaf(1, 3)][:9]
    for number in shared:
        bench.hold(number, leaf(number, 3), 3)
    assert bench.splits.believed(ROOT, 0.0) == Split(TREE, 3, 9 << 3)
    assert bench.splits.tell(leaf(1, 3), 0.0) == (Split(TREE, 3, 9 << 3),)
    assert bench.splits.tell(ROOT, 0.0)[0].tree == TREE
    assert [split.tree for split in bench.splits.tell(b"some other key", 0.0)] == [TREE]


def test_an_attribute_s_key_is_known_too() -> None:
    bench = Bench()
    root = attribute_key("svc", "gpu", "h100")
    bench.hold(1, leaf(1, 2, root), 5, 2)
    assert bench.splits.believed(root, 0.0) == Split(tree_of(root), 2, 1 << 2)
    assert bench.splits.believed(ROOT, 0.0) is None


def test_a_record_makes_no_shard_of_a_key_that_is_none() -> None:
    bench = Bench()
    bench.hold(1, service_key("other"), 3)
    assert bench.splits.tell(service_key("other"), 0.0) == ()


def test_a_key_that_is_held_no_more_says_nothing() -> None:
    bench = Bench()
    bench.hold(1, leaf(1, 3), 3)
    bench.store.sweep(99_999.0)
    assert bench.splits.believed(ROOT, 99_999.0) is None


def test_a_quarter_that_went_deeper_is_told() -> None:
    bench = Bench()
    shared = [number for number in range(400) if leaf(number, 3) == leaf(1, 3)]
    deeper = [number for number in shared if height(ROOT, peer_key(peer_id(number)))]
    others = [number for number in shared if number not in deeper]
    for number in others[:6]:
        bench.hold(number, leaf(number, 3), 3)
    for number in deeper[:3]:
        bench.hold(number, leaf(number, 3), 4)
    assert bench.splits.tell(leaf(1, 3), 0.0)[0].depth == 4


def test_of_very_many_shards_a_few_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    for number in range(300):
        bench.hold(number, leaf(number, 16), 16)
    looked: dict[bytes, None] = {}
    count = bench.store.count

    def counted(key: bytes) -> int:
        looked[key] = None
        return count(key)

    monkeypatch.setattr(bench.store, "count", counted)
    assert bench.splits.believed(ROOT, 0.0) == Split(TREE, 16, 1 << 16)
    assert len(looked) == 64


def test_one_voice_is_believed_by_nobody_two_are() -> None:
    bench = Bench()
    bench.say(1, Split(TREE, 12, 100_000))
    bench.say(1, Split(TREE, 12, 100_000))
    assert bench.splits.believed(ROOT, 0.0) is None
    bench.say(2, Split(TREE, 11, 90_000))
    assert bench.splits.believed(ROOT, 0.0) == Split(TREE, 11, 90_000)
    bench.say(3, Split(TREE, 24, 9))
    assert bench.splits.believed(ROOT, 0.0) == Split(TREE, 12, 90_000)


def test_what_was_told_is_not_told_on_and_ages() -> None:
    bench = Bench()
    bench.say(1, Split(TREE, 12, 1))
    bench.say(2, Split(TREE, 12, 1))
    assert bench.splits.tell(ROOT, 0.0) == ()
    assert bench.splits.believed(ROOT, 3599.0) is not None
    assert bench.splits.believed(ROOT, 3600.0) is None


def test_floods_of_hints_are_bounded_and_displace_single_voices_first() -> None:
    bench = Bench()
    bench.say(1, Split(TREE, 12, 1))
    bench.say(2, Split(TREE, 12, 1))
    for number in range(1000):
        bench.say(3, Split(b"%8d" % number, 5, 5))
    assert bench.splits.believed(ROOT, 0.0) is not None
    assert len(bench.splits._told) == 64  # pyright: ignore[reportPrivateUsage]
    for number in range(100):
        bench.say(number, Split(TREE, 12, 1))
    assert len(bench.splits._told[TREE]) == 4  # pyright: ignore[reportPrivateUsage]


def test_an_own_find_counts_most_until_it_was_wrong() -> None:
    bench = Bench()
    bench.say(1, Split(TREE, 12, 1))
    bench.say(2, Split(TREE, 12, 1))
    bench.splits.found(ROOT, 9, 700, 0.0)
    assert bench.splits.believed(ROOT, 0.0) == Split(TREE, 9, 700)
    bench.splits.wrong(ROOT)
    assert bench.splits.believed(ROOT, 0.0) is None
    for number in range(100):
        bench.splits.found(service_key(str(number)), 1, 1, 0.0)
    assert len(bench.splits._found) == 64  # pyright: ignore[reportPrivateUsage]
