"""js-libp2p names messages by the public key of their source, where the spec says its peer id: both understand ours."""

from __future__ import annotations

from swarmp2p.engine import Received, Send
from swarmp2p.gossip.config import GossipConfig
from swarmp2p.gossip.events import GossipMessage
from swarmp2p.gossip.messages import IHave, Rpc

from .harness import Scripted
from .network import message, peer_id

LAZY = GossipConfig(mesh_degree=0, mesh_low=0, mesh_high=0, flood_publish=False)
FIRST, SECOND = message(9, 1), message(9, 2)


def short(message_id: bytes) -> bytes:
    """As js-libp2p names it."""
    assert message_id[:2] == b"\x00\x24"
    return message_id[2:]


def lazy() -> Scripted:
    """A router in no mesh, with a neighbour."""
    node = Scripted(LAZY)
    node.subscribe()
    node.up(1)
    return node


def test_what_js_offers_is_asked_for_by_its_own_name() -> None:
    node = lazy()
    asked = node.receive(1, Rpc(ihave=(IHave("t", (short(FIRST.id), short(SECOND.id))),)))
    assert set(asked[peer_id(1)].iwant) == {short(FIRST.id), short(SECOND.id)}


def test_what_we_have_is_not_asked_for_again() -> None:
    node = lazy()
    node.receive(1, Rpc(publish=(FIRST,)))
    assert node.receive(1, Rpc(ihave=(IHave("t", (short(FIRST.id),)),))) == {}


def test_a_promise_of_js_is_kept_by_the_message() -> None:
    node = lazy()
    node.receive(1, Rpc(ihave=(IHave("t", (short(FIRST.id),)),)))
    node.receive(1, Rpc(publish=(FIRST,)))
    for _ in range(5):
        node.heartbeat()
    assert (node.router.stats.promises_kept, node.router.stats.promises_broken) == (1, 0)


def test_js_is_answered_whatever_form_it_asks_in() -> None:
    """It repeats our names, or its own once it gets them."""
    node = lazy()
    node.receive(1, Rpc(publish=(FIRST, SECOND)))
    node.up(2)
    assert node.receive(2, Rpc(iwant=(FIRST.id,)))[peer_id(2)].publish == (FIRST,)
    assert node.receive(2, Rpc(iwant=(short(SECOND.id),)))[peer_id(2)].publish == (SECOND,)


def test_js_is_offered_messages_by_its_own_names_and_others_by_the_specs() -> None:
    node = lazy()
    node.up(2, 3)
    node.receive(1, Rpc(ihave=(IHave("t", (short(SECOND.id),)),)))
    node.receive(3, Rpc(publish=(FIRST,)))
    offers = node.heartbeat()
    assert offers[peer_id(1)].ihave == (IHave("t", (short(FIRST.id),)),)
    assert offers[peer_id(2)].ihave == (IHave("t", (FIRST.id,)),)


def test_who_only_asks_in_the_short_form_is_not_taken_for_js() -> None:
    """It may repeat what somebody else told it."""
    node = lazy()
    node.receive(1, Rpc(iwant=(short(FIRST.id),)))
    node.up(2)
    node.receive(2, Rpc(publish=(FIRST,)))
    assert node.heartbeat()[peer_id(1)].ihave == (IHave("t", (FIRST.id,)),)


def test_idontwant_is_understood_and_said_in_the_short_form() -> None:
    node = Scripted()
    node.subscribe()
    node.up(1, 2, 3)
    first, second = (message(9, seqno, data=bytes(2000)) for seqno in (3, 4))
    node.receive(1, Rpc(idontwant=(short(first.id),)))
    said = sends(node, first)
    assert Send(peer_id(3), Rpc(publish=(first,))) in said
    assert Send(peer_id(1), Rpc(publish=(first,))) not in said, "it has that"
    said = sends(node, second)
    assert Send(peer_id(1), Rpc(idontwant=(short(second.id),))) in said
    assert Send(peer_id(3), Rpc(idontwant=(second.id,))) in said


def sends(node: Scripted, sent: GossipMessage) -> list[object]:
    """What leaves when neighbour 2 sends a message."""
    return [*node.router.handle(Received(peer_id(2), Rpc(publish=(sent,))), node.now)]


def test_ids_of_other_kinds_stay_as_they_are() -> None:
    node = lazy()
    odd = (b"\x08\x01\x12\x20" + bytes(41), b"\x08\x01\x12\x20" + bytes(39), b"anything")
    asked = node.receive(1, Rpc(ihave=(IHave("t", odd),)))
    assert set(asked[peer_id(1)].iwant) == set(odd)
