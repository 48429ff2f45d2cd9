"""gossipsub 1.1, "Explicit Peering Agreements": direct peers."""

from __future__ import annotations

from swarmp2p.engine import Introduce, PeerInfo, Send, Tick
from swarmp2p.gossip.config import GossipConfig
from swarmp2p.gossip.events import SetAppScore, Subscribe
from swarmp2p.gossip.messages import IHave, Prune, Rpc

from .harness import Scripted
from .network import message, peer_id, router

FRIENDS = (PeerInfo(peer_id(1), (b"there",)), PeerInfo(peer_id(2), (b"here",)))
CONFIG = GossipConfig(direct_peers=FRIENDS, flood_publish=False)


def node() -> Scripted:
    """One whose direct peers were dialled."""
    scripted = Scripted(CONFIG)
    scripted.handle(Tick())
    return scripted


def test_direct_peers_are_dialled_at_once_and_again_at_intervals() -> None:
    """Persistent connections; go-libp2p-pubsub looks every 5 minutes."""
    engine = router(0, CONFIG)
    assert engine.deadline() <= 0
    assert engine.handle(Tick(), 0.0) == [
        Introduce(peer_id(1), (b"there",)),
        Send(peer_id(1), Rpc()),
        Introduce(peer_id(2), (b"here",)),
        Send(peer_id(2), Rpc()),
    ]
    engine.handle(Subscribe("t"), 1.0)
    dials: list[tuple[float, int]] = []
    now = 0.0
    while now < 700:
        now = engine.deadline()
        dials += [(now, len(engine.handle(Tick(), now)))]
    assert [round(at / 300) for at, outputs in dials if outputs] == [1, 2]


def test_those_that_are_connected_are_not_dialled() -> None:
    scripted = node()
    scripted.up(1)
    dialled: list[object] = []
    while scripted.now < 301:
        scripted.now = scripted.router.deadline()
        outputs = scripted.router.handle(Tick(), scripted.now)
        dialled += [one.peer for one in outputs if isinstance(one, Introduce)]
    assert dialled == [peer_id(2)]


def test_direct_peers_get_all_messages_and_are_in_no_mesh() -> None:
    """Messages are forwarded to them outside of mesh and score."""
    scripted = node()
    scripted.subscribe()
    scripted.up(1, 2, 3)
    scripted.heartbeat()
    assert scripted.mesh() == {3}
    assert set(scripted.publish()) == {peer_id(1), peer_id(2), peer_id(3)}
    sent = message(9, 1)
    assert set(scripted.receive(1, Rpc(publish=(sent,)))) == {peer_id(2), peer_id(3)}
    scripted.receive(2, Rpc(subscriptions=(("t", False),)))
    assert peer_id(2) not in scripted.receive(3, Rpc(publish=(message(9, 2),)))


def test_publishing_without_subscribing_reaches_direct_peers() -> None:
    scripted = node()
    scripted.up(1, 3, 4)
    assert set(scripted.publish()) == {peer_id(1), peer_id(3), peer_id(4)}
    assert set(scripted.router.fanout("t")) == {peer_id(3), peer_id(4)}


def test_flood_publishing_reaches_direct_peers_whatever_their_score() -> None:
    scripted = Scripted(GossipConfig(direct_peers=FRIENDS))
    scripted.handle(Tick())
    scripted.subscribe()
    scripted.up(1, 3)
    scripted.handle(SetAppScore(peer_id(1), -5000.0))
    scripted.handle(SetAppScore(peer_id(3), -5000.0))
    assert set(scripted.publish()) == {peer_id(1)}


def test_messages_of_direct_peers_are_taken_whatever_their_score() -> None:
    scripted = node()
    scripted.subscribe()
    scripted.up(1, 3)
    for number in (1, 3):
        scripted.handle(SetAppScore(peer_id(number), -5000.0))
        scripted.receive(number, Rpc(publish=(message(9, number),)))
    assert [one.seqno[-1] for one in scripted.delivered] == [1]
    assert scripted.router.stats.graylisted == 1


def test_graft_from_a_direct_peer_is_refused_without_blame() -> None:
    """The answer is PRUNE: the two sides disagree on being direct peers."""
    scripted = node()
    scripted.subscribe()
    scripted.up(1)
    for _ in range(9):
        assert scripted.receive(1, Rpc(graft=("t",))) == {peer_id(1): Rpc(prune=(Prune("t", 60),))}
    assert scripted.score(1) == 0
    assert scripted.mesh() == set()


def test_direct_peers_are_not_gossiped_to() -> None:
    """They got the messages."""
    scripted = node()
    scripted.subscribe()
    scripted.up(1)
    scripted.receive(3, Rpc(publish=(message(9, 1),)))
    told: list[IHave] = []
    for _ in range(3):
        told += [have for rpc in scripted.heartbeat().values() for have in rpc.ihave]
    assert not told
