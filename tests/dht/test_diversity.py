from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.dht.diversity import address_groups

TCP = b"\x06\x0f\xa1"


def ip4(text: str) -> bytes:
    return b"\x04" + bytes(int(part) for part in text.split(".")) + TCP


def ip6(hextets: str) -> bytes:
    return b"\x29" + bytes.fromhex(hextets.replace(":", "").ljust(32, "0")) + TCP


def test_public_addresses_are_grouped_by_24_and_48_bits() -> None:
    assert address_groups([ip4("8.8.8.8")]) == address_groups([ip4("8.8.8.200")]) != ()
    assert address_groups([ip4("8.8.8.8")]) != address_groups([ip4("8.8.9.8")])
    assert address_groups([ip6("2001:4860:4860:0001")]) == address_groups([ip6("2001:4860:4860:ffff")]) != ()
    assert address_groups([ip6("2001:4860:4860")]) != address_groups([ip6("2001:4860:4861")])


@pytest.mark.parametrize(
    "address",
    [
        ip4("127.0.0.1"),
        ip4("10.1.2.3"),
        ip4("192.168.1.1"),
        ip4("169.254.0.1"),
        ip6("fe80"),
        ip6("fd00"),
        ip6(""),
        b"\x35\x04host" + TCP,  # /dns/host
        b"\x04\x08\x08",  # cut off
        b"\x29\x20",
        b"",
    ],
)
def test_private_and_other_addresses_are_exempt(address: bytes) -> None:
    assert address_groups([address]) == ()


def test_an_ipv4_address_mapped_into_ipv6_is_the_same_network() -> None:
    assert address_groups([ip6("0000:0000:0000:0000:0000:ffff:0808:0808")]) == address_groups(
        [ip4("8.8.8.8")]
    )


def test_an_address_may_end_behind_its_ip() -> None:
    assert address_groups([ip4("8.8.8.8")[:5]]) == address_groups([ip4("8.8.8.8")])
    assert address_groups([ip6("2001:4860:4860")[:17]]) == address_groups([ip6("2001:4860:4860")])


def test_each_group_counts_once() -> None:
    assert len(address_groups([ip4("8.8.8.8"), ip4("8.8.8.9"), ip4("9.9.9.9"), ip4("127.0.0.1")])) == 2


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes_are_taken(addresses: list[bytes]) -> None:
    assert all(len(group) in (4, 7) for group in address_groups(addresses))
