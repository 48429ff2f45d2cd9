"""Finding a service, however large it is: which key to ask, and what to make of the answers.

    known to be split? --no--> the service's own key: all its providers, in one lookup  (nearly every service)
          |                          | its providers say that they publish deeper
          yes <----------------------'
          |
          |- `where` has texts: their keys are asked how many they are; the smallest is followed, then forgotten
          '- the service's shards: a sample, or all (service_walks.py)

Providers announce under the keys of their attributes only once their service is split, and those of earlier versions
never do: so the search goes on at the service's own shards when fewer than wanted were found. Without a limit it would
have to go through all of them: then it asks the service's root only, where those of earlier versions are.

A record met above its leaf is set aside: those few who publish at the root would come in every find. It counts when
nothing else is found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from .config import DhtConfig
from .events import DhtOutput, QueryDone
from .lookup import Lookup
from .messages import GetProviders, Provider, Split
from .queries import Query
from .service_query import Heard, ShardQuery
from .service_results import ServiceResults
from .service_walks import SAMPLE_LIMIT, All, Sample, Walk
from .shards import INDEXED_BYTES, attribute_key, shard_key
from .splits import Splits, tree_of

_MAX_TREES: Final = 4  # conditions whose keys are asked
_SPLIT_VOICES: Final = 4  # providers at a root that must say that they publish deeper
_MAX_TRIES: Final = 2  # hints that may turn out wrong in one find


@dataclass(frozen=True, slots=True)
class SearchTools:
    """What a search needs of its engine.

    find: a lookup for what is stored under a key. run: starts a query for the search. finish: ends one with what it
    has. local: providers of a key that this peer knows of itself. near: how far the holders of a key are from
    it at most, about. emit: hands out results.
    """

    find: Callable[[bytes], Lookup]
    run: Callable[[Query, float, Query], None]
    finish: Callable[[Query, float], None]
    local: Callable[[bytes, float], Sequence[Provider]]
    near: Callable[[], int]
    emit: Callable[[Sequence[DhtOutput]], None]
    splits: Splits
    rng: Random
    config: DhtConfig


class ServiceSearch(Query):
    """One find. root: the service's key. nobody: a lookup without a start; all is asked by children."""

    def __init__(
        self, nobody: Lookup, root: bytes, results: ServiceResults, tools: SearchTools, limit: int
    ) -> None:
        nobody.stop()
        super().__init__(results.number, nobody)
        self._root, self._results, self._tools = root, results, tools
        self._sampled = 0 < limit <= SAMPLE_LIMIT
        self._unlimited = not limit
        self._aside: dict[bytes, tuple[int, Provider]] = {}
        self._probes: dict[str, ShardQuery] = {}
        self._choices: dict[str, Split] = {}
        self._tries = 0
        self._followed = self._root_asked = False
        self._told: ShardQuery | None = None  # whose nearest peers are those of the result

    @property
    def satisfied(self) -> bool:
        return self._results.wanted <= 0

    def question(self, id: int) -> GetProviders:
        raise AssertionError("a search asks nobody itself")

    def begin(self, now: float) -> Sequence[DhtOutput]:
        split = self._tools.splits.believed(self._root, now)
        if split is None or not split.depth:
            self._ask_root(now)
        else:
            self._follow(split, now)
        return ()

    def result(self) -> QueryDone:
        done = super().result()
        told, self._told = (
            self._told,
            None,
        )  # which knows this search: together they would be garbage in a cycle
        closest = () if told is None else told.lookup.closest()
        return QueryDone(done.query, closest, asked=done.asked, failed=done.failed)

    # The root -----------------------------------------------------------------------------------------------

    def _ask_root(self, now: float) -> None:
        self._root_asked = True
        self._ask(self._root, 0, 0, self._at_root, lambda query, now: self._root_done(now), now)

    def _at_root(
        self, query: ShardQuery, providers: Sequence[Provider], held: int, now: float
    ) -> Sequence[DhtOutput]:
        outputs: list[DhtOutput] = []
        results = self._results
        for provider in self._shuffled(providers):
            claim = results.claim(provider, now)
            if claim is None or results.wanted <= 0:
                continue
            depth = claim.depths.get("", 0)
            if depth and not claim.withdrawn:
                if len(self._aside) < self._tools.config.max_found:
                    self._aside[provider.peer] = depth, provider
            else:
                outputs += results.take(provider, now)
        split = self._discovered(len(results), now)
        if split is not None and not self._followed and self._tries < _MAX_TRIES:
            if self._sampled:
                query.lookup.stop()
            self._follow(split, now)
        return outputs

    def _shuffled(self, providers: Sequence[Provider]) -> Sequence[Provider]:
        """When some are wanted: in random order. Holders have their own order, and would always name the same first."""
        return self._tools.rng.sample(providers, len(providers)) if self._sampled else providers

    def _discovered(self, others: int, now: float) -> Split | None:
        """Whether the root is that of a split service: by what most of the providers there say, or what two peers on
        the way have said."""
        if len(self._aside) >= max(_SPLIT_VOICES, others):
            return self._guess_from_aside()
        split = self._tools.splits.believed(self._root, now)
        return split if split is not None and split.depth else None

    def _root_done(self, now: float) -> None:
        if not self._followed:
            self._empty_aside(now)

    def _empty_aside(self, now: float) -> None:
        """There is nothing better than those who publish at the root too."""
        for _, provider in self._aside.values():
            if self._results.wanted > 0 and self._results.claim(provider, now) is not None:
                self._tools.emit(self._results.take(provider, now))

    # Which key ----------------------------------------------------------------------------------------------

    def _follow(self, split: Split, now: float) -> None:
        """The service is split: choose the key to follow."""
        self._followed = True
        self._tries += 1
        self._choices = {"": split}
        keys = {
            name: attribute_key(self._results.service, name, value)
            for name, value in list(self._results.where.items())
            if isinstance(value, str) and len(value.encode()) <= INDEXED_BYTES
        }
        if self._tries > 1:
            keys = {}
        for name in list(keys)[:_MAX_TREES]:
            known = self._tools.splits.believed(keys[name], now)
            if known is not None and known.depth:
                self._choices[name] = known
            else:
                self._probe(name, keys[name], now)
        if not self._probes:
            self._choose(now)

    def _probe(self, name: str, key: bytes, now: float) -> None:
        """Ask at an attribute's root how many it has; when it is not split, that is the answer already."""
        depths: list[int] = []
        members: dict[bytes, None] = {}

        def heard(
            query: ShardQuery, providers: Sequence[Provider], held: int, now: float
        ) -> Sequence[DhtOutput]:
            outputs: list[DhtOutput] = []
            for provider in self._shuffled(providers):
                claim = self._results.claim(provider, now)
                if claim is None:
                    continue
                depth = claim.depths.get(name, 0)
                if depth and not claim.withdrawn:
                    depths.append(depth)
                elif self._results.wanted > 0:
                    members[provider.peer] = None
                    outputs += self._results.take(provider, now)
            if len(depths) > len(members):
                self._choices[name] = self._guess(key, sorted(depths)[len(depths) // 2])
                query.lookup.stop()
            elif members:
                self._choices[name] = Split(tree_of(key), 0, max(held, len(members)))
                for other, probe in list(self._probes.items()):
                    if other != name:
                        self._tools.finish(probe, now)
            return outputs

        def ended(query: ShardQuery, now: float) -> None:
            del self._probes[name]
            if not self._probes:
                self._choose(now)

        probe = self._shard_query(key, 0, 0, heard, ended, now)
        self._probes[name] = probe
        self._tools.run(probe, now, self)

    def _choose(self, now: float) -> None:
        """All that can be known is known: follow the smallest."""
        if self._results.wanted <= 0:
            return
        name = min(self._choices, key=lambda name: (self._choices[name].size, name))
        split = self._choices.pop(name)
        if split.depth:
            self._walk(name, split, now)
        else:
            self._rest(now)  # its one key was asked already

    def _walk(self, name: str, split: Split, now: float) -> None:
        results, tools = self._results, self._tools
        root = self._root_of(name)
        leaf = tools.config.merge_below, tools.config.split_above

        def start(
            level: int, place: int, heard: Heard, ended: Callable[[ShardQuery, float], None], now: float
        ) -> bool:
            if self.closed or self.overdue or results.wanted <= 0:
                return False

            def ended_here(query: ShardQuery, now: float) -> None:
                ended(query, now)
                if self.satisfied:  # the walk is not heard of any more
                    tools.splits.found(root, walk.depth, walk.size, now)

            self._ask(shard_key(root, level, place), level, place, heard, ended_here, now)
            return True

        make = Sample if self._sampled else All
        walk = make(name, split, results, tools.rng, leaf, start, self._walked, tools.emit)
        walk.begin(now)

    def _walked(self, walk: Walk, now: float) -> None:
        """A walk is over."""
        results, tools = self._results, self._tools
        root = self._root_of(walk.name)
        if walk.lost:
            tools.splits.wrong(root)
            self._followed = False
        else:
            tools.splits.found(root, walk.depth, walk.size, now)
        if results.wanted <= 0 or self.overdue:
            return
        if walk.name:
            self._rest(now)
        elif walk.lost and not self._root_asked:
            self._ask_root(now)
        elif walk.lost and self._tries < _MAX_TRIES and self._aside:
            self._follow(self._guess_from_aside(), now)
        elif self._sampled and not self._root_asked:
            self._followed = True
            self._ask_root_for_the_rest(now)
        else:
            self._empty_aside(now)

    def _rest(self, now: float) -> None:
        """An attribute's key had fewer than wanted."""
        if self._results.wanted <= 0:
            return
        service = self._choices.get("")
        if service is None or (self._unlimited and len(self._results)):
            if not self._root_asked:
                self._ask_root_for_the_rest(now)
            return
        self._walk("", service, now)

    def _ask_root_for_the_rest(self, now: float) -> None:
        self._root_asked = True
        self._tries = _MAX_TRIES
        self._ask(self._root, 0, 0, self._at_root, lambda query, now: self._empty_aside(now), now)

    # Queries ------------------------------------------------------------------------------------------------

    def _guess(self, root: bytes, depth: int) -> Split:
        """A split of which only the depth is known: leaves are between half full and full."""
        return Split(tree_of(root), depth, (self._tools.config.split_above * 3 // 4) << depth)

    def _guess_from_aside(self) -> Split:
        """The service's split, by what the providers at its root say."""
        depths = sorted(depth for depth, _ in self._aside.values())
        return self._guess(self._root, depths[len(depths) // 2])

    def _root_of(self, name: str) -> bytes:
        """The root key of an attribute that is looked for, or of the service itself for ""."""
        if not name:
            return self._root
        return attribute_key(self._results.service, name, str(self._results.where[name]))

    def _ask(
        self,
        key: bytes,
        level: int,
        place: int,
        heard: Heard,
        ended: Callable[[ShardQuery, float], None],
        now: float,
    ) -> None:
        self._tools.run(self._shard_query(key, level, place, heard, ended, now), now, self)

    def _shard_query(
        self,
        key: bytes,
        level: int,
        place: int,
        heard: Heard,
        ended: Callable[[ShardQuery, float], None],
        now: float,
    ) -> ShardQuery:
        tools = self._tools
        query = ShardQuery(
            tools.find(key), key, level, place, self._results, tools.local(key, now), heard, tools.near()
        )

        def then(query: Query, now: float) -> None:
            assert isinstance(query, ShardQuery)
            ended(query, now)

        query.then = then
        if self._told is None:
            self._told = query
        return query
