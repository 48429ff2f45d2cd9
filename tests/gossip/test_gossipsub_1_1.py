"""libp2p's gossipsub 1.1 spec, clause by clause (libp2p/specs, pubsub/gossipsub/gossipsub-v1.1.md).

By its sections; the tests cite them. Where nothing else is named, the test is here.

- Explicit peering agreements: test_direct.py.
- Prune backoff: here. Backoffs that outlive connections: test_connections.py.
- Peer exchange: test_exchange.py, tests/simulations/test_gossip_exchange.py, tests/interop/test_gossip_exchange.py; on
  the wire: test_wire.py.
- Flood publishing, adaptive gossip dissemination: here. Under flood publishing a fanout is kept all the same: its
  topics are gossiped about for some heartbeats, since a flood may be lost on its way.
- Outbound mesh quotas; heartbeat maintenance; opportunistic grafting: test_mesh.py, test_mesh_choice.py.
- Peer scoring. Retention: here, test_scores.py; only of what counts against a peer, as in go. Thresholds: here,
  test_mesh.py (publish, peer exchange), test_exchange.py.
- The score function and its parameters: test_score.py (P4, P5, P7, decay, cap), test_topic_score.py (P1 to P4),
  test_scores.py (P6, who gets credit for P3), test_peers.py (what one host is); here, P3 while a message is judged.
  Forged and refused messages count in topics without parameters, too: spam must cost something by default.
- Extended validators: test_validation.py, tests/test_pubsub.py.
- Overview of new parameters: test_defaults; their constraints: test_score_config.py. As in go, the graylist threshold
  may equal the publish threshold.
- Spam protection measures: test_spam_protection.py, test_go_spam_cases.py.
- Recommendations for network operators: test_a_bootstrap_peer_..., tests/simulations/test_gossip_exchange.py.
"""

from __future__ import annotations

import pytest

from swarmp2p.engine import PeerUp
from swarmp2p.gossip.config import GossipConfig, TopicConfig
from swarmp2p.gossip.events import Acceptance, SetAppScore, StartValidating, Validated
from swarmp2p.gossip.messages import IHave, Prune, Rpc
from swarmp2p.gossip.score_config import ScoreConfig, TopicScoreConfig

from .harness import MESH_ONLY, Scripted
from .network import message, peer_id

FORGED = b"false"


def test_defaults() -> None:
    """Overview of new parameters: the reasonable defaults; as many peers are exchanged as make a full mesh."""
    config = GossipConfig()
    assert (config.prune_backoff_s, config.unsubscribe_backoff_s) == (60, 10)
    assert (config.flood_publish, config.gossip_factor) == (True, 0.25)
    assert (config.mesh_score, config.outbound_quota) == (4, 2)
    assert config.exchange_peers > config.mesh_high
    assert config.direct_connect_s == 300
    beats = config.opportunistic_graft_beats * config.heartbeat_s
    assert (beats, config.opportunistic_graft_peers) == (60, 2)


# Prune backoff ----------------------------------------------------------------------------------------------


def test_prune_says_its_backoff() -> None:
    """Prune backoff: PRUNE carries the time the pruned peer has to wait, 60 s; 10 s after unsubscribing."""
    node = Scripted(GossipConfig(mesh_low=1, mesh_degree=1, mesh_high=1))
    node.subscribe()
    node.up(1, 2)
    assert node.receive(2, Rpc(graft=("t",))) == {peer_id(2): Rpc(prune=(Prune("t", 60),))}
    left = node.unsubscribe()
    assert left[peer_id(1)].prune == (Prune("t", 10),)
    assert left[peer_id(2)].prune == ()


@pytest.mark.parametrize(("said_s", "waited_s"), [(30, 30), (0, 60), (10_000, 3600)])
def test_a_pruned_peer_waits(said_s: int, waited_s: int) -> None:
    """Prune backoff: no GRAFT before the time that PRUNE says (by default 60 s) is over, and a little slack."""
    node = Scripted()
    node.subscribe()
    node.up(1)
    node.receive(1, Rpc(prune=(Prune("t", said_s),)))
    grafted_at = 0.0
    while not grafted_at and node.now < 4000:
        answer = node.heartbeat()
        if answer and answer[peer_id(1)].graft:
            grafted_at = node.now
    assert waited_s + 2 <= grafted_at <= waited_s + 4


