from __future__ import annotations

from hashlib import sha256
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.dht.keys import (
    bucket_index,
    common_prefix_length,
    distance,
    is_multihash_key,
    key_id,
    key_in_bucket,
    multihash_key,
    peer_key,
    service_key,
)

from .network import peer_id

IDS = st.integers(0, (1 << 256) - 1)


def test_ids_are_sha256_of_the_bytes() -> None:
    assert key_id(b"abc") == int(sha256(b"abc").hexdigest(), 16)
    assert peer_key(peer_id(1)) == key_id(bytes(peer_id(1))) == int(sha256(peer_id(1)).hexdigest(), 16)


@given(IDS, IDS, IDS)
def test_distance_is_a_metric_with_one_peer_at_each(a: int, b: int, c: int) -> None:
    """Kademlia §2.1: symmetric, zero only to itself, triangle inequality, unidirectional."""
    assert distance(a, b) == distance(b, a)
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, c) <= distance(a, b) + distance(b, c)
    assert distance(a, distance(a, b)) == b


@given(IDS, IDS)
def test_common_prefix_length_counts_leading_bits(a: int, b: int) -> None:
    bits = [f"{value:0256b}" for value in (a, b)]
    expected = next((i for i, (x, y) in enumerate(zip(*bits, strict=True)) if x != y), 256)
    assert common_prefix_length(a, b) == bucket_index(a, b) == expected


def test_a_sha256_multihash_is_used_as_it_is_and_all_else_is_hashed_into_one() -> None:
    multihash = b"\x12\x20" + bytes(32)
    assert multihash_key(multihash) == multihash
    for other in (b"", b"key", bytes(34), multihash + b"\0", b"\x12\x20" + bytes(31)):
        assert multihash_key(other) == b"\x12\x20" + sha256(other).digest()
        assert is_multihash_key(multihash_key(other))
    assert multihash_key(multihash_key(b"key")) == multihash_key(b"key")


def test_a_service_has_a_key_of_its_own() -> None:
    assert is_multihash_key(service_key("ray-worker"))
    assert len({service_key("a"), service_key("b"), multihash_key(b"a"), multihash_key(b"b")}) == 4


@pytest.mark.parametrize("bucket", [0, 1, 2, 7, 10, 11, 12])
def test_a_refresh_key_is_hashed_into_its_bucket(bucket: int) -> None:
    """py-libp2p hashes the bucket's key once more and so misses it."""
    own = peer_key(peer_id(5))
    rng = Random(1)
    keys = [key_in_bucket(own, bucket, rng) for _ in range(4)]
    found = [key for key in keys if key is not None]
    assert found
    for key in found:
        assert bucket_index(own, key_id(key)) == bucket
        assert is_multihash_key(key)
    if bucket < 8:
        assert len(set(found)) > 1  # not always the same peers


def test_a_refresh_key_of_a_bucket_too_deep_to_search_for_is_given_up() -> None:
    assert key_in_bucket(peer_key(peer_id(5)), 200, Random(1)) is None
    with pytest.raises(ValueError, match="256"):
        key_in_bucket(0, 256, Random(1))
