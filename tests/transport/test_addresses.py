"""Addresses that can be dialled, among them those at a relay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiaddr.multiaddr import Multiaddr

from swarmp2p.errors import AddressError
from swarmp2p.transport.addresses import (
    circuit_address,
    is_relayed,
    parse_direct,
    parse_transport,
    split_address,
    split_circuit,
    to_multiaddr,
)
from tests.transport.station import named

RELAY, PEER = named("relay").peer_id, named("peer").peer_id
AT = "/ip4/192.0.2.1/tcp/4001"
CIRCUIT = f"{AT}/p2p/{RELAY}/p2p-circuit"


def test_an_address_at_a_relay_is_taken_as_one() -> None:
    peer, address = split_address(f"{CIRCUIT}/p2p/{PEER}")
    assert (peer, str(Multiaddr(address))) == (PEER, CIRCUIT)
    assert address == circuit_address(RELAY, Multiaddr(AT).to_bytes())
    assert split_circuit(address) == (RELAY, Multiaddr(AT).to_bytes())
    assert is_relayed(address)
    for told in (address, Multiaddr(f"{CIRCUIT}/p2p/{PEER}").to_bytes()):
        parsed = parse_transport(told)
        assert parsed is not None
        assert parsed.to_bytes() == address
        assert parse_direct(told) is None


def test_a_direct_address_whose_bytes_look_like_a_relay_s_is_none() -> None:
    """Port 41474 is the two bytes of p2p-circuit, and 165.3 those of p2p."""
    address = to_multiaddr("165.3.165.3", 41474)
    assert not is_relayed(address)
    assert parse_direct(address) == Multiaddr("/ip4/165.3.165.3/tcp/41474")
    own = Multiaddr(f"{AT}/p2p/{PEER}").to_bytes()
    assert parse_transport(own) == parse_direct(own) == Multiaddr(AT)


@pytest.mark.parametrize(
    "text",
    [
        f"/p2p/{RELAY}/p2p-circuit",
        f"{AT}/p2p-circuit",
        f"{CIRCUIT}/p2p/{PEER}/p2p-circuit",
        f"{AT}/p2p/{RELAY}/p2p/{PEER}/p2p-circuit",
        f"/ip4/192.0.2.1/udp/4001/quic-v1/p2p/{RELAY}/p2p-circuit",
        f"{CIRCUIT}/ip4/192.0.2.1/tcp/4001",
    ],
)
def test_relays_must_be_where_tcp_reaches_them_and_not_behind_others(text: str) -> None:
    assert parse_transport(Multiaddr(text).to_bytes()) is None
    with pytest.raises(AddressError):
        split_address(f"{text}/p2p/{PEER}")


@given(st.binary(max_size=80), st.sampled_from([b"", Multiaddr(AT).to_bytes()]))
def test_no_bytes_raise(rest: bytes, start: bytes) -> None:
    for end in (b"", b"\xa2\x02"):
        address = parse_transport(start + rest + end)
        if address is not None and is_relayed(address.to_bytes()):
            split_circuit(address.to_bytes())
