"""Identify: signed peer records, both ways (libp2p specs, RFC 0003 and identify's `signedPeerRecord`)."""

from __future__ import annotations

import pytest
import trio

from swarmp2p.engine import Certified, PeerInfo, PeerUp
from swarmp2p.identity import Identity, verify
from swarmp2p.peer_record import MAX_RECORD_BYTES, open_record
from swarmp2p.transport.host import Host, HostConfig
from swarmp2p.transport.identify import Introduction, own_record
from swarmp2p.transport.identify import _parse as parse  # pyright: ignore[reportPrivateUsage]
from tests.transport.station import Station, World
from tests.transport.toy import TOYS, Shout


class Hosts(World):
    """Hosts that ask those whom they dialled for their records, or do not."""

    ask_records = False

    def network(self, identity: Identity) -> Host:
        return Host(identity, ["/ip4/127.0.0.1/tcp/0"], TOYS, HostConfig(ask_records=self.ask_records))


@pytest.fixture
def hosts(nursery: trio.Nursery) -> Hosts:
    return Hosts(nursery)


def holds(record: bytes, station: Station) -> int:
    """Check that a record says where a station listens; its sequence number."""
    opened = open_record(record, verify, station.peer)
    assert opened.info == PeerInfo(station.peer, station.network.addresses)
    return opened.seq


async def test_who_is_dialled_gets_the_diallers_record_with_its_peer_up(hosts: Hosts) -> None:
    alice, bob = await hosts.pair()
    alice.network.send(bob.peer, Shout(b"hello"))
    holds((await bob.next(PeerUp)).record, alice)
    assert (await alice.next(PeerUp)).record == b"", "nobody asked"


async def test_who_dials_asks_afterwards_where_it_wants_records(hosts: Hosts) -> None:
    hosts.ask_records = True
    alice, bob = await hosts.pair()
    alice.network.send(bob.peer, Shout(b"hello"))
    assert (await alice.next(PeerUp)).record == b"", "PeerUp does not wait for it"
    holds((await alice.next(Certified)).record, bob)


async def test_a_push_brings_a_record(hosts: Hosts) -> None:
    hosts.ask_records = True
    alice, bob = await hosts.pair()
    alice.network.send(bob.peer, Shout(b"hello"))
    up = await bob.next(PeerUp)
    alice.network.serve("shout", False)
    assert (await bob.next(Certified)).record == up.record, "nothing changed in it"


async def test_a_record_after_a_restart_is_newer(hosts: Hosts) -> None:
    identity = Identity.generate()
    first, second = (open_record(own_record(identity, ()), verify).seq for _ in range(2))
    assert first < second


def test_a_long_record_is_left_out() -> None:
    body = Introduction(b"", "agent", (), (), bytes(MAX_RECORD_BYTES))._message  # pyright: ignore[reportPrivateUsage]
    assert len(parse(body).record) == MAX_RECORD_BYTES
    body = Introduction(b"", "agent", (), (), bytes(MAX_RECORD_BYTES + 1))._message  # pyright: ignore[reportPrivateUsage]
    assert parse(body).record == b""
