"""How often somebody may do something: a rate, and a burst on top of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

_LEAST_PER_S: Final = 1e-9
"""Once in 30 years: as good as never, and still a number to divide by."""

Key = TypeVar("Key", bound=Hashable)


class Rates(Generic[Key]):
    """One number for each of up to `most` names: the time up to which it has used up its rate (the generic cell rate
    algorithm of ITU-T I.371). Whoever tried longest ago is forgotten at the bound, and may have a burst again.
    """

    __slots__ = ("_ahead_s", "_interval_s", "_most", "_used")

    def __init__(self, per_s: float, burst: int, most: int) -> None:
        """per_s: 0 for nothing beyond the first burst. burst: at once, after a pause; at least 1."""
        per_s = max(per_s, _LEAST_PER_S)
        self._interval_s, self._ahead_s = 1.0 / per_s, (burst - 1) / per_s
        self._most = max(1, most)
        self._used: OrderedDict[Key, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._used)

    def admits(self, name: Key, now: float, times: int = 1) -> bool:
        """Whether it may once more; then it counts. times: so often at once, of which the first is enough to have room
        for."""
        used = max(self._used.pop(name, now), now)
        admitted = used <= now + self._ahead_s
        if len(self._used) >= self._most:
            self._used.popitem(last=False)
        self._used[name] = used + times * self._interval_s if admitted else used
        return admitted
