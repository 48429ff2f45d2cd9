"""What a peer earns and pays for in one topic (gossipsub 1.1, "Peer Scoring", P1 to P4)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.gossip.score_config import ScoreConfig, TopicScoreConfig
from swarmp2p.gossip.topic_score import TopicScore

NOTHING = TopicScoreConfig(topic_weight=1.0, mesh_time_weight=0.0, first_weight=0.0, invalid_weight=0.0)
P1 = replace(NOTHING, mesh_time_weight=2.0, mesh_time_quantum_s=5.0, mesh_time_cap=3.0)
P2 = replace(NOTHING, first_weight=2.0, first_decay_s=100.0, first_cap=4.0)
P3 = replace(
    NOTHING,
    delivery_weight=-1.0,
    delivery_threshold=4.0,
    delivery_cap=6.0,
    delivery_decay_s=100.0,
    delivery_activation_s=10.0,
)
P3B = replace(P3, delivery_weight=-1e-9, failure_weight=-1.0, failure_decay_s=100.0)
P4 = replace(NOTHING, invalid_weight=-1.0, invalid_decay_s=100.0)


def score(config: TopicScoreConfig) -> TopicScore:
    return TopicScore(config, ScoreConfig(), 0.0)


def value(one: TopicScore, now: float) -> float:
    return one.good(now) + one.bad(now)


def test_p1_grows_by_the_quantum_while_in_the_mesh_up_to_the_cap() -> None:
    """P1, Time in Mesh."""
    one = score(P1)
    assert value(one, 100.0) == 0
    one.joined(100.0)
    assert [value(one, 100.0 + after) for after in (0, 4.9, 5, 14.9, 15, 1000)] == [0, 0, 2, 4, 6, 6]
    one.left(2000.0, failed=True)
    assert value(one, 2000.0) == 0


def test_p2_counts_first_deliveries_up_to_the_cap_and_decays() -> None:
    """P2, First Message Deliveries."""
    one = score(P2)
    for _ in range(3):
        one.delivered_first(0.0)
    assert value(one, 0.0) == 6
    for _ in range(3):
        one.delivered_first(0.0)
    assert value(one, 0.0) == 8
    assert value(one, 50.0) == pytest.approx(0.8)
    assert value(one, 200.0) == 0


def test_p2_counts_outside_of_the_mesh_too() -> None:
    one = score(P2)
    one.delivered_first(0.0)
    one.delivered(0.0)
    assert value(one, 0.0) == 2, "a copy is no first delivery"


def test_p3_is_the_squared_deficit_once_activated() -> None:
    """P3, Mesh Message Deliveries."""
    one = score(P3)
    assert value(one, 1000.0) == 0, "nothing is expected of who is not in the mesh"
    one.joined(1000.0)
    assert value(one, 1010.0) == 0, "nor before the activation is over"
    assert value(one, 1010.1) == -16
    one.delivered(1010.1)
    assert value(one, 1010.1) == -9
    for _ in range(3):
        one.delivered_first(1010.1)
    assert value(one, 1010.1) == 0
    assert value(one, 1060.1) < 0, "deliveries decay"


def test_p3_deliveries_count_up_to_the_cap() -> None:
    one = score(P3)
    one.joined(0.0)
    for _ in range(100):
        one.delivered(10.0)
    assert value(one, 11.0) == 0
    assert value(one, 10.0 + 100.0 * 0.5) == pytest.approx(-(3.4**2)), "6 count: they decay to a tenth"


def test_p3_begins_anew_with_each_graft() -> None:
    one = score(P3)
    one.joined(0.0)
    one.delivered(1.0)
    one.left(5.0, failed=True)
    one.joined(50.0)
    assert value(one, 60.0) == 0
    assert value(one, 60.1) == -16


def test_p3b_keeps_the_deficit_with_which_a_peer_left() -> None:
    """P3b, Mesh Message Delivery Failures: sticky, so that a pruned peer is not forgiven."""
    one = score(P3B)
    one.joined(0.0)
    one.delivered(15.0)
    one.left(15.0, failed=True)
    assert value(one, 15.0) == -9
    assert not one.in_mesh
    one.left(16.0, failed=True)
    assert value(one, 15.0) == -9, "once"
    assert value(one, 65.0) == pytest.approx(-0.9)
    one.joined(65.0)
    assert value(one, 65.0) < -0.8, "nor by being grafted again"
    assert value(one, 215.0) == pytest.approx(0, abs=1e-6)


def test_p3b_is_for_active_deficits_and_for_failures() -> None:
    for left_at, failed in ((9.0, True), (15.0, False)):
        one = score(P3B)
        one.joined(0.0)
        one.left(left_at, failed)
        assert value(one, left_at) == 0


def test_p4_is_the_square_of_invalid_messages() -> None:
    """P4, Invalid Messages."""
    one = score(P4)
    values: list[float] = []
    for _ in range(3):
        one.sent_invalid(0.0)
        values.append(value(one, 0.0))
    assert values == [-1, -4, -9]
    assert value(one, 50.0) == pytest.approx(-0.09)
    assert value(one, 200.0) == 0


def test_the_topic_weight_is_over_all() -> None:
    one = score(replace(P4, topic_weight=0.25))
    one.sent_invalid(0.0)
    assert value(one, 0.0) == -0.25


events = st.sampled_from(["joined", "left", "left by us", "first", "copy", "invalid", "look"])


@given(st.lists(st.tuples(events, st.floats(0, 700)), max_size=60))
def test_rewards_and_penalties_keep_their_signs_and_all_decay_to_nothing(
    history: list[tuple[str, float]],
) -> None:
    config = TopicScoreConfig(delivery_weight=-1.0, failure_weight=-1.0)
    one, now = TopicScore(config, ScoreConfig(), 0.0), 0.0
    for event, pause in history:
        now += pause
        match event:
            case "joined":
                one.joined(now)
            case "left":
                one.left(now, failed=True)
            case "left by us":
                one.left(now, failed=False)
            case "first":
                one.delivered_first(now)
            case "copy":
                one.delivered(now)
            case "invalid":
                one.sent_invalid(now)
            case _:
                pass
        assert 0 <= one.good(now) <= 0.1 * (1 + 5 * 100)
        assert one.bad(now) <= 0
        assert one.may_turn_bad() or one.bad(now) == 0
    one.left(now, failed=True)
    now += 36_000.0
    assert value(one, now) == 0
    assert one.blank
    assert not one.may_turn_bad()
