"""DHT messages as libp2p's kad-dht protobuf (libp2p/specs, kad-dht/README.md, "RPC messages").

    bytes from a peer --decode, decode_reply--> messages.py        anything malformed raises BadMessage
    messages.py --encode--> bytes of at most 16 KiB

What other implementations do differently, and what is made of it:

- rust refuses frames above 16 KiB, so replies are cut to that: first the farthest peers go, then providers.
  go and js may send more for a popular key: 64 KiB are taken, enough for 20 peers with 16 addresses each and 200
  providers.
- py writes ADD_PROVIDER back. That is decoded to a ProviderEcho, which is no Reply: the network waits on.
- Keys of ADD_PROVIDER are multihashes by the spec; go checks their length only (1 to 80 bytes), and py's users
  store bare digests. Any key of at most 80 bytes is taken, so that no network's records are lost here.
- js fails on values without a time in the form 2006-01-02T15:04:05.000000000Z: one is always written.
- Peers with unusable ids or addresses are left out; the rest of their message counts.

Everything taken from a message is bounded: 32 closer peers, 128 providers, 16 addresses of 256 bytes for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from google.protobuf.message import DecodeError

from ..engine import Address, Message, PeerInfo, Reply, Request
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
    ValueStored,
)
from .record_wire import record_protocol as record_protocol
from .records import MAX_ENVELOPE_BYTES

DEFAULT_PROTOCOL_ID: Final = "/swarm/kad/1.0.0"
MAX_FRAME_BYTES: Final = 64 * 1024
MAX_REPLY_BYTES: Final = 16 * 1024 - 64  # the frame's length and slack for how others count

_MAX_KEY_BYTES: Final = 1024
_MAX_PROVIDER_KEY_BYTES: Final = 80
_MAX_CLOSER: Final = 32
_MAX_PROVIDERS: Final = 128
_MAX_ADDRESSES: Final = 16
_MAX_ADDRESS_BYTES: Final = 256
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
        case FoundNodes(_, closer):
            return _join(_FIND_NODE_HEADER, (), closer)
        case GetProviders(_, key):
            return _Proto(type=_Proto.GET_PROVIDERS, key=key).SerializeToString()
        case FoundProviders(_, key, providers, closer):
            header = _Proto(type=_Proto.GET_PROVIDERS, key=key).SerializeToString()
            return _join(header, providers, closer)
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
            return _with_record(_Proto.PUT_VALUE, key, value, 0.0)
        case Ping() | Pong():
            return _Proto(type=_Proto.PING).SerializeToString()
        case _:
            raise TypeError(f"not a message of the DHT: {message!r}")


@lru_cache(maxsize=256)
def _find_node(key: bytes) -> bytes:
    """The same for every peer that a lookup asks."""
    return _Proto(type=_Proto.FIND_NODE, key=bytes(key)).SerializeToString()


_FIND_NODE_HEADER: Final = _Proto(type=_Proto.FIND_NODE).SerializeToString()


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
        part = _provider_part(provider)
        if len(part) <= left - _CLOSER_SHARE_BYTES:
            left -= len(part)
            parts.append(part)
    for info in closer:
        part = _closer_part(info)
        if len(part) <= left:
            left -= len(part)
            parts.append(part)
    return b"".join(parts)


# Encoded peers by id, with what they were made from: the same peers are named again and again. A full cache is
# emptied: refilling it costs 2 µs a peer.
_MAX_PARTS: Final = 8_192
_closer_parts: dict[PeerId, tuple[tuple[Address, ...], bytes]] = {}


def _closer_part(info: PeerInfo) -> bytes:
    """A message that holds nothing but one closer peer."""
    cached = _closer_parts.get(info.peer)
    if cached is not None and (cached[0] is info.addresses or cached[0] == info.addresses):
        return cached[1]
    part = _Proto(closer_peers=[_Peer(id=bytes(info.peer), addrs=info.addresses)]).SerializeToString()
    if len(_closer_parts) >= _MAX_PARTS:
        _closer_parts.clear()
    _closer_parts[info.peer] = (info.addresses, part)
    return part


@lru_cache(maxsize=1_024)
def _provider_part(provider: Provider) -> bytes:
    """A message that holds nothing but one provider."""
    peer = _Peer(id=bytes(provider.peer), addrs=provider.addresses, service_record=provider.record)
    return _Proto(provider_peers=[peer]).SerializeToString()


# Decoding ---------------------------------------------------------------------------------------------------


def decode(sender: PeerId, body: bytes, id: int) -> Request:
    """A request. Of the providers in an ADD_PROVIDER only the sender is kept (kad-dht spec, "ADD_PROVIDER")."""
    message = _parse(body)
    kind = message.type
    if kind == _Proto.PING:
        return Ping(id)
    key = message.key
    if not 0 < len(key) <= _MAX_KEY_BYTES:
        raise BadMessage(f"a DHT request with a key of {len(key)} bytes, not 1 to {_MAX_KEY_BYTES}")
    if kind == _Proto.FIND_NODE:
        return FindNode(id, key)
    if kind == _Proto.GET_PROVIDERS:
        return GetProviders(id, key)
    if kind == _Proto.ADD_PROVIDER:
        if len(key) > _MAX_PROVIDER_KEY_BYTES:
            raise BadMessage(f"a provider record with a key of {len(key)} bytes; 80 are allowed")
        return AddProvider(id, key, _own_provider(sender, message))
    if kind == _Proto.GET_VALUE:
        return GetValue(id, key)
    if kind == _Proto.PUT_VALUE:
        if not message.HasField("record") or message.record.key != key:
            raise BadMessage("a PUT_VALUE without a record of its key")
        return PutValue(id, key, message.record.value, 0.0)
    raise BadMessage(f"a DHT request of unknown type {kind}")


def decode_reply(sender: PeerId, body: bytes, id: int) -> Reply | ProviderEcho:
    """A reply, or the echo of an ADD_PROVIDER, which is none."""
    message = _parse(body)
    decoder = _REPLIES.get(message.type)
    if decoder is None:
        raise BadMessage(f"a DHT reply of unknown type {message.type}")
    return decoder(message, id)


def _parse(body: bytes) -> kad_pb2.Message:
    if len(body) > MAX_FRAME_BYTES:
        raise BadMessage(f"a DHT message of {len(body)} bytes; {MAX_FRAME_BYTES} are allowed")
    try:
        return _Proto.FromString(body)
    except DecodeError:
        raise BadMessage("not a DHT message: the protobuf is malformed") from None


def _found_nodes(message: kad_pb2.Message, id: int) -> Reply:
    return FoundNodes(id, _closer(message))


def _found_providers(message: kad_pb2.Message, id: int) -> Reply:
    providers = tuple(
        Provider(peer, _addresses(raw.addrs), _record(raw.service_record))
        for raw in message.provider_peers[:_MAX_PROVIDERS]
        if (peer := _peer_id(raw.id)) is not None
    )
    return FoundProviders(id, message.key[:_MAX_KEY_BYTES], providers, _closer(message))


def _found_value(message: kad_pb2.Message, id: int) -> Reply:
    value = message.record.value if message.HasField("record") else None
    return FoundValue(id, message.record.key[:_MAX_KEY_BYTES], value, 0.0, _closer(message))


def _value_stored(message: kad_pb2.Message, id: int) -> Reply:
    value = message.record.value if message.HasField("record") else None
    return ValueStored(id, message.key[:_MAX_KEY_BYTES], value)


def _pong(message: kad_pb2.Message, id: int) -> Reply:
    return Pong(id)


def _echo(message: kad_pb2.Message, id: int) -> ProviderEcho:
    return ProviderEcho()


_REPLIES: Final[dict[int, Callable[[kad_pb2.Message, int], Reply | ProviderEcho]]] = {
    _Proto.FIND_NODE: _found_nodes,
    _Proto.GET_PROVIDERS: _found_providers,
    _Proto.GET_VALUE: _found_value,
    _Proto.PUT_VALUE: _value_stored,
    _Proto.PING: _pong,
    _Proto.ADD_PROVIDER: _echo,
}


def _closer(message: kad_pb2.Message) -> tuple[PeerInfo, ...]:
    return tuple(
        [
            PeerInfo(peer, _addresses(raw.addrs))
            for raw in message.closer_peers[:_MAX_CLOSER]
            if (peer := _peer_id(raw.id)) is not None
        ]
    )


def _own_provider(sender: PeerId, message: kad_pb2.Message) -> Provider | None:
    for raw in message.provider_peers[:_MAX_PROVIDERS]:
        if raw.id == sender:
            return Provider(sender, _addresses(raw.addrs), _record(raw.service_record))
    return None


def _addresses(raw: Iterable[bytes]) -> tuple[Address, ...]:
    """Each address once, bounded in number and length; engines never look inside."""
    usable = [address for address in raw if 0 < len(address) <= _MAX_ADDRESS_BYTES]
    return tuple(dict.fromkeys(usable[:_MAX_ADDRESSES]))


def _record(raw: bytes) -> bytes:
    return raw if len(raw) <= MAX_ENVELOPE_BYTES else b""


@lru_cache(maxsize=8_192)
def _peer_id(raw: bytes) -> PeerId | None:
    """The same object for the same peer, None for bytes that name none."""
    try:
        return PeerId.from_bytes(raw)
    except UsageError:
        return None
