from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from swarmp2p.dht.state import HeldValue, RememberedPeer
from swarmp2p.errors import StateFileError
from swarmp2p.storage.state_file import StateFile
from tests.dht.network import peer_id

from .entries import OWNER, as_changes, some_entries

ENTRIES = some_entries(5)


def written(path: Path) -> None:
    file = StateFile.open(path, OWNER)
    file.write(as_changes(ENTRIES), whole=False)
    file.close()


def contents(path: Path) -> set[object]:
    file = StateFile.open(path, OWNER)
    file.close()
    return set(file.entries)


def aside(path: Path) -> list[str]:
    return sorted(entry for entry in os.listdir(path.parent) if ".damaged-" in entry)


def test_what_is_written_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "state"
    file = StateFile.open(path, OWNER)
    assert file.entries == ()
    file.write(as_changes(ENTRIES), whole=False)
    file.write([(ENTRIES[0].id, None), (ENTRIES[5].id, HeldValue(b"key 0", b"new", 5.0))], whole=False)
    file.close()
    assert contents(path) == {*ENTRIES[1:5], HeldValue(b"key 0", b"new", 5.0), *ENTRIES[6:]}
    assert sorted(os.listdir(path.parent)) == ["state", "state-lock"]
    assert path.stat().st_mode & 0o077 == 0


def test_a_whole_state_replaces_what_there_was(tmp_path: Path) -> None:
    path = tmp_path / "state"
    written(path)
    file = StateFile.open(path, OWNER)
    file.write(as_changes(ENTRIES[:1]), whole=True)
    file.close()
    assert contents(path) == {ENTRIES[0]}


def test_a_second_peer_is_told_who_has_the_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    file = StateFile.open(path, OWNER)
    with pytest.raises(
        StateFileError, match=rf"another peer has it open \(process {os.getpid()}\); stop that one"
    ):
        StateFile.open(path, OWNER)
    code = "import sys; from swarmp2p.storage.state_file import StateFile; StateFile.open(sys.argv[1], b'x')"
    other = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert "another peer has it open" in other.stderr
    file.write(as_changes(ENTRIES), whole=False)  # what failed took nothing away
    file.close()
    assert contents(path) == set(ENTRIES)


def test_of_another_peer_s_file_only_the_remembered_peers_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "state"
    written(path)
    file = StateFile.open(path, peer_id(1))
    assert file.entries
    assert all(isinstance(entry, RememberedPeer) for entry in file.entries)
    file.close()
    assert contents(path) == {entry for entry in ENTRIES if isinstance(entry, RememberedPeer)}


def test_a_row_whose_bits_flipped_is_dropped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "state"
    written(path)
    data = path.read_bytes()
    assert data.count(b"value 3") == 1
    path.write_bytes(data.replace(b"value 3", b"value 2"))
    file = StateFile.open(path, OWNER)
    assert set(file.entries) == {entry for entry in ENTRIES if entry.id[1] != b"key 3"}
    assert (file.damaged, file.set_aside) == (1, "")
    file.close()
    again = StateFile.open(path, OWNER)
    assert (again.damaged, set(again.entries)) == (0, set(file.entries))
    again.close()


def test_a_damaged_file_is_set_aside_and_what_can_be_read_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "state"
    file = StateFile.open(path, OWNER, page_bytes=512)
    many = some_entries(40)
    file.write(as_changes(many), whole=True)
    file.close()
    size = path.stat().st_size
    os.truncate(path, size - 512)
    file = StateFile.open(path, OWNER)
    assert file.set_aside
    assert aside(path) == [os.path.basename(file.set_aside)]
    assert set(file.entries) <= set(many)
    assert len(file.entries) > len(many) // 4
    file.write(as_changes(ENTRIES), whole=False)
    file.close()
    again = StateFile.open(path, OWNER)
    assert set(again.entries) == {*file.entries, *ENTRIES}
    assert not again.set_aside
    again.close()


def test_the_newest_damaged_files_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "state"
    names: list[str] = []
    for _ in range(5):
        written(path)
        os.truncate(path, 50)
        file = StateFile.open(path, OWNER)
        names.append(os.path.basename(file.set_aside))
        file.close()
    assert aside(path) == names[-3:]


def test_a_file_that_is_damaged_while_it_is_used_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "state"
    file = StateFile.open(path, OWNER, page_bytes=512)
    file.write(as_changes(some_entries(40)), whole=True)
    connection = file._connection  # pyright: ignore[reportPrivateUsage]
    assert connection is not None
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("PRAGMA cache_size=0")
    with open(path, "r+b") as raw:
        raw.seek(512)
        raw.write(b"\xff" * (path.stat().st_size - 512))
    file.write(as_changes(ENTRIES), whole=False)
    assert file.broken
    assert file.set_aside
    file.write(as_changes(ENTRIES[:1]), whole=False)  # not taken: all of the state is needed
    file.write(as_changes(ENTRIES), whole=True)
    file.close()
    assert contents(path) == set(ENTRIES)


def test_a_file_that_is_removed_while_it_is_used_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "state"
    file = StateFile.open(path, OWNER)
    file.write(as_changes(ENTRIES), whole=False)
    for name in ("state", "state-wal"):
        (tmp_path / name).unlink(missing_ok=True)
    file.write(as_changes(ENTRIES[:1]), whole=False)
    assert file.broken
    file.write(as_changes(ENTRIES), whole=True)
    file.close()
    assert contents(path) == set(ENTRIES)


# What is no state file --------------------------------------------------------------------------------------


def refused(path: object, match: str) -> None:
    with pytest.raises(StateFileError, match=match) as caught:
        StateFile.open(path, OWNER)  # type: ignore[arg-type]
    assert "; " in str(caught.value), "it says what to do"


@pytest.mark.parametrize("data", [b"x", b"a letter to my friend", bytes(4096), os.urandom(5000)])
def test_another_file_is_never_touched(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "letter"
    path.write_bytes(data)
    refused(path, "it is no state file of swarmp2p; name another file, or move it away")
    assert path.read_bytes() == data


def test_another_program_s_database_is_never_touched(tmp_path: Path) -> None:
    path = tmp_path / "db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE state (a)")
    connection.commit()
    connection.close()
    data = path.read_bytes()
    refused(path, "a database of another program; name another file")
    assert path.read_bytes() == data


def test_a_later_version_s_file_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "state"
    written(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=2")
    connection.close()
    data = path.read_bytes()
    refused(path, "a later version of swarmp2p wrote it .*; update swarmp2p")
    assert path.read_bytes() == data


def test_paths_that_can_be_no_file(tmp_path: Path) -> None:
    refused("", "that is no path")
    refused("a\0b", "that is no path")
    refused(7, "that is no path")
    refused(tmp_path, "it is a folder; name a file in it")
    (tmp_path / "file").write_bytes(b"")
    refused(tmp_path / "file" / "state", "not a directory|file exists")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    refused(tmp_path / "link", "a link to nothing; remove it")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")
    refused("/dev/null", "not a regular file")
    refused(f"/proc/{os.getpid()}/state", "; ")


def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"")
    written(path)
    assert contents(path) == set(ENTRIES)
