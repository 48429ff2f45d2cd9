"""Mesh messages and facts as bytes: encoding and decoding are inverse, and what must not be said is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.errors import BadMessage, UsageError
from swarmp2p.identity import PeerId
from swarmp2p.transport.mesh.facts import MAX_FACTS_BYTES, read_facts, sign_facts
from swarmp2p.transport.mesh.members import (
    MAX_ADDRESS_BYTES,
    MAX_ADDRESSES,
    MAX_ENDPOINTS,
    MAX_WHY_CHARS,
    Carrier,
    Endpoint,
    Facts,
    PortBlock,
)
from swarmp2p.transport.mesh.messages import (
    MAX_DEPARTED,
    MAX_ENTRIES,
    MAX_PAIRING_BYTES,
    AnyMeshMessage,
    Entry,
    Heard,
    Invite,
    Join,
    Pairing,
    Update,
)
from swarmp2p.transport.mesh.wire import MAX_FRAME_BYTES, encode, mesh_protocol, read_message
from swarmp2p.transport.sim_peers import sim_peer, sim_sign, sim_verify

from .made import CLUSTER, drawn_facts, member_id

IDS = st.binary(min_size=16, max_size=16)
ENVELOPES = st.binary(min_size=1, max_size=200)
BLOCKS = st.integers(1024, 65535).flatmap(
    lambda first: st.builds(PortBlock, st.just(first), st.integers(1, 65536 - first))
)
ADDRESSES = st.sampled_from(("127.0.0.1", "127.64.3.4", "127.77.255.3"))
ENTRIES = st.builds(
    Entry, IDS, st.integers(0, 9).map(sim_peer), st.integers(1, 0xFFFE), ADDRESSES, BLOCKS, ENVELOPES
)
MESSAGES: st.SearchStrategy[AnyMeshMessage] = st.one_of(
    st.builds(Invite, IDS, IDS, ENVELOPES),
    st.builds(Join, IDS, ENVELOPES),
    st.builds(
        Update,
        IDS,
        st.integers(0, 1 << 53),
        st.integers(1, 1 << 53),
        st.lists(ENTRIES, max_size=3).map(tuple),
        st.lists(IDS, max_size=3).map(tuple),
    ),
    st.builds(Heard, IDS, st.integers(0, 1 << 53)),
    st.builds(Pairing, IDS, IDS, IDS, ENVELOPES),
)
PEER = sim_peer(1)
ENTRY = Entry(member_id(1), PEER, 7, "127.64.0.7", PortBlock(12000, 20), b"facts")


@settings(max_examples=100, deadline=None)
@given(MESSAGES)
def test_decoding_undoes_encoding(message: AnyMeshMessage) -> None:
    assert mesh_protocol().decode(PEER, encode(message), 0) == message


def test_the_longest_message_fits_into_a_frame() -> None:
    entry = replace(ENTRY, facts=b"f" * MAX_FACTS_BYTES)
    update = Update(member_id(1), 0, 1 << 53, (entry,) * MAX_ENTRIES, (member_id(2),) * MAX_DEPARTED)
    assert len(encode(update)) <= MAX_FRAME_BYTES
    assert read_message(encode(update)) == update
    pairing = Pairing(CLUSTER, CLUSTER, CLUSTER, b"e" * MAX_PAIRING_BYTES)
    assert read_message(encode(pairing)) == pairing


@pytest.mark.parametrize(
    "entry",
    [
        replace(ENTRY, address="0.0.0.0"),
        replace(ENTRY, address="192.168.1.1"),
        replace(ENTRY, address="100.66.0.1"),
        replace(ENTRY, address="localhost"),
        replace(ENTRY, block=PortBlock(22, 5)),
        replace(ENTRY, block=PortBlock(65000, 600)),
        replace(ENTRY, block=PortBlock(12000, 0)),
        replace(ENTRY, host=0),
        replace(ENTRY, host=0x10000),
        replace(ENTRY, member=b"short"),
        replace(ENTRY, peer=PeerId(b"no peer")),
        replace(ENTRY, facts=b""),
    ],
)
def test_a_head_cannot_have_workers_listen_where_members_never_are(entry: Entry) -> None:
    with pytest.raises(BadMessage):
        read_message(encode(Update(member_id(1), 0, 1, (entry,), ())))


def test_more_members_than_an_update_may_hold_are_refused() -> None:
    for update in (
        Update(member_id(1), 0, 1, (ENTRY,) * (MAX_ENTRIES + 1), ()),
        Update(member_id(1), 0, 1, (), (member_id(2),) * (MAX_DEPARTED + 1)),
    ):
        with pytest.raises(BadMessage):
            read_message(encode(update))


@settings(max_examples=100, deadline=None)
@given(drawn_facts())
def test_facts_are_read_as_they_were_signed(facts: Facts) -> None:
    envelope = sign_facts(CLUSTER, member_id(1), facts, sim_sign(PEER))
    assert read_facts(CLUSTER, member_id(1), envelope, PEER, sim_verify) == facts


def test_facts_with_every_field_at_its_longest_are_taken() -> None:
    endpoints = (Endpoint("2001:db8:ffff:ffff:ffff:ffff:255.255.255.255", 65535),) * MAX_ENDPOINTS
    why = "\u2603" * MAX_WHY_CHARS
    facts = Facts(
        (1 << 53) - 1,
        tuple(Carrier),
        tuple((carrier, why) for carrier in Carrier),
        endpoints,
        True,
        (b"a" * MAX_ADDRESS_BYTES,) * MAX_ADDRESSES,
        b"m" * 32,
        "127.255.255.254",
        b"k" * 32,
        endpoints,
    )
    envelope = sign_facts(CLUSTER, member_id(1), facts, sim_sign(PEER))
    assert read_facts(CLUSTER, member_id(1), envelope, PEER, sim_verify) == facts


def test_facts_are_worth_nothing_for_another_member_cluster_or_peer() -> None:
    envelope = sign_facts(CLUSTER, member_id(1), Facts(), sim_sign(PEER))
    for cluster, member, peer in (
        (member_id(9), member_id(1), PEER),
        (CLUSTER, member_id(2), PEER),
        (CLUSTER, member_id(1), sim_peer(2)),
    ):
        with pytest.raises(BadMessage):
            read_facts(cluster, member, envelope, peer, sim_verify)


@pytest.mark.parametrize(
    "facts",
    [
        Facts(carriers=(Carrier.OVERLAY, Carrier.OVERLAY)),
        Facts(carriers=(Carrier.WIREGUARD,)),
        Facts(carriers=(Carrier.WIREGUARD,), wireguard_key=bytes(32)),
        Facts(wireguard_key=b"short"),
        Facts(machine=b"short"),
        Facts(address="10.0.0.1"),
        Facts(address="::1"),
        Facts(endpoints=(Endpoint("example.org", 4001),)),
        Facts(endpoints=(Endpoint("fe80::1%eth0", 4001),)),
        Facts(endpoints=(Endpoint("127.0.0.1", 0),)),
        Facts(endpoints=(Endpoint("127.0.0.1", 4001),) * (MAX_ENDPOINTS + 1)),
        Facts(addresses=(b"",)),
        Facts(lacks=((Carrier.DIRECT, "a\nb"),)),
    ],
)
def test_facts_that_others_would_refuse_are_a_usage_error(facts: Facts) -> None:
    with pytest.raises(UsageError):
        sign_facts(CLUSTER, member_id(1), facts, sim_sign(PEER))
