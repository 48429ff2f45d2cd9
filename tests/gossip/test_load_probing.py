"""Probing: providers say how loaded they are now, once to each question, and nobody makes them sign without end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.engine import PeerDown, Received, Send, Tick, Undeliverable
from swarmp2p.gossip.doubts import OWN_ONLY
from swarmp2p.gossip.events import GossipMessage
from swarmp2p.gossip.load import (
    LOAD_TOPIC,
    AskLoads,
    LoadBoard,
    LoadConfig,
    LoadSignal,
    LoadsReply,
    LoadsRequest,
    LoadTold,
    LoadUpdated,
    SetLoad,
    SnapshotConfig,
    decode_signal,
    encode_signal,
)
from swarmp2p.gossip.load_probing import MAX_PROBED
from swarmp2p.gossip.messages import BareMessages
from swarmp2p.identity import PeerId

from .network import TRUE_SIGNATURE, peer_id, stub_verify

A, B, C = peer_id(1), peer_id(2), peer_id(3)
CONFIG = LoadConfig(snapshots=SnapshotConfig(ask_peers=0))


class Signer:
    """Counts."""

    def __init__(self) -> None:
        self.signed = 0

    def __call__(self, _data: bytes) -> bytes:
        self.signed += 1
        return TRUE_SIGNATURE


def board(signer: Signer | None = None) -> LoadBoard:
    return LoadBoard(peer_id(0), signer or Signer(), stub_verify, Random(0), CONFIG, BareMessages())


def message(
    source: PeerId, in_flight: int, sequence: int, expires: float = 90.0, signature: bytes = TRUE_SIGNATURE
) -> GossipMessage:
    data = encode_signal(LoadSignal(in_flight=in_flight, sequence=sequence, expires=expires))
    return GossipMessage(source, sequence.to_bytes(8, "big"), LOAD_TOPIC, data, signature)


def asked(node: LoadBoard, *providers: PeerId, now: float = 10.0, query: int = 7) -> list[LoadsRequest]:
    out = node.handle(AskLoads(query, providers, 0.5), now)
    requests: list[LoadsRequest] = []
    for output, provider in zip(out, providers, strict=True):
        assert isinstance(output, Send)
        assert output.to == provider
        assert isinstance(output.message, LoadsRequest)
        assert output.message.most == OWN_ONLY
        requests.append(output.message)
    return requests


# Asking -----------------------------------------------------------------------------------------------------


def test_the_answer_is_told_to_the_query_that_asked() -> None:
    node = board()
    first, second = asked(node, A, B)
    told = node.handle(Received(B, LoadsReply(second.id, (message(B, 3, 5),))), 10.1)
    assert told == [LoadTold(7, B, decode_signal(message(B, 3, 5).data), True)]
    assert node.handle(Received(A, LoadsReply(first.id)), 10.2) == [LoadTold(7, A, None, True)]
    assert node.handle(Received(A, LoadsReply(first.id)), 10.2) == [], "once"
    assert node.deadline() == math.inf


def test_who_does_not_answer_in_time_is_given_up() -> None:
    node = board()
    (request,) = asked(node, A)
    assert node.deadline() == 10.5
    assert node.handle(Tick(), 10.4) == []
    assert node.handle(Tick(), 10.5) == [LoadTold(7, A)]
    assert node.handle(Received(A, LoadsReply(request.id, (message(A, 3, 5),))), 10.6) == []


@pytest.mark.parametrize(
    "event", [PeerDown(A), Undeliverable(A, "loads", (1,)), Undeliverable(A, "loads", (1, 1))]
)
def test_who_cannot_answer_is_given_up_at_once(event: Any) -> None:
    node = board()
    asked(node, A, B)
    assert node.handle(event, 10.1) == [LoadTold(7, A)]
    assert node.handle(event, 10.1) == []


def test_each_provider_is_asked_once_and_only_so_many() -> None:
    node = board()
    assert len(node.handle(AskLoads(1, (A, A, B, A), 0.5), 10.0)) == 2
    many = tuple(peer_id(number) for number in range(10, 10 + MAX_PROBED))
    out = node.handle(AskLoads(2, many, 0.5), 10.0)
    assert Counter(type(output) for output in out) == {Send: MAX_PROBED - 2, LoadTold: 2}
    assert [output for output in out if isinstance(output, LoadTold)] == [
        LoadTold(2, each) for each in many[-2:]
    ]


def test_answers_of_others_are_none() -> None:
    node = board()
    (request,) = asked(node, A)
    assert node.handle(Received(B, LoadsReply(request.id, (message(B, 3, 5),))), 10.1) == []
    told = node.handle(Received(A, LoadsReply(request.id, (message(B, 3, 5),))), 10.1)
    assert told == [LoadTold(7, A, None, True)], "another's signal says nothing about this one"


@pytest.mark.parametrize(
    "wrong",
    [message(A, 3, 5, signature=b"forged"), message(A, 3, 5, expires=1e6), message(A, 3, 5, expires=-0.0)],
)
def test_signals_that_prove_nothing_are_none(wrong: GossipMessage) -> None:
    node = board()
    (request,) = asked(node, A, now=100.0)
    assert node.handle(Received(A, LoadsReply(request.id, (wrong,))), 100.1) == [LoadTold(7, A, None, True)]
    assert A not in node.table


def test_the_table_takes_news_of_those_that_it_has() -> None:
    node = board()
    known = message(A, 1, 5)
    node.table.offer(A, decode_signal(known.data), 9.0, known)
    for sequence, in_flight in ((6, 4), (5, 9)):  # news; then what is older than the table, which decides
        (request,) = asked(node, A)
        out = node.handle(Received(A, LoadsReply(request.id, (message(A, in_flight, sequence),))), 10.1)
        newest = decode_signal(message(A, 4, 6).data)
        assert out[-1] == LoadTold(7, A, newest, True)
        assert out[:-1] == ([LoadUpdated(A, newest)] if sequence == 6 else [])
    entry = node.table.get(A)
    assert entry is not None
    assert entry.signal.in_flight == 4
    (request,) = asked(node, B)
    node.handle(Received(B, LoadsReply(request.id, (message(B, 2, 9),))), 10.1)
    assert B not in node.table, "nobody follows it: it would seem to fall silent"


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["answer", "down", "fail", "wait", "ask"])), max_size=30
    )
)
@settings(max_examples=100, deadline=None)
def test_every_provider_that_was_named_is_told_of_exactly_once(steps: Sequence[tuple[int, str]]) -> None:
    node, now, query = board(), 10.0, 0
    named: Counter[tuple[int, PeerId]] = Counter()
    told: Counter[tuple[int, PeerId]] = Counter()
    sent: dict[PeerId, int] = {}

    def take(outputs: Sequence[Any]) -> None:
        for output in outputs:
            if isinstance(output, LoadTold):
                told[output.query, output.provider] += 1
            elif isinstance(output, Send):
                sent[output.to] = output.message.id  # type: ignore[attr-defined] # pyright: ignore

    for number, what in steps:
        peer = peer_id(number)
        if what == "ask":
            query += 1
            named[query, peer] += 1
            named[query, C] += peer != C
            take(node.handle(AskLoads(query, (peer, C), 1.0), now))
        elif what == "answer":
            take(node.handle(Received(peer, LoadsReply(sent.get(peer, 99))), now))
        elif what == "down":
            take(node.handle(PeerDown(peer), now))
        elif what == "fail":
            take(node.handle(Undeliverable(peer, "loads", (sent.get(peer, 99),)), now))
        else:
            now += 0.4
            take(node.handle(Tick(), now))
    take(node.handle(Tick(), now + 2.0))
    assert told == named


# Answering --------------------------------------------------------------------------------------------------


def answer(node: LoadBoard, now: float, asker: PeerId = A) -> LoadSignal | None:
    (sent,) = node.handle(Received(asker, LoadsRequest(1, OWN_ONLY)), now)
    assert isinstance(sent, Send)
    assert isinstance(sent.message, LoadsReply)
    return decode_signal(sent.message.messages[0].data) if sent.message.messages else None


LOAD = LoadSignal(cpus_free=4, in_flight=1)


def test_the_answer_is_what_is_true_now_not_what_was_published() -> None:
    node = board()
    node.handle(SetLoad(LOAD), 10.0)
    published = answer(node, 10.0)
    assert published is not None
    assert published.in_flight == 1
    node.handle(SetLoad(replace(LOAD, in_flight=2)), 10.1)
    assert node.deadline() == pytest.approx(10.5), "signals are not sent that often"
    told = answer(node, 10.1)
    assert told is not None
    assert (told.in_flight, told.heartbeat_s) == (2, 5.0)
    assert told.sequence > published.sequence
    (again,) = node.handle(Tick(), 10.5)
    assert decode_signal(again.data).sequence > told.sequence  # type: ignore[union-attr] # pyright: ignore
    node.handle(SetLoad(None), 10.6)
    assert answer(node, 10.6) is None, "it is no provider any more"


def test_many_askers_have_it_sign_no_more_than_twenty_times_a_second() -> None:
    signer = Signer()
    node = board(signer)
    for step in range(1000):  # a second, its load changing all the time
        now = 10.0 + step / 1000
        node.handle(SetLoad(replace(LOAD, in_flight=step)), now)
        told = answer(node, now, peer_id(100 + step))
        assert told is not None
        assert step - 51 <= told.in_flight <= step, "at most 50 ms old"
    assert 15 <= signer.signed <= 22


def test_an_answer_that_is_still_true_is_not_signed_again() -> None:
    signer = Signer()
    node = board(signer)
    node.handle(SetLoad(LOAD), 10.0)
    for number in range(50):
        assert answer(node, 10.0 + number / 20, peer_id(100 + number)) is not None
    assert signer.signed == 1


def test_one_asker_gets_so_many_answers_a_second() -> None:
    node = board()
    node.handle(SetLoad(LOAD), 10.0)
    answers = [answer(node, 10.0 + number / 1000) for number in range(50)]
    assert sum(each is not None for each in answers) == 20
    assert answer(node, 10.05, B) is not None, "another"
    assert answer(node, 10.1) is not None, "twenty a second"
    assert answer(node, 10.1) is None
