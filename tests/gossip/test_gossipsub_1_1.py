"""libp2p's gossipsub 1.1 spec, clause by clause.

(libp2p/specs, pubsub/gossipsub/gossipsub-v1.1.md; what the tests cite are section titles.)
Scores are in test_score.py, test_topic_score.py and test_scores.py; quotas, opportunistic grafting and explicit
peering agreements in test_mesh.py and test_direct.py.
"""

from __future__ import annotations

import math
from random import Random

import pytest

from swarmp2p.gossip.config import GossipConfig
from swarmp2p.gossip.messages import BareMessages, IHave, Prune, Rpc
from swarmp2p.gossip.router import GossipRouter
from swarmp2p.identity import PeerId

from .harness import ME, Scripted
from .network import message, peer_id, stub_sign

FORGED = b"false"

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


def test_graft_right_after_prune_counts_twice() -> None:
    """Spam protection measures, GRAFT flood."""

    def score(wait_s: float) -> float:
        node = Scripted(GossipConfig(mesh_low=0, mesh_degree=0, mesh_high=0))
        node.subscribe()
        node.up(1)
        node.receive(1, Rpc(graft=("t",)))
        for _ in range(9):
            node.now += wait_s
            node.receive(1, Rpc(graft=("t",)))
        return node.score(1)

    assert score(9.0) < score(11.0) < 0


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


# Spam protection measures -----------------------------------------------------------------------------------


def test_graft_for_unknown_topics_is_ignored() -> None:
    """Spam protection measures, GRAFT for unknown topics: no PRUNE in answer, nothing remembered."""
    node = Scripted()
    node.up(1, topics=())
    assert node.receive(1, Rpc(graft=("unknown",), prune=(Prune("unknown", 60),))) == {}
    assert node.router.subscribers("unknown") == ()


def test_a_full_mesh_refuses() -> None:
    """Mesh maintenance with D_high: GRAFTs above it are refused (as all implementations have it)."""
    node = Scripted()
    node.subscribe()
    node.up(*range(20))
    for number in range(20):
        node.receive(number, Rpc(graft=("t",)))
    assert len(node.mesh()) == 12
    refused = next(number for number in range(20) if number not in node.mesh())
    assert node.receive(refused, Rpc(graft=("t",)))[peer_id(refused)].prune


def test_ihave_rpcs_per_heartbeat_are_capped() -> None:
    """Spam protection measures, IHAVE: at most 10 messages a peer and heartbeat are looked at."""
    node = Scripted()
    node.subscribe()
    node.up(1)
    answered = [bool(node.receive(1, Rpc(ihave=(IHave("t", (bytes([n]),)),)))) for n in range(15)]
    assert answered == [True] * 10 + [False] * 5
    node.heartbeat()
    assert node.receive(1, Rpc(ihave=(IHave("t", (b"later",)),)))
    assert node.score(1) == 0


def test_ids_asked_for_per_heartbeat_are_capped() -> None:
    """Spam protection measures, IHAVE: at most 5,000 ids a peer and heartbeat are asked for."""
    node = Scripted()
    node.subscribe()
    node.up(1)
    asked: list[bytes] = []
    for start in range(0, 8000, 2000):
        ids = tuple(number.to_bytes(4, "big") for number in range(start, start + 2000))
        answer = node.receive(1, Rpc(ihave=(IHave("t", ids),)))
        asked.extend(answer[peer_id(1)].iwant if answer else ())
    assert len(asked) == len(set(asked)) == 5000


def test_endless_ihave_costs_a_peer_its_place() -> None:
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    known = message(9, 1)
    node.receive(2, Rpc(publish=(known,)))
    for _ in range(10):
        for _ in range(12):
            assert node.receive(1, Rpc(ihave=(IHave("t", (known.id,)),))) == {}
        node.heartbeat()
    assert node.score(1) < 0
    assert node.mesh() == {2}


def test_a_message_is_sent_again_three_times() -> None:
    """Spam protection measures, IWANT: gossip_retransmission, 3."""
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    sent = message(9, 1)
    node.receive(1, Rpc(publish=(sent,)))
    answers = [node.receive(2, Rpc(iwant=(sent.id, sent.id))) for _ in range(5)]
    assert answers == [{peer_id(2): Rpc(publish=(sent,))}] * 3 + [{}] * 2
    assert node.receive(1, Rpc(iwant=(sent.id,)))


