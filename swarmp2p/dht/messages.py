"""What DHT peers say to each other: libp2p's kad-dht RPCs, and the question for a provider's own record.

request       answered by    asks
FindNode      FoundNodes     for the k nearest peers to a key
GetProviders  FoundProviders for the providers of a key, and the k nearest peers
GetValue      FoundValue     for the value of a key, and the k nearest peers
PutValue      ValueStored    to store a value
AddProvider   nobody         to store that the sender, or who signed a record, provides a key
Ping          Pong           whether the DHT runs there
GetRecord     FoundRecord    a provider for its own signed service record (protocol "record")
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..engine import Address, Message, PeerInfo, Reply, Request
from ..identity import PeerId


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider of a key. record: what it signed, a service record (records.py) or that it provides the key
    (provider_record.py); empty for nothing."""

    peer: PeerId
    addresses: tuple[Address, ...]
    record: bytes = b""


@dataclass(frozen=True, slots=True)
class Split:
    """A hint that the providers of a key are spread over shards (shards.py).

    tree: the first 8 bytes of the root key's digest. depth: where most of its providers publish, 1 to 24. size: about
    how many they are.
    """

    tree: bytes
    depth: int
    size: int


# Replies ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FoundNodes(Reply):
    """closer: at most k peers, nearest to the key first. held: how many providers of the key the answering peer holds;
    0 also where it does not say. splits: at most 4; first the one that the key belongs to. coordinate: where the
    answering peer is, at most 32 bytes that the DHT does not look into; empty when it does not say."""

    protocol: ClassVar[str] = "dht"
    closer: tuple[PeerInfo, ...]
    held: int = 0
    splits: tuple[Split, ...] = ()
    coordinate: bytes = b""


@dataclass(frozen=True, slots=True)
class FoundProviders(Reply):
    """key: as asked. providers: in no order. closer, held, splits: as in FoundNodes."""

    protocol: ClassVar[str] = "dht"
    key: bytes
    providers: tuple[Provider, ...]
    closer: tuple[PeerInfo, ...]
    held: int = 0
    splits: tuple[Split, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundValue(Reply):
    """value: None for none. received: when the answering peer got it, seconds as `now`; 0 when not known."""

    protocol: ClassVar[str] = "dht"
    key: bytes
    value: bytes | None
    received: float
    closer: tuple[PeerInfo, ...]


@dataclass(frozen=True, slots=True)
class ValueStored(Reply):
    """Repeats what was stored; value is None or another value, over the wire an empty one, when it was refused."""

    protocol: ClassVar[str] = "dht"
    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Pong(Reply):
    """The DHT runs here."""

    protocol: ClassVar[str] = "dht"


@dataclass(frozen=True, slots=True)
class FoundRecord(Reply):
    """envelope: the answering peer's signed record, empty when it does not offer the service."""

    protocol: ClassVar[str] = "record"
    envelope: bytes


@dataclass(frozen=True, slots=True)
class ProviderEcho(Message):
    """py-libp2p writes ADD_PROVIDER back; others answer nothing. Not a Reply: no request waits for it."""

    protocol: ClassVar[str] = "dht"


# Requests: `answer` is the class of the reply ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FindNode(Request):
    """key: any bytes; those of a PeerId to find that peer."""

    protocol: ClassVar[str] = "dht"
    answer: ClassVar[type[Reply]] = FoundNodes
    key: bytes


@dataclass(frozen=True, slots=True)
class GetProviders(Request):
    """key: a multihash."""

    protocol: ClassVar[str] = "dht"
    answer: ClassVar[type[Reply]] = FoundProviders
    key: bytes


@dataclass(frozen=True, slots=True)
class GetValue(Request):
    """key: any bytes, "/namespace/..." where a validator is meant to apply."""

    protocol: ClassVar[str] = "dht"
    answer: ClassVar[type[Reply]] = FoundValue
    key: bytes


@dataclass(frozen=True, slots=True)
class PutValue(Request):
    """received: when the sender got or made it, seconds as `now`."""

    protocol: ClassVar[str] = "dht"
    answer: ClassVar[type[Reply]] = ValueStored
    key: bytes
    value: bytes
    received: float


@dataclass(frozen=True, slots=True)
class AddProvider(Request):
    """provider: the sender; or another, with a record that it may have signed (handed.py); or None when the message
    names others only. Nobody answers it."""

    protocol: ClassVar[str] = "dht"
    expects_reply: ClassVar[bool] = False
    key: bytes
    provider: Provider | None


@dataclass(frozen=True, slots=True)
class Ping(Request):
    """Deprecated by the spec, and answered all the same."""

    protocol: ClassVar[str] = "dht"
    answer: ClassVar[type[Reply]] = Pong


@dataclass(frozen=True, slots=True)
class GetRecord(Request):
    """service: a name, as given to Announce."""

    protocol: ClassVar[str] = "record"
    answer: ClassVar[type[Reply]] = FoundRecord
    service: str


AnsweredRequest = FindNode | GetProviders | GetValue | PutValue | Ping | GetRecord
"""The requests that are answered."""
