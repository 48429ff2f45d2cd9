"""DHT messages as bytes: what we write, what we take, and what no bytes can do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libp2p.kad_dht.pb.kademlia_pb2 import Message as Theirs

from swarmp2p.dht import kad_pb2, wire
from swarmp2p.dht.kad_pb2 import Message as Proto
from swarmp2p.dht.messages import (
    AddProvider,
    FindNode,
    FoundNodes,
    FoundProviders,
    FoundValue,
    GetProviders,
    GetRecord,
    GetValue,
    Ping,
    Pong,
    Provider,
    ProviderEcho,
    PutValue,
    Split,
    ValueStored,
)
from swarmp2p.dht.wire import MAX_FRAME_BYTES, decode, decode_reply, dht_protocol, encode
from swarmp2p.engine import Message, PeerInfo, Reply, Request
from swarmp2p.errors import BadMessage
from swarmp2p.wire import Exchange, Framing

from .network import address, peer_id, peer_info

SENDER = peer_id(1)
KEY = b"\x12\x20" + bytes(range(32))
CLOSER = (peer_info(2), PeerInfo(peer_id(3), (address(3), address(4))))
PROVIDERS = (Provider(peer_id(5), (address(5),), b"record"), Provider(peer_id(6), (address(6),)))

REQUESTS: list[Request] = [
    FindNode(7, KEY),
    GetProviders(7, KEY),
    GetValue(7, b"/ns/key"),
    PutValue(7, b"/ns/key", b"value", 0.0),
    PutValue(7, b"/ns/key", b"", 0.0),
    AddProvider(7, KEY, Provider(SENDER, (address(1),), b"record")),
    AddProvider(7, KEY, None),
    Ping(7),
]
REPLIES: list[Reply] = [
    FoundNodes(7, CLOSER),
    FoundNodes(7, ()),
    FoundNodes(7, CLOSER, coordinate=bytes(22)),
    FoundNodes(7, CLOSER, 5, (Split(b"8 bytes!", 3, 200), Split(b"others!!", 24, 0))),
    FoundProviders(7, b"key", (), CLOSER, 31, (Split(b"8 bytes!", 1, 50),)),
    FoundProviders(7, KEY, PROVIDERS, CLOSER),
    FoundProviders(7, KEY, (), ()),
    FoundValue(7, b"k", b"value", 0.0, CLOSER),
    ValueStored(7, b"k", b"value"),
    ValueStored(7, b"k", b""),
    Pong(7),
]


def names(cases: list[Any]) -> list[str]:
    return [type(case).__name__ for case in cases]


def test_the_protocol_is_kad_dht_under_a_name_of_ours_or_another() -> None:
    protocol = dht_protocol()
    assert (protocol.name, protocol.ids) == ("dht", ("/swarm/kad/1.0.0",))
    assert (protocol.exchange, protocol.framing) == (Exchange.REQUESTS, Framing.UVARINT)
    assert (protocol.max_frame_bytes, protocol.max_request_bytes) == (256 * 1024, 64 * 1024)
    assert dht_protocol("/ipfs/kad/1.0.0").ids == ("/ipfs/kad/1.0.0",)


@pytest.mark.parametrize("request_", REQUESTS, ids=names(REQUESTS))
def test_requests_survive_the_wire(request_: Request) -> None:
    assert decode(SENDER, encode(request_), 7) == request_


@pytest.mark.parametrize("reply", REPLIES, ids=names(REPLIES))
def test_replies_survive_the_wire(reply: Reply) -> None:
    assert decode_reply(SENDER, encode(reply), 7) == reply


def test_a_value_that_was_not_found_has_no_record() -> None:
    """Its key is in the record, so that it does not come back either."""
    assert decode_reply(SENDER, encode(FoundValue(7, b"k", None, 0.0, CLOSER)), 7) == FoundValue(
        7, b"", None, 0.0, CLOSER
    )


def test_a_refused_value_is_answered_with_an_empty_one() -> None:
    """go's PutValue takes the record of a PUT_VALUE reply for granted (pb/protocol_messenger.go)."""
    message = Proto.FromString(encode(ValueStored(7, b"k", None)))
    assert message.HasField("record")
    assert (message.key, message.record.key, message.record.value) == (b"k", b"k", b"")


