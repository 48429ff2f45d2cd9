"""What other implementations hold a DHT message to, read from their sources; all of it at once.

go: go-libp2p-kad-dht (handlers.go, pb/, internal/net/). rust: rust-libp2p (protocols/kad/src/protocol.rs, handler.rs).
js: @libp2p/kad-dht (src/rpc, src/message). py: py-libp2p (libp2p/kad_dht). Messages are parsed with py's classes, so
that nothing of ours vouches for ours; what it does not know, our own field 1001, must not disturb it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from libp2p.kad_dht.pb.kademlia_pb2 import Message
from multiaddr.multiaddr import Multiaddr

from swarmp2p.identity import PeerId

RUST_MAX_BYTES: Final = 16 * 1024  # rust: DEFAULT_MAX_PACKET_SIZE, without the length; go and js: 4 MiB
GO_MAX_PROVIDER_KEY: Final = 80  # go: handleAddProvider, handleGetProviders
GO_MAX_PEER_BYTES: Final = 8 * 1024  # go: MaxPeerRecordSize, beyond which addresses are cut off
# js: Libp2pRecord.deserialize throws for any other form. go: util.ParseRFC3339.
TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")


def parse(body: bytes) -> Message:
    """A message as the strictest reader takes it."""
    assert len(body) <= RUST_MAX_BYTES
    message = Message.FromString(body)
    assert message.type in Message.MessageType.values()  # go and rust reset the stream of any other
    return message


def check_request(body: bytes, sender: PeerId) -> Message:
    """A request that every implementation takes."""
    message = parse(body)
    kind = message.type
    assert not message.closerPeers
    if kind != Message.PING:
        assert message.key  # go: "no key was provided"; js: "Missing key"
    if kind in (Message.ADD_PROVIDER, Message.GET_PROVIDERS):
        assert len(message.key) <= GO_MAX_PROVIDER_KEY
        assert message.key[:2] == b"\x12\x20"  # js decodes it as a CID: a multihash, or the stream is aborted
        assert len(message.key) == 34
    if kind == Message.ADD_PROVIDER:
        # go and js take the sender only, with an address; rust takes the first that it can read, and fails without.
        (provider,) = message.providerPeers
        assert provider.id == sender
        assert provider.addrs
        check_peer(provider)
    else:
        assert not message.providerPeers
    if kind == Message.PUT_VALUE:
        check_record(message)
        assert message.HasField(
            "record"
        )  # go: "nil record"; js: "Empty record"; rust: stores under an empty key
    else:
        assert not message.HasField("record")
    return message


def check_reply(body: bytes, request: Message, server: PeerId, asker: PeerId) -> Message:
    """A reply that every implementation takes."""
    message = parse(body)
    assert message.type == request.type  # go's Ping checks it; rust makes of it which reply this is
    if message.type == Message.PUT_VALUE:
        # rust: "received PutValue message with no record". go dereferences it whatever it holds.
        assert message.HasField("record")
    if message.HasField("record"):
        check_record(message)
        assert message.record.key == request.key  # go: ErrIncorrectRecord
    for peer in (*message.closerPeers, *message.providerPeers):
        check_peer(peer)
    named = [peer.id for peer in message.closerPeers]
    assert len(set(named)) == len(named) <= 20  # k
    assert asker not in named  # "never tell a peer about itself" (js)
    # go's FIND_NODE names the target whoever it is; nobody names itself otherwise.
    assert server not in named or request.key == server
    return message


def check_record(message: Message) -> None:
    """The record of a PUT_VALUE or GET_VALUE."""
    record = message.record
    assert (
        record.key == message.key
    )  # go: "put key doesn't match record key"; rust looks at the record's key only
    assert TIME.fullmatch(record.timeReceived)
    # rust's own fields of a record, publisher (666) and ttl (777), must be a peer id and seconds when they are there.
    assert not unknown_fields(record.SerializeToString(), known=(1, 2, 5))


def check_peer(peer: Message.Peer) -> None:
    """A peer in a message."""
    id = PeerId.from_bytes(peer.id)  # rust leaves the peer out otherwise
    assert peer.connection in Message.ConnectionType.values()  # and for an unknown connection type
    assert len(peer.SerializeToString()) <= GO_MAX_PEER_BYTES
    for address in peer.addrs:
        text = str(Multiaddr(address))  # each that cannot be read is left out
        assert "/p2p/" not in text or text.endswith(f"/p2p/{id}")  # rust: "not compatible with" the peer


def unknown_fields(body: bytes, known: Sequence[int]) -> list[int]:
    """Numbers of the fields of a protobuf message without nested ones that are not known."""
    found: list[int] = []
    index = 0
    while index < len(body):
        tag, index = _uvarint(body, index)
        if tag & 7 == 0:
            _, index = _uvarint(body, index)
        elif tag & 7 == 2:
            size, index = _uvarint(body, index)
            index += size
        else:
            raise AssertionError(f"wire type {tag & 7}")
        if tag >> 3 not in known:
            found.append(tag >> 3)
    return found


def _uvarint(data: bytes, index: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[index]
        value |= (byte & 0x7F) << shift
        index, shift = index + 1, shift + 7
        if byte < 0x80:
            return value, index
