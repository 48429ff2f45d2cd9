"""DHT queries as seen by async callers: numbers them, and turns their outputs into results."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Generic, TypeVar

import trio
from multiaddr.multiaddr import Multiaddr

from .dht.events import (
    Cancel,
    DhtCommand,
    ProvideProgress,
    ProviderFound,
    QueryDone,
    QueryOutput,
    ServiceFound,
)
from .engine import PeerInfo
from .errors import PeerClosed
from .identity import PeerId

_MAX_WAITING: Final = 10_000  # results that a slow caller may leave unread; further ones are dropped

Found = ProviderFound | ServiceFound | ProvideProgress
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class RemotePeer:
    """Another peer. addresses: multiaddrs ending in /p2p/<id>, as `Peer.connect` takes them; may be empty."""

    id: PeerId
    addresses: tuple[Multiaddr, ...]


@dataclass(frozen=True, slots=True)
class KnownPeer(RemotePeer):
    """An entry of the own routing table.

    bucket: leading bits that its id shares with the own. added, seen: seconds as `Peer.now`; seen is its last
    answer. failures: requests failed since.
    """

    bucket: int
    added: float
    seen: float
    failures: int

    @property
    def peer(self) -> PeerId:
        """The same as id."""
        return self.id


def with_peer(address: bytes, peer: PeerId) -> Multiaddr:
    """A transport address with /p2p/<id> behind it."""
    return Multiaddr(address).encapsulate(_suffix(peer))


@lru_cache(maxsize=1024)
def _suffix(peer: PeerId) -> Multiaddr:
    """/p2p/<id>, for all of a peer's addresses: writing and parsing base58 was a twentieth of a find."""
    return Multiaddr(f"/p2p/{peer}")


def remote_peer(info: PeerInfo) -> RemotePeer:
    """The engine's PeerInfo as callers see it; addresses that cannot be parsed are left out."""
    addresses: list[Multiaddr] = []
    for raw in info.addresses:
        try:
            address = with_peer(raw, info.peer)
            str(address)  # parsed lazily: a peer's nonsense shows here, not in the caller's hands
        except ValueError:
            continue
        addresses.append(address)
    return RemotePeer(info.peer, tuple(addresses))


class _Query:
    __slots__ = ("closed", "done", "found", "news")

    def __init__(self) -> None:
        self.found: deque[Found] = deque()
        self.done: QueryDone | None = None
        self.closed = False
        self.news = trio.Event()


class Queries:
    """The queries under way on one peer. A caller that goes away cancels its query and its traffic."""

    def __init__(self, post: Callable[[DhtCommand], None]) -> None:
        self._post = post
        self._next = 1
        self._running: dict[int, _Query] = {}
        self._closed = False

    def handle(self, output: QueryOutput) -> None:
        """Hand an output to whoever waits for it."""
        query = self._running.get(output.query)
        if query is None:
            return
        if isinstance(output, QueryDone):
            query.done = output
            del self._running[output.query]
        elif len(query.found) < _MAX_WAITING:
            query.found.append(output)
        query.news.set()

    @property
    def closed(self) -> bool:
        """Whether the peer was closed."""
        return self._closed

    def check_open(self) -> None:
        """Raise PeerClosed when the peer was closed."""
        if self._closed:
            raise PeerClosed("this peer is closed; open a new one with open_peer()")

    def close(self) -> None:
        """Wake every caller with PeerClosed."""
        self._closed = True
        for query in self._running.values():
            query.closed = True
            query.news.set()
        self._running.clear()

    def start(self, make: Callable[[int], DhtCommand]) -> tuple[int, _Query]:
        """Post the command that `make` returns for a fresh number."""
        self.check_open()
        number, query = self._next, _Query()
        self._next += 1
        self._running[number] = query
        self._post(make(number))
        return number, query

    def tell(self, command: DhtCommand) -> None:
        """Post a command that has no answer."""
        self.check_open()
        self._post(command)

    def cancel(self, number: int) -> None:
        """Stop a query's traffic, if it is still under way."""
        if self._running.pop(number, None) is not None:
            self._post(Cancel(number))

    async def run(
        self, make: Callable[[int], DhtCommand], on_found: Callable[[Found], None] | None = None
    ) -> QueryDone:
        """Run a query to its end; raises PeerClosed when the peer closes meanwhile. on_found: called with what it
        finds until then."""
        number, query = self.start(make)
        try:
            while query.done is None:
                if query.closed:
                    raise PeerClosed(
                        "the peer was closed while the query was under way; nothing further happens"
                    )
                await query.news.wait()
                query.news = trio.Event()
                while query.found:
                    found = query.found.popleft()
                    if on_found is not None:
                        on_found(found)
            return query.done
        finally:
            self.cancel(number)


class Results(AsyncIterator[Item], Generic[Item]):
    """An async iterator over what a query finds, each item as soon as it is known.

    Leaving the loop early, closing or dropping it ends the query and its traffic. It may also be used with
    `async with`.
    """

    def __init__(
        self, queries: Queries, make: Callable[[int], DhtCommand], convert: Callable[[Found], Item]
    ) -> None:
        self._queries, self._convert = queries, convert
        self._make = make
        self._number: int | None = None
        self._query: _Query | None = None

    def __aiter__(self) -> Results[Item]:
        return self

    async def __anext__(self) -> Item:
        if self._query is None:
            self._number, self._query = self._queries.start(self._make)
        query = self._query
        while not query.found:
            if query.done is not None:
                raise StopAsyncIteration
            if query.closed:
                raise PeerClosed("the peer was closed while the query was under way; nothing further happens")
            query.news = trio.Event()
            await query.news.wait()
        await trio.lowlevel.checkpoint()
        return self._convert(query.found.popleft())

    def close(self) -> None:
        """End the query; what was found and not read yet is dropped."""
        if self._number is not None:
            self._queries.cancel(self._number)
        if self._query is not None:
            self._query.found.clear()
            self._query.done = self._query.done or QueryDone(self._number or 0)

    async def aclose(self) -> None:
        """The same as close, so that `contextlib.aclosing` works."""
        self.close()

    async def __aenter__(self) -> Results[Item]:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._number is not None:
            self._queries.cancel(self._number)
