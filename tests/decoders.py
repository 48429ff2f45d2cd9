"""Every decoder of bytes that come from outside, with what it may raise and samples of what it takes.

tests/test_decoders.py holds them to it with hypothesis, tools/fuzz with atheris for longer.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from libp2p.identity.identify.pb.identify_pb2 import Identify

from swarmp2p.dht import record_wire
from swarmp2p.dht import wire as dht_wire
from swarmp2p.dht.messages import (
    AddProvider,
    FindNode,
    FoundNodes,
    FoundProviders,
    FoundRecord,
    FoundValue,
    GetProviders,
    GetRecord,
    GetValue,
    Ping,
    Pong,
    Provider,
    PutValue,
    Split,
    ValueStored,
)
from swarmp2p.dht.records import make_record, read_claim
from swarmp2p.engine import PeerInfo
from swarmp2p.errors import BadMessage, GrantError, IdentityFileError, UsageError
from swarmp2p.gossip import load_wire
from swarmp2p.gossip import wire as gossip_wire
from swarmp2p.gossip.load_signal import LoadSignal, decode_signal, encode_signal
from swarmp2p.gossip.load_wire import LoadsReply, LoadsRequest
from swarmp2p.gossip.messages import Exchanged, IHave, Prune, Rpc
from swarmp2p.gossip.wire import StrictSign
from swarmp2p.identity import Identity, PeerId, verify
from swarmp2p.peer_record import open_record, seal_record
from swarmp2p.ray_bridge import wire as lease_wire
from swarmp2p.ray_bridge.events import Need, Versions
from swarmp2p.ray_bridge.grant_terms import Terms
from swarmp2p.ray_bridge.grants import Grant, read_grant
from swarmp2p.ray_bridge.messages import (
    Agreement,
    Challenge,
    LeaseRequest,
    Notice,
    Proof,
    Queued,
    Refuse,
    Release,
    Renew,
    Renewed,
    Started,
)
from swarmp2p.ray_bridge.revocations import read_revocations, revoke
from swarmp2p.signed import open_signed, pack, pack_map, sign_map, split_signed, unpack_map
from swarmp2p.snapshots import protocol as snapshot_protocol
from swarmp2p.snapshots.form import make_snapshot, open_snapshot, read_header
from swarmp2p.transport.addresses import parse_transport, split_address, to_multiaddr
from swarmp2p.transport.framing import FrameBuffer, encode_frame
from swarmp2p.transport.identify import _parse as parse_identify  # pyright: ignore[reportPrivateUsage]
from swarmp2p.transport.mesh import wire as mesh_wire
from swarmp2p.transport.mesh.facts import read_facts, sign_facts
from swarmp2p.transport.mesh.members import Carrier, Endpoint, Facts, PortBlock
from swarmp2p.transport.mesh.messages import Entry, Heard, Invite, Join, Pairing, Update
from swarmp2p.transport.mesh.pairing import Between, Statement, Step, read_statement, sign_statement
from swarmp2p.transport.multistream import Choice, Proposal
from swarmp2p.transport.yamux import Session
from swarmp2p.wire import Framing


@dataclass(frozen=True, slots=True)
class Decoder:
    """One way in for bytes. run: takes them. raises: what it may raise. samples: bytes that it takes."""

    name: str
    run: Callable[[bytes], object]
    raises: tuple[type[Exception], ...]
    samples: tuple[bytes, ...]


AUTHOR = Identity(bytes(range(32)))
SENDER = AUTHOR.peer_id
OTHER = Identity(bytes(32)).peer_id
_PLACE = to_multiaddr("192.0.2.1", 4001)
_KEY = b"\x12\x20" + bytes(range(32))
_LEASE = bytes(range(16))
_PROTOCOL = "/swarm/kad/1.0.0"
_RECORD = make_record(
    SENDER, "ray-worker", {"gpu": "h100", "cpus": 8, "share": 0.5}, 7, 2e9, AUTHOR.sign
).envelope
_PEER_RECORD = seal_record(SENDER, (_PLACE, _PLACE), 1 << 60, AUTHOR.sign)
_MESSAGE = StrictSign().make(SENDER, "loads", b"data", bytes(8), AUTHOR.sign)
_OWNER = Identity(b"o" * 32)
_BORROWER = Identity(bytes(31) + b"s")
_SNAPSHOT = make_snapshot(_BORROWER, {"port": b"1"}, 1, 1e9)
_GRANT = Grant.issue(_OWNER, OTHER, Terms(expires=1e9, cpus=2, lenders=(SENDER,)), 1e9 - 60)
_SIGNED = sign_map("a domain", {"number": 1, "text": "two", "bytes": b"three"}, AUTHOR.sign)


def _framed(framing: Framing) -> Callable[[bytes], object]:
    def run(data: bytes) -> object:
        buffer = FrameBuffer(framing, 1024)
        whole = len(data) // 2
        bodies = buffer.feed(data[:whole]) + buffer.feed(data[whole:])
        assert all(len(body) <= 1024 for body in bodies)
        assert buffer.buffered <= 1024 + 5
        return bodies

    return run


def _yamux(data: bytes) -> object:
    session = Session(is_client=False, max_inbound=8)
    for start in range(0, len(data), 7):
        session.receive(data[start : start + 7])
    return session.take(1 << 16)


def _choice(data: bytes) -> object:
    return Choice(lambda name: name == _PROTOCOL).feed(data)


def _proposal(data: bytes) -> object:
    return Proposal([_PROTOCOL, "/other"]).feed(data)


def _key_file(data: bytes) -> object:
    handle, path = tempfile.mkstemp()  # its mode is 0600
    try:
        os.write(handle, data)
        return Identity.load(path)
    finally:
        os.close(handle)
        os.unlink(path)


def _saved_key() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "key")
        AUTHOR.save(path)
        with open(path, "rb") as file:
            return file.read()


def _text_address(data: bytes) -> object:
    return split_address(data.decode("utf-8", "replace"))


def _verify_none(peer: PeerId, data: bytes, signature: bytes) -> bool:
    return True


def _frame(flags: int, kind: int, stream: int, body: bytes) -> bytes:
    length = len(body)
    return (
        bytes([0, kind])
        + flags.to_bytes(2, "big")
        + stream.to_bytes(4, "big")
        + length.to_bytes(4, "big")
        + body
    )


_CLOSER = (PeerInfo(OTHER, (_PLACE,)), PeerInfo(SENDER, (_PLACE, _PLACE)))
_PROVIDER = Provider(SENDER, (_PLACE,), _RECORD)
_IDENTIFY = Identify(
    protocol_version="ipfs/0.1.0",
    agent_version="agent",
    public_key=b"\x08\x01\x12\x20" + bytes(32),
    listen_addrs=[_PLACE],
    protocols=[_PROTOCOL, "/ipfs/ping/1.0.0"],
    observed_addr=_PLACE,
    signedPeerRecord=_PEER_RECORD,
).SerializeToString()

_FACTS = Facts(
    1,
    (Carrier.WIREGUARD, Carrier.OVERLAY),
    ((Carrier.DIRECT, "another machine"),),
    (Endpoint("192.0.2.1", 4001), Endpoint("2001:db8::1", 4001)),
    False,
    (_PLACE,),
    bytes(range(32)),
    "127.77.0.1",
    bytes(range(1, 33)),
    (Endpoint("192.0.2.1", 51820),),
)
_SIGNED_FACTS = sign_facts(_LEASE, _LEASE, _FACTS, AUTHOR.sign)
_ENTRY = Entry(_LEASE, SENDER, 7, "127.64.0.7", PortBlock(12000, 20), _SIGNED_FACTS)
_BETWEEN = Between(_LEASE, _LEASE, SENDER, bytes(16), OTHER)
_STATEMENTS = tuple(
    sign_statement(_BETWEEN, statement, 2e9, AUTHOR.sign)
    for statement in (
        Statement(Step.OFFER, 1, bytes(32)),
        Statement(Step.ANSWER, 1 << 41, bytes(32), bytes(32)),
        Statement(Step.AGAIN, 3),
    )
)

DECODERS: tuple[Decoder, ...] = (
    Decoder(
        "mesh",
        mesh_wire.read_message,
        (BadMessage,),
        tuple(
            mesh_wire.encode(message)
            for message in (
                Invite(_LEASE, _LEASE, _SIGNED_FACTS),
                Join(_LEASE, _SIGNED_FACTS),
                Update(_LEASE, 1, 3, (_ENTRY, _ENTRY), (bytes(16),)),
                Heard(_LEASE, 3),
                Pairing(_LEASE, _LEASE, bytes(16), _STATEMENTS[0]),
            )
        ),
    ),
    Decoder(
        "mesh-facts",
        lambda data: read_facts(_LEASE, _LEASE, data, SENDER, _verify_none),
        (BadMessage,),
        (_SIGNED_FACTS,),
    ),
    Decoder(
        "mesh-pairing",
        lambda data: read_statement(data, _BETWEEN, 0.0, 30.0, _verify_none),
        (BadMessage,),
        _STATEMENTS,
    ),
    Decoder(
        "dht-request",
        lambda data: dht_wire.decode(SENDER, data, 1),
        (BadMessage,),
        tuple(
            dht_wire.encode(message)
            for message in (
                FindNode(1, bytes(OTHER)),
                GetProviders(1, _KEY),
                GetValue(1, b"/ns/key"),
                PutValue(1, b"/ns/key", b"value", 1e9),
                AddProvider(1, _KEY, _PROVIDER),
                Ping(1),
            )
        ),
    ),
    Decoder(
        "dht-reply",
        lambda data: dht_wire.decode_reply(SENDER, data, 1),
        (BadMessage,),
        tuple(
            dht_wire.encode(message)
            for message in (
                FoundNodes(1, _CLOSER, 5, (Split(b"8 bytes!", 3, 200),), bytes(22)),
                FoundProviders(1, _KEY, (_PROVIDER,), _CLOSER),
                FoundValue(1, b"/ns/key", b"value", 1e9, _CLOSER),
                ValueStored(1, b"/ns/key", b"value"),
                Pong(1),
            )
        ),
    ),
    Decoder(
        "record-request",
        lambda data: record_wire.decode(SENDER, data, 1),
        (BadMessage,),
        (record_wire.encode(GetRecord(1, "ray-worker")),),
    ),
    Decoder(
        "record-reply",
        lambda data: record_wire.decode_reply(SENDER, data, 1),
        (BadMessage,),
        (record_wire.encode(FoundRecord(1, _RECORD)),),
    ),
    Decoder("service-record", read_claim, (BadMessage,), (_RECORD,)),
    Decoder("envelope", lambda data: split_signed(data, 512), (BadMessage,), (_SIGNED, _RECORD)),
    Decoder(
        "signed-map",
        lambda data: open_signed("a domain", data, SENDER, _verify_none, 512),
        (BadMessage,),
        (_SIGNED, _RECORD),
    ),
    Decoder(
        "map",
        lambda data: unpack_map(data, 512),
        (BadMessage,),
        (pack_map({"a": 1, "b": [1.5, None, True], "c": {"d": b"e"}}), pack({"n": 1 << 63})),
    ),
    Decoder(
        "gossip-rpc",
        lambda data: gossip_wire.decode(SENDER, data),
        (BadMessage,),
        (
            gossip_wire.encode(
                Rpc(
                    (("loads", True), ("other", False)),
                    (_MESSAGE,),
                    (IHave("loads", (b"id",)),),
                    (b"id",),
                    ("loads",),
                    (Prune("loads", 60, (Exchanged(OTHER), Exchanged(SENDER, _PEER_RECORD))),),
                    (b"id",),
                )
            ),
        ),
    ),
    Decoder(
        "gossip-message",
        lambda data: gossip_wire.signing_bytes(gossip_wire.parse_message(data)),
        (BadMessage,),
        (gossip_wire.encode_message(_MESSAGE),),
    ),
    Decoder(
        "load-signal",
        decode_signal,
        (BadMessage,),
        (
            encode_signal(LoadSignal(4.0, 1 << 33, 1.0, 2, 1, 0.5, "individual", "eu", 9, 2e9)),
            encode_signal(
                LoadSignal(0.5, 0, 0.5, 0, 0, 0.0, "other", "", 9, 2e9, bytes(range(22)), 8.5, 70_000, 5.0, 7)
            ),
        ),
    ),
    Decoder(
        "loads-request",
        lambda data: load_wire.decode_request(SENDER, data, 1),
        (BadMessage,),
        (load_wire.encode(LoadsRequest(1, 10)),),
    ),
    Decoder(
        "loads-reply",
        lambda data: load_wire.decode_reply(SENDER, data, 1),
        (BadMessage,),
        (load_wire.encode(LoadsReply(1, (_MESSAGE, _MESSAGE))),),
    ),
    Decoder(
        "lease",
        lease_wire.read_message,
        (BadMessage,),
        tuple(
            lease_wire.encode(message)
            for message in (
                LeaseRequest(
                    _LEASE,
                    Need(1.0, 0.5, 1 << 30, "individual", "eu"),
                    Versions("2.60.0", "3.11.7", "1"),
                    "c",
                ),
                Challenge(_LEASE, bytes(32)),
                Proof(_LEASE, _SIGNED),
                Agreement(_LEASE, _SIGNED),
                LeaseRequest(
                    _LEASE,
                    Need(labels=(("zone", "a"),)),
                    Versions("2.60.0", "3.11.7", "1"),
                    "c",
                    bytes(16),
                    (_SIGNED,),
                    5.0,
                ),
                Queued(_LEASE, 3),
                Notice(_LEASE, 30.0, "the owner is back"),
                Started(_LEASE, _SIGNED),
                Renewed(_LEASE, 1, 10.0, True, _SIGNED, 30.0, "the owner is back"),
                Refuse(_LEASE, "busy", 3.0),
                Started(_LEASE),
                Renew(_LEASE, 1),
                Renewed(_LEASE, 1, 10.0, True),
                Release(_LEASE, "done"),
            )
        ),
    ),
    Decoder(
        "frames-uvarint",
        _framed(Framing.UVARINT),
        (BadMessage,),
        (encode_frame(b"one", Framing.UVARINT) + encode_frame(bytes(300), Framing.UVARINT),),
    ),
    Decoder(
        "frames-u32",
        _framed(Framing.U32),
        (BadMessage,),
        (encode_frame(b"one", Framing.U32) + encode_frame(bytes(300), Framing.U32),),
    ),
    Decoder(
        "yamux",
        _yamux,
        (BadMessage,),
        (
            _frame(1, 0, 1, b"hello") + _frame(0, 1, 1, b"") + _frame(4, 0, 1, b"end"),
            _frame(1, 2, 0, b"") + _frame(1, 1, 3, b"") + _frame(8, 1, 3, b"") + _frame(0, 3, 0, b""),
        ),
    ),
    Decoder(
        "multistream-choice",
        _choice,
        (BadMessage,),
        (b"\x13/multistream/1.0.0\n\x03na\n\x11" + _PROTOCOL.encode() + b"\nrest",),
    ),
    Decoder(
        "multistream-proposal",
        _proposal,
        (BadMessage,),
        (b"\x13/multistream/1.0.0\n\x03na\n\x07/other\nrest",),
    ),
    Decoder("peer-record", lambda data: open_record(data, _verify_none), (BadMessage,), (_PEER_RECORD,)),
    Decoder("identify", parse_identify, (BadMessage,), (_IDENTIFY,)),
    Decoder(
        "address",
        parse_transport,
        (),
        (
            _PLACE,
            to_multiaddr("2001:db8::1", 1),
            b"\x36\x0bexample.com\x06\x0f\xa1",
            _PLACE + b"\xa5\x03\x26" + OTHER,
        ),
    ),
    Decoder(
        "text-address",
        _text_address,
        (UsageError,),
        (f"/ip4/192.0.2.1/tcp/4001/p2p/{OTHER}".encode(), f"/dns4/example.com/tcp/1/p2p/{SENDER}".encode()),
    ),
    Decoder("peer-id", PeerId.from_bytes, (UsageError,), (bytes(OTHER), b"\x12\x20" + bytes(32))),
    Decoder(
        "peer-id-text",
        lambda data: PeerId.from_text(data.decode("utf-8", "replace")),
        (UsageError,),
        (str(OTHER).encode(),),
    ),
    Decoder("grant-link", lambda data: read_grant([data]), (BadMessage,), _GRANT.envelopes),
    Decoder("grant", lambda data: Grant.from_bytes(data, verify), (BadMessage,), (_GRANT.to_bytes(),)),
    Decoder(
        "grant-text",
        lambda data: Grant.parse(data.decode("utf-8", "replace"), verify),
        (GrantError,),
        (_GRANT.text.encode(),),
    ),
    Decoder(
        "revocations",
        lambda data: read_revocations(data, _OWNER.peer_id, verify),
        (BadMessage,),
        (revoke(_OWNER, None, 1e9, grants=[_GRANT.id], peers=[OTHER]).envelope,),
    ),
    Decoder(
        "snapshot-header",
        lambda data: read_header(_BORROWER.peer_id, data, verify),
        (BadMessage,),
        (_SNAPSHOT.header.envelope,),
    ),
    Decoder(
        "snapshot-box",
        lambda data: open_snapshot(_BORROWER, _SNAPSHOT.header, data),
        (BadMessage,),
        (_SNAPSHOT.box,),
    ),
    Decoder(
        "snapshot-wish",
        snapshot_protocol.decode_wish,
        (BadMessage,),
        tuple(
            snapshot_protocol.encode_wish(wish)[4:]
            for wish in (
                snapshot_protocol.Wish("ask"),
                snapshot_protocol.Wish("give", _SNAPSHOT.header.envelope),
            )
        ),
    ),
    Decoder(
        "snapshot-answer",
        snapshot_protocol.decode_answer,
        (BadMessage,),
        (snapshot_protocol.encode_answer(snapshot_protocol.Answer("refused", b"x", "why"))[4:],),
    ),
    Decoder("key-file", _key_file, (IdentityFileError,), (_saved_key(),)),
)
