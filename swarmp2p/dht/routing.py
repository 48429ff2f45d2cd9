"""The routing table: k-buckets of peers that have answered (Kademlia §2.2, §2.4, §4.1).

Bucket i holds peers that share exactly i leading bits with the own id: k peers for each length of shared
prefix (kad-dht spec, "Kademlia routing table"). In each bucket:

    live      at most k peers, least recently seen first. A full bucket takes no newcomer: peers that have
              been there for long are the likeliest to stay (§2.2). Except for one of the k nearest of all:
              those are always known (the sibling list of S/Kademlia §4.2), since records are stored there.
    suspects  live peers whose last request failed. They keep their place, but are handed out to nobody and
              are asked only when there are too few others; asked again soon, they return or leave.
    spares    the replacement cache: at most k peers that would fit, most recently seen last. A full one takes
              newcomers only for those that were not seen for an hour: whoever floods us with fresh ids does not
              become the successor of all who leave.

                seen                 seen, when full
    unknown ------------> live      unknown ------------> spare --- a place becomes free ---> live
    live <--- seen --- suspect <--- failed --- live
    suspect --- failed again, while others answered ---> gone, and banished for a while

A banished peer is dead as far as we know; while others still name it, it is not worth asking again. A failure
counts only when some other peer answered since the last one: when the own line is down, everybody seems dead, and
the table is what the way back depends on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

from ..engine import Address, PeerInfo
from ..identity import PeerId
from .bucket import Bucket, Entry
from .diversity import GroupCount, address_groups, has_room
from .keys import ID_BITS, bucket_index, peer_key

_MAX_BANISH_S = 3600.0
_MAX_BANISHED = 1_024
_MAX_TRIED = 16  # addresses of a banished peer


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One peer of a table, as shown to the application.

    bucket: leading bits that its id shares with the own. added, seen: seconds as `now`; seen is its last
    answer. failures: requests failed since.
    """

    peer: PeerId
    addresses: tuple[Address, ...]
    bucket: int
    added: float
    seen: float
    failures: int


