"""DHT messages as libp2p's kad-dht protobuf (libp2p/specs, kad-dht/README.md, "RPC messages").

    bytes from a peer --decode, decode_reply--> messages.py        anything malformed raises BadMessage
    messages.py --encode--> bytes of at most 16 KiB

What other implementations do differently, and what is made of it:

- rust refuses frames above 16 KiB, so replies are cut to that: first the farthest peers go, then providers.
  go and js may send more for a popular key (go up to 4 MiB): 256 KiB of a reply are taken, 400 providers with 40
  addresses each. That is no more than the stream's window may hold anyway.
- py writes ADD_PROVIDER back. That is decoded to a ProviderEcho, which is no Reply: the network waits on.
- Keys of ADD_PROVIDER are multihashes by the spec; go checks their length only (1 to 80 bytes), and py's users
  store bare digests. Any key of at most 80 bytes is taken, so that no network's records are lost here.
- js fails on values without a time in the form 2006-01-02T15:04:05.000000000Z: one is always written.
- go's PutValue dereferences the record of the reply whatever it holds: a reply without one would crash that node.
  So a refusal is a record with an empty value, which go and js call "value not put correctly".
- Peers with unusable ids or addresses are left out; the rest of their message counts.

Everything taken from a message is bounded: 32 closer peers, 128 providers, 16 addresses of 256 bytes for each, 4
splits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, TypeVar

from google.protobuf.message import DecodeError

from ..engine import Message, PeerInfo, Reply, Request
from ..errors import BadMessage, UsageError
from ..identity import PeerId
from ..wire import Exchange, Framing, WireProtocol
from . import kad_pb2
from .messages import (
    AddProvider,
    FindNode,
    FoundNodes,
    FoundProviders,
    FoundValue,
    GetProviders,
    GetValue,
    Ping,
    Pong,
    Provider,
    ProviderEcho,
    PutValue,
    Split,
    ValueStored,
)
from .record_wire import record_protocol as record_protocol
from .records import MAX_ENVELOPE_BYTES
from .shards import MAX_DEPTH

DEFAULT_PROTOCOL_ID: Final = "/swarm/kad/1.0.0"
MAX_FRAME_BYTES: Final = 256 * 1024  # of a reply
MAX_REQUEST_BYTES: Final = 64 * 1024
MAX_REPLY_BYTES: Final = 16 * 1024 - 64  # the frame's length and slack for how others count

MAX_KEY_BYTES: Final = 1024
_MAX_PROVIDER_KEY_BYTES: Final = 80
_MAX_CLOSER: Final = 32
_MAX_PROVIDERS: Final = 128
_MAX_ADDRESSES: Final = 16
_MAX_SPLITS: Final = 4
_TREE_BYTES: Final = 8
_MAX_COORDINATE_BYTES: Final = 32
_MAX_COUNT: Final = (1 << 31) - 1
_P2P_CODE: Final = b"\xa5\x03"  # 421 as a varint (multicodec table)
_MAX_ADDRESS_BYTES: Final = 256
_MAX_CACHED_BYTES: Final = 1024  # of an encoded peer; longer ones are decoded anew each time
_CLOSER_SHARE_BYTES: Final = 3 * 1024  # of a reply, kept for closer peers however many providers there are

_Proto = kad_pb2.Message
_Peer = kad_pb2.Message.Peer


def dht_protocol(protocol_id: str = DEFAULT_PROTOCOL_ID) -> WireProtocol:
    """The DHT's protocol. protocol_id: "/ipfs/kad/1.0.0" would join that network."""
    return WireProtocol(
        name="dht",
        ids=(protocol_id,),
        exchange=Exchange.REQUESTS,
        framing=Framing.UVARINT,
        max_frame_bytes=MAX_FRAME_BYTES,
        max_request_bytes=MAX_REQUEST_BYTES,
        encode=encode,
        decode=decode,
        decode_reply=decode_reply,
    )


# Encoding ---------------------------------------------------------------------------------------------------


def encode(message: Message) -> bytes:
    """The protobuf form of a request or reply of protocol "dht"."""
    match message:
        case FindNode(_, key):
            return _find_node(key)
        case FoundNodes(_, closer, held, splits, coordinate):
            return _join(_FIND_NODE_HEADER + _extras(held, splits, coordinate), (), closer)
        case GetProviders(_, key):
            return _Proto(type=_Proto.GET_PROVIDERS, key=key).SerializeToString()
        case FoundProviders(_, key, providers, closer, held, splits):
            header = _Proto(type=_Proto.GET_PROVIDERS, key=key).SerializeToString()
            return _join(header + _extras(held, splits), providers, closer)
        case AddProvider(_, key, provider):
            header = _Proto(type=_Proto.ADD_PROVIDER, key=key).SerializeToString()
            return _join(header, () if provider is None else (provider,), ())
        case GetValue(_, key):
            return _Proto(type=_Proto.GET_VALUE, key=key).SerializeToString()
        case FoundValue(_, key, value, received, closer):
            return _join(_with_record(_Proto.GET_VALUE, key, value, received), (), closer)
        case PutValue(_, key, value, received):
            return _with_record(_Proto.PUT_VALUE, key, value, received)
        case ValueStored(_, key, value):
            return _with_record(_Proto.PUT_VALUE, key, value or b"", 0.0)
        case Ping() | Pong():
            return _Proto(type=_Proto.PING).SerializeToString()
        case _:
            raise TypeError(f"not a message of the DHT: {message!r}")


