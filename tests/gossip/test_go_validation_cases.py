"""go-libp2p-pubsub's cases of validation and of queues, restated for our engine where they apply to it.

validation_builtin_test.go: BasicSeqnoValidator1, BasicSeqnoValidator2, BasicSeqnoValidatorReplay: here; by single rules
in test_sequences.py.

validation_test.go: RegisterUnregisterValidator, RegisterValidatorEx, ValidateOverload, ValidateAssortedOptions:
tests/test_pubsub.py, test_validation.py. Validate: here. Validate2, in which a node judges what it publishes itself:
ours does not (docs/interop.md).

peer_gater_test.go, three cases: there is no gater. What it is for, that one peer's messages may keep the validators
from all others', is bounded by a quarter for each peer (test_one_peer_cannot_fill_the_waiting_room).

rpc_queue_test.go: UrgentPush (control first), PushThenPop, NonblockPushWhenFull: test_outbox.py. The others are about
blocked goroutines and closed queues: an outbox does not block, and goes with its peer
(test_a_peer_that_leaves_takes_its_queue_along).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from swarmp2p.engine import Engine, NetworkEvent, PeerUp, Received, Send
from swarmp2p.gossip.config import GossipConfig, TopicConfig
from swarmp2p.gossip.events import Acceptance, GossipMessage, Publish, Subscribe
from swarmp2p.gossip.messages import Rpc
from swarmp2p.identity import PeerId

from .network import Net, gossip_net, peer_id, random_links, router

COUNT = 20


class Replayer(Engine[Any, Any]):
    """Follows the topic, and sends whatever it gets to half of its neighbours, again and again, whenever it can."""

    def __init__(self) -> None:
        self.rng = Random(7)
        self.neighbours: list[PeerId] = []
        self.kept: list[GossipMessage] = []
        self.replayed = 0

    def handle(self, event: NetworkEvent | object, now: float) -> Sequence[Any]:
        out: list[Any] = []
        if isinstance(event, PeerUp):
            self.neighbours.append(event.peer)
            out.append(Send(event.peer, Rpc(subscriptions=(("t", True),), graft=("t",))))
        elif isinstance(event, Received) and isinstance(event.message, Rpc):
            self.kept += event.message.publish
            for peer in self.neighbours if self.kept else ():
                if self.rng.random() < 0.5:
                    self.replayed += 1
                    out.append(Send(peer, Rpc(publish=(self.rng.choice(self.kept),))))
        return out

    def deadline(self) -> float:
        return float("inf")


def everybody_gets_it_once(net: Net) -> None:
    """Publish from anywhere, and look that each of the honest gets each once."""
    rng, sent = Random(3), dict[bytes, int]()
    for number in range(20):
        publisher, data = rng.randrange(COUNT - 1), b"message %d" % number
        sent[data] = publisher
        net.handle(peer_id(publisher), Publish("t", data))
        for _ in range(20):
            net.run(net.now + 0.01)
            assert net.events < 100_000, "repeats go round and round"
    for number in range(COUNT - 1):
        got = [one.data for one in net.delivered(peer_id(number))]
        assert got == [data for data, publisher in sent.items() if publisher != number]


@pytest.mark.parametrize("seen_ttl_s", [60.0, 1e-9])
def test_without_a_seen_cache_numbers_tell_what_is_new(seen_ttl_s: float) -> None:
    """TestBasicSeqnoValidator1, TestBasicSeqnoValidator2"""
    config = GossipConfig(seen_ttl_s=seen_ttl_s, topics={"t": TopicConfig(no_replays=True)})
    net = gossip_net(COUNT, config=config)
    everybody_gets_it_once(net)


def test_replays() -> None:
    """TestBasicSeqnoValidatorReplay: without a seen cache, beside one that sends all it hears again and again."""
    config = GossipConfig(seen_ttl_s=1e-9, topics={"t": TopicConfig(no_replays=True)})
    net, replayer = Net(), Replayer()
    routers = [router(number, config, seed=1) for number in range(COUNT - 1)]
    for number, one in enumerate(routers):
        net.add(peer_id(number), one)
        net.handle(peer_id(number), Subscribe("t"))
    net.add(peer_id(COUNT - 1), replayer)
    for first, second in random_links(COUNT, 5, Random(1)):
        net.connect(peer_id(first), peer_id(second))
    net.run(2.0)
    everybody_gets_it_once(net)
    assert replayer.replayed > 20
    assert sum(one.stats.old for one in routers) > 20, "replays that only their numbers gave away"


def test_validators_filter() -> None:
    """TestValidate"""

    def legal(sent: GossipMessage, _now: float) -> Acceptance:
        return Acceptance.REJECT if b"illegal" in sent.data else Acceptance.ACCEPT

    net = Net()
    net.add(peer_id(0), router(0))
    net.add(peer_id(1), router(1, GossipConfig(topics={"t": TopicConfig(validator=legal)})))
    net.handle(peer_id(1), Subscribe("t"))
    net.connect(peer_id(0), peer_id(1))
    net.run(1.0)
    texts = (b"a legal message", b"nothing to see", b"openly illegal", b"in disguise, 1ll3g4l")
    for text in texts:
        net.handle(peer_id(0), Publish("t", text))
    net.run(2.0)
    assert [one.data for one in net.delivered(peer_id(1))] == [
        text for text in texts if b"illegal" not in text
    ]
