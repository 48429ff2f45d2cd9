"""What a gossip engine knows of its peers' connections."""

from __future__ import annotations

import ipaddress

import pytest

from swarmp2p.gossip.config import GossipConfig, GossipStats
from swarmp2p.gossip.peers import Peers, place_of
from swarmp2p.transport.addresses import to_multiaddr

from .network import peer_id


def place(host: str) -> bytes:
    return place_of(to_multiaddr(host, 4001))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
    ],
)
def test_a_place_is_what_one_attacker_is_likely_to_own(one: str, other: str, same: bool) -> None:
    """gossipsub 1.1, "IP Colocation Factor"; an IPv6 customer has a /64 or more."""
    assert (place(one) == place(other)) is same


@pytest.mark.parametrize("host", ["127.0.0.1", "127.7.7.7", "::1"])
def test_loopback_is_no_place(host: str) -> None:
    assert place(host) == b""


@pytest.mark.parametrize(
    "remote",
    [b"", b"\x04", b"\x04abc", b"\x29" + bytes(15), b"\x36\x04name\x06\x0f\xa1"],
    ids=["nothing", "cut", "cut ip4", "cut ip6", "a name"],
)
def test_other_addresses_have_no_place(remote: bytes) -> None:
    assert place_of(remote) == b""


def test_a_peer_has_the_place_and_the_direction_of_its_latest_connection() -> None:
    peers = Peers(GossipConfig(), GossipStats())
    state = peers.add(peer_id(1), 0.0, True, to_multiaddr("192.0.2.1", 1))
    assert state is not None
    assert (state.outbound, state.place) == (True, ipaddress.ip_address("192.0.2.1").packed)
    peers.connects(state, False, to_multiaddr("192.0.2.2", 1))
    assert (state.outbound, state.place) == (False, ipaddress.ip_address("192.0.2.2").packed)
