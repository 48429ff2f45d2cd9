"""libp2p's pubsub and gossipsub 1.0 specs, clause by clause.

(libp2p/specs, pubsub/README.md and pubsub/gossipsub/gossipsub-v1.0.md; what the tests cite are section titles.)
"""

from __future__ import annotations

import math

from swarmp2p.engine import PeerUp, Tick
from swarmp2p.gossip.config import GossipConfig
from swarmp2p.gossip.messages import IHave, Prune, Rpc

from .harness import ME, MESH_ONLY, Scripted
from .network import message, peer_id

# pubsub/README.md -------------------------------------------------------------------------------------------


def test_hello_is_the_subscriptions() -> None:
    """The RPC: "the first message on a new connection is the subscriptions"."""
    node = Scripted()
    node.subscribe("t")
    node.subscribe("u")
    hello = node.handle(PeerUp(peer_id(1)))
    assert hello == {peer_id(1): Rpc(subscriptions=(("t", True), ("u", True)))}


def test_nothing_to_say_is_not_said() -> None:
    node = Scripted()
    assert node.handle(PeerUp(peer_id(1))) == {}
    assert node.router.deadline() == math.inf


def test_later_changes_are_announced_to_all() -> None:
    """The RPC: subscriptions are sent whenever they change."""
    node = Scripted()
    node.up(1, 2, topics=())
    assert node.subscribe() == {peer_id(n): Rpc(subscriptions=(("t", True),)) for n in (1, 2)}
    assert node.unsubscribe() == {peer_id(n): Rpc(subscriptions=(("t", False),)) for n in (1, 2)}


def test_subscriptions_are_counted() -> None:
    node = Scripted()
    node.up(1, topics=())
    node.subscribe()
    assert node.subscribe() == node.unsubscribe() == {}
    assert node.router.topics == ("t",)
    assert node.unsubscribe() == {peer_id(1): Rpc(subscriptions=(("t", False),))}
    assert node.unsubscribe() == {}
    assert len(node.router.topics) == 0


def test_source_and_growing_sequence_numbers() -> None:
    """The Message: `from` and `seqno` identify a message."""
    node = Scripted()
    node.now = 1_700_000_000.0
    node.up(1)
    (first,) = node.publish()[peer_id(1)].publish
    (second,) = node.publish()[peer_id(1)].publish
    assert first.source == second.source == peer_id(ME)
    assert len(first.seqno) == 8
    assert second.sequence == first.sequence + 1
    restarted = Scripted()
    restarted.now = 1_700_000_001.0
    restarted.up(1)
    (third,) = restarted.publish()[peer_id(1)].publish
    assert third.sequence > second.sequence


def test_unsigned_and_forged_messages_go_nowhere() -> None:
    """Message signing, StrictSign: messages without a valid signature are rejected."""
    node = Scripted()
    node.subscribe()
    node.up(1, 2, 3)
    answer = node.receive(1, Rpc(publish=(message(9, 1, signature=b""), message(9, 2, signature=b"false"))))
    assert answer == {}
    assert node.delivered == []
    assert node.router.stats.invalid == 2


# gossipsub-v1.0.md ------------------------------------------------------------------------------------------


def test_join_grafts_d_of_the_topics_peers() -> None:
    """Topic membership, JOIN: select D peers, add them to the mesh, notify them with GRAFT."""
    node = Scripted()
    node.up(*range(20))
    node.up(30, topics=("other",))
    answer = node.subscribe()
    grafted = {peer for peer, rpc in answer.items() if rpc.graft == ("t",)}
    assert len(grafted) == 6
    assert grafted == set(node.router.mesh("t"))
    assert peer_id(30) not in grafted


def test_join_takes_the_fanout_first() -> None:
    """JOIN: if it has been publishing to the topic, peers in fanout[topic] go into the mesh, fanout is cleared."""
    node = Scripted(MESH_ONLY)
    node.up(*range(20))
    node.publish()
    fanout = set(node.router.fanout("t"))
    node.subscribe()
    assert len(fanout) == 6
    assert set(node.router.mesh("t")) == fanout
    assert node.router.fanout("t") == ()


