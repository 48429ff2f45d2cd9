"""Mesh upkeep of gossipsub 1.1, by its sections: quotas, opportunistic grafting, scores, backoff."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.engine import PeerDown, PeerUp, Received, Send, Tick
from swarmp2p.gossip.config import GossipConfig, TopicConfig
from swarmp2p.gossip.events import Publish, SetAppScore, Subscribe, Unsubscribe
from swarmp2p.gossip.messages import Prune, Rpc
from swarmp2p.gossip.score_config import ScoreConfig, TopicScoreConfig
from swarmp2p.identity import PeerId

from .harness import Scripted
from .network import message, peer_id, router

IDLE = GossipConfig(mesh_low=0, mesh_outbound=0)
"""Grafts nobody by itself."""


def grafting(node: Scripted, numbers: Sequence[int]) -> None:
    for number in numbers:
        node.receive(number, Rpc(graft=("t",)))


def pruned(answer: dict[PeerId, Rpc]) -> set[PeerId]:
    return {peer for peer, rpc in answer.items() if rpc.prune}


# Dhi and Dscore ---------------------------------------------------------------------------------------------


def test_a_full_mesh_refuses_all_but_those_whom_this_peer_dialled() -> None:
    """Outbound Mesh Quotas: a GRAFT above D_hi is accepted from outbound peers alone."""
    node = Scripted(IDLE)
    node.subscribe()
    node.up(*range(1, 15))
    node.up(20, 21, outbound=True)
    grafting(node, range(1, 13))
    assert node.receive(13, Rpc(graft=("t",))) == {peer_id(13): Rpc(prune=(Prune("t", 60),))}
    assert node.receive(20, Rpc(graft=("t",))) == {}
    assert node.mesh() == {*range(1, 13), 20}


def test_an_over_full_mesh_is_cut_back_to_d_with_the_best_and_outbound_ones() -> None:
    """Maintaining the mesh: D_score best, D_out outbound, the rest at random."""
    node = Scripted(replace(IDLE, mesh_low=3, mesh_outbound=2))
    node.up(*range(1, 12))
    node.up(20, 21, 22, outbound=True)
    node.subscribe()
    grafting(node, [number for number in (20, 21, 22, *range(1, 12)) if number not in node.mesh()])
    assert len(node.mesh()) >= 12
    for number in (3, 4, 5, 6):
        node.handle(SetAppScore(peer_id(number), 1.0))
    answer = node.heartbeat()
    assert len(node.mesh()) == 6
    assert {3, 4, 5, 6} <= node.mesh()
    assert len({20, 21, 22} & node.mesh()) == 2
    assert len(pruned(answer)) == 6
    assert all(rpc.prune == (Prune("t", 60),) for rpc in answer.values() if rpc.prune)


def test_a_mesh_below_dhi_is_left_alone() -> None:
    node = Scripted(IDLE)
    node.subscribe()
    node.up(*range(1, 12))
    grafting(node, range(1, 12))
    assert pruned(node.heartbeat()) == set()
    assert len(node.mesh()) == 11


# Dout -------------------------------------------------------------------------------------------------------


def test_too_few_outbound_peers_are_grafted() -> None:
    """Outbound Mesh Quotas: at the heartbeat, up to D_out."""
    node = Scripted()
    node.subscribe()
    node.up(*range(1, 8))
    node.up(20, 21, 22, outbound=True)
    assert node.mesh() == {1, 2, 3, 4, 5}
    answer = node.heartbeat()
    assert len(node.mesh() & {20, 21, 22}) == 2
    assert len(node.mesh()) == 7
    assert sum("t" in rpc.graft for rpc in answer.values()) == 2
    assert not any(rpc.graft for rpc in node.heartbeat().values())


def test_outbound_peers_in_backoff_or_in_disgrace_are_not() -> None:
    node = Scripted()
    node.subscribe()
    node.up(*range(1, 8))
    node.up(20, 21, outbound=True)
    node.receive(20, Rpc(prune=(Prune("t", 60),)))
    node.handle(SetAppScore(peer_id(21), -1.0))
    node.heartbeat()
    assert node.mesh() == {1, 2, 3, 4, 5}


# Scores -----------------------------------------------------------------------------------------------------


def test_peers_below_zero_are_pruned_and_their_grafts_refused() -> None:
    """Maintaining the mesh: no peer with a negative score, and none grafted; with PRUNE, for protocol's sake."""
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    node.handle(SetAppScore(peer_id(1), -1.0))
    assert node.heartbeat() == {peer_id(1): Rpc(prune=(Prune("t", 60),))}
    node.handle(SetAppScore(peer_id(1), 0.0))
    node.handle(SetAppScore(peer_id(2), -1.0))
    node.receive(2, Rpc(prune=(Prune("t", 1),)))
    node.now += 10.0
    assert node.receive(2, Rpc(graft=("t",)))[peer_id(2)].prune == (Prune("t", 60),)
    assert node.mesh() == set()
    assert node.receive(1, Rpc(graft=("t",)))[peer_id(1)].prune == (Prune("t", 60),), "its backoff holds"


