"""Signed payloads: one form for each map, a signature for one purpose, and nothing but BadMessage for bad bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.errors import BadMessage
from swarmp2p.identity import Identity, PeerId, verify
from swarmp2p.signed import open_signed, pack, pack_map, sign_map, split_signed, unpack_map, verify_payload
from swarmp2p.transport.sim_peers import sim_peer, sim_sign, sim_verify

ALICE, BOB = Identity(bytes(32)), Identity(b"\x01" * 32)
MAX = 1024

scalars = (
    st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.booleans()
    | st.none()
)
flat_maps = st.dictionaries(st.text(max_size=10), scalars, max_size=8)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.binary(max_size=5), inner)
    ),
    max_leaves=10,
)


def opened(domain: str, envelope: bytes, signer: PeerId = ALICE.peer_id) -> dict[str, Any]:
    return open_signed(domain, envelope, signer, verify, MAX)


# Maps -------------------------------------------------------------------------------------------------------


@given(flat_maps)
def test_a_map_comes_back_as_it_was(fields: dict[str, Any]) -> None:
    assert unpack_map(pack_map(fields), MAX) == fields


@given(flat_maps, st.randoms())
def test_the_form_of_a_map_does_not_depend_on_the_order_of_its_keys(fields: dict[str, Any], rng: Any) -> None:
    names = list(fields)
    rng.shuffle(names)
    assert pack_map({name: fields[name] for name in names}) == pack_map(fields)


def test_the_form_is_the_shortest_and_types_are_kept_apart() -> None:
    assert pack_map({"b": 1, "a": b"\0"}) == b"\x82\xa1a\xc4\x01\0\xa1b\x01"
    forms = [pack_map({"x": value}) for value in (1, 1.0, True, "1", b"1", None)]
    assert len(set(forms)) == len(forms)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "msgpack"),
        (b"\xc1", "msgpack"),  # never used in msgpack
        (b"\x81\xa1a", "msgpack"),  # cut short
        (b"\x80\x80", "msgpack"),  # more than one
        (b"\x81\xa1\xff\x01", "msgpack"),  # key is no UTF-8
        (b"\xdf\xff\xff\xff\xff", "msgpack"),  # claims 4 billion entries
        (b"\x91" * 2000, "bytes"),
        (b"\x91" * 1000 + b"\x01", "msgpack"),  # nested too deep
        (b"\x01", "map"),
        (b"\x90", "map"),
        (b"\x81\x01\x01", "msgpack"),  # key is a number
        (b"\x81\xc4\x01a\x01", "string keys"),  # key is bytes
        (b"\x81\x90\x01", "msgpack"),  # key is a list
    ],
)
def test_what_is_no_map_is_a_bad_message_that_says_why(data: bytes, why: str) -> None:
    with pytest.raises(BadMessage, match=why):
        unpack_map(data, MAX)


def test_the_limit_on_bytes_is_inclusive() -> None:
    data = pack_map({"a": "b" * 50})
    assert unpack_map(data, len(data)) == {"a": "b" * 50}
    with pytest.raises(BadMessage, match=f"{len(data)} bytes"):
        unpack_map(data, len(data) - 1)


# Envelopes --------------------------------------------------------------------------------------------------


@given(flat_maps)
@settings(max_examples=30, deadline=None)
def test_what_is_signed_opens_for_its_domain_and_signer(fields: dict[str, Any]) -> None:
    envelope = sign_map("record", fields, ALICE.sign)
    assert opened("record", envelope) == fields
    assert len(envelope) <= len(pack_map(fields)) + 72


def test_a_signature_for_one_purpose_is_none_for_another() -> None:
    envelope = sign_map("record", {"a": 1}, ALICE.sign)
    for domain in ("lease", "recor", "records", "", "record\0", "Record"):
        with pytest.raises(BadMessage, match="signature"):
            opened(domain, envelope)


def test_a_domain_cannot_run_over_into_the_payload() -> None:
    """domain "a" with payload "b..." and domain "ab" with payload "..." are signed over different bytes."""
    seen: list[bytes] = []

    def sign(data: bytes) -> bytes:
        seen.append(data)
        return bytes(64)

    sign_map("a", {"x": 1}, sign)
    assert seen == [b"swarmp2p:a\0" + pack_map({"x": 1})]
    payload, signature = pack_map({"x": 1}), ALICE.sign(seen[0])
    assert verify_payload("a", payload, signature, ALICE.peer_id, verify)
    assert not verify_payload("a\0", payload[1:], signature, ALICE.peer_id, verify)


def test_a_plain_signature_of_the_payload_is_not_accepted() -> None:
    payload = pack_map({"a": 1})
    with pytest.raises(BadMessage, match="signature"):
        opened("record", pack([payload, ALICE.sign(payload)]))


def test_another_signers_envelope_is_refused_and_named() -> None:
    envelope = sign_map("record", {"a": 1}, BOB.sign)
    with pytest.raises(BadMessage, match=ALICE.peer_id.short):
        opened("record", envelope)


def test_an_envelope_changed_at_any_byte_or_cut_is_refused() -> None:
    envelope = sign_map("record", {"service": "ray-worker", "sequence": 7}, ALICE.sign)
    for place in range(len(envelope)):
        for flip in (0x01, 0x80, 0xFF):
            changed = envelope[:place] + bytes([envelope[place] ^ flip]) + envelope[place + 1 :]
            with pytest.raises(BadMessage):
                opened("record", changed)
        with pytest.raises(BadMessage):
            opened("record", envelope[:place])
    with pytest.raises(BadMessage):
        opened("record", envelope + b"\0")


def test_what_is_signed_but_is_no_map_is_refused() -> None:
    payload = pack([1, 2])
    envelope = pack([payload, ALICE.sign(b"swarmp2p:record\0" + payload)])
    with pytest.raises(BadMessage, match="map"):
        opened("record", envelope)


def test_the_payload_is_not_looked_at_before_its_signature_holds() -> None:
    envelope = pack([b"\xc1", bytes(64)])
    with pytest.raises(BadMessage, match="signature"):
        opened("record", envelope)


def test_an_envelope_above_the_limit_is_refused_unread() -> None:
    envelope = sign_map("record", {"a": "b" * 2000}, ALICE.sign)
    with pytest.raises(BadMessage, match=f"{len(envelope)} bytes"):
        opened("record", envelope)


@pytest.mark.parametrize(
    "parts", [[], [b"a"], [b"a", b"b", b"c"], [b"a", "b"], ["a", b"b"], [1, b"b"], {b"a": b"b"}, b"ab", None]
)
def test_what_has_another_shape_is_no_envelope(parts: object) -> None:
    with pytest.raises(BadMessage, match="expected"):
        split_signed(pack(parts), MAX)


@given(st.binary(max_size=200))
def test_any_bytes_open_or_are_a_bad_message(data: bytes) -> None:
    for read in (unpack_map, split_signed):
        try:
            read(data, MAX)
        except BadMessage:
            pass
    with pytest.raises(BadMessage):
        opened("record", data)


@given(anything)
def test_any_msgpack_opens_or_is_a_bad_message(value: object) -> None:
    data = pack(value)
    for read in (unpack_map, split_signed):
        try:
            read(data, 100_000)
        except BadMessage:
            pass


@given(st.integers(-128, 127), st.binary(max_size=20))
def test_extension_types_open_or_are_a_bad_message(code: int, data: bytes) -> None:
    """-1 is msgpack's timestamp, which is decoded, and can be malformed."""
    extension = bytes([0xC7, len(data), code & 0xFF]) + data
    for envelope in (extension, b"\x81\xa1a" + extension, b"\x92" + extension * 2):
        for read in (unpack_map, split_signed):
            try:
                read(envelope, MAX)
            except BadMessage:
                pass


def test_cheap_signatures_work_in_their_place() -> None:
    peer = sim_peer(1)
    envelope = sign_map("record", {"a": 1}, sim_sign(peer))
    assert open_signed("record", envelope, peer, sim_verify, MAX) == {"a": 1}
    with pytest.raises(BadMessage, match="signature"):
        open_signed("record", envelope, sim_peer(2), sim_verify, MAX)
