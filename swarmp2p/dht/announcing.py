"""Storing a service's record where finders look for it: at the service's key, or at shards of it and of its attributes.

    announce, renewal --> the tree "" (the service itself) --> is it split? --yes--> a tree for each indexed attribute

    each tree:  leaf at the depth of last time --> lookup --> its holders tell how many they hold, and how deep those go
                    ^                                 |
                    '------ deeper, or one up --------+--> it fits: ADD_PROVIDER to them
                                                              '--> the shards above, as far as this provider's go

A service of up to 32 providers has one tree, and in it the root only: the one lookup that any key takes. What is stored
where a provider was before is left there until it expires, so that nobody misses it while others still look there; it
lives for three renewals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Final

from ..engine import PeerInfo
from ..identity import PeerId
from .config import DhtConfig
from .events import DhtOutput, QueryDone
from .keys import key_id, service_key
from .lookup import Lookup, LookupConfig
from .messages import FindNode, Provider
from .publisher import Publication, Publisher
from .queries import ProvideQuery, Query, add_provider
from .records import Attribute
from .shards import INDEXED_BYTES, attribute_key, next_depth, prefix, shard_key, shards_of
from .splits import Splits, tree_of
from .traffic import Traffic

MAX_INDEXED: Final = 8
_MAX_MOVES: Final = 6  # of a leaf in one renewal

Stored = Callable[[Publication, Sequence[PeerInfo], float], None]
"""Called once with the peers that hold the record at the service's leaf."""

MakeProvide = Callable[[int | None, bytes, Callable[[], Provider | None], float, bool], ProvideQuery]
"""A query that stores what it is given, at most when it is sent, for a query's number and under a key; the last
argument: whether it may be sent before the holders have answered (optimistic.py)."""


def indexed(attributes: Mapping[str, Attribute], index: Sequence[str] | None) -> list[str]:
    """The attributes with a key of their own: texts of at most 32 bytes, by name, eight at most. index: only these."""
    names = sorted(attributes if index is None else dict.fromkeys(index))
    return [
        name
        for name in names
        if name
        and isinstance(value := attributes.get(name), str)
        and 0 < len(value.encode()) <= INDEXED_BYTES
    ][:MAX_INDEXED]


class Announcer:
    """Runs what is needed to store service records. make: see MakeProvide."""

    def __init__(
        self, publisher: Publisher, traffic: Traffic, splits: Splits, config: DhtConfig, make: MakeProvide
    ) -> None:
        self.publisher, self.traffic, self.splits, self.config = publisher, traffic, splits, config
        self.make = make

    def start(self, publication: Publication, stored: Stored, now: float, number: int | None) -> None:
        """Store a service's record, which was signed just now."""
        nobody = Lookup(PeerId(), key_id(publication.key), (), LookupConfig())
        query = _Announcement(number, nobody, self, publication)
        query.then = lambda _, now: stored(publication, query.holders, now)
        self.traffic.run(query, now)

    def tell_all(self, publication: Publication, provider: Provider, now: float) -> int:
        """Tell all who hold an earlier record at some shard, and forget them; how many."""
        told = 0
        for key, holders in publication.shards.items():
            make = add_provider(key, provider)
            for info in holders.values():
                self.traffic.tell(info, make(self.traffic.next_id()), now)
                told += 1
        publication.shards.clear()
        return told


class _Move(Enum):
    """Why an announcement asks at a depth."""

    START = "it was there last time, or a hint says so"
    SPLIT = "there were too many above"
    MERGE = "there were too few below"
    TOLD = "others publish there"
    LOST = "nobody was below"


class _Tree:
    """One tree of an announcement. moves: that are left. at_root: whether it has been there."""

    __slots__ = ("at_root", "moves", "name", "root")

    def __init__(self, name: str, root: bytes) -> None:
        self.name, self.root = name, root
        self.moves, self.at_root = _MAX_MOVES, False


