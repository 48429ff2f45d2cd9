"""Finds providers for one cluster, and ranks those that fit: by their load signals, and what the best few say when they
are asked now.

Searching takes seconds and ranking a fraction of one, so that what a search found is kept: the next worker, such as
the one in place of a worker that was lost, is asked of those known.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

from .choosing import Choosing
from .dht.records import ServiceRecord
from .gossip.balancer import Affinity, Placement, Strength
from .gossip.load import LoadTable
from .identity import PeerId
from .lending import RAY_SERVICE
from .ray_bridge.elastic import Ask
from .ray_bridge.events import Versions
from .ray_bridge.presenting import OWNERS_ATTRIBUTE
from .ray_bridge.recruit import Candidate, Recruiter
from .ray_bridge.terms import unfit_record

if TYPE_CHECKING:
    from .peer import Peer

_PROBES: Final = 4
"""Providers at most that are asked for their load before leases are: one more than are needed, so that each may have
somebody to stand in. A guess."""
_PROBE_S: Final = 0.5  # how long they may take: a dial and an answer across the Earth
_FIND_S: Final = 2.0  # how long one search for providers may take before those found so far are ranked
_MOST_KEPT: Final = 1024  # records; those found longest ago are forgotten beyond it


class Scout:
    """What one cluster knows of who lends. versions: of its head. lenders: the only ones that count; None for all."""

    def __init__(
        self,
        peer: Peer,
        loads: LoadTable,
        choosing: Choosing,
        versions: Versions,
        lenders: frozenset[PeerId] | None,
    ) -> None:
        self._peer, self._loads, self._choosing = peer, loads, choosing
        self._versions, self._lenders = versions, lenders
        self._rng = random.Random(os.urandom(16))
        self._records: dict[PeerId, ServiceRecord] = {}

    async def search(self) -> None:
        """Look for service records in the DHT, two seconds at most."""
        with trio.move_on_after(_FIND_S):
            async with self._peer.find(RAY_SERVICE) as found:
                async for record in found:
                    self._keep(record)

    def _keep(self, record: ServiceRecord) -> None:
        provider = record.provider
        if provider == self._peer.id or (self._lenders is not None and provider not in self._lenders):
            return
        known = self._records.get(provider)
        if known is None or record.sequence > known.sequence:
            self._records.pop(provider, None)
            self._records[provider] = record
            if len(self._records) > _MOST_KEPT:
                del self._records[next(iter(self._records))]

    def grantors(self, provider: PeerId) -> str:
        """Whose grants count at a provider, as its record says it (presenting.py)."""
        record = self._records.get(provider)
        return "" if record is None else str(record.attributes.get(OWNERS_ATTRIBUTE, ""))

    async def candidates(
        self, ask: Ask, recruiter: Recruiter, outstanding: Mapping[PeerId, int], placement: Placement
    ) -> Sequence[tuple[Candidate, str]]:
        """Of those known, the ones that fit, best first, and last those that are full. The recruiter is told of those
        that cannot be used at all."""
        now = self._peer.now()
        fit: dict[PeerId, Candidate] = {}
        for provider, record in list(self._records.items()):
            if record.expires <= now:
                del self._records[provider]
                continue
            problem = unfit_record(record.attributes, ask, self._versions)
            if problem:
                recruiter.unfit(provider, problem)
            else:
                fit[provider] = Candidate(provider, record.sequence)
        place = _apart(ask, placement)
        entries = [entry for entry in self._loads if entry.provider in fit]
        ranked = await self._choosing.choose(
            entries,
            ask.need,
            self._peer.now,
            outstanding,
            placement=place,
            probes=min(_PROBES, recruiter.missing() + 1),
            timeout_s=_PROBE_S,
            probed=lambda provider: recruiter.may_ask(fit[provider], now),
        )
        # not heard of yet: it may have just come up, so it is asked after those that are known to have room
        heard = {entry.provider for entry in entries}
        unheard = [
            (candidate, "no load signal yet") for provider, candidate in fit.items() if provider not in heard
        ]
        self._rng.shuffle(unheard)
        chosen = {choice.provider for choice in ranked}
        full = [
            (replace(fit[entry.provider], full=True), "full")
            for entry in entries
            if entry.provider not in chosen and not entry.suspected and place.extra_s(entry) is not None
        ]
        self._rng.shuffle(full)
        return [(fit[choice.provider], choice.reason) for choice in ranked] + unheard + full


def _apart(ask: Ask, placement: Placement) -> Placement:
    """The same, without lenders that would not do."""
    if not ask.not_kinds and not ask.not_regions:
        return placement
    others = Affinity(Strength.FORBID, kinds=ask.not_kinds, regions=ask.not_regions)
    return replace(placement, affinities=[*placement.affinities, others])