def test_one_who_unsubscribed_waits_too() -> None:
    """Prune backoff on unsubscribe."""
    node = Scripted()
    node.up(1)
    node.subscribe()
    node.unsubscribe()
    assert node.subscribe() == {peer_id(1): Rpc(subscriptions=(("t", True),))}
    while node.mesh() == set():
        node.heartbeat()
    assert 12 <= node.now <= 14


def test_graft_during_backoff_is_refused_and_counted() -> None:
    """Prune backoff: a peer that grafts too early is pruned, its backoff begins anew; P7 counts it."""
    node = Scripted()
    node.up(1)
    node.subscribe()
    node.unsubscribe()
    node.subscribe()
    for _ in range(4):
        assert node.receive(1, Rpc(graft=("t",))) == {peer_id(1): Rpc(prune=(Prune("t", 60),))}
    assert node.mesh() == set()
    assert node.score(1) < 0


def test_who_was_pruned_refuses_too_and_begins_anew() -> None:
    """PRUNE backoff: both sides prune a GRAFT within the backoff, and extend it."""
    node = Scripted()
    node.subscribe()
    node.up(1)
    node.receive(1, Rpc(prune=(Prune("t", 60),)))
    node.now = 50.0
    answer = node.receive(1, Rpc(graft=("t",)))
    assert answer[peer_id(1)].prune == (Prune("t", 60),)
    while node.now < 110.0:
        node.heartbeat()
        assert node.mesh() == set()
    while node.mesh() == set():
        node.heartbeat()
    assert 112 <= node.now <= 114


def test_backoff_ends() -> None:
    node = Scripted()
    node.up(1)
    node.subscribe()
    node.unsubscribe()
    node.subscribe()
    node.now = 10.5
    answer = node.receive(1, Rpc(graft=("t",)))
    assert node.mesh() == {1}
    assert not any(rpc.prune for rpc in answer.values())


# Flood publishing, adaptive gossip --------------------------------------------------------------------------


@pytest.mark.parametrize("subscribed", [True, False])
def test_flood_publishing(subscribed: bool) -> None:
    """Flood publishing: own messages go to all of the topic's peers with a score above the publish threshold, whether
    we are subscribed or not."""
    node = Scripted()
    if subscribed:
        node.subscribe()
    node.up(*range(20))
    node.handle(SetAppScore(peer_id(7), node.config.score.publish_threshold - 1))
    node.handle(SetAppScore(peer_id(8), node.config.score.publish_threshold))
    assert set(node.publish()) == {peer_id(number) for number in range(20) if number != 7}


def test_flood_publishing_is_optional() -> None:
    node = Scripted(MESH_ONLY)
    node.up(*range(20))
    assert len(node.publish()) == 6


def test_others_messages_are_not_flooded() -> None:
    node = Scripted()
    node.subscribe()
    node.up(*range(20))
    answer = node.receive(19, Rpc(publish=(message(99, 1),)))
    assert set(answer) == set(node.router.mesh("t"))


@pytest.mark.parametrize(("outside", "told"), [(100, 25), (23, 6), (4, 4)])
def test_gossip_goes_to_a_quarter_of_many(outside: int, told: int) -> None:
    """Adaptive gossip dissemination: 0.25 of the peers outside the mesh, D_lazy of them at least."""
    node = Scripted()
    node.subscribe()
    node.up(*range(5 + outside))
    node.publish()
    assert len(node.mesh()) == 5
    gossiped = [rpc for rpc in node.heartbeat().values() if rpc.ihave]
    assert len(gossiped) == told


# Peer scoring -----------------------------------------------------------------------------------------------


def test_a_peer_below_zero_leaves_the_mesh_and_stays_out() -> None:
    """Score thresholds: negative scores are pruned at the heartbeat, and neither grafted nor accepted."""
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    node.receive(1, Rpc(publish=(message(99, 1, signature=FORGED),)))
    assert node.score(1) < 0
    answer = node.heartbeat()
    assert answer[peer_id(1)].prune == (Prune("t", 60),)
    assert node.mesh() == {2}
    while node.now < 70:
        node.heartbeat()
        assert node.mesh() == {2}
    node.now += 0.5
    assert node.receive(1, Rpc(graft=("t",)))[peer_id(1)].prune


def test_what_is_done_in_one_topic_tells_in_all() -> None:
    """Heartbeat maintenance: a peer with a negative score leaves all meshes."""
    node = Scripted()
    for topic in ("t", "u"):
        node.subscribe(topic)
    node.up(1, 2, topics=("t", "u"))
    node.receive(1, Rpc(publish=(message(99, 1, signature=FORGED),)))
    node.heartbeat()
    assert node.mesh("t") == node.mesh("u") == {2}


