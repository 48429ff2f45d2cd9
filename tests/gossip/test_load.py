"""The load board: publishing, keeping the table, snapshots for newcomers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from swarmp2p.engine import Engine, NetworkEvent, NetworkOutput, PeerDown, PeerUp, Received, Send, Tick
from swarmp2p.gossip.events import Delivered, GossipMessage, Publish, Subscribe
from swarmp2p.gossip.load import (
    LOAD_TOPIC,
    LoadBoard,
    LoadConfig,
    LoadSignal,
    LoadsReply,
    LoadsRequest,
    LoadSuspected,
    LoadUpdated,
    PublishLoad,
    SnapshotConfig,
    decode_signal,
    encode_signal,
)
from swarmp2p.gossip.load_table import TableConfig
from swarmp2p.gossip.load_wire import MAX_REPLY_BYTES, decode_reply, encode
from swarmp2p.gossip.messages import BareMessages, Rpc
from swarmp2p.gossip.router import GossipRouter
from swarmp2p.identity import Identity, PeerId, verify

from .network import TRUE_SIGNATURE, Net, peer_id, random_links, router, stub_sign, stub_verify

SIGNAL = LoadSignal(cpus_free=4, kind="workstation")


def board(number: int = 0, config: LoadConfig | None = None) -> LoadBoard:
    return LoadBoard(peer_id(number), stub_sign, stub_verify, Random(number), config, BareMessages())


def load_message(
    source: int,
    sequence: int,
    expires: float = 60.0,
    topic: str = LOAD_TOPIC,
    signature: bytes = TRUE_SIGNATURE,
) -> GossipMessage:
    data = encode_signal(replace(SIGNAL, sequence=sequence, expires=expires))
    return GossipMessage(peer_id(source), sequence.to_bytes(8, "big"), topic, data, signature)


def delivered(source: int, sequence: int, expires: float = 60.0) -> Delivered:
    return Delivered(load_message(source, sequence, expires), peer_id(77))


# Publishing -------------------------------------------------------------------------------------------------


def test_publishing_numbers_and_dates_the_signal() -> None:
    node = board()
    (first,) = node.handle(PublishLoad(SIGNAL), 1_700_000_000.0)
    (second,) = node.handle(PublishLoad(SIGNAL), 1_700_000_000.0)
    assert isinstance(first, Publish)
    assert isinstance(second, Publish)
    assert first.topic == LOAD_TOPIC == "swarm/load/1"
    signals = [decode_signal(published.data) for published in (first, second)]
    assert signals[0] == replace(SIGNAL, sequence=signals[0].sequence, expires=1_700_000_060.0)
    assert signals[1].sequence == signals[0].sequence + 1
    restarted = board()
    (third,) = restarted.handle(PublishLoad(SIGNAL), 1_700_000_001.0)
    assert isinstance(third, Publish)
    assert decode_signal(third.data).sequence > signals[1].sequence


def test_a_signal_that_cannot_be_encoded_is_dropped() -> None:
    assert board().handle(PublishLoad(replace(SIGNAL, region="\ud800")), 0.0) == []


# The table --------------------------------------------------------------------------------------------------


def test_delivered_signals_enter_the_table() -> None:
    node = board()
    (updated,) = node.handle(delivered(1, 5), 1.0)
    assert isinstance(updated, LoadUpdated)
    assert (updated.provider, updated.signal.sequence) == (peer_id(1), 5)
    assert node.handle(delivered(1, 4), 2.0) == []
    assert [entry.provider for entry in node.table] == [peer_id(1)]
    assert node.stats.stale == 1


@pytest.mark.parametrize(
    "message",
    [
        GossipMessage(peer_id(1), bytes(8), LOAD_TOPIC, b"no signal"),
        GossipMessage(peer_id(1), bytes(8), LOAD_TOPIC, load_message(1, 1).data, raw=bytes(2000)),
        load_message(1, 1, topic="other"),
        load_message(0, 1),
    ],
    ids=["malformed", "too long to keep", "other topic", "own"],
)
def test_what_is_no_signal_of_another_is_ignored(message: GossipMessage) -> None:
    node = board()
    assert node.handle(Delivered(message, peer_id(77)), 1.0) == []
    assert len(node.table) == 0


def test_silent_providers_are_suspected_in_time() -> None:
    node = board()
    for second in range(4):
        node.handle(delivered(1, second, expires=100.0), float(second))
    found: list[Any] = []
    now = 0.0
    while now < 8.5:
        now = max(node.deadline(), now)
        found.extend((round(now, 2), output) for output in node.handle(Tick(), now))
        assert node.deadline() > now
    # A second of interval and one of pause, and 5.6 deviations of half an interval, since it promised nothing.
    assert found == [(3 + 4.81, LoadSuspected(peer_id(1)))]


# Snapshots --------------------------------------------------------------------------------------------------


def test_a_newcomer_asks_one_at_a_time() -> None:
    node = board()
    assert node.handle(PeerUp(peer_id(1)), 0.0) == [Send(peer_id(1), LoadsRequest(1))]
    for number in range(2, 7):
        assert node.handle(PeerUp(peer_id(number)), 0.0) == []
    reply = LoadsReply(1, (load_message(50, 1),))
    updated, asked = node.handle(Received(peer_id(1), reply), 0.1)
    assert isinstance(updated, LoadUpdated)
    assert asked == Send(peer_id(2), LoadsRequest(2))
    assert node.handle(PeerDown(peer_id(2)), 0.2) == [Send(peer_id(3), LoadsRequest(3))]
    assert node.deadline() == 5.2
    assert node.handle(Tick(), 5.2) == [Send(peer_id(4), LoadsRequest(4))]
    assert node.handle(Received(peer_id(4), LoadsReply(4)), 5.3) == [Send(peer_id(5), LoadsRequest(5))]
    node.handle(Received(peer_id(5), LoadsReply(5, (load_message(51, 1),))), 5.4)
    assert node.handle(Received(peer_id(6), LoadsReply(6, (load_message(52, 1),))), 5.5)
    assert node.handle(PeerUp(peer_id(8)), 6.0) == [], "three have answered"
    assert len(node.table) == 3


def test_nobody_is_asked_for_ever() -> None:
    node = board(config=LoadConfig(snapshots=SnapshotConfig(max_asks=4)))
    asked = 0
    for number in range(1, 20):
        asked += len(node.handle(PeerUp(peer_id(number)), 0.0))
        asked += len(node.handle(Received(peer_id(number), LoadsReply(asked)), 0.0))
    assert asked == 4


def test_a_node_without_interest_does_not_ask() -> None:
    assert (
        board(config=LoadConfig(snapshots=SnapshotConfig(ask_peers=0))).handle(PeerUp(peer_id(1)), 0.0) == []
    )


def test_snapshots_hold_the_newest_messages_and_ones_own() -> None:
    node = board()
    node.handle(delivered(1, 1), 0.0)
    node.handle(delivered(1, 2), 0.0)
    node.handle(delivered(2, 1), 0.0)
    node.handle(PublishLoad(SIGNAL), 0.0)
    (sent,) = node.handle(Received(peer_id(9), LoadsRequest(7)), 1.0)
    assert isinstance(sent, Send)
    assert isinstance(sent.message, LoadsReply)
    assert (sent.to, sent.message.id) == (peer_id(9), 7)
    own, *others = sent.message.messages
    assert (own.source, decode_signal(own.data).cpus_free) == (peer_id(0), 4)
    assert others == [load_message(1, 2), load_message(2, 1)]


def test_asking_often_gets_nothing() -> None:
    node = board()
    node.handle(delivered(1, 1), 0.0)
    counts: list[int] = []
    for now in (0.0, 1.0, 4.9, 5.0):
        (sent,) = node.handle(Received(peer_id(9), LoadsRequest(1)), now)
        assert isinstance(sent, Send)
        assert isinstance(sent.message, LoadsReply)
        counts.append(len(sent.message.messages))
    assert counts == [1, 0, 0, 1]


def test_large_tables_are_sampled() -> None:
    node = board(config=LoadConfig(table=TableConfig(max_providers=5000)))
    for number in range(1, 4501):
        message = replace(load_message(number, 1), raw=bytes(1000))
        node.handle(Delivered(message, peer_id(77)), 0.0)
    (sent,) = node.handle(Received(peer_id(9), LoadsRequest(1, 100)), 1.0)
    assert isinstance(sent, Send)
    assert isinstance(sent.message, LoadsReply)
    assert len({message.source for message in sent.message.messages}) == 100
    (sent,) = node.handle(Received(peer_id(10), LoadsRequest(1)), 1.0)
    assert isinstance(sent, Send)
    assert len(encode(sent.message)) <= MAX_REPLY_BYTES


def test_forged_signals_in_a_snapshot_are_dropped() -> None:
    node = board()
    node.handle(PeerUp(peer_id(1)), 0.0)
    reply = LoadsReply(
        1,
        (
            load_message(50, 1, signature=b"false"),
            load_message(51, 1, topic="other"),
            load_message(52, 1, expires=0.0),
            load_message(53, 1),
        ),
    )
    node.handle(Received(peer_id(1), reply), 31.0)
    assert [entry.provider for entry in node.table] == [peer_id(53)]
    assert (node.stats.forged, node.stats.malformed, node.stats.stale) == (1, 1, 1)


def test_replies_that_nobody_asked_for_are_ignored() -> None:
    node = board()
    node.handle(PeerUp(peer_id(1)), 0.0)
    for sender, request in ((1, 99), (2, 1)):
        node.handle(Received(peer_id(sender), LoadsReply(request, (load_message(50, 1),))), 0.0)
    assert len(node.table) == 0
    assert node.stats.unasked == 2


def test_a_large_snapshot_is_verified_bit_by_bit() -> None:
    node = board(config=LoadConfig(verify_batch=100))
    node.handle(PeerUp(peer_id(1)), 0.0)
    reply = LoadsReply(1, tuple(load_message(number, 1) for number in range(100, 450)))
    now, steps = 0.0, [len(node.handle(Received(peer_id(1), reply), 0.0))]
    while node.deadline() < 1.0:
        now = node.deadline()
        steps.append(len(node.handle(Tick(), now)))
    assert steps == [100, 100, 100, 50]
    assert len(node.table) == 350


# Boards and routers together --------------------------------------------------------------------------------


class LoadNode(Engine[Any, Any]):
    """A router and a board, wired as a node does it."""

    def __init__(self, gossip: GossipRouter, loads: LoadBoard) -> None:
        self.gossip, self.loads = gossip, loads

    def handle(self, event: NetworkEvent | Any, now: float) -> Sequence[NetworkOutput | Any]:
        out: list[Any] = []
        if isinstance(event, PublishLoad | PeerUp | PeerDown | Received | Tick):
            for output in self.loads.handle(event, now):
                out.extend(self.gossip.handle(output, now) if isinstance(output, Publish) else [output])
        if not isinstance(event, PublishLoad):
            for result in self.gossip.handle(event, now):
                out.extend(self.loads.handle(result, now) if isinstance(result, Delivered) else [result])
        return out

    def deadline(self) -> float:
        return min(self.gossip.deadline(), self.loads.deadline())


def load_net(count: int) -> Net:
    net = Net()
    for number in range(count):
        net.add(peer_id(number), LoadNode(router(number), board(number)))
        net.handle(peer_id(number), Subscribe(LOAD_TOPIC))
    for one, other in random_links(count, 6, Random(1)):
        net.connect(peer_id(one), peer_id(other))
    net.run(3.0)
    return net


def view(net: Net, number: int) -> dict[PeerId, LoadSignal]:
    engine = net.engines[peer_id(number)]
    assert isinstance(engine, LoadNode)
    return {entry.provider: entry.signal for entry in engine.loads.table}


def test_everybody_sees_everybody() -> None:
    net = load_net(15)
    for round_ in range(3):
        for number in range(15):
            net.post(peer_id(number), PublishLoad(replace(SIGNAL, in_flight=round_)), net.now + number / 20)
        net.run(net.now + 2.0)
    for number in range(15):
        seen = view(net, number)
        assert set(seen) == {peer_id(other) for other in range(15) if other != number}
        assert all(signal.in_flight == 2 for signal in seen.values())


def test_a_newcomer_sees_all_after_one_round_trip() -> None:
    net = load_net(15)
    for number in range(15):
        net.handle(peer_id(number), PublishLoad(SIGNAL))
    net.run(net.now + 2.0)
    newcomer = LoadNode(router(99), board(99))
    net.add(peer_id(99), newcomer)
    net.connect(peer_id(99), peer_id(0))
    net.run(net.now + 2 * net.delay_s)
    assert set(view(net, 99)) == {peer_id(number) for number in range(15)}


def test_a_crash_is_suspected_by_all() -> None:
    net = load_net(10)
    for second in range(5):
        for number in range(10):
            net.post(peer_id(number), PublishLoad(SIGNAL), net.now + second)
    net.run(net.now + 4.5)
    crashed = peer_id(3)
    for other in list(net.links[crashed]):
        net.disconnect(crashed, other)
    net.engines[crashed] = board(3)
    for second in range(1, 7):
        for number in range(10):
            if number != 3:
                net.post(peer_id(number), PublishLoad(SIGNAL), net.now + second)
    net.run(net.now + 6.0)
    for number in range(10):
        suspected = [o.provider for o in net.outputs[peer_id(number)] if isinstance(o, LoadSuspected)]
        assert suspected == ([crashed] if number != 3 else [])


def test_snapshots_over_the_wire_keep_real_signatures() -> None:
    provider, relay, newcomer = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
    boards = [LoadBoard(i.peer_id, i.sign, verify, Random(0)) for i in (provider, relay, newcomer)]
    (published,) = boards[0].handle(PublishLoad(SIGNAL), 0.0)
    assert isinstance(published, Publish)
    gossip = GossipRouter(provider.peer_id, provider.sign, verify, Random(0))
    gossip.handle(PeerUp(relay.peer_id), 0.0)
    gossip.handle(Received(relay.peer_id, Rpc(subscriptions=((LOAD_TOPIC, True),))), 0.0)
    assert gossip.handle(published, 0.0) == [], "signals wait for others a little"
    assert gossip.deadline() == pytest.approx(0.02)
    (send,) = gossip.handle(Tick(), gossip.deadline())
    assert isinstance(send, Send)
    assert isinstance(send.message, Rpc)
    boards[1].handle(Delivered(send.message.publish[0], provider.peer_id), 0.0)
    boards[1].handle(PublishLoad(replace(SIGNAL, cpus_free=1)), 0.0)
    (reply,) = boards[1].handle(Received(newcomer.peer_id, LoadsRequest(4)), 0.0)
    assert isinstance(reply, Send)
    boards[2].handle(PeerUp(relay.peer_id), 0.0)
    boards[2].handle(Received(relay.peer_id, decode_reply(relay.peer_id, encode(reply.message), 1)), 0.0)
    assert {entry.provider for entry in boards[2].table} == {provider.peer_id, relay.peer_id}
    assert boards[2].stats.forged == 0


def test_an_idle_board_wants_no_tick() -> None:
    assert board().deadline() == math.inf
