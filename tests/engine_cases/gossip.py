"""Gossip. What the suite (tests/conformance.py) needs to make an engine of this kind, and events for it."""

from __future__ import annotations

from random import Random

from swarmp2p.engine import PeerInfo
from swarmp2p.gossip.codec import pubsub_protocol
from swarmp2p.gossip.config import GossipConfig, TopicConfig
from swarmp2p.gossip.events import (
    Acceptance,
    Delivered,
    GossipMessage,
    Publish,
    SetAppScore,
    StartValidating,
    StopValidating,
    Subscribe,
    Unsubscribe,
    Validate,
    Validated,
)
from swarmp2p.gossip.load_signal import LOAD_TOPIC, LoadSignal, encode_signal
from swarmp2p.gossip.messages import Exchanged, Rpc
from swarmp2p.gossip.router import GossipRouter
from swarmp2p.gossip.score_config import ScoreConfig, TopicScoreConfig
from swarmp2p.gossip.wire import StrictNoSign, StrictSign
from swarmp2p.identity import PeerId
from swarmp2p.peer_record import seal_record
from swarmp2p.transport.sim_peers import sim_address, sim_sign, sim_verify
from tests.conformance import EngineCase
from tests.made_up import PEERS, Maker, Special

GOSSIP = GossipConfig(
    mesh_degree=2,
    mesh_low=1,
    mesh_high=3,
    max_ihave_ids=6,
    max_ihave_rpcs=2,
    max_peers=5,
    max_peer_topics=4,
    max_fanout=2,
    max_seen=20,
    max_cached=10,
    max_cached_bytes=4000,
    max_queued=5,
    max_queued_bytes=3000,
    max_unwanted=6,
    max_validating=8,
    max_validating_bytes=4000,
    max_rejected=5,
    max_sources=3,
    topics={
        "a": TopicConfig(score=TopicScoreConfig(delivery_weight=-10.0, failure_weight=-10.0)),
        "b": TopicConfig(no_replays=True),
        "c": TopicConfig(anonymous=True),
    },
    score=ScoreConfig(colocation_threshold=2, decay_s=20.0),
    opportunistic_graft_beats=3,
    direct_peers=(PeerInfo(PEERS[4], (sim_address(5),)),),
    direct_connect_s=10.0,
    peer_exchange=True,
    exchange_dials=2,
    max_candidates=4,
)
TOPICS = ("a", "b", "c", LOAD_TOPIC)


def signal(maker: Maker) -> LoadSignal:
    rng = maker.rng
    sequence = rng.choice((0, int(maker.now * 10), 2**60)) + rng.randrange(3)
    expires = max(0.0, maker.now + rng.choice((-40.0, 5.0, 50.0, 100.0, 1e9)))
    return LoadSignal(rng.random() * 8, 1 << 30, 0.0, rng.randrange(5), sequence=sequence, expires=expires)


def message(maker: Maker) -> GossipMessage:
    """A published message: sound, signed by another, or garbage."""
    rng = maker.rng
    author, signer = rng.choice(PEERS), rng.choice(PEERS)
    data = encode_signal(signal(maker)) if rng.random() < 0.6 else maker.data()
    seqno = rng.randrange(30).to_bytes(8, "big") if rng.random() < 0.9 else maker.data()
    sign = sim_sign(author if rng.random() < 0.9 else signer)
    if rng.random() < 0.1:
        return StrictNoSign().make(author, "c", data, seqno, sign)
    return StrictSign().make(author, rng.choice((*TOPICS, LOAD_TOPIC)), data, seqno, sign)


def exchanged(maker: Maker) -> Exchanged:
    """A peer named in a PRUNE: with its record, another's, garbage or none."""
    peer, signer = maker.rng.choice(PEERS), maker.rng.choice(PEERS)
    genuine = seal_record(peer, (sim_address(1),), 1, sim_sign(peer))
    false = seal_record(peer, (sim_address(2),), 2, sim_sign(signer))
    return Exchanged(peer, maker.rng.choice((genuine, genuine, false, maker.data(), b"")))


def gossip_command(maker: Maker) -> object:
    topic = maker.rng.choice(TOPICS)
    asked = [output.message.id for output in maker.recent if isinstance(output, Validate)]
    return maker.rng.choice(
        (
            Subscribe(topic),
            Subscribe(topic),
            Unsubscribe(topic),
            Publish(topic, maker.data()),
            StartValidating(topic, maker.rng.choice((0.1, 5.0))),
            StopValidating(topic),
            SetAppScore(maker.rng.choice(PEERS), maker.rng.choice((-3000.0, -1.0, 0.0, 5.0))),
            Validated(maker.rng.choice(asked or [b""]), maker.rng.choice(tuple(Acceptance))),
        )
    )


def gossip_engine(peer: PeerId, seed: int) -> GossipRouter:
    return GossipRouter(peer, sim_sign(peer), sim_verify, Random(seed), GOSSIP)


def gossip_sizes(router: GossipRouter) -> dict[str, tuple[int, int]]:
    bounds = {
        "peers": GOSSIP.max_peers,
        "peer_topics": GOSSIP.max_peer_topics,
        "unwanted": GOSSIP.max_unwanted,
        "fanouts": GOSSIP.max_fanout,
        "seen": GOSSIP.max_seen,
        "cached": GOSSIP.max_cached,
        "cached_bytes": GOSSIP.max_cached_bytes,
        "queued": GOSSIP.max_queued,
        "validating": GOSSIP.max_validating,
        "validating_bytes": GOSSIP.max_validating_bytes,
        "rejected": GOSSIP.max_rejected,
        "sources": max(1, len(router.topics)) * GOSSIP.max_sources,  # of each topic
        "scores_kept": GOSSIP.max_peers,
        "app_scores": GOSSIP.max_peers,
        "watched": GOSSIP.max_cached,
        "hosts": GOSSIP.max_peers,
        "records": GOSSIP.max_peers,
        "candidates": GOSSIP.max_candidates,
        "exchange_dials": GOSSIP.exchange_dials,
    }
    return {name: (router.sizes()[name], bound) for name, bound in bounds.items()}


def one_of_few_ids(maker: Maker) -> bytes:
    """The id of a message that may exist."""
    return bytes(maker.rng.choice(PEERS)) + maker.rng.randrange(30).to_bytes(8, "big")


def some_ids(maker: Maker) -> tuple[bytes, ...]:
    return tuple(one_of_few_ids(maker) for _ in range(maker.rng.choice((0, 1, 3, 30))))


GOSSIP_SPECIAL: Special = {
    GossipMessage: message,
    Exchanged: exchanged,
    "topic": lambda maker: maker.rng.choice(TOPICS),
    "graft": lambda maker: tuple(maker.rng.choices(TOPICS, k=maker.rng.randrange(3))),
    "subscriptions": lambda maker: tuple(
        (maker.rng.choice(TOPICS) if maker.rng.random() < 0.7 else maker.make(str), maker.rng.random() < 0.7)
        for _ in range(maker.rng.choice((0, 0, 1, 2, 20)))
    ),
    "ids": some_ids,
    "iwant": some_ids,
    "idontwant": some_ids,
}
GOSSIP_CASE = EngineCase(
    "gossip",
    gossip_engine,
    (Delivered, Validate),
    (pubsub_protocol(),),
    (Rpc,),
    gossip_command,
    GOSSIP_SPECIAL,
    gossip_sizes,
)