def test_the_bytes_are_the_spec_s() -> None:
    """Field 1 is the type, 2 the key, 8 the closer peers with id 1 and addresses 2, 9 the providers."""
    assert encode(FindNode(1, b"abc")) == b"\x08\x04\x12\x03abc"
    assert encode(GetProviders(1, b"abc")) == b"\x08\x03\x12\x03abc"
    assert encode(GetValue(1, b"abc")) == b"\x08\x01\x12\x03abc"
    assert encode(Ping(1)) == encode(Pong(1)) == b"\x08\x05"
    peer = PeerInfo(SENDER, (b"\x04\x7f\0\0\x01\x06\x0f\xa1",))
    body = b"\x0a\x26" + SENDER + b"\x12\x08\x04\x7f\0\0\x01\x06\x0f\xa1"
    assert encode(FoundNodes(1, (peer,))) == b"\x08\x04\x42" + bytes([len(body)]) + body
    assert encode(AddProvider(1, b"abc", Provider(SENDER, peer.addresses))) == (
        b"\x08\x02\x12\x03abc\x4a" + bytes([len(body)]) + body
    )


def test_a_service_record_is_a_field_that_others_skip() -> None:
    raw = encode(AddProvider(1, KEY, Provider(SENDER, (address(1),), b"record")))
    assert b"\xca\x3e\x06record" in raw  # field 1001, length-delimited


def test_splits_that_make_no_sense_are_left_out_and_four_are_taken() -> None:
    hints = [
        (b"short", 3),
        (b"8 bytes!", 0),
        (b"8 bytes!", 25),
        *((b"%8d" % depth, depth) for depth in range(1, 9)),
    ]
    splits = [kad_pb2.Split(tree=tree, depth=depth) for tree, depth in hints]
    reply = decode_reply(SENDER, Proto(type=Proto.FIND_NODE, splits=splits).SerializeToString(), 1)
    assert isinstance(reply, FoundNodes)
    assert [split.depth for split in reply.splits] == [1]
    reply = decode_reply(SENDER, Proto(type=Proto.FIND_NODE, splits=splits[3:]).SerializeToString(), 1)
    assert isinstance(reply, FoundNodes)
    assert [split.depth for split in reply.splits] == [1, 2, 3, 4]


def test_a_coordinate_costs_25_bytes_and_none_nothing() -> None:
    plain = encode(FoundNodes(1, CLOSER))
    assert len(encode(FoundNodes(1, CLOSER, coordinate=bytes(22)))) == len(plain) + 25
    long = Proto(type=Proto.FIND_NODE, coordinate=bytes(33)).SerializeToString()
    assert decode_reply(SENDER, long, 1) == FoundNodes(1, ())


def test_values_carry_a_time_as_js_needs_it() -> None:
    message = Proto.FromString(encode(PutValue(1, b"k", b"v", 1_700_000_000.25)))
    assert message.record.time_received == "2023-11-14T22:13:20.250000000Z"
    assert Proto.FromString(encode(PutValue(1, b"k", b"v", 0.0))).record.time_received.startswith(
        "1970-01-01T00:00:00."
    )


def test_what_is_no_message_of_the_dht_is_our_own_mistake() -> None:
    with pytest.raises(TypeError, match="GetRecord"):
        encode(GetRecord(1, "svc"))


# Taking -----------------------------------------------------------------------------------------------------


def test_of_an_add_provider_only_the_sender_is_taken() -> None:
    """kad-dht spec, ADD_PROVIDER: all providerPeers that match the RPC sender's PeerID are recorded."""
    message = Proto(type=Proto.ADD_PROVIDER, key=KEY)
    for number in (2, 1, 3):
        message.provider_peers.add(id=bytes(peer_id(number)), addrs=[address(number)])
    assert decode(SENDER, message.SerializeToString(), 1) == AddProvider(
        1, KEY, Provider(SENDER, (address(1),))
    )
    assert decode(peer_id(9), message.SerializeToString(), 1) == AddProvider(1, KEY, None)


def test_an_echoed_add_provider_is_no_reply() -> None:
    echo = decode_reply(SENDER, encode(AddProvider(1, KEY, Provider(SENDER, (address(1),)))), 5)
    assert echo == ProviderEcho()
    assert not isinstance(echo, Reply)


def test_unusable_peers_are_left_out_and_the_rest_counts() -> None:
    message = Proto(type=Proto.FIND_NODE)
    for raw in (b"", b"short", bytes(peer_id(2)), b"\x12\x20" + bytes(31), b"x" * 100):
        message.closer_peers.add(id=raw, addrs=[b"", address(2), b"x" * 257, address(2)])
    assert decode_reply(SENDER, message.SerializeToString(), 1) == FoundNodes(1, (peer_info(2),))


def test_a_peer_id_that_hashes_its_key_is_taken() -> None:
    old = b"\x12\x20" + bytes(32)
    message = Proto(type=Proto.FIND_NODE)
    message.closer_peers.add(id=old, addrs=[address(2)], connection=Proto.CONNECTED)
    reply = decode_reply(SENDER, message.SerializeToString(), 1)
    assert isinstance(reply, FoundNodes)
    assert reply.closer[0].peer == old


