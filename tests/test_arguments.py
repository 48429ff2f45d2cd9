"""What callers pass in is taken as what it clearly means, or refused with UsageError, before it reaches an engine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiaddr.multiaddr import Multiaddr

from swarmp2p import arguments
from swarmp2p.errors import AddressError, UsageError
from swarmp2p.identity import Identity

PEER = Identity(bytes(32)).peer_id
ADDRESS = "/ip4/127.0.0.1/tcp/4001"

CHECKS: list[Callable[[object], object]] = [
    arguments.peer_argument,
    arguments.protocol_argument,
    arguments.addresses_argument,
    lambda value: arguments.bytes_argument(value, "a key"),
    lambda value: arguments.text_argument(value, "a topic"),
    lambda value: arguments.count_argument(value, "limit"),
    lambda value: arguments.mapping_argument(value, "where"),
    lambda value: arguments.many_argument(value, "keys"),
]

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(CHECKS), anything)
def test_any_value_is_taken_or_refused_with_a_usage_error(
    check: Callable[[object], object], value: object
) -> None:
    with suppress(UsageError):
        check(value)


@pytest.mark.parametrize("value", [PEER, str(PEER), bytes(PEER), bytearray(PEER)])
def test_a_peer_is_named_by_its_id_in_any_form(value: object) -> None:
    found = arguments.peer_argument(value)
    assert (found, type(found)) == (PEER, type(PEER))


def test_text_is_not_encoded_by_guessing() -> None:
    with pytest.raises(
        UsageError, match=r"a DHT key is bytes, not text: encode it first, as in 'k'.encode\(\)"
    ):
        arguments.bytes_argument("k", "a DHT key")
    assert arguments.bytes_argument(memoryview(b"k"), "a DHT key") == b"k"


@pytest.mark.parametrize("value", ["", "two\nlines", "/caf\u00e9/1", "x" * 256])
def test_a_protocol_id_is_one_line_of_ascii(value: str) -> None:
    with pytest.raises(UsageError, match="cannot be a protocol id"):
        arguments.protocol_argument(value)
    assert arguments.protocol_argument("/chat/1.0.0") == "/chat/1.0.0"


@pytest.mark.parametrize(
    ("value", "count"),
    [(None, 0), ([], 0), (ADDRESS, 1), (Multiaddr(ADDRESS), 1), ([ADDRESS, Multiaddr(ADDRESS)], 2)],
)
def test_one_address_is_as_good_as_a_list_of_one(value: Any, count: int) -> None:
    assert [str(address) for address in arguments.addresses_argument(value)] == [ADDRESS] * count


@pytest.mark.parametrize("value", [5, [5], [None], b"/ip4", [b"/ip4"]])
def test_other_things_are_no_addresses(value: object) -> None:
    with pytest.raises(AddressError):
        arguments.addresses_argument(value)


@pytest.mark.parametrize("value", [-1, 1.5, "3", True])
def test_a_limit_is_a_count(value: object) -> None:
    with pytest.raises(UsageError, match="limit is a count"):
        arguments.count_argument(value, "limit")
    assert arguments.count_argument(None, "limit") == 0


def test_one_text_or_one_key_is_not_taken_for_its_letters() -> None:
    assert list(arguments.many_argument("region", "names")) == ["region"]
    assert list(arguments.many_argument(b"key", "keys")) == [b"key"]
    assert list(arguments.many_argument(["a", "b"], "names")) == ["a", "b"]
    with pytest.raises(UsageError, match="keys come as a list"):
        arguments.many_argument(3, "keys")
