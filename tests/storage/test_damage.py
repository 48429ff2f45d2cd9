"""A state file cut at any byte, or with any bit of a byte flipped, opens or gives a named error: it never ends the
peer otherwise, and never lets in what was not written. The same for key files, of which a damaged one never becomes
another identity."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from swarmp2p.errors import IdentityFileError, StateFileError
from swarmp2p.identity import Identity
from swarmp2p.storage.state_file import StateFile

from .entries import OWNER, as_changes, fast_folder, some_entries

ENTRIES = some_entries(3)


@pytest.fixture
def folder() -> Generator[Path, None, None]:
    with fast_folder() as path:
        yield path


def small_file(path: Path) -> bytes:
    """A file of a few small pages, all of them in use."""
    file = StateFile.open(path, OWNER, page_bytes=512)
    file.write(as_changes(ENTRIES), whole=False)
    file.close()
    return path.read_bytes()


def opens(path: Path, *, twice: bool = True) -> bool:
    """Whether the file opens, holding nothing but what was written; else it gave a named error. twice: see that it is
    sound afterwards."""
    try:
        file = StateFile.open(path, OWNER, page_bytes=512)
    except StateFileError:
        return False
    assert set(file.entries) <= set(ENTRIES)
    file.write(as_changes(ENTRIES[:1]), whole=False)
    if file.broken:  # the damage showed only now, and all of the state is asked for
        file.write(as_changes(ENTRIES), whole=True)
    file.close()
    if not twice:
        return True
    again = StateFile.open(path, OWNER)
    assert ENTRIES[0] in again.entries
    assert (again.damaged, again.set_aside) == (0, "")
    again.close()
    return True


def clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def test_a_file_cut_at_any_byte_opens(folder: Path) -> None:
    path = folder / "state"
    data = small_file(path)
    for size in range(len(data)):
        clear(folder)
        path.write_bytes(data[:size])
        assert opens(path, twice=size % 8 == 0), f"cut to {size} bytes it was refused"


def test_a_file_with_any_byte_flipped_opens_or_gives_a_named_error(folder: Path) -> None:
    path = folder / "state"
    data = small_file(path)
    refused: list[int] = []
    for position in range(len(data)):
        clear(folder)
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        if not opens(path, twice=position % 8 == 0 or position < 100):
            refused.append(position)
    # What says whose file it is, and in which version: such a file might be somebody else's.
    assert set(refused) <= {*range(60, 64), *range(68, 72)}


def test_a_log_cut_or_flipped_at_any_byte_opens(folder: Path) -> None:
    """After kill -9 the newest transactions are in SQLite's log."""
    source, path = folder / "source", folder / "run" / "state"
    source.mkdir()
    path.parent.mkdir()
    file = StateFile.open(source / "state", OWNER, page_bytes=512)
    file.write(as_changes(ENTRIES), whole=False)
    log = (source / "state-wal").read_bytes()
    data = (source / "state").read_bytes()
    file.close()

    def check(damaged: bytes) -> None:
        clear(path.parent)
        path.write_bytes(data)
        path.with_name("state-wal").write_bytes(damaged)
        assert opens(path, twice=False)

    shutil.rmtree(source)
    for position in range(0, len(log), 3):
        check(log[:position])
        flipped = bytearray(log)
        flipped[position] ^= 1 << position % 8
        check(bytes(flipped))


def cut(data: bytes, position: int) -> bytes:
    return data[:position]


def flip(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1 << position % 8
    return bytes(changed)


@pytest.mark.parametrize("damage", [cut, flip], ids=["cut", "flipped"])
def test_a_damaged_key_file_is_refused(tmp_path: Path, damage: Callable[[bytes, int], bytes]) -> None:
    path = tmp_path / "key"
    Identity(bytes(range(32))).save(path)
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(damage(data, position))
        kept = path.read_bytes()
        for read in (Identity.load, Identity.load_or_create):
            with pytest.raises(IdentityFileError, match="restore it from a backup"):
                read(path)
        assert path.read_bytes() == kept
