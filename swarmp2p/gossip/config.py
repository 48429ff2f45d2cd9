"""Settings and counters of the gossip engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from types import MappingProxyType
from typing import Final, cast

from ..engine import PeerInfo
from ..errors import UsageError
from ..identity import PeerId
from ..settings import check_settings
from .events import MessageId, Validator
from .messages import MAX_EXCHANGED
from .score_config import ScoreConfig, TopicScoreConfig


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """Settings of one topic, or of all topics with one prefix.

    flush_interval_s: what is for one peer within that many seconds leaves as one RPC; 0: with the call that caused
        it. None for the router's.
    latest_only: of each source only the newest message counts. A newer one replaces an older one that still waits
        to be sent, and those that come after a newer one are dropped.
    no_replays: messages older than the seen cache's time are dropped even when the cache has forgotten them, by
        their sequence numbers (sequences.py). Not where js-libp2p publishes, whose numbers are random.
    anonymous: messages have no source, sequence number, key or signature, and those that have one are refused
        (pubsub spec, "Message signing": StrictNoSign). All peers of the topic need the same setting. The two
        settings above need a source, and do nothing then.
    message_id: how messages get their ids; None for source and sequence number, and for the SHA-256 of the data on
        anonymous topics. All peers of the topic need the same.
    validator: judges each genuine message before anything else is done with it: `validator(message, now)` returns an
        Acceptance at once. One that needs time, or the application, is given to `Peer.validate`.
    score: what peers earn and pay for in it; None: invalid messages count, and nothing else (P4). It has to suit the
        topic's traffic, as TopicScoreConfig.for_rate() does. None for load topics, too: who publishes signals of its
        own would be the first to deliver them, and earn by it.
    """

    flush_interval_s: float | None = None
    latest_only: bool = False
    no_replays: bool = False
    anonymous: bool = False
    message_id: MessageId | None = None
    validator: Validator | None = None
    score: TopicScoreConfig | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        for name in ("message_id", "validator"):
            function: object = getattr(self, name)
            if function is None:
                continue
            if not callable(function) or iscoroutinefunction(function):
                raise UsageError(
                    f"TopicConfig.{name} is a plain function or None, not {function!r}; an async validator is given "
                    "to Peer.validate"
                )
        if not isinstance(cast(object, self.score), TopicScoreConfig | None):
            raise UsageError(f"TopicConfig.score is a TopicScoreConfig or None, not {self.score!r}")


_PLAIN_TOPIC: Final = TopicConfig()

_BUILT_IN: Final = {"swarm/load/*": TopicConfig(flush_interval_s=0.02, latest_only=True)}
"""Load signals: 20 ms are nothing beside their age, and put the signals of many providers into one packet."""


_ABOVE_ZERO: Final = (
    "opportunistic_graft_beats",
    "direct_connect_s",
    "heartbeat_s",
    "prune_backoff_s",
    "unsubscribe_backoff_s",
    "seen_ttl_s",
    "iwant_followup_s",
    "hello_interval_s",
    "max_peers",
    "max_fanout",
    "max_seen",
    "max_cached",
    "max_cached_bytes",
    "max_queued",
    "max_queued_bytes",
    "max_rejected",
    "max_sources",
)


@dataclass(frozen=True, slots=True)
class GossipConfig:
    """Tuning of a GossipRouter. Defaults without a source of their own are go-libp2p-pubsub's.

    mesh_degree, mesh_low, mesh_high: D, Dlo and Dhi, peers in a topic's mesh: aimed at, at least, at most. Those
        that this peer dialled may come on top of Dhi until the next heartbeat.
    mesh_score, mesh_outbound: Dscore and Dout; when a mesh is cut back to D, so many are kept for their score, and
        that this peer dialled. Dout is below Dlo and at most D / 2 (gossipsub 1.1, "Outbound Mesh Quotas"); None
        for 2, or what those two allow.
    opportunistic_graft_beats, opportunistic_graft_peers: so often, in heartbeats, a mesh whose median score is below
        the threshold is improved, by so many.
    direct_peers: messages always go to them and are taken from them, whatever their score, and they are in no mesh
        (gossipsub 1.1, "Explicit Peering Agreements"); both sides have to agree. `peer_info(address)` makes one of an
        address. direct_connect_s: those that are not connected are dialled that often.
    gossip_degree, gossip_factor: Dlazy and the share of a topic's other peers that IHAVE goes to each
        heartbeat; the larger of the two counts.
    heartbeat_s: seconds between heartbeats.
    history, history_gossip: heartbeats for which messages are kept, and advertised.
    fanout_ttl_s: a topic that is published on without being subscribed to keeps its peers that long.
    prune_backoff_s, unsubscribe_backoff_s: seconds before a pruned peer is grafted again, after PRUNE and
        after leaving the topic.
    graft_flood_s: a GRAFT that comes sooner than that after a PRUNE counts twice against the peer.
    idontwant_bytes: messages with so much data are announced by IDONTWANT (gossipsub 1.2).
    unwanted_beats: heartbeats for which others' IDONTWANT are remembered.
    seen_ttl_s: seconds for which message ids are remembered.
    max_ihave_ids, max_ihave_rpcs: ids asked for, and RPCs with IHAVE listened to, per peer and heartbeat.
    iwant_followup_s: seconds until a message asked for counts as a broken promise.
    retransmissions: times that one message is sent to one peer in answer to IWANT. max_iwant_bytes: of messages sent
        so to one peer between two heartbeats; ours, against many cheap IWANTs for large messages.
    flood_publish: own messages go to all of the topic's peers, not to the mesh or fanout alone.
    flush_interval_s: what is for one peer within that many seconds leaves as one RPC. 0: with the call that
        caused it.
    exchange_peers, exchange_dials: peers named in one PRUNE, at most 16; and those of them dialled at once, of
        whom others named to us (go: 16, 8). max_candidates: named to us and waiting for a mesh to need them (go: 128).
    peer_exchange: peers that are pruned because a mesh is full, or left, are told of others in the topic, with their
        signed peer records. For those that many dial, such as bootstrap peers, with mesh degrees of 0 best of all
        (gossipsub 1.1, "Recommendations for Network Operators"): in no mesh, they refuse everybody and tell everybody.
        Off elsewhere, as in go.
    hello_interval_s: subscriptions are repeated to each peer that often. Queues may drop (Network.send), and
        a lost announcement would otherwise leave the two ends disagreeing for good. Ours: an RPC of some 20
        bytes a minute and neighbour.

    topics: settings of single topics, by name or by "prefix*".

    Bounds. max_peers: further ones are ignored. max_peer_topics, max_peer_topic_bytes: of
        one peer, and the length of their names together; further ones are ignored.
    max_fanout: topics; the longest unused goes. max_seen: ids; the oldest goes. max_cached, max_cached_bytes:
    see MessageCache. max_queued, max_queued_bytes: messages for one peer within one flush; further ones are
    dropped and counted. max_unwanted: ids of one peer's IDONTWANT; further ones are ignored. max_validating,
    max_validating_bytes: messages that wait for Validated, of one peer at most a quarter; further ones are dropped.
    max_rejected: ids of refused messages, whose later senders pay as well. max_sources: of one topic, see
    Sequences.
    """

    mesh_degree: int = 6
    mesh_low: int = 5
    mesh_high: int = 12
    mesh_score: int = 4
    mesh_outbound: int | None = None
    opportunistic_graft_beats: int = 60
    opportunistic_graft_peers: int = 2
    direct_peers: tuple[PeerInfo, ...] = ()
    direct_connect_s: float = 300.0
    gossip_degree: int = 6
    gossip_factor: float = 0.25
    heartbeat_s: float = 1.0
    history: int = 5
    history_gossip: int = 3
    fanout_ttl_s: float = 60.0
    prune_backoff_s: float = 60.0
    unsubscribe_backoff_s: float = 10.0
    graft_flood_s: float = 10.0
    idontwant_bytes: int = 1024
    unwanted_beats: int = 3
    seen_ttl_s: float = 120.0
    max_ihave_ids: int = 5000
    max_ihave_rpcs: int = 10
    iwant_followup_s: float = 3.0
    retransmissions: int = 3
    max_iwant_bytes: int = 8 << 20
    flood_publish: bool = True
    flush_interval_s: float = 0.0
    peer_exchange: bool = False
    exchange_peers: int = 16
    exchange_dials: int = 8
    max_candidates: int = 128
    hello_interval_s: float = 60.0
    max_peers: int = 10_000
    max_peer_topics: int = 1000
    max_peer_topic_bytes: int = 65_536
    max_fanout: int = 256
    max_seen: int = 200_000
    max_cached: int = 10_000
    max_cached_bytes: int = 64 << 20
    max_queued: int = 1024
    max_queued_bytes: int = 4 << 20
    max_unwanted: int = 1000
    max_validating: int = 1024
    max_validating_bytes: int = 16 << 20
    max_rejected: int = 1024
    max_sources: int = 65_536
    score: ScoreConfig = field(default_factory=ScoreConfig)
    topics: Mapping[str, TopicConfig] = field(default_factory=lambda: MappingProxyType({}))

    def topic(self, name: str) -> TopicConfig:
        """The settings of a topic: those under its name, else those under the longest key that ends in "*" and
        begins like it, else the defaults. Load topics have defaults of their own."""
        for topics in (self.topics, _BUILT_IN):
            exact = topics.get(name)
            if exact is not None:
                return exact
            prefixes = [key for key in topics if key.endswith("*") and name.startswith(key[:-1])]
            if prefixes:
                return topics[max(prefixes, key=len)]
        return _PLAIN_TOPIC

    @property
    def outbound_quota(self) -> int:
        """Dout: mesh_outbound, or what stands for None."""
        return min(2, self._most_outbound) if self.mesh_outbound is None else self.mesh_outbound

    @property
    def _most_outbound(self) -> int:
        return max(0, min(self.mesh_low - 1, self.mesh_degree // 2))

    def __post_init__(self) -> None:
        check_settings(self, _ABOVE_ZERO)
        self._check_named()
        if not 0 <= self.mesh_low <= self.mesh_degree <= self.mesh_high:
            raise UsageError(
                f"mesh degrees must satisfy 0 <= low <= degree <= high, "
                f"not {self.mesh_low}, {self.mesh_degree}, {self.mesh_high}"
            )
        most = self._most_outbound
        if self.mesh_outbound is not None and self.mesh_outbound > most:
            raise UsageError(
                f"mesh_outbound is 0 to {most} here, not {self.mesh_outbound}: less than mesh_low ({self.mesh_low}), "
                f"and at most half of mesh_degree ({self.mesh_degree})"
            )
        if not 1 <= self.history_gossip <= self.history:
            raise UsageError(f"history_gossip is 1 to history ({self.history}), not {self.history_gossip}")
        if self.gossip_factor > 1:
            raise UsageError(f"gossip_factor is a share, 0 to 1, not {self.gossip_factor}")
        if self.exchange_peers > MAX_EXCHANGED:
            raise UsageError(f"exchange_peers is 0 to {MAX_EXCHANGED}, not {self.exchange_peers}")

    def _check_named(self) -> None:
        """What names topics and peers."""
        topics = cast(object, self.topics)
        if not isinstance(topics, Mapping):
            raise UsageError(
                f"GossipConfig.topics maps names of topics to TopicConfigs, not {topics!r}; write "
                "topics={'news': TopicConfig(...)}"
            )
        for name, topic in cast(Mapping[object, object], topics).items():
            if not isinstance(name, str) or not isinstance(topic, TopicConfig):
                raise UsageError(
                    f"GossipConfig.topics maps names, or 'prefix*', to TopicConfigs, not {name!r} to {topic!r}"
                )
            if "*" in name[:-1]:
                raise UsageError(
                    f"the topics of {name!r}: a '*' stands at the end only, for all that begin so"
                )
        direct = cast(object, self.direct_peers)
        if not isinstance(direct, tuple) or not all(
            isinstance(info, PeerInfo) and isinstance(cast(object, info.peer), PeerId)
            for info in cast(tuple[object, ...], direct)
        ):
            raise UsageError(
                f"GossipConfig.direct_peers is a tuple of PeerInfo, not {direct!r}; peer_info(address) makes one"
            )


@dataclass(slots=True)
class GossipStats:
    """What happened to messages and control since the start; every drop has its cause here.

    published: own messages. delivered, duplicates, forwarded (copies sent on): other peers' messages.
    Dropped: invalid (forged or malformed), unusable (see Verdict.UNUSABLE), not_subscribed,
    own_returned (ours, sent back to us), graylisted (RPCs of peers with too low a score), oversized (own, too
    large to send), over_limit (subscriptions, peers and gossip beyond the bounds), old (replays, or overtaken where
    only the latest counts). Copies dropped: queue_full (for a peer with too much queued), superseded (a newer message
    of the same source took their place), peer_gone (they waited for a peer that left), unwanted (the
    peer has them, by its IDONTWANT). Judged by a validator:
    rejected, ignored, and of those timed_out; validation_full (too many waited). promises_kept, promises_broken:
    IWANTs answered in time (by anyone), and not; one id of each IWANT is watched. Peer exchange:
    exchange_dials, and bad_records among those that others named to us.
    """

    published: int = 0
    delivered: int = 0
    duplicates: int = 0
    forwarded: int = 0
    invalid: int = 0
    unusable: int = 0
    not_subscribed: int = 0
    own_returned: int = 0
    graylisted: int = 0
    oversized: int = 0
    queue_full: int = 0
    superseded: int = 0
    unwanted: int = 0
    peer_gone: int = 0
    over_limit: int = 0
    old: int = 0
    rejected: int = 0
    ignored: int = 0
    timed_out: int = 0
    validation_full: int = 0
    promises_kept: int = 0
    promises_broken: int = 0
    exchange_dials: int = 0
    bad_records: int = 0