@lru_cache(maxsize=256)
def _find_node(key: bytes) -> bytes:
    """The same for every peer that a lookup asks."""
    return _Proto(type=_Proto.FIND_NODE, key=bytes(key)).SerializeToString()


_FIND_NODE_HEADER: Final = _Proto(type=_Proto.FIND_NODE).SerializeToString()


def _extras(held: int, splits: tuple[Split, ...], coordinate: bytes = b"") -> bytes:
    """What only our own peers read."""
    if not held and not splits and not coordinate:
        return b""
    return _Proto(
        coordinate=coordinate,
        provider_count=held,
        splits=[kad_pb2.Split(tree=split.tree, depth=split.depth, size=split.size) for split in splits],
    ).SerializeToString()


def _with_record(
    type: kad_pb2.Message.MessageType, key: bytes, value: bytes | None, received: float
) -> bytes:
    message = _Proto(type=type, key=key)
    if value is not None:
        message.record.key = key
        message.record.value = value
        message.record.time_received = _rfc3339(received)
    return message.SerializeToString()


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


def _join(header: bytes, providers: Sequence[Provider], closer: Sequence[PeerInfo]) -> bytes:
    """A message from parts encoded before: protobuf messages are merged by writing them one after another."""
    left = MAX_REPLY_BYTES - len(header)
    parts = [header]
    for provider in providers:
        part = _part(_provider_parts, provider, _encode_provider)
        if len(part) <= left - _CLOSER_SHARE_BYTES:
            left -= len(part)
            parts.append(part)
    for info in closer:
        part = _part(_closer_parts, info, _encode_closer)
        if len(part) <= left:
            left -= len(part)
            parts.append(part)
    return b"".join(parts)


# Encoded peers by id, with what they were made from: the same peers are named again and again, and most are the very
# same objects. A full cache is emptied: refilling it costs 2 µs a peer.
_MAX_PARTS: Final = 8_192
_Named = TypeVar("_Named", PeerInfo, Provider)
_closer_parts: dict[PeerId, tuple[PeerInfo, bytes]] = {}
_provider_parts: dict[PeerId, tuple[Provider, bytes]] = {}


def _part(
    cache: dict[PeerId, tuple[_Named, bytes]], named: _Named, encode: Callable[[_Named], bytes]
) -> bytes:
    """A message that holds nothing but one peer."""
    cached = cache.get(named.peer)
    if cached is not None and (cached[0] is named or cached[0] == named):
        return cached[1]
    part = encode(named)
    if len(cache) >= _MAX_PARTS:
        cache.clear()
    cache[named.peer] = (named, part)
    return part


def _encode_closer(info: PeerInfo) -> bytes:
    return _Proto(closer_peers=[_Peer(id=bytes(info.peer), addrs=info.addresses)]).SerializeToString()


def _encode_provider(provider: Provider) -> bytes:
    peer = _Peer(id=bytes(provider.peer), addrs=provider.addresses, service_record=provider.record)
    return _Proto(provider_peers=[peer]).SerializeToString()


# Decoding ---------------------------------------------------------------------------------------------------


def decode(sender: PeerId, body: bytes, id: int) -> Request:
    """A request. Of the providers in an ADD_PROVIDER only the sender is kept (kad-dht spec, "ADD_PROVIDER"); where it
    is not among them, the first that comes with a record it may have signed (handed.py)."""
    message = _parse(body, MAX_REQUEST_BYTES)
    kind = message.type
    if kind == _Proto.PING:
        return Ping(id)
    key = message.key
    if not 0 < len(key) <= MAX_KEY_BYTES:
        raise BadMessage(f"a DHT request with a key of {len(key)} bytes, not 1 to {MAX_KEY_BYTES}")
    if kind == _Proto.FIND_NODE:
        return FindNode(id, key)
    if kind == _Proto.GET_PROVIDERS:
        return GetProviders(id, key)
    if kind == _Proto.ADD_PROVIDER:
        if len(key) > _MAX_PROVIDER_KEY_BYTES:
            raise BadMessage(f"a provider record with a key of {len(key)} bytes; 80 are allowed")
        return AddProvider(id, key, _provider_of(sender, _providers(message)))
    if kind == _Proto.GET_VALUE:
        return GetValue(id, key)
    if kind == _Proto.PUT_VALUE:
        if not message.HasField("record") or message.record.key != key:
            raise BadMessage("a PUT_VALUE without a record of its key")
        return PutValue(id, key, message.record.value, _seconds(message.record.time_received))
    raise BadMessage(f"a DHT request of unknown type {kind}")