def test_no_gossip_with_peers_below_the_gossip_threshold() -> None:
    """Score thresholds, gossipThreshold: no gossip is emitted to, or accepted from, such peers."""
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    for number in range(2):
        node.receive(1, Rpc(publish=(message(99, number, signature=FORGED),)))
    sent = message(9, 1)
    node.receive(2, Rpc(publish=(sent,)))
    assert node.receive(1, Rpc(ihave=(IHave("t", (b"x",)),))) == {}
    assert node.receive(1, Rpc(iwant=(sent.id,))) == {}
    for _ in range(3):
        assert not any(rpc.ihave for rpc in node.heartbeat().values())
    node.receive(2, Rpc(publish=(message(9, 2),)))
    assert not any(rpc.ihave for rpc in node.heartbeat().values())
    node.handle(SetAppScore(peer_id(1), 10_000.0))
    assert node.heartbeat()[peer_id(1)].ihave, "it is the score alone"


def test_graylisted_peers_are_ignored() -> None:
    """Score thresholds, graylistThreshold: RPCs are dropped; the rest of one that gets there, too."""
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    checked = node.router.stats
    node.receive(1, Rpc(publish=tuple(message(99, n, signature=FORGED) for n in range(100))))
    assert checked.invalid == 3
    assert node.receive(1, Rpc(publish=(message(9, 1),), graft=("t",))) == {}
    assert node.delivered == []
    assert checked.graylisted == 1


def test_coming_back_does_not_wash_clean() -> None:
    """Peer scoring: scores are kept for a while after a peer disconnects."""
    node = Scripted()
    node.subscribe()
    node.up(1)
    node.receive(1, Rpc(publish=(message(99, 1, signature=FORGED),)))
    before = node.score(1)
    node.down(1)
    node.up(1)
    assert node.score(1) == before < 0


def test_copies_that_come_while_a_message_is_judged_are_deliveries() -> None:
    """P3: so are those within the window after the first; not those that come later."""
    score = TopicScoreConfig(
        topic_weight=1.0,
        mesh_time_weight=0.0,
        first_weight=0.0,
        delivery_weight=-1.0,
        delivery_threshold=1.0,
        delivery_window_s=0.01,
        delivery_activation_s=1.0,
    )
    node = Scripted(GossipConfig(topics={"t": TopicConfig(score=score)}))
    node.subscribe()
    node.handle(StartValidating("t", 5.0))
    node.up(1, 2, 3)
    sent = message(9, 1)
    node.receive(1, Rpc(publish=(sent,)))
    node.now = 0.5
    node.receive(2, Rpc(publish=(sent,)))
    node.handle(Validated(sent.id, Acceptance.ACCEPT))
    node.now = 0.6
    node.receive(3, Rpc(publish=(sent,)))
    node.now = 2.0
    assert node.score(3) == -1
    assert node.score(1) == node.score(2) > -0.1


# Recommendations for network operators -----------------------------------------------------------------------


def test_a_bootstrap_peer_has_no_mesh_and_gossips_and_exchanges_all_the_same() -> None:
    """D = D_low = D_high = D_out = 0, with peer exchange; who misbehaves is neither told of others nor named."""
    config = GossipConfig(
        mesh_degree=0,
        mesh_low=0,
        mesh_high=0,
        mesh_outbound=0,
        peer_exchange=True,
        score=ScoreConfig(accept_px_threshold=100.0),
    )
    node = Scripted(config)
    node.subscribe()
    for number in (1, 2, 3):
        node.handle(PeerUp(peer_id(number)))
        node.receive(number, Rpc(subscriptions=(("t", True),)))
    node.handle(SetAppScore(peer_id(3), -1.0))

    def names(number: int) -> set[bytes]:
        (prune,) = node.receive(number, Rpc(graft=("t",)))[peer_id(number)].prune
        return {bytes(one.peer) for one in prune.peers}

    assert names(1) == {peer_id(2)}
    assert names(3) == set()
    assert node.mesh() == set()
    sent = message(9, 1)
    assert node.receive(1, Rpc(publish=(sent,))) == {}
    assert [one.id for one in node.delivered] == [sent.id]
    assert node.heartbeat()[peer_id(2)].ihave == (IHave("t", (sent.id,)),)