def test_fanout_and_publishing_have_their_threshold() -> None:
    """Peer Scoring, Thresholds: publishThreshold."""
    node = Scripted(GossipConfig(flood_publish=False))
    node.up(1, 2)
    assert set(node.publish()) == {peer_id(1), peer_id(2)}
    node.handle(SetAppScore(peer_id(1), -1001.0))
    node.handle(SetAppScore(peer_id(2), -999.0))
    node.heartbeat()
    assert set(node.publish()) == {peer_id(2)}
    flood = Scripted()
    flood.subscribe()
    flood.up(1, 2)
    flood.handle(SetAppScore(peer_id(1), -1001.0))
    flood.handle(SetAppScore(peer_id(2), -999.0))
    assert set(flood.publish()) == {peer_id(2)}


def test_peer_exchange_has_its_threshold() -> None:
    """Peer Scoring, Thresholds: acceptPXThreshold."""
    node = Scripted(GossipConfig(score=ScoreConfig(accept_px_threshold=10.0)))
    node.subscribe()
    node.up(1)
    state = node.router._peers.get(peer_id(1))  # pyright: ignore[reportPrivateUsage]
    assert state is not None
    for value, accepted in ((9.0, False), (10.0, True), (-1.0, False)):
        node.handle(SetAppScore(peer_id(1), value))
        assert node.router._mesh.may_exchange(state, "t", node.now) is accepted  # pyright: ignore[reportPrivateUsage]


# Opportunistic grafting -------------------------------------------------------------------------------------


def opportunistic(*outside: float) -> Scripted:
    """A mesh of 1 to 5 with scores 0, 0, 2, 3, 9, and peers outside of it, from 11 on, with these scores."""
    node = Scripted(GossipConfig(opportunistic_graft_beats=3))
    node.up(*range(1, 6))
    node.subscribe()
    assert node.mesh() == {1, 2, 3, 4, 5}
    node.up(*range(11, 11 + len(outside)))
    for number, value in enumerate((0.0, 0.0, 2.0, 3.0, 9.0), start=1):
        node.handle(SetAppScore(peer_id(number), value))
    for number, value in enumerate(outside, start=11):
        node.handle(SetAppScore(peer_id(number), value))
    return node


def test_a_mesh_of_poor_peers_gets_better_ones() -> None:
    """Opportunistic Grafting: every so many heartbeats, if the median score is below the threshold, peers above the
    median are grafted."""
    node = opportunistic(2.0, 2.1, 50.0, 3.0, 1.0)
    node.heartbeat()
    node.heartbeat()
    assert len(node.mesh()) == 5
    answer = node.heartbeat()
    added = node.mesh() - {1, 2, 3, 4, 5}
    assert len(added) == 2
    assert added <= {12, 13, 14}
    assert {peer for peer, rpc in answer.items() if rpc.graft} == {peer_id(number) for number in added}