def test_what_a_message_may_bring_is_bounded() -> None:
    message = Proto(type=Proto.GET_PROVIDERS, key=KEY)
    for number in range(40):
        message.closer_peers.add(id=bytes(peer_id(number)), addrs=[address(n) for n in range(20)])
    for number in range(150):
        message.provider_peers.add(id=bytes(peer_id(number)), service_record=b"x" * (20 if number else 512))
    reply = decode_reply(SENDER, message.SerializeToString(), 1)
    assert isinstance(reply, FoundProviders)
    assert (len(reply.closer), len(reply.providers), len(reply.closer[0].addresses)) == (32, 128, 16)
    assert reply.providers[0].record == b""
    assert reply.providers[1].record == b"x" * 20


@pytest.mark.parametrize(
    "message",
    [
        Proto(type=Proto.FIND_NODE),
        Proto(type=Proto.FIND_NODE, key=b"x" * 1025),
        Proto(type=Proto.GET_PROVIDERS),
        Proto(type=Proto.GET_VALUE),
        Proto(type=Proto.PUT_VALUE),
        Proto(type=Proto.PUT_VALUE, key=b"k"),
        Proto(type=Proto.ADD_PROVIDER, key=b"x" * 81),
    ],
    ids=str,
)
def test_requests_that_make_no_sense_are_refused(message: Proto) -> None:
    with pytest.raises(BadMessage):
        decode(SENDER, message.SerializeToString(), 1)


def test_a_value_must_stand_under_its_own_key() -> None:
    message = Proto(type=Proto.PUT_VALUE, key=b"k")
    message.record.key, message.record.value = b"other", b"v"
    with pytest.raises(BadMessage, match="record of its key"):
        decode(SENDER, message.SerializeToString(), 1)


