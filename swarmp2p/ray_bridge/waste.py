"""What borrowers have kept set aside for nothing: who wastes much loses the claim to be waited for, not the access.

A challenge sets resources aside before anybody has proven anything, so that a fair borrower finds them when its proof
comes. Whoever may borrow could keep a machine that way and never lease it: ask, be silent, ask again. So the seconds of
every reservation that ends unproven (it ran out, was taken back, its proof was wrong, or its permission over by then)
are counted, those of several at a time together, and forgotten slowly; how long some are under way counts as well.
Above `waste_s` the next reservations are *loose*: the challenge comes as ever, but nothing is kept for it, and the room
is whose proof comes first.

Nobody is shut out by that. A borrower behind a bad network loses more proofs than others, and one lost proof (5 s) is
forgiven; after more of them it still has what is free when its proof gets through.

Counted by account: whom the owner named or gave a grant to, with all to whom it passed that on, for they may be as many
keys as it likes; and strangers, where everybody may borrow, all together. One who wastes makes the reservations of all
under the account loose, no more than that.

So within any T seconds an account keeps room from others for `waste_s` + `hold_s` + T * `waste_forgotten` at most: 16 s
and a twelfth of the time. Who keeps several reservations at a time keeps them for less.
"""

from __future__ import annotations

from ..identity import PeerId
from .lease_config import LeaseConfig

Account = PeerId | None
"""Whose waste it is; None: that of strangers, all together."""


class Waste:
    """Seconds that were wasted, by account. Those of `max_strangers` accounts at most, the oldest forgotten first."""

    def __init__(self, config: LeaseConfig) -> None:
        self._config = config
        self._seconds: dict[Account, tuple[float, float]] = {}  # and when they were that many

    def __len__(self) -> int:
        return len(self._seconds)

    def charge(self, account: Account, since: float, now: float) -> None:
        """A reservation that was made at `since` ended unproven."""
        config = self._config
        wasted_s = min(config.max_waste_s, self._left_s(account, now) + now - since)
        self._seconds.pop(account, None)
        self._seconds[account] = wasted_s, now
        if len(self._seconds) > config.max_strangers:
            del self._seconds[next(iter(self._seconds))]

    def trusts(self, account: Account, now: float, since: float) -> bool:
        """Whether what this account asks for is set aside for it. since: when the oldest of its reservations was made;
        `now` without any."""
        return self._left_s(account, now) + now - since <= self._config.waste_s

    def _left_s(self, account: Account, now: float) -> float:
        wasted_s, at = self._seconds.get(account, (0.0, now))
        return max(0.0, wasted_s - (now - at) * self._config.waste_forgotten)