def test_a_mesh_of_good_peers_is_left_alone() -> None:
    node = opportunistic(50.0)
    node.handle(SetAppScore(peer_id(3), 3.5))
    node.handle(SetAppScore(peer_id(4), 3.5))
    for _ in range(6):
        node.heartbeat()
    assert node.mesh() == {1, 2, 3, 4, 5}


def test_without_anybody_better_nobody_is_grafted() -> None:
    node = opportunistic(1.0, 2.0, -1.0)
    for _ in range(6):
        node.heartbeat()
    assert node.mesh() == {1, 2, 3, 4, 5}


# Scores that the mesh feeds ---------------------------------------------------------------------------------


DEMANDING = TopicScoreConfig(
    topic_weight=1.0,
    mesh_time_weight=0.0,
    first_weight=1.0,
    delivery_weight=-1.0,
    delivery_threshold=2.0,
    delivery_activation_s=10.0,
    failure_weight=-1.0,
)
DEMANDING_NODE = GossipConfig(topics={"t": TopicConfig(score=DEMANDING)})


def test_a_mesh_peer_that_delivers_nothing_is_pruned_and_one_that_forwards_is_not() -> None:
    """P3: whoever censors goes; P3b keeps it out."""
    node = Scripted(DEMANDING_NODE)
    node.subscribe()
    node.up(1, 2, 3)
    number = 0
    told: set[PeerId] = set()
    while node.now < 13:
        number += 1
        sent = message(9, number)
        node.receive(1, Rpc(publish=(sent,)))
        node.receive(2, Rpc(publish=(sent,)))
        told |= pruned(node.heartbeat())
    assert node.mesh() == {1, 2}
    assert node.score(1) > 10
    assert node.score(2) == 0
    assert node.score(3) == pytest.approx(-4, abs=0.1), "the deficit became a failure"
    assert told == {peer_id(3)}


def test_late_copies_do_not_make_up_for_it() -> None:
    """P3's window: otherwise our own forwarding could be played back."""
    node = Scripted(DEMANDING_NODE)
    node.subscribe()
    node.up(1, 3)
    late: list[Any] = []
    for number in range(20):
        sent = message(9, number)
        node.receive(1, Rpc(publish=(sent,)))
        late.append(sent)
        if len(late) > 3:
            node.receive(3, Rpc(publish=(late.pop(0),)))
        node.heartbeat()
    assert node.mesh() == {1}


def test_refused_and_forged_messages_count_in_their_topic() -> None:
    config = replace(DEMANDING, invalid_weight=-7.0)
    node = Scripted(GossipConfig(topics={"t": TopicConfig(score=config)}))
    node.subscribe()
    node.up(1)
    node.receive(1, Rpc(publish=(message(9, 1, signature=b"false"),)))
    assert node.score(1) == -7


# Properties -------------------------------------------------------------------------------------------------

numbers = st.integers(1, 9)
topics = st.sampled_from(["a", "b"])
rpcs = st.builds(
    Rpc,
    subscriptions=st.lists(st.tuples(topics, st.booleans()), max_size=3).map(tuple),
    publish=st.lists(
        st.builds(
            message,
            numbers,
            st.integers(0, 30),
            topics,
            signature=st.sampled_from([b"true", b"true", b"false"]),
        ),
        max_size=3,
    ).map(tuple),
    graft=st.lists(topics, max_size=2).map(tuple),
    prune=st.lists(st.builds(Prune, topics, st.integers(0, 100)), max_size=2).map(tuple),
)
events = st.one_of(
    st.builds(Received, numbers.map(peer_id), rpcs),
    st.builds(Received, numbers.map(peer_id), rpcs),
    st.builds(PeerUp, numbers.map(peer_id), outbound=st.booleans(), remote=st.just(b"\x04\xc0\x00\x02\x01")),
    st.builds(PeerDown, numbers.map(peer_id)),
    st.builds(SetAppScore, numbers.map(peer_id), st.floats(-3000, 100)),
    st.builds(Publish, topics, st.just(b"data")),
    st.builds(Unsubscribe, topics),
    st.builds(Subscribe, topics),
)
histories = st.lists(st.tuples(events, st.sampled_from([0.0, 0.1, 1.0, 30.0])), max_size=60)
SMALL = GossipConfig(
    mesh_degree=3,
    mesh_low=2,
    mesh_high=4,
    mesh_score=1,
    opportunistic_graft_beats=2,
    topics={"a": TopicConfig(score=DEMANDING)},
    max_cached=5,
    score=ScoreConfig(colocation_threshold=3),
)


