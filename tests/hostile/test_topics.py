"""Topics that a peer says it follows: remembered for as long as it is connected, so bounded in bytes too."""

from __future__ import annotations

from swarmp2p.gossip.config import GossipConfig
from swarmp2p.gossip.messages import Rpc
from tests.gossip.harness import Scripted

LONG = 1_000


def names(count: int) -> tuple[str, ...]:
    return tuple(f"{number}".ljust(LONG, "é") for number in range(count))


def test_long_names_use_up_what_a_peer_may_have_remembered() -> None:
    node = Scripted(GossipConfig(max_peer_topic_bytes=10 * 2 * LONG))
    node.up(1, topics=())
    node.receive(1, Rpc(subscriptions=tuple((name, True) for name in names(50))))
    assert node.router.sizes()["peer_topics"] == 10
    assert node.router.stats.over_limit == 40


def test_topics_that_are_left_make_room_for_others() -> None:
    node = Scripted(GossipConfig(max_peer_topic_bytes=10 * 2 * LONG))
    node.up(1, topics=())
    for _ in range(3):
        for joined in (True, True, False, False):
            node.receive(1, Rpc(subscriptions=tuple((name, joined) for name in names(10))))
    assert node.router.sizes()["peer_topics"] == 0
    assert node.router.stats.over_limit == 0
