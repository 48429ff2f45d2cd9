"""What begins and ends with a connection: subscriptions, backoffs, and how many peers there may be."""

from __future__ import annotations

from swarmp2p.gossip.config import GossipConfig
from swarmp2p.gossip.messages import Prune, Rpc

from .harness import Scripted
from .network import message, peer_id


def test_everything_of_a_peer_goes_with_its_connection() -> None:
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    node.down(1)
    assert node.router.subscribers("t") == (peer_id(2),)
    assert node.router.mesh("t") == (peer_id(2),)
    node.up(1)
    assert node.mesh() == {1, 2}


def test_a_backoff_that_a_peer_asked_for_outlives_its_connection() -> None:
    """Prune backoff: go-libp2p-pubsub remembers whom it pruned, and counts GRAFTs that come too early."""
    node = Scripted()
    node.subscribe()
    node.up(1)
    node.receive(1, Rpc(prune=(Prune("t", 60),)))
    node.down(1)
    node.up(1)
    assert node.mesh() == set()
    while node.now < 62:
        assert node.mesh() == set()
        node.heartbeat()
    node.heartbeat()
    assert node.mesh() == {1}


def test_a_peer_that_comes_back_may_graft() -> None:
    """It may have restarted, and know nothing of a backoff."""
    node = Scripted()
    node.subscribe()
    node.up(1)
    node.receive(1, Rpc(prune=(Prune("t", 60),)))
    node.down(1)
    node.up(1)
    assert node.receive(1, Rpc(graft=("t",))) == {}
    assert node.mesh() == {1}
    assert node.score(1) == 0


def test_reconnects_resend_subscriptions() -> None:
    node = Scripted()
    node.subscribe()
    node.up(1)
    node.down(1)
    assert node.up(1) == {peer_id(1): Rpc(subscriptions=(("t", True),))}


def test_a_peer_that_restarts_unnoticed_is_meshed_again() -> None:
    node = Scripted()
    node.subscribe()
    node.up(1)
    assert node.up(1) == {peer_id(1): Rpc(subscriptions=(("t", True),), graft=("t",))}


def test_an_rpc_may_come_before_its_peer_up() -> None:
    node = Scripted()
    node.subscribe()
    answer = node.receive(1, Rpc(subscriptions=(("t", True),)))
    assert answer == {peer_id(1): Rpc(subscriptions=(("t", True),), graft=("t",))}


def test_subscriptions_are_repeated_now_and_then() -> None:
    node = Scripted()
    node.subscribe()
    node.up(1, 2)
    repeated: list[float] = []
    while node.now < 130:
        if peer_id(1) in node.heartbeat():
            repeated.append(node.now)
    assert len(repeated) == 2
    assert 59 < repeated[1] - repeated[0] < 62


def test_too_many_peers_and_topics_are_ignored() -> None:
    node = Scripted(GossipConfig(max_peers=2, max_peer_topics=3))
    node.subscribe()
    node.up(1)
    node.up(2, topics=tuple("abcdet"))
    assert node.up(3) == {}
    assert node.receive(3, Rpc(publish=(message(9, 1),))) == {}
    assert [len(node.router.subscribers(topic)) for topic in "abcde"] == [1, 1, 1, 0, 0]
    assert node.router.subscribers("t") == (peer_id(1),)
    assert node.router.stats.over_limit > 0


def test_a_peer_that_says_again_what_it_said_may_have_restarted() -> None:
    """Neither side noticed the end of the old connection, nor has the network: the hello alone tells."""
    node = Scripted()
    node.subscribe()
    node.up(1)
    assert node.mesh() == {1}
    hello = Rpc(subscriptions=(("t", True),))
    assert node.receive(1, hello) == {}, "it was greeted just now"
    node.heartbeat()
    node.now += 1.0
    assert node.receive(1, hello) == {peer_id(1): Rpc(subscriptions=(("t", True),), graft=("t",))}
    assert node.receive(1, hello) == {}, "two that do so do not keep each other talking"
