"""The values that other peers gave us to keep: one for each key, the best (validators.py), until its time is
over.

Bounds. A better value for a key that is held is never refused. When there are too many keys, the farthest
from the own id makes room; a new key that would be the farthest itself is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from .nearest import NearestKeys
from .state import HeldValue, Journal
from .validators import Validators


class ValueStore:
    """Values by key.

    own: the own id. ttl_s: life of a value after it was last stored. max_values: keys.

    journal: told of each change, when there is one (state.py).
    """

    journal: Journal | None = None

    def __init__(self, own: int, validators: Validators, *, ttl_s: float, max_values: int) -> None:
        self._validators, self._ttl_s, self._max_values = validators, ttl_s, max_values
        self._values: dict[bytes, HeldValue] = {}
        self._nearest = NearestKeys(own)

    def __len__(self) -> int:
        return len(self._values)

    def put(self, key: bytes, value: bytes, now: float, received: float = 0.0) -> bool:
        """Store a value. Returns whether it is held now: False when it is invalid, worse than the one held,
        or when there is no room.

        received: when it was stored first, as its sender says: one that was handed on lives no longer for it. A time
        to come, or one so long ago that the value would be gone, is that of a wrong clock, and means now.
        """
        if not (received and now - self._ttl_s < received < now):
            received = now
        held = self._values.get(key)
        if held is not None and held.value == value:
            received = max(received, held.received)
        return self._put(HeldValue(key, value, received), now)

    def takes(self, key: bytes, value: bytes, now: float) -> bool:
        """Whether a value is valid and no worse than the one held; there may be no room for it all the same."""
        if not self._validators.validate(key, value, now):
            return False
        held = self.get(key, now)
        return held is None or held.value == value or self._validators.select(key, [held.value, value]) != 0

    def _put(self, entry: HeldValue, now: float) -> bool:
        key, value = entry.key, entry.value
        if not self.takes(key, value, now):
            return False
        if key not in self._values:
            if len(self._values) >= self._max_values:
                if self._nearest.is_farther(key):
                    return False
                self._drop(self._nearest.farthest())
            self._nearest.add(key)
        self._values[key] = entry
        if self.journal is not None:
            self.journal.keep(entry)
        return True

    def entries(self) -> Iterator[HeldValue]:
        """All that is held, expired values included until `sweep`."""
        return iter(self._values.values())

    def restore(self, entry: HeldValue, now: float) -> bool:
        """Take back what an earlier store held. Returns whether it is held now; as `put`, and not when it has
        expired. It lives no longer than it would have."""
        received = min(entry.received, now)  # a clock that was set back must not make it live longer
        return now <= received + self._ttl_s and self._put(HeldValue(entry.key, entry.value, received), now)

    def get(self, key: bytes, now: float) -> HeldValue | None:
        """The value of a key, if there is one that has not expired."""
        held = self._values.get(key)
        return held if held is not None and now <= held.received + self._ttl_s else None

    def sweep(self, now: float) -> None:
        """Drop what has expired. O(n): for once in a while."""
        for key, held in list(self._values.items()):
            if now > held.received + self._ttl_s:
                self._drop(key)

    def _drop(self, key: bytes) -> None:
        entry = self._values.pop(key)
        self._nearest.remove(key)
        if self.journal is not None:
            self.journal.drop(entry.id)
