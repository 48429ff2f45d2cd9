"""Which keys are split into shards, and how deep, as far as this peer knows: where finders and announcers begin.

If they all began at the root of a large service, the 20 peers that hold it would drown, as would those on the way to
it. So the knowledge that it is split has to be where they are, and it comes there by itself:

    held     A peer that holds provider records of a shard sees in them to what they belong: a shard's key is a hash of
             root, depth and place, which are all in the record. With as many providers as there are peers in the
             network, nearly every peer holds some.
    told     Replies to FIND_NODE and GET_PROVIDERS carry up to four splits that the sender knows from what it holds,
             never from others; so refreshes spread them. Two peers must have said the same.
    found    What an own find has seen in signed records.

All of it is a hint: whoever follows a wrong one finds an empty shard, and goes back to the root.

Bounds: keys held that are known to be shards 4,096, trees told and found 64 each, four voices a tree; the oldest is
forgotten beyond, of those told first one with a single voice.
"""

from __future__ import annotations

from itertools import islice
from random import Random
from typing import Final

from ..errors import BadMessage
from ..identity import PeerId
from .keys import peer_key, service_key
from .messages import Provider, Split
from .provider_store import ProviderStore
from .records import RecordClaim, read_claim
from .shards import attribute_key, shards_of

TREE_BYTES: Final = 8
_MAX_KEYS: Final = 4_096
_MAX_TREES: Final = 64
_MAX_VOICES: Final = 4
_MAX_NAMES: Final = 9  # depths of one record that are looked at: the service's and eight attributes'
_MAX_TOLD: Final = 4  # in one reply
_MAX_SEEN: Final = 64
"""Shards of one tree that are looked at for a reply: where a service has very many providers, one peer holds thousands,
and these say as much."""

_SUMMARY_S: Final = 30.0  # how long a look at the store counts
_TTL_S: Final = 3600.0  # of what was told and found: as long as a service record lives


def tree_of(root: bytes) -> bytes:
    """How a split is called in hints: a collision costs a detour."""
    return root[2 : 2 + TREE_BYTES]


class _Shard:
    """A key held here. level: its own depth. name: as in `ServiceRecord.depths`. depth, checked: where those whom it
    holds publish, and when that was seen."""

    __slots__ = ("checked", "depth", "level", "name", "tree")

    def __init__(self, tree: bytes, name: str, level: int) -> None:
        self.tree, self.name, self.level = tree, name, level
        self.depth, self.checked = 0, float("-inf")


