"""Many routers in virtual time."""

from __future__ import annotations

from random import Random

import pytest

from swarmp2p.engine import Message, Received
from swarmp2p.gossip.config import GossipConfig
from swarmp2p.gossip.events import Publish, Subscribe
from swarmp2p.gossip.messages import Rpc
from swarmp2p.gossip.router import GossipRouter
from swarmp2p.gossip.wire import decode, encode, parse_message
from swarmp2p.identity import Identity, PeerId, verify

from .network import Net, gossip_net, message, peer_id, random_links, router


def publish_some(net: Net, count: int, nodes: int, every_s: float = 0.1) -> None:
    """Random nodes publish numbered messages; the network then has 4 s to settle."""
    chooser = Random(count)
    for number in range(count):
        publisher = peer_id(chooser.randrange(nodes))
        net.post(publisher, Publish("t", str(number).encode()), net.now + number * every_s)
    net.run(net.now + count * every_s + 4.0)


def missing(net: Net, count: int) -> int:
    """Deliveries that did not happen, of count messages to everybody but their publishers."""
    wanted = count * (len(net.engines) - 1)
    return wanted - sum(len({sent.data for sent in net.delivered(peer)}) for peer in net.engines)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("flush_interval_s", [0.0, 0.02])
def test_everybody_gets_everything_once(seed: int, flush_interval_s: float) -> None:
    net = gossip_net(30, config=GossipConfig(flush_interval_s=flush_interval_s), seed=seed)
    publish_some(net, 40, 30)
    assert missing(net, 40) == 0
    for peer in net.engines:
        ids = [sent.id for sent in net.delivered(peer)]
        assert len(ids) == len(set(ids))
        assert all(sent.source != peer for sent in net.delivered(peer))


def test_meshes_stay_within_bounds_and_are_mutual() -> None:
    net = gossip_net(30, degree=16)
    publish_some(net, 5, 30, every_s=1.0)
    for peer, engine in net.engines.items():
        assert isinstance(engine, GossipRouter)
        members = engine.mesh("t")
        assert 5 <= len(members) <= 12
        for member in members:
            other = net.engines[member]
            assert isinstance(other, GossipRouter)
            assert peer in other.mesh("t")


def test_messages_never_go_back() -> None:
    """Neither to who made them nor to who brought them first."""
    net = gossip_net(20, config=GossipConfig(flood_publish=False))
    publish_some(net, 20, 20)
    brought = {(peer, d.message.id): d.sender for peer, outputs in net.outputs.items() for d in outputs}
    copies: set[tuple[PeerId, PeerId, bytes]] = set()
    for _, sender, to, rpc in net.sent:
        assert isinstance(rpc, Rpc)
        for sent in rpc.publish:
            assert to not in (sent.source, brought.get((sender, sent.id)))
            assert (sender, to, sent.id) not in copies, "no copy twice over one link"
            copies.add((sender, to, sent.id))


def test_what_gets_lost_returns_by_iwant() -> None:
    net = gossip_net(30, degree=14, loss=0.3)
    publish_some(net, 40, 30)
    assert missing(net, 40) == 0
    kept = sum(
        engine.stats.promises_kept for engine in net.engines.values() if isinstance(engine, GossipRouter)
    )
    assert kept > 0
    for peer, engine in net.engines.items():
        assert isinstance(engine, GossipRouter)
        for other in net.links[peer]:
            assert engine.score(other, net.now) == 0, "honest peers do not pay for the network's losses"


def test_gossip_alone_delivers() -> None:
    """Two peers that are in each other's backoff, so in no mesh: only IHAVE and IWANT are left."""
    config = GossipConfig(mesh_low=0, mesh_degree=0, mesh_high=0, flood_publish=False)
    net = gossip_net(2, config=config)
    publish_some(net, 5, 2)
    assert missing(net, 5) == 0


def test_a_publisher_outside_the_topic_reaches_it() -> None:
    net = gossip_net(20, config=GossipConfig(flood_publish=False))
    outsider = peer_id(99)
    net.add(outsider, router(99, GossipConfig(flood_publish=False)))
    for number in range(10):
        net.connect(outsider, peer_id(number))
    net.run(net.now + 0.5)
    net.handle(outsider, Publish("t", b"from outside"))
    net.run(net.now + 2)
    assert all(len(net.delivered(peer_id(number))) == 1 for number in range(20))
    assert net.delivered(outsider) == []


def test_what_is_published_before_anybody_is_there_arrives() -> None:
    net = Net()
    for number in (1, 2):
        net.add(peer_id(number), router(number))
    net.handle(peer_id(1), Publish("t", b"early"))
    net.handle(peer_id(2), Subscribe("t"))
    net.run(0.5)
    net.connect(peer_id(1), peer_id(2))
    net.run(3.0)
    assert [sent.data for sent in net.delivered(peer_id(2))] == [b"early"]