def test_cheap_questions_do_not_bring_large_answers_without_end() -> None:
    """Ours: beside the limit for each message, one for what a peer is sent between two heartbeats."""
    node = Scripted(GossipConfig(max_iwant_bytes=5000))
    node.subscribe()
    node.up(1, 2)
    sent = [message(9, number, data=bytes(1000)) for number in range(20)]
    node.receive(2, Rpc(publish=tuple(sent)))
    wanted = Rpc(iwant=tuple(each.id for each in sent))
    got = [node.receive(1, wanted) for _ in range(5)]
    assert sum(len(rpc.publish) for answer in got for rpc in answer.values()) == 5
    assert node.router.stats.over_limit == 5
    node.heartbeat()
    assert len(node.receive(1, wanted)[peer_id(1)].publish) == 5


def test_broken_promises_are_counted() -> None:
    """Spam protection measures, IHAVE: ids advertised and not delivered within 3 s count against the peer."""
    node = Scripted()
    node.subscribe()
    node.up(1)
    for number in range(9):
        assert node.receive(1, Rpc(ihave=(IHave("t", (bytes([number]),)),)))
    while node.now < 3:
        node.heartbeat()
    node.heartbeat()
    assert node.router.stats.promises_broken == 9
    assert node.score(1) < 0


def test_promises_kept_by_anybody_are_kept() -> None:
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    for number in range(9):
        sent = message(9, number)
        node.receive(1, Rpc(ihave=(IHave("t", (sent.id,)),)))
        node.receive(2, Rpc(publish=(sent,)))
    while node.now < 5:
        node.heartbeat()
    assert node.router.stats.promises_kept == 9
    assert node.router.stats.promises_broken == 0
    assert node.score(1) == 0


def test_a_peer_that_left_broke_no_promise() -> None:
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    for number in (1, 2):
        node.receive(number, Rpc(ihave=(IHave("t", (b"x",)),)))
    node.down(1)
    while node.now < 5:
        node.heartbeat()
    assert node.router.stats.promises_broken == 1
    node.unsubscribe()
    node.heartbeat()
    assert node.router.deadline() == math.inf, "nothing is waited for any more"


# Flood publishing, adaptive gossip --------------------------------------------------------------------------


def test_flood_publishing() -> None:
    """Flood publishing: own messages go to all of the topic's peers with a score above the publish threshold."""
    node = Scripted()
    node.subscribe()
    node.up(*range(20))
    for number in range(3):
        node.receive(7, Rpc(publish=(message(99, number, signature=FORGED),)))
    assert node.score(7) < node.config.score.publish_threshold
    assert set(node.publish()) == {peer_id(number) for number in range(20) if number != 7}


def test_others_messages_are_not_flooded() -> None:
    node = Scripted()
    node.subscribe()
    node.up(*range(20))
    answer = node.receive(19, Rpc(publish=(message(99, 1),)))
    assert set(answer) == set(node.router.mesh("t"))


def test_gossip_goes_to_a_quarter_of_many() -> None:
    """Adaptive gossip dissemination: max(D_lazy, 0.25 of the peers outside the mesh)."""
    node = Scripted()
    node.subscribe()
    node.up(*range(105))
    node.publish()
    assert len(node.mesh()) == 5
    gossiped = [rpc for rpc in node.heartbeat().values() if rpc.ihave]
    assert len(gossiped) == 25


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
    assert not any(rpc.ihave for rpc in node.heartbeat().values())


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


def test_a_forged_copy_does_not_keep_the_real_one_out() -> None:
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    node.receive(1, Rpc(publish=(message(9, 1, data=b"fake", signature=FORGED),)))
    node.receive(2, Rpc(publish=(message(9, 1),)))
    assert [sent.data for sent in node.delivered] == [b"data"]


def test_signatures_are_checked_once() -> None:
    checks: list[bytes] = []

    def verify(_peer: PeerId, data: bytes, _signature: bytes) -> bool:
        checks.append(data)
        return True

    node = Scripted()
    node.router = GossipRouter(peer_id(ME), stub_sign, verify, Random(0), node.config, BareMessages())
    node.subscribe()
    node.up(1, 2, 3)
    for number in (1, 2, 3):
        node.receive(number, Rpc(publish=(message(9, 1),)))
    assert len(checks) == 1
