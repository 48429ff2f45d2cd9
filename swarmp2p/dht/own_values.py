"""The values that this peer keeps alive: stored again each interval, as holders forget them and leave.

    PutValue(republish) --> stored --- each interval ---> what do others hold?
                              ^                             | nothing better: stored again at all of the nearest
                              '-----------------------------'
                                                            | the validator prefers theirs: superseded, forgotten

Holders keep a value for 48 h (go: the same); it is stored again after 22 h, as provider records are, so that one round
may fail. Whether another's value is better is what the key's validator says, of all values of the k nearest and this
one. Where a key has no validator of its own, the value of most holders is the best (validators.py), and of equally many
this one: who puts another one later, and reaches most holders, supersedes it. Two owners never overwrite each other in
turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from ..engine import PeerInfo, Reply
from ..identity import PeerId
from .config import DhtConfig
from .events import DhtOutput, QueryDone
from .keys import key_id
from .lookup import Lookup
from .messages import AnsweredRequest, FoundValue, GetValue, ValueStored
from .queries import FollowUp, PutQuery, put_value
from .renewals import SPREAD
from .timers import Timers
from .traffic import Traffic
from .validators import Validators
from .value_store import ValueStore


class OwnValue:
    """A value that is stored again when its timer is due."""

    __slots__ = ("key", "timer", "value")

    def __init__(self, key: bytes, value: bytes) -> None:
        self.key, self.value, self.timer = key, value, 0


class RenewalQuery(PutQuery):
    """Stores a value again, unless others hold a better one.

    superseded: they do.
    """

    def __init__(self, lookup: Lookup, key: bytes, value: bytes, validators: Validators) -> None:
        super().__init__(None, lookup, key, value)
        self._validators = validators
        self._values: dict[PeerId, bytes] = {}
        self.superseded = False

    def question(self, id: int) -> AnsweredRequest:
        return GetValue(id, self._key)

    def answered(self, peer: PeerId, reply: Reply, now: float) -> Sequence[DhtOutput]:
        assert isinstance(reply, FoundValue)
        value = reply.value if reply.key == self._key else None
        if value is not None and self._validators.validate(self._key, value, now):
            self._values[peer] = value
        return ()

    def follow_ups(self, now: float) -> Sequence[FollowUp]:
        nearest = self.lookup.closest()
        values = [value for info in reversed(nearest) if (value := self._values.get(info.peer)) is not None]
        values.append(self._value)
        if values[self._validators.select(self._key, values)] != self._value:
            self.superseded = True
            return ()
        return self.beyond(nearest, now)

    def beyond(self, peers: Sequence[PeerInfo], now: float) -> Sequence[FollowUp]:
        if self.superseded:
            return ()
        return [(info, put_value(self._key, self._value, now)) for info in peers]

    def confirmed(self, peer: PeerId, reply: Reply, now: float) -> Sequence[DhtOutput]:
        return super().confirmed(peer, reply, now) if isinstance(reply, ValueStored) else ()


class OwnValues:
    """The values of one peer, by key. Only the application adds to them.

    timers: the engine's; the values in them come back through `due`. held: this peer holds its values itself, too.
    """

    def __init__(
        self,
        traffic: Traffic,
        held: ValueStore,
        validators: Validators,
        timers: Timers[object],
        rng: Random,
        config: DhtConfig,
    ) -> None:
        self._traffic, self._held, self._validators = traffic, held, validators
        self._timers, self._rng, self._config = timers, rng, config
        self._own: dict[bytes, OwnValue] = {}

    def put(self, number: int, key: bytes, value: bytes, now: float, *, republish: bool) -> None:
        """Store a value, now and, if wanted, again; it takes the place of what was put there before."""
        if not self._held.takes(key, value, now):
            self._traffic.out.append(QueryDone(number, refused=True))
            return
        self._held.put(key, value, now)  # if there is room: others have some for it in any case
        self.stop(key)
        if republish:
            own = self._own[key] = OwnValue(key, value)
            self._later(own, self._config.value_interval_s, now)
        self._traffic.run(PutQuery(number, self._traffic.lookups.nearest(key_id(key)), key, value), now)

    def stop(self, key: bytes) -> None:
        """Store a value again no more; what others hold expires."""
        own = self._own.pop(key, None)
        if own is not None:
            self._timers.cancel(own.timer)

    def due(self, own: OwnValue, now: float) -> None:
        """It is time to store a value again."""
        config = self._config
        lookup = self._traffic.lookups.nearest(key_id(own.key))
        query = RenewalQuery(lookup, own.key, own.value, self._validators)

        def ended(_: object, now: float) -> None:
            if self._own.get(own.key) is not own:
                return
            if query.superseded:
                self.stop(own.key)
                return
            self._held.put(own.key, own.value, now)
            self._later(own, config.value_interval_s if query.stored else config.refresh_interval_s, now)

        query.then = ended
        self._traffic.run(query, now)

    def _later(self, own: OwnValue, interval_s: float, now: float) -> None:
        self._timers.cancel(own.timer)
        spread = self._rng.uniform(1.0 - SPREAD, 1.0 + SPREAD)
        own.timer = self._timers.add(now + interval_s * spread, own)
