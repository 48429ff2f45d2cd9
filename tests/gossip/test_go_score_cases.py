"""go-libp2p-pubsub's cases for the peer score (score_test.go, score_params_test.go), restated for our engine.

Each test names its case. Covered: TimeInMesh, TimeInMeshCap, FirstMessageDeliveries, ...Cap, ...Decay,
MeshMessageDeliveries, ...Decay, MeshFailurePenalty, InvalidMessageDeliveries, ...Decay, RejectMessageDeliveries,
ApplicationScore, IPColocation, IPColocationWhitelist, BehaviourPenalty, Retention. The cases about parameters that make
no sense are in test_score_config.py.

Do not apply: RecapTopicParams and ResetTopicParams, since parameters do not change while an engine runs; in
RejectMessageDeliveries the parts about blacklists, which we do not have (Disconnect, or a score of the application's
own, does that); in IPColocation a peer at two addresses at once, since one connection counts; penalties for peers that
are not connected, which nobody can give here; SkipAtomicValidation, since every parameter has a default.

Decay goes by the time that has passed, not by rounds, so that factors become seconds (score_config.decay_s).
"""

from __future__ import annotations

import pytest

from swarmp2p.gossip.config import GossipConfig, TopicConfig
from swarmp2p.gossip.events import Acceptance, SetAppScore, StartValidating, Validated
from swarmp2p.gossip.messages import Rpc
from swarmp2p.gossip.peers import place_of
from swarmp2p.gossip.score import PeerScore
from swarmp2p.gossip.score_config import ScoreConfig, TopicScoreConfig, decay_s
from swarmp2p.gossip.scores import Scores
from swarmp2p.transport.addresses import to_multiaddr

from .harness import Scripted
from .network import message, peer_id

FOREVER = 1e12


def topic(**changes: float) -> TopicScoreConfig:
    """All off but what is named, and without decay unless that is named."""
    settings = {
        "topic_weight": 1.0,
        "mesh_time_weight": 0.0,
        "first_weight": 0.0,
        "first_decay_s": FOREVER,
        "first_cap": 2000.0,
        "delivery_weight": 0.0,
        "delivery_decay_s": FOREVER,
        "delivery_activation_s": 1.0,
        "delivery_window_s": 0.01,
        "delivery_threshold": 20.0,
        "delivery_cap": 100.0,
        "failure_weight": 0.0,
        "failure_decay_s": FOREVER,
        "invalid_weight": 0.0,
        "invalid_decay_s": FOREVER,
    }
    return TopicScoreConfig(**(settings | changes))


class Table:
    """Scores of peers A, B, ... in the mesh of one topic, from time 0 on."""

    def __init__(self, config: TopicScoreConfig, peers: str = "A", mesh: bool = True) -> None:
        # No cap over all topics, as these cases have it.
        score = ScoreConfig(topic_score_cap=0.0)
        self.scores = Scores(GossipConfig(score=score, topics={"t": TopicConfig(score=config)}))
        self.of: dict[str, PeerScore] = {
            name: self.scores.connected(peer_id(ord(name)), b"", 0.0) for name in peers
        }
        if mesh:
            for one in self.of.values():
                self.scores.joined(one, "t", 0.0)

    def deliver(self, name: str, count: int, now: float, copied_by: str = "", after_s: float = 0.0) -> None:
        for number in range(count):
            message_id = f"{now} {number}".encode()
            self.scores.delivered(self.of[name], "t", message_id, now)
            for other in copied_by:
                self.scores.copied(self.of[other], message_id, now + after_s)

    def value(self, name: str, now: float) -> float:
        return self.of[name].value(now)


# P1 to P3 ---------------------------------------------------------------------------------------------------


def test_time_in_mesh() -> None:
    """TestScoreTimeInMesh"""
    table = Table(topic(topic_weight=0.5, mesh_time_weight=1.0, mesh_time_quantum_s=0.001), mesh=False)
    assert table.value("A", 0.0) == 0
    table.scores.joined(table.of["A"], "t", 1.0)
    assert table.value("A", 1.2) == pytest.approx(0.5 * 200, abs=1)


