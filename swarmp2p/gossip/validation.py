"""Messages that wait for the application to judge them.

    Validate -> waiting --Validated--> accepted | rejected | ignored
                   |-----time-out, StopValidating--> ignored

Nothing else waits for them: other messages pass meanwhile. Whoever sends another copy of one that waits is remembered
with it, since it has the message, and has to answer for it as well.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from ..identity import PeerId
from .config import GossipConfig
from .events import GossipMessage


class Judged:
    """A message that waits, or did. senders: who sent a copy, the first one first."""

    __slots__ = ("message", "senders", "size", "until")

    def __init__(self, message: GossipMessage, sender: PeerId, size: int, until: float) -> None:
        self.message, self.size, self.until = message, size, until
        self.senders: dict[PeerId, None] = {sender: None}


class WaitingRoom:
    """Up to `max_validating` messages and `max_validating_bytes`; up to a quarter of each from one peer, so that no
    peer keeps the others' messages out."""

    __slots__ = ("_bytes", "_config", "_due", "_messages", "_shares", "_timeouts")

    def __init__(self, config: GossipConfig) -> None:
        self._config = config
        self._timeouts: dict[str, float] = {}  # of topics that are validated
        self._messages: dict[bytes, Judged] = {}
        # By topic, each in the order of time: a topic's time-out is always the same.
        self._due: dict[str, OrderedDict[bytes, Judged]] = {}
        self._shares: dict[PeerId, tuple[int, int]] = {}  # messages and bytes that came first from a peer
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def held_bytes(self) -> int:
        """Bytes of the messages that wait."""
        return self._bytes

    def validates(self, topic: str) -> bool:
        """Whether the application judges a topic's messages."""
        return topic in self._timeouts

    def start(self, topic: str, timeout_s: float) -> None:
        """The application judges a topic's messages from now on."""
        self._timeouts[topic] = timeout_s

    def stop(self, topic: str) -> list[Judged]:
        """It does not, any more. Returns what waited."""
        self._timeouts.pop(topic, None)
        return self.drop(topic)

    def drop(self, topic: str) -> list[Judged]:
        """Take out what waits on a topic."""
        return [judged for message_id in list(self._due.get(topic, ())) if (judged := self.take(message_id))]

    def put(self, message: GossipMessage, sender: PeerId, now: float) -> bool:
        """Have a message wait; False when there is no room, or another of the same id waits."""
        config, size = self._config, message.held_bytes
        count, held = self._shares.get(sender, (0, 0))
        if (
            message.id in self._messages
            or len(self._messages) >= config.max_validating
            or self._bytes + size > config.max_validating_bytes
            or 4 * count >= config.max_validating
            or 4 * (held + size) > config.max_validating_bytes
        ):
            return False
        judged = Judged(message, sender, size, now + self._timeouts[message.topic])
        self._messages[message.id] = judged
        self._due.setdefault(message.topic, OrderedDict())[message.id] = judged
        self._shares[sender] = (count + 1, held + size)
        self._bytes += size
        return True

    def again(self, message: GossipMessage, sender: PeerId) -> bool:
        """Another copy came; whether the message waits. Another message of the same id is no copy: a source may sign
        two."""
        judged = self._messages.get(message.id)
        if judged is None or judged.message.data != message.data or judged.message.topic != message.topic:
            return False
        judged.senders[sender] = None
        return True

    def take(self, message_id: bytes) -> Judged | None:
        """Take a message out; None when it does not wait."""
        judged = self._messages.pop(message_id, None)
        if judged is None:
            return None
        topic = judged.message.topic
        waiting = self._due[topic]
        del waiting[message_id]
        if not waiting:
            del self._due[topic]
        first = next(iter(judged.senders))
        count, held = self._shares.pop(first)
        if count > 1:
            self._shares[first] = (count - 1, held - judged.size)
        self._bytes -= judged.size
        return judged

    def expire(self, now: float) -> list[Judged]:
        """Take out what has waited for too long."""
        late: list[Judged] = []
        for waiting in list(self._due.values()):
            while waiting and next(iter(waiting.values())).until <= now:
                judged = self.take(next(iter(waiting)))
                assert judged is not None, "what is due waits"
                late.append(judged)
        return late

    def deadline(self) -> float:
        """When `expire` is wanted."""
        return min((next(iter(w.values())).until for w in self._due.values()), default=math.inf)

    def gone(self, peer: PeerId) -> None:
        """A peer's connection closed. What it sent first still waits, in its name."""
        for judged in self._messages.values():
            if next(iter(judged.senders)) != peer:
                judged.senders.pop(peer, None)
