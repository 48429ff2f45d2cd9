"""Lazy gossip: IHAVE, IWANT and the promises they make (gossipsub 1.0, "Control messages"; 1.1, "Spam
protection measures").

Peers outside a topic's mesh hear of its recent messages by id, and ask for those that they miss. Who advertises an
id promises the message: asked for and not delivered within the follow-up time, it counts against its score.
"""

from __future__ import annotations

from collections.abc import Collection, Container
from random import Random

from ..identity import PeerId
from .caches import MessageCache
from .config import GossipConfig, GossipStats
from .id_forms import read_ids, read_offer, write_ids, write_offer
from .messages import IHave
from .outbox import Outbox
from .peers import Peers, PeerState
from .seen import SeenCache


class LazyGossip:
    """Advertises the message cache, asks for what others advertise, and holds them to it.

    Promises are bounded by the IHAVE caps: one a peer and RPC listened to, for the follow-up time.
    """

    __slots__ = ("_beat", "_config", "_outbox", "_promises", "_rng", "_stats", "cache", "peers", "seen")

    def __init__(
        self,
        peers: Peers,
        outbox: Outbox,
        seen: SeenCache,
        rng: Random,
        config: GossipConfig,
        stats: GossipStats,
    ) -> None:
        self.peers, self._outbox, self.seen = peers, outbox, seen
        self._rng, self._config, self._stats = rng, config, stats
        self.cache = MessageCache(
            config.history, config.history_gossip, config.max_cached, config.max_cached_bytes
        )
        self._promises: dict[bytes, dict[PeerId, float]] = {}
        self._beat = 0

    @property
    def idle(self) -> bool:
        """Whether a heartbeat would have nothing to advertise, to age or to wait for."""
        return not self._promises and not len(self.cache)

    @property
    def promises(self) -> int:
        """Promises that are waited for."""
        return sum(map(len, self._promises.values()))

    def offered(
        self, state: PeerState, offers: tuple[IHave, ...], topics: Container[str], now: float
    ) -> None:
        """IHAVE: ask for what is new, within the caps per peer and heartbeat."""
        config = self._config
        if self._outbox.congested(state.peer):
            return  # the question would wait, and the answer be late
        if not state.score.clean and state.score.value(now) < config.score.gossip_threshold:
            return
        self._begin(state)
        state.ihave_rpcs += 1
        if state.ihave_rpcs > config.max_ihave_rpcs or state.ihave_ids >= config.max_ihave_ids:
            self._stats.over_limit += 1
            # Counted once a heartbeat: a stall of ours may have piled up what came in good time.
            if state.ihave_rpcs == config.max_ihave_rpcs + 1:
                state.score.misbehaved(now)
            return
        wanted: dict[bytes, None] = {}
        for offer in offers:
            if offer.topic in topics:
                ids = read_offer(state, offer).ids
                wanted.update(dict.fromkeys(self.seen.unseen(ids, now)))
        if not wanted:
            return
        chosen = list(wanted)
        self._rng.shuffle(chosen)  # so that several peers asked for a part each are asked for different parts
        del chosen[config.max_ihave_ids - state.ihave_ids :]
        state.ihave_ids += len(chosen)
        self._promises.setdefault(chosen[0], {}).setdefault(state.peer, now + config.iwant_followup_s)
        self._outbox.iwant(state.peer, write_ids(state, tuple(chosen)))

    def asked(self, state: PeerState, ids: tuple[bytes, ...], now: float) -> None:
        """IWANT: send what is still there, each message to each peer only so often, and only so many bytes in one
        heartbeat: an id costs far less than the message that it brings."""
        if not state.score.clean and state.score.value(now) < self._config.score.gossip_threshold:
            return
        self._begin(state)
        for message_id in dict.fromkeys(read_ids(state, ids, own=False)):
            if state.iwant_bytes >= self._config.max_iwant_bytes:
                self._stats.over_limit += 1
                return
            found = self.cache.send_again(message_id, state.peer)
            if found is None:
                continue
            message, count = found
            if count <= self._config.retransmissions:
                state.iwant_bytes += message.held_bytes
                self._outbox.message((state.peer,), message_id, message)
            else:
                self._stats.over_limit += 1

    def _begin(self, state: PeerState) -> None:
        """What is counted by heartbeat starts from 0 with each."""
        if state.beat != self._beat:
            state.beat, state.ihave_rpcs, state.ihave_ids, state.iwant_bytes = self._beat, 0, 0, 0

    def arrived(self, message_id: bytes, now: float) -> None:
        """A message came, genuine and for the first time: whoever promised it has kept its word."""
        promised = self._promises.pop(message_id, None)
        if promised is None:
            return
        self._stats.promises_kept += 1
        for peer in promised:
            state = self.peers.get(peer)
            if state is not None:
                state.score.kept_promise(now)

    def excused(self, message_id: bytes) -> None:
        """What came under that id is of no use to us, by nobody's fault: whoever promised it is not to be blamed."""
        self._promises.pop(message_id, None)

    def gone(self, peer: PeerId) -> None:
        """A peer's connection closed; it is not held to its promises."""
        for promised in self._promises.values():  # those left empty go at the next heartbeat
            promised.pop(peer, None)

    def advertise(self, topic: str, known: Collection[PeerId], now: float) -> None:
        """Heartbeat: IHAVE to some of the topic's peers outside its mesh or fanout, `known` (gossipsub 1.1,
        "Adaptive gossip dissemination")."""
        ids = self.cache.recent(topic)
        if not ids:
            return
        config = self._config
        threshold = config.score.gossip_threshold
        candidates = [
            state
            for state in self.peers.of(topic).values()
            if state.peer not in known
            and not state.direct
            and not self._outbox.congested(state.peer)
            and (state.score.clean or state.score.value(now) >= threshold)
        ]
        count = max(config.gossip_degree, int(config.gossip_factor * len(candidates)))
        if len(candidates) > count:
            candidates = self._rng.sample(candidates, count)
        whole = IHave(topic, tuple(ids))
        for state in candidates:
            if len(ids) > config.max_ihave_ids:  # each peer gets a different part
                whole = IHave(topic, tuple(self._rng.sample(ids, config.max_ihave_ids)))
            self._outbox.ihave(state.peer, write_offer(state, whole))

    def beat(self, now: float) -> None:
        """Heartbeat, after advertising: age the cache and look for broken promises."""
        self._beat += 1
        self.cache.shift()
        if self._promises:
            self._find_broken(now)

    def _find_broken(self, now: float) -> None:
        for message_id in list(self._promises):
            promised = self._promises[message_id]
            for peer in [peer for peer, until in promised.items() if until <= now]:
                del promised[peer]
                self._stats.promises_broken += 1
                state = self.peers.get(peer)
                if state is not None:
                    state.score.broke_promise(now)
            if not promised:
                del self._promises[message_id]
