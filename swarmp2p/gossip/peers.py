"""The peers a gossip engine is connected to, and the topics each of them follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Final

from ..engine import Address
from ..identity import PeerId
from .config import GossipConfig, GossipStats
from .score import PeerScore
from .scores import Scores

_IP4: Final = b"\x04"  # multiaddr's codes
_IP6: Final = b"\x29"
_MAPPED: Final = bytes(10) + b"\xff\xff"  # IPv4 as seen by a socket for both (RFC 4291 §2.5.5.2)
_LOOPBACK6: Final = bytes(15) + b"\x01"


class PeerState:
    """What is known of one connected peer. Gone when its connection is."""

    __slots__ = (
        "asked",
        "backoff",
        "beat",
        "direct",
        "ihave_ids",
        "ihave_rpcs",
        "iwant_bytes",
        "outbound",
        "peer",
        "place",
        "remote",
        "score",
        "short_ids",
        "takes_idontwant",
        "topic_bytes",
        "topics",
        "unwanted",
    )

    def __init__(self, peer: PeerId, score: PeerScore) -> None:
        self.peer = peer
        self.score = score
        self.topics: dict[str, None] = {}
        """Topics it subscribes to."""
        self.topic_bytes = 0
        """Length of their names."""
        self.backoff: dict[str, float] = {}
        """Topic to the time before which neither side may graft the other."""
        self.asked: dict[str, float] = {}
        """Of those, what its PRUNEs asked for. Outlives the connection, since it may remember; what we asked for does
        not, since it may have restarted."""
        self.unwanted: dict[bytes, int] = {}
        """Ids of its IDONTWANT, and the heartbeat in which they came."""
        self.takes_idontwant = True
        """Speaks gossipsub 1.2, as far as is known."""
        self.short_ids = False
        """Names messages as js-libp2p does, see id_forms.py."""
        self.outbound = False
        """This side dialled it: an attacker cannot bring that about at will."""
        self.place = b""
        """The host that its connection comes from, see `place_of`; b"" when unknown."""
        self.remote: Address = b""
        """Where its connection comes from."""
        self.direct = False
        """One of GossipConfig.direct_peers."""
        self.beat = -1
        """Heartbeat that the counters below belong to."""
        self.ihave_rpcs = 0
        self.ihave_ids = 0
        self.iwant_bytes = 0


def place_of(remote: Address) -> bytes:
    """The host of a binary multiaddr, as far as one attacker is likely to own it: an IPv4 address (4 bytes), or the
    first 64 bits of an IPv6 address. b"" for others and for loopback, where everybody is one's own."""
    if remote[:1] == _IP4 and len(remote) >= 5:
        host = remote[1:5]
    elif remote[:1] == _IP6 and len(remote) >= 17:
        host = remote[13:17] if remote[1:13] == _MAPPED else remote[1:17]
    else:
        return b""
    if len(host) == 4:
        return b"" if host[0] == 127 else host
    return b"" if host == _LOOPBACK6 else host[:8]


class Peers:
    """All connected peers, by id and by topic. Iterates in the order they came up."""

    __slots__ = ("_asked", "_by_topic", "_config", "_direct", "_states", "_stats", "direct", "scores")

    def __init__(self, config: GossipConfig, stats: GossipStats) -> None:
        self._config, self._stats = config, stats
        self._states: dict[PeerId, PeerState] = {}
        self._by_topic: dict[str, dict[PeerId, PeerState]] = {}
        self._direct = frozenset(info.peer for info in config.direct_peers)
        self.direct: dict[PeerId, PeerState] = {}
        """Direct peers that are connected. Not to be changed."""
        self.scores = Scores(config)
        self._asked: dict[PeerId, dict[str, float]] = {}  # of at most `max_peers` former peers, the latest

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[PeerState]:
        return iter(self._states.values())

    def __contains__(self, peer: object) -> bool:
        return peer in self._states

    def get(self, peer: PeerId) -> PeerState | None:
        """The state of a connected peer."""
        return self._states.get(peer)

    def add(
        self, peer: PeerId, now: float, outbound: bool = False, remote: Address = b""
    ) -> PeerState | None:
        """A new peer, as PeerUp tells of it; None when there are too many."""
        if len(self._states) >= self._config.max_peers:
            self._stats.over_limit += 1
            return None
        place = place_of(remote)
        state = self._states[peer] = PeerState(peer, self.scores.connected(peer, place, now))
        state.outbound, state.place, state.remote = outbound, place, remote
        state.asked = self._asked.pop(peer, {})
        if peer in self._direct:
            state.direct = True
            self.direct[peer] = state
        return state

    def connects(self, state: PeerState, outbound: bool, remote: Address) -> None:
        """A connection of a peer, as PeerUp tells of it."""
        place = place_of(remote)
        self.scores.moved(state.score, state.place, place)
        state.outbound, state.place, state.remote = outbound, place, remote

    def remove(self, peer: PeerId, now: float) -> PeerState | None:
        """Forget a peer; its score is kept for a while when it is below 0."""
        state = self._states.pop(peer, None)
        if state is None:
            return None
        for topic in list(state.topics):
            self.leaves(state, topic)
        self.direct.pop(peer, None)
        asked = {topic: until for topic, until in state.asked.items() if until > now}
        if asked:
            if len(self._asked) >= self._config.max_peers:
                del self._asked[next(iter(self._asked))]
            self._asked[peer] = asked
        self.scores.gone(state.score, state.place, now)
        return state

    def joins(self, state: PeerState, topic: str) -> bool:
        """The peer subscribes to a topic; False when it did already, or to too many."""
        if topic in state.topics:
            return False
        config, size = self._config, len(topic.encode(errors="replace"))
        if (
            len(state.topics) >= config.max_peer_topics
            or state.topic_bytes + size > config.max_peer_topic_bytes
        ):
            self._stats.over_limit += 1
            return False
        state.topics[topic] = None
        state.topic_bytes += size
        self._by_topic.setdefault(topic, {})[state.peer] = state
        return True

    def leaves(self, state: PeerState, topic: str) -> None:
        """The peer unsubscribes."""
        if topic not in state.topics:
            return
        del state.topics[topic]
        state.topic_bytes -= len(topic.encode(errors="replace"))
        members = self._by_topic[topic]
        del members[state.peer]
        if not members:
            del self._by_topic[topic]

    def of(self, topic: str) -> dict[PeerId, PeerState]:
        """The connected peers that subscribe to a topic. Not to be changed."""
        return self._by_topic.get(topic, {})

    def sample(
        self, topic: str, count: int, rng: Random, accept: Callable[[PeerState], bool]
    ) -> list[PeerState]:
        """Up to `count` random peers of a topic that `accept` takes."""
        if count <= 0:
            return []
        candidates = [state for state in self.of(topic).values() if accept(state)]
        if len(candidates) <= count:
            return candidates
        return rng.sample(candidates, count)