def test_time_in_mesh_cap() -> None:
    """TestScoreTimeInMeshCap"""
    table = Table(
        topic(topic_weight=0.5, mesh_time_weight=1.0, mesh_time_quantum_s=0.001, mesh_time_cap=10.0)
    )
    assert table.value("A", 0.04) == 5


def test_first_message_deliveries() -> None:
    """TestScoreFirstMessageDeliveries"""
    table = Table(topic(first_weight=1.0))
    table.deliver("A", 100, 0.0)
    assert table.value("A", 0.0) == 100


def test_first_message_deliveries_cap() -> None:
    """TestScoreFirstMessageDeliveriesCap"""
    table = Table(topic(first_weight=1.0, first_cap=50.0))
    table.deliver("A", 100, 0.0)
    assert table.value("A", 0.0) == 50


def test_first_message_deliveries_decay() -> None:
    """TestScoreFirstMessageDeliveriesDecay: 10 % less each interval."""
    table = Table(topic(first_weight=1.0, first_decay_s=decay_s(0.9)))
    table.deliver("A", 100, 0.0)
    assert table.value("A", 1.0) == pytest.approx(90)
    assert table.value("A", 11.0) == pytest.approx(100 * 0.9**11)


def test_mesh_message_deliveries() -> None:
    """TestScoreMeshMessageDeliveries: A is first, B comes within the window, C after it."""
    table = Table(topic(delivery_weight=-1.0), "ABC")
    assert [table.value(name, 0.0) for name in "ABC"] == [0, 0, 0]
    table.deliver("A", 100, 1.5, copied_by="B", after_s=0.01)
    table.deliver("A", 100, 1.6, copied_by="C", after_s=0.03)
    assert [table.value(name, 2.0) for name in "AB"] == [0, 0]
    assert table.value("C", 2.0) == -400


def test_mesh_message_deliveries_decay() -> None:
    """TestScoreMeshMessageDeliveriesDecay"""
    table = Table(topic(delivery_weight=-1.0, delivery_decay_s=decay_s(0.9), delivery_activation_s=1.0))
    table.deliver("A", 40, 0.0)
    assert table.value("A", 1.5) == 0
    left = 40 * 0.9**20.5
    assert left < 20
    assert table.value("A", 20.5) == pytest.approx(-((20 - left) ** 2), rel=0.01)


def test_mesh_failure_penalty() -> None:
    """TestScoreMeshFailurePenalty: without P3 itself, B pays once it is pruned."""
    table = Table(topic(failure_weight=-1.0), "ABC")
    table.deliver("A", 100, 0.0, copied_by="C")
    assert [table.value(name, 2.0) for name in "ABC"] == [0, 0, 0]
    for name in "BC":
        table.scores.left(table.of[name], "t", 2.0)
    assert [table.value(name, 2.0) for name in "ABC"] == [0, -400, 0]


# P4 ---------------------------------------------------------------------------------------------------------


def test_invalid_message_deliveries() -> None:
    """TestScoreInvalidMessageDeliveries"""
    table = Table(topic(invalid_weight=-1.0))
    for _ in range(100):
        table.scores.rejected(table.of["A"], "t", 0.0)
    assert table.value("A", 0.0) == -10_000


def test_invalid_message_deliveries_decay() -> None:
    """TestScoreInvalidMessageDeliveriesDecay"""
    table = Table(topic(invalid_weight=-1.0, invalid_decay_s=decay_s(0.9)))
    for _ in range(100):
        table.scores.rejected(table.of["A"], "t", 0.0)
    assert table.value("A", 1.0) == pytest.approx(-(90**2))
    assert table.value("A", 11.0) == pytest.approx(-((100 * 0.9**11) ** 2))


