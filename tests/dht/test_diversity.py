from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.dht.diversity import GroupCount, address_groups, has_room

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


def test_ipv4_inside_ipv6_counts_as_ipv4() -> None:
    inside = [
        ip6("0000:0000:0000:0000:0000:ffff:0808:0808"),
        ip6("2002:0808:0801"),
        ip6("0064:ff9b:0000:0000:0000:0000:0808:0808"),
    ]
    assert address_groups([*inside, ip4("8.8.8.9")]) == address_groups([ip4("8.8.8.8")])
    assert address_groups([ip6("2002:0a00:0001"), ip6("0064:ff9b:0000:0000:0000:0000:7f00:0001")]) == ()


def test_room_is_counted_by_group() -> None:
    a, b, c = b"a", b"b", b"c"
    assert has_room((), [(a,)] * 9, 1)
    assert has_room((a, c), [(a, b), (b,), (b,)], 2)
    assert not has_room((a, b), [(a, b), (b,)], 2)
    count = GroupCount(2)
    count.add((a, b))
    count.add((a,))
    assert not count.has_room((c, a))
    assert count.has_room((b, c))
    count.remove((a,))
    assert count.has_room((a,))
