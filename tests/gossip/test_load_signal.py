"""Load signals: at most 200 bytes, whatever they say; nothing else passes for one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.errors import BadMessage, UsageError
from swarmp2p.gossip.load_signal import MAX_SIGNAL_BYTES, LoadSignal, decode_signal, encode_signal
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
    expires=1_700_000_060.5,
)

amounts = st.floats(0, 1e300, allow_nan=False)
signals = st.builds(
    LoadSignal,
    cpus_free=amounts,
    memory_free_bytes=st.integers(0, (1 << 60) - 1),
    gpus_free=amounts,
    in_flight=st.integers(0, (1 << 32) - 1),
    leases=st.integers(0, (1 << 32) - 1),
    latency_s=amounts,
    kind=st.text(st.characters(codec="utf-8"), max_size=6),
    region=st.text(st.characters(codec="utf-8"), max_size=8),
    sequence=st.integers(0, (1 << 63) - 1),
    expires=amounts,
)


@given(signals)
@settings(max_examples=200, deadline=None)
def test_round_trip_within_200_bytes(signal: LoadSignal) -> None:
    data = encode_signal(signal)
    assert len(data) <= MAX_SIGNAL_BYTES == 200
    assert decode_signal(data) == signal


def test_the_longest_signal_fits() -> None:
    huge = (1 << 32) - 1
    longest = LoadSignal(
        0.1, (1 << 60) - 1, 0.1, huge, huge, 0.1, "k" * 24, "r" * 32, (1 << 63) - 1, 1_700_000_000.123
    )
    assert len(encode_signal(longest)) <= MAX_SIGNAL_BYTES


def test_a_usual_signal_is_short() -> None:
    assert len(encode_signal(SIGNAL)) < 90


@given(st.binary(max_size=220))
@settings(max_examples=300, deadline=None)
def test_any_bytes_decode_or_are_bad(data: bytes) -> None:
    try:
        assert isinstance(decode_signal(data), LoadSignal)
    except BadMessage:
        pass


@given(
    st.sampled_from(list("cmgfltkrse")),
    st.one_of(st.none(), st.booleans(), st.integers(-(1 << 63), 1 << 63), st.floats(), st.text(max_size=40)),
)
@settings(max_examples=200, deadline=None)
def test_any_value_decodes_or_is_bad(key: str, value: object) -> None:
    fields = unpack_map(encode_signal(SIGNAL), 200)
    fields[key] = value
    packed: Any = msgpack.packb(fields)
    try:
        assert isinstance(decode_signal(packed), LoadSignal)
    except BadMessage:
        pass


@pytest.mark.parametrize("key", list("cmgfltkrse"))
def test_every_field_is_needed(key: str) -> None:
    fields = unpack_map(encode_signal(SIGNAL), 200)
    del fields[key]
    packed: Any = msgpack.packb(fields)
    with pytest.raises(BadMessage):
        decode_signal(packed)


def test_later_versions_may_add_fields() -> None:
    fields = unpack_map(encode_signal(SIGNAL), 200)
    packed: Any = msgpack.packb({**fields, "new": 1})
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
    ],
)
def test_values_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"load signal's {next(iter(change))}"):
        replace(SIGNAL, **change)


def test_text_must_be_unicode() -> None:
    with pytest.raises(UsageError):
        encode_signal(replace(SIGNAL, region="\ud800"))