def test_reconnecting_peers_are_meshed_again() -> None:
    net = gossip_net(10, degree=4)
    moved = peer_id(0)
    for other in list(net.links[moved]):
        net.disconnect(moved, other)
        net.connect(moved, other)
    net.run(net.now + 2.0)
    net.handle(peer_id(5), Publish("t", b"again"))
    net.run(net.now + 1.0)
    assert [sent.data for sent in net.delivered(moved)] == [b"again"]


def test_a_restarted_peer_is_meshed_within_two_heartbeats() -> None:
    net = gossip_net(6, degree=5)
    again = peer_id(0)
    neighbours = list(net.links[again])
    restarted = net.engines[again] = router(0)
    net.handle(again, Subscribe("t"))
    for other in neighbours:  # nobody noticed the end of the old connection
        net.connect(other, again)
    net.run(net.now + 2.0)
    assert len(restarted.mesh("t")) == 5
    for engine in net.engines.values():
        assert isinstance(engine, GossipRouter)
        assert engine is restarted or again in engine.mesh("t")
    net.outputs[again].clear()
    net.handle(peer_id(3), Publish("t", b"news"))
    net.run(net.now + 1.0)
    assert [sent.data for sent in net.delivered(again)] == [b"news"]


def test_replays_and_forgeries_reach_nobody() -> None:
    net = gossip_net(10)
    net.handle(peer_id(1), Publish("t", b"once"))
    net.run(net.now + 1)
    (once,) = net.delivered(peer_id(2))
    before = {peer: len(net.delivered(peer)) for peer in net.engines}
    attacker = peer_id(66)
    net.add(attacker, router(66))
    for number in range(10):
        net.connect(attacker, peer_id(number))
    for number in range(10):
        forged = message(3, 5, data=b"forged", signature=b"false")
        net.handle(peer_id(number), Received(attacker, Rpc(publish=(once, forged))))
    net.run(net.now + 3)
    assert {peer: len(net.delivered(peer)) for peer in net.engines if peer != attacker} == before


def test_idle_engines_cost_nothing() -> None:
    net = Net()
    for number in range(10):
        net.add(peer_id(number), router(number))
    for one, other in random_links(10, 4, Random(0)):
        net.connect(peer_id(one), peer_id(other))
    net.run(1.0)
    before = net.events
    net.run(1000.0)
    assert net.events == before
    net.handle(peer_id(0), Publish("t", b"nobody listens"))
    net.run(2000.0)
    assert net.events < before + 200, "heartbeats end when the fanout does"


def test_same_seed_same_traffic() -> None:
    runs: list[list[str]] = []
    for _ in range(2):
        net = gossip_net(15, seed=4, loss=0.1)
        publish_some(net, 10, 15)
        runs.append([repr(entry) for entry in net.sent])
    assert runs[0] == runs[1]


def test_real_messages_relay_unknown_fields() -> None:
    """Encoded and decoded on every link, with real signatures; the last of three did not know the first."""
    identities = [Identity(bytes([number + 1]) * 32) for number in range(3)]
    carried: list[bytes] = []

    def carry(sender: PeerId, sent: Message) -> Message:
        assert isinstance(sent, Rpc)
        body = encode(sent)
        carried.append(body)
        return decode(sender, body)

    net = Net(carry=carry)
    for number, identity in enumerate(identities):
        net.add(identity.peer_id, GossipRouter(identity.peer_id, identity.sign, verify, Random(number)))
        net.handle(identity.peer_id, Subscribe("t"))
    net.connect(identities[0].peer_id, identities[1].peer_id)
    net.connect(identities[1].peer_id, identities[2].peer_id)
    net.run(1.0)
    net.handle(identities[0].peer_id, Publish("t", b"hello"))
    net.run(2.0)
    (relayed,) = net.delivered(identities[2].peer_id)
    assert (relayed.source, relayed.data) == (identities[0].peer_id, b"hello")

    author = Identity(bytes([9]) * 32)
    body = b"\x0a\x26" + author.peer_id + b"\x12\x04data\x1a\x08" + bytes(8) + b"\x22\x01t\xca\x3e\x03new"
    raw = body + b"\x2a\x40" + author.sign(b"libp2p-pubsub:" + body)
    net.handle(identities[1].peer_id, Received(identities[0].peer_id, Rpc(publish=(parse_message(raw),))))
    net.run(3.0)
    assert net.delivered(identities[2].peer_id)[-1].raw == raw
