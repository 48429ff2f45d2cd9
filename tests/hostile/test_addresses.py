"""Addresses that other peers name: whatever they are, dialling them only fails."""

from __future__ import annotations

import pytest
import trio

from swarmp2p import Identity, open_peer
from swarmp2p.dht import wire
from swarmp2p.dht.messages import FoundNodes
from swarmp2p.engine import PeerInfo
from swarmp2p.transport.addresses import parse_transport
from swarmp2p.transport.tcp import dial_tcp
from tests.hostile.mallory import lying_dht_peer

# Host names that are right by IDNA 2008, which multiaddr follows, and wrong by IDNA 2003, which Python follows: it
# raises UnicodeError for them, no OSError.
NAMES = ("\N{HEBREW LETTER ALEF}1", "\N{LATIN SMALL LETTER SHARP S}" * 50)


def dns_address(name: str) -> bytes:
    """/dns4/<name>/tcp/4001 in binary form."""
    return bytes([0x36, len(name.encode())]) + name.encode() + b"\x06\x0f\xa1"


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_that_only_multiaddr_takes_cannot_be_dialled(name: str) -> None:
    assert parse_transport(dns_address(name)) is not None
    with pytest.raises(OSError, match="cannot be a host's name"):
        await dial_tcp(name, 4001)


async def test_a_peer_survives_being_told_of_unusable_names() -> None:
    told: list[bytes] = []

    def answer() -> bytes:
        told.append(b"")
        victims = (PeerInfo(Identity.generate().peer_id, (dns_address(name),)) for name in NAMES)
        return wire.encode(FoundNodes(0, tuple(victims)))

    with trio.fail_after(30):
        async with lying_dht_peer(answer) as liar, open_peer(bootstrap=[liar]) as peer:
            closest = await peer.dht.closest(b"anything")
            assert [found.id for found in closest] == [await peer.connect(liar)]
            assert told
