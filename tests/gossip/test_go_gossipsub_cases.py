"""go-libp2p-pubsub's cases for gossipsub (gossipsub_test.go), restated for our engine: networks of engines in virtual
time. Those about single rules are elsewhere in this folder.

Here, by the names of the cases without "TestGossipsub": Sparse, Dense, Fanout, FanoutMaintenance, FanoutExpiry, Gossip,
GossipPropagation, Prune, PruneBackoffTime, Graft, RemovePeer, GraftPruneRetry, Multihops, TreeTopology, FloodPublish,
NegativeScore, ScoreValidatorEx, MultipleGraftTopics, OpportunisticGrafting, LeaveTopic, JoinTopic, PruneMeshCorrectly,
PublishDuplicateMessage (with ids of the topic's own: test_validation.py), MessageBatchPublish.

Elsewhere:
- ParamsValidate, BootstrapParamsValidate, CustomParams: test_score_config.py.
- ControlPiggyback, PiggybackControl, GossipPiggyback, RPCFragmentation, FragmentRPCFunction: test_outbox.py,
  test_gossipsub_1_0.py. Whatever leaves for a peer at one time leaves together.
- StarTopology, StarTopologyWithSignedPeerRecords (leaves find one another by peer exchange), DefaultPXRecordReducer,
  ManagesAnAddressBook: test_exchange.py, tests/simulations/test_gossip_exchange.py.
- PeerScoreInspect: GossipRouter.score; test_score.py. PeerFeedback (the application found a peer useful): SetAppScore;
  test_scores.py.
- DirectPeers, DirectPeersFanout: test_direct.py.
- Idontwant: Send, Receive, NonMesh, Incompat, SmallMessage, Clear, NoIDONTWANTToMessageSender: test_gossipsub_1_2.py.
- validation_test.go and others: test_go_validation_cases.py.

Otherwise here: IdontwantBeforeIwant (the later word counts, test_gossipsub_1_2.py); IDONTWANTBeforeFirstPublish (there
a publisher announces its own message, too, which nobody would send back to it).

Do not apply: Mixed (floodsub is not spoken); DynamicDirectPeers and PeerScoreResetTopicParams (settings do not change
while an engine runs); PeerFilter (what a peer may follow is not restricted; it is bounded); EnoughPeers
(GossipRouter.mesh and subscribers tell); CheckPubAddrsOnSignedPeerRecord and PublicAddrsPXRecordReducer (records with
private addresses are handed on: a swarm may live in a private network); SyncEvalAmidstCancellation (Go's event loop);
RoundRobinMessageIDScheduler (there is no choice of schedulers); ExtensionsControlMessage, TestExtension, the six of
partial messages, FanoutOnly, FanoutOnlyRelay (1.3 and later, or Go's own).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

import pytest

from swarmp2p.engine import Engine, NetworkEvent, PeerUp, Received, Send
from swarmp2p.gossip.config import GossipConfig, TopicConfig
from swarmp2p.gossip.events import (
    Acceptance,
    Delivered,
    GossipMessage,
    Publish,
    SetAppScore,
    Subscribe,
    Unsubscribe,
)
from swarmp2p.gossip.messages import Rpc
from swarmp2p.gossip.router import GossipRouter
from swarmp2p.gossip.score_config import ScoreConfig, TopicScoreConfig

from .network import Net, peer_id, random_links, router

TREE = ((0, 1), (1, 2), (1, 4), (2, 3), (0, 5), (5, 6), (5, 8), (6, 7), (8, 9))


class Hosts:
    """Engines 0, 1, ... with these links, all subscribed to "t" but those in `outside`."""

    def __init__(
        self,
        count: int,
        links: Iterable[tuple[int, int]],
        config: GossipConfig | None = None,
        outside: Sequence[int] = (),
    ) -> None:
        self.net, self.sent = Net(), 0
        self.routers: list[GossipRouter] = []
        for number in range(count):
            self.routers.append(router(number, config, seed=1))
            self.net.add(peer_id(number), self.routers[-1])
            if number not in outside:
                self.do(number, Subscribe("t"))
        for one, other in links:
            self.net.connect(peer_id(one), peer_id(other))
        self.wait(2.0)

    def do(self, number: int, command: object) -> None:
        self.net.handle(peer_id(number), command)

    def wait(self, seconds: float) -> None:
        self.net.run(self.net.now + seconds)

    def publish(self, number: int) -> bytes:
        self.sent += 1
        data = b"message %d" % self.sent
        self.do(number, Publish("t", data))
        return data

    def got(self, number: int, data: bytes) -> int:
        """How often a message was delivered."""
        outputs: list[Any] = self.net.outputs[peer_id(number)]
        return sum(isinstance(one, Delivered) and one.message.data == data for one in outputs)

    def everybody_gets(self, publisher: int, within_s: float = 1.0, but: Sequence[int] = ()) -> None:
        """Publish, and look that each gets it once, but those named and the publisher."""
        data = self.publish(publisher)
        self.wait(within_s)
        for number in range(len(self.routers)):
            expected = 0 if number == publisher or number in but else 1
            assert self.got(number, data) == expected, f"host {number}"

    def mesh(self, number: int) -> set[int]:
        members = self.routers[number].mesh("t")
        return {other for other in range(1000) if peer_id(other) in members}


def star(count: int) -> list[tuple[int, int]]:
    return [(0, number) for number in range(1, count)]


def full(count: int) -> list[tuple[int, int]]:
    return [(one, other) for one in range(count) for other in range(one)]


# Spreading --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [3, 10], ids=["sparse", "dense"])
def test_sparse_and_dense(degree: int) -> None:
    """TestSparseGossipsub, TestDenseGossipsub"""
    hosts = Hosts(20, random_links(20, degree, Random(1)))
    for number in range(20):
        hosts.everybody_gets(number, within_s=0.5)


@pytest.mark.parametrize("flood", [False, True])
def test_fanout_its_maintenance_and_expiry(flood: bool) -> None:
    """TestGossipsubFanout, ...FanoutMaintenance, ...FanoutExpiry"""
    hosts = Hosts(
        20,
        random_links(20, 10, Random(1)),
        GossipConfig(flood_publish=flood, fanout_ttl_s=20.0),
        outside=[0],
    )
    for _ in range(5):
        hosts.everybody_gets(0)
    assert hosts.routers[0].fanout("t")
    for number in range(1, 20):
        hosts.do(number, Unsubscribe("t"))
    hosts.wait(2.0)
    assert not hosts.routers[0].fanout("t")
    hosts.wait(15.0)  # until their backoffs are over
    for number in range(1, 20):
        hosts.do(number, Subscribe("t"))
    hosts.wait(2.0)
    for _ in range(5):
        hosts.everybody_gets(0)
    hosts.do(0, Subscribe("t"))
    hosts.everybody_gets(0)
    hosts.do(0, Unsubscribe("t"))
    hosts.everybody_gets(0)
    hosts.wait(25.0)
    assert not hosts.routers[0].fanout("t")


def test_gossip_and_its_propagation() -> None:
    """TestGossipsubGossip, ...GossipPropagation: newcomers hear of what was published a moment ago."""
    hosts = Hosts(20, full(20), outside=range(10, 20))
    data = hosts.publish(0)
    hosts.wait(0.5)
    for number in range(10, 20):
        hosts.do(number, Subscribe("t"))
    hosts.wait(3.5)
    assert [hosts.got(number, data) for number in range(1, 20)] == [1] * 19


def test_leavers_and_the_removed() -> None:
    """TestGossipsubPrune, ...RemovePeer: those that stay go on."""
    hosts = Hosts(20, random_links(20, 10, Random(1)))
    hosts.everybody_gets(0)
    for number in range(1, 5):
        hosts.do(number, Unsubscribe("t"))
    hosts.wait(0.2)
    hosts.everybody_gets(6, but=range(1, 5))
    for number in range(5, 8):
        for other in list(hosts.net.links[peer_id(number)]):
            hosts.net.disconnect(peer_id(number), other)
    hosts.wait(2.0)
    hosts.everybody_gets(9, but=range(1, 8))


def test_a_topic_left_is_not_rejoined_with_the_same_peers_at_once() -> None:
    """TestGossipsubPruneBackoffTime"""
    hosts = Hosts(10, star(10), GossipConfig(mesh_degree=9, mesh_low=9, mesh_high=12))
    assert hosts.mesh(0) == set(range(1, 10))
    hosts.do(0, Unsubscribe("t"))
    hosts.do(0, Subscribe("t"))
    hosts.wait(9.0)
    assert hosts.mesh(0) == set()
    hosts.wait(6.0)
    assert len(hosts.mesh(0)) >= 9


def test_subscribing_after_connecting() -> None:
    """TestGossipsubGraft"""
    hosts = Hosts(20, random_links(20, 5, Random(1)), outside=range(20))
    for number in range(20):
        hosts.do(number, Subscribe("t"))
        hosts.wait(0.1)
    hosts.wait(1.0)
    for number in range(20):
        hosts.everybody_gets(number)


def test_over_many_hops() -> None:
    """TestGossipsubMultihops"""
    hosts = Hosts(6, [(number, number + 1) for number in range(5)])
    hosts.everybody_gets(0)


def test_along_a_tree() -> None:
    """TestGossipsubTreeTopology"""
    hosts = Hosts(10, TREE)
    assert [hosts.mesh(number) for number in (1, 3, 5)] == [{0, 2, 4}, {2}, {0, 6, 8}]
    for number in (9, 3):
        hosts.everybody_gets(number)


def test_the_same_data_twice_is_two_messages() -> None:
    """TestPublishDuplicateMessage (without ids of the topic's own)"""
    hosts = Hosts(2, [(0, 1)])
    for _ in range(2):
        hosts.do(0, Publish("t", b"again"))
    hosts.wait(0.1)
    assert hosts.got(1, b"again") == 2


def test_many_topics() -> None:
    """TestGossipsubGraftPruneRetry: there queues run over when 35 topics are joined at once."""
    net, topics = Net(), [f"topic {number}" for number in range(35)]
    for number in range(10):
        net.add(peer_id(number), router(number, GossipConfig(max_queued=4, flood_publish=False), seed=1))
    for one, other in full(10):
        net.connect(peer_id(one), peer_id(other))
    for number in range(10):
        for topic in topics:
            net.handle(peer_id(number), Subscribe(topic))
    net.run(3.0)
    for index, topic in enumerate(topics):
        net.handle(peer_id(index % 10), Publish(topic, topic.encode()))
    net.run(4.0)
    for number in range(10):
        expected = [topic for index, topic in enumerate(topics) if index % 10 != number]
        assert sorted(one.topic for one in net.delivered(peer_id(number))) == sorted(expected)


def test_a_hundred_messages_at_once() -> None:
    """TestMessageBatchPublish; and they leave in few RPCs when they may wait for one another."""
    hosts = Hosts(10, random_links(10, 5, Random(1)), GossipConfig(flush_interval_s=0.01))
    rpcs = len(hosts.net.sent)
    data = [hosts.publish(0) for _ in range(100)]
    hosts.wait(1.0)
    for number in range(1, 10):
        assert sorted(one.data for one in hosts.net.delivered(peer_id(number))) == sorted(data)
    assert len(hosts.net.sent) - rpcs < 200, "of thousands of copies"


# Meshes -----------------------------------------------------------------------------------------------------


def test_joining_and_leaving() -> None:
    """TestGossipSubJoinTopic, TestGossipSubLeaveTopic: both sides know, and wait."""
    hosts = Hosts(3, star(3))
    assert [hosts.mesh(number) for number in range(3)] == [{1, 2}, {0}, {0}]
    hosts.do(1, Unsubscribe("t"))
    hosts.wait(0.1)
    assert [hosts.mesh(number) for number in range(3)] == [{2}, set(), {0}]
    hosts.do(1, Subscribe("t"))
    hosts.wait(5.0)
    assert hosts.mesh(0) == {2}, "the backoff after leaving is 10 s"
    hosts.wait(9.0)
    assert hosts.mesh(0) == {1, 2}


def test_several_topics_in_one_rpc() -> None:
    """TestGossipsubMultipleGraftTopics"""
    hosts = Hosts(2, [(0, 1)], outside=(0, 1))
    for topic in ("a", "b", "c"):
        hosts.do(1, Subscribe(topic))
    hosts.do(1, Received(peer_id(0), Rpc(graft=("a", "b", "c"))))
    assert all(hosts.routers[1].mesh(topic) == (peer_id(0),) for topic in ("a", "b", "c"))


def test_a_full_mesh_is_cut_back() -> None:
    """TestGossipsubPruneMeshCorrectly: back to D at Dhi, not above it."""
    hosts = Hosts(9, star(9), GossipConfig(mesh_high=8))
    hosts.wait(2.0)
    assert len(hosts.mesh(0)) == 6


# Flood publishing ------------------------------------------------------------------------------


def test_flood_publishing() -> None:
    """TestGossipsubFloodPublish: around a star, all get it directly."""
    hosts = Hosts(20, star(20))
    data = hosts.publish(0)
    hosts.wait(0.011)
    assert [hosts.got(number, data) for number in range(1, 20)] == [1] * 19


# Scores -----------------------------------------------------------------------------------------------------


def test_negative_score() -> None:
    """TestGossipsubNegativeScore: who is graylisted by all is heard by nobody, and hears nothing."""
    hosts = Hosts(20, random_links(20, 10, Random(1)))
    for number in range(1, 20):
        hosts.do(number, SetAppScore(peer_id(0), -10_000.0))
    hosts.wait(3.0)
    assert all(0 not in hosts.mesh(number) for number in range(1, 20))
    data = hosts.publish(0)
    hosts.wait(5.0)
    assert not any(hosts.got(number, data) for number in range(1, 20))
    for number in range(1, 20, 6):
        hosts.everybody_gets(number, within_s=3.0, but=[0])


def test_validators_ignore_and_reject() -> None:
    """TestGossipsubScoreValidatorEx"""

    def judge(message: GossipMessage, _now: float) -> Acceptance:
        verdicts = {peer_id(1): Acceptance.IGNORE, peer_id(2): Acceptance.REJECT}
        return verdicts.get(message.source, Acceptance.ACCEPT)

    score = TopicScoreConfig(topic_weight=1.0, invalid_weight=-1.0)
    config = GossipConfig(topics={"t": TopicConfig(validator=judge, score=score)})
    hosts = Hosts(3, full(3), config, outside=(1, 2))
    ignored, rejected = hosts.publish(1), hosts.publish(2)
    hosts.wait(0.5)
    assert hosts.got(0, ignored) == hosts.got(0, rejected) == 0
    now = hosts.net.now
    assert hosts.routers[0].score(peer_id(1), now) == 0
    assert hosts.routers[0].score(peer_id(2), now) < 0


class Squatter(Engine[Any, Any]):
    """Grafts everybody and passes nothing on."""

    def handle(self, event: NetworkEvent | object, now: float) -> Sequence[Any]:
        if isinstance(event, PeerUp):
            return [Send(event.peer, Rpc(subscriptions=(("t", True),), graft=("t",)))]
        return []

    def deadline(self) -> float:
        return math.inf


def test_opportunistic_grafting() -> None:
    """TestGossipsubOpportunisticGrafting: 10 honest among 40 that squat in meshes; in the end each honest mesh has at
    least three honest peers."""
    score = TopicScoreConfig(topic_weight=1.0, first_weight=1.0)
    config = GossipConfig(
        opportunistic_graft_beats=2,
        prune_backoff_s=0.5,
        score=ScoreConfig(opportunistic_graft_threshold=1.0),
        topics={"t": TopicConfig(score=score)},
    )
    hosts = Hosts(10, random_links(10, 6, Random(1)), config, outside=range(10))
    for number in range(10, 50):
        hosts.net.add(peer_id(number), Squatter())
        for honest in range(10):
            hosts.net.connect(peer_id(honest), peer_id(number))
    hosts.wait(1.0)
    for honest in range(10):
        hosts.do(honest, Subscribe("t"))
    hosts.net.record = False
    for number in range(500):
        hosts.publish(number % 10)
        hosts.wait(0.02)
    hosts.wait(7.0)
    for honest in range(10):
        known = sum(peer_id(other) in hosts.net.links[peer_id(honest)] for other in range(10))
        assert len(hosts.mesh(honest) & set(range(10))) >= min(3, known)
