"""Parameters of the peer score that make no sense are refused, with words that help."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest

from swarmp2p.errors import UsageError
from swarmp2p.gossip.config import GossipConfig
from swarmp2p.gossip.score_config import ScoreConfig, TopicScoreConfig, decay_s
from swarmp2p.gossip.topic_score import TopicScore


@pytest.mark.parametrize(
    "change",
    [
        {"topic_score_cap": -1.0},
        {"topic_score_cap": math.nan},
        {"invalid_weight": 1.0},
        {"invalid_weight": -math.inf},
        {"behaviour_weight": 1.0},
        {"behaviour_tolerance": -1.0},
        {"colocation_weight": 1.0},
        {"colocation_threshold": 0},
        {"colocation_whitelist": ("not a network",)},
        {"app_weight": -1.0},
        {"decay_s": 0.0},
        {"decay_s": math.inf},
        {"decay_interval_s": -1.0},
        {"decay_to_zero": 0.0},
        {"decay_to_zero": 1.0},
        {"retain_score_s": -1.0},
        {"kept_excuses": -1.0},
        {"gossip_threshold": 0.0},
        {"publish_threshold": -1.0},
        {"graylist_threshold": -30.0},
        {"graylist_threshold": -math.inf},
        {"accept_px_threshold": -1.0},
        {"opportunistic_graft_threshold": -1.0},
        {"opportunistic_graft_threshold": math.nan},
    ],
)
def test_parameters_must_make_sense(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"score.*(must|write networks as)|ScoreConfig\."):
        ScoreConfig(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"topic_weight": -0.1},
        {"mesh_time_weight": -1.0},
        {"mesh_time_quantum_s": 0.0},
        {"mesh_time_cap": 0.0},
        {"first_weight": -1.0},
        {"first_decay_s": 0.0},
        {"first_cap": -1.0},
        {"delivery_weight": 1.0},
        {"delivery_decay_s": -1.0},
        {"delivery_cap": 0.0},
        {"delivery_threshold": 0.0},
        {"delivery_window_s": -1.0},
        {"delivery_window_s": 11.0},
        {"delivery_activation_s": 0.5},
        {"delivery_weight": -1.0, "delivery_cap": 5.0, "delivery_threshold": 6.0},
        {"failure_weight": 1.0},
        {"failure_decay_s": 0.0},
        {"invalid_weight": 1.0},
        {"invalid_weight": math.nan},
        {"invalid_decay_s": math.inf},
    ],
)
def test_parameters_of_topics_must_make_sense(change: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"score: .* must be|TopicScoreConfig\."):
        TopicScoreConfig(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"mesh_outbound": 5},
        {"mesh_outbound": -1},
        {"mesh_degree": 5, "mesh_low": 5, "mesh_outbound": 3},
        {"mesh_degree": 8, "mesh_low": 2, "mesh_outbound": 2},
        {"mesh_score": -1},
        {"opportunistic_graft_beats": 0},
        {"opportunistic_graft_peers": -1},
        {"prune_backoff_s": 0.0},
        {"unsubscribe_backoff_s": 0.0},
        {"direct_connect_s": 0.0},
    ],
)
def test_parameters_of_meshes_must_make_sense(change: dict[str, Any]) -> None:
    """gossipsub 1.1, "Outbound Mesh Quotas": D_out is below D_lo and must not exceed D / 2."""
    with pytest.raises(UsageError, match=next(iter(change)) if len(change) == 1 else "mesh_outbound"):
        GossipConfig(**change)


def test_small_meshes_get_the_outbound_quota_that_they_can_have() -> None:
    assert GossipConfig().outbound_quota == 2
    assert GossipConfig(mesh_low=2, mesh_degree=3, mesh_high=4).outbound_quota == 1
    assert GossipConfig(mesh_low=0, mesh_degree=0, mesh_high=0).outbound_quota == 0


def test_published_decay_factors_can_be_converted() -> None:
    """Ethereum's and Filecoin's parameters are factors for each interval."""
    assert decay_s(0.01 ** (1 / 600)) == pytest.approx(600)
    assert decay_s(0.01 ** (1 / 50), interval_s=12.0) == pytest.approx(600)
    for factor in (0.0, 1.0, 1.1):
        with pytest.raises(UsageError, match="decay factor"):
            decay_s(factor)


# Parameters by a topic's traffic ----------------------------------------------------------------------------


def score_after(
    config: TopicScoreConfig, rate: float, first_share: float, copy_share: float, s: float
) -> float:
    """Of a mesh peer that brings shares of a topic's messages first, and as copies."""
    score = TopicScore(config, ScoreConfig(), 0.0)
    score.joined(0.0)
    rng, now = Random(1), 0.0
    while now < s:
        now += 1.0 / rate
        luck = rng.random()
        if luck < first_share:
            score.delivered_first(now)
        elif luck < first_share + copy_share:
            score.delivered(now)
    return score.good(now) + score.bad(now)


@pytest.mark.parametrize("rate", [0.1, 1.0, 20.0])
def test_a_peer_that_brings_its_part_earns_20_and_one_that_is_silent_loses_its_place(rate: float) -> None:
    config = TopicScoreConfig.for_rate(rate, 8, rate)
    assert 10.0 < score_after(config, rate, 1 / 8, 3 / 8, 1000 / rate) < 50.0
    assert -80.0 < score_after(config, rate, 0.0, 0.0, 200 / rate + 20) < -20.0
    assert score_after(config, rate, 0.0, 0.0, 50 / rate) >= 0.0  # it has to have had the time


def test_without_a_least_rate_nobody_is_blamed_for_silence() -> None:
    config = TopicScoreConfig.for_rate(1.0)
    assert score_after(config, 1.0, 0.0, 0.0, 1000.0) >= 0.0
    assert TopicScoreConfig.for_rate(1.0, least_per_s=0.05).delivery_weight == 0.0


def test_what_a_silent_peer_loses_leaves_it_the_gossip() -> None:
    config = TopicScoreConfig.for_rate(1.0, 6, 1.0)
    score, now = TopicScore(config, ScoreConfig(), 0.0), 0.0
    for _ in range(20):  # pruned, and grafted as soon as that is allowed
        score.joined(now)
        score.left(now + 125.0, True)
        now += 125.0 + 60.0
    assert score.bad(now) > ScoreConfig().gossip_threshold


@pytest.mark.parametrize(("rate", "degree", "least"), [(0.0, 6, 0.0), (1.0, 0, 0.0), (1.0, 6, 2.0)])
def test_rates_that_make_no_sense_are_refused(rate: float, degree: int, least: float) -> None:
    with pytest.raises(UsageError):
        TopicScoreConfig.for_rate(rate, degree, least)
