"""Lease messages on the wire: encode and decode are inverse, and no bytes do more than raise BadMessage."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.errors import BadMessage
from swarmp2p.ray_bridge.events import Need, Versions
from swarmp2p.ray_bridge.messages import (
    MAX_COUNT,
    MAX_ENVELOPE_BYTES,
    MAX_GRANT_BYTES,
    MAX_GRANTS,
    MAX_LABELS,
    MAX_LEASE_S,
    MAX_MEMORY_BYTES,
    MAX_NAME_CHARS,
    MAX_NOTICE_S,
    MAX_POSITION,
    MAX_QUEUE_S,
    MAX_REASON_CHARS,
    MAX_RETRY_S,
    MAX_SEQUENCE,
    MIN_LEASE_S,
    MIN_QUEUE_S,
    Agreement,
    AnyLeaseMessage,
    Challenge,
    LeaseRequest,
    Notice,
    Proof,
    Queued,
    Refuse,
    Release,
    Renew,
    Renewed,
    Started,
    tidy,
)
from swarmp2p.ray_bridge.wire import MAX_FRAME_BYTES, encode, lease_protocol, read_message
from swarmp2p.signed import pack
from swarmp2p.wire import Exchange, Framing

from .keys import lease_id, peer, request

LEASES = st.binary(min_size=16, max_size=16)
PRINTABLE = st.characters().filter(str.isprintable)
NAMES = st.text(PRINTABLE, max_size=MAX_NAME_CHARS)
REASONS = st.text(PRINTABLE, max_size=MAX_REASON_CHARS)
COUNTS = st.floats(0, MAX_COUNT)
LABELS = st.lists(st.tuples(NAMES, NAMES), max_size=MAX_LABELS).map(tuple)
SEQUENCES = st.integers(1, MAX_SEQUENCE)
ENVELOPES = st.binary(min_size=1, max_size=MAX_ENVELOPE_BYTES)
MESSAGES: st.SearchStrategy[AnyLeaseMessage] = st.one_of(
    st.builds(
        LeaseRequest,
        LEASES,
        st.builds(Need, COUNTS, COUNTS, st.integers(0, MAX_MEMORY_BYTES), NAMES, NAMES, LABELS),
        st.builds(Versions, NAMES, NAMES, NAMES),
        NAMES,
        st.just(b"") | st.binary(min_size=16, max_size=16),
        st.lists(st.binary(min_size=1, max_size=MAX_GRANT_BYTES), max_size=MAX_GRANTS).map(tuple),
        st.just(0.0) | st.floats(MIN_QUEUE_S, MAX_QUEUE_S),
    ),
    st.builds(
        LeaseRequest,
        LEASES,
        st.builds(Need, COUNTS, COUNTS, st.integers(0, MAX_MEMORY_BYTES), NAMES, NAMES),
        st.builds(Versions, NAMES, NAMES, NAMES),
        NAMES,
        form=st.just(1),
    ),
    st.builds(Queued, LEASES, st.integers(1, MAX_POSITION)),
    st.builds(Notice, LEASES, st.floats(0, MAX_NOTICE_S), REASONS),
    st.builds(
        Renewed,
        LEASES,
        SEQUENCES,
        st.floats(MIN_LEASE_S, MAX_LEASE_S),
        st.booleans(),
        ENVELOPES,
        st.floats(0, MAX_NOTICE_S),
        REASONS,
    ),
    st.builds(Started, LEASES, ENVELOPES),
    st.builds(Challenge, LEASES, st.binary(min_size=32, max_size=32)),
    st.builds(Proof, LEASES, ENVELOPES),
    st.builds(Agreement, LEASES, ENVELOPES),
    st.builds(Refuse, LEASES, REASONS, st.none() | st.floats(0, MAX_RETRY_S)),
    st.builds(Started, LEASES),
    st.builds(Renew, LEASES, SEQUENCES),
    st.builds(Renewed, LEASES, SEQUENCES, st.floats(MIN_LEASE_S, MAX_LEASE_S), st.booleans()),
    st.builds(Release, LEASES, REASONS),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=40), st.binary()
)


@settings(max_examples=200, deadline=None)
@given(MESSAGES)
def test_decoding_undoes_encoding(message: AnyLeaseMessage) -> None:
    frame = encode(message)
    assert len(frame) <= MAX_FRAME_BYTES
    assert lease_protocol().decode(peer(1), frame, 0) == message


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_bad_message(data: bytes) -> None:
    with pytest.raises(BadMessage):
        read_message(data)


@settings(max_examples=400, deadline=None)
@given(MESSAGES, st.data())
def test_altered_frames_decode_or_are_bad_but_never_worse(
    message: AnyLeaseMessage, data: st.DataObject
) -> None:
    frame = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = read_message(bytes(frame))
    except BadMessage:
        return
    assert read_message(encode(decoded)) == decoded  # whatever it is, it is a message like any other


@settings(max_examples=100, deadline=None)
@given(MESSAGES, st.data())
def test_truncated_and_extended_frames_are_bad(message: AnyLeaseMessage, data: st.DataObject) -> None:
    frame = encode(message)
    with pytest.raises(BadMessage):
        read_message(frame[: data.draw(st.integers(0, len(frame) - 1))])
    with pytest.raises(BadMessage):
        read_message(frame + data.draw(st.binary(min_size=1, max_size=5)))


@settings(max_examples=400, deadline=None)
@given(MESSAGES, st.data())
def test_a_field_of_another_type_or_range_is_never_let_through(
    message: AnyLeaseMessage, data: st.DataObject
) -> None:
    fields: dict[str, Any] = msgpack.unpackb(encode(message), raw=False)
    key = data.draw(st.sampled_from(sorted(fields)))
    fields[key] = data.draw(SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(), SCALARS))
    try:
        decoded = read_message(pack(fields))
    except BadMessage:
        return
    again: dict[str, Any] = msgpack.unpackb(encode(decoded), raw=False)
    assert again == fields
    assert {type(value) for value in again.values()} <= {str, bytes, int, float, bool, type(None), list}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"lease": b"short"}, "lease is not 16 to 16 bytes"),
        ({"lease": "x" * 16}, "lease is not 16 to 16 bytes"),
        ({"cpus": True}, "cpus is not a number"),
        ({"cpus": math.nan}, "cpus is not a number"),
        ({"cpus": math.inf}, "cpus is not a number"),
        ({"cpus": -1}, "cpus is not a number"),
        ({"cpus": 2**64 - 1}, "cpus is not a number"),
        ({"memory_bytes": 1.0}, "memory_bytes is not an integer"),
        ({"memory_bytes": False}, "memory_bytes is not an integer"),
        ({"region": "x" * 65}, "region is not printable text"),
        ({"region": "\x1b[31mred"}, "region is not printable text"),
        ({"cluster": None}, "cluster is not printable text"),
        ({"labels": []}, "labels is empty"),
        ({"labels": [["a"]]}, "value is missing"),
        ({"labels": [["a", "b", "c"]]}, "label is not a list of at most 2"),
        ({"labels": [["a", 7]]}, "value is not printable text"),
        ({"labels": [["a", "b"]] * 9}, "labels is not a list of at most 8"),
        ({"grants": [b"x" * 1025]}, "grant is not 1 to 1024 bytes"),
        ({"gang": b"short"}, "gang is not 16 to 16 bytes"),
        ({"queue_s": 3601}, "queue_s is not a number"),
        ({"form": 3}, "form is not an integer from 2 to 2"),
        ({"type": "reqest"}, "no lease message is called 'reqest'"),
        ({"type": 7}, "type is not printable text"),
        ({"extra": 1}, "1 unknown fields"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(change: dict[str, Any], complaint: str) -> None:
    fields: dict[str, Any] = msgpack.unpackb(encode(request()), raw=False)
    with pytest.raises(BadMessage, match=complaint):
        read_message(pack({**fields, **change}))


def test_a_peer_that_knows_only_the_first_form_reads_what_is_meant_for_it() -> None:
    """Byte for byte what was sent before there was a second form."""
    old = LeaseRequest(lease_id(1), request().need, request().versions, "test-cluster", form=1)
    names = "type lease cluster cpus gpus memory_bytes kind region ray python swarmp2p"
    assert sorted(msgpack.unpackb(encode(old))) == sorted(names.split())
    assert msgpack.unpackb(encode(Started(lease_id(1)))) == {"type": "started", "lease": lease_id(1)}
    assert sorted(msgpack.unpackb(encode(Renewed(lease_id(1), 1, 60.0, True)))) == sorted(
        ["type", "lease", "sequence", "lease_s", "started"]
    )


def test_what_the_first_form_does_not_have_is_unknown_in_it() -> None:
    old = LeaseRequest(lease_id(1), request().need, request().versions, "test-cluster", form=1)
    fields: dict[str, Any] = msgpack.unpackb(encode(old), raw=False)
    for extra in ({"gang": bytes(16)}, {"grants": [b"x"]}, {"queue_s": 1.0}, {"labels": [["a", "b"]]}):
        with pytest.raises(BadMessage, match="1 unknown fields"):
            read_message(pack({**fields, **extra}))


def test_a_missing_field_is_named() -> None:
    with pytest.raises(BadMessage, match="nonce is missing"):
        read_message(pack({"type": "challenge", "lease": lease_id(1)}))


def test_an_oversized_frame_is_not_even_parsed() -> None:
    with pytest.raises(BadMessage, match="at most 16384 are allowed"):
        read_message(b"\xc1" * (MAX_FRAME_BYTES + 1))


def test_deep_nesting_is_a_bad_message() -> None:
    with pytest.raises(BadMessage):
        read_message(b"\x81\xa4type" + b"\x91" * 10_000)


def test_huge_declared_lengths_cost_nothing() -> None:
    for head in (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"):
        with pytest.raises(BadMessage):
            read_message(head + b"\x00" * 100)


def test_whole_numbers_of_cpus_mean_the_same_as_floats() -> None:
    assert encode(request(need=Need(cpus=2))) == encode(request(need=Need(cpus=2.0)))


def test_the_protocol_is_small_messages_under_a_versioned_id() -> None:
    protocol = lease_protocol()
    assert protocol.ids == ("/swarm/lease/1.1.0", "/swarm/lease/1.0.0")
    assert (protocol.exchange, protocol.framing) == (Exchange.MESSAGES, Framing.U32)
    assert protocol.max_frame_bytes == 16384
    assert protocol.name == LeaseRequest.protocol == Release.protocol


@given(st.text(max_size=600))
def test_any_reason_can_be_sent_once_tidied(text: str) -> None:
    reason = tidy(text)
    assert read_message(encode(Release(lease_id(1), reason))) == Release(lease_id(1), reason)


def test_tidying_keeps_what_is_fine_and_cuts_what_is_long() -> None:
    assert tidy("all leases are taken") == "all leases are taken"
    assert tidy("two\nlines\x1b[0m") == "two lines [0m"
    assert tidy("x" * 900) == "x" * 499 + "…"
