"""Parameters of the peer score that make no sense are refused, with words that help."""

from __future__ import annotations

import math
from typing import Any

import pytest

from swarmp2p.errors import UsageError
from swarmp2p.gossip.config import GossipConfig
from swarmp2p.gossip.score_config import ScoreConfig, TopicScoreConfig, decay_s


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
    with pytest.raises(UsageError, match=r"score.*(must|write networks as)"):
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
    with pytest.raises(UsageError, match=r"score: .* must be"):
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
