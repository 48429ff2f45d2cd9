"""Pubsub's protobuf and signatures: exact bytes, round trips, and whatever bytes a peer may send."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.errors import BadMessage
from swarmp2p.gossip import rpc_pb2 as pb
from swarmp2p.gossip.events import GossipMessage
from swarmp2p.gossip.messages import (
    MAX_DATA_BYTES,
    MAX_EXCHANGED,
    MAX_RPC_BYTES,
    MAX_TOPIC_BYTES,
    Exchanged,
    IHave,
    Rpc,
    Verdict,
)
from swarmp2p.gossip.wire import (
    MAX_ID_BYTES,
    MAX_IDS,
    MAX_ITEMS,
    StrictSign,
    decode,
    encode,
    encode_message,
    parse_message,
    signing_bytes,
    verify_message,
)
from swarmp2p.identity import Identity, PeerId, verify
from swarmp2p.peer_record import MAX_RECORD_BYTES

from .network import peer_id, stub_sign
from .strategies import rpcs, signed_messages

AUTHOR = Identity(bytes(range(32)))
SENDER = peer_id(1)
SEQNO = bytes.fromhex("0000000000000007")


def signed(data: bytes = b"data") -> GossipMessage:
    return StrictSign().make(AUTHOR.peer_id, "t", data, SEQNO, AUTHOR.sign)


def field(number: int, value: bytes) -> bytes:
    """A short length-delimited protobuf field."""
    assert number < 16
    assert len(value) < 128
    return bytes([number << 3 | 2, len(value)]) + value


BODY = field(1, AUTHOR.peer_id) + field(2, b"data") + field(3, SEQNO) + field(4, b"t")
KEY = b"\x08\x01\x12\x20" + (AUTHOR.peer_id.public_key or b"")
UNKNOWN = b"\xca\x3e\x03new" + b"\xd0\x3e\x2a"  # field 1001, "new"; field 1002, varint 42


# Signed messages


def test_message_bytes_are_the_specs() -> None:
    """pubsub/README.md, "The Message": from 1, data 2, seqno 3, topic 4, signature 5; no key when the id has it."""
    message = signed()
    body = field(1, AUTHOR.peer_id) + field(2, b"data") + field(3, SEQNO) + field(4, b"t")
    signature = AUTHOR.sign(b"libp2p-pubsub:" + body)
    assert message.raw == body + field(5, signature)
    assert message.signature == signature
    assert message.id == AUTHOR.peer_id + SEQNO
    assert verify_message(message, verify)
    assert parse_message(message.raw) == message


def test_signature_covers_the_message_without_signature_and_key() -> None:
    """pubsub/README.md, "Message signing": marshalled without signature and key, wherever they stand."""
    body = field(1, AUTHOR.peer_id) + field(2, b"data") + field(3, SEQNO) + field(4, b"t")
    signature = AUTHOR.sign(b"libp2p-pubsub:" + body)
    key = b"\x08\x01\x12\x20" + (AUTHOR.peer_id.public_key or b"")
    for raw in (
        body + field(5, signature) + field(6, key),
        field(6, key) + field(5, signature) + body,
        field(1, AUTHOR.peer_id) + field(5, signature) + field(2, b"data") + field(3, SEQNO) + field(4, b"t"),
        body + field(5, b"an earlier one") + field(5, signature),
    ):
        message = parse_message(raw)
        assert signing_bytes(message) == b"libp2p-pubsub:" + body
        assert verify_message(message, verify) == (b"an earlier one" not in raw), "one signature is enough"


def test_unknown_fields_are_signed_and_survive() -> None:
    body = field(1, AUTHOR.peer_id) + field(2, b"data") + field(3, SEQNO) + field(4, b"t") + UNKNOWN
    raw = body + field(5, AUTHOR.sign(b"libp2p-pubsub:" + body))
    (message,) = decode(SENDER, encode(Rpc(publish=(parse_message(raw),)))).publish
    assert message.raw == raw
    assert verify_message(message, verify)
    assert not verify_message(parse_message(raw.replace(b"new", b"old")), verify)


def test_every_flipped_byte_is_noticed() -> None:
    raw = signed().raw
    for position in range(len(raw)):
        altered = raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]
        try:
            message = parse_message(altered)
        except BadMessage:
            continue
        assert not verify_message(message, verify), position


@pytest.mark.parametrize(
    "raw",
    [
        field(2, b"data") + field(3, SEQNO) + field(4, b"t") + field(5, bytes(64)),
        field(1, b"short") + field(3, SEQNO) + field(5, bytes(64)),
        field(1, AUTHOR.peer_id) + field(3, SEQNO) + field(4, b"t"),
        field(1, AUTHOR.peer_id) + field(3, b"7") + field(4, b"t") + field(5, bytes(64)),
        field(1, AUTHOR.peer_id) + field(3, SEQNO) + field(4, b"t") + field(5, b"x"),
        field(1, AUTHOR.peer_id) + field(3, SEQNO) + field(4, b"t") + field(5, bytes(64)) + b"\x53\x54",
        b"",
    ],
    ids=["no source", "no peer id", "no signature", "short seqno", "short signature", "group", "empty"],
)
def test_malformed_messages_count_as_forged(raw: bytes) -> None:
    assert StrictSign().check(parse_message(raw), verify) is Verdict.FORGED


@pytest.mark.parametrize(("seqno", "verdict"), [(SEQNO, Verdict.GENUINE), (SEQNO[1:], Verdict.UNUSABLE)])
def test_sequence_numbers_have_eight_bytes(seqno: bytes, verdict: Verdict) -> None:
    """pubsub/README.md, "The Message": a 64-bit big-endian uint, however well it is signed."""
    message = StrictSign().make(AUTHOR.peer_id, "t", b"data", seqno, AUTHOR.sign)
    assert StrictSign().check(message, verify) is verdict


@given(
    st.lists(
        st.tuples(st.integers(1, 7), st.sampled_from([b"", b"a", b"*\x02ab", b"ab", b"ab*\x02ab"])),
        min_size=1,
        max_size=8,
    )
)
def test_what_is_signed_is_all_but_two_fields_in_the_usual_order(fields: list[tuple[int, bytes]]) -> None:
    """1 to 4 once each and ascending, then any others; 5 and 6 wherever they stand. go-libp2p-pubsub, js and py build
    these bytes anew, so that nothing else would have a valid signature for them."""
    raw = b"".join(field(number, value) for number, value in fields)
    message = parse_message(raw)
    signed_fields = [(number, value) for number, value in fields if number not in (5, 6)]
    numbers = [number for number, _ in signed_fields]
    if numbers == sorted(numbers) and all(numbers.count(number) < 2 for number in range(1, 5)):
        kept = b"".join(field(number, value) for number, value in signed_fields)
        assert signing_bytes(message) == b"libp2p-pubsub:" + kept
    else:
        with pytest.raises(BadMessage, match=r"twice, or in an unusual order"):
            signing_bytes(message)


@pytest.mark.parametrize(
    ("body", "after", "verdict"),
    [
        (BODY, b"", Verdict.GENUINE),
        (BODY, field(6, b""), Verdict.FORGED),
        (BODY, field(6, KEY + b"\x18\x00"), Verdict.UNUSABLE),
        (BODY, b"\x28\x00", Verdict.FORGED),
        (BODY, b"\x30\x00", Verdict.FORGED),
        (BODY, b"\xaa\x00\x00", Verdict.FORGED),
        (
            field(2, b"data") + field(1, AUTHOR.peer_id) + field(3, SEQNO) + field(4, b"t"),
            b"",
            Verdict.FORGED,
        ),
        (BODY.replace(b"\x04data", b"\x84\x00data"), b"", Verdict.FORGED),
        (UNKNOWN + BODY, b"", Verdict.FORGED),
        (BODY + UNKNOWN, b"", Verdict.GENUINE),
    ],
    ids=[
        "plain",
        "empty key",
        "own key, otherwise written",
        "signature of another type",
        "key of another type",
        "long tag",
        "order",
        "long length",
        "unknown first",
        "unknown last",
    ],
)
def test_what_others_refuse_is_not_passed_on(body: bytes, after: bytes, verdict: Verdict) -> None:
    """However well it is signed. pubsub/README.md, "Message signing": `key` must match the id; Go resets the stream
    where a field has another type, and takes signatures over the usual order alone."""
    raw = body + field(5, AUTHOR.sign(b"libp2p-pubsub:" + body)) + after
    assert StrictSign().check(parse_message(raw), verify) is verdict


def test_signing_bytes_of_what_is_cut_short() -> None:
    for raw in (b"\x12\x05data", b"\x12", b"\x80" * 11):
        with pytest.raises(BadMessage):
            signing_bytes(GossipMessage(AUTHOR.peer_id, SEQNO, "t", b"data", raw=raw))


def test_key_is_read_where_the_id_holds_only_its_hash() -> None:
    """peer-ids spec: longer keys are hashed; pubsub/README.md: then `key` must be in the message."""
    key = b"\x08\x01\x12\x20" + (AUTHOR.peer_id.public_key or b"")
    hashed = PeerId(b"\x12\x20" + hashlib.sha256(key).digest())
    body = field(1, hashed) + field(2, b"data") + field(3, SEQNO) + field(4, b"t")

    def verdict(key: bytes, signer: Identity) -> Verdict:
        raw = body + field(5, signer.sign(b"libp2p-pubsub:" + body)) + field(6, key)
        return StrictSign().check(parse_message(raw), verify)

    other = Identity(bytes(32))
    assert verdict(key, AUTHOR) is Verdict.GENUINE
    assert verdict(key, other) is Verdict.FORGED
    assert verdict(b"\x08\x01\x12\x20" + (other.peer_id.public_key or b""), other) is Verdict.FORGED
    assert verdict(b"\x08\x00\x12\x20 an RSA key would be longer", AUTHOR) is Verdict.UNUSABLE


def test_the_key_of_a_source_whose_id_contains_it_may_be_there() -> None:
    assert verify_message(parse_message(signed().raw + field(6, KEY)), verify)


@pytest.mark.parametrize(
    "tail",
    [
        field(6, b"\x08\x01\x12\x20" + bytes(32)),
        field(6, KEY) + field(6, KEY),
        field(6, bytes(100)) + field(6, KEY),
        field(6, bytes(100)),
        field(5, signed().signature),
        field(5, b"") * 19,
    ],
    ids=["another's", "twice", "and junk", "junk", "two signatures", "many"],
)
def test_what_the_signature_does_not_cover_cannot_be_added(tail: bytes) -> None:
    """Else whoever relays it could make it longer, or have others blamed: go-, js- and py-libp2p refuse wrong keys."""
    message = signed()
    for raw in (message.raw + tail, tail + message.raw):
        assert not verify_message(parse_message(raw), verify)


def test_a_message_never_encoded_is_encoded_from_its_fields() -> None:
    message = signed()
    bare = GossipMessage(message.source, message.seqno, "t", b"data", message.signature)
    assert encode_message(bare) == message.raw
    assert verify_message(bare, verify)


# RPCs


@given(rpcs)
@settings(max_examples=150, deadline=None)
def test_round_trip(rpc: Rpc) -> None:
    assert decode(SENDER, encode(rpc)) == rpc


def check_decoding(body: bytes) -> None:
    """Raises nothing but BadMessage; what comes out can be checked."""
    try:
        rpc = decode(SENDER, body)
    except BadMessage:
        return
    for message in rpc.publish:
        StrictSign().check(message, verify)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_decode_or_are_bad(body: bytes) -> None:
    check_decoding(body)


@given(rpcs, st.data())
@settings(max_examples=300, deadline=None)
def test_altered_frames_decode_or_are_bad(rpc: Rpc, data: st.DataObject) -> None:
    body = bytearray(encode(rpc))
    for _ in range(data.draw(st.integers(1, 4))):
        if not body:
            return
        position = data.draw(st.integers(0, len(body) - 1))
        if data.draw(st.booleans()):
            body[position] = data.draw(st.integers(0, 255))
        else:
            del body[position:]
    check_decoding(bytes(body))


@given(st.binary(max_size=120), signed_messages())
@settings(max_examples=300, deadline=None)
def test_no_message_makes_the_check_raise(tail: bytes, message: GossipMessage) -> None:
    for raw in (tail, message.raw + tail, tail + message.raw):
        try:
            parsed = parse_message(raw)
        except BadMessage:
            continue
        assert StrictSign().check(parsed, verify) in Verdict


@pytest.mark.parametrize(
    "rpc",
    [
        pb.RPC(publish=[b"\x0a\xff"]),
        pb.RPC(subscriptions=[pb.RPC.SubOpts(topicid="t" * (MAX_TOPIC_BYTES + 1))]),
        pb.RPC(publish=[b""] * (MAX_ITEMS + 1)),
        pb.RPC(subscriptions=[pb.RPC.SubOpts()] * (MAX_ITEMS + 1)),
        pb.RPC(control=pb.ControlMessage(graft=[pb.ControlGraft()] * (MAX_ITEMS + 1))),
        pb.RPC(control=pb.ControlMessage(prune=[pb.ControlPrune()] * (MAX_ITEMS + 1))),
        pb.RPC(control=pb.ControlMessage(ihave=[pb.ControlIHave()] * (MAX_ITEMS + 1))),
        pb.RPC(control=pb.ControlMessage(iwant=[pb.ControlIWant()] * (MAX_ITEMS + 1))),
        pb.RPC(control=pb.ControlMessage(idontwant=[pb.ControlIDontWant()] * (MAX_ITEMS + 1))),
    ],
    ids=["message", "topic", "publish", "subscriptions", "graft", "prune", "ihave", "iwant", "idontwant"],
)
def test_bad_rpcs(rpc: pb.RPC) -> None:
    with pytest.raises(BadMessage):
        decode(SENDER, rpc.SerializeToString())


def test_topics_must_be_utf8() -> None:
    with pytest.raises(BadMessage, match="UTF-8"):
        decode(SENDER, b"\x0a\x06\x08\x01\x12\x02\xff\xfe")


def test_ids_beyond_the_bounds_are_left_out() -> None:
    many = [number.to_bytes(4, "big") for number in range(MAX_IDS + 5)]
    control = pb.ControlMessage(
        ihave=[
            pb.ControlIHave(topic_id="a", message_ids=many[:-10]),
            pb.ControlIHave(topic_id="b", message_ids=[*many[-10:], bytes(MAX_ID_BYTES + 1)]),
            pb.ControlIHave(topic_id="c", message_ids=many),
        ],
        iwant=[pb.ControlIWant(message_ids=many), pb.ControlIWant(message_ids=many)],
        idontwant=[pb.ControlIDontWant(message_ids=[bytes(MAX_ID_BYTES + 1), b"ok"])],
    )
    rpc = decode(SENDER, pb.RPC(control=control).SerializeToString())
    assert sum(len(have.ids) for have in rpc.ihave) == MAX_IDS
    assert len(rpc.iwant) == MAX_IDS
    assert rpc.idontwant == (b"ok",)


def test_prune_leaves_out_malformed_peers_long_records_and_huge_backoffs() -> None:
    peers = [
        pb.PeerInfo(peer_id=b"?"),
        pb.PeerInfo(peer_id=SENDER),
        pb.PeerInfo(peer_id=SENDER, signed_peer_record=bytes(MAX_RECORD_BYTES)),
        pb.PeerInfo(peer_id=SENDER, signed_peer_record=bytes(MAX_RECORD_BYTES + 1)),
    ]
    prune = pb.ControlPrune(topic_id="t", backoff=1 << 63, peers=peers)
    (decoded,) = decode(SENDER, pb.RPC(control=pb.ControlMessage(prune=[prune])).SerializeToString()).prune
    plain = Exchanged(SENDER)
    assert decoded.peers == (plain, Exchanged(SENDER, bytes(MAX_RECORD_BYTES)), plain)
    assert decoded.backoff_s <= 1 << 31


def test_prune_names_at_most_16_peers() -> None:
    prune = pb.ControlPrune(topic_id="t", peers=[pb.PeerInfo(peer_id=SENDER)] * 17)
    (decoded,) = decode(SENDER, pb.RPC(control=pb.ControlMessage(prune=[prune])).SerializeToString()).prune
    assert len(decoded.peers) == MAX_EXCHANGED == 16


def test_the_longest_message_fits_into_a_frame() -> None:
    message = StrictSign().make(
        AUTHOR.peer_id, "t" * MAX_TOPIC_BYTES, bytes(MAX_DATA_BYTES), SEQNO, stub_sign
    )
    have = IHave("t" * MAX_TOPIC_BYTES, (message.id,))
    assert len(encode(Rpc(publish=(message,), ihave=(have,)))) <= MAX_RPC_BYTES


def test_all_messages_of_a_source_name_it_by_one_object() -> None:
    first, second = parse_message(signed(b"1").raw), parse_message(signed(b"2").raw)
    assert first.source == AUTHOR.peer_id
    assert first.source is second.source
    assert first.topic is second.topic


def test_sources_that_are_no_ids_are_not_remembered() -> None:
    raw = field(1, b"x" * 65) + field(2, b"data") + field(3, SEQNO) + field(4, b"t")
    assert parse_message(raw).source == b"x" * 65
    assert parse_message(raw).source is not parse_message(raw).source
