"""Probing providers: asking those that one is about to choose how loaded they are now, before choosing.

    AskLoads -> asked --LoadsReply with its signal--> LoadTold(signal)
                  |-----LoadsReply with nothing-----> LoadTold(None, lives): an earlier version, or asked too often
                  '-----PeerDown, Undeliverable, nothing within `within_s`--> LoadTold(None)

The question is that of doubts.py. Each provider that was named is told of exactly once. At most MAX_PROBED are
asked at a time; others are told of at once, unasked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

from ..engine import Send
from ..identity import PeerId
from .doubts import OWN_ONLY
from .load_events import AskLoads, LoadTold
from .load_wire import LoadsRequest

MAX_PROBED: Final = 64


class Probing:
    """The questions under way."""

    __slots__ = ("_asked",)

    def __init__(self) -> None:
        self._asked: dict[int, tuple[int, PeerId, float]] = {}  # by request id: query, whom, when to give up

    def __len__(self) -> int:
        return len(self._asked)

    def ask(self, command: AskLoads, now: float, new_id: Callable[[], int]) -> list[Send | LoadTold]:
        """The questions, as many as there is room for."""
        out: list[Send | LoadTold] = []
        for provider in dict.fromkeys(command.providers):
            if len(self._asked) >= MAX_PROBED:
                out.append(LoadTold(command.query, provider))
                continue
            request = new_id()
            self._asked[request] = (command.query, provider, now + command.within_s)
            out.append(Send(provider, LoadsRequest(request, OWN_ONLY)))
        return out

    def answered(self, peer: PeerId, request: int) -> int | None:
        """The query that this answers; it does so once."""
        asked = self._asked.get(request)
        if asked is None or asked[1] != peer:
            return None
        del self._asked[request]
        return asked[0]

    def down(self, peer: PeerId) -> list[LoadTold]:
        """A peer went down, or was not reached."""
        return self._give_up([request for request, asked in self._asked.items() if asked[1] == peer])

    def failed(self, peer: PeerId, requests: Iterable[int]) -> list[LoadTold]:
        """Nobody will answer these requests."""
        asked = self._asked
        return self._give_up(
            [each for each in dict.fromkeys(requests) if each in asked and asked[each][1] == peer]
        )

    def due(self, now: float) -> list[LoadTold]:
        """Give up on those that took too long."""
        return self._give_up([request for request, asked in self._asked.items() if asked[2] <= now])

    def deadline(self) -> float:
        """When `due` is next wanted."""
        return min((give_up for _, _, give_up in self._asked.values()), default=math.inf)

    def _give_up(self, requests: Iterable[int]) -> list[LoadTold]:
        told: list[LoadTold] = []
        for request in requests:
            query, provider, _ = self._asked.pop(request)
            told.append(LoadTold(query, provider))
        return told
