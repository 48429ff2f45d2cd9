"""Load signals: at most 200 bytes, whatever they say; nothing else passes for one."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.errors import BadMessage, UsageError
from swarmp2p.gossip.load_signal import MAX_DEPTH, MAX_SIGNAL_BYTES, LoadSignal, decode_signal, encode_signal
from swarmp2p.providers import KINDS
from swarmp2p.signed import unpack_map

SIGNAL = LoadSignal(
    cpus_free=7.5,
    memory_free_bytes=12 << 30,
    gpus_free=1,
    in_flight=3,
    leases=2,
    latency_s=0.25,
    kind="gaming-pc",
    region="eu-north",
    sequence=1_700_000_000_000,
    expires=1_700_000_061,
    coordinate=bytes(range(22)),
    speed=16,
    served=1234,
    heartbeat_s=5,
    depth=3,
)
OLD = bytes.fromhex(
    "8aa163cb401e000000000000a165cb41d954fc4f200000a16603a16701a16ba967616d696e672d7063a16c02a16dcf0000000300000000"
    "a172a865752d6e6f727468a173cf0000018bcfe56800a174cb3fd0000000000000"
)
"""A signal as it was before the optional fields, kinds as texts and numbers in double precision."""

amounts = st.floats(0, 4e9, allow_nan=False, width=32)
signals = st.builds(
    LoadSignal,
    cpus_free=amounts,
    memory_free_bytes=st.integers(0, (1 << 60) - 1),
    gpus_free=amounts,
    in_flight=st.integers(0, (1 << 32) - 1),
    leases=st.integers(0, (1 << 32) - 1),
    latency_s=amounts,
    # "#0" and so on stand for known kinds on the wire, and are refused
    kind=st.text(st.characters(codec="utf-8"), max_size=6).filter(lambda kind: not kind.startswith("#")),
    region=st.text(st.characters(codec="utf-8"), max_size=8),
    sequence=st.integers(0, (1 << 63) - 1),
    expires=st.integers(0, 1 << 39).map(float),
    coordinate=st.binary(max_size=24),
    speed=amounts,
    served=st.integers(0, (1 << 32) - 1),
    heartbeat_s=amounts,
    depth=st.integers(0, MAX_DEPTH),
)


@given(signals)
@settings(max_examples=200, deadline=None)
def test_round_trip_within_200_bytes(signal: LoadSignal) -> None:
    data = encode_signal(signal)
    assert len(data) <= MAX_SIGNAL_BYTES == 200
    assert decode_signal(data) == signal


def test_the_longest_signal_has_184_bytes() -> None:
    huge, late = (1 << 32) - 1, float(1 << 39)
    longest = LoadSignal(
        0.1,
        (1 << 60) - 1,
        0.1,
        huge,
        huge,
        0.1,
        "k" * 24,
        "r" * 32,
        (1 << 63) - 1,
        late,
        bytes(24),
        0.1,
        huge,
        0.1,
        MAX_DEPTH,
    )
    same = [f.name for f in fields(LoadSignal) if getattr(longest, f.name) == getattr(LoadSignal(), f.name)]
    assert same == [], "each field is there"
    assert len(encode_signal(longest)) == 184 <= MAX_SIGNAL_BYTES


def test_a_usual_signal_is_short() -> None:
    assert len(encode_signal(SIGNAL)) < 110
    assert len(encode_signal(replace(SIGNAL, coordinate=b""))) < 90


@pytest.mark.parametrize("kind", [*KINDS, "", "submarine", "#9"])
def test_every_kind_comes_back_known_ones_by_code(kind: str) -> None:
    data = encode_signal(replace(SIGNAL, kind=kind))
    assert decode_signal(data).kind == kind
    assert len(unpack_map(data, 200)["k"]) <= (2 if kind in KINDS else 9)


def test_signals_of_earlier_versions_are_understood() -> None:
    old = replace(SIGNAL, expires=1_700_000_060.5, coordinate=b"", speed=0, served=0, heartbeat_s=0, depth=0)
    assert decode_signal(OLD) == old


def test_earlier_versions_understand_ours() -> None:
    """They need these keys, with these types, and skip others."""
    values = unpack_map(encode_signal(SIGNAL), 200)
    assert all(type(values[key]) in (int, float) for key in "cgte")
    assert all(type(values[key]) is int for key in "mfls")
    assert all(type(values[key]) is str for key in "kr")


def test_what_rounding_does() -> None:
    sent = replace(SIGNAL, cpus_free=0.1, expires=1_700_000_060.2)
    got = decode_signal(encode_signal(sent))
    assert got.cpus_free == pytest.approx(0.1, rel=1e-7)
    assert got.expires == 1_700_000_061
    assert encode_signal(got) == encode_signal(sent)


@given(st.binary(max_size=220))
@settings(max_examples=300, deadline=None)
def test_any_bytes_decode_or_are_bad(data: bytes) -> None:
    try:
        assert isinstance(decode_signal(data), LoadSignal)
    except BadMessage:
        pass


@given(
    st.sampled_from(list("cmgfltkrsevpdhb")),
    st.one_of(st.none(), st.booleans(), st.integers(-(1 << 63), 1 << 63), st.floats(), st.text(max_size=40)),
)
@settings(max_examples=200, deadline=None)
def test_any_value_decodes_or_is_bad(key: str, value: object) -> None:
    values = unpack_map(encode_signal(SIGNAL), 200)
    values[key] = value
    packed: Any = msgpack.packb(values)
    try:
        assert isinstance(decode_signal(packed), LoadSignal)
    except BadMessage:
        pass


@pytest.mark.parametrize("key", list("cmgfltkrse"))
def test_every_field_is_needed(key: str) -> None:
    values = unpack_map(encode_signal(SIGNAL), 200)
    del values[key]
    packed: Any = msgpack.packb(values)
    with pytest.raises(BadMessage):
        decode_signal(packed)


def test_later_versions_may_add_fields() -> None:
    values = unpack_map(encode_signal(SIGNAL), 200)
    packed: Any = msgpack.packb({**values, "new": 1})
    assert decode_signal(packed) == SIGNAL


@pytest.mark.parametrize(
    "change",
    [
        {"cpus_free": -1.0},
        {"gpus_free": float("nan")},
        {"latency_s": float("inf")},
        {"in_flight": -1},
        {"leases": 1 << 32},
        {"memory_free_bytes": 1 << 60},
        {"sequence": 1 << 63},
        {"kind": "k" * 25},
        {"region": "ä" * 17},
        {"kind": "#3"},
        {"coordinate": bytes(25)},
        {"speed": -0.5},
        {"served": 1 << 32},
        {"heartbeat_s": float("nan")},
        {"depth": MAX_DEPTH + 1},
        {"expires": -1.0},
    ],
)
def test_values_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"load signal's {next(iter(change))}"):
        replace(SIGNAL, **change)


def test_text_must_be_unicode() -> None:
    with pytest.raises(UsageError):
        encode_signal(replace(SIGNAL, region="\ud800"))
