"""Keys in order of their distance from the own id: who must go when a store is full."""

from __future__ import annotations

from bisect import bisect_left, insort

from .keys import key_id


class NearestKeys:
    """The keys of a store, nearest to the own id first.

    A full store gives up its farthest keys: those that other peers are likelier to be asked for. Whoever
    wants to push others' records out has to find keys nearer to this very peer than theirs.
    """

    __slots__ = ("_keys", "_own")

    def __init__(self, own: int) -> None:
        self._own = own
        self._keys: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: bytes) -> None:
        """Take in a key that is not there yet."""
        insort(self._keys, (key_id(key) ^ self._own, key))

    def remove(self, key: bytes) -> None:
        """Take out a key that is there."""
        del self._keys[bisect_left(self._keys, (key_id(key) ^ self._own, key))]

    def farthest(self) -> bytes:
        """The key that is farthest from the own id."""
        return self._keys[-1][1]

    def is_farther(self, key: bytes) -> bool:
        """Whether a key is farther than all of these."""
        return not self._keys or (key_id(key) ^ self._own, key) > self._keys[-1]
