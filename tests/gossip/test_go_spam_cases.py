"""go-libp2p-pubsub's cases of peers that misbehave (gossipsub_spam_test.go), restated for our engine.

Each test names its case. Covered: AttackSpamIWANT, AttackSpamIHAVE, AttackGRAFTNonExistentTopic,
AttackGRAFTDuringBackoff, AttackInvalidMessageSpam, AttackSpamIDONTWANT, HandleIDontwantSpam. IDontWantUnwantedCleanup
is about a leak in Go's map of maps: here the ids of a peer go with its connection, which the last test states.
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


def test_iwant_again_and_again() -> None:
    """TestGossipsubAttackSpamIWANT: the message itself and three retransmissions, then nothing."""
    node = meshed()
    (sent,) = node.publish()[peer_id(ATTACKER)].publish
    answers = [node.receive(ATTACKER, Rpc(iwant=(sent.id,))) for _ in range(20)]
    assert sum(bool(answer) for answer in answers) == 3
    many = node.receive(ATTACKER, Rpc(iwant=(sent.id,) * 1000))
    assert many == {}


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


def test_graft_for_topics_that_are_not() -> None:
    """TestGossipsubAttackGRAFTNonExistentTopic: no PRUNE comes back, and nothing is kept."""
    node = meshed()
    sizes = node.router.sizes()
    for number in range(100):
        assert node.receive(ATTACKER, Rpc(graft=(f"not there {number}",))) == {}
    assert node.router.sizes() == sizes
    assert node.score(ATTACKER) == 0


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


def test_idontwant_for_everything() -> None:
    """TestGossipsubAttackSpamIDONTWANT, TestGossipsubHandleIDontwantSpam: bounded; at the bound all is forgotten, and
    the peer gets messages."""
    node = meshed()
    node.up(2)
    for number in range(3 * node.config.max_unwanted):
        node.receive(ATTACKER, Rpc(idontwant=(b"%d" % number,)))
        assert node.router.sizes()["unwanted"] <= node.config.max_unwanted
    sent = message(9, 1)
    assert peer_id(ATTACKER) in node.receive(2, Rpc(publish=(sent,)))


def test_unwanted_ids_go_with_their_peer() -> None:
    """TestGossipsubIDontWantUnwantedCleanup"""
    node = meshed()
    node.receive(ATTACKER, Rpc(idontwant=(b"1", b"2")))
    node.down(ATTACKER)
    assert node.router.sizes()["unwanted"] == 0
    node.up(ATTACKER)
    assert node.router.sizes()["unwanted"] == 0
