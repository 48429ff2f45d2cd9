"""go-libp2p-pubsub's cases of peers that misbehave (gossipsub_spam_test.go), restated for our engine.

Here: AttackSpamIHAVE, AttackGRAFTDuringBackoff, AttackInvalidMessageSpam.

Elsewhere: AttackSpamIWANT (test_a_message_is_sent_again_three_times), AttackGRAFTNonExistentTopic
(test_graft_for_unknown_topics_is_ignored): test_spam_protection.py. AttackSpamIDONTWANT and HandleIDontwantSpam
(test_a_flood_of_ids_is_cut_off), IDontWantUnwantedCleanup (test_it_goes_with_the_connection): test_gossipsub_1_2.py.
"""

from __future__ import annotations

from swarmp2p.gossip.config import GossipConfig, TopicConfig
from swarmp2p.gossip.messages import IHave, Rpc
from swarmp2p.gossip.score_config import ScoreConfig, TopicScoreConfig, decay_s

from .harness import Scripted
from .network import message, peer_id

ATTACKER = 1


def strict(**changes: float) -> GossipConfig:
    """Thresholds of the cases: -100, -500, -1000. P7 without tolerance, 100 times the square."""
    score = ScoreConfig(
        behaviour_weight=-100.0,
        behaviour_tolerance=0.0,
        decay_s=60.0,
        gossip_threshold=-100.0,
        publish_threshold=-500.0,
        graylist_threshold=-1000.0,
    )
    topic = TopicScoreConfig(
        topic_weight=1.0,
        mesh_time_weight=0.0,
        first_weight=0.0,
        invalid_weight=changes.get("invalid_weight", 0.0),
        invalid_decay_s=decay_s(0.9),
    )
    return GossipConfig(score=score, topics={"t": TopicConfig(score=topic)})


def meshed(config: GossipConfig | None = None) -> Scripted:
    node = Scripted(config)
    node.subscribe()
    node.up(ATTACKER)
    node.receive(ATTACKER, Rpc(graft=("t",)))
    assert node.mesh() == {ATTACKER}
    return node


def test_ihave_again_and_again() -> None:
    """TestGossipsubAttackSpamIHAVE: so many are asked for each heartbeat, and promises broken cost the place."""
    node = meshed(strict())
    counter = 0

    def spam(rpcs: int) -> int:
        nonlocal counter
        asked = 0
        for _ in range(rpcs):
            counter += 1
            answer = node.receive(ATTACKER, Rpc(ihave=(IHave("t", (b"fake%d" % counter,)),)))
            asked += sum(len(rpc.iwant) for rpc in answer.values())
        return asked

    assert spam(100) == node.config.max_ihave_rpcs
    before = node.score(ATTACKER)
    assert before == -100, "once a heartbeat for too many RPCs"
    node.heartbeat()
    assert node.mesh() == set()
    while node.now < 5:
        node.heartbeat()
    assert node.score(ATTACKER) < -1000, "ten promises were broken"
    node.heartbeat()
    assert spam(100) == 0, "graylisted"


def test_graft_during_backoff() -> None:
    """TestGossipsubAttackGRAFTDuringBackoff: counted once, twice when soon after the PRUNE; each begins the backoff
    anew; in the end there is not even an answer."""
    node = meshed(strict())
    node.unsubscribe()
    node.subscribe()  # so there is a backoff of 10 s, begun 50 s ago as Go counts
    assert node.receive(ATTACKER, Rpc(graft=("t",)))[peer_id(ATTACKER)].prune
    assert node.score(ATTACKER) == -100
    node.now += 11.0
    assert node.receive(ATTACKER, Rpc(graft=("t",)))[peer_id(ATTACKER)].prune
    assert -400 < node.score(ATTACKER) < -150
    assert node.receive(ATTACKER, Rpc(graft=("t",)))[peer_id(ATTACKER)].prune
    assert node.score(ATTACKER) < -1000, "within ten seconds: twice"
    graylisted = node.router.stats.graylisted
    assert node.receive(ATTACKER, Rpc(graft=("t",))) == {}
    assert node.router.stats.graylisted == graylisted + 1
    node.now += 90.0
    assert node.score(ATTACKER) == 0
    assert not any(rpc.prune for rpc in node.receive(ATTACKER, Rpc(graft=("t",))).values())
    assert node.mesh() == {ATTACKER}, "and once all is over, it may"


def test_forged_messages() -> None:
    """TestGossipsubAttackInvalidMessageSpam: the sender is pruned, then graylisted."""
    node = meshed(strict(invalid_weight=-1.0))
    for number in range(100):
        node.receive(ATTACKER, Rpc(publish=(message(9, number, signature=b"false"),)))
    assert node.delivered == []
    assert node.score(ATTACKER) < -1000
    assert node.router.stats.graylisted == 100 - node.router.stats.invalid > 50
    answer = node.heartbeat()
    assert answer[peer_id(ATTACKER)].prune
    assert node.mesh() == set()