@given(histories)
@settings(max_examples=200, deadline=None)
def test_meshes_stay_within_bounds_and_backoffs_are_honoured(history: list[tuple[Any, float]]) -> None:
    node, now = router(0, SMALL), 0.0
    outbound: set[PeerId] = set()
    # Until when we must not graft: what they asked for, and what we did, which ends with the connection.
    asked: dict[tuple[PeerId, str], float] = {}
    ours: dict[tuple[PeerId, str], float] = {}
    node.handle(Subscribe("a"), 0.0)
    for event, pause in history:
        now += pause
        while (due := node.deadline()) <= now:
            check(node.handle(Tick(), due), asked, ours, due)
            for topic in ("a", "b"):
                members = node.mesh(topic)
                assert len(members) <= max(SMALL.mesh_high - 1, SMALL.mesh_degree + SMALL.outbound_quota + 2)
                assert all(node.score(peer, due) >= 0 for peer in members)
        match event:
            case PeerUp(peer):
                (outbound.add if event.outbound else outbound.discard)(peer)
            case PeerDown(peer):
                outbound.discard(peer)
                ours = {key: until for key, until in ours.items() if key[0] != peer}
            case _:
                pass
        before = {topic: node.mesh(topic) for topic in ("a", "b")}
        heard = (
            isinstance(event, Received) and node.score(event.sender, now) >= SMALL.score.graylist_threshold
        )
        out = node.handle(event, now)
        if heard and isinstance(event, Received) and isinstance(event.message, Rpc):
            for prune in event.message.prune:
                if prune.topic in node.topics:
                    key = (event.sender, prune.topic)
                    asked[key] = max(asked.get(key, 0.0), now + prune.backoff_s)
        check(out, asked, ours, now)
        for topic in ("a", "b"):
            added = set(node.mesh(topic)) - set(before[topic])
            if len(node.mesh(topic)) > SMALL.mesh_high:
                assert added <= outbound, "above Dhi only those whom this peer dialled come in"
        assert node.sizes()["watched"] <= 5


def check(
    outputs: Sequence[Any],
    asked: dict[tuple[PeerId, str], float],
    ours: dict[tuple[PeerId, str], float],
    now: float,
) -> None:
    for output in outputs:
        if isinstance(output, Send) and isinstance(output.message, Rpc):
            for topic in output.message.graft:
                key = (output.to, topic)
                assert now >= max(asked.get(key, 0.0), ours.get(key, 0.0)), "no GRAFT during a backoff"
            for prune in output.message.prune:
                key = (output.to, prune.topic)
                ours[key] = max(ours.get(key, 0.0), now + prune.backoff_s)


@given(st.sets(numbers), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_the_outbound_quota_is_kept_where_there_are_enough_outbound_peers(
    dialled: set[int], seed: int
) -> None:
    node = router(0, SMALL, seed)
    node.handle(Subscribe("a"), 0.0)
    for number in range(1, 10):
        node.handle(PeerUp(peer_id(number), outbound=number in dialled), 0.0)
        graft = () if number in dialled else ("a",)  # an attacker's peers push in, the others do not
        node.handle(Received(peer_id(number), Rpc(subscriptions=(("a", True),), graft=graft)), 0.0)
    now = 0.0
    for _ in range(3):
        now = node.deadline()
        node.handle(Tick(), now)
        members = node.mesh("a")
        have = sum(peer in members for peer in map(peer_id, dialled))
        assert have >= min(SMALL.outbound_quota, len(dialled))
        assert SMALL.mesh_low <= len(members) <= SMALL.mesh_high
