"""What happens to a message from its arrival to its delivery.

    seen? -> of ours? -> old? -> genuine? -> validator -> the application's --> delivered, cached, forwarded
      |        |          |         |            |             |
      +--------+----------+- dropped and counted +-------------+- and whoever sent what is forged or refused pays

Only a genuine message is marked as seen: a forged copy must not keep the real one out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256

from ..engine import NetworkOutput
from ..identity import PeerId
from ..signed import Verify
from .config import GossipConfig, GossipStats
from .events import Acceptance, Delivered, GossipMessage, GossipOutput, Validate
from .idontwant import Unwanted
from .lazy import LazyGossip
from .mesh import Mesh
from .messages import Verdict
from .outbox import Outbox
from .peers import Peers, PeerState
from .seen import SeenCache
from .sequences import Sequences
from .topics import Rules, Topics
from .validation import Judged, WaitingRoom
from .wire import stripped

Outputs = list[NetworkOutput | GossipOutput]


class Intake:
    """Checks, delivers and forwards messages. me: this peer, whose own messages come back at times."""

    __slots__ = (
        "_config",
        "_lazy",
        "_me",
        "_mesh",
        "_outbox",
        "_peers",
        "_rejected",
        "_scores",
        "_seen",
        "_sequences",
        "_stats",
        "_topics",
        "_unwanted",
        "_verify",
        "_waiting",
    )

    def __init__(
        self,
        me: PeerId,
        verify: Verify,
        topics: Topics,
        mesh: Mesh,
        lazy: LazyGossip,
        unwanted: Unwanted,
        outbox: Outbox,
        config: GossipConfig,
        stats: GossipStats,
    ) -> None:
        self._me, self._verify, self._topics = me, verify, topics
        self._mesh, self._lazy, self._outbox, self._unwanted = mesh, lazy, outbox, unwanted
        self._peers: Peers = lazy.peers
        self._scores = lazy.peers.scores
        self._seen: SeenCache = lazy.seen
        self._config, self._stats = config, stats
        self._waiting = WaitingRoom(config)
        self._rejected = SeenCache(config.seen_ttl_s, config.max_rejected)
        self._sequences: dict[str, Sequences] = {}  # by topic, of topics that have them

    def sizes(self) -> dict[str, int]:
        """How many entries each table holds."""
        return {
            "validating": len(self._waiting),
            "validating_bytes": self._waiting.held_bytes,
            "rejected": len(self._rejected),
            "sources": sum(map(len, self._sequences.values())),
        }

    # What peers send ----------------------------------------------------------------------------------------

    def take(self, state: PeerState, messages: Iterable[GossipMessage], now: float, out: Outputs) -> None:
        """Messages of one RPC."""
        stats, seen, meshes = self._stats, self._seen, self._mesh.meshes
        large: dict[str, list[bytes]] = {}  # ids to be announced by IDONTWANT
        large_bytes = self._config.idontwant_bytes
        for received in messages:
            if received.topic not in meshes:
                stats.not_subscribed += 1
                continue
            rules = self._topics.rules(received.topic)
            message = received if rules.identify is None else received.named(rules.identify(received))
            if seen.has(message.id, now):
                self._repeated(state, message, now)
            elif message.source == self._me:
                stats.own_returned += 1
                self._lazy.excused(message.id)  # of before a restart
            elif self._genuine(state, message, rules, now):
                if rules.anonymous:
                    message = stripped(message)
                self._fresh(state, message, rules, now, out)
                if len(message.data) >= large_bytes and seen.has(message.id, now):
                    large.setdefault(message.topic, []).append(message.id)
            elif self._scores.is_graylisted(state.score, now) and not state.direct:
                break  # the rest of its RPC is not worth the checks
        for topic, ids in large.items():
            members = self._mesh.receivers(topic, meshes[topic])
            out.extend(self._unwanted.tell(tuple(ids), members, state.peer))

    def _repeated(self, state: PeerState, message: GossipMessage, now: float) -> None:
        self._stats.duplicates += 1
        self._outbox.cancel(state.peer, message.id)
        if self._waiting:
            self._waiting.again(message, state.peer)
        if self._rejected and self._rejected.has(_content(message), now):
            self._scores.rejected(state.score, message.topic, now)
        elif self._scores.watched:
            self._scores.copied(state.score, message.id, now)

    def _genuine(self, state: PeerState, message: GossipMessage, rules: Rules, now: float) -> bool:
        """Whether the message is news and signed as it should be."""
        if rules.sequenced and self._old(message, rules, now):
            return False
        verdict = rules.form.check(message, self._verify)
        if verdict is Verdict.GENUINE:
            return True
        if verdict is Verdict.UNUSABLE:
            self._stats.unusable += 1
            self._lazy.excused(message.id)
        else:
            self._stats.invalid += 1
            self._scores.rejected(state.score, message.topic, now)
        return False

    def _old(self, message: GossipMessage, rules: Rules, now: float) -> bool:
        sequences = self._sequences.get(message.topic)
        if sequences is None or len(message.seqno) != 8:
            return False
        if not sequences.is_old(message.source, message.sequence, now, rules.latest_only):
            return False
        self._stats.old += 1
        self._lazy.arrived(message.id, now)  # whoever was asked for it has sent it
        return True

    def _fresh(
        self, state: PeerState, message: GossipMessage, rules: Rules, now: float, out: Outputs
    ) -> None:
        """A genuine message came for the first time, or the seen cache has forgotten it while it waits."""
        waits = self._waiting.validates(message.topic)
        acceptance = Acceptance.ACCEPT if rules.validator is None else rules.validator(message, now)
        if waits and acceptance is Acceptance.ACCEPT and not self._waiting.again(message, state.peer):
            if not self._waiting.put(message, state.peer, now):
                self._stats.validation_full += 1
                self._lazy.excused(message.id)
                return  # not marked as seen: the next copy may find room
            out.append(Validate(message, state.peer))
        self._seen.add(message.id, now)
        self._lazy.arrived(message.id, now)
        if rules.sequenced and acceptance is Acceptance.ACCEPT:
            self._count(message, now)  # not of those from the future, which would make all others old
        if acceptance is not Acceptance.ACCEPT:
            self._judge(Judged(message, state.peer, 0, now), acceptance, now, out)
        elif not waits:
            self._deliver(message, (state.peer,), now, out)

    def _count(self, message: GossipMessage, now: float) -> None:
        sequences = self._sequences.get(message.topic)
        if sequences is None:
            sequences = Sequences(self._config.seen_ttl_s, self._config.max_sources)
            self._sequences[message.topic] = sequences
        sequences.used(message.source, message.sequence, now)

    def _deliver(self, message: GossipMessage, senders: Iterable[PeerId], now: float, out: Outputs) -> None:
        """senders: who has it already, the first one first."""
        self._stats.delivered += 1
        known = tuple(senders)
        out.append(Delivered(message, known[0]))
        members = self._mesh.meshes.get(message.topic)
        receivers = {} if members is None else self._mesh.receivers(message.topic, members)
        # Neither to who sent it nor to who made it (gossipsub 1.0, "Message processing").
        self._stats.forwarded += self.spread(message, receivers, (*known, message.source))
        if self._scores.scored:
            self._reward(message, known, now)

    def _reward(self, message: GossipMessage, senders: tuple[PeerId, ...], now: float) -> None:
        first = self._peers.get(senders[0])
        if first is not None:
            self._scores.delivered(first.score, message.topic, message.id, now)
        for peer in senders[1:]:
            state = self._peers.get(peer)
            if state is not None:
                self._scores.copied(state.score, message.id, now)

    def spread(
        self, message: GossipMessage, peers: Mapping[PeerId, PeerState], known: tuple[PeerId, ...] = ()
    ) -> int:
        """Keep a message for those who ask, and send it to those of the peers that do not have it; returns how many.
        known: peers that do."""
        rules = self._topics.rules(message.topic)
        replaces = (message.topic, message.source) if rules.latest_only else None
        self._lazy.cache.put(message.id, message, replaces)
        receivers: list[PeerId] = []
        for peer, state in peers.items():
            if peer in known:
                continue
            if message.id in state.unwanted:
                self._stats.unwanted += 1
            else:
                receivers.append(peer)
        self._outbox.message(receivers, message.id, message, rules.interval_s, replaces)
        return len(receivers)

    # What the application says ------------------------------------------------------------------------------

    def start(self, topic: str, timeout_s: float) -> None:
        """The application judges a topic's messages from now on."""
        self._waiting.start(topic, timeout_s)

    def stop(self, topic: str, now: float, out: Outputs) -> None:
        """It does not any more, nor those that wait."""
        for judged in self._waiting.stop(topic):
            self._judge(judged, Acceptance.IGNORE, now, out)

    def validated(self, message_id: bytes, acceptance: Acceptance, now: float, out: Outputs) -> None:
        """It has judged a message."""
        judged = self._waiting.take(message_id)
        if judged is not None:
            self._judge(judged, acceptance, now, out)

    def _judge(self, judged: Judged, acceptance: Acceptance, now: float, out: Outputs) -> None:
        """gossipsub 1.1, "Extended validators"."""
        if acceptance is Acceptance.ACCEPT:
            self._deliver(judged.message, judged.senders, now, out)
        elif acceptance is Acceptance.IGNORE:
            self._stats.ignored += 1
        else:
            self._stats.rejected += 1
            self._rejected.add(_content(judged.message), now)
            for peer in judged.senders:
                state = self._peers.get(peer)
                if state is not None:
                    self._scores.rejected(state.score, judged.message.topic, now)

    # Time and peers -----------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """When `advance` is wanted."""
        return self._waiting.deadline() if self._waiting else float("inf")

    def advance(self, now: float, out: Outputs) -> None:
        """Ignore what has waited for too long."""
        for judged in self._waiting.expire(now):
            self._stats.timed_out += 1
            self._judge(judged, Acceptance.IGNORE, now, out)

    def gone(self, peer: PeerId) -> None:
        """A peer's connection closed."""
        if self._waiting:
            self._waiting.gone(peer)

    def left(self, topic: str, now: float, out: Outputs) -> None:
        """This peer left a topic."""
        self._sequences.pop(topic, None)
        for judged in self._waiting.drop(topic):
            self._judge(judged, Acceptance.IGNORE, now, out)


def _content(message: GossipMessage) -> bytes:
    """Names a message by what it says. Ids do not: a source may sign two messages with one sequence number, and give
    the bad one to some and the good one to those who pass it on to them."""
    digest = sha256(message.topic.encode(errors="replace"))
    digest.update(message.signature)
    digest.update(message.data)
    return digest.digest()
