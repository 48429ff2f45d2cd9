"""Peer score: what a peer's deeds earn it, and its misdeeds cost it (gossipsub 1.1, "Peer Scoring").

    score = min(cap, sum over topics of weight x (P1 + P2 + P3 + P3b + P4)) + P4 + P5 + P6 + P7

- P1 to P4 of topics that have a TopicScoreConfig: topic_score.py. Elsewhere only P4 counts, and not by topic.
- P5, the application's own: SetAppScore.
- P6, colocation: too many peers on one host (scores.py counts them).
- P7, behaviour: GRAFT during backoff, IHAVE beyond the caps, and promises broken (ids advertised by IHAVE and not
  delivered when asked for); the square of what exceeds a tolerance.

Unlike in go-libp2p-pubsub, promises kept make up for promises broken: on a network that loses or drops messages
honest peers break some, and must not be shut out for it. Whoever breaks more than three of four does it on purpose.
Who is meant to be excused does not thereby earn anything: kept promises count against broken ones alone.
"""

from __future__ import annotations

import math
from collections.abc import Sized

from ..identity import PeerId
from .score_config import ScoreConfig, TopicScoreConfig
from .topic_score import TopicScore, decayed

_MAX_TOPICS = 256
"""Topics that a peer is scored in, all of them our own. At it the oldest goes in whose mesh the peer is not."""


class PeerScore:
    """One peer's counters. Most peers have nothing against them, and cost one attribute check.

    peer: whose. clean: nothing counts against it, so that its value is not below 0. crowd: those that are connected
    from the same host, itself included. app: P5 before its weight.
    """

    __slots__ = (
        "_broken",
        "_config",
        "_invalid",
        "_kept",
        "_misbehaviour",
        "_topics",
        "_updated",
        "_valued",
        "_valued_at",
        "app",
        "clean",
        "crowd",
        "peer",
    )

    def __init__(self, config: ScoreConfig, peer: PeerId) -> None:
        self._config, self.peer = config, peer
        self.clean = True
        self.crowd: Sized = ()
        self.app = 0.0
        self._invalid = self._misbehaviour = self._broken = self._kept = 0.0
        self._topics: dict[str, TopicScore] = {}
        self._updated = 0.0
        self._valued, self._valued_at = 0.0, -math.inf  # for `below`

    # What the peer did --------------------------------------------------------------------------------------

    def topic(self, topic: str, config: TopicScoreConfig, now: float) -> TopicScore:
        """Its counters in a scored topic. Whoever changes them for the worse calls `worsened`."""
        score = self._topics.get(topic)
        if score is None:
            if len(self._topics) >= _MAX_TOPICS:
                outside = (name for name, held in self._topics.items() if not held.in_mesh)
                del self._topics[next(outside, next(iter(self._topics)))]
            score = self._topics[topic] = TopicScore(config, self._config, now)
        return score

    def invalid_message(self, now: float) -> None:
        """It sent a message, outside of scored topics, that is forged, malformed or refused by a validator."""
        self._decay(now)
        self.worsened()
        self._invalid += 1.0

    def misbehaved(self, now: float) -> None:
        """It broke a rule that honest peers keep."""
        self._decay(now)
        self.worsened()
        self._misbehaviour += 1.0

    def broke_promise(self, now: float) -> None:
        """It did not deliver what it had advertised and we asked for."""
        self._decay(now)
        self.worsened()
        self._broken += 1.0

    def kept_promise(self, now: float) -> None:
        """It delivered, or somebody else was faster."""
        self._decay(now)
        self._kept += 1.0

    def leave(self, now: float) -> None:
        """It disconnects: out of all meshes, and what it has earned is forgotten."""
        for score in self._topics.values():
            score.left(now, failed=True)
            score.without_rewards()
        self.worsened()

    def worsened(self) -> None:
        """Something counts against it that did not before."""
        self.clean = False
        self._valued_at = -math.inf

    # What that makes ----------------------------------------------------------------------------------------

    def below(self, threshold: float, now: float) -> bool:
        """Whether its value is below one that is not above 0. For every RPC of peers that are not `clean`, as those in
        meshes of topics with P3 never are: what gets better is seen within the decay interval, what gets worse at
        once, but for the passing of time."""
        if self.clean:
            return False
        if now >= self._valued_at + self._config.decay_interval_s:
            self._valued, self._valued_at = self.value(now), now
        return self._valued < threshold

    def value(self, now: float) -> float:
        """The score."""
        if self.clean:
            if not self._topics and not self.app:
                return 0.0
        else:
            self._decay(now)
        config, topics, cap = self._config, 0.0, self._config.topic_score_cap
        blank: list[str] = []
        for name, score in self._topics.items():
            topics += score.good(now) + score.bad(now)
            if score.blank:
                blank.append(name)
        for name in blank:
            del self._topics[name]
        if 0 < cap < topics:
            topics = cap
        value = topics + config.app_weight * self.app
        if not self.clean:
            value += self._penalties()
            self._look_whether_clean()
        return value

    def _penalties(self) -> float:
        """P4 outside of scored topics, P6 and P7."""
        config = self._config
        excess = self._misbehaviour - config.behaviour_tolerance
        if self._broken:
            excess += max(0.0, self._broken - config.kept_excuses * self._kept)
        value = config.invalid_weight * self._invalid**2 + config.behaviour_weight * max(0.0, excess) ** 2
        surplus = len(self.crowd) - config.colocation_threshold
        return value + config.colocation_weight * surplus**2 if surplus > 0 else value

    def _look_whether_clean(self) -> None:
        self.clean = not (
            self._invalid
            or self._misbehaviour
            or self._broken
            or self.app < 0
            or len(self.crowd) > self._config.colocation_threshold
            or any(score.may_turn_bad() for score in self._topics.values())
        )

    def _decay(self, now: float) -> None:
        config = self._config
        passed = now - self._updated
        if passed < config.decay_interval_s or passed <= 0:
            return
        self._updated = now
        within, zero = config.decay_s, config.decay_to_zero
        self._invalid = decayed(self._invalid, passed, within, zero)
        self._misbehaviour = decayed(self._misbehaviour, passed, within, zero)
        self._broken = decayed(self._broken, passed, within, zero)
        self._kept = decayed(self._kept, passed, within, zero)
