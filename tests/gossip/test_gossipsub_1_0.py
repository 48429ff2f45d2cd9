"""libp2p's gossipsub 1.0 spec, clause by clause (libp2p/specs, pubsub/gossipsub/gossipsub-v1.0.md).

By its sections; the tests cite them. Where nothing else is named, the test is here. For the pubsub spec see
test_pubsub_spec.py.

- Ambient peer discovery: connections come from outside (tests/test_joining.py); the hello: test_pubsub_spec.py.
- Parameters: test_defaults. D_low is 5, as everywhere since, not 4.
- Router state. Peering state: test_peers.py, test_connections.py. Message cache: test_caches.py; the seen cache:
  test_seen.py, test_repeats_are_dropped.
- Topic membership: test_join..., test_leave_prunes_the_mesh; mutual meshes: test_router_network.py.
- Message processing. The payload (seen, own, invalid; to the mesh, not back), then GRAFT, PRUNE, IHAVE, IWANT;
  publishing, to the mesh or a fanout. PRUNE in answer to a GRAFT for a topic that we are not in: 1.1 took it back.
  peers.floodsub: floodsub is not spoken (docs/interop.md).
- Control message piggybacking: test_control_piggybacks, test_outbox.py.
- Heartbeat. Mesh maintenance: test_heartbeat_fills..., test_a_mesh_of_d_low...; above D_high: test_mesh.py, at D_high
  already, as in go. Fanout maintenance and gossip emission, of meshes and fanouts.
- Protobuf: test_wire.py, test_wire_libp2p.py.
"""

from __future__ import annotations

import math

from swarmp2p.engine import Tick
from swarmp2p.gossip.config import GossipConfig
from swarmp2p.gossip.messages import IHave, Prune, Rpc

from .harness import ME, MESH_ONLY, Scripted
from .network import message, peer_id


def test_defaults() -> None:
    """Parameters: the reasonable defaults, but for D_low."""
    config = GossipConfig()
    assert (config.mesh_degree, config.mesh_low, config.mesh_high) == (6, 5, 12)
    assert config.gossip_degree == config.mesh_degree, "D_lazy"
    assert (config.heartbeat_s, config.fanout_ttl_s, config.seen_ttl_s) == (1, 60, 120)
    assert (config.history, config.history_gossip) == (5, 3)


# Topic membership -------------------------------------------------------------------------------------------


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


def test_join_fills_a_fanout_that_is_too_small() -> None:
    """JOIN: the rest comes from the topic's other peers; GRAFT goes to all of them."""
    node = Scripted(MESH_ONLY)
    node.up(1, 2)
    node.publish()
    node.up(*range(3, 10))
    assert len(node.router.fanout("t")) == 2
    answer = node.subscribe()
    assert len(node.mesh()) == 6
    assert {1, 2} < node.mesh()
    assert {peer for peer, rpc in answer.items() if rpc.graft} == set(node.router.mesh("t"))


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


def test_an_empty_fanout_is_filled_when_there_is_somebody() -> None:
    """Message processing: if fanout[topic] is empty, choose."""
    node = Scripted(MESH_ONLY)
    assert node.publish() == {}
    node.up(1)
    assert set(node.publish()) == {peer_id(1)}


def test_the_payload_comes_before_the_control() -> None:
    """Message processing: control messages come after it; here an IHAVE and a PRUNE with what they are about."""
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    sent = message(9, 1)
    answer = node.receive(1, Rpc(publish=(sent,), ihave=(IHave("t", (sent.id,)),), iwant=(sent.id,)))
    assert answer[peer_id(2)] == Rpc(publish=(sent,))
    assert answer[peer_id(1)] == Rpc(publish=(sent,)), (
        "asked for: in the cache by now; and it asks for nothing"
    )


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


def test_a_mesh_of_d_low_is_left_alone() -> None:
    """Mesh maintenance: only below D_low."""
    node = Scripted()
    node.up(*range(20))
    node.subscribe()
    node.down(min(node.mesh()))
    assert len(node.mesh()) == 5
    assert node.heartbeat() == {}
    assert len(node.mesh()) == 5


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


def test_a_topic_that_is_only_published_on_is_gossiped_about() -> None:
    """Gossip emission: for each topic in mesh + fanout; to peers that are not in its fanout."""
    node = Scripted(MESH_ONLY)
    node.up(*range(10))
    (sent,) = next(iter(node.publish().values())).publish
    outside = {peer_id(number) for number in range(10)} - set(node.router.fanout("t"))
    assert len(outside) == 4
    assert node.heartbeat() == {peer: Rpc(ihave=(IHave("t", (sent.id,)),)) for peer in outside}


def test_messages_are_answered_for_five_heartbeats() -> None:
    """Message cache, mcache_len: two heartbeats longer than they are advertised."""
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    sent = message(9, 1)
    node.receive(1, Rpc(publish=(sent,)))
    for _ in range(4):
        node.heartbeat()
    assert node.receive(2, Rpc(iwant=(sent.id,)))
    node.heartbeat()
    assert node.receive(2, Rpc(iwant=(sent.id,))) == {}


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
