"""Peer score: what counts against a peer, how much, and for how long."""

from __future__ import annotations

import pytest

from swarmp2p.gossip.score import PeerScore
from swarmp2p.gossip.score_config import ScoreConfig, TopicScoreConfig

from .network import peer_id

CONFIG = ScoreConfig()


def score_of_one(config: ScoreConfig = CONFIG) -> PeerScore:
    return PeerScore(config, peer_id(1))


def test_a_new_peer_has_nothing_against_it() -> None:
    score = score_of_one()
    assert score.clean
    assert score.value(1000.0) == 0


def test_invalid_messages_weigh_by_their_square() -> None:
    """gossipsub 1.1, "P4: Invalid messages": the square of the counter."""
    score = score_of_one()
    values: list[float] = []
    for _ in range(3):
        score.invalid_message(0.0)
        values.append(score.value(0.0))
    assert values == [-300, -1200, -2700]
    assert values[-1] < CONFIG.graylist_threshold


def test_misbehaviour_is_tolerated_up_to_a_threshold() -> None:
    """gossipsub 1.1, "P7: Behavioural penalty": the square of what exceeds it."""
    score = score_of_one()
    for _ in range(6):
        score.misbehaved(0.0)
    assert score.value(0.0) == 0
    score.misbehaved(0.0)
    score.misbehaved(0.0)
    assert score.value(0.0) == -40


def test_liars_pay_for_promises() -> None:
    score = score_of_one()
    for _ in range(22):
        score.broke_promise(0.0)
    assert score.value(0.0) < CONFIG.graylist_threshold


def test_honest_peers_on_a_lossy_network_do_not() -> None:
    score = score_of_one()
    for _ in range(100):
        score.broke_promise(0.0)
        score.broke_promise(0.0)
        score.kept_promise(0.0)
    assert score.value(0.0) == 0


def test_kept_promises_make_up_for_nothing_else() -> None:
    score = score_of_one()
    for _ in range(8):
        score.kept_promise(0.0)
        score.misbehaved(0.0)
    assert score.value(0.0) == -40


def test_the_application_adds_its_own() -> None:
    """gossipsub 1.1, "P5: Application-Specific score"."""
    score = score_of_one(ScoreConfig(app_weight=2.0))
    score.app = 7.0
    assert score.value(0.0) == 14
    assert score.clean, "below 0 it cannot be"
    score.app = -7.0
    score.worsened()
    assert score.value(0.0) == -14
    score.app = 0.0
    assert score.value(0.0) == 0
    assert score.clean


def test_counters_decay() -> None:
    """gossipsub 1.1, "Parameter decay"."""
    score = score_of_one()
    score.invalid_message(100.0)
    assert score.value(400.0) == pytest.approx(-300 * 0.1**2)
    assert score.value(701.0) == 0
    assert score.clean


def test_counters_are_not_touched_within_the_decay_interval() -> None:
    score = score_of_one(ScoreConfig(decay_interval_s=10.0))
    score.invalid_message(100.0)
    assert score.value(109.0) == -300
    assert score.value(110.0) > -300


def test_a_peer_is_clean_again_after_a_while() -> None:
    score = score_of_one()
    for _ in range(9):
        score.misbehaved(800.0)
        score.broke_promise(800.0)
    assert [score.value(800.0) < 0, score.value(3000.0) < 0] == [True, False]
    assert score.clean


def test_topics_add_up_by_weight_to_at_most_the_cap() -> None:
    """gossipsub 1.1, "Topic Parameter Calculation and Decay": TopicCap over the weighted sum."""
    score = score_of_one(ScoreConfig(topic_score_cap=3.0))
    light, heavy = TopicScoreConfig(topic_weight=0.1), TopicScoreConfig(topic_weight=0.3)
    score.topic("light", light, 0.0).delivered_first(0.0)
    assert score.value(0.0) == pytest.approx(0.5)
    score.topic("heavy", heavy, 0.0).delivered_first(0.0)
    assert score.value(0.0) == pytest.approx(2.0)
    score.topic("heavy", heavy, 0.0).delivered_first(0.0)
    assert score.value(0.0) == 3
    score.app = 10.0
    assert score.value(0.0) == 13, "the cap is for topics alone"
    score.invalid_message(0.0)
    assert score.value(0.0) == 13 - 300, "and rewards, not penalties, end at it"


def test_scored_topics_are_bounded_and_those_of_meshes_stay() -> None:
    score, config = score_of_one(), TopicScoreConfig()
    score.topic("mesh", config, 0.0).joined(0.0)
    for number in range(1000):
        score.topic(str(number), config, 0.0).delivered_first(0.0)
    assert score.value(0.0) <= 256 * 0.5 + 1
    assert score.topic("mesh", config, 0.0).in_mesh
    for number in range(300):
        score.topic(f"mesh{number}", config, 0.0).joined(0.0)
    assert score.topic("mesh299", config, 0.0).in_mesh


def test_topics_with_nothing_in_them_are_forgotten() -> None:
    score, config = score_of_one(), TopicScoreConfig()
    before = score.topic("t", config, 0.0)
    before.delivered_first(0.0)
    score.value(1.0)
    assert score.topic("t", config, 1.0) is before
    score.value(1e6)
    assert score.topic("t", config, 1e6) is not before


def test_what_gets_worse_is_seen_at_once_and_what_gets_better_within_the_decay_interval() -> None:
    score = score_of_one()
    assert not score.below(-100.0, 0.0)
    score.invalid_message(0.0)
    assert score.below(-200.0, 0.0)
    assert not score.below(-400.0, 0.0)
    score.invalid_message(0.5)
    assert score.below(-400.0, 0.5)
    score.app = 1e6
    assert score.below(-400.0, 1.4)
    assert not score.below(-400.0, 1.5)
