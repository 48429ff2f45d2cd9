"""Against replays: the sequence numbers that each source has used.

The seen cache forgets after two minutes; whoever kept a message could then send it again, and it would be delivered
as new. A source's sequence numbers grow (pubsub spec, "Message"), so that remembering a few numbers a source is
enough; go-libp2p-pubsub's BasicSeqnoValidator rests on the same. Not for topics on which js-libp2p publishes: its
numbers are random.

A source's highest number of now would refuse what overtook on the way. So the guard remembers, in generations of half
the seen cache's time, what was the highest when: what is older than a whole generation is either in the seen cache's
past, and a replay, or came later than anybody waits for. On topics where only the latest message counts, the highest
number of now is the right one.
"""

from __future__ import annotations

from collections import OrderedDict

from ..identity import PeerId


class _Source:
    __slots__ = ("before", "highest", "since", "stale")

    def __init__(self, now: float) -> None:
        self.highest = self.before = self.stale = -1
        """The highest number; that of the generation before this one; that of the one before."""
        self.since = now


class Sequences:
    """Numbers of up to `max_sources` sources on one set of topics; beyond, the one that was silent longest is
    forgotten, and old messages of it would pass."""

    __slots__ = ("_generation_s", "_max", "_sources")

    def __init__(self, seen_ttl_s: float, max_sources: int) -> None:
        self._generation_s, self._max = seen_ttl_s / 2, max_sources
        self._sources: OrderedDict[PeerId, _Source] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sources)

    def is_old(self, source: PeerId, sequence: int, now: float, latest_only: bool) -> bool:
        """Whether a message with that number is a replay, or, where only the latest counts, was overtaken."""
        known = self._sources.get(source)
        if known is None:
            return False
        if latest_only:
            return sequence <= known.highest
        self._turn(known, now)
        return sequence <= known.stale

    def used(self, source: PeerId, sequence: int, now: float) -> None:
        """A genuine message with that number came."""
        known = self._sources.get(source)
        if known is None:
            if len(self._sources) >= self._max:
                self._sources.popitem(last=False)
            known = self._sources[source] = _Source(now)
        else:
            self._turn(known, now)
            self._sources.move_to_end(source)
        known.highest = max(known.highest, sequence)

    def _turn(self, known: _Source, now: float) -> None:
        """Begin a new generation when it is time."""
        generations = int((now - known.since) // self._generation_s)
        if generations:
            known.stale = known.before if generations == 1 else known.highest
            known.before = known.highest
            known.since += generations * self._generation_s