class RoutingTable:
    """Peers that serve the DHT, by distance from the own id. Every one of them has an address.

    own: the own id. k: size of a bucket. per_group, per_table: peers of one public subnet in a bucket, and in the
    whole table (diversity.py); among a bucket's spares there may be as many again as in it.
    max_failures: failed requests in a row after which a peer is gone. banish_s: for how long it is not asked
    then; doubles each time up to an hour; the last 1,024 are remembered.

    answered_at: when any peer answered last.
    """

    def __init__(
        self,
        own: int,
        *,
        k: int = 20,
        per_group: int = 2,
        per_table: int = 10,
        max_failures: int = 2,
        banish_s: float = 60.0,
    ) -> None:
        self._own, self._k = own, k
        self._per_group, self._max_failures, self._banish_s = per_group, max_failures, banish_s
        self._groups = GroupCount(per_table)
        self._buckets: dict[int, Bucket] = {}
        # What `closest` walks: the bit of an id by which each bucket's peers differ, and its live peers.
        self._shallow_first: list[tuple[int, dict[int, Entry]]] = []
        self._deep_first: list[tuple[int, dict[int, Entry]]] = []
        # peer: (until, how long, where it was not)
        self._banished: dict[PeerId, tuple[float, float, tuple[Address, ...]]] = {}
        self.answered_at = -math.inf  # when any peer was last seen
        self._size = 0
        self._radius: int | None = None

    # Changing it --------------------------------------------------------------------------------------------

    def seen(self, peer: PeerId, now: float) -> bool:
        """A peer answered. Returns whether it is in the table; `add` it otherwise."""
        self.answered_at = now
        key = peer_key(peer)
        bucket = self._buckets.get(ID_BITS - (self._own ^ key).bit_length())
        if bucket is None:
            return False
        entry = bucket.live.pop(key, None)
        if entry is None:
            entry = bucket.suspects.pop(key, None)
            if entry is None:
                return False
            self._radius = None
        entry.seen, entry.failures = now, 0
        bucket.live[key] = entry
        return True

    def lives(self, peer: PeerId, now: float) -> bool:
        """A peer gave a sign of life other than an answer. Returns whether it is in the table; a suspect stays
        one, since it is answers that are expected of it."""
        key = peer_key(peer)
        bucket = self._bucket_of(key)
        if bucket is None:
            return False
        entry = bucket.live.get(key)
        if entry is None:
            return key in bucket.suspects
        entry.seen = now
        return True

    def doubt(self, peer: PeerId) -> None:
        """Nothing is wrong with a peer, but it should be asked before the others of its bucket."""
        key = peer_key(peer)
        bucket = self._bucket_of(key)
        if bucket is not None:
            bucket.spares.pop(key, None)
            entry = bucket.live.pop(key, None)
            if entry is not None:
                bucket.put_first(key, entry)

    def add(self, info: PeerInfo, now: float, fresh_s: float = 0.0) -> PeerInfo | None:
        """Take in a peer that answered and is not in the table: as a live one, or as a spare when its bucket
        is full. One without an address, or the third of its subnet, is left out.

        Returns the peer of a full bucket that has not been heard of for longest: asking it tells whether it
        should make room. None when it was heard of less than `fresh_s` seconds ago.
        """
        key = peer_key(info.peer)
        self._banished.pop(info.peer, None)  # it answered
        if not info.addresses or key == self._own:
            return None
        index = bucket_index(self._own, key)
        bucket = self._buckets.get(index)
        if bucket is None:
            bucket = self._new_bucket(index)
        bucket.spares.pop(key, None)
        entry = Entry(info, address_groups(info.addresses), now)
        if not self._is_diverse(bucket, entry.groups):
            return None
        if len(bucket.live) + len(bucket.suspects) < self._k:
            self._enter(bucket, key, entry)
            return None
        near = self._own ^ key < self.radius()
        farthest = max(bucket.live, key=self._own.__xor__, default=key) if near else key
        if self._own ^ key < self._own ^ farthest:
            # A neighbour: take it in for the farthest of its bucket, which becomes a spare.
            self._enter(bucket, key, entry)
            known = bucket.live.pop(farthest)
            self._left(known)
            bucket.keep_spare(farthest, known, self._k)
        elif bucket.takes_spare(self._k, entry.groups, self._per_group, now):
            bucket.keep_spare(key, entry, self._k)
        oldest = next(iter(bucket.live.values()), None)
        return None if oldest is None or now - oldest.seen < fresh_s else oldest.info

    def failed(self, peer: PeerId, now: float) -> bool:
        """A request to a peer failed. Returns whether it is a suspect now, which is worth asking again soon."""
        key = peer_key(peer)
        bucket = self._bucket_of(key)
        if bucket is None:
            return False
        bucket.spares.pop(key, None)
        entry = bucket.live.pop(key, None)
        if entry is None:
            entry = bucket.suspects.get(key)
            if entry is None:
                return False
            if self.answered_at <= entry.failed_at:
                return True
        self._radius = None
        entry.failures += 1
        entry.failed_at = now
        if entry.failures < self._max_failures:
            bucket.suspects[key] = entry
            return True
        bucket.suspects.pop(key, None)
        self._left(entry)
        self.banish(entry.info, now)
        self._promote(bucket)
        return False

    def remove(self, peer: PeerId) -> None:
        """A peer does not serve the DHT, or not any more. Nothing happens when it is not in the table."""
        key = peer_key(peer)
        bucket = self._bucket_of(key)
        if bucket is None:
            return
        bucket.spares.pop(key, None)
        entry = bucket.live.pop(key, None) or bucket.suspects.pop(key, None)
        if entry is not None:
            self._left(entry)
            self._promote(bucket)

    def banish(self, info: PeerInfo, now: float) -> None:
        """Do not ask a peer at these addresses for a while, whoever names it. Elsewhere it may be: perhaps a liar has
        named it where it never was. Its answer or connection ends that."""
        peer = info.peer
        _, last, tried = self._banished.pop(peer, (0.0, 0.0, ()))
        tried = tuple(dict.fromkeys((*info.addresses, *tried)))[:_MAX_TRIED]
        span = min(max(2 * last, self._banish_s), _MAX_BANISH_S)
        if len(self._banished) >= _MAX_BANISHED:
            del self._banished[next(iter(self._banished))]
        self._banished[peer] = (now + span, span, tried)

    def pardon(self, peer: PeerId) -> None:
        """A banished peer may be asked again."""
        self._banished.pop(peer, None)

    def learn_addresses(self, info: PeerInfo) -> None:
        """A peer says where it can be dialled; nothing happens when it is not in the table. It leaves when it has
        moved to where there are too many already."""
        entry, bucket = self._entry(info.peer), self._bucket_of(peer_key(info.peer))
        if entry is None or bucket is None or not info.addresses or entry.info.addresses == info.addresses:
            return
        groups = address_groups(info.addresses)
        self._groups.remove(entry.groups)
        entry.groups = ()
        if self._is_diverse(bucket, groups):
            entry.info, entry.groups = info, groups
            self._groups.add(groups)
        else:
            self.remove(info.peer)

    def looked_up(self, target: int, now: float) -> None:
        """A whole lookup for `target` has ended: its bucket is fresh."""
        bucket = self._bucket_of(target)
        if bucket is not None:
            bucket.looked_up = now

    # Asking it ----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._size

    def __contains__(self, peer: PeerId) -> bool:
        return self._entry(peer) is not None

    def get(self, peer: PeerId) -> PeerInfo | None:
        """A peer of the table with its addresses."""
        entry = self._entry(peer)
        return None if entry is None else entry.info

    def wants(self, info: PeerInfo) -> bool:
        """Whether a peer, should it answer, would be added or kept as a spare: worth asking once."""
        if not info.addresses:
            return False
        key = peer_key(info.peer)
        if key == self._own:
            return False
        bucket = self._bucket_of(key)
        if bucket is None:
            return True
        if key in bucket.live or key in bucket.suspects:
            return False
        full = len(bucket.live) + len(bucket.suspects) >= self._k
        if full and len(bucket.spares) >= self._k and self._own ^ key >= self.radius():
            return False
        return self._is_diverse(bucket, address_groups(info.addresses))

    def has_place_for(self, peer: PeerId) -> bool:
        """Whether a peer would be added now, not kept as a spare; if the table wants it at all."""
        key = peer_key(peer)
        bucket = self._bucket_of(key)
        if bucket is None or len(bucket.live) + len(bucket.suspects) < self._k:
            return True
        return self._own ^ key < self.radius()

    def banished(self, named: Sequence[PeerInfo], now: float) -> list[PeerId]:
        """Of these peers, those that are not worth asking now."""
        banished = self._banished
        if not banished:
            return []
        return [
            info.peer
            for info in named
            if (entry := banished.get(info.peer)) is not None
            and now < entry[0]
            and all(address in entry[2] for address in info.addresses)
        ]

    def is_near(self, peer: PeerId) -> bool:
        """Whether a peer, in the table or not, is one of the k nearest to us, as far as we know."""
        return peer_key(peer) ^ self._own <= self.radius()

    def is_suspect(self, peer: PeerId) -> bool:
        """Whether a peer is here and its last request failed."""
        entry = self._entry(peer)
        return entry is not None and entry.failures > 0

    def is_fresh(self, peer: PeerId, since: float) -> bool:
        """Whether a peer is here and was seen since then, and nothing is wrong with it."""
        entry = self._entry(peer)
        return entry is not None and entry.seen >= since and not entry.failures

    def not_seen_since(self, before: float, count: int) -> list[PeerInfo]:
        """Up to `count` live peers that have not answered since `before`."""
        found: list[PeerInfo] = []
        for bucket in self._buckets.values():
            for entry in bucket.live.values():
                if entry.seen >= before or len(found) >= count:
                    break
                found.append(entry.info)
        return found

    def closest(self, target: int, count: int, *, suspects: bool = False) -> list[PeerInfo]:
        """The `count` nearest peers to `target`, nearest first. suspects: fill up with those when there are
        too few.

        Walks the buckets in order of their distance from the target and sorts within each: 3 µs for 20 of
        1,000. Let d be the distance of the target from the own id. Peers of bucket i differ from the own id
        in bit i, so their distance from the target has bit i of d flipped: where d has it set, they are
        nearer to the target than everything in later buckets, nearest for the smallest i; where it is not,
        they are farther, farthest for the smallest i.
        """
        found: list[PeerInfo] = []
        nearness, by_distance = self._own ^ target, target.__xor__
        for shift, live in self._shallow_first:
            if live and nearness >> shift & 1:
                found += [live[key].info for key in sorted(live, key=by_distance)]
                if len(found) >= count:
                    return found[:count]
        for shift, live in self._deep_first:
            if live and not nearness >> shift & 1:
                found += [live[key].info for key in sorted(live, key=by_distance)]
                if len(found) >= count:
                    return found[:count]
        if suspects:
            found += self._nearest_suspects(target, count - len(found))
        return found

    def radius(self) -> int:
        """An estimate of the distance from any key within which its k nearest peers lie: that of our own k-th
        nearest. Everything is near while we know fewer than k peers."""
        if self._radius is None:
            nearest = self.closest(self._own, self._k)
            self._radius = peer_key(nearest[-1].peer) ^ self._own if len(nearest) >= self._k else 1 << ID_BITS
        return self._radius

    def size_estimate(self, k: int) -> float:
        """How many peers serve the DHT, roughly, from how near the k nearest are."""
        return k * 2.0**ID_BITS / self.radius()

    def stale_buckets(self, deepest: int, before: float) -> list[int]:
        """Buckets 0 to `deepest` that were not looked up since `before`, including empty ones."""
        return [index for index in range(min(deepest, ID_BITS - 1) + 1) if self.looked_up_at(index) < before]

    def looked_up_at(self, index: int) -> float:
        """When a whole lookup for a key of a bucket ended last; 0 for never."""
        bucket = self._buckets.get(index)
        return 0.0 if bucket is None else bucket.looked_up

    def snapshot(self) -> tuple[TableEntry, ...]:
        """All peers, by bucket and then by when they were last seen."""
        return tuple(
            TableEntry(entry.info.peer, entry.info.addresses, index, entry.added, entry.seen, entry.failures)
            for index, bucket in sorted(self._buckets.items())
            for entry in sorted(bucket.members(), key=lambda entry: entry.seen)
        )

    # Inside -------------------------------------------------------------------------------------------------

    def _bucket_of(self, key: int) -> Bucket | None:
        return self._buckets.get(ID_BITS - (self._own ^ key).bit_length())

    def _entry(self, peer: PeerId) -> Entry | None:
        key = peer_key(peer)
        bucket = self._bucket_of(key)
        if bucket is None:
            return None
        return bucket.live.get(key) or bucket.suspects.get(key)

    def _new_bucket(self, index: int) -> Bucket:
        bucket = self._buckets[index] = Bucket()
        self._deep_first.append((ID_BITS - 1 - index, bucket.live))
        self._deep_first.sort(key=itemgetter(0))
        self._shallow_first = self._deep_first[::-1]
        return bucket

    def _promote(self, bucket: Bucket) -> None:
        """Give a free place to the spare that was seen last, if it still fits."""
        while bucket.spares:
            key, entry = bucket.spares.popitem()
            if self._is_diverse(bucket, entry.groups):
                self._enter(bucket, key, entry)
                bucket.put_first(key, entry)  # it may be gone too
                return

    def _is_diverse(self, bucket: Bucket, groups: tuple[bytes, ...]) -> bool:
        """Whether a bucket, and the table, have room for another peer of these subnets."""
        return not groups or (
            self._groups.has_room(groups)
            and has_room(groups, (entry.groups for entry in bucket.members()), self._per_group)
        )

    def _enter(self, bucket: Bucket, key: int, entry: Entry) -> None:
        """A peer becomes a live one."""
        bucket.live[key] = entry
        self._size += 1
        self._radius = None
        self._groups.add(entry.groups)

    def _left(self, entry: Entry) -> None:
        """A peer is in no bucket any more."""
        self._size -= 1
        self._radius = None
        self._groups.remove(entry.groups)

    def _nearest_suspects(self, target: int, count: int) -> list[PeerInfo]:
        suspects = {
            key ^ target: entry.info for b in self._buckets.values() for key, entry in b.suspects.items()
        }
        return [suspects[distance] for distance in sorted(suspects)[:count]]
