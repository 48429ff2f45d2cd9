"""`peer.dht`: the DHT as async calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from .arguments import bytes_argument, count_argument, many_argument, peer_argument
from .dht.disjoint import checked_paths
from .dht.events import (
    FindClosest,
    FindPeer,
    FindProviders,
    GetValue,
    Provide,
    ProvideMany,
    ProvideProgress,
    ProviderFound,
    PutValue,
    Refresh,
    StopProviding,
    StopPutting,
)
from .dht.keys import multihash_key
from .dht.validators import check_key, check_value
from .dht.wire import MAX_KEY_BYTES
from .engine import PeerInfo
from .errors import LookupFailed, PeerNotFound, UsageError, ValueNotFound
from .identity import PeerId
from .queries import Found, KnownPeer, Queries, RemotePeer, Results, remote_peer
from .storage.status import StorageStatus

if TYPE_CHECKING:
    from .dht.kademlia import Kademlia
    from .storage.storage import Storage


class Dht:
    """A peer's view of the DHT. Keys of providers: a 34-byte sha2-256 multihash is used as it is, other bytes are
    hashed into one. Keys of values (`put`, `get`) have at most 256 bytes.

    paths, where a call takes it: over how many disjoint paths its lookup goes, 1 to 8; more withstand peers that
    answer falsely, for some more requests. None: the peer's setting, 1 by default. Raises UsageError for others.
    """

    def __init__(self, engine: Kademlia, queries: Queries, storage: Storage | None = None) -> None:
        self._engine, self._queries, self._storage = engine, queries, storage

    @property
    def storage(self) -> StorageStatus:
        """How the state file does; `str()` of it is one line. state "off" when there is none."""
        return StorageStatus() if self._storage is None else self._storage.status

    @property
    def mode(self) -> Literal["server", "client"]:
        """Whether this peer serves the DHT ("server") or only asks. Others must be able to dial a server, so this
        follows `Peer.reachability` unless DhtConfig.server says otherwise."""
        return "server" if self._engine.serving else "client"

    @property
    def table(self) -> tuple[KnownPeer, ...]:
        """A snapshot of the routing table, nearest bucket last."""
        return tuple(
            KnownPeer(
                entry.peer,
                remote_peer(PeerInfo(entry.peer, entry.addresses)).addresses,
                entry.bucket,
                entry.added,
                entry.seen,
                entry.failures,
            )
            for entry in self._engine.table.snapshot()
        )

    async def provide(self, key: bytes) -> int:
        """Say that this peer provides `key`, now and again until it closes or `stop_providing` is called.

        Returns the number of other peers that the record was sent to and that are connected: once these are three
        quarters of those that are to hold it (15 of 20), the rest follows in the background. 0 when this peer knows no
        others yet (it then answers for the key itself). Raises LookupFailed when others are known but none could be
        reached.
        """
        multihash = multihash_key(_checked_key(key))
        done = await self._queries.run(lambda query: Provide(query, multihash))
        if done.stored == 0 and done.failed > 0:
            raise LookupFailed(
                f"no peer took the provider record for {multihash.hex()}: {done.failed} were asked and none answered; "
                "check the network. It will be tried again at the next republish"
            )
        return done.stored

    async def provide_many(
        self, keys: Iterable[bytes], progress: Callable[[int, int, int], None] | None = None
    ) -> int:
        """Say that this peer provides all these keys, as `provide` does for one, with far fewer lookups than one for
        each: keys that are near each other have the same holders.

        Returns the number of keys whose record at least one other peer was sent. Others are tried again by
        themselves; so are all of them when the caller goes away before the end. Each other peer gets at most 64 records
        each half second: many keys take a while in a small swarm. progress: called now and then with
        the numbers of keys stored, not stored and still left. Raises LookupFailed when others are known but none of
        the keys could be stored.
        """
        wanted = tuple(dict.fromkeys(multihash_key(_checked_key(key)) for key in many_argument(keys, "keys")))

        def told(found: Found) -> None:
            if progress is not None and isinstance(found, ProvideProgress):
                progress(found.stored, found.failed, found.left)

        done = await self._queries.run(lambda query: ProvideMany(query, wanted), told)
        known = len(self._engine.table)
        if done.failed and not done.stored and known:
            raise LookupFailed(
                f"no peer took any of the provider records for {len(wanted)} keys, though {known} are known; check the "
                "network. They will be tried again soon"
            )
        return done.stored

    def stop_providing(self, key: bytes) -> None:
        """Stop renewing the record of `key`; what others hold expires."""
        self._queries.tell(StopProviding(multihash_key(_checked_key(key))))

    def find_providers(
        self, key: bytes, limit: int | None = 20, *, paths: int | None = None
    ) -> Results[RemotePeer]:
        """Iterate over providers of `key`, each once, as soon as it is known. limit: 0 or None for
        as many as there are."""
        most, over = count_argument(limit, "limit"), checked_paths(paths)
        multihash = multihash_key(_checked_key(key))

        def convert(found: Found) -> RemotePeer:
            assert isinstance(found, ProviderFound)
            return remote_peer(found.provider)

        return Results(self._queries, lambda query: FindProviders(query, multihash, most, over), convert)

    async def find_peer(self, peer: PeerId | str) -> RemotePeer:
        """Where a peer can be dialled; raises PeerNotFound."""
        target = peer_argument(peer)
        done = await self._queries.run(lambda query: FindPeer(query, target))
        if done.peer is None:
            raise PeerNotFound(str(target))
        return remote_peer(done.peer)

    async def closest(self, key: bytes, *, paths: int | None = None) -> tuple[RemotePeer, ...]:
        """The live peers nearest to `key`, nearest first, at most k (20), without this one. Raises UsageError for a key
        of more than 1,024 bytes."""
        wanted, over = _checked_key(key), checked_paths(paths)
        if len(wanted) > MAX_KEY_BYTES:
            raise UsageError(
                f"a request's key has at most {MAX_KEY_BYTES} bytes, not {len(wanted)}; hash longer ones"
            )
        done = await self._queries.run(lambda query: FindClosest(query, wanted, over))
        return tuple(remote_peer(info) for info in done.closest)

    async def put(self, key: bytes, value: bytes, *, republish: bool = True) -> int:
        """Store a value at the peers nearest to `key`; returns how many confirmed it.

        They keep it for 48 hours. republish: store it again every 22 hours while this peer runs, until `stop_putting`
        or another `put` of the key, or until the key's validator prefers what others hold by then (without one: until
        most of them hold another value).

        Raises UsageError for a value of more than 8 KiB or a key of more than 256 bytes, and LookupFailed when
        others are known but none of them took it, or this peer's own validator does not.
        """
        wanted, data = bytes_argument(key, "a DHT key"), bytes_argument(value, "a DHT value")
        check_value(wanted, data)
        done = await self._queries.run(lambda query: PutValue(query, wanted, data, republish))
        if done.refused:
            raise LookupFailed(
                f"the value under {wanted.hex()} was stored nowhere: the validator of its key refuses it, or prefers "
                "the value that this peer holds; put one that it takes. What was put before stays"
            )
        if done.stored == 0 and done.asked > 0:
            raise LookupFailed(
                f"no peer took the value under {wanted.hex()}: {done.asked} were asked, {done.failed} did not answer; "
                "check the value against the key's validator, and the network. Nothing was stored elsewhere"
            )
        return done.stored

    def stop_putting(self, key: bytes) -> None:
        """Store the value of `key` again no more; what others hold expires."""
        self._queries.tell(StopPutting(_checked_key(key)))

    async def get(self, key: bytes, *, paths: int | None = None) -> bytes:
        """The best value under `key`; raises ValueNotFound, and UsageError for a key of more than 256 bytes."""
        wanted, over = _checked_key(key), checked_paths(paths)
        check_key(wanted)
        done = await self._queries.run(lambda query: GetValue(query, wanted, over))
        if done.value is None:
            raise ValueNotFound(wanted)
        return done.value

    async def refresh(self) -> None:
        """Look up this peer's own key and a random key of each bucket now, as happens by itself every ten
        minutes: after a change of networks, say. Returns when that is done."""
        await self._queries.run(Refresh)


def _checked_key(key: object) -> bytes:
    checked = bytes_argument(key, "a DHT key")
    if not checked:
        raise UsageError("a DHT key has at least one byte; this one is empty")
    return checked
