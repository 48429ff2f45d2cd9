from __future__ import annotations

import math
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.dht.provider_record import belongs, read_any_claim
from swarmp2p.dht.records import (
    MAX_ENVELOPE_BYTES,
    Attribute,
    RecordReader,
    ServiceRecord,
    check_attributes,
    make_record,
    open_record,
    read_claim,
)
from swarmp2p.errors import BadMessage, UsageError
from swarmp2p.identity import Identity, PeerId, verify
from swarmp2p.signed import sign_map

from .network import fake_sign, fake_verify, peer_id

PROVIDER = peer_id(1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ATTRIBUTES = st.dictionaries(
    TEXT.filter(bool),
    st.one_of(
        TEXT,
        st.booleans(),
        st.integers(-(1 << 63), (1 << 63) - 1),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    max_size=6,
)


def record(sequence: int = 1, expires: float = 100.0, **attributes: Attribute) -> ServiceRecord:
    return make_record(PROVIDER, "ray-worker", attributes, sequence, expires, fake_sign(PROVIDER))


@settings(max_examples=60, deadline=None)
@given(ATTRIBUTES, st.integers(0, (1 << 63) - 1), st.floats(0, 1e12))
def test_what_was_made_is_what_is_opened(
    attributes: dict[str, Attribute], sequence: int, expires: float
) -> None:
    made = make_record(PROVIDER, "svc", attributes, sequence, expires, fake_sign(PROVIDER))
    assert open_record(PROVIDER, made.envelope, fake_verify) == made
    assert made.attributes == attributes
    claim = read_claim(made.envelope)
    assert (claim.service, claim.sequence, claim.expires) == ("svc", sequence, expires)


def test_depths_are_signed_and_a_record_without_any_has_the_bytes_of_earlier_versions() -> None:
    signed = fake_sign(PROVIDER)
    made = make_record(PROVIDER, "svc", {"gpu": "h100"}, 1, 9.0, signed, {"": 12, "gpu": 3, "region": 0})
    assert open_record(PROVIDER, made.envelope, fake_verify).depths == {"": 12, "gpu": 3}
    assert read_claim(made.envelope).depths == {"": 12, "gpu": 3}
    assert read_claim(made.envelope).attributes == {"gpu": "h100"}
    bare = make_record(PROVIDER, "svc", {"gpu": "h100"}, 1, 9.0, signed)
    assert make_record(PROVIDER, "svc", {"gpu": "h100"}, 1, 9.0, signed, {"": 0}) == bare
    assert b"depths" not in bare.envelope


@pytest.mark.parametrize(
    "depths", [[], {"": 25}, {"": -1}, {"": True}, {1: 1}, {str(n): 1 for n in range(34)}]
)
def test_depths_that_are_none_make_a_record_unusable(depths: Any) -> None:
    fields = {"attrs": {}, "depths": depths, "expires": 9.0, "seq": 1, "service": "svc"}
    with pytest.raises(BadMessage):
        read_claim(sign_map("service-record", fields, fake_sign(PROVIDER)))


def test_with_real_keys_only_the_provider_can_have_signed_it() -> None:
    me, other = Identity.generate(), Identity.generate()
    made = make_record(me.peer_id, "svc", {"cpus": 4}, 1, 100.0, me.sign)
    assert open_record(me.peer_id, made.envelope, verify) == made
    with pytest.raises(BadMessage, match="signature"):
        open_record(other.peer_id, made.envelope, verify)
    for position in range(0, len(made.envelope), 7):
        flipped = bytearray(made.envelope)
        flipped[position] ^= 1
        with pytest.raises(BadMessage):
            open_record(me.peer_id, bytes(flipped), verify)


def test_a_signature_of_another_domain_is_none() -> None:
    fields = {"attrs": {}, "expires": 9.0, "seq": 1, "service": "svc"}
    envelope = sign_map("load", fields, fake_sign(PROVIDER))
    with pytest.raises(BadMessage, match="signature"):
        open_record(PROVIDER, envelope, fake_verify)


@pytest.mark.parametrize(
    ("changed", "value"),
    [
        ("attrs", None),
        ("attrs", [1]),
        ("attrs", {1: 2}),
        ("attrs", {b"a": "bytes"}),
        ("attrs", {"a": [1]}),
        ("attrs", {"a": b"bytes"}),
        ("attrs", {"a": math.inf}),
        ("attrs", {f"{n}": n for n in range(33)}),
        ("expires", -1.0),
        ("expires", math.nan),
        ("expires", math.inf),
        ("expires", True),
        ("expires", "soon"),
        ("seq", -1),
        ("seq", 1 << 63),
        ("seq", 1.0),
        ("seq", True),
        ("service", ""),
        ("service", "x" * 65),
        ("service", b"svc"),
    ],
)
def test_a_genuine_signature_over_nonsense_is_refused(changed: str, value: object) -> None:
    fields: dict[str, Any] = {"attrs": {"a": 1}, "expires": 9.0, "seq": 1, "service": "svc", changed: value}
    with pytest.raises(BadMessage):
        open_record(PROVIDER, sign_map("service-record", fields, fake_sign(PROVIDER)), fake_verify)
    del fields[changed]
    with pytest.raises(BadMessage):
        open_record(PROVIDER, sign_map("service-record", fields, fake_sign(PROVIDER)), fake_verify)


def test_unknown_fields_are_ignored_so_that_later_versions_may_add_some() -> None:
    fields = {"attrs": {"a": 1}, "expires": 9.0, "seq": 1, "service": "svc", "later": [1, 2]}
    opened = open_record(PROVIDER, sign_map("service-record", fields, fake_sign(PROVIDER)), fake_verify)
    assert opened.attributes == {"a": 1}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes_are_opened_or_refused(data: bytes) -> None:
    with pytest.raises(BadMessage):
        open_record(PROVIDER, data, fake_verify)
    try:
        read_claim(data)
    except BadMessage:
        pass


NAMES = st.text(max_size=8) | st.binary(max_size=4)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(NAMES, st.text(max_size=4) | st.integers(0, 9), max_size=4), st.none() | st.just({"a": 1})
)
def test_any_attributes_of_a_claim_can_be_looked_at(attributes: dict[Any, Any], depths: Any) -> None:
    fields = {"attrs": attributes, "depths": depths, "expires": 9.0, "seq": 1, "service": "svc"}
    claim = read_any_claim(sign_map("service-record", fields, fake_sign(PROVIDER)))
    if claim is not None:
        assert not belongs(claim, PROVIDER, b"another key")


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-9, 1 << 63), st.floats(), st.text(max_size=5)),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    )
)
def test_any_signed_payload_is_opened_or_refused(value: object) -> None:
    payload = bytes(msgpack.packb(value) or b"")
    signature = fake_sign(PROVIDER)(b"swarmp2p:service-record\0" + payload)
    envelope = bytes(msgpack.packb([payload, signature]) or b"")
    try:
        assert isinstance(open_record(PROVIDER, envelope, fake_verify), ServiceRecord)
    except BadMessage:
        pass