@pytest.mark.parametrize(
    ("acceptance", "copy_first", "expected"),
    [
        (Acceptance.IGNORE, False, 0),
        (Acceptance.IGNORE, True, 0),
        (None, True, 0),
        (Acceptance.REJECT, False, -1),
        (Acceptance.REJECT, True, -1),
    ],
)
def test_reject_message_deliveries(acceptance: Acceptance | None, copy_first: bool, expected: float) -> None:
    """TestScoreRejectMessageDeliveries: what is ignored costs nothing, nor what there was no time for (None); what is
    refused costs those who sent it before and after the verdict."""
    node = Scripted(GossipConfig(topics={"t": TopicConfig(score=topic(invalid_weight=-1.0))}))
    node.subscribe()
    node.up(1, 2)
    node.handle(StartValidating("t", 10.0))
    sent = message(9, 1)
    node.receive(1, Rpc(publish=(sent,)))
    if copy_first:
        node.receive(2, Rpc(publish=(sent,)))
    if acceptance is None:
        node.now += 11.0
    else:
        node.handle(Validated(sent.id, acceptance))
    if not copy_first:
        node.receive(2, Rpc(publish=(sent,)))
    assert (node.score(1), node.score(2)) == (expected, expected)


def test_a_full_validation_queue_costs_nobody() -> None:
    """TestScoreRejectMessageDeliveries, RejectValidationQueueFull"""
    topics = {"t": TopicConfig(score=topic(invalid_weight=-1.0))}
    node = Scripted(GossipConfig(topics=topics, max_validating=4))
    node.subscribe()
    node.up(1)
    node.handle(StartValidating("t", 10.0))
    node.receive(1, Rpc(publish=tuple(message(9, number) for number in range(9))))
    assert node.router.stats.validation_full > 0
    assert node.score(1) == 0


# P5 to P7 ---------------------------------------------------------------------------------------------------


def test_application_score() -> None:
    """TestScoreApplicationScore"""
    node = Scripted(GossipConfig(score=ScoreConfig(app_weight=0.5)))
    node.subscribe()
    node.up(1)
    for value in range(-100, 100):
        node.handle(SetAppScore(peer_id(1), float(value)))
        assert node.score(1) == value * 0.5


@pytest.mark.parametrize(("whitelist", "expected"), [((), -4.0), (("2.3.0.0/16",), 0.0)])
def test_ip_colocation(whitelist: tuple[str, ...], expected: float) -> None:
    """TestScoreIPColocation, TestScoreIPColocationWhitelist: B, C and D share an address, of which 1 is allowed."""
    config = ScoreConfig(colocation_threshold=1, colocation_weight=-1.0, colocation_whitelist=whitelist)
    scores = Scores(GossipConfig(score=config))
    hosts = ("1.2.3.4", "2.3.4.5", "2.3.4.5", "2.3.4.5")
    of = [
        scores.connected(peer_id(number), place_of(to_multiaddr(host, 1)), 0.0)
        for number, host in enumerate(hosts)
    ]
    assert [one.value(0.0) for one in of] == [0, expected, expected, expected]


def test_behaviour_penalty() -> None:
    """TestScoreBehaviourPenalty: the square, and 1 % less each interval."""
    score = PeerScore(
        ScoreConfig(behaviour_weight=-1.0, behaviour_tolerance=0.0, decay_s=decay_s(0.99)), peer_id(1)
    )
    assert score.value(0.0) == 0
    score.misbehaved(0.0)
    assert score.value(0.0) == -1
    score.misbehaved(0.0)
    assert score.value(0.0) == -4
    assert score.value(1.0) == pytest.approx(-3.9204)


# Retention --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("away_s", "expected"), [(0.5, -100.0), (1.05, 0.0)])
def test_retention(away_s: float, expected: float) -> None:
    """TestScoreRetention. (There the score comes from the application; what that says has no end here.)"""
    node = Scripted(
        GossipConfig(
            score=ScoreConfig(retain_score_s=1.0),
            topics={"t": TopicConfig(score=topic(invalid_weight=-100.0))},
        )
    )
    node.subscribe()
    node.up(1)
    node.receive(1, Rpc(publish=(message(9, 1, signature=b"false"),)))
    assert node.score(1) == -100
    node.down(1)
    node.now += away_s
    node.up(1)
    assert node.score(1) == pytest.approx(expected)
