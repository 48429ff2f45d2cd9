"""Choosing and probing providers, as callers of a peer do it: waits for what the load board is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Final

import trio

from .errors import PeerClosed, UsageError
from .gossip.balancer import ADAPTIVE, ANYWHERE, Choice, Placement, Rule, Wanted, after_probes, choose
from .gossip.load import AskLoads, LoadEntry, LoadTable, LoadTold
from .gossip.load_probing import MAX_PROBED
from .identity import PeerId

MAX_PROBES: Final = 16
"""Providers probed for one choice: beyond a few, probes tell nothing that the ranking did not."""


class _Query:
    __slots__ = ("done", "left", "told")

    def __init__(self, left: int) -> None:
        self.left = left
        self.told: dict[PeerId, LoadTold] = {}
        self.done = trio.Event()


class Choosing:
    """What `Peer` has of the balancer. check_open: raises when the peer is closed. post: to the engine. loads: its
    table."""

    def __init__(
        self, check_open: Callable[[], None], post: Callable[[AskLoads], None], loads: LoadTable
    ) -> None:
        self._check_open, self._post, self._loads = check_open, post, loads
        self._rng = Random(os.urandom(16))
        self._queries: dict[int, _Query] = {}
        self._next = 1
        self._closed = False

    def output(self, output: LoadTold) -> None:
        """Hand an answer to whoever waits for it."""
        query = self._queries.get(output.query)
        if query is not None:
            query.told[output.provider] = output
            if len(query.told) >= query.left:
                query.done.set()

    def close(self) -> None:
        """Wake every caller with PeerClosed."""
        self._closed = True
        for query in self._queries.values():
            query.done.set()

    async def probe(self, providers: Iterable[PeerId], timeout_s: float) -> dict[PeerId, LoadTold]:
        """Ask each, at once; takes at most `timeout_s` seconds. Raises PeerClosed, and UsageError for too many."""
        asked = tuple(dict.fromkeys(providers))
        if len(asked) > MAX_PROBED:
            raise UsageError(
                f"at most {MAX_PROBED} providers are probed at once, not {len(asked)}: name the best few"
            )
        self._check_open()
        if not asked:
            await trio.lowlevel.checkpoint()
            return {}
        number, query = self._next, _Query(len(asked))
        self._next += 1
        self._queries[number] = query
        try:
            self._post(AskLoads(number, asked, timeout_s))
            await query.done.wait()
        finally:
            del self._queries[number]
        if self._closed:
            raise PeerClosed("the peer was closed while providers were probed; nothing was changed")
        return query.told

    async def choose(
        self,
        entries: Iterable[LoadEntry],
        need: Wanted,
        now: Callable[[], float],
        outstanding: Mapping[PeerId, int] | None = None,
        rule: Rule = ADAPTIVE,
        placement: Placement = ANYWHERE,
        probes: int = 0,
        timeout_s: float = 0.25,
        probed: Callable[[PeerId], bool] = lambda _: True,
    ) -> list[Choice]:
        """choose() over these entries, and the ranking after the best few were probed. probed: who may be one of
        them."""
        ranked = choose(entries, need, now(), self._rng, outstanding, rule, placement)
        best = [choice.provider for choice in ranked if probed(choice.provider)][:probes]
        if len(ranked) < 2 or not best:
            await trio.lowlevel.checkpoint()
            return ranked
        told = await self.probe(best, timeout_s)
        signals = {provider: each.signal for provider, each in told.items() if each.signal is not None}
        silent = [provider for provider, each in told.items() if not each.lives]
        return after_probes(ranked, signals, silent, need)