class Splits:
    """The splits that one peer knows of. providers: its store. rng: chooses whom to tell of what."""

    def __init__(self, providers: ProviderStore, rng: Random) -> None:
        self._providers, self._rng = providers, rng
        self._shards: dict[bytes, _Shard] = {}
        self._trees: dict[bytes, dict[bytes, _Shard]] = {}
        self._told: dict[bytes, dict[PeerId, tuple[Split, float]]] = {}
        self._found: dict[bytes, tuple[Split, float]] = {}
        self._news: tuple[Split, ...] = ()
        self._news_until = float("-inf")

    # Held ---------------------------------------------------------------------------------------------------

    def kept(self, key: bytes, provider: Provider) -> None:
        """The store has taken a record: see whether its key is a shard's."""
        if key in self._shards or not provider.record:
            return
        try:
            claim = read_claim(provider.record)
        except BadMessage:
            return
        if claim.depths and (shard := _shard(key, provider.peer, claim)) is not None:
            if len(self._shards) >= _MAX_KEYS:
                self._forget(next(iter(self._shards)))
            self._shards[key] = shard
            self._trees.setdefault(shard.tree, {})[key] = shard

    def tell(self, key: bytes, now: float) -> tuple[Split, ...]:
        """What to say in a reply about a key: its own split first, then others."""
        if not self._shards:
            return ()
        if now >= self._news_until:
            self._refresh(now)
        shard = self._shards.get(key)
        own = self._held(shard.tree if shard is not None else tree_of(key), now)
        if own is None:
            return self._news
        if shard is not None:  # what the holders of this very shard say of it
            own = Split(own.tree, max(1, self._depth(key, shard, now)), own.size)
        return (own, *[split for split in self._news if split.tree != own.tree])[:_MAX_TOLD]

    def _held(self, tree: bytes, now: float) -> Split | None:
        """What the records held here say about a tree."""
        shards = self._trees.get(tree)
        if not shards:
            return None
        depths: list[int] = []
        sizes: list[int] = []
        for key, shard in list(islice(shards.items(), _MAX_SEEN)):
            if not self._providers.count(key):
                self._forget(key)
                continue
            depths.append(self._depth(key, shard, now))
            if shard.level == depths[-1]:
                sizes.append(self._providers.count(key) << shard.level)
        depths.sort()
        if not depths or not depths[len(depths) // 2]:
            return None
        return Split(tree, depths[len(depths) // 2], sum(sizes) // len(sizes) if sizes else 0)

    def _depth(self, key: bytes, shard: _Shard, now: float) -> int:
        """The depth that a quarter of the providers at a shard have reached: whoever stays behind sees that others
        have gone on."""
        if now >= shard.checked + _SUMMARY_S:
            depths = sorted(self._providers.depths(key, shard.name))
            shard.depth = depths[len(depths) * 3 // 4] if depths else shard.level
            shard.checked = now
        return shard.depth

    def _refresh(self, now: float) -> None:
        """Choose the splits to be told for a while: the two deepest, because most is asked about them, and others by
        chance."""
        known = [split for tree in list(self._trees) if (split := self._held(tree, now)) is not None]
        known.sort(key=lambda split: (-split.depth, split.tree))
        rest = known[2:]
        self._news = (*known[:2], *self._rng.sample(rest, min(len(rest), _MAX_TOLD - 2)))
        self._news_until = now + _SUMMARY_S

    def _forget(self, key: bytes) -> None:
        shard = self._shards.pop(key)
        shards = self._trees[shard.tree]
        del shards[key]
        if not shards:
            del self._trees[shard.tree]

    # Told and found -----------------------------------------------------------------------------------------

    def told(self, sender: PeerId, splits: tuple[Split, ...], now: float) -> None:
        """A reply brought splits."""
        for split in splits:
            voices = self._told.pop(split.tree, None)
            if voices is None:
                voices = {}
                if len(self._told) >= _MAX_TREES:
                    lonely = (tree for tree, others in self._told.items() if len(others) == 1)
                    del self._told[next(lonely, next(iter(self._told)))]
            self._told[split.tree] = voices
            voices.pop(sender, None)
            voices[sender] = (split, now)
            if len(voices) > _MAX_VOICES:
                del voices[next(iter(voices))]

    def found(self, root: bytes, depth: int, size: int, now: float) -> None:
        """A find has seen where the providers of a root publish; depth 0: at the root."""
        tree = tree_of(root)
        self._found.pop(tree, None)
        if len(self._found) >= _MAX_TREES:
            del self._found[next(iter(self._found))]
        self._found[tree] = (Split(tree, depth, size), now)

    def wrong(self, root: bytes) -> None:
        """A find has seen that what others said, or an earlier find, holds no longer."""
        self._told.pop(tree_of(root), None)
        self._found.pop(tree_of(root), None)

    def believed(self, root: bytes, now: float) -> Split | None:
        """The split of a root, as far as this peer knows."""
        tree = tree_of(root)
        found = self._found.get(tree)
        if found is not None and now < found[1] + _TTL_S:
            return found[0]
        held = self._held(tree, now)
        if held is not None:
            return held
        voices = [split for split, when in self._told.get(tree, {}).values() if now < when + _TTL_S]
        if len(voices) < 2:
            return None
        depths, sizes = sorted(split.depth for split in voices), sorted(split.size for split in voices)
        middle = (len(voices) - 1) // 2
        return Split(tree, depths[middle], sizes[middle])


def _shard(key: bytes, provider: PeerId, claim: RecordClaim) -> _Shard | None:
    """What a key is, by what a record under it says; nobody can make a key that is something else."""
    for name, depth in list(claim.depths.items())[:_MAX_NAMES]:
        value = claim.attributes.get(name)
        if not name:
            root = service_key(claim.service)
        elif isinstance(value, str):
            root = attribute_key(claim.service, name, value)
        else:
            continue
        for level, shard in shards_of(root, peer_key(provider), depth):
            if shard == key:
                return _Shard(tree_of(root), name, level)
    return None
