"""The scores of all peers, and what takes more than one peer to know (gossipsub 1.1, "Peer Scoring").

- Whose connections come from one host (P6).
- What the application thinks of peers, connected or not (P5).
- Scores of peers that left, so that coming back does not wash them clean ("scores ... are retained").
- Which messages came a moment ago: who brings another copy within the topic's window is nearly as good as the first
  (P3, "near-first deliveries").
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TypeVar

from ..identity import PeerId
from .config import GossipConfig
from .score import PeerScore
from .score_config import TopicScoreConfig

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_MAX_RULES = 1024
"""Topics whose parameters are looked up once; at it, anew."""


class _Watched:
    """A message, for as long as copies of it count. senders: who brought one."""

    __slots__ = ("config", "senders", "topic", "until")

    def __init__(self, topic: str, config: TopicScoreConfig, until: float, sender: PeerId) -> None:
        self.topic, self.config, self.until = topic, config, until
        self.senders = {sender: None}


class Scores:
    """Makes the PeerScores and tells them what they cannot know by themselves.

    scored: whether any topic has parameters of its own. watched: by id, messages of which copies count; at most
    `max_cached`, the oldest goes. Of peers that left and of those that the application named, the latest
    `max_peers` are remembered.
    """

    __slots__ = ("_app", "_config", "_crowds", "_left", "_topics", "_whitelist", "scored", "watched")

    def __init__(self, config: GossipConfig) -> None:
        self._config = config
        self.scored = any(topic.score is not None for topic in config.topics.values())
        self.watched: dict[bytes, _Watched] = {}
        self._topics: dict[str, TopicScoreConfig | None] = {}
        self._whitelist = [ipaddress.ip_network(name) for name in config.score.colocation_whitelist]
        self._crowds: dict[bytes, dict[PeerId, PeerScore]] = {}
        self._left: dict[PeerId, tuple[float, PeerScore]] = {}
        self._app: dict[PeerId, float] = {}

    @property
    def retained(self) -> int:
        """Peers that left and whose score is remembered."""
        return len(self._left)

    def sizes(self) -> dict[str, int]:
        """How many entries each table holds."""
        return {
            "scores_kept": len(self._left),
            "app_scores": len(self._app),
            "watched": len(self.watched),
            "hosts": len(self._crowds),
        }

    # Peers come and go --------------------------------------------------------------------------------------

    def connected(self, peer: PeerId, place: bytes, now: float) -> PeerScore:
        """The score of a peer that is new, or comes back. place: its host, see peers.place_of."""
        until, score = self._left.pop(peer, (now, None))
        if score is None or until <= now:
            score = PeerScore(self._config.score, peer)
        self._give_app_score(score)
        self.moved(score, b"", place)
        return score

    def moved(self, score: PeerScore, old: bytes, place: bytes) -> None:
        """A peer's connection comes from another host. b"" for none, or none known."""
        crowd = self._crowds.get(old)
        if crowd is not None:
            crowd.pop(score.peer, None)
            score.crowd = ()
            if not crowd:
                del self._crowds[old]
        if place and not self._is_whitelisted(place):
            crowd = self._crowds.setdefault(place, {})
            crowd[score.peer] = score
            score.crowd = crowd
            most = self._config.score.colocation_threshold
            if len(crowd) == most + 1:
                for member in crowd.values():
                    member.worsened()
            elif len(crowd) > most:
                score.worsened()

    def gone(self, score: PeerScore, place: bytes, now: float) -> None:
        """A peer's connection is over."""
        self.moved(score, place, b"")
        score.leave(now)
        score.app = 0.0  # is kept by itself
        config = self._config
        if config.score.retain_score_s and score.value(now) < 0:
            _make_room(self._left, config.max_peers)
            self._left[score.peer] = (now + config.score.retain_score_s, score)

    def set_app(self, peer: PeerId, value: float, score: PeerScore | None) -> None:
        """What the application thinks of a peer. score: the peer's, when it is connected."""
        self._app.pop(peer, None)
        if value:
            _make_room(self._app, self._config.max_peers)
            self._app[peer] = value
        if score is not None:
            self._give_app_score(score)

    def beat(self, now: float) -> None:
        """Heartbeat: forget what does not count any more."""
        _drop_while_past(self.watched, ((name, watched.until) for name, watched in self.watched.items()), now)
        _drop_while_past(self._left, ((peer, until) for peer, (until, _) in self._left.items()), now)

    def is_graylisted(self, score: PeerScore, now: float) -> bool:
        """Whether everything a peer sends is to be ignored."""
        return score.below(self._config.score.graylist_threshold, now)

    # What they do -------------------------------------------------------------------------------------------

    def joined(self, score: PeerScore, topic: str, now: float) -> None:
        """A peer was taken into the mesh of a topic."""
        config = self._of(topic) if self.scored else None
        if config is not None:
            score.topic(topic, config, now).joined(now)
            if config.delivery_weight:
                score.worsened()

    def left(self, score: PeerScore, topic: str, now: float, failed: bool = True) -> None:
        """A peer is in the mesh of a topic no more. failed: unless this peer left the topic itself."""
        config = self._of(topic) if self.scored else None
        if config is not None:
            score.topic(topic, config, now).left(now, failed)
            score.worsened()

    def delivered(self, score: PeerScore, topic: str, message_id: bytes, now: float) -> None:
        """A valid message came from a peer first. To be called when it has been found valid, and then `copied` for
        those who brought it meanwhile. Costs nothing worth while unless `scored`."""
        config = self._of(topic) if self.scored else None
        if config is None:
            return
        score.topic(topic, config, now).delivered_first(now)
        if config.counts_deliveries:
            _make_room(self.watched, self._config.max_cached)
            until = now + config.delivery_window_s
            self.watched[message_id] = _Watched(topic, config, until, score.peer)

    def copied(self, score: PeerScore, message_id: bytes, now: float) -> None:
        """A peer brought a copy of a message. To be called only where `watched` has its id."""
        watched = self.watched.get(message_id)
        if watched is None or now > watched.until or score.peer in watched.senders:
            return
        watched.senders[score.peer] = None
        score.topic(watched.topic, watched.config, now).delivered(now)

    def rejected(self, score: PeerScore, topic: str, now: float) -> None:
        """A peer sent a message of a topic that is forged, malformed or refused by a validator."""
        config = self._of(topic) if self.scored else None
        if config is None:
            score.invalid_message(now)
        else:
            score.topic(topic, config, now).sent_invalid(now)
            score.worsened()

    # Inside -------------------------------------------------------------------------------------------------

    def _of(self, topic: str) -> TopicScoreConfig | None:
        try:
            return self._topics[topic]
        except KeyError:
            if len(self._topics) >= _MAX_RULES:
                self._topics.clear()
            config = self._topics[topic] = self._config.topic(topic).score
            return config

    def _give_app_score(self, score: PeerScore) -> None:
        before, score.app = score.app, self._app.get(score.peer, 0.0)
        if score.app < before:
            score.worsened()

    def _is_whitelisted(self, place: bytes) -> bool:
        if not self._whitelist:
            return False
        network = (
            ipaddress.ip_network(place) if len(place) == 4 else ipaddress.ip_network((place + bytes(8), 64))
        )
        return any(one.version == network.version and one.overlaps(network) for one in self._whitelist)


def _make_room(table: dict[_Key, _Value], most: int) -> None:
    """At the bound, the oldest goes."""
    while len(table) >= max(1, most):
        del table[next(iter(table))]


def _drop_while_past(table: dict[_Key, _Value], ends: Iterable[tuple[_Key, float]], now: float) -> None:
    """Drop the oldest as long as their time is over."""
    past: list[_Key] = []
    for key, until in ends:
        if until > now:
            break
        past.append(key)
    for key in past:
        del table[key]
