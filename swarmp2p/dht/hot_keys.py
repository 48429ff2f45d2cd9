"""Hot services: a peer that is asked again and again for one that it holds nothing of looks itself, and answers.

    asked 8 times in 10 s for a key ---> one lookup of its own ---> answers from its result for 30 s

So what many look for is cached along the paths of those who look (Kademlia §2.3 has finders push it there; here the
cache pulls it, so that nobody can hand a peer something to keep). The hotter a key, the farther from its holders it is
cached: what they are asked is bounded by how many neighbours they have, not by how many look for it.

Only what a holder itself says is cached, never another cache's answer: nothing grows older than 30 s. Only signed
records that were verified here are passed on, so a liar gains nothing. Services that are split over shards are
left to those (splits.py): answers from a cache would spoil finders' fair samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ..engine import Reply
from ..errors import BadMessage
from ..identity import PeerId
from .events import DhtOutput
from .keys import service_key
from .lookup import Lookup
from .messages import FoundProviders, GetProviders, Provider
from .queries import Query
from .records import RecordReader, read_claim

_WINDOW_S: Final = 10.0
_LIFE_S: Final = 30.0
_MAX_KEYS: Final = 256  # the one asked for longest ago is forgotten beyond
_PULL_EVERY_S: Final = 1.0  # a lookup of our own at most, so that others cannot have us make many
_NOTHING: Final[tuple[Provider, ...]] = ()


class _Key:
    """A key that others ask for. asked: requests since `since`. providers: what was found, good until `until`; before
    then nothing is looked for again."""

    __slots__ = ("asked", "providers", "since", "until")

    def __init__(self, now: float) -> None:
        self.asked, self.since = 0, now
        self.providers = _NOTHING
        self.until = 0.0


class HotKeys:
    """What this peer caches of services that it does not hold.

    hot_after: requests in ten seconds that make a key hot; 0 for never. find: makes a lookup. run: starts a query.
    """

    def __init__(
        self,
        reader: RecordReader,
        clock_error_s: float,
        hot_after: int,
        find: Callable[[bytes], Lookup],
        run: Callable[[Query, float], None],
    ) -> None:
        self._reader, self._clock_error_s, self._hot_after = reader, clock_error_s, hot_after
        self._find, self._run = find, run
        self._keys: dict[bytes, _Key] = {}
        self._pulled = -_PULL_EVERY_S

    def asked(self, key: bytes, now: float) -> Sequence[Provider]:
        """Somebody asks for the providers of a key that is not held here: those that are cached."""
        if not self._hot_after:
            return _NOTHING
        known = self._keys.pop(key, None)
        if known is None:
            if len(self._keys) >= _MAX_KEYS:
                del self._keys[next(iter(self._keys))]
            known = _Key(now)
        self._keys[key] = known
        if now - known.since > _WINDOW_S:
            known.asked, known.since = 0, now
        known.asked += 1
        if now < known.until:
            return known.providers
        known.providers = _NOTHING
        if known.asked >= self._hot_after and now - self._pulled >= _PULL_EVERY_S:
            self._pull(key, known, now)
        return _NOTHING

    def _pull(self, key: bytes, known: _Key, now: float) -> None:
        known.until = now + _LIFE_S
        self._pulled = now
        pull = _Pull(self._find(key), key)

        def over(query: Query, now: float) -> None:
            known.providers, known.until = self._genuine(key, pull.heard, now), now + _LIFE_S

        pull.then = over
        self._run(pull, now)

    def _genuine(self, key: bytes, providers: Sequence[Provider], now: float) -> tuple[Provider, ...]:
        """Those with a genuine record of this very service; none where it is split."""
        found: list[Provider] = []
        for provider in providers:
            try:
                claim = read_claim(provider.record)
                if service_key(claim.service) != key or not claim.is_valid(now, self._clock_error_s):
                    continue
                if self._reader.open(provider.peer, provider.record).depths:
                    return _NOTHING
            except BadMessage:
                continue
            found.append(provider)
        return tuple(found)


class _Pull(Query):
    """Asks for the providers of a key until one holder has named some. heard: those."""

    def __init__(self, lookup: Lookup, key: bytes) -> None:
        super().__init__(None, lookup)
        self._key = key
        self.heard: Sequence[Provider] = ()

    def question(self, id: int) -> GetProviders:
        return GetProviders(id, self._key)

    def answered(self, peer: PeerId, reply: Reply, now: float) -> Sequence[DhtOutput]:
        assert isinstance(reply, FoundProviders)
        if reply.held and reply.providers:
            self.heard = reply.providers
            self.lookup.stop()
        return ()
