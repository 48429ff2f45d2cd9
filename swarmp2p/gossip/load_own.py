"""The own load signal: numbered, dated and, for those who ask, signed as a message.

Who publishes by itself (SetLoad) answers with what it set last, not with what it published last: a probe is asked
because signals are old. Each such answer is a signal of its own with the next number, signed at most once in
`FRESH_S` however many ask, so that strangers cannot have this node sign more than 20 times a second (about 30 us each).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ..errors import UsageError
from ..identity import PeerId
from ..signed import Sign
from .events import GossipMessage
from .load_shards import place_of, shard_of, shard_topic
from .load_signal import LoadSignal, encode_signal
from .messages import MessageForm

FRESH_S: Final = 0.05
"""How old an answer to a probe may be, in seconds."""


class OwnLoad:
    """The newest own signal."""

    __slots__ = (
        "_coordinate",
        "_form",
        "_message",
        "_peer",
        "_sequence",
        "_sign",
        "_signal",
        "_source",
        "_told",
        "_ttl_s",
    )

    def __init__(
        self, peer: PeerId, sign: Sign, form: MessageForm, coordinate: Callable[[], bytes], ttl_s: float
    ) -> None:
        """Arguments as LoadBoard's. ttl_s: life of a signal."""
        self._peer, self._sign, self._form, self._coordinate = peer, sign, form, coordinate
        self._ttl_s = ttl_s
        self._sequence = 0
        self._signal: LoadSignal | None = None
        self._source: LoadSignal | None = None  # what it was made of
        self._told = -math.inf  # when it was numbered
        self._message: GossipMessage | None = None  # made when first asked for

    def number(self, signal: LoadSignal, now: float) -> bytes | None:
        """The signal as it is published now; it is the newest one. None for text that is no Unicode, about which
        LoadSignal told the application."""
        # Milliseconds since the epoch to begin with, so that numbers grow over restarts.
        sequence = max(self._sequence + 1, int(now * 1000))
        numbered = replace(
            signal,
            sequence=sequence,
            expires=now + self._ttl_s,
            coordinate=signal.coordinate or self._coordinate(),
        )
        try:
            data = encode_signal(numbered)
        except UsageError:
            return None
        self._sequence, self._signal, self._source = sequence, numbered, signal
        self._told, self._message = now, None
        return data

    def forget(self) -> None:
        """This is no provider any more."""
        self._signal = self._source = self._message = None

    def refresh(self, current: LoadSignal, now: float) -> None:
        """Have the newest signal say what is true now, unless it does or is fresh enough."""
        if current != self._source and now >= self._told + FRESH_S:
            self.number(current, now)

    def message(self, now: float) -> GossipMessage | None:
        """The newest signal as a message; None when there is none that has not expired. The router made another one
        with a number of its own; for the table both are the same, because the signal inside is."""
        if self._signal is None or now >= self._signal.expires:
            return None
        if self._message is None:
            topic = shard_topic(shard_of(place_of(self._peer), self._signal.depth))
            self._message = self._form.make(
                self._peer,
                topic,
                encode_signal(self._signal),
                self._signal.sequence.to_bytes(8, "big"),
                self._sign,
            )
        return self._message