class _Announcement(Query):
    """One announcement: its trees are its children's. holders: those of the service's leaf."""

    def __init__(
        self, number: int | None, nobody: Lookup, announcer: Announcer, publication: Publication
    ) -> None:
        nobody.stop()
        super().__init__(number, nobody)
        self._announcer, self._publication = announcer, publication
        self.holders: Sequence[PeerInfo] = ()
        self._leaf: ProvideQuery | None = None

    def question(self, id: int) -> FindNode:
        raise AssertionError("an announcement asks nobody itself")

    def begin(self, now: float) -> Sequence[DhtOutput]:
        service = self._publication.service
        assert service is not None
        self._tree("", service_key(service), now)
        return ()

    def result(self) -> QueryDone:
        done = super().result()
        if self._leaf is None:
            return done
        leaf = self._leaf.result()
        return QueryDone(done.query, leaf.closest, stored=leaf.stored, asked=done.asked, failed=done.failed)

    def _tree(self, name: str, root: bytes, now: float) -> None:
        publication = self._publication
        depth = publication.depths.get(name)
        if depth is None:
            known = self._announcer.splits.believed(root, now)
            depth = 0 if known is None else known.depth
        tree = _Tree(name, root)
        if not self._announcer.publisher.has_room(publication, name):
            depth = tree.moves = 0
        self._settle(tree, depth, now)

    def _settle(self, tree: _Tree, depth: int, now: float, move: _Move = _Move.START) -> None:
        """Store at the leaf at a depth, or go on to another. move: why it went there."""
        announcer, publication = self._announcer, self._publication
        publisher, config = announcer.publisher, announcer.config
        key = shard_key(tree.root, depth, prefix(publisher.id, depth))
        there, why = depth, move

        def decide() -> None:
            nonlocal there, why
            counts, told = _told(query, tree.root)
            if not counts and depth and move is not _Move.SPLIT:
                # Nobody is here, not even its own record of last time: the others are one up, or a hint was wrong.
                there = depth - 1 if tree.at_root or move is not _Move.LOST else 0
                tree.at_root = tree.at_root or not there
                why = _Move.LOST
                return
            there = next_depth(
                depth,
                counts,
                told,
                split_above=config.split_above,
                merge_below=config.merge_below,
                may_merge=move is _Move.START,
            )
            if there < depth:
                why = _Move.MERGE
            elif there > depth:
                why = _Move.SPLIT if max(told, default=0) <= depth else _Move.TOLD

        # Where it was last time, or at the root, it very probably stays: it need not wait for what the holders say.
        early = move is _Move.START and (not depth or publication.depths.get(tree.name) == depth)

        def provider() -> Provider | None:
            if tree.moves and not early:
                decide()
            if there != depth or publisher.get(publication.key) is not publication:
                return None
            publisher.place(publication, tree.name, depth, now)
            return publisher.provider(publication)

        def over(_: Query, now: float) -> None:
            if tree.moves and early:
                decide()
            publication.keep(key, query.holders)  # even when it goes on: those were told early
            if there == depth:
                self._settled(tree, key, query, move, now)
                return
            # It came up, but others have stayed: back, and there it stays.
            tree.moves = 0 if move is _Move.MERGE and why is not _Move.MERGE else tree.moves - 1
            self._settle(tree, there, now, why)

        query = announcer.make(self.number, key, provider, now, early)
        query.then = over
        announcer.traffic.run(query, now, self)

    def _settled(self, tree: _Tree, key: bytes, query: ProvideQuery, move: _Move, now: float) -> None:
        name, root = tree.name, tree.root
        publication, publisher = self._publication, self._announcer.publisher
        if publisher.get(publication.key) is not publication:
            return
        depth = publication.depths.get(name, 0)
        if not name:
            self._leaf, self.holders = query, query.holders
            if depth:
                counts, _ = _told(query, root)
                self._announcer.splits.found(root, depth, max(counts, default=0) << depth, now)
                self._attributes(now)
        shards = shards_of(root, publisher.id, depth)[1:]
        if move is _Move.SPLIT and not shards:
            # The first one that goes on to a new leaf leaves word where the others still are.
            shards = [(depth - 1, shard_key(root, depth - 1, prefix(publisher.id, depth - 1)))]
        for _, above in shards:
            upper = self._announcer.make(
                self.number, above, lambda: publisher.provider(publication), now, True
            )
            upper.then = lambda _, now, above=above, upper=upper: publication.keep(above, upper.holders)
            self._announcer.traffic.run(upper, now, self)

    def _attributes(self, now: float) -> None:
        publication = self._publication
        assert publication.service is not None
        for name in indexed(publication.attributes, publication.index):
            value = publication.attributes[name]
            assert isinstance(value, str)
            self._tree(name, attribute_key(publication.service, name, value), now)


def _told(query: ProvideQuery, root: bytes) -> tuple[list[int], list[int]]:
    """What the nearest peers, which hold this shard, say: how many providers there are, and how deep those are."""
    answers = [query.held[info.peer] for info in query.lookup.closest() if info.peer in query.held]
    tree = tree_of(root)
    told = [split.depth for _, split in answers if split is not None and split.tree == tree]
    return [held for held, _ in answers], told
