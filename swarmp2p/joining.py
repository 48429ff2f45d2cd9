"""Entering a swarm: whom to ask first, whom next, and what to say when nobody answers.

    bootstrap peers ----- dialled all at once; the first that answers is enough to begin
       none within 2 s -- peers remembered from earlier runs are asked too, those seen last first
       none at all ------ BootstrapError, unless a remembered peer answered
    no bootstrap peers -- the remembered ones; when none of them answers within 5 s, the peer starts alone

Those that did not answer are dialled on in the background, and the DHT asks them again with each refresh (every 15 s
while it knows nobody).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio
from multiaddr.multiaddr import Multiaddr

from .dht.events import Join, QueryDone
from .engine import Address, PeerInfo
from .errors import BootstrapError, DialError
from .identity import PeerId
from .transport.addresses import split_address

_REMEMBERED_AFTER_S: Final = 2.0
_ALONE_AFTER_S: Final = 5.0
_DIALS: Final = 16  # bootstrap peers dialled at a time
_ROUND: Final = 32  # remembered peers asked at a time; as many as the DHT asks again with each refresh
_MAX_ROUNDS: Final = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Targets:
    """Whom a peer may join through.

    bootstrap: by peer, each once, without the own. remembered: those seen last first. source: where those stand, for
    messages.
    """

    bootstrap: tuple[PeerInfo, ...] = ()
    remembered: tuple[PeerInfo, ...] = ()
    source: str = ""

    @classmethod
    def of(
        cls,
        own: PeerId,
        bootstrap: Sequence[Multiaddr | str],
        remembered: Sequence[PeerInfo] = (),
        source: str = "",
    ) -> Targets:
        """Addresses of one peer become one target; raises AddressError."""
        found: dict[PeerId, list[Address]] = {}
        for address in bootstrap:
            peer, transport = split_address(address)
            addresses = found.setdefault(peer, [])
            if transport not in addresses:
                addresses.append(transport)
        found.pop(own, None)
        infos = tuple(PeerInfo(peer, tuple(addresses)) for peer, addresses in found.items())
        others = tuple(info for info in remembered if info.peer != own and info.peer not in found)
        return cls(infos, others, source)


class Joining:
    """One peer's way into its swarm.

    dial: connects; raises DialError. run: runs a Join to its end. nursery: for dials that go on afterwards.
    """

    def __init__(
        self,
        targets: Targets,
        dial: Callable[[PeerId, Sequence[Address]], Awaitable[None]],
        run: Callable[[Callable[[int], Join]], Awaitable[QueryDone]],
        nursery: trio.Nursery,
    ) -> None:
        self._targets, self._dial, self._run, self._nursery = targets, dial, run, nursery
        self._reached: dict[PeerId, PeerInfo] = {}
        self._problems: dict[PeerId, DialError] = {}
        self._news = trio.Event()
        self._slots = trio.CapacityLimiter(_DIALS)

    async def join(self) -> None:
        """Join. Raises the one bootstrap peer's DialError, or BootstrapError for several or for more than these."""
        targets = self._targets
        if not targets.bootstrap:
            if targets.remembered:
                with trio.move_on_after(_ALONE_AFTER_S):
                    await self._ask_remembered()
            return
        for info in targets.bootstrap:
            self._nursery.start_soon(self._try, info)
        with trio.move_on_after(_REMEMBERED_AFTER_S if targets.remembered else float("inf")):
            await self._settled()
        if not self._reached and targets.remembered and await self._ask_remembered():
            return  # what bootstrap peers answer later is heard of by their connections
        await self._settled()
        if not self._reached:
            raise self._error()
        await self._ask(tuple(self._reached.values()))

    async def _try(self, info: PeerInfo) -> None:
        async with self._slots:
            try:
                await self._dial(info.peer, info.addresses)
                self._reached[info.peer] = info
            except DialError as problem:
                self._problems[info.peer] = problem
                if len(self._targets.bootstrap) > 1:
                    _log.warning("a bootstrap peer cannot be used for now: %s", problem)
        self._news.set()

    async def _settled(self) -> None:
        """Until a bootstrap peer answered, or none is left that may."""
        while not self._reached and len(self._problems) < len(self._targets.bootstrap):
            await self._news.wait()
            self._news = trio.Event()

    async def _ask_remembered(self) -> bool:
        """Whether a remembered peer answered."""
        remembered = self._targets.remembered
        for start in range(0, min(len(remembered), _ROUND * _MAX_ROUNDS), _ROUND):
            if await self._ask(remembered[start : start + _ROUND]):
                return True
        return False

    async def _ask(self, peers: tuple[PeerInfo, ...]) -> bool:
        asked = {info.peer for info in peers}
        later = tuple(info for info in self._targets.bootstrap if info.peer not in asked)
        done = await self._run(lambda query: Join(query, peers, later))
        return bool(done.closest)

    def _error(self) -> DialError:
        targets, problems = self._targets, self._problems
        told = "; ".join(f"{_text(info)}: {problems[info.peer].problem}" for info in targets.bootstrap)
        remedy = "check that one of these peers runs and that its address is right. This peer was not started"
        if targets.remembered:
            tried = min(len(targets.remembered), _ROUND * _MAX_ROUNDS)
            told += f"; nor did any of {tried} peers answer that {targets.source} remembers"
        elif len(problems) == 1:
            return next(iter(problems.values()))
        return BootstrapError("a bootstrap peer", told, remedy)


def _text(info: PeerInfo) -> str:
    return " or ".join(f"{Multiaddr(address)}/p2p/{info.peer}" for address in info.addresses)
