"""The values that other peers gave us to keep: one for each key, the best (validators.py), until its time is
over.

Bounds. A better value for a key that is held is never refused. When there are too many keys, the farthest
from the own id makes room; a new key that would be the farthest itself is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from .nearest import NearestKeys
from .validators import Validators


@dataclass(frozen=True, slots=True)
class StoredValue:
    """received: when it was stored here, seconds as `now`."""

    value: bytes
    received: float


class ValueStore:
    """Values by key.

    own: the own id. ttl_s: life of a value after it was last stored. max_values: keys.
    """

    def __init__(self, own: int, validators: Validators, *, ttl_s: float, max_values: int) -> None:
        self._validators, self._ttl_s, self._max_values = validators, ttl_s, max_values
        self._values: dict[bytes, StoredValue] = {}
        self._nearest = NearestKeys(own)

    def __len__(self) -> int:
        return len(self._values)

    def put(self, key: bytes, value: bytes, now: float) -> bool:
        """Store a value. Returns whether it is held now: False when it is invalid, worse than the one held,
        or when there is no room."""
        if not self._validators.validate(key, value, now):
            return False
        held = self.get(key, now)
        if (
            held is not None
            and held.value != value
            and self._validators.select(key, [held.value, value]) == 0
        ):
            return False
        if key not in self._values:
            if len(self._values) >= self._max_values:
                if self._nearest.is_farther(key):
                    return False
                self._drop(self._nearest.farthest())
            self._nearest.add(key)
        self._values[key] = StoredValue(value, now)
        return True

    def get(self, key: bytes, now: float) -> StoredValue | None:
        """The value of a key, if there is one that has not expired."""
        held = self._values.get(key)
        return held if held is not None and now <= held.received + self._ttl_s else None

    def sweep(self, now: float) -> None:
        """Drop what has expired. O(n): for once in a while."""
        for key, held in list(self._values.items()):
            if now > held.received + self._ttl_s:
                self._drop(key)

    def _drop(self, key: bytes) -> None:
        del self._values[key]
        self._nearest.remove(key)
