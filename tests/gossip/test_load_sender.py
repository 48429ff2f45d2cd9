"""Load signals leave on change, not too often, and now and then anyway."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.engine import Tick
from swarmp2p.errors import UsageError
from swarmp2p.gossip.events import Publish, Subscribe, Unsubscribe
from swarmp2p.gossip.load import LOAD_TOPIC, FollowLoads, LoadBoard, SetLoad, UnfollowLoads
from swarmp2p.gossip.load_sender import LoadSender, SenderConfig, differs
from swarmp2p.gossip.load_signal import LoadSignal, decode_signal
from swarmp2p.gossip.messages import BareMessages

from .network import peer_id, stub_sign, stub_verify

IDLE = LoadSignal(
    cpus_free=10, memory_free_bytes=1000, gpus_free=2, kind="workstation", speed=16, latency_s=0.1
)
CONFIG = SenderConfig(relative=0.1, min_interval_s=0.5, heartbeat_s=5.0, topic_rate=50.0)


def sender(config: SenderConfig = CONFIG) -> LoadSender:
    return LoadSender(Random(1), config)


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({"cpus_free": 9.5}, False),
        ({"cpus_free": 8.0}, True),
        ({"cpus_free": 0.0}, True),
        ({"memory_free_bytes": 950}, False),
        ({"memory_free_bytes": 1200}, True),
        ({"gpus_free": 1.0}, True),
        ({"latency_s": 0.105}, False),
        ({"latency_s": 0.2}, True),
        ({"in_flight": 1}, True),
        ({"leases": 1}, True),
        ({"kind": "gaming-pc"}, True),
        ({"region": "eu"}, True),
        ({"speed": 17.0}, True),
        ({"coordinate": bytes(22)}, False),
        ({"served": 1000}, False),
    ],
)
def test_what_changes_count(change: dict[str, Any], counts: bool) -> None:
    assert differs(IDLE, replace(IDLE, **change), 0.1) is counts
    assert differs(replace(IDLE, **change), IDLE, 0.1) is counts


def test_one_request_more_counts_until_it_is_a_small_share() -> None:
    assert differs(replace(IDLE, in_flight=5), replace(IDLE, in_flight=6), 0.1)
    assert not differs(replace(IDLE, in_flight=50), replace(IDLE, in_flight=52), 0.1)
    assert differs(replace(IDLE, in_flight=50), replace(IDLE, in_flight=60), 0.1)


def test_the_first_signal_leaves_at_once_and_says_when_the_next_comes() -> None:
    it = sender()
    assert it.deadline() == math.inf
    assert it.due(0.0) is None
    it.set(IDLE)
    assert it.due(100.0) == replace(IDLE, heartbeat_s=5.0)
    assert it.due(100.0) is None
    assert 104.5 <= it.deadline() <= 105.0


def test_a_change_waits_for_the_interval_and_the_last_one_is_sent() -> None:
    it = sender()
    it.set(IDLE)
    it.due(100.0)
    it.set(replace(IDLE, in_flight=1))
    it.set(replace(IDLE, in_flight=2))
    assert it.due(100.4) is None
    assert it.deadline() == 100.5
    assert it.due(100.5) == replace(IDLE, in_flight=2, heartbeat_s=5.0)


def test_a_change_that_is_undone_in_time_is_not_told() -> None:
    it = sender()
    it.set(IDLE)
    it.due(100.0)
    it.set(replace(IDLE, in_flight=1))
    it.set(IDLE)
    assert it.due(101.0) is None


def test_small_changes_leave_with_the_heartbeat() -> None:
    it = sender()
    it.set(IDLE)
    it.due(100.0)
    small = replace(IDLE, cpus_free=9.9)
    it.set(small)
    assert it.due(104.0) is None
    assert it.due(105.0) == replace(small, heartbeat_s=5.0)


def test_many_members_share_the_rate_of_a_topic() -> None:
    it = sender()
    it.share(400)
    it.set(IDLE)
    first = it.due(100.0)
    assert first is not None
    assert first.heartbeat_s == 8.0
    it.set(replace(IDLE, in_flight=9))
    assert 107.2 <= it.deadline() <= 108.0
    it.share(1)
    assert it.deadline() == 100.5


def test_nothing_leaves_after_the_end() -> None:
    it = sender()
    it.set(IDLE)
    it.due(100.0)
    it.set(None)
    assert not it.active
    assert it.deadline() == math.inf
    assert it.due(200.0) is None


@pytest.mark.parametrize(
    "change",
    [
        {"relative": 1.0},
        {"min_interval_s": 0.0},
        {"heartbeat_s": 0.1},
        {"ttl_s": 5.0},
        {"topic_rate": 0.0},
        {"relative": math.nan},
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        replace(CONFIG, **change)


@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(0, 40)), max_size=80),
    st.integers(1, 400),
)
@settings(max_examples=100, deadline=None)
def test_intervals_stay_within_their_bounds(steps: list[tuple[float, int]], members: int) -> None:
    """Whatever is set, whenever: never sooner than the interval, never later than promised, and what is known never
    differs for longer than the interval."""
    it = sender()
    it.share(members)
    interval = max(CONFIG.min_interval_s, members / CONFIG.topic_rate)
    now, sent = 0.0, list[tuple[float, LoadSignal]]()
    for pause, in_flight in steps:
        until = now + pause
        it.set(replace(IDLE, in_flight=in_flight))
        while (due := max(now, it.deadline())) <= until:
            now = due
            signal = it.due(now)
            assert signal is not None
            sent.append((now, signal))
        now = until
    for (before, signal), (after, _) in pairwise(sent):
        assert min(interval, 0.9 * signal.heartbeat_s) - 1e-9 <= after - before <= signal.heartbeat_s + 1e-9


# In the board -----------------------------------------------------------------------------------------------


def test_a_board_sends_what_is_set() -> None:
    board = LoadBoard(
        peer_id(0), stub_sign, stub_verify, Random(0), form=BareMessages(), coordinate=lambda: b"here"
    )
    subscribed, published = board.handle(SetLoad(IDLE), 100.0)
    assert subscribed == Subscribe(LOAD_TOPIC)
    assert isinstance(published, Publish)
    signal = decode_signal(published.data)
    assert (signal.cpus_free, signal.expires, signal.heartbeat_s) == (10.0, 160.0, 5.0)
    assert signal.coordinate == b"here"
    assert board.handle(SetLoad(IDLE), 100.1) == []
    assert board.handle(Tick(), 101.0) == []
    assert sum(isinstance(output, Publish) for output in board.handle(Tick(), 105.0)) == 1
    assert board.handle(SetLoad(None), 105.0) == [Unsubscribe(LOAD_TOPIC)]
    assert board.deadline() == math.inf


def test_following_is_counted() -> None:
    board = LoadBoard(peer_id(0), stub_sign, stub_verify, Random(0), form=BareMessages())
    assert board.handle(UnfollowLoads(), 0.0) == []
    assert board.handle(FollowLoads(), 0.0) == [Subscribe(LOAD_TOPIC)]
    assert board.handle(FollowLoads(), 0.0) == []
    assert len(board.handle(SetLoad(IDLE), 0.0)) == 1
    assert board.handle(UnfollowLoads(), 0.0) == []
    assert board.handle(SetLoad(None), 0.0) == []
    assert board.handle(UnfollowLoads(), 0.0) == [Unsubscribe(LOAD_TOPIC)]
