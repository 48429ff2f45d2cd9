"""Own addresses: one list out of several origins, and who is told of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.transport.addresses import to_multiaddr
from swarmp2p.transport.own_addresses import MAX_ADDRESSES, Origin, OwnAddresses

LAN, HERE = to_multiaddr("192.168.1.5", 4001), to_multiaddr("127.0.0.1", 4001)
SEEN, MAPPED = to_multiaddr("8.8.8.8", 4001), to_multiaddr("9.9.9.9", 4001)
RELAYED = b"/p2p-circuit"


def test_public_ones_first_then_relays_then_private_ones_and_loopback_last() -> None:
    own = OwnAddresses([HERE, LAN])
    own.set(Origin.RELAYED, [RELAYED])
    own.set(Origin.OBSERVED, [SEEN])
    own.set(Origin.MAPPED, [MAPPED])
    assert own.all == (MAPPED, SEEN, RELAYED, LAN, HERE)
    assert own.listening == (HERE, LAN)


def test_changes_are_told_once() -> None:
    own, told = OwnAddresses([LAN]), list[tuple[bytes, ...]]()
    own.on_change.append(lambda: told.append(own.all))
    own.set(Origin.OBSERVED, [])
    own.set(Origin.OBSERVED, [SEEN, SEEN])
    own.set(Origin.OBSERVED, [SEEN])
    own.set(Origin.MAPPED, [SEEN])  # of two origins now, and nothing new to others
    own.set(Origin.OBSERVED, [])
    own.set(Origin.MAPPED, [])
    assert told == [(SEEN, LAN), (LAN,)]


@given(st.dictionaries(st.sampled_from(Origin), st.lists(st.binary(max_size=3), max_size=40)))
def test_there_are_never_too_many_nor_any_twice(found: dict[Origin, list[bytes]]) -> None:
    own = OwnAddresses([])
    for origin, addresses in found.items():
        own.set(origin, addresses)
    assert (
        len(own.all) == len(set(own.all)) == min(MAX_ADDRESSES, len({a for x in found.values() for a in x}))
    )