def test_leave_prunes_the_mesh() -> None:
    """LEAVE: notify the mesh's peers with PRUNE, forget the mesh."""
    node = Scripted()
    node.up(*range(20))
    node.subscribe()
    members = set(node.router.mesh("t"))
    answer = node.unsubscribe()
    assert {peer for peer, rpc in answer.items() if rpc.prune} == members
    assert node.router.mesh("t") == ()


def test_graft_adds_the_peer() -> None:
    """GRAFT: adds the peer to the mesh of a subscribed topic."""
    node = Scripted(GossipConfig(mesh_low=0))
    node.subscribe()
    node.up(1)
    assert node.mesh() == set()
    assert node.receive(1, Rpc(graft=("t",))) == {}
    assert node.mesh() == {1}


def test_graft_stands_for_a_lost_announcement() -> None:
    node = Scripted()
    node.subscribe()
    node.up(1, topics=())
    node.receive(1, Rpc(graft=("t",)))
    assert node.router.subscribers("t") == (peer_id(1),)


def test_prune_removes_the_peer() -> None:
    """PRUNE: removes the peer from the mesh."""
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    node.receive(1, Rpc(prune=(Prune("t", 60),)))
    assert node.mesh() == {2}


def test_a_peer_that_unsubscribes_leaves_the_mesh() -> None:
    node = Scripted(MESH_ONLY)
    node.up(1, 2, topics=("t", "u"))
    node.subscribe()
    node.publish("u")
    assert node.receive(1, Rpc(subscriptions=(("t", False), ("u", False)))) == {}
    assert node.mesh() == {2}
    assert node.router.fanout("u") == (peer_id(2),)
    assert node.router.subscribers("t") == (peer_id(2),)


def test_messages_go_to_the_mesh_but_not_back() -> None:
    """Message processing: forward to every peer in the mesh, except the sender and the message's source."""
    node = Scripted()
    node.subscribe()
    node.up(1, 2, 3, 4, 5)
    node.up(*range(10, 15))
    sent = message(2, 1)
    answer = node.receive(1, Rpc(publish=(sent,)))
    assert answer == {peer_id(n): Rpc(publish=(sent,)) for n in (3, 4, 5)}
    assert node.delivered == [sent]


def test_repeats_are_dropped() -> None:
    """Message processing: the seen cache keeps messages from being forwarded or delivered twice."""
    node = Scripted()
    node.subscribe()
    node.up(1, 2, 3)
    node.receive(1, Rpc(publish=(message(9, 1),)))
    assert node.receive(2, Rpc(publish=(message(9, 1), message(9, 1)))) == {}
    assert len(node.delivered) == 1
    node.now += 119
    answer = node.receive(2, Rpc(publish=(message(9, 1),)))
    assert not any(rpc.publish for rpc in answer.values())
    assert len(node.delivered) == 1
    assert node.router.stats.duplicates == 3


def test_own_messages_are_not_delivered_even_when_sent_back() -> None:
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    node.publish()
    node.receive(1, Rpc(publish=(message(ME, 12345),)))
    assert node.delivered == []
    assert node.router.stats.own_returned == 1


def test_messages_of_other_topics_are_ignored() -> None:
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    assert node.receive(1, Rpc(publish=(message(9, 1, topic="u"),))) == {}
    assert node.delivered == []
    node.subscribe("u")
    node.receive(1, Rpc(publish=(message(9, 1, topic="u"),)))
    assert len(node.delivered) == 1


def test_publishing_goes_to_the_mesh() -> None:
    """Message processing: published messages go to the mesh of a subscribed topic."""
    node = Scripted(MESH_ONLY)
    node.up(*range(20))
    node.subscribe()
    assert set(node.publish()) == set(node.router.mesh("t"))


def test_publishing_without_subscribing_goes_to_a_fanout() -> None:
    """Message processing: else to fanout[topic], D peers of the topic, kept for the next message."""
    node = Scripted(MESH_ONLY)
    node.up(*range(20))
    first = set(node.publish())
    assert len(first) == 6
    assert first == set(node.router.fanout("t"))
    assert set(node.publish()) == first


