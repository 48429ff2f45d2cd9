"""libp2p's gossipsub 1.2 spec, clause by clause (libp2p/specs, pubsub/gossipsub/gossipsub-v1.2.md).

By its sections; the tests cite them.

- Protocol id: test_codec.py (all three, the newest first); here, who is told.
- Parameters, max_idontwant_messages: ids are counted, not messages, which may hold any number of them.
- IDONTWANT message. Sending: at once, to the mesh, before validation, though not before the signature is checked
  (idontwant.py says why), from a size on. Receiving: skipped, forgotten, bounded, never punished.
- Cancelling IWANT: what waits to be sent in answer to one is taken back. We do not ask for that ourselves, which the
  spec leaves open: the answer to our IWANT is usually on its way by then.
- Protobuf extension: test_wire.py, test_wire_libp2p.py; tests/interop/test_gossip_mixed.py with js.
"""

from __future__ import annotations

from typing import Any

import pytest

from swarmp2p.engine import Congested, Received, Send, Speaks, Tick
from swarmp2p.gossip.config import GossipConfig, TopicConfig
from swarmp2p.gossip.events import GossipMessage, StartValidating
from swarmp2p.gossip.messages import PUBSUB, Rpc
from swarmp2p.identity import PeerId

from .harness import Scripted
from .network import message, peer_id

LARGE = bytes(1024)


def meshed(*neighbours: int, **settings: Any) -> Scripted:
    node = Scripted(GossipConfig(**settings))
    node.subscribe()
    node.up(*neighbours)
    for number in neighbours:
        node.receive(number, Rpc(graft=("t",)))
    return node


def received(node: Scripted, number: int, *sent: GossipMessage) -> list[Send]:
    """What the node sends, in order, when a neighbour sends messages."""
    outputs = node.router.handle(Received(peer_id(number), Rpc(publish=sent)), node.now)
    return [output for output in outputs if isinstance(output, Send)]


def told(sends: list[Send]) -> dict[PeerId, tuple[bytes, ...]]:
    """The ids that each peer is told are not wanted."""
    return {
        send.to: send.message.idontwant
        for send in sends
        if isinstance(send.message, Rpc) and send.message.idontwant
    }


# Sending ----------------------------------------------------------------------------------------------------


def test_the_mesh_is_told_when_the_first_copy_comes() -> None:
    """IDONTWANT Message: broadcast at once to all mesh peers, and not piggybacked; before the message itself."""
    node = meshed(1, 2, 3)
    large = message(9, 1, data=LARGE)
    sends = received(node, 1, large)
    assert told(sends) == {peer_id(2): (large.id,), peer_id(3): (large.id,)}
    assert [bool(send.message.publish) for send in sends if isinstance(send.message, Rpc)] == [
        False,
        False,
        True,
        True,
    ]
    assert received(node, 2, large) == [], "once"


def test_it_does_not_wait_for_a_flush_or_for_a_validator() -> None:
    """IDONTWANT Message: it may be sent before the message is validated."""
    node = meshed(1, 2, flush_interval_s=0.05)
    node.handle(StartValidating("t", 5.0))
    node.now = node.router.deadline()
    node.handle(Tick())
    large = message(9, 1, data=LARGE)
    assert received(node, 1, large) == [Send(peer_id(2), Rpc(idontwant=(large.id,)))]


def test_forged_copies_are_not_announced() -> None:
    """Ours: whoever knows a source's next sequence number could else keep its next message from us."""
    node = meshed(1, 2, 3)
    assert told(received(node, 1, message(9, 1, data=LARGE, signature=b"false"))) == {}


def test_small_messages_are_not_worth_it() -> None:
    """IDONTWANT Message, threshold: a size below which nothing is told; 1 kB, a setting."""
    node = meshed(1, 2)
    assert told(received(node, 1, message(9, 1, data=LARGE[:-1]))) == {}
    node = meshed(1, 2, idontwant_bytes=10)
    assert told(received(node, 1, message(9, 1, data=LARGE[:10]))) != {}


def test_messages_that_come_together_are_announced_together() -> None:
    node = meshed(1, 2)
    large = [message(9, number, data=LARGE) for number in range(3)]
    assert told(received(node, 1, large[0], message(9, 7), *large[1:])) == {
        peer_id(2): tuple(each.id for each in large)
    }


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [("", True), ("/meshsub/1.3.0", True), ("/meshsub/1.1.0", False), ("/meshsub/1.0.0", False)],
)
def test_only_peers_that_speak_1_2_are_told(protocol: str, expected: bool) -> None:
    """Protocol Id: /meshsub/1.2.0; the message is for peers that support it."""
    node = meshed(1, 2)
    node.handle(Speaks(peer_id(2), PUBSUB, True, protocol))
    assert bool(told(received(node, 1, message(9, 1, data=LARGE)))) == expected


def test_peers_outside_the_mesh_are_not_told() -> None:
    node = meshed(1, 2, mesh_degree=2, mesh_low=2, mesh_high=2, mesh_outbound=0)
    node.up(3)
    assert set(told(received(node, 1, message(9, 1, data=LARGE)))) == {peer_id(2)}


