"""Two ways through a key whose providers are spread over shards (shards.py): a fair sample of them, or all.

*Sample.* Every provider is equally likely to come, whatever the sizes and depths of the leaves. A draw is a leaf that
random bits lead to, so that a provider's leaf is drawn with probability 2^-depth. Of the s providers there, a number
in proportion to s * 2^depth is taken at random: the depth cancels out, and so does s, which stands once here and once
in the chance of each to be among those taken. What s * 2^depth is compared with, 1.5 times the number of providers,
comes from elsewhere, because a leaf compared with itself would look alike at any size: from the hint, or from leaves
drawn before. A leaf half as large again as others is cut there: 1 in 100. The first result is as fair as all of them:
it comes from a leaf that has won a toss in that proportion, and what other leaves gave before waits for it.

*All.* The leaves in random order, whole ones, then the shards above them, where somebody may publish who has not moved
yet. Whoever stops early has seen a fair sample of whole leaves.

Wrong depths cost a step each: an empty shard leads to the one above, providers that say they are deeper lead there; at
most four steps a draw. When the first draws find nothing at all the walk gives up: the hint was wrong.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Final

from .events import DhtOutput
from .keys import peer_key
from .messages import Provider, Split
from .service_query import Heard, ShardQuery
from .service_results import ServiceResults
from .shards import MAX_DEPTH, prefix

SAMPLE_LIMIT: Final = 128
"""Up to so many wanted results are sampled; for more, whole leaves are taken."""

_PARALLEL: Final = 4  # shards asked at a time
_MAX_STEPS: Final = 4
_MAX_LOST: Final = 4  # draws without any result, after which the hint is taken for wrong
_MAX_DRAWS: Final = 64
_MAX_SHARDS: Final = 1_024
_VAIN: Final = 4  # of those who should hold a shard and hold nothing: then it is empty
_MARGIN: Final = 1.5
_MAX_SIZE: Final = 512  # of a leaf that is believed: a holder's own bound


class Walk(ABC):
    """A way through the shards of one root.

    name: the attribute whose root it is, "" for the service's. split: where to begin. start: starts a query for a
    shard, returns False when none may be started any more. finished: called once, with the walk. emit: takes results
    that no answer brought.

    lost: whether it gave up. size: providers that the leaves seen let expect.
    """

    def __init__(
        self,
        name: str,
        split: Split,
        results: ServiceResults,
        rng: Random,
        leaf: tuple[int, int],
        start: Callable[[int, int, Heard, Callable[[ShardQuery, float], None], float], bool],
        finished: Callable[[Walk, float], None],
        emit: Callable[[Sequence[DhtOutput]], None],
    ) -> None:
        self.name, self.depth, self._size = name, min(split.depth, MAX_DEPTH), split.size
        self.lost = False
        self._results, self._rng, self._start, self._finished, self._emit = (
            results,
            rng,
            start,
            finished,
            emit,
        )
        self._smallest, self._largest = leaf
        self._visited: dict[tuple[int, int], None] = {}
        self._sizes: list[int] = []
        self._losses = 0
        self._running = 0
        self._going = self._over = self._told = False

    @property
    def size(self) -> int:
        """About how many providers there are."""
        return sum(self._sizes) // len(self._sizes) if self._sizes else self._size

    def go(self, now: float) -> None:
        """Start what may be started; to be called when the walk begins, and by itself whenever a query ends."""
        if self._going:
            return  # a query ended at once: whoever started it goes on
        self._going = True
        while not self._over and self._running < self._parallel():
            if not self._next(now):
                break
        self._going = False
        if not self._running and not self._told:
            self._over = self._told = True
            if not self.lost:
                self._end(now)
            self._finished(self, now)

    @abstractmethod
    def _next(self, now: float) -> bool:
        """Start one more query; False when there is nothing left."""

    @abstractmethod
    def _parallel(self) -> int:
        """How many queries may run."""

    @abstractmethod
    def _end(self, now: float) -> None:
        """Nothing is left to be asked."""

    def _visit(
        self, level: int, place: int, heard: Heard, ended: Callable[[ShardQuery, float], None], now: float
    ) -> bool:
        """Ask for a shard."""
        self._visited[level, place] = None
        self._running += 1

        def over(query: ShardQuery, now: float) -> None:
            self._running -= 1
            ended(query, now)
            self.go(now)

        if self._start(level, place, heard, over, now):
            return True
        self._running -= 1
        self._over = self._told = True
        return False

    def _lose(self) -> None:
        """A query found nothing."""
        self._losses += 1
        if not self._sizes and self._losses >= _MAX_LOST:
            self.lost = self._over = True

    def _sort(
        self, query: ShardQuery, providers: Sequence[Provider], now: float
    ) -> tuple[list[Provider], list[tuple[int, Provider]]]:
        """Of the new providers in an answer those whose leaf this shard is, and those that say they are deeper."""
        here: list[Provider] = []
        deeper: list[tuple[int, Provider]] = []
        for provider in providers:
            claim = self._results.claim(provider, now)
            if claim is None or prefix(peer_key(provider.peer), query.level) != query.place:
                continue
            depth = claim.depths.get(self.name, 0)
            if claim.withdrawn:
                self._results.take(provider, now)
            elif depth == query.level:
                here.append(provider)
            elif depth > query.level:
                deeper.append((depth, provider))
        return here, deeper

    def _reference(self, level: int) -> float:
        """What the number of providers by a leaf's size is compared with."""
        if len(self._sizes) > 1:
            return _MARGIN * self.size
        # A hint that makes leaves too small or too large for that depth is none.
        return _MARGIN * min(max(self._size, self._smallest << level), self._largest << level)


