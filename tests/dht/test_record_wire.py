from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.dht.messages import FoundRecord, GetRecord, Ping
from swarmp2p.dht.record_wire import decode, decode_reply, encode
from swarmp2p.dht.wire import record_protocol
from swarmp2p.engine import Message
from swarmp2p.errors import BadMessage
from swarmp2p.signed import pack_map
from swarmp2p.wire import Exchange, Framing

from .network import peer_id

SENDER = peer_id(1)


def test_the_protocol_is_ours() -> None:
    protocol = record_protocol()
    assert (protocol.name, protocol.ids) == ("record", ("/swarm/record/1.0.0",))
    assert (protocol.exchange, protocol.framing) == (Exchange.REQUESTS, Framing.U32)


@pytest.mark.parametrize("service", ["ray-worker", "ß" * 32])
def test_questions_and_answers_survive_the_wire(service: str) -> None:
    assert decode(SENDER, encode(GetRecord(3, service)), 3) == GetRecord(3, service)
    for envelope in (b"", b"x" * 511):
        assert decode_reply(SENDER, encode(FoundRecord(3, envelope)), 3) == FoundRecord(3, envelope)


def test_the_largest_messages_fit_into_a_frame() -> None:
    limit = record_protocol().max_frame_bytes
    assert len(encode(FoundRecord(3, b"x" * 511))) <= limit
    assert len(encode(GetRecord(3, "x" * 64))) <= limit


@pytest.mark.parametrize(
    "fields", [{}, {"service": 3}, {"service": ""}, {"service": "x" * 65}, {"record": b""}]
)
def test_other_questions_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(BadMessage):
        decode(SENDER, pack_map(fields), 1)


@pytest.mark.parametrize("fields", [{}, {"record": "text"}, {"record": b"x" * 512}, {"service": "svc"}])
def test_other_answers_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(BadMessage):
        decode_reply(SENDER, pack_map(fields), 1)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=1100))
def test_no_bytes_raise_anything_but_bad_message(body: bytes) -> None:
    for take in (decode, decode_reply):
        try:
            assert isinstance(take(SENDER, body, 1), Message)
        except BadMessage:
            pass


def test_what_is_no_message_of_it_is_our_own_mistake() -> None:
    with pytest.raises(TypeError, match="Ping"):
        encode(Ping(1))
