"""Network keys: go-libp2p's file format, what is refused and why, and that nothing gives the secret away."""

from __future__ import annotations

import base64
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.errors import NetworkKeyError
from swarmp2p.network_key import NetworkKey

SECRET = bytes(range(32))
HEADER = "/key/swarm/psk/1.0.0/"
TEXT = f"{HEADER}\n/base16/\n{SECRET.hex()}\n"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "swarm.key"
    NetworkKey(SECRET).save(path)
    return path


def test_a_file_is_what_go_writes(kept: Path) -> None:
    assert kept.read_text() == TEXT
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_key_comes_in_every_form(kept: Path) -> None:
    for form in (SECRET, TEXT, TEXT.encode(), kept, str(kept), NetworkKey(SECRET)):
        assert NetworkKey.of(form).secret == SECRET


@pytest.mark.parametrize(
    "body",
    [
        b"/base16/\r\n" + SECRET.hex().upper().encode() + b"\r\n",
        b"/base16/\n" + SECRET.hex().encode(),
        b"/base64/\n" + base64.b64encode(SECRET) + b"\n",
        b"/bin/\n" + SECRET,
    ],
)
def test_every_encoding_is_read(body: bytes) -> None:
    assert NetworkKey.parse(HEADER.encode() + b"\n" + body).secret == SECRET


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        ("", "its first line"),
        ("/key/swarm/psk/2.0.0/\n/base16/\n" + SECRET.hex(), "its first line"),
        (HEADER, "its second line"),
        (HEADER + "\n/base58/\nabc", "its second line"),
        (HEADER + "\n/base16/\nxyz", "its third line"),
        (HEADER + "\n/base64/\n%%%", "its third line"),
        (HEADER + "\n/base16/\nabcd", "has 2 bytes, not 32"),
        (HEADER + "\n/base16/\n" + "00" * 33, "has 33 bytes, not 32"),
    ],
)
def test_what_is_no_key_is_named(contents: str, told: str) -> None:
    with pytest.raises(NetworkKeyError, match=told):
        NetworkKey.parse(contents.encode())


def test_files_that_cannot_be_used(kept: Path, tmp_path: Path) -> None:
    for path, told in (
        (tmp_path / "missing", "no such file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "a\0b", "no path"),
    ):
        with pytest.raises(NetworkKeyError, match=told):
            NetworkKey.load(path)
    kept.chmod(0o640)
    with pytest.raises(NetworkKeyError, match="chmod 600"):
        NetworkKey.load(kept)


def test_a_key_is_never_replaced(kept: Path, tmp_path: Path) -> None:
    with pytest.raises(NetworkKeyError, match="such a file already"):
        NetworkKey.generate().save(kept)
    assert NetworkKey.load(kept).secret == SECRET
    with pytest.raises(NetworkKeyError, match="no such file"):
        NetworkKey.generate().save(tmp_path / "missing" / "key")
    assert os.listdir(tmp_path) == [kept.name], "nothing is left behind"


@pytest.mark.parametrize("value", [b"short", bytes(33), 7, None, [SECRET]])
def test_what_can_be_no_key_is_refused(value: object) -> None:
    with pytest.raises(NetworkKeyError):
        NetworkKey.of(value)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_nothing_gives_the_secret_away(kept: Path) -> None:
    key = NetworkKey(SECRET)
    assert repr(key) == f"NetworkKey({key.name})"
    assert key.name != NetworkKey(bytes(32)).name
    assert key.name not in SECRET.hex()
    with pytest.raises(TypeError):
        pickle.dumps(key)
    kept.chmod(0o600)
    kept.write_text(TEXT + "00")
    with pytest.raises(NetworkKeyError) as caught:
        NetworkKey.load(kept)
    assert SECRET.hex()[:8] not in str(caught.value)


@given(st.binary(max_size=200))
def test_nothing_but_its_error_is_raised_whatever_a_file_holds(contents: bytes) -> None:
    for raw in (contents, HEADER.encode() + b"\n" + contents):
        try:
            NetworkKey.parse(raw)
        except NetworkKeyError:
            pass