@pytest.mark.parametrize(
    "body", [b"\x08\x63", b"\xff" * 9, b"\x12\x05ab", b"\x12\x7f", bytes(MAX_FRAME_BYTES + 1)]
)
def test_malformed_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(SENDER, body, 1)
    with pytest.raises(BadMessage):
        decode_reply(SENDER, body, 1)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_bad_message(body: bytes) -> None:
    for take in (decode, decode_reply):
        try:
            assert isinstance(take(SENDER, body, 1), Message)
        except BadMessage:
            pass


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(REQUESTS + REPLIES), st.data())
def test_damaged_messages_raise_nothing_but_bad_message(message: Message, data: st.DataObject) -> None:
    body = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(body)))
        body[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    for take in (decode, decode_reply):
        try:
            taken = take(SENDER, bytes(body), 1)
        except BadMessage:
            continue
        if not isinstance(taken, ProviderEcho):
            encode(taken)  # what was taken can be written again


# Size -------------------------------------------------------------------------------------------------------


def wide(number: int, addresses: int) -> PeerInfo:
    return PeerInfo(peer_id(number), tuple(address(1000 * number + n) + bytes(100) for n in range(addresses)))


def test_a_reply_stays_under_16_kib_and_loses_its_farthest_peers() -> None:
    """rust refuses larger ones."""
    closer = tuple(wide(number, 16) for number in range(20))
    body = encode(FoundNodes(1, closer))
    assert len(body) <= 16 * 1024
    reply = decode_reply(SENDER, body, 1)
    assert isinstance(reply, FoundNodes)
    assert 5 < len(reply.closer) < 20
    assert reply.closer == closer[: len(reply.closer)]


def test_a_peer_with_many_addresses_does_not_push_out_the_smaller_ones_behind_it() -> None:
    fat = PeerInfo(peer_id(1), tuple(address(n) + bytes(1100) for n in range(16)))
    reply = decode_reply(SENDER, encode(FoundNodes(1, (fat, *CLOSER))), 1)
    assert reply == FoundNodes(1, CLOSER)


def test_twenty_full_records_and_twenty_peers_fit_into_a_reply() -> None:
    providers = tuple(Provider(peer_id(n), (address(n), address(n + 1)), b"r" * 511) for n in range(20))
    closer = tuple(peer_info(number) for number in range(20, 40))
    body = encode(FoundProviders(1, KEY, providers, closer))
    assert len(body) <= 16 * 1024
    assert decode_reply(SENDER, body, 1) == FoundProviders(1, KEY, providers, closer)


def test_providers_leave_room_for_closer_peers() -> None:
    providers = tuple(Provider(peer_id(n), (address(n),), b"r" * 511) for n in range(100))
    closer = tuple(peer_info(number) for number in range(20))
    reply = decode_reply(SENDER, encode(FoundProviders(1, KEY, providers, closer)), 1)
    assert isinstance(reply, FoundProviders)
    assert reply.closer == closer
    assert 20 <= len(reply.providers) < 100


def test_the_largest_value_fits_into_a_reply_with_twenty_peers() -> None:
    closer = tuple(peer_info(number) for number in range(20))
    body = encode(FoundValue(1, b"k" * 256, b"v" * 8192, 0.0, closer))
    assert len(body) <= 16 * 1024
    assert decode_reply(SENDER, body, 1) == FoundValue(1, b"k" * 256, b"v" * 8192, 0.0, closer)


def test_encoded_peers_are_kept_and_renewed_with_their_addresses() -> None:
    first = encode(FoundNodes(1, (peer_info(1),)))
    moved = encode(FoundNodes(1, (PeerInfo(peer_id(1), (address(9),)),)))
    assert first != moved
    assert encode(FoundNodes(1, (peer_info(1),))) == first


def test_the_cache_of_encoded_peers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_MAX_PARTS", 5)
    cache: dict[object, object] = {}
    monkeypatch.setattr(wire, "_closer_parts", cache)
    for number in range(13):
        encode(FoundNodes(1, (peer_info(number),)))
        assert 0 < len(cache) <= 5


# py-libp2p's reading of our bytes, and ours of its ------------------------------------------------------------


def test_py_libp2p_reads_what_we_write() -> None:
    theirs = Theirs.FromString(encode(FoundProviders(1, KEY, PROVIDERS, CLOSER)))
    assert (theirs.type, theirs.key) == (Theirs.GET_PROVIDERS, KEY)
    assert [(peer.id, tuple(peer.addrs)) for peer in theirs.closerPeers] == [
        (p.peer, p.addresses) for p in CLOSER
    ]
    assert [(p.id, tuple(p.addrs)) for p in theirs.providerPeers] == [
        (p.peer, p.addresses) for p in PROVIDERS
    ]
    theirs = Theirs.FromString(encode(PutValue(1, b"k", b"v", 0.0)))
    assert (theirs.type, theirs.record.key, theirs.record.value) == (Theirs.PUT_VALUE, b"k", b"v")
    for request, kind in ((FindNode(1, KEY), Theirs.FIND_NODE), (GetValue(1, KEY), Theirs.GET_VALUE)):
        theirs = Theirs.FromString(encode(request))
        assert (theirs.type, theirs.key) == (kind, KEY)


def test_we_read_what_py_libp2p_writes() -> None:
    """It adds signed peer records, which we skip."""
    theirs = Theirs(type=Theirs.FIND_NODE, senderRecord=b"x" * 300)
    theirs.closerPeers.add(id=bytes(peer_id(2)), addrs=[address(2)], connection=1, signedRecord=b"y" * 300)
    assert decode_reply(SENDER, theirs.SerializeToString(), 1) == FoundNodes(1, (peer_info(2),))
    theirs = Theirs(type=Theirs.ADD_PROVIDER, key=KEY)
    theirs.providerPeers.add(id=bytes(SENDER), addrs=[address(1)])
    assert decode(SENDER, theirs.SerializeToString(), 1) == AddProvider(
        1, KEY, Provider(SENDER, (address(1),))
    )


def test_an_address_that_ends_in_its_peer_is_kept_without_it() -> None:
    # py-libp2p and js-libp2p put /p2p/<id> behind each address, go does not
    behind = b"\xa5\x03" + bytes((len(peer_id(2)),)) + peer_id(2)
    message = Proto(type=Proto.FIND_NODE, key=KEY)
    message.closer_peers.add(id=bytes(peer_id(2)), addrs=[address(2) + behind, address(2)])
    assert decode_reply(SENDER, message.SerializeToString(), 1) == FoundNodes(
        1, (PeerInfo(peer_id(2), (address(2),)),)
    )


def test_of_one_peer_a_few_addresses_are_looked_at() -> None:
    """60,000 in one answer would cost 5 ms."""
    addresses = [*[bytes(300)] * 64, address(2)]
    message = Theirs(type=Theirs.FIND_NODE, key=b"k")
    message.closerPeers.add(id=bytes(peer_id(2)), addrs=addresses[1:])
    message.closerPeers.add(id=bytes(peer_id(3)), addrs=addresses)
    reply = decode_reply(SENDER, message.SerializeToString(), 7)
    assert isinstance(reply, FoundNodes)
    assert [len(info.addresses) for info in reply.closer] == [1, 0]
