"""GossipRouter: the gossip engine, gossipsub 1.2 (libp2p specs, pubsub/gossipsub).

Theory of operation. Each subscribed topic has a *mesh* of a few peers (mesh.py). A message comes in an RPC; the seen
cache drops repeats; its signature is checked, once; validators judge it (intake.py); it is delivered, and leaves at
once for the rest of the mesh. What got lost on the way returns lazily (lazy.py): at each heartbeat ids of recent
messages go to random peers outside the mesh (IHAVE), who ask for what they miss (IWANT). Peers that lie pay for it
(score.py).

    Subscribe / Unsubscribe ----> mesh ----> GRAFT, PRUNE ------+
    Publish ----> sign ---------> mesh or fanout, or all -------+--> outbox --flush--> one Rpc per peer
    Received(Rpc) -> intake -> Delivered -> mesh -------------+
    Tick (heartbeat) -> meshes within bounds -> IHAVE ----------+

1.2's IDONTWANT is in idontwant.py, 1.1's peer exchange in exchange.py.

The heartbeat runs only while there is something to look after: `deadline()` of an engine without
subscriptions, recent publications or cached messages is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from random import Random
from typing import Final, assert_never

from ..engine import (
    Certified,
    Congested,
    Engine,
    Located,
    NetworkEvent,
    PeerDown,
    PeerUp,
    Reachable,
    Received,
    Speaks,
    Tick,
    Undeliverable,
)
from ..identity import PeerId
from ..signed import Sign, Verify
from .config import GossipConfig, GossipStats
from .direct import DirectPeers
from .events import (
    GossipCommand,
    GossipOutput,
    Publish,
    SetAppScore,
    StartValidating,
    StopValidating,
    Subscribe,
    Unsubscribe,
    Validated,
)
from .exchange import PeerExchange
from .idontwant import Unwanted
from .intake import Intake, Outputs
from .lazy import LazyGossip
from .mesh import Mesh
from .messages import MAX_DATA_BYTES, MAX_TOPIC_BYTES, MessageForm, Rpc
from .outbox import Outbox
from .peers import Peers, PeerState
from .seen import SeenCache
from .topics import Topics
from .wire import StrictSign

_SEQNO_MODULUS: Final = 1 << 64


class GossipRouter(Engine[GossipCommand, GossipOutput]):
    """Publishes, delivers and forwards signed messages; the module's docstring says how."""

    def __init__(
        self,
        peer: PeerId,
        sign: Sign,
        verify: Verify,
        rng: Random,
        config: GossipConfig | None = None,
        form: MessageForm | None = None,
    ) -> None:
        """peer: this one. form: how messages are made; by default signed protobuf, as on real networks.
        Simulations pass messages.BareMessages() and stand-ins for sign and verify."""
        self._peer, self._sign, self._rng = peer, sign, rng
        self._config = config = config or GossipConfig()
        self.stats = GossipStats()
        self._peers = Peers(config, self.stats)
        self._scores = self._peers.scores
        self._outbox = Outbox(config, self.stats)
        self._seen = SeenCache(config.seen_ttl_s, config.max_seen)
        self._exchange = PeerExchange(peer, verify, self._peers, rng, config, self.stats)
        self._mesh = Mesh(self._peers, self._outbox, self._exchange, rng, config)
        self._lazy = LazyGossip(self._peers, self._outbox, self._seen, rng, config, self.stats)
        self._topics = Topics(config, form or StrictSign())
        self._unwanted = Unwanted(self._peers, self._outbox, config, self.stats)
        self._intake = Intake(
            peer,
            verify,
            self._topics,
            self._mesh,
            self._lazy,
            self._unwanted,
            self._outbox,
            config,
            self.stats,
        )
        self._subscribed: dict[str, int] = {}  # topic to the number of Subscribes that stand
        self._greeted: dict[
            PeerId, float
        ] = {}  # when each peer last got our subscriptions, longest ago first
        self._seqno = -1
        self._direct = DirectPeers(config)
        self._heartbeat_at = 0.0 if self._direct.wanted else math.inf

    # What a snapshot of the engine shows --------------------------------------------------------------------

    @property
    def topics(self) -> tuple[str, ...]:
        """Subscribed topics, in the order they were first subscribed to."""
        return tuple(self._subscribed)

    def mesh(self, topic: str) -> tuple[PeerId, ...]:
        """Peers in a topic's mesh; empty when this peer does not subscribe."""
        return tuple(self._mesh.meshes.get(topic, ()))

    def fanout(self, topic: str) -> tuple[PeerId, ...]:
        """Peers in a topic's fanout; empty when there is none."""
        return tuple(self._mesh.fanouts.get(topic, ()))

    def subscribers(self, topic: str) -> tuple[PeerId, ...]:
        """Connected peers that subscribe to a topic."""
        return tuple(self._peers.of(topic))

    def score(self, peer: PeerId, now: float) -> float:
        """A connected peer's score; 0 for others."""
        state = self._peers.get(peer)
        return state.score.value(now) if state is not None else 0.0

    def sizes(self) -> dict[str, int]:
        """How many entries each table, cache and queue holds; for checks that they stay within their bounds."""
        return {
            "peers": len(self._peers),
            "peer_topics": max((len(state.topics) for state in self._peers), default=0),
            "backoffs": max((len(state.backoff) for state in self._peers), default=0),
            "unwanted": max((len(state.unwanted) for state in self._peers), default=0),
            "fanouts": len(self._mesh.fanouts),
            "mesh": max(map(len, self._mesh.meshes.values()), default=0),
            "seen": len(self._seen),
            "cached": len(self._lazy.cache),
            "cached_bytes": self._lazy.cache.held_bytes,
            "promises": self._lazy.promises,
            **self._outbox.sizes(),
            **self._intake.sizes(),
            **self._scores.sizes(),
            **self._exchange.sizes(),
        }

    # The engine ---------------------------------------------------------------------------------------------

    def handle(self, event: NetworkEvent | GossipCommand, now: float) -> Outputs:
        out: Outputs = []
        match event:
            case Received(sender, message):
                if isinstance(message, Rpc):
                    self._received(sender, message, now, out)
            case Congested(peer, _, congested):
                if congested and self._peers.get(peer) is not None:
                    self._outbox.hold(peer)
                else:
                    self._outbox.release(peer, now)
            case Certified(peer, record):
                self._exchange.certified(peer, record)
            case Speaks(peer, _, _, agreed):
                self._unwanted.agreed(peer, agreed)
            case Tick() | Undeliverable() | Reachable() | Located():
                pass
            case Publish(topic, data):
                self._publish(topic, data, now)
            case Subscribe(topic):
                self._subscribe(topic, now)
            case Unsubscribe(topic):
                self._unsubscribe(topic, now, out)
            case StartValidating(topic, timeout_s):
                self._intake.start(topic, timeout_s)
            case StopValidating(topic):
                self._intake.stop(topic, now, out)
            case Validated(message_id, acceptance):
                self._intake.validated(message_id, acceptance, now, out)
                self._wake(now)
            case PeerUp():
                self._peer_up(event, now)
            case PeerDown(peer):
                self._peer_down(peer, now)
            case SetAppScore(peer, value):
                state = self._peers.get(peer)
                self._scores.set_app(peer, value, state.score if state is not None else None)
            case _:
                assert_never(event)
        # Not only at a Tick: a runner that is behind may have events to hand over before it.
        if now >= self._heartbeat_at:
            out += self._direct.dial(self._peers, self._subscribed, now)
            self._heartbeat(now, out)
            self._heartbeat_at = math.inf if self._idle else now + self._config.heartbeat_s
        if now >= self._intake.deadline():
            self._intake.advance(now, out)
        if self._outbox.stirred() or now >= self._outbox.deadline():
            out.extend(self._outbox.flush(now))
        return out

    def deadline(self) -> float:
        return min(self._heartbeat_at, self._outbox.deadline(), self._intake.deadline())

    @property
    def _idle(self) -> bool:
        return self._mesh.idle and self._lazy.idle and not self._direct.wanted

    def _wake(self, now: float) -> None:
        """Begin heartbeats, at a phase of our own: engines that start together should not beat together."""
        if self._heartbeat_at == math.inf and not self._idle:
            self._heartbeat_at = now + self._config.heartbeat_s * (0.1 + 0.9 * self._rng.random())

    # Commands -----------------------------------------------------------------------------------------------

    def _subscribe(self, topic: str, now: float) -> None:
        count = self._subscribed.get(topic, 0)
        if not 1 <= len(topic.encode(errors="replace")) <= MAX_TOPIC_BYTES:
            return  # messages.check_topic told the application
        self._subscribed[topic] = count + 1
        if count:
            return
        self._announce(topic, True)
        self._mesh.join(topic, now)
        self._wake(now)

    def _unsubscribe(self, topic: str, now: float, out: Outputs) -> None:
        count = self._subscribed.get(topic, 0)
        if count > 1:
            self._subscribed[topic] = count - 1
        if count != 1:
            return
        del self._subscribed[topic]
        self._announce(topic, False)
        self._mesh.leave(topic, now)
        self._intake.left(topic, now, out)

    def _announce(self, topic: str, joined: bool) -> None:
        for state in self._peers:
            self._outbox.subscriptions(state.peer, (topic,), joined)

    def _publish(self, topic: str, data: bytes, now: float) -> None:
        if len(data) > MAX_DATA_BYTES or len(topic) > MAX_TOPIC_BYTES:
            self.stats.oversized += 1  # messages.check_publish told the application
            return
        # Nanoseconds since the epoch to begin with, so that numbers grow over restarts, as in
        # go-libp2p-pubsub.
        self._seqno = self._seqno + 1 if self._seqno >= 0 else int(now * 1e9)
        seqno = (self._seqno % _SEQNO_MODULUS).to_bytes(8, "big")
        rules = self._topics.rules(topic)
        message = rules.form.make(self._peer, topic, data, seqno, self._sign)
        if rules.identify is not None:
            message = message.named(rules.identify(message))
        message_id = message.id
        if rules.identify is not None and self._seen.has(message_id, now):
            self.stats.duplicates += 1  # said already, by whomever
            return
        self.stats.published += 1
        self._seen.add(message_id, now)
        self._intake.spread(message, self._mesh.targets(topic, now))
        self._wake(now)

    # Peers --------------------------------------------------------------------------------------------------

    def _peer_up(self, up: PeerUp, now: float) -> None:
        peer = up.peer
        state = self._peers.get(peer)
        if state is not None:
            self._peers.connects(state, up.outbound, up.remote)
            self._greet(peer, now)
            self._mesh.returned(peer)
        elif self._peers.add(peer, now, up.outbound, up.remote) is not None:
            self._greet(peer, now)
        self._exchange.connected(peer, up.record)

    def _greet(self, peer: PeerId, now: float) -> None:
        """All our subscriptions (pubsub spec, "The RPC": sent on every new connection)."""
        self._greeted.pop(peer, None)
        self._greeted[peer] = now
        if self._subscribed:
            self._outbox.subscriptions(peer, self._subscribed, True)

    def _peer_down(self, peer: PeerId, now: float) -> None:
        self._exchange.gone(peer)
        if self._peers.remove(peer, now) is None:
            return
        del self._greeted[peer]
        self._mesh.gone(peer)
        self._lazy.gone(peer)
        self._intake.gone(peer)
        self._unwanted.gone(peer)
        self._outbox.forget(peer)

    # RPCs ---------------------------------------------------------------------------------------------------

    def _received(self, sender: PeerId, rpc: Rpc, now: float, out: Outputs) -> None:
        state = self._peers.get(sender)
        if state is None:
            # It was faster than its PeerUp.
            self._peer_up(PeerUp(sender), now)
            state = self._peers.get(sender)
            if state is None:
                return
        if not state.score.clean and self._scores.is_graylisted(state.score, now) and not state.direct:
            self.stats.graylisted += 1
            return
        if rpc.subscriptions:
            self._subscriptions(state, rpc.subscriptions, now)
        if rpc.publish:
            self._intake.take(state, rpc.publish, now, out)
            self._wake(now)
        if rpc.ihave:
            self._lazy.offered(state, rpc.ihave, self._subscribed, now)
        if rpc.iwant:
            self._lazy.asked(state, rpc.iwant, now)
        for topic in rpc.graft:
            if topic in self._subscribed:
                self._peers.joins(state, topic)  # whoever grafts subscribes, though the announcement got lost
                self._mesh.grafted(state, topic, now)
        for prune in rpc.prune:
            if prune.peers and self._mesh.may_exchange(state, prune.topic, now):
                self._exchange.named(prune.topic, prune.peers, state.remote, now)
            self._mesh.pruned(state, prune, now)
        if rpc.idontwant and not self._idle:
            self._unwanted.heard(state, rpc.idontwant)

    def _subscriptions(self, state: PeerState, changes: Iterable[tuple[str, bool]], now: float) -> None:
        known = False
        for topic, joined in changes:
            if not joined:
                self._peers.leaves(state, topic)
                self._mesh.withdrawn(state, topic, now)
            elif self._peers.joins(state, topic):
                self._mesh.announced(state, topic, now)
            else:
                known = known or topic in state.topics
        if known and now >= self._greeted[state.peer] + self._config.heartbeat_s:
            # It says again what we knew: now and then everybody does. But it may have restarted, without the end of its
            # old connection having been noticed, and then it knows nothing of us.
            self._greet(state.peer, now)
            self._mesh.returned(state.peer)

    # Heartbeat ----------------------------------------------------------------------------------------------

    def _heartbeat(self, now: float, out: Outputs) -> None:
        """gossipsub 1.0, "Heartbeat": meshes, fanouts, gossip, and the cache's next window.

        IHAVE leaves out those who were in the mesh before it was tended to, and so pushed the messages: the
        newly grafted hear of them.
        """
        pushed = [(topic, tuple(members)) for topic, members in self._mesh.meshes.items()]
        pushed.extend((topic, tuple(members)) for topic, members in self._mesh.fanouts.items())
        self._mesh.maintain(now)
        out.extend(self._exchange.beat(self._mesh.meshes, self._subscribed, now))
        for topic, members in pushed:
            self._lazy.advertise(topic, members, now)
        self._lazy.beat(now)
        self._unwanted.beat(self._idle)
        until = now - self._config.hello_interval_s
        while self._greeted:
            peer = next(iter(self._greeted))
            if self._greeted[peer] > until:
                break
            self._greet(peer, now)
