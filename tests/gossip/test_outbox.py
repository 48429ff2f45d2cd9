"""The outbox: one RPC a peer, control first, bounded."""

from __future__ import annotations

import math

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
        box.message((A,), sent.id, sent)
    box.subscriptions(A, ("t", "u"), True)
    box.ihave(A, IHave("t", (b"1",)))
    box.iwant(A, (b"2",))
    box.graft(A, "t")
    box.prune(A, "u", 59.1)
    assert box.stirred()
    assert box.flush(0.0) == [
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
    assert not box.stirred()
    assert box.flush(0.0) == []


def test_peers_with_control_come_first() -> None:
    box, _ = outbox()
    sent = message(3, 1)
    box.message((A,), sent.id, sent)
    box.graft(B, "t")
    assert [send.to for send in box.flush(0.0)] == [B, A]


def test_a_message_for_many_is_one_rpc_object() -> None:
    box, _ = outbox()
    sent = message(3, 1)
    box.message((A,), sent.id, sent)
    box.message((B,), sent.id, sent)
    one, other = box.flush(0.0)
    assert one.message is other.message


def test_the_last_word_on_a_topic_counts() -> None:
    box, _ = outbox()
    box.graft(A, "t")
    box.prune(A, "t", 10)
    box.prune(A, "u", 10)
    box.graft(A, "u")
    box.subscriptions(A, ("t",), True)
    box.subscriptions(A, ("t",), False)
    assert box.flush(0.0) == [
        Send(A, Rpc(subscriptions=(("t", False),), graft=("u",), prune=(Prune("t", 10),)))
    ]


def test_cancelled_and_forgotten_messages_do_not_leave() -> None:
    box, _ = outbox()
    first, second = message(3, 1), message(3, 2)
    for sent in (first, second):
        box.message((A,), sent.id, sent)
        box.message((B,), sent.id, sent)
    box.cancel(A, first.id)
    box.cancel(A, b"unknown")
    box.cancel(peer_id(9), first.id)
    box.graft(B, "t")
    box.forget(B)
    assert box.flush(0.0) == [Send(A, Rpc(publish=(second,)))]
    box.message((A,), first.id, first)
    box.cancel(A, first.id)
    assert box.flush(0.0) == []


def test_drops_beyond_its_bounds_are_counted() -> None:
    box, stats = outbox(GossipConfig(max_queued=3))
    messages = [message(3, number) for number in range(5)]
    for sent in messages:
        box.message((A,), sent.id, sent)
    assert box.flush(0.0) == [Send(A, Rpc(publish=tuple(messages[:3])))]
    assert stats.queue_full == 2
    box, stats = outbox(GossipConfig(max_queued_bytes=3000))
    messages = [message(3, number, data=bytes(1000)) for number in range(5)]
    for sent in messages:
        box.message((A,), sent.id, sent)
    assert box.flush(0.0) == [Send(A, Rpc(publish=tuple(messages[:2])))]
    assert stats.queue_full == 3


def test_cancelling_makes_room() -> None:
    box, stats = outbox(GossipConfig(max_queued_bytes=4500))
    messages = [message(3, number, data=bytes(1000)) for number in range(4)]
    for sent in messages[:3]:
        box.message((A,), sent.id, sent)
    box.cancel(A, messages[0].id)
    box.message((A,), messages[3].id, messages[3])
    assert box.flush(0.0) == [Send(A, Rpc(publish=tuple(messages[1:])))]
    assert stats.queue_full == 0


def test_what_does_not_fit_into_a_frame_is_split() -> None:
    box, _ = outbox()
    messages = [message(3, number, data=bytes(200_000)) for number in range(10)]
    for sent in messages:
        box.message((A,), sent.id, sent)
        box.message((B,), sent.id, sent)
    haves = [IHave(str(number), tuple(bytes([n % 256]) * 46 for n in range(5000))) for number in range(4)]
    for have in haves:
        box.ihave(A, have)
    wants = tuple(number.to_bytes(MAX_ID_BYTES, "big") for number in range(5000))
    box.iwant(A, wants)
    box.graft(A, "t")
    sends = box.flush(0.0)
    for to in (A, B):
        rpcs = [send.message for send in sends if send.to == to]
        assert all(isinstance(rpc, Rpc) and len(encode(rpc)) <= MAX_RPC_BYTES for rpc in rpcs)
        assert [m for rpc in rpcs if isinstance(rpc, Rpc) for m in rpc.publish] == messages
    to_a = [send.message for send in sends if send.to == A]
    assert [have for rpc in to_a if isinstance(rpc, Rpc) for have in rpc.ihave] == haves
    assert tuple(i for rpc in to_a if isinstance(rpc, Rpc) for i in rpc.iwant) == wants
    assert sum(len(rpc.graft) for rpc in to_a if isinstance(rpc, Rpc)) == 1


# Flush intervals --------------------------------------------------------------------------------------------


def test_what_is_for_nobody_wakes_nobody() -> None:
    box, _ = outbox()
    box.message((), message(3, 1).id, message(3, 1), 0.02)
    assert not box.stirred()
    assert box.flush(10.0) == []
    assert box.deadline() == math.inf


def test_what_may_wait_leaves_together() -> None:
    box, _ = outbox()
    first, second = message(3, 1), message(4, 1)
    box.message((A,), first.id, first, 0.02)
    assert box.flush(10.0) == []
    assert box.deadline() == 10.02
    box.message((A,), second.id, second, 0.02)
    box.message((B,), second.id, second, 0.02)
    assert box.flush(10.01) == []
    assert box.deadline() == 10.02, "counted from the first"
    assert box.flush(10.02) == [Send(A, Rpc(publish=(first, second))), Send(B, Rpc(publish=(second,)))]
    assert box.deadline() == math.inf


def test_what_is_urgent_takes_along_what_waits_for_the_same_peer() -> None:
    box, _ = outbox()
    patient, urgent = message(3, 1), message(4, 1)
    for peer in (A, B):
        box.message((peer,), patient.id, patient, 0.02)
    assert box.flush(10.0) == []
    box.message((A,), urgent.id, urgent)
    assert box.flush(10.0) == [Send(A, Rpc(publish=(patient, urgent)))]
    assert box.flush(10.02) == [Send(B, Rpc(publish=(patient,)))]


def test_control_takes_along_what_waits() -> None:
    box, _ = outbox()
    patient = message(3, 1)
    box.message((A,), patient.id, patient, 0.02)
    box.graft(A, "t")
    assert box.flush(10.0) == [Send(A, Rpc(publish=(patient,), graft=("t",)))]


def test_a_newer_message_takes_the_place_of_the_older() -> None:
    box, stats = outbox()
    signals = [message(source, number) for number in range(3) for source in (3, 4)]
    for sent in signals:
        box.message((A,), sent.id, sent, 0.02, ("t", sent.source))
    assert box.flush(0.0) == []
    assert box.flush(1.0) == [Send(A, Rpc(publish=tuple(signals[-2:])))]
    assert stats.superseded == 4
    box.message((A,), signals[0].id, signals[0], 0.0, ("t", signals[0].source))
    assert box.flush(2.0) == [Send(A, Rpc(publish=(signals[0],)))]


# Slow peers -------------------------------------------------------------------------------------------------


def test_what_is_for_a_congested_peer_waits_and_nobody_else() -> None:
    box, stats = outbox(GossipConfig(max_queued=3))
    box.hold(A)
    messages = [message(3, number) for number in range(5)]
    for sent in messages:
        box.message((A,), sent.id, sent)
        box.message((B,), sent.id, sent)
        assert box.flush(0.0) == [Send(B, Rpc(publish=(sent,)))]
    assert box.deadline() == math.inf, "nothing to do before the network has room"
    box.graft(A, "t")
    box.cancel(A, messages[0].id)
    assert box.flush(0.0) == []
    assert stats.queue_full == 2
    box.release(A, 5.0)
    assert box.deadline() <= 5.0
    assert box.flush(5.0) == [Send(A, Rpc(publish=tuple(messages[1:3]), graft=("t",)))]
    box.message((A,), messages[0].id, messages[0])
    assert box.flush(5.0) == [Send(A, Rpc(publish=(messages[0],)))]


def test_a_slow_peer_gets_the_newest_signals_alone() -> None:
    """However long it was slow: one of each source."""
    box, stats = outbox()
    box.hold(A)
    for number in range(500):
        for source in (3, 4):
            sent = message(source, number)
            box.message((A,), sent.id, sent, 0.02, ("t", sent.source))
        assert box.flush(number * 0.1) == []
    assert (box.queued, stats.superseded, stats.queue_full) == (2, 998, 0)
    box.release(A, 50.0)
    assert box.flush(50.0) == [Send(A, Rpc(publish=(message(3, 499), message(4, 499))))]


def test_what_waited_leaves_in_portions_control_first() -> None:
    box, _ = outbox()
    box.hold(A)
    messages = [message(3, number, data=bytes(30_000)) for number in range(10)]
    for sent in messages:
        box.message((A,), sent.id, sent)
    box.graft(A, "t")
    assert box.flush(0.0) == []
    box.release(A, 1.0)
    assert box.flush(1.0) == [Send(A, Rpc(publish=tuple(messages[:2]), graft=("t",)))]
    again = box.deadline()
    assert 1.0 < again < 1.1
    box.prune(A, "u", 10)
    box.hold(A)
    assert box.flush(again) == []
    box.release(A, 2.0)
    now, got = 2.0, list[Send]()
    while box.deadline() < math.inf:
        got += box.flush(now)
        now = box.deadline()
    rpcs = [send.message for send in got if isinstance(send.message, Rpc)]
    assert [sent for rpc in rpcs for sent in rpc.publish] == messages[2:]
    assert [len(rpc.prune) for rpc in rpcs] == [1, 0, 0, 0]


def test_a_peer_for_whom_nothing_waited_is_slow_no_more() -> None:
    box, _ = outbox()
    box.hold(A)
    box.release(A, 1.0)
    assert box.sizes()["slow"] == 0
    assert box.deadline() == math.inf


def test_a_peer_that_leaves_takes_its_queue_along() -> None:
    box, stats = outbox()
    box.hold(A)
    box.message((A,), message(3, 1).id, message(3, 1))
    box.forget(A)
    assert stats.peer_gone == 1
    box.message((A,), message(3, 2).id, message(3, 2))
    assert box.flush(0.0) == [Send(A, Rpc(publish=(message(3, 2),)))], "a new connection is not congested"


def test_a_graft_that_waits_can_be_taken_back() -> None:
    box, _ = outbox()
    box.graft(A, "t")
    box.take_back_graft(A, "u")
    box.take_back_graft(A, "t")
    box.take_back_graft(B, "t")
    assert box.flush(0.0) == []
    box.graft(A, "t")
    box.graft(A, "u")
    box.take_back_graft(A, "t")
    assert box.flush(0.0) == [Send(A, Rpc(graft=("u",)))]
