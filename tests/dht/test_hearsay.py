"""Which addresses that others name are believed, and that lies do not make a peer dial much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.dht.events import FindClosest
from swarmp2p.dht.messages import FindNode, FoundNodes
from swarmp2p.engine import Address, PeerInfo, PeerUp
from swarmp2p.hearsay import MAX_ADDRESSES, believable, is_public

from .network import peer_id, peer_info
from .single import Single, introduced, only, receivers


def ip4(text: str) -> Address:
    """/ip4/.../tcp/4001."""
    return b"\x04" + bytes(int(part) for part in text.split(".")) + b"\x06\x0f\xa1"


PUBLIC, OTHER, PRIVATE, LOOPBACK = ip4("8.8.4.4"), ip4("9.9.9.9"), ip4("192.168.1.5"), ip4("127.0.0.1")
MAPPED = b"\x29" + bytes(10) + b"\xff\xff" + bytes((10, 0, 0, 1)) + b"\x06\x0f\xa1"
NAME = b"\x36\x0bexample.com\x06\x0f\xa1"


def kept(addresses: tuple[Address, ...], teller: Address) -> tuple[Address, ...]:
    found = believable([PeerInfo(peer_id(1), addresses)], (teller,))
    return found[0].addresses if found else ()


def test_which_addresses_are_public() -> None:
    assert [
        is_public(address) for address in (PUBLIC, PRIVATE, LOOPBACK, MAPPED, NAME, b"", b"\x04\x01")
    ] == [
        True,
        False,
        False,
        False,
        None,
        None,
        None,
    ]


def test_private_addresses_count_only_from_a_private_peer() -> None:
    assert kept((PRIVATE, LOOPBACK, MAPPED, OTHER), PUBLIC) == (OTHER,)
    assert kept((PRIVATE, OTHER), LOOPBACK) == (PRIVATE, OTHER)
    assert kept((PRIVATE,), PUBLIC) == ()


def test_names_are_not_resolved_for_others() -> None:
    assert kept((NAME, OTHER), PUBLIC) == kept((NAME, OTHER), PRIVATE) == (OTHER,)
    assert kept((NAME,), PRIVATE) == ()


def test_a_peer_that_needs_no_change_stays_the_same_object() -> None:
    info = peer_info(3)
    assert believable([info], (PRIVATE,))[0] is info


@given(st.lists(st.lists(st.binary(max_size=24), max_size=20), max_size=20), st.binary(max_size=12))
def test_nothing_raises_and_few_addresses_remain(named: list[list[bytes]], teller: bytes) -> None:
    infos = [PeerInfo(peer_id(number), tuple(addresses)) for number, addresses in enumerate(named)]
    for info in believable(infos, (teller,)):
        assert 1 <= len(info.addresses) <= MAX_ADDRESSES


def test_a_liar_at_a_public_address_makes_nobody_dial_its_own_network() -> None:
    single = Single()
    (probe,) = [only(single.post(PeerUp(peer_id(1), (PUBLIC,))), FindNode)]
    single.hear(1, FoundNodes(probe.id, ()))
    request = only(single.post(FindClosest(7, b"k")), FindNode)
    lies = (
        *(PeerInfo(peer_id(number), (PRIVATE, LOOPBACK, NAME)) for number in range(20, 30)),
        PeerInfo(peer_id(30), (OTHER,) * 16),
    )
    outputs = single.hear(1, FoundNodes(request.id, lies))
    assert receivers(outputs) == [peer_id(30)]
    assert introduced(outputs) == [PeerInfo(peer_id(30), (OTHER,) * MAX_ADDRESSES)]
