from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.dht.messages import Provider
from swarmp2p.dht.state import Entry, HeldProvider, HeldValue, OwnSequence, RememberedPeer
from swarmp2p.identity import PeerId
from swarmp2p.signed import pack
from swarmp2p.storage.rows import (
    BadRow,
    _checksum,  # pyright: ignore[reportPrivateUsage]
    decode,
    encode,
    owner_row,
    read_owner,
)
from tests.dht.network import peer_id

from .entries import some_entries

peers = st.one_of(
    st.integers(0, 9).map(peer_id),
    st.binary(min_size=32, max_size=32).map(lambda raw: PeerId(b"\x12\x20" + raw)),
)
times = st.floats(allow_nan=False, allow_infinity=False)
addresses = st.lists(st.binary(max_size=40), max_size=4).map(tuple)
entries: st.SearchStrategy[Entry] = st.one_of(
    st.builds(
        HeldProvider,
        st.binary(max_size=40),
        st.builds(Provider, peers, addresses, st.binary(max_size=600)),
        times,
        st.integers(0, 2**63 - 1),
        st.booleans(),
    ),
    st.builds(HeldValue, st.binary(max_size=300), st.binary(max_size=9000), times),
    st.builds(RememberedPeer, peers, addresses, times),
    st.builds(OwnSequence, st.integers(0, 2**62 - 1)),
)


@given(entries)
def test_what_is_written_is_read(entry: Entry) -> None:
    assert decode(encode(entry)) == entry


@given(st.sampled_from(some_entries(3)), st.data())
def test_any_flipped_bit_is_noticed(entry: Entry, data: st.DataObject) -> None:
    row = list[object](encode(entry))
    column = data.draw(st.integers(0, 4).filter(lambda index: len(encode(entry)[index]) > 0))
    if column == 0:
        row[0] = str(row[0]).upper()
    else:
        raw = bytearray(encode(entry)[column])  # type: ignore[arg-type]
        bit = data.draw(st.integers(0, 8 * len(raw) - 1))
        raw[bit // 8] ^= 1 << bit % 8
        row[column] = bytes(raw)
    with pytest.raises(BadRow):
        decode(tuple(row))


@pytest.mark.parametrize(
    ("kind", "key", "peer", "body"),
    [
        ("provider", b"k", peer_id(1), b"\xc1"),
        ("provider", b"k", b"x", pack([[], b"", 1.0, 0, False])),
        ("provider", b"k", peer_id(1), pack([["text"], b"", 1.0, 0, False])),
        ("provider", b"k", peer_id(1), pack([[], b"", float("nan"), 0, False])),
        ("provider", b"k", peer_id(1), pack([[], b"", 1, 0, False])),
        ("value", b"k", b"", pack(["text", 1.0])),
        ("value", b"k", b"", pack({})),
        ("peer", b"", b"", pack([[], 1.0])),
        ("sequence", b"", b"", pack([-1])),
        ("sequence", b"", b"", pack([2**63])),
        ("of a later version", b"", b"", pack([])),
    ],
)
def test_nonsense_is_refused_even_with_a_sound_checksum(
    kind: str, key: bytes, peer: bytes, body: bytes
) -> None:
    with pytest.raises(BadRow):
        decode((kind, key, bytes(peer), body, _checksum((kind, key, peer), body)))


def test_columns_of_other_types_are_refused() -> None:
    row = encode(some_entries(1)[0])
    for index in range(5):
        for wrong in (None, 1, 1.5):
            with pytest.raises(BadRow):
                decode((*row[:index], wrong, *row[index + 1 :]))


def test_the_owner_is_read_and_checked() -> None:
    row = owner_row(peer_id(1))
    assert read_owner(row) == peer_id(1)
    with pytest.raises(BadRow):
        read_owner((*row[:2], bytes(peer_id(2)), *row[3:]))
