"""Snapshots on the wire."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.errors import BadMessage
from swarmp2p.gossip.events import GossipMessage
from swarmp2p.gossip.load_wire import (
    MAX_REPLY_BYTES,
    MAX_SNAPSHOT,
    LoadsReply,
    LoadsRequest,
    decode_reply,
    decode_request,
    encode,
    loads_protocol,
)
from swarmp2p.gossip.wire import verify_message
from swarmp2p.identity import verify
from swarmp2p.wire import Exchange, Framing

from .network import peer_id
from .strategies import signed_messages

SENDER = peer_id(1)


def test_protocol() -> None:
    protocol = loads_protocol()
    assert protocol.name == LoadsRequest.protocol == LoadsReply.protocol
    assert protocol.ids == ("/swarm/loads/1.0.0",)
    assert (protocol.exchange, protocol.framing) == (Exchange.REQUESTS, Framing.U32)
    assert protocol.decode(SENDER, protocol.encode(LoadsRequest(5, 100)), 9) == LoadsRequest(9, 100)
    assert protocol.decode_reply is not None
    assert protocol.decode_reply(SENDER, protocol.encode(LoadsReply(5)), 9) == LoadsReply(9)


@given(st.lists(signed_messages(), max_size=4).map(tuple))
@settings(max_examples=50, deadline=None)
def test_messages_come_as_they_were_signed(messages: tuple[GossipMessage, ...]) -> None:
    reply = decode_reply(SENDER, encode(LoadsReply(1, messages)), 2)
    assert reply == LoadsReply(2, messages)
    assert all(verify_message(each, verify) for each in reply.messages)


@given(st.binary(max_size=100))
@settings(max_examples=300, deadline=None)
def test_any_bytes_decode_or_are_bad(body: bytes) -> None:
    for decode in (decode_request, decode_reply):
        try:
            assert decode(SENDER, body, 3).id == 3
        except BadMessage:
            pass


def test_more_is_not_asked_for_than_is_given() -> None:
    assert decode_request(SENDER, encode(LoadsRequest(1, 1 << 40)), 1).most == MAX_SNAPSHOT


@pytest.mark.parametrize("value", [-1, True, "5", None, 1.5])
def test_bad_requests(value: object) -> None:
    packed: Any = msgpack.packb({"max": value})
    with pytest.raises(BadMessage):
        decode_request(SENDER, packed, 1)


@pytest.mark.parametrize(
    "value",
    [{}, [1], ["text"], [b"\x0a\xff"], [b""] * (MAX_SNAPSHOT + 1), [[[[]]]], b"\0" * (MAX_REPLY_BYTES + 1)],
    ids=["map", "number", "text", "no message", "too many", "nested", "too long"],
)
def test_bad_replies(value: object) -> None:
    packed: Any = msgpack.packb(value)
    with pytest.raises(BadMessage):
        decode_reply(SENDER, packed, 1)
