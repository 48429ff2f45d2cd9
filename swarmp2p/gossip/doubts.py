"""From doubt to suspicion: what is done about a provider that has been silent for too long.

    LoadTable.advance -> doubted --connected: LoadsRequest--> asked --LoadsReply, newer signal--> alive
    (suspicion.py)          |                                   |---PeerDown, nothing within `within_s`---> suspected
                            |---not connected----------------------------------------------------------------^

While this node itself is unwell (LocalHealth) nothing of that happens: alarms and questions wait.

Only providers that a connection stands to are asked: were each of a shard's thousands of followers to dial a provider
the moment that it falls silent, those dials would finish what may have been a pause. Who depends on a provider is
connected to it. At most `max_asked` are asked at a time, and others suspected unasked: when so many fall silent at
once, no single answer helps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..engine import Send
from ..identity import PeerId
from ..settings import check_settings
from .load_events import LoadSuspected
from .load_table import LoadTable
from .load_wire import LoadsRequest
from .suspicion import LocalHealth, SuspicionConfig

OWN_ONLY = 0
"""Entries to ask for, so that the answer is the provider's own signal alone. Earlier versions answer with nothing,
which is an answer, too."""


@dataclass(frozen=True, slots=True)
class ConfirmConfig:
    """within_s: how long an answer may take; a second is three of the longest round trips on Earth. max_asked:
    providers asked at a time; 0 for none, so that doubt is suspicion."""

    within_s: float = 1.0
    max_asked: int = 256

    def __post_init__(self) -> None:
        """Raises UsageError for values that make no sense."""
        check_settings(self, ("within_s",))


class Doubts:
    """The silent providers of a table, and who of them is being asked. The network bounds how many connections there
    are.

    health: of this node. confirmed: how often an answer showed that a doubted provider lives.
    """

    __slots__ = ("_asked", "_config", "_connected", "_not_before", "_table", "confirmed", "health")

    def __init__(self, table: LoadTable, suspicion: SuspicionConfig, config: ConfirmConfig) -> None:
        self._table, self._config = table, config
        self.health = LocalHealth(suspicion)
        self.confirmed = 0
        self._connected: dict[PeerId, None] = {}
        self._asked: dict[
            PeerId, tuple[int, float]
        ] = {}  # request id, when to give it up; in the order of both
        self._not_before = -math.inf

    def __len__(self) -> int:
        """How many are being asked."""
        return len(self._asked)

    def deadline(self) -> float:
        """When `tick` is next wanted."""
        due = self._table.deadline()
        for _, give_up in self._asked.values():
            due = min(due, give_up)
            break
        return max(due, self._not_before)

    def tick(self, now: float, new_id: Callable[[], int]) -> list[Send | LoadSuspected]:
        """Doubt, ask and suspect, as far as it is time."""
        health, table = self.health, self._table
        health.called(self.deadline(), now)
        self._not_before = health.held_until(now)
        if self._not_before > now:
            return []
        out: list[Send | LoadSuspected] = []
        for provider in self._overdue(now):
            self._suspect(provider, out)
        for provider in table.advance(now, health.patience(now)):
            if provider not in table:  # its signal has expired
                self._asked.pop(provider, None)
                out.append(LoadSuspected(provider))
            elif provider in self._connected and len(self._asked) < self._config.max_asked:
                request = new_id()
                self._asked[provider] = (request, now + self._config.within_s)
                out.append(Send(provider, LoadsRequest(request, OWN_ONLY)))
            else:
                self._suspect(provider, out)
        return out

    # What shows that a provider lives, or that it does not ---------------------------------------------------

    def up(self, peer: PeerId) -> None:
        """A connection stands."""
        self._connected[peer] = None

    def down(self, peer: PeerId) -> list[Send | LoadSuspected]:
        """None stands any more: a question to it got no answer."""
        out: list[Send | LoadSuspected] = []
        self._connected.pop(peer, None)
        if self._asked.pop(peer, None) is not None:
            self._suspect(peer, out)
        return out

    def failed(self, peer: PeerId, requests: tuple[int, ...]) -> list[Send | LoadSuspected]:
        """Nobody will answer these requests."""
        out: list[Send | LoadSuspected] = []
        asked = self._asked.get(peer)
        if asked is not None and asked[0] in requests:
            del self._asked[peer]
            self._suspect(peer, out)
        return out

    def answered(self, peer: PeerId, request: int, now: float) -> bool:
        """Whether this answers the question to it: then it lives."""
        asked = self._asked.get(peer)
        if asked is None or asked[0] != request:
            return False
        del self._asked[peer]
        self._table.alive(peer, now)
        self.confirmed += 1
        return True

    def signalled(self, provider: PeerId, now: float) -> None:
        """A newer signal of it came."""
        self.health.heard(now)
        if self._asked:
            self._asked.pop(provider, None)

    # Inside -------------------------------------------------------------------------------------------------

    def _overdue(self, now: float) -> list[PeerId]:
        overdue: list[PeerId] = []
        for provider, (_, give_up) in self._asked.items():
            if give_up > now:
                break
            overdue.append(provider)
        for provider in overdue:
            del self._asked[provider]
        return overdue

    def _suspect(self, provider: PeerId, out: list[Send | LoadSuspected]) -> None:
        if self._table.suspect(provider):
            out.append(LoadSuspected(provider))
