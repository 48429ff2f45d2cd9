"""What makes a value acceptable, and which of two values is better (kad-dht spec, "Entry validation")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ..errors import UsageError

MAX_VALUE_KEY_BYTES = 256


class Validator(Protocol):
    """Rules for the values of one namespace. Pure; must not raise, whatever the bytes."""

    def validate(self, key: bytes, value: bytes, now: float) -> bool:
        """Whether the value may stand under the key: signed by the right key, not expired, or whatever
        else."""
        ...

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        """The index of the best of one or more values.

        values: when a value arrives to be stored, the one that is held, then the one that arrived. When a
        lookup ends, one from each peer that had any, the nearest peer's last.
        """
        ...


class AnyValue:
    """For keys of no namespace that is known: every value is valid.

    Nothing in such a value says which of two is newer. So the most frequent one is best, and of equally
    frequent ones the last: a peer that is asked to store a value stores it (the newest wins), and a lookup
    returns what most holders have. Whoever needs more, such as newest by a sequence number that nobody can
    forge, brings a validator.
    """

    def validate(self, key: bytes, value: bytes, now: float) -> bool:
        return True

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        counts: dict[bytes, int] = {}
        for value in values:
            counts[value] = counts.get(value, 0) + 1
        return max(range(len(values)), key=lambda index: (counts[values[index]], index))


class Validators:
    """The validator of each key: chosen by namespace, within a size limit for all."""

    def __init__(self, by_namespace: Mapping[str, Validator], max_value_bytes: int) -> None:
        self._by_namespace = {name.encode(): validator for name, validator in by_namespace.items()}
        self._max_value_bytes = max_value_bytes
        self._any = AnyValue()

    def validate(self, key: bytes, value: bytes, now: float) -> bool:
        """Whether the value may stand under the key."""
        if not 0 < len(key) <= MAX_VALUE_KEY_BYTES or len(value) > self._max_value_bytes:
            return False
        return self._of(key).validate(key, value, now)

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        """The index of the best of one or more valid values."""
        return self._of(key).select(key, values)

    def is_mergeable(self, key: bytes) -> bool:
        """Whether the key's validator can tell that one value supersedes another, so that holders of the
        other may be corrected. Without a validator of its own, a key's values are only ever replaced by their
        owners."""
        return self._of(key) is not self._any

    def _of(self, key: bytes) -> Validator:
        # "/namespace/rest", as go's record.NamespacedValidator has it
        parts = key.split(b"/", 2)
        if len(parts) == 3 and not parts[0]:
            return self._by_namespace.get(parts[1], self._any)
        return self._any


def check_key(key: bytes) -> None:
    """Raise UsageError for a key that no value can have."""
    if not 0 < len(key) <= MAX_VALUE_KEY_BYTES:
        raise UsageError(
            f"a value's key has 1 to {MAX_VALUE_KEY_BYTES} bytes, not {len(key)}; hash longer ones"
        )


def check_value(key: bytes, value: bytes, max_value_bytes: int = 8_192) -> None:
    """Raise UsageError for a value that no peer would store, whatever its validator says.

    To be called before PutValue is posted: the engine itself ends such a query without having asked anybody.
    """
    check_key(key)
    if len(value) > max_value_bytes:
        raise UsageError(
            f"a DHT value has at most {max_value_bytes} bytes, not {len(value)}; "
            "store where the data is instead, for example its multihash, and provide that"
        )
