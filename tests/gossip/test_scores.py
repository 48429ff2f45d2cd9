"""What takes more than one peer to know: colocation, retention, copies that come soon after the first."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.errors import UsageError
from swarmp2p.gossip.config import GossipConfig, TopicConfig
from swarmp2p.gossip.events import SetAppScore
from swarmp2p.gossip.peers import place_of
from swarmp2p.gossip.score import PeerScore
from swarmp2p.gossip.score_config import ScoreConfig, TopicScoreConfig
from swarmp2p.gossip.scores import Scores
from swarmp2p.transport.addresses import to_multiaddr

from .network import peer_id

# P2, P3 and P4 count 1 for each message, so that values can be read off.
TOPIC = TopicScoreConfig(
    topic_weight=1.0,
    mesh_time_weight=0.0,
    first_weight=1.0,
    delivery_weight=-1.0,
    delivery_threshold=3.0,
    delivery_activation_s=5.0,
    failure_weight=-1.0,
    invalid_weight=-1.0,
)


def scores(topic: TopicScoreConfig | None = TOPIC, max_cached: int = 10, max_peers: int = 5) -> Scores:
    score = ScoreConfig(
        colocation_threshold=2,
        colocation_weight=-1.0,
        colocation_whitelist=("198.51.100.0/24", "2001:db8:1::/48"),
        decay_s=1e9,  # nothing decays here
    )
    topics = {"t": TopicConfig(score=topic)}
    return Scores(GossipConfig(score=score, topics=topics, max_cached=max_cached, max_peers=max_peers))


def place(host: str) -> bytes:
    return place_of(to_multiaddr(host, 1))


def crowd(table: Scores, host: str, *numbers: int) -> list[PeerScore]:
    return [table.connected(peer_id(number), place(host), 0.0) for number in numbers]


# P6 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8:2::7"])
def test_each_of_a_crowd_on_one_host_pays_for_the_square_of_its_surplus(host: str) -> None:
    """gossipsub 1.1, "P6: IP Colocation Factor"."""
    table = scores()
    alone = table.connected(peer_id(9), place("192.0.2.99"), 0.0)
    members = crowd(table, host, 1, 2)
    assert [one.clean for one in members] == [True, True], "as many as the threshold"
    members += crowd(table, host, 3)
    assert [one.clean for one in members] == [False] * 3
    assert [one.value(0.0) for one in members] == [-1.0] * 3
    members += crowd(table, host, 4)
    assert [one.value(0.0) for one in members] == [-4.0] * 4
    assert alone.value(0.0) == 0


def test_when_the_crowd_goes_the_rest_is_free() -> None:
    table = scores()
    members = crowd(table, "192.0.2.7", 1, 2, 3)
    table.gone(members[2], place("192.0.2.7"), 0.0)
    assert [one.value(0.0) for one in members[:2]] == [0, 0]
    assert members[0].clean
    table.moved(members[0], place("192.0.2.7"), place("192.0.2.8"))
    table.moved(members[0], place("192.0.2.8"), place("192.0.2.7"))
    crowd(table, "192.0.2.7", 4)
    assert not members[0].clean


@pytest.mark.parametrize("host", ["198.51.100.9", "2001:db8:1:5::1", "127.0.0.1"])
def test_networks_on_the_whitelist_and_loopback_are_no_crowd(host: str) -> None:
    assert all(one.clean for one in crowd(scores(), host, 1, 2, 3, 4))


def test_what_was_known_to_be_no_host_is_no_crowd() -> None:
    table = scores()
    assert all(table.connected(peer_id(number), b"", 0.0).clean for number in range(9))


# Coming and going -------------------------------------------------------------------------------------------


def test_what_counts_against_a_peer_is_kept_and_what_counts_for_it_is_not() -> None:
    """gossipsub 1.1, "Score retention": so that reconnecting does not reset a bad score."""
    table = scores()
    score = table.connected(peer_id(1), b"", 0.0)
    for _ in range(20):
        table.delivered(score, "t", b"", 0.0)
    for _ in range(3):
        table.rejected(score, "t", 0.0)
    assert score.value(0.0) == 20 - 9
    table.gone(score, b"", 0.0)
    assert table.retained == 1
    back = table.connected(peer_id(1), b"", 10.0)
    assert back.value(10.0) == pytest.approx(-9, rel=0.1)
    assert table.retained == 0


def test_good_scores_are_not_kept() -> None:
    table = scores()
    score = table.connected(peer_id(1), b"", 0.0)
    table.delivered(score, "t", b"", 0.0)
    table.gone(score, b"", 0.0)
    assert table.retained == 0
    assert table.connected(peer_id(1), b"", 1.0).value(1.0) == 0


def test_scores_are_kept_for_the_time_set_and_of_so_many_peers() -> None:
    table = scores(max_peers=3)
    for number in range(5):
        score = table.connected(peer_id(number), b"", 0.0)
        table.rejected(score, "t", 0.0)
        table.gone(score, b"", 0.0)
    assert table.retained == 3
    assert table.connected(peer_id(0), b"", 0.0).value(0.0) == 0, "the oldest went"
    assert table.connected(peer_id(4), b"", 0.0).value(0.0) == -1
    table.beat(6 * 3600.0 - 1)
    assert table.retained == 2
    assert table.connected(peer_id(3), b"", 6 * 3600.0).value(6 * 3600.0) == 0, (
        "too late, also before a heartbeat"
    )
    table.beat(6 * 3600.0)
    assert table.retained == 0


def test_a_peer_that_leaves_from_the_mesh_with_a_deficit_has_failed() -> None:
    """gossipsub 1.1, "P3b: Mesh Message Delivery Failures"."""
    table = scores()
    score = table.connected(peer_id(1), b"", 0.0)
    table.joined(score, "t", 0.0)
    table.delivered(score, "t", b"1", 6.0)
    assert score.value(6.0) == pytest.approx(1 - 4)
    table.gone(score, b"", 6.0)
    assert table.connected(peer_id(1), b"", 6.0).value(6.0) == pytest.approx(-4)


# P5 ---------------------------------------------------------------------------------------------------------


def test_what_the_application_thinks_outlives_connections() -> None:
    table = scores(max_peers=3)
    table.set_app(peer_id(1), -5.0, None)
    score = table.connected(peer_id(1), b"", 0.0)
    assert (score.value(0.0), score.clean) == (-5, False)
    table.gone(score, b"", 0.0)
    assert table.retained == 0, "it is kept by itself"
    score = table.connected(peer_id(1), b"", 0.0)
    assert score.value(0.0) == -5
    table.set_app(peer_id(1), 2.0, score)
    assert score.value(0.0) == 2
    table.set_app(peer_id(1), 0.0, score)
    assert score.value(0.0) == 0
    for number in range(2, 9):
        table.set_app(peer_id(number), 1.0, None)
    assert table.connected(peer_id(5), b"", 0.0).value(0.0) == 0, "the latest three are remembered"
    assert table.connected(peer_id(6), b"", 0.0).value(0.0) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_application_score_is_a_number(value: float) -> None:
    with pytest.raises(UsageError, match="finite number"):
        SetAppScore(peer_id(1), value)


# P3 ---------------------------------------------------------------------------------------------------------


def test_copies_within_the_window_count_once_for_each_peer_of_the_mesh() -> None:
    """gossipsub 1.1, "P3: Mesh Message Deliveries": the first, and near-first deliveries."""
    table = scores()
    first, second, outside = (table.connected(peer_id(number), b"", 0.0) for number in (1, 2, 3))
    for score in (first, second):
        table.joined(score, "t", 0.0)
    for number in range(3):
        message_id = bytes([number])
        table.delivered(first, "t", message_id, 10.0)
        for score in (first, second, second, outside):
            table.copied(score, message_id, 12.0)
    assert first.value(12.0) == pytest.approx(3, abs=0.1), "nothing is missing, and P2"
    assert second.value(12.0) == pytest.approx(0, abs=0.1)
    assert outside.value(12.0) == 0


def test_copies_after_the_window_do_not_count() -> None:
    table = scores()
    first, second = (table.connected(peer_id(number), b"", 0.0) for number in (1, 2))
    table.joined(second, "t", 0.0)
    table.delivered(first, "t", b"1", 10.0)
    table.copied(second, b"1", 12.1)
    assert second.value(12.1) == -9
    table.beat(12.1)
    assert not table.watched
    table.copied(second, b"1", 12.1)


def test_watched_messages_are_bounded() -> None:
    table = scores(max_cached=4)
    score = table.connected(peer_id(1), b"", 0.0)
    for number in range(9):
        table.delivered(score, "t", bytes([number]), 0.0)
    assert list(table.watched) == [bytes([number]) for number in (5, 6, 7, 8)]


def test_without_a_deficit_to_count_nothing_is_watched() -> None:
    table = scores(replace(TOPIC, delivery_weight=0.0, failure_weight=0.0))
    score = table.connected(peer_id(1), b"", 0.0)
    table.delivered(score, "t", b"1", 0.0)
    assert not table.watched
    assert score.value(0.0) == 1


# Topics without parameters ----------------------------------------------------------------------------------


def test_in_topics_without_parameters_only_invalid_messages_count() -> None:
    table = scores()
    score = table.connected(peer_id(1), b"", 0.0)
    table.joined(score, "other", 0.0)
    table.delivered(score, "other", b"1", 0.0)
    table.left(score, "other", 1000.0)
    assert score.clean
    assert score.value(1000.0) == 0
    table.rejected(score, "other", 1000.0)
    assert score.value(1000.0) == -300
    assert not scores(None).scored


def test_leaving_a_topic_is_no_fault_of_those_in_its_mesh() -> None:
    table = scores()
    score = table.connected(peer_id(1), b"", 0.0)
    table.joined(score, "t", 0.0)
    assert score.value(6.0) == -9
    table.left(score, "t", 6.0, failed=False)
    assert score.value(6.0) == 0
    assert score.clean


# Bounds -----------------------------------------------------------------------------------------------------

deeds = st.sampled_from(["come", "go", "move", "app", "join", "leave", "first", "copy", "reject", "beat"])
steps = st.tuples(deeds, st.integers(1, 8), st.integers(0, 6), st.sampled_from([0.0, 1.0, 100.0, 30_000.0]))


@given(st.lists(steps, max_size=80))
@settings(max_examples=200, deadline=None)
def test_memory_is_bounded_and_all_is_forgotten_in_the_end(
    history: list[tuple[str, int, int, float]],
) -> None:
    table, now = scores(max_cached=4, max_peers=3), 0.0
    up: dict[int, tuple[PeerScore, bytes]] = {}
    for deed, number, other, pause in history:
        now += pause
        host, name = bytes([10, 0, 0, other % 2]), bytes([other])
        if deed == "come" and number not in up and len(up) < 3:
            up[number] = table.connected(peer_id(number), host, now), host
        elif deed == "app":
            table.set_app(peer_id(number), float(other - 3), up[number][0] if number in up else None)
        elif deed == "beat":
            table.beat(now)
        elif number in up:
            score, before = up[number]
            match deed:
                case "go":
                    table.gone(score, before, now)
                    del up[number]
                case "move":
                    table.moved(score, before, host)
                    up[number] = score, host
                case "join":
                    table.joined(score, "t", now)
                case "leave":
                    table.left(score, "t", now)
                case "first":
                    table.delivered(score, "t", name, now)
                case "copy":
                    table.copied(score, name, now)
                case _:
                    table.rejected(score, "t" if other % 2 else "u", now)
        for score, _ in up.values():
            clean = score.clean
            assert (value := score.value(now)) <= 100 + 3, "the cap, and the application"
            assert not (clean and value < 0), "clean means not below 0"
        sizes = table.sizes()
        assert sizes["scores_kept"] <= 3
        assert sizes["app_scores"] <= 3
        assert sizes["watched"] <= 4
        assert sizes["hosts"] <= len(up)
    for score, before in up.values():
        table.gone(score, before, now)
    for number in range(1, 9):
        table.set_app(peer_id(number), 0.0, None)
    table.beat(now + 6 * 3600.0)
    assert set(table.sizes().values()) == {0}
