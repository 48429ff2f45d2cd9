"""Meshes and fanouts: to whom a topic's messages are pushed (gossipsub 1.0 and 1.1).

A *mesh* belongs to a topic that this peer subscribes to: D or so peers, chosen mutually by GRAFT, that
exchange its messages in full. A *fanout* belongs to a topic that this peer only publishes on.

    a topic's other peers --GRAFT sent, or received and accepted--> mesh
    mesh --PRUNE sent or received--> other peers, in backoff --time--> may be grafted again

Beyond the specs: a peer that announces a topic whose mesh is too small is grafted at once rather than at the
next heartbeat, so that newcomers and restarted peers miss as little as possible.

Bounds. From Dhi on only peers that this one dialled may graft themselves: those an attacker cannot bring about. A mesh
with Dhi or more is cut back to D at the heartbeat, as in go-libp2p-pubsub: a full one would take no newcomers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from random import Random

from ..identity import PeerId
from .config import GossipConfig
from .exchange import PeerExchange
from .mesh_choice import Member, median, surplus
from .messages import Exchanged, Prune
from .outbox import Outbox
from .peers import Peers, PeerState

_MAX_BACKOFF_S = 3600.0
"""Longer backoffs are cut to this: an hour is as good as for ever, and the entry gets old."""


class _Fanout:
    __slots__ = ("peers", "published")

    def __init__(self, peers: Iterable[PeerState], published: float) -> None:
        self.peers = {state.peer: state for state in peers}
        self.published = published


class Mesh:
    """Keeps the meshes of all subscribed topics within their bounds, and the fanouts of the others."""

    __slots__ = (
        "_beats",
        "_config",
        "_exchange",
        "_fanouts",
        "_meshes",
        "_outbox",
        "_peers",
        "_rng",
        "_scores",
    )

    def __init__(
        self, peers: Peers, outbox: Outbox, exchange: PeerExchange, rng: Random, config: GossipConfig
    ) -> None:
        self._peers, self._outbox, self._exchange = peers, outbox, exchange
        self._rng, self._config = rng, config
        self._scores = peers.scores
        self._beats = 0
        self._meshes: dict[str, dict[PeerId, PeerState]] = {}
        self._fanouts: dict[str, _Fanout] = {}

    @property
    def meshes(self) -> dict[str, dict[PeerId, PeerState]]:
        """Topic to its mesh, of all subscribed topics. Not to be changed."""
        return self._meshes

    @property
    def fanouts(self) -> dict[str, dict[PeerId, PeerState]]:
        """Topic to its fanout peers."""
        return {topic: fanout.peers for topic, fanout in self._fanouts.items()}

    @property
    def idle(self) -> bool:
        """Whether a heartbeat would have nothing to look after."""
        return not self._meshes and not self._fanouts

    # What the application wants -----------------------------------------------------------------------------

    def join(self, topic: str, now: float) -> None:
        """Build a mesh, first out of the topic's fanout (gossipsub 1.0, JOIN)."""
        members = self._meshes[topic] = {}
        fanout = self._fanouts.pop(topic, None)
        if fanout is not None:
            chosen = [state for state in fanout.peers.values() if self._may_graft(state, topic, members, now)]
            self._graft(topic, members, chosen[: self._config.mesh_degree], now)
        self._fill(topic, members, now)

    def leave(self, topic: str, now: float) -> None:
        """Prune every peer of the topic's mesh (gossipsub 1.0, LEAVE), with the short backoff of 1.1."""
        for state in self._meshes.pop(topic).values():
            self._scores.left(state.score, topic, now, failed=False)
            self._part(state, topic, self._config.unsubscribe_backoff_s, now)

    def targets(self, topic: str, now: float) -> dict[PeerId, PeerState]:
        """Whom an own message goes to (gossipsub 1.0, "Message processing"; 1.1, "Flood publishing")."""
        threshold = self._config.score.publish_threshold
        members = self._meshes.get(topic)
        if members is None:
            fanout = self._fanouts.get(topic)
            if fanout is None:
                while len(self._fanouts) >= self._config.max_fanout:
                    del self._fanouts[min(self._fanouts, key=lambda name: self._fanouts[name].published)]
                fanout = self._fanouts[topic] = _Fanout((), now)
            fanout.published = now
            self._fill_fanout(topic, fanout, now)
            members = fanout.peers
        if not self._config.flood_publish:
            return self.receivers(topic, members)
        return {
            peer: state
            for peer, state in self._peers.of(topic).items()
            if state.score.clean or state.direct or state.score.value(now) >= threshold
        }

    def receivers(self, topic: str, members: dict[PeerId, PeerState]) -> dict[PeerId, PeerState]:
        """A topic's mesh or fanout, and the direct peers that follow the topic (gossipsub 1.1, "Explicit Peering
        Agreements"). Not to be changed."""
        direct = self._peers.direct
        if not direct:
            return members
        return members | {peer: state for peer, state in direct.items() if topic in state.topics}

    def may_exchange(self, state: PeerState, topic: str, now: float) -> bool:
        """Whether the peers that a peer names in PRUNE may be dialled (gossipsub 1.1, "Peer Exchange"). Not those of a
        second PRUNE within the backoff: one from whom we could not have come back need not be answered."""
        if topic not in self._meshes or now < state.backoff.get(topic, -math.inf):
            return False
        return state.direct or state.score.value(now) >= self._config.score.accept_px_threshold

    # What peers say -----------------------------------------------------------------------------------------

    def announced(self, state: PeerState, topic: str, now: float) -> None:
        """A peer subscribed: graft it at once if the mesh is too small."""
        members = self._meshes.get(topic)
        if members is None or len(members) >= self._config.mesh_low:
            return
        if self._may_graft(state, topic, members, now):
            self._graft(topic, members, (state,), now)

    def withdrawn(self, state: PeerState, topic: str, now: float) -> None:
        """A peer unsubscribed."""
        members = self._meshes.get(topic)
        if members is not None and members.pop(state.peer, None) is not None:
            self._scores.left(state.score, topic, now)
        fanout = self._fanouts.get(topic)
        if fanout is not None:
            fanout.peers.pop(state.peer, None)

    def gone(self, peer: PeerId) -> None:
        """A peer's connection closed."""
        for members in self._meshes.values():
            members.pop(peer, None)
        for fanout in self._fanouts.values():
            fanout.peers.pop(peer, None)

    def returned(self, peer: PeerId) -> None:
        """A peer's connection is new although the old one never ended: it may have restarted and know nothing
        of our meshes."""
        for topic, members in self._meshes.items():
            if peer in members:
                self._outbox.graft(peer, topic)

    def grafted(self, state: PeerState, topic: str, now: float) -> None:
        """GRAFT (gossipsub 1.0, "Topic membership"; 1.1, "Prune backoff", "Outbound Mesh Quotas" and "Spam protection
        measures").

        Ignored for topics that this peer is not in; an answer would tell strangers so.
        """
        members = self._meshes.get(topic)
        if members is None or state.peer in members:
            return
        config = self._config
        if state.direct:
            self._outbox.prune(state.peer, topic, config.prune_backoff_s)
            return
        named: tuple[Exchanged, ...] = ()
        until = state.backoff.get(topic, -math.inf)
        if now < until:
            state.score.misbehaved(now)
            if now < until - config.prune_backoff_s + config.graft_flood_s:
                state.score.misbehaved(now)
        elif (len(members) < config.mesh_high or state.outbound) and state.score.value(now) >= 0:
            members[state.peer] = state
            self._scores.joined(state.score, topic, now)
            return
        else:
            named = self._exchange.offer(state, topic, now)
        self._outbox.prune(state.peer, topic, config.prune_backoff_s, named)
        self._back_off(state, topic, config.prune_backoff_s, now)

    def pruned(self, state: PeerState, prune: Prune, now: float) -> None:
        """PRUNE, with the backoff it asks for or else the default (gossipsub 1.1, "Prune backoff")."""
        members = self._meshes.get(prune.topic)
        if members is None:
            return
        if members.pop(state.peer, None) is not None:
            self._scores.left(state.score, prune.topic, now)
        self._outbox.take_back_graft(state.peer, prune.topic)
        backoff_s = min(float(prune.backoff_s), _MAX_BACKOFF_S) or self._config.prune_backoff_s
        self._back_off(state, prune.topic, backoff_s, now)
        state.asked[prune.topic] = state.backoff[prune.topic]

    # Heartbeat ----------------------------------------------------------------------------------------------

    def maintain(self, now: float) -> None:
        """Bring each mesh and fanout within bounds (gossipsub 1.1, "Maintaining the mesh"; 1.0, "Fanout
        maintenance")."""
        config = self._config
        self._beats += 1
        self._scores.beat(now)
        for topic, members in self._meshes.items():
            bad = [s for s in members.values() if not s.score.clean and s.score.value(now) < 0]
            if bad:
                self._prune(topic, members, bad, now)
            if len(members) < config.mesh_low:
                self._fill(topic, members, now)
            if len(members) >= config.mesh_high:
                self._cut_back(topic, members, now)
            if len(members) >= config.mesh_low:
                self._fill_outbound(topic, members, now)
            if self._beats % config.opportunistic_graft_beats == 0:
                self._improve(topic, members, now)
        for topic in list(self._fanouts):
            fanout = self._fanouts[topic]
            if now >= fanout.published + config.fanout_ttl_s:
                del self._fanouts[topic]
            else:
                self._fill_fanout(topic, fanout, now)

    def _fill(self, topic: str, members: dict[PeerId, PeerState], now: float) -> None:
        wanted = self._config.mesh_degree - len(members)
        chosen = self._peers.sample(
            topic, wanted, self._rng, lambda state: self._may_graft(state, topic, members, now)
        )
        self._graft(topic, members, chosen, now)

    def _cut_back(self, topic: str, members: dict[PeerId, PeerState], now: float) -> None:
        """Keep the best and the outbound ones of too many."""
        config, states = self._config, list(members.values())
        choice = [Member(i, state.score.value(now), state.outbound) for i, state in enumerate(states)]
        numbers = surplus(choice, config.mesh_degree, config.mesh_score, config.outbound_quota, self._rng)
        self._prune(topic, members, [states[number] for number in numbers], now)

    def _fill_outbound(self, topic: str, members: dict[PeerId, PeerState], now: float) -> None:
        """Graft outbound peers when there are too few in the mesh."""
        wanted = self._config.outbound_quota - sum(state.outbound for state in members.values())
        if wanted > 0:
            chosen = self._peers.sample(
                topic,
                wanted,
                self._rng,
                lambda state: state.outbound and self._may_graft(state, topic, members, now),
            )
            self._graft(topic, members, chosen, now)

    def _improve(self, topic: str, members: dict[PeerId, PeerState], now: float) -> None:
        """Opportunistic grafting: out of a mesh of poor peers there is a way (gossipsub 1.1)."""
        if len(members) < 2:
            return
        middle = median([state.score.value(now) for state in members.values()])
        if middle < self._config.score.opportunistic_graft_threshold:
            chosen = self._peers.sample(
                topic,
                self._config.opportunistic_graft_peers,
                self._rng,
                lambda s: s.score.value(now) > middle and self._may_graft(s, topic, members, now),
            )
            self._graft(topic, members, chosen, now)

    def _fill_fanout(self, topic: str, fanout: _Fanout, now: float) -> None:
        threshold = self._config.score.publish_threshold
        for state in [s for s in fanout.peers.values() if s.score.value(now) < threshold]:
            del fanout.peers[state.peer]
        wanted = self._config.mesh_degree - len(fanout.peers)
        if wanted <= 0 or len(self._peers.of(topic)) <= len(fanout.peers):
            return
        for state in self._peers.sample(
            topic,
            wanted,
            self._rng,
            lambda s: s.peer not in fanout.peers and not s.direct and s.score.value(now) >= threshold,
        ):
            fanout.peers[state.peer] = state

    def _may_graft(self, state: PeerState, topic: str, members: dict[PeerId, PeerState], now: float) -> bool:
        if state.direct or state.peer in members or (not state.score.clean and state.score.value(now) < 0):
            return False
        # Two heartbeats later than agreed, so that a GRAFT never arrives early by the other side's clock.
        until = max(state.backoff.get(topic, -math.inf), state.asked.get(topic, -math.inf))
        return now >= until + 2 * self._config.heartbeat_s

    def _graft(
        self, topic: str, members: dict[PeerId, PeerState], states: Iterable[PeerState], now: float
    ) -> None:
        for state in states:
            members[state.peer] = state
            self._scores.joined(state.score, topic, now)
            self._outbox.graft(state.peer, topic)

    def _prune(
        self, topic: str, members: dict[PeerId, PeerState], states: Iterable[PeerState], now: float
    ) -> None:
        for state in states:
            del members[state.peer]
            self._scores.left(state.score, topic, now)
            self._part(state, topic, self._config.prune_backoff_s, now)

    def _part(self, state: PeerState, topic: str, backoff_s: float, now: float) -> None:
        """PRUNE, with whom to go to instead."""
        self._outbox.prune(state.peer, topic, backoff_s, self._exchange.offer(state, topic, now))
        self._back_off(state, topic, backoff_s, now)

    def _back_off(self, state: PeerState, topic: str, seconds: float, now: float) -> None:
        """Never shortens a backoff. Old entries go when there are many: only our own topics get one."""
        if (
            len(state.backoff) >= 64 and topic not in state.backoff
        ):  # or each of 10,000 PRUNEs would look at all
            horizon = now - 2 * self._config.heartbeat_s
            state.backoff = {name: until for name, until in state.backoff.items() if until > horizon}
            state.asked = {name: until for name, until in state.asked.items() if name in state.backoff}
        state.backoff[topic] = max(state.backoff.get(topic, 0.0), now + seconds)
