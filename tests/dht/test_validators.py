from __future__ import annotations

from collections.abc import Sequence

import pytest

from swarmp2p.dht.validators import Validators, check_value
from swarmp2p.errors import UsageError


class Largest:
    """Values that begin with "v"; the largest is best."""

    def validate(self, key: bytes, value: bytes, now: float) -> bool:
        return value.startswith(b"v")

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        return max(range(len(values)), key=lambda index: values[index])


VALIDATORS = Validators({"ns": Largest()}, max_value_bytes=10)


def test_a_namespace_has_its_own_rules() -> None:
    assert VALIDATORS.validate(b"/ns/key", b"v1", 0.0)
    assert not VALIDATORS.validate(b"/ns/key", b"1", 0.0)
    assert VALIDATORS.select(b"/ns/key", [b"v2", b"v9", b"v1"]) == 1
    assert VALIDATORS.is_mergeable(b"/ns/key")


@pytest.mark.parametrize("key", [b"key", b"/other/key", b"ns/key", b"/ns", b"x/ns/key", b"\xff/ns/k"])
def test_all_other_keys_take_any_value(key: bytes) -> None:
    assert VALIDATORS.validate(key, b"", 0.0)
    assert not VALIDATORS.is_mergeable(key)


def test_sizes_are_limited_for_all() -> None:
    assert VALIDATORS.validate(b"/ns/key", b"v" * 10, 0.0)
    assert not VALIDATORS.validate(b"/ns/key", b"v" * 11, 0.0)
    assert not VALIDATORS.validate(b"k", b"x" * 11, 0.0)
    assert not VALIDATORS.validate(b"", b"x", 0.0)
    assert not VALIDATORS.validate(b"k" * 257, b"x", 0.0)


def test_without_rules_the_most_frequent_value_is_best_then_the_last() -> None:
    assert VALIDATORS.select(b"k", [b"a"]) == 0
    assert VALIDATORS.select(b"k", [b"held", b"arrived"]) == 1
    assert VALIDATORS.select(b"k", [b"a", b"b", b"a", b"c"]) == 2
    assert VALIDATORS.select(b"k", [b"a", b"b", b"a", b"b"]) == 3


def test_a_value_that_nobody_would_store_is_named_before_it_is_put() -> None:
    check_value(b"k", b"x" * 8192)
    with pytest.raises(UsageError, match="8192 bytes, not 8193"):
        check_value(b"k", b"x" * 8193)
    with pytest.raises(UsageError, match="not 0"):
        check_value(b"", b"x")
    with pytest.raises(UsageError, match="not 257"):
        check_value(b"k" * 257, b"x")
