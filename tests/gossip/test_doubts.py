"""A silent provider is asked before it is suspected, and a node that was itself away accuses nobody."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from swarmp2p.engine import PeerDown, PeerUp, Received, Send, Tick, Undeliverable
from swarmp2p.errors import UsageError
from swarmp2p.gossip.doubts import OWN_ONLY, ConfirmConfig
from swarmp2p.gossip.events import Delivered
from swarmp2p.gossip.load import (
    LOAD_TOPIC,
    LoadBoard,
    LoadConfig,
    LoadsReply,
    LoadsRequest,
    LoadSuspected,
    LoadUpdated,
    PublishLoad,
    SnapshotConfig,
    TableConfig,
    encode_signal,
)
from swarmp2p.gossip.load_signal import LoadSignal
from swarmp2p.gossip.messages import BareMessages
from swarmp2p.gossip.suspicion import SuspicionConfig
from swarmp2p.transport.sim import random_for
from swarmp2p.transport.sim_peers import sim_sign, sim_verify

from .network import peer_id

A, B = peer_id(1), peer_id(2)


def board(config: LoadConfig | None = None) -> LoadBoard:
    own, rng = peer_id(0), random_for(1, "board")
    return LoadBoard(
        own,
        sim_sign(own),
        sim_verify,
        rng,
        config or LoadConfig(snapshots=SnapshotConfig(ask_peers=0)),
        BareMessages(),
    )


def signal(provider: Any, sequence: int) -> Delivered:
    data = encode_signal(LoadSignal(sequence=sequence, expires=90.0, heartbeat_s=1.0))
    message = BareMessages().make(provider, LOAD_TOPIC, data, sequence.to_bytes(8, "big"), sim_sign(provider))
    return Delivered(message, provider)


def following(providers: Sequence[Any], node: LoadBoard | None = None) -> LoadBoard:
    """A node that has heard of these until second 4."""
    node = node or board()
    for second in range(5):
        while node.deadline() <= second:
            assert node.handle(Tick(), node.deadline()) == []
        for provider in providers:
            node.handle(signal(provider, second), float(second))
    return node


def tick(node: LoadBoard) -> tuple[float, Any]:
    """Run to the next deadline that brings something, Tick by Tick."""
    for _ in range(50):
        now = node.deadline()
        out = node.handle(Tick(), now)
        assert node.deadline() > now
        if out:
            return now, out
    raise AssertionError("nothing happens")


def test_who_is_connected_is_asked_first_and_suspected_when_it_does_not_answer() -> None:
    node = following([A])
    node.handle(PeerUp(A), 4.5)
    now, out = tick(node)
    assert (round(now, 2), out) == (6.56, [Send(A, LoadsRequest(1, OWN_ONLY))])
    assert node.table.advance(now) == []
    now, out = tick(node)
    assert (round(now, 2), out) == (7.56, [LoadSuspected(A)])


def test_who_is_not_connected_is_not_dialled() -> None:
    _, out = tick(following([A]))
    assert out == [LoadSuspected(A)]


def test_an_answer_clears_the_doubt_and_brings_the_newest_signal() -> None:
    node = following([A])
    node.handle(PeerUp(A), 4.5)
    now, out = tick(node)
    assert node.handle(Received(A, LoadsReply(1, (signal(A, 9).message,))), now + 0.5) == [
        LoadUpdated(A, LoadSignal(sequence=9, expires=90.0, heartbeat_s=1.0))
    ]
    assert node.doubts.confirmed == 1
    later, out = tick(node)
    assert later == pytest.approx(now + 0.5 + 2.56, abs=1.0), "silence counts from the answer on"
    assert out == [Send(A, LoadsRequest(2, OWN_ONLY))]


def test_an_empty_answer_is_one_too() -> None:
    """Earlier versions give it."""
    node = following([A])
    node.handle(PeerUp(A), 4.5)
    now, _ = tick(node)
    assert node.handle(Received(A, LoadsReply(1)), now + 0.5) == []
    assert tick(node)[1] == [Send(A, LoadsRequest(2, OWN_ONLY))]


def test_answers_of_others_and_to_nothing_clear_no_doubt() -> None:
    node = following([A])
    node.handle(PeerUp(A), 4.5)
    now, _ = tick(node)
    node.handle(Received(B, LoadsReply(1)), now + 0.1)
    node.handle(Received(A, LoadsReply(7)), now + 0.2)
    assert tick(node)[1] == [LoadSuspected(A)]


@pytest.mark.parametrize("event", [PeerDown(A), Undeliverable(A, "loads", (1,))])
def test_a_question_that_cannot_be_answered_ends_at_once(event: Any) -> None:
    node = following([A])
    node.handle(PeerUp(A), 4.5)
    now, _ = tick(node)
    assert node.handle(event, now + 0.1) == [LoadSuspected(A)]
    assert node.handle(event, now + 0.2) == []


def test_a_signal_that_comes_meanwhile_clears_the_doubt() -> None:
    node = following([A])
    node.handle(PeerUp(A), 4.5)
    now, _ = tick(node)
    assert len(node.doubts) == 1
    node.handle(signal(A, 9), now + 0.9)
    assert len(node.doubts) == 0
    assert tick(node)[0] > now + 3.0


def test_so_many_are_asked_at_a_time_and_others_suspected_unasked() -> None:
    providers = [peer_id(number) for number in range(1, 6)]
    node = following(
        providers,
        board(LoadConfig(snapshots=SnapshotConfig(ask_peers=0), confirm=ConfirmConfig(max_asked=2))),
    )
    for provider in providers:
        node.handle(PeerUp(provider), 4.5)
    out: list[Any] = []
    while len(out) < 5:
        out += tick(node)[1]
    assert [type(output) for output in out[:5]] == [Send, Send, LoadSuspected, LoadSuspected, LoadSuspected]


def test_who_was_away_reads_what_waits_before_it_accuses() -> None:
    """Its Tick comes first when it goes on after 6 s, and then the signals of that time."""
    node = following([A, B])
    assert node.handle(Tick(), 10.0) == []
    assert node.deadline() > 10.0
    for second in range(5, 11):
        node.handle(signal(A, second), 10.0)
    suspected: list[Any] = []
    for second in range(11, 20):
        while node.deadline() <= second:
            suspected += node.handle(Tick(), node.deadline())
        node.handle(signal(A, second), float(second))
    assert suspected == [LoadSuspected(B)], "which is really gone"
    assert node.doubts.health.patience(15.0) == pytest.approx(1.5)


def test_a_fixed_time_out_accuses_everybody() -> None:
    """What the comparison compares with."""
    table = TableConfig(suspicion=SuspicionConfig(fixed_s=2.5))
    node = following(
        [A, B],
        board(
            LoadConfig(snapshots=SnapshotConfig(ask_peers=0), table=table, confirm=ConfirmConfig(max_asked=0))
        ),
    )
    assert set(map(str, node.handle(Tick(), 10.0))) == {str(LoadSuspected(A)), str(LoadSuspected(B))}


def test_who_is_asked_whether_it_lives_answers_with_its_own_signal_every_time() -> None:
    node = following([A])
    node.handle(PublishLoad(LoadSignal(in_flight=3)), 5.0)
    for request in range(3):
        (sent,) = node.handle(Received(B, LoadsRequest(request, OWN_ONLY)), 5.0)
        assert isinstance(sent, Send)
        assert isinstance(sent.message, LoadsReply)
        (message,) = sent.message.messages
        assert message.source == peer_id(0)
    (sent,) = board().handle(Received(B, LoadsRequest(1, OWN_ONLY)), 5.0)
    assert sent == Send(B, LoadsReply(1)), "a node that is no provider has none"


def test_an_idle_board_wants_no_tick() -> None:
    assert board().deadline() == math.inf


@pytest.mark.parametrize("values", [{"within_s": 0.0}, {"max_asked": -1}])
def test_settings_that_make_no_sense_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="ConfirmConfig"):
        ConfirmConfig(**values)