class _Draw:
    """One draw. point: its random bits. steps: that are left. picked: who was taken. leads: whether results may begin
    with it. done: nothing more comes."""

    __slots__ = ("done", "leads", "picked", "point", "steps")

    def __init__(self, point: int) -> None:
        self.point, self.steps = point, _MAX_STEPS
        self.picked: list[Provider] = []
        self.leads = self.done = False


class Sample(Walk):
    """Draws until as many are found as are wanted. share: of a leaf of the largest size, how many are taken."""

    share = 1
    _draws = 0

    def begin(self, now: float) -> None:
        """Start."""
        # A condition beyond this tree's is met by some of a leaf only: then all of the leaf are looked at.
        rest = sum(name != self.name for name in self._results.where)
        self.share = _MAX_SIZE if rest else max(1, min(16, -(-self._results.wanted // 3)))
        self._left: list[Provider] = []
        self._later: list[Provider] = []
        self._order: deque[_Draw] = deque()
        self._led = False
        self.go(now)

    def _parallel(self) -> int:
        """So many that they suffice, if two of three leaves give their share."""
        wanted = self._results.wanted - sum(len(draw.picked) for draw in self._order) - len(self._later)
        return min(_PARALLEL, -(-max(0, wanted) * 3 // (2 * self.share)))

    def _next(self, now: float) -> bool:
        if self._draws >= _MAX_DRAWS:
            return False
        for _ in range(8):
            point = self._rng.getrandbits(MAX_DEPTH)
            if (self.depth, point >> (MAX_DEPTH - self.depth)) not in self._visited:
                draw = _Draw(point)
                self._order.append(draw)
                self._draws += 1
                return self._step(draw, self.depth, now)
        return False

    def _step(self, draw: _Draw, level: int, now: float) -> bool:
        """Ask for the shard at a level that a draw leads to."""
        hit: list[int] = []  # the level to go on at, once something was found
        whole = self.share == _MAX_SIZE

        def heard(
            query: ShardQuery, providers: Sequence[Provider], held: int, now: float
        ) -> Sequence[DhtOutput]:
            if not providers and not hit and query.vain >= _VAIN:
                query.lookup.stop()
            if not providers or (hit and not whole):
                return ()
            here, deeper = self._sort(query, providers, now)
            if not here and not deeper:
                return ()
            further = [depth for depth, _ in deeper]
            if not hit:
                hit.append(sorted(further)[len(further) // 2] if 4 * len(deeper) > len(here) else level)
            if whole:  # all holders are heard: a single one may not have what is rare
                return self._take(here, now)
            query.lookup.stop()
            self._pick(draw, level, here, len(here) + len(deeper), held)
            return ()

        def ended(query: ShardQuery, now: float) -> None:
            if not hit:
                self._lose()
            elif hit[0] == level:
                # Better begin too high, where an answer leads on, than too deep, where nobody answers.
                self.depth = min(level, self.depth) if level < self.depth + 2 else level
            there = hit[0] if hit else level - 1
            place = draw.point >> (MAX_DEPTH - there) if there > 0 else 0
            further = there != level and there > 0 and (there, place) not in self._visited
            if further and draw.steps and not self._over and self._results.wanted > 0:
                draw.steps -= 1
                self._step(draw, there, now)
            else:
                draw.done = True
                self._commit(now)

        return self._visit(level, draw.point >> (MAX_DEPTH - level), heard, ended, now)

    def _pick(self, draw: _Draw, level: int, here: list[Provider], told: int, held: int) -> None:
        """Take the share of a leaf that its size gives it."""
        if not here:
            return
        size = min(max(len(here), held * len(here) // told), _MAX_SIZE)
        weight = min(1.0, (size << level) / self._reference(level))
        self._sizes.append(size << level)
        draw.leads = draw.leads or self._rng.random() < weight
        quota = draw.leads + int((self.share - 1) * weight + self._rng.random())
        self._rng.shuffle(here)
        draw.picked += here[:quota]
        self._left += here[quota:][: _MAX_SHARDS - len(self._left)]

    def _commit(self, now: float) -> None:
        """Hand out what draws brought, in the order in which they began: leaves that take longer to be found would
        come too late else, when enough is found."""
        while self._order and self._order[0].done:
            draw = self._order.popleft()
            if draw.leads or self._led:
                self._led = True
                self._emit(self._take([*draw.picked, *self._later], now))
                self._later.clear()
            else:
                self._later += draw.picked

    def _take(self, providers: Sequence[Provider], now: float) -> list[DhtOutput]:
        outputs: list[DhtOutput] = []
        for provider in providers:
            if self._results.wanted > 0 and self._results.claim(provider, now) is not None:
                outputs += self._results.take(provider, now)
        return outputs

    def _end(self, now: float) -> None:
        """All leaves, or very many, were drawn: those who were passed over come now."""
        self._rng.shuffle(self._left)
        picked = [provider for draw in self._order for provider in draw.picked]
        self._emit(self._take([*picked, *self._later, *self._left], now))


class All(Walk):
    """Every shard, from the leaves up."""

    def begin(self, now: float) -> None:
        """Start."""
        self._queue: dict[tuple[int, int], None] = {}
        self._above: dict[bytes, Provider] = {}
        self._order = self._shards()
        self.go(now)

    def _parallel(self) -> int:
        return _PARALLEL if self._results.wanted > 0 else 0

    def _end(self, now: float) -> None:
        """Those who were met above their leaf, and not there: they may have moved meanwhile."""
        for provider in self._above.values():
            if self._results.wanted > 0 and self._results.claim(provider, now) is not None:
                self._emit(self._results.take(provider, now))

    def _shards(self) -> Iterator[tuple[int, int]]:
        """All from the depth up to the root, each level in random order."""
        for level in range(self.depth, -1, -1):
            count = 1 << level
            first, step = self._rng.randrange(count), self._rng.randrange(count) | 1
            for number in range(count):
                yield level, (first + number * step) & (count - 1)

    def _next(self, now: float) -> bool:
        if len(self._visited) >= _MAX_SHARDS:
            return False
        while self._queue:
            shard = next(iter(self._queue))
            del self._queue[shard]
            if shard not in self._visited:
                return self._ask(*shard, now)
        for shard in self._order:
            if shard not in self._visited:
                return self._ask(*shard, now)
        return False

    def _ask(self, level: int, place: int, now: float) -> bool:
        seen: dict[bytes, None] = {}

        def heard(
            query: ShardQuery, providers: Sequence[Provider], held: int, now: float
        ) -> Sequence[DhtOutput]:
            if not providers:
                return ()
            here, deeper = self._sort(query, providers, now)
            seen.update((provider.peer, None) for provider in providers)
            outputs: list[DhtOutput] = []
            for provider in here:
                if self._results.wanted > 0:
                    outputs += self._results.take(provider, now)
            for _, provider in deeper:
                if len(self._above) < _MAX_SHARDS:
                    self._above[provider.peer] = provider
            if deeper and level >= self.depth and len(self._queue) < _MAX_SHARDS:
                # Both halves: those whom the answer shows are a few of those below.
                self._queue[level + 1, 2 * place] = None
                self._queue[level + 1, 2 * place + 1] = None
            return outputs

        def ended(query: ShardQuery, now: float) -> None:
            if seen:
                self._sizes.append(len(seen) << level)
                return
            if len(self._visited) < 1 << self.depth:
                self._lose()
            if level > 1:
                self._queue[level - 1, place >> 1] = None
            if (
                level == self.depth < MAX_DEPTH
            ):  # perhaps all below are among those that do not publish above their leaf
                self._queue[level + 1, 2 * place] = None
                self._queue[level + 1, 2 * place + 1] = None

        return self._visit(level, place, heard, ended, now)
