"""What an application asks of the DHT engine, and what the engine tells it.

Every query carries a number that the application chose; each of its outputs repeats it. A query ends with
exactly one `QueryDone`, after everything else it has to say. `Cancel` ends it at once, without one.

paths, where a command has it: over how many disjoint paths its lookup goes, 1 to 8; 0 for `DhtConfig.disjoint_paths`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..engine import Address, PeerInfo
from ..identity import PeerId
from .records import ServiceRecord
from .state import Entry, EntryId

# Commands ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetAddresses:
    """Where this peer can be dialled; provider messages and records carry it. Replaces what was said
    before."""

    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Join:
    """Enter the network through these peers: connect, look up one's own key, refresh the buckets.

    QueryDone comes as soon as the own key was looked up, and the buckets follow in the background; its
    `closest` is empty when nobody answered. The peers are remembered and asked again with each refresh, so
    that two groups which began with the same ones merge. An empty `peers` starts a network of one's own.
    later: peers to ask with each refresh only, since they did not answer just now.
    """

    query: int
    peers: tuple[PeerInfo, ...]
    later: tuple[PeerInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class Refresh:
    """Look up one's own key and a random key of each bucket now, as happens by itself every ten minutes."""

    query: int


@dataclass(frozen=True, slots=True)
class FindClosest:
    """The k nearest live peers to a key (any bytes; hashed with SHA-256 for the distance)."""

    query: int
    key: bytes
    paths: int = 0


@dataclass(frozen=True, slots=True)
class FindPeer:
    """Where a peer can be dialled: QueryDone.peer, or None."""

    query: int
    peer: PeerId


@dataclass(frozen=True, slots=True)
class Provide:
    """Store a provider record for a multihash key at the k nearest peers, and again each republish interval
    until StopProviding. QueryDone.stored counts the peers that it was sent to and that are connected; there may be more
    in the background (optimistic.py)."""

    query: int
    key: bytes


@dataclass(frozen=True, slots=True)
class ProvideMany:
    """The same for many keys, with far fewer lookups than one a key (sweep.py).

    ProvideProgress tells how far it is. QueryDone.stored counts the keys that were sent to at least one peer, failed
    those that nobody could take, which are tried again by themselves. A Cancel ends the outputs, not the storing.
    """

    query: int
    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class StopProviding:
    """Stop republishing; what is stored elsewhere expires."""

    key: bytes


@dataclass(frozen=True, slots=True)
class FindProviders:
    """Each provider of a multihash key as a ProviderFound; ends early after `limit` of them (0: no limit)."""

    query: int
    key: bytes
    limit: int = 20
    paths: int = 0


@dataclass(frozen=True, slots=True)
class PutValue:
    """Store a value at the k nearest peers. QueryDone.stored counts those that confirmed it.

    republish: store it again each interval, until StopPutting or a PutValue of the same key, or until others hold a
    better one (own_values.py).
    """

    query: int
    key: bytes
    value: bytes
    republish: bool = False


@dataclass(frozen=True, slots=True)
class StopPutting:
    """Store a value again no more; what is stored elsewhere expires."""

    key: bytes


@dataclass(frozen=True, slots=True)
class GetValue:
    """The best value under a key by its validator: QueryDone.value, or None."""

    query: int
    key: bytes
    paths: int = 0


@dataclass(frozen=True, slots=True)
class Announce:
    """Sign a service record and store it as Provide does; replaced by the next Announce of the same service.

    attributes: str to str, int, float or bool; the signed record stays under 512 bytes, else the engine's
    caller gets UsageError from `records.check_attributes` before posting this. index: names of the attributes that
    finders can look up by themselves once the service has very many providers; those with short texts by default, at
    most eight.
    """

    query: int
    service: str
    attributes: tuple[tuple[str, str | int | float | bool], ...] = ()
    index: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Stop announcing a service. A signed, already expired record is sent to the peers that hold it, so that
    finders stop seeing it before its time is over. QueryDone tells when that is sent."""

    query: int
    service: str


@dataclass(frozen=True, slots=True)
class FindService:
    """Each provider's newest verified record as a ServiceFound; ends early after `limit` (0: no limit). Of a service
    that is spread over shards up to 128 are a fair sample: each provider is equally likely to be among them.

    where: attributes that a record must equal.
    """

    query: int
    service: str
    where: tuple[tuple[str, str | int | float | bool], ...] = ()
    limit: int = 0
    paths: int = 0


@dataclass(frozen=True, slots=True)
class Cancel:
    """Forget a query; its traffic stops and it has no further outputs."""

    query: int


@dataclass(frozen=True, slots=True)
class Restore:
    """What an earlier engine of this peer asked to be kept (state.py); comes before anything else. What has
    expired since is dropped, and bounds hold. From now on StateChanged tells of each change."""

    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class SaveState:
    """Put out now, as StateChanged, what has changed. whole: all that there is. Nothing happens before a
    Restore."""

    whole: bool = False


DhtCommand = (
    SetAddresses
    | Join
    | Refresh
    | FindClosest
    | FindPeer
    | Provide
    | ProvideMany
    | StopProviding
    | FindProviders
    | PutValue
    | StopPutting
    | GetValue
    | Announce
    | Withdraw
    | FindService
    | Cancel
    | Restore
    | SaveState
)

# Outputs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProviderFound:
    """One provider, as soon as it is known; each at most once a query."""

    query: int
    provider: PeerInfo


@dataclass(frozen=True, slots=True)
class ServiceFound:
    """One verified, unexpired record, as soon as it is known; a newer one of the same provider may follow."""

    query: int
    record: ServiceRecord
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class ProvideProgress:
    """Of a ProvideMany, now and then. stored, failed: keys so far, as in its QueryDone. left: keys not sent yet."""

    query: int
    stored: int
    failed: int
    left: int


@dataclass(frozen=True, slots=True)
class QueryDone:
    """A query ended.

    closest: the nearest live peers seen, nearest first, at most k. asked: requests sent. stored: peers that
    a record or value was sent to (or that confirmed it, for values). failed: peers that did not answer. refused: this
    peer's own validator did not take the value, so nobody was asked.
    """

    query: int
    closest: tuple[PeerInfo, ...] = ()
    peer: PeerInfo | None = None
    value: bytes | None = None
    stored: int = 0
    asked: int = 0
    failed: int = 0
    refused: bool = False


@dataclass(frozen=True, slots=True)
class StateChanged:
    """What is to be kept over a restart has changed; at most once every `state_interval_s`.

    changes: by id, the entry that replaces the one before, None for one that is gone. whole: they are all that
    there is, and whatever else was kept is gone.
    """

    changes: tuple[tuple[EntryId, Entry | None], ...]
    whole: bool = False


QueryOutput = ProviderFound | ServiceFound | ProvideProgress | QueryDone
DhtOutput = QueryOutput | StateChanged
