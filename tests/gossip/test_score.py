"""Peer score: what counts against a peer, how much, and for how long."""

from __future__ import annotations

import pytest

from swarmp2p.errors import UsageError
from swarmp2p.gossip.score import PeerScore, ScoreConfig

CONFIG = ScoreConfig()


def test_a_new_peer_has_nothing_against_it() -> None:
    score = PeerScore(CONFIG)
    assert score.clean
    assert score.value(1000.0) == 0


def test_invalid_messages_weigh_by_their_square() -> None:
    """gossipsub 1.1, "P4: Invalid messages": the square of the counter."""
    score = PeerScore(CONFIG)
    values: list[float] = []
    for _ in range(3):
        score.invalid_message(0.0)
        values.append(score.value(0.0))
    assert values == [-10, -40, -90]
    assert values[0] < 0
    assert values[-1] < CONFIG.graylist_threshold


def test_misbehaviour_is_tolerated_up_to_a_threshold() -> None:
    """gossipsub 1.1, "P7: Behavioural penalty": the square of what exceeds it."""
    score = PeerScore(CONFIG)
    for _ in range(6):
        score.misbehaved(0.0)
    assert score.value(0.0) == 0
    score.misbehaved(0.0)
    score.misbehaved(0.0)
    assert score.value(0.0) == -40


def test_liars_pay_for_promises() -> None:
    score = PeerScore(CONFIG)
    for _ in range(10):
        score.broke_promise(0.0)
    assert score.value(0.0) < CONFIG.graylist_threshold


def test_honest_peers_on_a_lossy_network_do_not() -> None:
    score = PeerScore(CONFIG)
    for _ in range(100):
        score.broke_promise(0.0)
        score.broke_promise(0.0)
        score.kept_promise(0.0)
    assert score.value(0.0) == 0


def test_counters_decay() -> None:
    """gossipsub 1.1, "Parameter decay"."""
    score = PeerScore(CONFIG)
    score.invalid_message(100.0)
    assert score.value(400.0) == pytest.approx(-10 * 0.1**2)
    assert score.value(701.0) == 0
    assert score.clean


def test_a_clean_peer_is_clean_again_after_a_while() -> None:
    score = PeerScore(CONFIG)
    for _ in range(9):
        score.misbehaved(800.0)
        score.broke_promise(800.0)
    assert [score.value(800.0) < 0, score.value(3000.0) < 0] == [True, False]
    assert score.clean


@pytest.mark.parametrize(
    "change",
    [
        {"invalid_weight": 1.0},
        {"behaviour_weight": 1.0},
        {"decay_s": 0.0},
        {"gossip_threshold": 0.0},
        {"publish_threshold": -1.0},
        {"graylist_threshold": -30.0},
    ],
)
def test_parameters_must_make_sense(change: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="score"):
        ScoreConfig(**change)
