"""What a snapshot is: only its borrower opens it, and nobody alters it unnoticed."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.errors import BadMessage, UsageError
from swarmp2p.identity import Identity, verify
from swarmp2p.signed import sign_map
from swarmp2p.snapshots import form
from swarmp2p.snapshots.form import MAX_HEADER_BYTES, is_box_of, make_snapshot, open_snapshot, read_header

OWNER = Identity(hashlib.sha256(b"owner").digest())
OTHER = Identity(hashlib.sha256(b"other").digest())
FILES = {"token": b"t" * 64, "port": b"4711", "gcs/kv/000004.log": bytes(5000)}

NAMES = st.from_regex(r"[a-z0-9-][A-Za-z0-9._-]{0,10}(/[A-Z][a-z0-9.]{0,5}){0,3}", fullmatch=True)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(NAMES, st.binary(max_size=3000), max_size=20), st.integers(1, 2**63 - 1))
def test_what_was_sealed_comes_out(files: dict[str, bytes], sequence: int) -> None:
    snapshot = make_snapshot(OWNER, files, sequence, 1e9)
    header = read_header(OWNER.peer_id, snapshot.header.envelope, verify)
    assert header == snapshot.header
    assert len(header.envelope) <= MAX_HEADER_BYTES
    assert (header.sequence, header.size, header.expires) == (sequence, len(snapshot.box), 1e9)
    assert open_snapshot(OWNER, header, snapshot.box) == files


def test_a_holder_reads_nothing_of_the_cluster() -> None:
    snapshot = make_snapshot(OWNER, FILES, 1, 1e9)
    for data in FILES.values():
        assert data not in snapshot.header.envelope + snapshot.box
    with pytest.raises(BadMessage):
        open_snapshot(OTHER, snapshot.header, snapshot.box)
    with pytest.raises(BadMessage):
        open_snapshot(OTHER, replace(snapshot.header, borrower=OTHER.peer_id), snapshot.box)


def test_sizes_say_little() -> None:
    sizes = {make_snapshot(OWNER, {"token": bytes(n)}, 1, 1e9).header.size for n in range(0, 3000, 100)}
    assert len(sizes) == 1


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_box_that_was_altered_is_refused(data: st.DataObject) -> None:
    snapshot = make_snapshot(OWNER, FILES, 1, 1e9)
    box = bytearray(snapshot.box)
    box[data.draw(st.integers(0, len(box) - 1))] ^= data.draw(st.integers(1, 255))
    assert not is_box_of(snapshot.header, bytes(box))
    with pytest.raises(BadMessage):
        open_snapshot(OWNER, snapshot.header, bytes(box))


def test_who_seals_to_a_key_has_not_signed_with_it() -> None:
    """Anybody can seal to a public key: such a box fits no header of the owner's, and a header of another's is none."""
    forged = OTHER.seal_to(OWNER.peer_id, b"my own cluster, with my token")
    genuine = make_snapshot(OWNER, FILES, 1, 1e9).header
    with pytest.raises(BadMessage):
        open_snapshot(OWNER, genuine, forged)
    said = {"digest": hashlib.sha256(forged).digest(), "expires": 1e9, "sequence": 9, "size": len(forged)}
    with pytest.raises(BadMessage):
        read_header(OWNER.peer_id, sign_map("snapshot", said, OTHER.sign), verify)


@pytest.mark.parametrize(
    "said",
    [
        {"size": form.MAX_BOX_BYTES + 1},
        {"size": 0},
        {"sequence": 0},
        {"sequence": 2**63},
        {"digest": b"short"},
        {"expires": float("nan")},
        {"more": 1},
    ],
)
def test_a_header_is_bounded(said: dict[str, object]) -> None:
    whole = {"digest": bytes(32), "expires": 1e9, "sequence": 1, "size": 100, **said}
    with pytest.raises(BadMessage):
        read_header(OWNER.peer_id, sign_map("snapshot", whole, OWNER.sign), verify)


def test_a_statement_for_another_purpose_is_no_header() -> None:
    whole = {"digest": bytes(32), "expires": 1e9, "sequence": 1, "size": 100}
    with pytest.raises(BadMessage):
        read_header(OWNER.peer_id, sign_map("service-record", whole, OWNER.sign), verify)


@pytest.mark.parametrize("name", ["../token", "/token", "gcs//x", ".ssh", "a/../b", "a/b/c/d/e", "", "a\n"])
def test_files_stay_in_their_directory(name: str) -> None:
    with pytest.raises(UsageError):
        make_snapshot(OWNER, {name: b""}, 1, 1e9)


def test_no_bomb_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = make_snapshot(OWNER, {"gcs/large": bytes(3_000_000)}, 1, 1e9)
    assert len(snapshot.box) < 10_000
    monkeypatch.setattr(form, "MAX_CONTENT_BYTES", 100_000)
    with pytest.raises(BadMessage, match="larger"):
        open_snapshot(OWNER, snapshot.header, snapshot.box)
    with pytest.raises(UsageError, match="too much"):
        make_snapshot(OWNER, {"gcs/large": bytes(3_000_000)}, 1, 1e9)