def test_a_record_holds_until_its_expiry_give_or_take_the_clock_error() -> None:
    assert record(expires=100.0).is_valid(130.0, 30.0)
    assert not record(expires=100.0).is_valid(130.1, 30.0)
    assert read_claim(record(expires=100.0).envelope).is_valid(130.0, 30.0)


def test_a_withdrawal_never_holds() -> None:
    withdrawal = record(expires=0.0)
    assert not withdrawal.is_valid(0.0, 30.0)
    assert read_claim(withdrawal.envelope).withdrawn
    assert not read_claim(record().envelope).withdrawn


def test_a_full_record_stays_under_512_bytes_and_a_larger_one_is_refused() -> None:
    attributes: dict[str, Attribute] = {"gpu": "x" * 377}
    check_attributes("ray-worker", attributes)
    made = make_record(PROVIDER, "ray-worker", attributes, (1 << 63) - 1, 1e10, fake_sign(PROVIDER))
    assert len(made.envelope) == MAX_ENVELOPE_BYTES == 511
    with pytest.raises(UsageError, match="at most 511"):
        check_attributes("ray-worker", {"gpu": "x" * 378})


@pytest.mark.parametrize(
    ("service", "attributes", "problem"),
    [
        ("", {}, "name"),
        ("x" * 65, {}, "64"),
        ("\ud800", {}, "UTF-8"),
        ("svc", {"a": [1]}, "neither text"),
        ("svc", {"a": None}, "neither text"),
        ("svc", {"a": 1 << 63}, "64-bit"),
        ("svc", {"a": -(1 << 63) - 1}, "64-bit"),
        ("svc", {"a": math.nan}, "finite"),
        ("svc", {"a": "\udfff"}, "'a'"),
        ("svc", {"": 1}, "attribute name"),
        ("svc", {3: 1}, "attribute name 3"),
        ("svc", {f"{n}": n for n in range(33)}, "33 attributes"),
    ],
)
def test_attributes_that_cannot_be_announced_are_named(service: str, attributes: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        check_attributes(service, attributes)


def test_usable_attributes_pass() -> None:
    check_attributes("ray-worker", {"gpu": "h100", "cpus": 8, "load": 0.5, "spot": True, "größe": "ß"})


def test_a_reader_checks_each_genuine_envelope_once_and_remembers_a_bounded_number() -> None:
    checked: list[PeerId] = []

    def counting(peer: PeerId, data: bytes, signature: bytes) -> bool:
        checked.append(peer)
        return fake_verify(peer, data, signature)

    reader = RecordReader(counting, max_records=2)
    first, second, third = (record(sequence=number) for number in (1, 2, 3))
    for made in (first, second, first):
        assert reader.open(PROVIDER, made.envelope) == made
    assert len(checked) == 2
    reader.open(PROVIDER, third.envelope)  # pushes the second out: the first was used later
    reader.open(PROVIDER, first.envelope)
    assert len(checked) == 3
    reader.open(PROVIDER, second.envelope)
    assert len(checked) == 4
    for _ in range(2):
        with pytest.raises(BadMessage):
            reader.open(peer_id(2), first.envelope)
    assert len(checked) == 6
