"""The outbox: one RPC a peer, control first, bounded."""

from __future__ import annotations

from swarmp2p.engine import Send
from swarmp2p.gossip.config import GossipConfig, GossipStats
from swarmp2p.gossip.messages import MAX_RPC_BYTES, IHave, Prune, Rpc
from swarmp2p.gossip.outbox import Outbox
from swarmp2p.gossip.wire import MAX_ID_BYTES, encode

from .network import message, peer_id

A, B = peer_id(1), peer_id(2)


def outbox(config: GossipConfig | None = None) -> tuple[Outbox, GossipStats]:
    stats = GossipStats()
    return Outbox(config or GossipConfig(), stats), stats


def test_everything_for_a_peer_is_one_rpc() -> None:
    box, _ = outbox()
    first, second = message(3, 1), message(3, 2)
    for sent in (first, second, first):
        box.message(A, sent.id, sent)
    box.subscriptions(A, ("t", "u"), True)
    box.ihave(A, IHave("t", (b"1",)))
    box.iwant(A, (b"2",))
    box.graft(A, "t")
    box.prune(A, "u", 59.1)
    assert box
    assert box.flush() == [
        Send(
            A,
            Rpc(
                subscriptions=(("t", True), ("u", True)),
                publish=(first, second),
                ihave=(IHave("t", (b"1",)),),
                iwant=(b"2",),
                graft=("t",),
                prune=(Prune("u", 60),),
            ),
        )
    ]
    assert not box
    assert box.flush() == []


def test_peers_with_control_come_first() -> None:
    box, _ = outbox()
    sent = message(3, 1)
    box.message(A, sent.id, sent)
    box.graft(B, "t")
    assert [send.to for send in box.flush()] == [B, A]


def test_a_message_for_many_is_one_rpc_object() -> None:
    box, _ = outbox()
    sent = message(3, 1)
    box.message(A, sent.id, sent)
    box.message(B, sent.id, sent)
    one, other = box.flush()
    assert one.message is other.message


def test_the_last_word_on_a_topic_counts() -> None:
    box, _ = outbox()
    box.graft(A, "t")
    box.prune(A, "t", 10)
    box.prune(A, "u", 10)
    box.graft(A, "u")
    box.subscriptions(A, ("t",), True)
    box.subscriptions(A, ("t",), False)
    assert box.flush() == [Send(A, Rpc(subscriptions=(("t", False),), graft=("u",), prune=(Prune("t", 10),)))]


def test_cancelled_and_forgotten_messages_do_not_leave() -> None:
    box, _ = outbox()
    first, second = message(3, 1), message(3, 2)
    for sent in (first, second):
        box.message(A, sent.id, sent)
        box.message(B, sent.id, sent)
    box.cancel(A, first.id)
    box.cancel(A, b"unknown")
    box.cancel(peer_id(9), first.id)
    box.graft(B, "t")
    box.forget(B)
    assert box.flush() == [Send(A, Rpc(publish=(second,)))]
    box.message(A, first.id, first)
    box.cancel(A, first.id)
    assert not box


def test_drops_beyond_its_bounds_are_counted() -> None:
    box, stats = outbox(GossipConfig(max_queued=3))
    messages = [message(3, number) for number in range(5)]
    for sent in messages:
        box.message(A, sent.id, sent)
    assert box.flush() == [Send(A, Rpc(publish=tuple(messages[:3])))]
    assert stats.queue_full == 2
    box, stats = outbox(GossipConfig(max_queued_bytes=3000))
    messages = [message(3, number, data=bytes(1000)) for number in range(5)]
    for sent in messages:
        box.message(A, sent.id, sent)
    assert box.flush() == [Send(A, Rpc(publish=tuple(messages[:2])))]
    assert stats.queue_full == 3


def test_cancelling_makes_room() -> None:
    box, stats = outbox(GossipConfig(max_queued_bytes=4500))
    messages = [message(3, number, data=bytes(1000)) for number in range(4)]
    for sent in messages[:3]:
        box.message(A, sent.id, sent)
    box.cancel(A, messages[0].id)
    box.message(A, messages[3].id, messages[3])
    assert box.flush() == [Send(A, Rpc(publish=tuple(messages[1:])))]
    assert stats.queue_full == 0


def test_what_does_not_fit_into_a_frame_is_split() -> None:
    box, _ = outbox()
    messages = [message(3, number, data=bytes(200_000)) for number in range(10)]
    for sent in messages:
        box.message(A, sent.id, sent)
        box.message(B, sent.id, sent)
    haves = [IHave(str(number), tuple(bytes([n % 256]) * 46 for n in range(5000))) for number in range(4)]
    for have in haves:
        box.ihave(A, have)
    wants = tuple(number.to_bytes(MAX_ID_BYTES, "big") for number in range(5000))
    box.iwant(A, wants)
    box.graft(A, "t")
    sends = box.flush()
    for to in (A, B):
        rpcs = [send.message for send in sends if send.to == to]
        assert all(isinstance(rpc, Rpc) and len(encode(rpc)) <= MAX_RPC_BYTES for rpc in rpcs)
        assert [m for rpc in rpcs if isinstance(rpc, Rpc) for m in rpc.publish] == messages
    to_a = [send.message for send in sends if send.to == A]
    assert [have for rpc in to_a if isinstance(rpc, Rpc) for have in rpc.ihave] == haves
    assert tuple(i for rpc in to_a if isinstance(rpc, Rpc) for i in rpc.iwant) == wants
    assert sum(len(rpc.graft) for rpc in to_a if isinstance(rpc, Rpc)) == 1
