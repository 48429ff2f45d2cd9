"""The message cache: recent messages themselves (gossipsub 1.0, "Router state")."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from ..identity import PeerId
from .events import GossipMessage


class _Cached:
    __slots__ = ("key", "message", "sent", "superseded")

    def __init__(self, message: GossipMessage, key: Hashable) -> None:
        self.message, self.key = message, key
        self.superseded = False
        self.sent: dict[PeerId, int] | None = None
        """How often it was sent again, by who asked: made when somebody does, for most it would be as large as all the
        rest."""


class MessageCache:
    """Recent messages, kept for `history` heartbeats to answer IWANT, advertised for `gossip` of them.

    Windows: the current one takes new messages, `shift()` at each heartbeat begins another and drops the
    oldest. Bounded in messages and in their bytes: the oldest windows go early, and when only the current
    one is left, further messages are not kept (they are still forwarded, only not offered again).

    A message that a newer one replaces is not advertised any more, but still there for those who asked for it.
    """

    __slots__ = ("_bytes", "_gossip", "_max_bytes", "_max_messages", "_messages", "_newest", "_windows")

    def __init__(self, history: int, gossip: int, max_messages: int, max_bytes: int) -> None:
        self._gossip = gossip
        self._max_messages, self._max_bytes = max_messages, max_bytes
        self._messages: dict[bytes, _Cached] = {}
        self._windows: deque[dict[str, list[bytes]]] = deque({} for _ in range(history))
        self._newest: dict[Hashable, bytes] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def held_bytes(self) -> int:
        """Bytes of the messages held."""
        return self._bytes

    def put(self, message_id: bytes, message: GossipMessage, replaces: Hashable = None) -> bool:
        """Keep a message; False when there is no room. replaces: it takes the place of the one that was put in with the
        same value."""
        if message_id in self._messages:
            return True
        size = message.held_bytes
        spare = len(self._windows) - 1
        while len(self._messages) >= self._max_messages or self._bytes + size > self._max_bytes:
            if not spare:
                return False
            self._drop(self._windows[spare])
            self._windows[spare] = {}
            spare -= 1
        self._messages[message_id] = _Cached(message, replaces)
        if replaces is not None:
            older = self._newest.get(replaces)
            if older is not None:
                self._messages[older].superseded = True
            self._newest[replaces] = message_id
        self._bytes += size
        self._windows[0].setdefault(message.topic, []).append(message_id)
        return True

    def get(self, message_id: bytes) -> GossipMessage | None:
        """A message, if it is still there."""
        cached = self._messages.get(message_id)
        return cached.message if cached is not None else None

    def send_again(self, message_id: bytes, to: PeerId) -> tuple[GossipMessage, int] | None:
        """A message for a peer that asked, and how often that peer got it so, this time included."""
        cached = self._messages.get(message_id)
        if cached is None:
            return None
        if cached.sent is None:
            cached.sent = {}
        count = cached.sent[to] = cached.sent.get(to, 0) + 1
        return cached.message, count

    def recent(self, topic: str) -> list[bytes]:
        """Ids of the topic's messages in the newest `gossip` windows."""
        out: list[bytes] = []
        for index in range(min(self._gossip, len(self._windows))):
            out.extend(self._windows[index].get(topic, ()))
        if self._newest:
            return [message_id for message_id in out if not self._messages[message_id].superseded]
        return out

    def shift(self) -> None:
        """A heartbeat passed."""
        if self._messages:
            self._drop(self._windows.pop())
            self._windows.appendleft({})

    def _drop(self, window: dict[str, list[bytes]]) -> None:
        for ids in window.values():
            for message_id in ids:
                cached = self._messages.pop(message_id)
                self._bytes -= cached.message.held_bytes
                if cached.key is not None and not cached.superseded:
                    del self._newest[cached.key]
