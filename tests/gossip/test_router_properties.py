"""Whatever peers and the application do, in whatever order: bounds hold, and nothing happens twice."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.engine import Certified, Congested, PeerDown, PeerUp, Received, Send, Speaks, Tick
from swarmp2p.gossip.config import GossipConfig, TopicConfig
from swarmp2p.gossip.events import (
    ANONYMOUS,
    Acceptance,
    Delivered,
    GossipMessage,
    Publish,
    StartValidating,
    StopValidating,
    Subscribe,
    Unsubscribe,
    Validated,
)
from swarmp2p.gossip.messages import BareMessages, Exchanged, IHave, Prune, Rpc
from swarmp2p.gossip.router import GossipRouter
from swarmp2p.identity import PeerId
from swarmp2p.peer_record import seal_record

from .network import TRUE_SIGNATURE, message, peer_id, router, stub_sign, stub_verify

CONFIG = GossipConfig(
    mesh_degree=2,
    mesh_low=1,
    mesh_high=3,
    gossip_degree=2,
    max_ihave_ids=5,
    max_ihave_rpcs=2,
    max_peers=5,
    max_peer_topics=2,
    max_fanout=2,
    max_seen=10,
    max_cached=6,
    max_cached_bytes=100,
    max_queued=3,
    max_unwanted=3,
    max_validating=8,
    max_validating_bytes=200,
    max_rejected=4,
    max_sources=3,
    peer_exchange=True,
    exchange_peers=3,
    exchange_dials=2,
    max_candidates=4,
    idontwant_bytes=20,
    max_iwant_bytes=100,
    topics={
        "b": TopicConfig(latest_only=True, flush_interval_s=0.02),
        "c": TopicConfig(no_replays=True),
        "d": TopicConfig(anonymous=True),
    },
)
BOUNDS = {
    "peers": 5,
    "peer_topics": 2,
    "backoffs": 64,
    "unwanted": 3,
    "fanouts": 2,
    "mesh": 3,
    "seen": 10,
    "cached": 6,
    "cached_bytes": 100,
    # one an RPC looked at, of each heartbeat within the follow-up time
    "promises": 5 * 2 * 5,
    "queued": 3,
    "validating": 8,
    "validating_bytes": 200,
    "rejected": 4,
    "sources": 2 * 3,  # of two topics
    "slow": 5,
    "replaceable": 2 * 3 + 1,
    "scores_kept": 5,
    "app_scores": 5,
    "hosts": 5,
    "watched": 6,
    "records": 5,
    "candidates": 4,
    "exchange_dials": 2,
}

numbers = st.integers(1, 8)
topics = st.sampled_from(["a", "b", "c", "d"])
messages = st.builds(
    message,
    numbers,
    st.integers(0, 12),
    topics,
    st.binary(max_size=40),
    st.sampled_from([TRUE_SIGNATURE, TRUE_SIGNATURE, TRUE_SIGNATURE, b"false"]),
)
unsigned = st.builds(
    GossipMessage, st.just(ANONYMOUS), st.just(b""), st.just("d"), st.binary(max_size=40), st.just(b"")
)
messages = st.one_of(messages, messages, unsigned)
ids = st.lists(st.one_of(messages.map(lambda sent: sent.id), st.binary(max_size=2)), max_size=8).map(tuple)
records = st.builds(
    seal_record, numbers.map(peer_id), st.just((b"somewhere",)), st.just(1), st.just(stub_sign)
)
exchanged = st.lists(
    st.builds(Exchanged, numbers.map(peer_id), st.one_of(st.just(b""), records)), max_size=4
).map(tuple)
rpcs = st.builds(
    Rpc,
    subscriptions=st.lists(st.tuples(topics, st.booleans()), max_size=4).map(tuple),
    publish=st.lists(messages, max_size=4).map(tuple),
    ihave=st.lists(st.builds(IHave, topics, ids), max_size=2).map(tuple),
    iwant=ids,
    graft=st.lists(topics, max_size=3).map(tuple),
    prune=st.lists(st.builds(Prune, topics, st.integers(0, 1 << 31), exchanged), max_size=2).map(tuple),
    idontwant=ids,
)
events = st.one_of(
    st.builds(Received, numbers.map(peer_id), rpcs),
    st.builds(Received, numbers.map(peer_id), rpcs),
    st.builds(PeerUp, numbers.map(peer_id), record=st.one_of(st.just(b""), records)),
    st.builds(Certified, numbers.map(peer_id), records),
    st.builds(PeerDown, numbers.map(peer_id)),
    st.builds(Congested, numbers.map(peer_id), st.just("pubsub"), st.booleans()),
    st.builds(
        Speaks,
        numbers.map(peer_id),
        st.just("pubsub"),
        st.just(True),
        st.sampled_from(["", "/meshsub/1.1.0"]),
    ),
    st.builds(Subscribe, topics),
    st.builds(Unsubscribe, topics),
    st.builds(Publish, topics, st.binary(max_size=30)),
    st.builds(StartValidating, topics, st.sampled_from([0.1, 5.0])),
    st.builds(StopValidating, topics),
    st.builds(Validated, messages.map(lambda sent: sent.id), st.sampled_from(Acceptance)),
    st.just(Tick()),
)
histories = st.lists(st.tuples(events, st.sampled_from([0.0, 0.0, 0.01, 0.5, 1.0, 30.0])), max_size=40)
intervals = st.sampled_from([0.0, 0.02])


def build(flush_interval_s: float) -> GossipRouter:
    config = replace(CONFIG, flush_interval_s=flush_interval_s)
    return GossipRouter(peer_id(0), stub_sign, stub_verify, Random(1), config, BareMessages())


@given(histories, intervals)
@settings(max_examples=200, deadline=None)
def test_bounds_and_no_repeats(history: list[tuple[Any, float]], flush_interval_s: float) -> None:
    node = build(flush_interval_s)
    now = 0.0
    delivered: dict[bytes, float] = {}
    # Too small a seen cache forgets early; with this one, ids of the whole history are remembered.
    roomy = GossipRouter(
        peer_id(0), stub_sign, stub_verify, Random(1), replace(CONFIG, max_seen=1000), BareMessages()
    )
    up: set[PeerId] = set()
    asked: set[tuple[PeerId, bytes]] = set()  # by IWANT; the answer may have to wait
    subscribed: list[str] = []
    for event, pause in history:
        now += pause
        node.handle(event, now)
        for name, size in node.sizes().items():
            assert size <= BOUNDS[name], name
        if isinstance(event, Received):
            asked.update((event.sender, wanted) for wanted in asked_ids(event))
        match event:
            case PeerUp(peer) | Received(peer):
                up.add(peer)
            case PeerDown(peer):
                up.discard(peer)
            case Subscribe(topic):
                subscribed.append(topic)
            case Unsubscribe(topic) if topic in subscribed:
                subscribed.remove(topic)
            case _:
                pass
        for output in roomy.handle(event, now):
            if isinstance(output, Delivered):
                sent = output.message
                assert sent.topic in subscribed
                assert sent.signature == (TRUE_SIGNATURE if sent.topic != "d" else b"")
                assert sent.source != peer_id(0)
                assert delivered.get(sent.id, -1000.0) <= now - 120
                delivered[sent.id] = now
            elif isinstance(output, Send):
                check_send(output, event, up, asked)


def check_send(send: Send, event: object, up: set[PeerId], asked: set[tuple[PeerId, bytes]]) -> None:
    """What an engine may send because of an event."""
    assert isinstance(send.message, Rpc)
    if send.to not in up:
        assert send.message == Rpc(subscriptions=send.message.subscriptions), "only greetings dial"
        return
    assert send.message != Rpc(), "nothing to say is not said"
    for sent in send.message.publish:
        if (send.to, sent.id) not in asked:
            assert sent.source != send.to
            # Only what waited before, on a topic with a flush interval.
            assert sent.topic == "b" or not (isinstance(event, Received) and event.sender == send.to)


def asked_ids(event: Received) -> tuple[bytes, ...]:
    return event.message.iwant if isinstance(event.message, Rpc) else ()


@given(histories, intervals)
@settings(max_examples=100, deadline=None)
def test_deadlines_and_determinism(history: list[tuple[Any, float]], flush_interval_s: float) -> None:
    node, twin = build(flush_interval_s), build(flush_interval_s)
    now = 0.0
    for event, pause in history:
        due = node.deadline()
        if due <= now + pause:
            now = max(now, due)
            assert node.handle(Tick(), now) == twin.handle(Tick(), now)
            assert node.deadline() > now, "a due tick moves the deadline"
        else:
            now += pause
        assert node.handle(event, now) == twin.handle(event, now)
        due = node.deadline()
        if due > now:
            assert node.handle(Tick(), now) == []
            assert node.deadline() == due, "an early tick changes nothing"


@given(st.lists(messages, max_size=30))
@settings(max_examples=100, deadline=None)
def test_backoff_is_honoured(noise: list[GossipMessage]) -> None:
    """After PRUNE no GRAFT leaves for a minute, whatever else goes on."""
    node = router(0)
    node.handle(Subscribe("a"), 0.0)
    node.handle(PeerUp(peer_id(1)), 0.0)
    node.handle(Received(peer_id(1), Rpc(subscriptions=(("a", True),))), 0.0)
    node.handle(Received(peer_id(1), Rpc(prune=(Prune("a", 60),))), 0.0)
    now = 0.0
    while now < 60:
        now = node.deadline()
        outputs = list(node.handle(Tick(), now))
        if noise:
            outputs += node.handle(Received(peer_id(1), Rpc(publish=(noise.pop(),))), now)
        outputs += node.handle(Received(peer_id(1), Rpc(subscriptions=(("a", False), ("a", True)))), now)
        for output in outputs:
            assert not (isinstance(output, Send) and isinstance(output.message, Rpc) and output.message.graft)