def test_a_congested_peer_is_not_told() -> None:
    node = meshed(1, 2)
    node.handle(Congested(peer_id(2), PUBSUB, True))
    assert received(node, 1, message(9, 1, data=LARGE)) == []


# Receiving --------------------------------------------------------------------------------------------------


def test_idontwant_is_heeded() -> None:
    """IDONTWANT Message: do not forward messages that the peer does not want."""
    node = meshed(1, 2, 3)
    sent = message(9, 1)
    node.receive(2, Rpc(idontwant=(sent.id,)))
    assert node.receive(1, Rpc(publish=(sent,))) == {peer_id(3): Rpc(publish=(sent,))}
    assert node.router.stats.unwanted == 1


def test_what_waits_is_taken_back() -> None:
    """IDONTWANT Message: also what is queued already."""
    node = meshed(1, 2, flush_interval_s=0.05)
    node.now = node.router.deadline()
    node.receive(1, Rpc(publish=(message(9, 1),)))
    node.receive(2, Rpc(idontwant=(message(9, 1).id,)))
    assert node.router.sizes()["queued"] == 0


def test_an_answer_that_waits_is_taken_back() -> None:
    """Cancelling IWANT: an IWANT that was not answered yet is forgotten."""
    node = meshed(1, 2)
    sent = message(9, 1)
    node.receive(1, Rpc(publish=(sent,)))
    node.handle(Congested(peer_id(2), PUBSUB, True))
    assert node.receive(2, Rpc(iwant=(sent.id,))) == {}
    assert node.router.sizes()["queued"] == 1
    node.receive(2, Rpc(idontwant=(sent.id,)))
    assert node.router.sizes()["queued"] == 0
    assert node.handle(Congested(peer_id(2), PUBSUB, False)) == {}


def test_own_messages_are_not_sent_to_who_has_them() -> None:
    """IDONTWANT Message: ids that come from the content may be known before we publish."""

    def by_content(sent: GossipMessage) -> bytes:
        return b"#" + sent.data

    node = meshed(1, 2, topics={"t": TopicConfig(message_id=by_content)})
    node.receive(2, Rpc(idontwant=(b"#x",)))
    assert set(node.publish(data=b"x")) == {peer_id(1)}
    assert set(node.publish(data=b"y")) == {peer_id(1), peer_id(2)}


def test_it_is_answered_when_asked_for_all_the_same() -> None:
    """The later word counts. (go-libp2p-pubsub sends nothing then; the spec speaks of relaying to the mesh.) A peer
    that found no room for a message which it had announced so asks for it again."""
    node = meshed(1, 2)
    sent = message(9, 1)
    node.receive(2, Rpc(idontwant=(sent.id,)))
    node.receive(1, Rpc(publish=(sent,)))
    assert node.receive(2, Rpc(iwant=(sent.id,)))[peer_id(2)].publish == (sent,)


def test_it_is_forgotten_after_three_heartbeats() -> None:
    """go-libp2p-pubsub's IDontWantMessageTTL."""
    node = meshed(1, 2)
    node.receive(2, Rpc(idontwant=(message(9, 1).id,)))
    for left in (1, 1, 0):
        node.heartbeat()
        assert node.router.sizes()["unwanted"] == left
    assert peer_id(2) in node.receive(1, Rpc(publish=(message(9, 1),)))


def test_a_flood_of_ids_is_cut_off() -> None:
    """IDONTWANT Message, denial of service: the number of ids taken of a peer is limited."""
    node = meshed(1, 2, max_unwanted=2)
    sent = [message(9, number) for number in range(3)]
    for _ in range(10):
        node.receive(2, Rpc(idontwant=tuple(each.id for each in sent)))
    assert node.router.sizes()["unwanted"] == 2
    assert node.router.stats.over_limit == 10
    assert set(node.receive(1, Rpc(publish=(sent[2],)))) == {peer_id(2)}
    assert set(node.receive(1, Rpc(publish=(sent[1],)))) == set()


def test_who_has_nothing_to_send_remembers_nothing() -> None:
    node = Scripted()
    node.up(1)
    node.receive(1, Rpc(idontwant=(b"id",)))
    assert node.router.sizes()["unwanted"] == 0
    node = meshed(1)
    node.receive(1, Rpc(idontwant=(b"id",)))
    node.unsubscribe()
    while node.router.deadline() < 1e9:
        node.heartbeat()
    assert node.router.sizes()["unwanted"] == 0, "the last heartbeat forgets"


def test_it_goes_with_the_connection() -> None:
    node = meshed(1, 2)
    node.receive(2, Rpc(idontwant=(b"id",)))
    node.down(2)
    node.heartbeat()
    assert node.router.sizes()["unwanted"] == 0


def test_who_sends_it_all_the_same_is_not_punished() -> None:
    """IDONTWANT Message: "sending a message after the corresponding IDONTWANT should not be penalized"."""
    node = meshed(1, 2)
    large = message(9, 1, data=LARGE)
    assert told(received(node, 1, large)) == {peer_id(2): (large.id,)}
    for _ in range(20):
        assert received(node, 2, large) == []
    assert node.score(2) >= 0
    assert node.mesh() == {1, 2}