def _provider_of(sender: PeerId, providers: Sequence[Provider]) -> Provider | None:
    own = next((provider for provider in providers if provider.peer == sender), None)
    return own or next((provider for provider in providers if provider.record), None)


def _seconds(time: str) -> float:
    """A time as others write it; 0 for none, and for what is none."""
    try:
        return max(datetime.fromisoformat(time).timestamp(), 0.0) if time else 0.0
    except (ValueError, OverflowError):
        return 0.0


def decode_reply(sender: PeerId, body: bytes, id: int) -> Reply | ProviderEcho:
    """A reply, or the echo of an ADD_PROVIDER, which is none."""
    message = _parse(body, MAX_FRAME_BYTES)
    kind = message.type
    if kind == _Proto.FIND_NODE:
        coordinate = message.coordinate
        return FoundNodes(
            id,
            _closer(message),
            _held(message),
            _splits(message),
            coordinate if len(coordinate) <= _MAX_COORDINATE_BYTES else b"",
        )
    if kind == _Proto.GET_PROVIDERS:
        key, providers = message.key[:MAX_KEY_BYTES], tuple(_providers(message))
        return FoundProviders(id, key, providers, _closer(message), _held(message), _splits(message))
    if kind == _Proto.GET_VALUE:
        record = message.record
        return FoundValue(id, record.key[:MAX_KEY_BYTES], _value(message), 0.0, _closer(message))
    if kind == _Proto.PUT_VALUE:
        return ValueStored(id, message.key[:MAX_KEY_BYTES], _value(message))
    if kind == _Proto.PING:
        return Pong(id)
    if kind == _Proto.ADD_PROVIDER:
        return ProviderEcho()
    raise BadMessage(f"a DHT reply of unknown type {kind}")


def _parse(body: bytes, most: int) -> kad_pb2.LazyMessage:
    if len(body) > most:
        raise BadMessage(f"a DHT message of {len(body)} bytes; {most} are allowed")
    try:
        return kad_pb2.LazyMessage.FromString(body)
    except DecodeError:
        raise BadMessage("not a DHT message: the protobuf is malformed") from None


def _value(message: kad_pb2.LazyMessage) -> bytes | None:
    return message.record.value if message.HasField("record") else None


def _held(message: kad_pb2.LazyMessage) -> int:
    return min(message.provider_count, _MAX_COUNT)


def _splits(message: kad_pb2.LazyMessage) -> tuple[Split, ...]:
    """Hints that make sense."""
    return tuple(
        [
            Split(raw.tree, raw.depth, min(raw.size, _MAX_COUNT))
            for raw in message.splits[:_MAX_SPLITS]
            if len(raw.tree) == _TREE_BYTES and 0 < raw.depth <= MAX_DEPTH
        ]
    )


def _closer(message: kad_pb2.LazyMessage) -> tuple[PeerInfo, ...]:
    found = map(_closer_peer, message.closer_peers[:_MAX_CLOSER])
    return tuple([info for info in found if info is not None])


def _providers(message: kad_pb2.LazyMessage) -> list[Provider]:
    found = map(_provider, message.provider_peers[:_MAX_PROVIDERS])
    return [provider for provider in found if provider is not None]


def _closer_peer(encoded: bytes) -> PeerInfo | None:
    """A peer, the same object for the same bytes; None when they name none."""
    if len(encoded) <= _MAX_CACHED_BYTES:
        return _cached_closer_peer(encoded)
    provider = _parse_peer(encoded)
    return None if provider is None else PeerInfo(provider.peer, provider.addresses)


@lru_cache(maxsize=8_192)
def _cached_closer_peer(encoded: bytes) -> PeerInfo | None:
    provider = _parse_peer(encoded)
    return None if provider is None else PeerInfo(provider.peer, provider.addresses)


def _provider(encoded: bytes) -> Provider | None:
    """The same for a provider."""
    return _cached_provider(encoded) if len(encoded) <= _MAX_CACHED_BYTES else _parse_peer(encoded)


@lru_cache(maxsize=1_024)
def _cached_provider(encoded: bytes) -> Provider | None:
    return _parse_peer(encoded)


def _parse_peer(encoded: bytes) -> Provider | None:
    try:
        raw = _Peer.FromString(encoded)
        peer = PeerId.from_bytes(raw.id)
    except (DecodeError, UsageError):
        return None
    # Each address once, bounded in number and length; engines never look inside. Some implementations put the
    # peer behind it.
    own = _P2P_CODE + bytes((len(peer),)) + peer
    addresses = [address.removesuffix(own) for address in raw.addrs[: 4 * _MAX_ADDRESSES]]
    usable = [address for address in addresses if 0 < len(address) <= _MAX_ADDRESS_BYTES]
    record = raw.service_record
    return Provider(
        peer,
        tuple(dict.fromkeys(usable[:_MAX_ADDRESSES])),
        record if len(record) <= MAX_ENVELOPE_BYTES else b"",
    )