def test_fanout_is_kept_at_d_and_forgotten_after_its_ttl() -> None:
    """Fanout maintenance: expire after fanout_ttl (60 s) without publishing; else fill up to D."""
    node = Scripted(MESH_ONLY)
    node.up(*range(20))
    node.publish()
    gone = node.router.fanout("t")[0]
    node.down(int.from_bytes(gone.public_key or b"", "big"))
    assert len(node.router.fanout("t")) == 5
    node.heartbeat()
    assert len(node.router.fanout("t")) == 6
    while node.now < 60:
        node.heartbeat()
    assert node.router.fanout("t") == ()
    assert node.router.deadline() == math.inf


def test_heartbeat_fills_a_mesh_below_low() -> None:
    """Mesh maintenance: below D_low, graft peers up to D."""
    node = Scripted()
    node.up(*range(20))
    node.subscribe()
    for number in sorted(node.mesh())[:2]:
        node.down(number)
    assert len(node.mesh()) == 4
    answer = node.heartbeat()
    assert len(node.mesh()) == 6
    assert sum(rpc.graft == ("t",) for rpc in answer.values()) == 2


def test_heartbeat_gossips_to_peers_outside_the_mesh() -> None:
    """Gossip emission: IHAVE with the ids of mcache_gossip windows to peers of the topic not in its mesh."""
    node = Scripted()
    node.up(*range(7))
    node.up(30, topics=("other",))
    node.subscribe()
    sent = message(99, 1)
    node.receive(min(node.mesh()), Rpc(publish=(sent,)))
    outside = {peer_id(number) for number in range(7)} - set(node.router.mesh("t"))
    for _ in range(3):
        assert node.heartbeat() == {peer: Rpc(ihave=(IHave("t", (sent.id,)),)) for peer in outside}
    assert node.heartbeat() == {}


def test_ihave_is_answered_by_iwant_for_what_is_missing() -> None:
    """IHAVE: request unseen messages of subscribed topics with IWANT."""
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    known = message(9, 1)
    node.receive(1, Rpc(publish=(known,)))
    offer = (IHave("t", (known.id, b"new")), IHave("u", (b"other topic",)))
    assert node.receive(2, Rpc(ihave=offer)) == {peer_id(2): Rpc(iwant=(b"new",))}


def test_iwant_is_answered_with_the_messages() -> None:
    """IWANT: send requested messages that are in the message cache."""
    node = Scripted()
    node.subscribe()
    node.up(1)
    sent = message(9, 1)
    node.receive(1, Rpc(publish=(sent,)))
    node.up(2, topics=())
    assert node.receive(2, Rpc(iwant=(sent.id, b"unknown", sent.id))) == {peer_id(2): Rpc(publish=(sent,))}


def test_control_piggybacks() -> None:
    """Control message piggybacking: control and messages to a peer share an RPC."""
    node = Scripted(GossipConfig(flush_interval_s=0.02, mesh_low=0))
    node.up(1, 2)
    assert node.subscribe() == {}
    node.now = 0.01
    assert node.publish() == {}
    assert node.router.deadline() == 0.02
    assert node.handle(Tick()) == {}
    node.now = 0.02
    answer = node.handle(Tick())
    assert set(answer) == {peer_id(1), peer_id(2)}
    for rpc in answer.values():
        assert rpc.subscriptions == (("t", True),)
        assert rpc.graft == ("t",)
        assert len(rpc.publish) == 1
    assert node.router.deadline() > 0.02


def test_a_copy_that_waits_is_taken_back_when_its_receiver_has_it() -> None:
    node = Scripted(GossipConfig(flush_interval_s=0.02))
    node.subscribe()
    node.up(1, 2, 3)
    node.now = 0.1
    node.handle(Tick())
    sent = message(9, 1)
    node.receive(1, Rpc(publish=(sent,)))
    node.receive(2, Rpc(publish=(sent,)))
    node.now = node.router.deadline()
    assert node.handle(Tick()) == {peer_id(3): Rpc(publish=(sent,))}


def test_a_flush_that_has_lost_its_purpose_ends() -> None:
    node = Scripted(GossipConfig(flush_interval_s=0.02))
    node.up(1)
    node.publish()
    node.down(1)
    node.now = 0.02
    assert node.handle(Tick()) == {}
    assert node.router.deadline() > 0.02
