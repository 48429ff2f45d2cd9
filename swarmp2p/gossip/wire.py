"""Pubsub messages as libp2p's protobuf RPC, and their signatures (libp2p specs, pubsub/README.md).

StrictSign: each message carries its source, a sequence number of 8 bytes and a signature over
"libp2p-pubsub:" and the message without its signature and key. The signed bytes are cut out of the message
as it arrived, so that fields which we do not know are covered and survive relaying.

Others build these bytes anew, out of what they have read. Where that comes to something else, or their parsers give up,
they blame whoever passed the message on. So a message must be written as all of them write it: the specs' fields in
ascending order, once each, then unknown ones; and its key must be the source's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

from google.protobuf.message import DecodeError

from ..engine import Message
from ..errors import BadMessage, UsageError
from ..identity import PeerId
from ..peer_record import MAX_RECORD_BYTES
from ..signed import Sign, Verify
from . import rpc_pb2 as pb
from .events import ANONYMOUS, GossipMessage
from .messages import MAX_EXCHANGED, MAX_TOPIC_BYTES, Exchanged, IHave, Prune, Rpc, Verdict

IDS: Final = ("/meshsub/1.2.0", "/meshsub/1.1.0", "/meshsub/1.0.0")

MAX_ITEMS: Final = 10_000
"""Messages, subscriptions, and control messages of each kind in one RPC; more make it a bad message. A
signed message takes over 110 bytes, so that honest RPCs of 1 MiB hold fewer."""

MAX_IDS: Final = 10_000
"""Message ids kept of one RPC, in IHAVE, IWANT and IDONTWANT each; the rest is left out, since gossip about
messages is best effort. go-libp2p-pubsub sends at most 5,000 a topic and heartbeat."""

MAX_ID_BYTES: Final = 128
"""Longer message ids are left out. Those of the default form have 46 bytes with an Ed25519 source; as many as
are asked of a peer in one heartbeat fit into an RPC."""

_SHORT_SOURCE_BYTES: Final = 64
_MAX_SOURCES: Final = 16_384
"""Sources remembered, 2.5 MB of them at most; ids of peers have up to 42 bytes."""

_MAX_BACKOFF_S: Final = 1 << 31
_SIGN_PREFIX: Final = b"libp2p-pubsub:"
# Tags of Message: field 5 (signature) and 6 (key), both length-delimited.
_SIGNATURE_TAG: Final = b"\x2a"
_SIGNATURE_FIELD: Final = 5
_KEY_FIELD: Final = 6
# PublicKey{Type: Ed25519 (1), Data: 32 bytes}, as in the `key` field.
_ED25519_KEY: Final = bytes.fromhex("08011220")
_SHA256_MULTIHASH: Final = bytes.fromhex("1220")


# Signed messages --------------------------------------------------------------------------------------------


class StrictSign:
    """The MessageForm of real networks: spec-exact bytes, Ed25519 signatures."""

    def make(self, source: PeerId, topic: str, data: bytes, seqno: bytes, sign: Sign) -> GossipMessage:
        """Build and sign. The key is left out: the ids of Ed25519 peers contain it."""
        body = _encode_fields(source, topic, data, seqno)
        signature = sign(_SIGN_PREFIX + body)
        raw = body + _SIGNATURE_TAG + _uvarint(len(signature)) + signature
        return GossipMessage(source, seqno, topic, data, signature, raw)

    def check(self, message: GossipMessage, verify: Verify) -> Verdict:
        if not message.signature:
            return Verdict.FORGED
        signer = message.source
        if signer.public_key is None:
            try:
                PeerId.from_bytes(signer)
                key = _parse(message.raw).key
            except (UsageError, BadMessage):
                return Verdict.FORGED
            if not key.startswith(_ED25519_KEY) or len(key) != len(_ED25519_KEY) + 32:
                return Verdict.UNUSABLE
            if signer != _SHA256_MULTIHASH + hashlib.sha256(key).digest():
                return Verdict.FORGED
            signer = PeerId.from_public_key(key[len(_ED25519_KEY) :])
        try:
            signed = signing_bytes(message)
        except BadMessage:
            return Verdict.FORGED
        rest = _check_rest(message, signer, len(signed) - len(_SIGN_PREFIX))
        if rest is not Verdict.GENUINE:
            return rest
        if not verify(signer, signed, message.signature):
            return Verdict.FORGED
        return Verdict.GENUINE if len(message.seqno) == 8 else Verdict.UNUSABLE


def _check_rest(message: GossipMessage, signer: PeerId, signed_bytes: int) -> Verdict:
    """Whether a message has, besides what is signed, its signature, and its source's key or none.

    Nothing protects those two fields. Anybody could make a small message of somebody else a megabyte long by a second
    signature or a long key, and have it relayed so; or add a wrong key, for which other implementations would blame
    those who relay it. The right key in another encoding is nobody's fault: Go takes it, and passes it on.
    """
    rest = len(message.raw) - signed_bytes - 2 - len(message.signature)
    if not message.raw or not rest:
        return Verdict.GENUINE
    key, public_key = _parse(message.raw).key, signer.public_key or b""
    if rest != 2 + len(key) or public_key not in key:
        return Verdict.FORGED
    return Verdict.GENUINE if key == _ED25519_KEY + public_key else Verdict.UNUSABLE


class StrictNoSign:
    """The MessageForm of anonymous topics: data and topic, and nothing that names anybody (pubsub spec, "Message
    signing")."""

    def make(self, source: PeerId, topic: str, data: bytes, seqno: bytes, sign: Sign) -> GossipMessage:
        """source, seqno and sign are not used."""
        return GossipMessage(
            ANONYMOUS, b"", topic, data, raw=pb.Message(data=data, topic=topic).SerializeToString()
        )

    def check(self, message: GossipMessage, verify: Verify) -> Verdict:
        """FORGED when a field is present that must not be, be it empty."""
        if message.source or message.seqno or message.signature:
            return Verdict.FORGED
        if message.raw:
            try:
                fields = _parse(message.raw)
            except BadMessage:
                return Verdict.FORGED
            if any(map(fields.HasField, ("from", "seqno", "signature", "key"))):
                return Verdict.FORGED
        return Verdict.GENUINE


def stripped(message: GossipMessage) -> GossipMessage:
    """An anonymous message without fields that we do not know: nobody vouches for them, so that whoever relays it could
    make it as long as it likes."""
    raw = pb.Message(data=message.data, topic=message.topic).SerializeToString()
    if message.raw in (b"", raw):
        return message
    plain = GossipMessage(ANONYMOUS, b"", message.topic, message.data, raw=raw)
    return plain.named(message.id)


def verify_message(message: GossipMessage, verify: Verify) -> bool:
    """Whether the message is well-formed and signed by its source. Never raises."""
    return StrictSign().check(message, verify) is Verdict.GENUINE


def signing_bytes(message: GossipMessage) -> bytes:
    """What the signature covers. Raises BadMessage when `raw` is no protobuf message, or not written as usual."""
    if not message.raw:
        return _SIGN_PREFIX + _encode_fields(message.source, message.topic, message.data, message.seqno)
    if _is_plain(message):
        return _SIGN_PREFIX + message.raw[: -len(message.signature) - 2]
    return _SIGN_PREFIX + _without_signature(message.raw)


def parse_message(raw: bytes) -> GossipMessage:
    """Decode one message, without checking its signature. Absent fields come out empty, and fail the check.
    Raises BadMessage."""
    message = _parse(raw)
    return GossipMessage(
        _source(getattr(message, "from")),  # a keyword of Python
        message.seqno,
        _topic(message.topic),
        message.data,
        message.signature,
        raw,
    )


def encode_message(message: GossipMessage) -> bytes:
    """A message's protobuf bytes: those it arrived as, where there are any."""
    if message.raw:
        return message.raw
    if not message.source:
        return pb.Message(data=message.data, topic=message.topic).SerializeToString()
    body = _encode_fields(message.source, message.topic, message.data, message.seqno)
    return body + _SIGNATURE_TAG + _uvarint(len(message.signature)) + message.signature


def _parse(raw: bytes) -> pb.Message:
    try:
        return pb.Message.FromString(raw)
    except (DecodeError, UnicodeDecodeError):
        raise BadMessage("a published message is not protobuf") from None


def _encode_fields(source: PeerId, topic: str, data: bytes, seqno: bytes) -> bytes:
    message = pb.Message(data=data, seqno=seqno, topic=topic)
    setattr(message, "from", source)  # a keyword of Python
    return message.SerializeToString()


def _without_signature(raw: bytes) -> bytes:
    """`raw` without every occurrence of fields 5 and 6. Walks the top level of protobuf's encoding; raises BadMessage
    for what others would write or read in another way."""
    kept: list[bytes] = []
    start = position = latest = (
        0  # of what is to be kept; of the field being read; the last field but 5 and 6
    )
    end = len(raw)
    while position < end:
        field_start = position
        tag, position = _read_uvarint(raw, position)
        wire_type, number = tag & 7, tag >> 3
        if number <= _KEY_FIELD and (wire_type != 2 or position != field_start + 1):
            raise BadMessage("a published message has a field of another type than the specs'")
        if wire_type == 2:
            size_start = position
            size, position = _read_uvarint(raw, position)
            if number <= _KEY_FIELD and position - size_start != max(1, (size.bit_length() + 6) // 7):
                raise BadMessage("a published message has a length with leading zeros")
            position += size
        elif wire_type == 0:
            _, position = _read_uvarint(raw, position)
        elif wire_type == 5:
            position += 4
        elif wire_type == 1:
            position += 8
        else:  # groups (3, 4) are not used by any pubsub implementation
            raise BadMessage("a published message contains a protobuf group")
        if position > end:
            raise BadMessage("a published message is cut short")
        if number in (_SIGNATURE_FIELD, _KEY_FIELD):
            kept.append(raw[start:field_start])
            start = position
        elif number < _SIGNATURE_FIELD and number <= latest:
            raise BadMessage("a published message has its fields twice, or in an unusual order")
        else:
            latest = max(latest, number)
    kept.append(raw[start:])
    return b"".join(kept)


def _read_uvarint(raw: bytes, position: int) -> tuple[int, int]:
    """(value, position after it)."""
    value = shift = 0
    while shift < 70 and position < len(raw):
        byte = raw[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise BadMessage("a published message has a bad varint")


def _is_plain(message: GossipMessage) -> bool:
    """Whether a message has the five usual fields in their order and nothing else, each not empty and of usual length.

    One that is as long as these five, and has all of them, has no room for another field, nor for one of them twice;
    the first four tags then tell the order.
    """
    source, seqno, topic = len(message.source), len(message.seqno), len(message.topic.encode())
    data, signature, raw = len(message.data), len(message.signature), message.raw
    if not (
        0 < source < 0x80
        and 0 < seqno < 0x80
        and 0 < topic < 0x80
        and 0 < signature < 0x80
        and 0 < data < 0x4000
    ):
        return False
    second = 2 + source
    third = second + data + (2 if data < 0x80 else 3)
    fourth = third + 2 + seqno
    return (
        len(raw) == fourth + topic + signature + 4
        and raw[0] == 0x0A
        and raw[second] == 0x12
        and raw[third] == 0x1A
        and raw[fourth] == 0x22
    )


def _uvarint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# RPCs -------------------------------------------------------------------------------------------------------


def encode(message: Message) -> bytes:
    """An Rpc as protobuf."""
    assert isinstance(message, Rpc)
    rpc = pb.RPC(publish=[published.raw or encode_message(published) for published in message.publish])
    for topic, joined in message.subscriptions:
        rpc.subscriptions.add(subscribe=joined, topicid=topic)
    if message.ihave or message.iwant or message.graft or message.prune or message.idontwant:
        _encode_control(message, rpc.control)
    return rpc.SerializeToString()


def _encode_control(message: Rpc, control: pb.ControlMessage) -> None:
    for have in message.ihave:
        control.ihave.add(topic_id=have.topic, message_ids=have.ids)
    if message.iwant:
        control.iwant.add(message_ids=message.iwant)
    for topic in message.graft:
        control.graft.add(topic_id=topic)
    for prune in message.prune:
        control.prune.add(
            topic_id=prune.topic,
            backoff=prune.backoff_s or None,
            peers=[
                pb.PeerInfo(peer_id=one.peer, signed_peer_record=one.record or None) for one in prune.peers
            ],
        )
    if message.idontwant:
        control.idontwant.add(message_ids=message.idontwant)


def decode(
    sender: PeerId, body: bytes, _id: int = 0, parse: Callable[[bytes], GossipMessage] = parse_message
) -> Rpc:
    """Protobuf to Rpc; raises BadMessage, nothing else. Signatures are not checked here: most copies of a
    message are repeats, which the engine drops before it pays for that."""
    try:
        rpc = pb.RPC.FromString(body)
    except (DecodeError, UnicodeDecodeError):
        raise BadMessage("not a pubsub RPC") from None
    published = rpc.publish
    subscriptions = rpc.subscriptions
    if len(published) > MAX_ITEMS or len(subscriptions) > MAX_ITEMS:
        raise BadMessage("a pubsub RPC with too many messages or subscriptions")
    publish = tuple([parse(raw) for raw in published])
    topics = tuple([(_topic(option.topicid), option.subscribe) for option in subscriptions])
    if not rpc.HasField("control"):
        return Rpc(topics, publish)
    control = rpc.control
    gossip = max(len(control.ihave), len(control.iwant), len(control.idontwant))
    if max(gossip, len(control.graft), len(control.prune)) > MAX_ITEMS:
        raise BadMessage("a pubsub RPC with too many control messages")
    return Rpc(
        subscriptions=topics,
        publish=publish,
        ihave=_decode_ihave(control.ihave),
        iwant=_ids(control.iwant),
        graft=tuple([_topic(graft.topic_id) for graft in control.graft]),
        prune=tuple([_decode_prune(prune) for prune in control.prune]),
        idontwant=_ids(control.idontwant),
    )


def _decode_ihave(ihaves: Iterable[pb.ControlIHave]) -> tuple[IHave, ...]:
    out: list[IHave] = []
    room = MAX_IDS
    for have in ihaves:
        ids = tuple([i for i in have.message_ids[:room] if len(i) <= MAX_ID_BYTES])
        room -= len(ids)
        out.append(IHave(_topic(have.topic_id), ids))
        if room <= 0:
            break
    return tuple(out)


def _ids(wants: Iterable[pb.ControlIWant] | Iterable[pb.ControlIDontWant]) -> tuple[bytes, ...]:
    out: list[bytes] = []
    for want in wants:
        out.extend(i for i in want.message_ids[: MAX_IDS - len(out)] if len(i) <= MAX_ID_BYTES)
        if len(out) >= MAX_IDS:
            break
    return tuple(out)


def _decode_prune(prune: pb.ControlPrune) -> Prune:
    """Peers whose ids are malformed are left out, and records that are too long. Whether a record is genuine is looked
    at where it is used."""
    peers: list[Exchanged] = []
    for info in prune.peers[:MAX_EXCHANGED]:
        try:
            peer = PeerId.from_bytes(info.peer_id)
        except UsageError:
            continue
        record = info.signed_peer_record
        peers.append(Exchanged(peer, record if len(record) <= MAX_RECORD_BYTES else b""))
    return Prune(_topic(prune.topic_id), min(prune.backoff, _MAX_BACKOFF_S), tuple(peers))


def _source(raw: bytes) -> PeerId:
    """A peer speaks again and again: one PeerId for all that it says."""
    return _source_seen(raw) if len(raw) <= _SHORT_SOURCE_BYTES else PeerId(raw)


@lru_cache(maxsize=_MAX_SOURCES)
def _source_seen(raw: bytes) -> PeerId:
    return PeerId(raw)


@lru_cache(maxsize=1024)  # one text for all messages of a topic, whose hash is known
def _topic(topic: str | bytes) -> str:
    """protobuf's C parser hands text that is not UTF-8 out as bytes."""
    if isinstance(topic, bytes):
        raise BadMessage("a topic that is not UTF-8")
    if len(topic) * 4 > MAX_TOPIC_BYTES and len(topic.encode()) > MAX_TOPIC_BYTES:
        raise BadMessage(f"a topic of more than {MAX_TOPIC_BYTES} bytes")
    return topic
