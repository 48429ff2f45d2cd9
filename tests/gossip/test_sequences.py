"""Replays: old sequence numbers do not pass, whatever the seen cache has forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.gossip.config import GossipConfig, TopicConfig
from swarmp2p.gossip.messages import IHave, Rpc
from swarmp2p.gossip.sequences import Sequences

from .harness import Scripted
from .network import message, peer_id

A = peer_id(1)


def test_only_the_latest_counts() -> None:
    guard = Sequences(120.0, 10)
    assert not guard.is_old(A, 5, 0.0, latest_only=True)
    guard.used(A, 5, 0.0)
    assert guard.is_old(A, 5, 0.0, latest_only=True)
    assert guard.is_old(A, 4, 0.0, latest_only=True)
    assert not guard.is_old(A, 6, 0.0, latest_only=True)
    assert not guard.is_old(peer_id(2), 1, 0.0, latest_only=True)


uses = st.lists(st.tuples(st.floats(0, 100), st.integers(0, 1000)), max_size=30)


@given(uses, st.floats(0, 400))
def test_what_is_older_than_the_seen_cache_never_passes(
    history: list[tuple[float, int]], later: float
) -> None:
    """And what is younger than half its time always does."""
    guard, now = Sequences(120.0, 10), 0.0
    sent: list[tuple[float, int]] = []
    for pause, number in history:
        now += pause
        guard.used(A, number, now)
        sent.append((now, number))
    now += later
    for when, number in sent:
        if now >= when + 120:
            assert guard.is_old(A, number, now, latest_only=False)
    recent = max((number for when, number in sent if when <= now - 60), default=-1)
    assert not guard.is_old(A, recent + 1, now, latest_only=False)


def test_the_source_that_was_silent_longest_is_forgotten() -> None:
    guard = Sequences(120.0, 2)
    for number in (1, 2, 1, 3):
        guard.used(peer_id(number), 7, 0.0)
    assert len(guard) == 2
    assert guard.is_old(peer_id(1), 7, 0.0, latest_only=True)
    assert not guard.is_old(peer_id(2), 7, 0.0, latest_only=True)


@pytest.mark.parametrize("kept", [TopicConfig(no_replays=True), TopicConfig(latest_only=True), TopicConfig()])
def test_a_replay_after_two_minutes(kept: TopicConfig) -> None:
    """pubsub spec, "Message": sequence numbers grow; go-libp2p-pubsub's BasicSeqnoValidator relies on it."""
    node = Scripted(GossipConfig(topics={"t": kept}))
    node.subscribe()
    node.up(1, 2)
    node.receive(1, Rpc(publish=(message(9, 1), message(9, 2))))
    node.now = 121.0
    node.receive(1, Rpc(publish=(message(9, 1), message(9, 2), message(9, 3))))
    numbers = [sent.sequence for sent in node.delivered]
    assert numbers == ([1, 2, 3] if kept != TopicConfig() else [1, 2, 1, 2, 3])
    assert node.router.stats.old == (2 if kept != TopicConfig() else 0)
    assert node.score(1) == 0, "whoever relays it may not have known"


def test_what_was_overtaken() -> None:
    """Delivered where every message counts; dropped where only the latest does, at no cost to those who sent it."""
    for latest_only, expected in ((False, [5, 4]), (True, [5])):
        node = Scripted(GossipConfig(topics={"t": TopicConfig(latest_only=latest_only, no_replays=True)}))
        node.subscribe()
        node.up(1)
        node.receive(1, Rpc(publish=(message(9, 5),)))
        node.receive(1, Rpc(ihave=(IHave("t", (message(9, 4).id,)),)))
        node.receive(1, Rpc(publish=(message(9, 4),)))
        assert [sent.sequence for sent in node.delivered] == expected
        assert node.router.stats.promises_kept == 1


def test_a_forged_number_shuts_nobody_out() -> None:
    node = Scripted(GossipConfig(topics={"t": TopicConfig(latest_only=True)}))
    node.subscribe()
    node.up(1)
    node.receive(1, Rpc(publish=(message(9, 1 << 60, signature=b"false"), message(9, 1))))
    assert [sent.sequence for sent in node.delivered] == [1]
