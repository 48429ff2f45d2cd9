"""libp2p's pubsub spec, clause by clause (libp2p/specs, pubsub/README.md), by its sections.

- Stream management: tests/transport and tests/interop; the engine knows no streams.
- The RPC: hello, later changes, counted subscriptions, here; its bytes: test_wire.py, test_wire_libp2p.py.
- The Message. from, seqno, data: here. Not altered by relays: test_gossipsub_1_0.py,
  test_real_messages_relay_unknown_fields (test_router_network.py). 1 MiB at most: test_the_longest_message_fits...
  (test_wire.py), here for our own; what others send is cut off by tests/conformance.py.
- Message identification. The default, and by topic: here, test_validation.py. js-libp2p's form: test_id_forms.py.
- Message signing. Bytes, prefix, unknown fields, key: test_wire.py. A signature that fails: here. StrictSign and
  StrictNoSign: here, test_validation.py. LaxSign and LaxNoSign, legacy and discouraged, are not offered.
- The topic descriptor: used by no implementation, as the spec says.
- Topic validation: test_validation.py, tests/test_pubsub.py; several validators, here.
"""

from __future__ import annotations

import math

import pytest

from swarmp2p.engine import PeerUp
from swarmp2p.gossip.config import GossipConfig, TopicConfig
from swarmp2p.gossip.events import ANONYMOUS, Acceptance, StartValidating, Validated
from swarmp2p.gossip.messages import MAX_DATA_BYTES, Rpc
from swarmp2p.gossip.wire import StrictNoSign

from .harness import ME, Scripted
from .network import message, peer_id, stub_sign

ACCEPT, REJECT = Acceptance.ACCEPT, Acceptance.REJECT


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


def test_the_same_number_of_two_sources_is_two_messages() -> None:
    """The Message: `seqno` is unique for its source, not globally."""
    node = Scripted()
    node.subscribe()
    node.up(1)
    node.receive(1, Rpc(publish=(message(8, 1), message(9, 1), message(9, 1))))
    assert [sent.source for sent in node.delivered] == [peer_id(8), peer_id(9)]


@pytest.mark.parametrize("data", [b"", bytes(range(256))])
def test_data_is_opaque(data: bytes) -> None:
    """The Message: `data` may be anything, and may be missing."""
    node = Scripted()
    node.subscribe()
    node.up(1)
    assert node.publish(data=data)[peer_id(1)].publish[0].data == data
    node.receive(1, Rpc(publish=(message(9, 1, data=data),)))
    assert [sent.data for sent in node.delivered] == [data]


def test_own_messages_that_are_too_large_are_not_sent() -> None:
    """The Message: limited to about 1 MiB."""
    node = Scripted()
    node.up(1)
    assert node.publish(data=bytes(MAX_DATA_BYTES + 1)) == {}
    assert node.router.stats.oversized == 1
    assert node.publish(data=bytes(MAX_DATA_BYTES))


def test_each_topic_has_its_own_signature_policy() -> None:
    """Signature policy options: configured per topic. What one topic demands the other refuses."""
    node = Scripted(GossipConfig(topics={"nobody": TopicConfig(anonymous=True)}))
    for topic in ("t", "nobody"):
        node.subscribe(topic)
    node.up(1, topics=("t", "nobody"))
    (signed,) = node.publish("t")[peer_id(1)].publish
    (anonymous,) = node.publish("nobody")[peer_id(1)].publish
    assert (signed.source, anonymous.source) == (peer_id(ME), ANONYMOUS)

    def unsigned(topic: str) -> Rpc:
        return Rpc(publish=(StrictNoSign().make(peer_id(9), topic, b"other", bytes(8), stub_sign),))

    node.receive(1, Rpc(publish=(message(9, 1, topic="t"),)))
    node.receive(1, unsigned("nobody"))
    assert len(node.delivered) == 2
    node.receive(1, Rpc(publish=(message(9, 2, topic="nobody", data=b"third"),)))
    node.receive(1, unsigned("t"))
    assert len(node.delivered) == 2
    assert node.router.stats.invalid == 2


@pytest.mark.parametrize("first", [ACCEPT, REJECT])
@pytest.mark.parametrize("second", [ACCEPT, REJECT])
def test_all_validators_must_accept(first: Acceptance, second: Acceptance) -> None:
    """Topic validation: a message goes on if, and only if, every validator of its topic accepts it: the one of the
    settings and the application's."""
    node = Scripted(GossipConfig(topics={"t": TopicConfig(validator=lambda _sent, _now: first)}))
    node.subscribe()
    node.handle(StartValidating("t", 5.0))
    node.up(1, 2)
    answer = node.receive(1, Rpc(publish=(message(9, 1),)))
    assert answer == {}
    answer = node.handle(Validated(message(9, 1).id, second))
    passed = first is second is ACCEPT
    assert (peer_id(2) in answer) == passed
    assert len(node.delivered) == passed
