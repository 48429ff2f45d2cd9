"""A journal keeps what it was told over kills, damage and full disks, and takes nobody else's file."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from swarmp2p.errors import StateFileError
from swarmp2p.identity import Identity
from swarmp2p.lease_journal import LeaseJournal
from swarmp2p.ray_bridge.events import Journal as Note
from swarmp2p.ray_bridge.events import JournalRecord, LeaseCommand, Need, RestoreLeases, Role
from swarmp2p.ray_bridge.ledger import Here, TreeEntry
from swarmp2p.signed import pack
from swarmp2p.storage.journal import Journal, journal_path, read_journal
from swarmp2p.storage.journal_rows import (
    _row,  # pyright: ignore[reportPrivateUsage]
    lease_row,
    read_row,
    tree_row,
)
from swarmp2p.storage.rows import BadRow
from swarmp2p.storage.state_file import StateFile


def tree(number: int, pid: int = 0) -> TreeEntry:
    return TreeEntry(f"{number:016x}", Here("boot", 7), 1, 2, (f"/tmp/swarm-{number}",), pid, pid * 10)


def test_what_is_kept_is_there_for_others_at_once_and_after_a_kill(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    assert read_journal(path).trees == ()
    journal = Journal.open(path)
    journal.keep_tree(tree(1))
    journal.keep_tree(tree(2))
    journal.keep_tree(tree(1, pid=40))
    assert read_journal(path).trees == (tree(1, pid=40), tree(2))
    journal.drop_tree(tree(2).mark)
    assert Path(path).stat().st_mode & 0o777 == 0o600
    # Not closed: as a kill leaves it.
    assert read_journal(path).trees == (tree(1, pid=40),)
    journal.close()
    again = Journal.open(path)
    assert again.found.trees == (tree(1, pid=40),)
    again.close()
    again.keep_tree(tree(3))  # whoever is late after the end is not heard
    assert read_journal(path).trees == (tree(1, pid=40),)


def test_a_damaged_row_costs_itself_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    journal = Journal.open(path)
    journal.keep_tree(tree(1))
    journal.keep_tree(tree(2))
    journal.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE journal SET body=? WHERE key=?", (b"\x91\x01", tree(1).mark.encode()))
        connection.commit()
    said = read_journal(path)
    assert (said.trees, said.damaged) == ((tree(2),), 1)


def test_a_damaged_file_is_set_aside_and_its_sound_rows_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal"
    journal = Journal.open(str(path))
    for number in range(200):
        journal.keep_tree(tree(number))
    journal.close()
    content = bytearray(path.read_bytes())
    content[-4096:] = os.urandom(4096)
    path.write_bytes(content)
    journal = Journal.open(str(path))
    assert 0 < len(journal.found.trees) < 200
    assert set(journal.found.trees) <= {tree(number) for number in range(200)}
    assert read_journal(str(path)).trees == journal.found.trees
    assert "was damaged" in caplog.text
    assert len([name for name in os.listdir(tmp_path) if ".damaged-" in name]) == 1
    journal.close()


@pytest.mark.parametrize(
    "state", [None, b"", b"SQLite format 3\0" + bytes(4080)], ids=["new", "empty", "damaged"]
)
def test_a_journal_outlives_the_state_file_beside_it(tmp_path: Path, state: bytes | None) -> None:
    beside = tmp_path / "state"
    journal = Journal.open(journal_path(beside))
    journal.keep_tree(tree(1))
    if state is not None:
        beside.write_bytes(state[:68] + b"swmp" + state[72:] if state else state)
    file = StateFile.open(beside, Identity.generate().peer_id)
    assert bool(file.set_aside) == bool(state)
    journal.keep_tree(tree(2))
    journal.close()
    file.close()
    assert read_journal(journal.path).trees == (tree(1), tree(2))


def test_files_that_are_no_journal_are_not_touched(tmp_path: Path) -> None:
    letter = tmp_path / "letter"
    letter.write_text("Dear friend")
    with pytest.raises(StateFileError, match="it is no journal of swarmp2p"):
        Journal.open(str(letter))
    assert letter.read_text() == "Dear friend"
    with closing(sqlite3.connect(tmp_path / "other")) as connection:
        connection.execute("CREATE TABLE mine (x)")
    with pytest.raises(StateFileError, match="a database of another program"):
        Journal.open(str(tmp_path / "other"))
    with pytest.raises(StateFileError, match="it is a folder"):
        Journal.open(str(tmp_path))


def test_a_disk_that_takes_nothing_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = str(tmp_path / "journal")
    journal = Journal.open(path)
    journal.keep_tree(tree(1))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # stands for a disk: nothing can be written meanwhile
        journal.keep_tree(tree(2))
        journal.keep_tree(tree(3))
        assert journal.problem
        other.execute("ROLLBACK")
    journal.keep_tree(tree(4))
    assert not journal.problem
    assert [record.message.count("is not written") for record in caplog.records] == [1, 0]
    assert read_journal(path).trees == (tree(1), tree(4))
    journal.close()


def lease(number: int, role: Role = Role.LENDER, state: str = "active") -> JournalRecord:
    need = Need(2, 0.5, 1 << 30, "gaming-pc", "eu", (("gpu", "a100"),))
    return JournalRecord(
        bytes([number]) * 16,
        role,
        Identity.generate().peer_id,
        "c",
        need,
        state,
        b"signed",
        7,
        12.5,
        gang=b"all or none of us",
        request=b"asked",
        proof=b"proven",
    )


def test_leases_of_both_roles(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    journal = Journal.open(path)
    given, taken = lease(1), lease(2, Role.BORROWER, "starting")
    journal.keep_lease(given)
    journal.keep_lease(replace(taken, state="proving"))
    journal.keep_lease(taken)
    journal.keep_tree(tree(1))
    assert read_journal(path).leases == (given, taken)
    journal.drop_lease(given.lease)
    journal.close()
    assert read_journal(path).leases == (taken,)
    assert read_journal(path).trees == (tree(1),)


def test_a_restarted_peer_restores_what_it_gave_and_releases_what_nobody_claims(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path / "journal"))
    given, mine, other = lease(1), lease(2, Role.BORROWER), replace(lease(3, Role.BORROWER), cluster="other")
    posted = list[LeaseCommand]()
    leases = LeaseJournal(journal, posted.append)
    for record in (given, mine, other):
        leases.write(Note(record.lease, record))
    leases.write(Note(b"4" * 16, None))
    leases.restore()
    leases.release()
    assert posted == []  # the first run of this peer: nothing was found
    journal.close()
    journal = Journal.open(str(tmp_path / "journal"))
    leases = LeaseJournal(journal, posted.append)
    leases.restore()
    assert posted == [RestoreLeases((given,))]
    assert leases.claim("other") == (other,)
    assert leases.claim("other") == ()
    leases.release()
    leases.release()
    assert posted == [RestoreLeases((given,)), RestoreLeases((mine,))]
    leases.write(Note(given.lease, None))
    journal.close()
    assert read_journal(str(tmp_path / "journal")).leases == (mine, other)
    LeaseJournal(None, posted.append).write(Note(given.lease, given))


def test_rows_that_nobody_wrote() -> None:
    some = lease_row(lease(1))
    assert isinstance(read_row(some), JournalRecord)
    for changed in (pack([]), pack(None), b"\xc1", some[2] + b"\0", some[2].replace(b"lender", b"nobody")):
        with pytest.raises(BadRow):
            read_row(_row(some[0], some[1], changed))
    with pytest.raises(BadRow):
        read_row(_row("other", some[1], some[2]))
    kind, key, body, checksum = tree_row(tree(1))
    assert read_row((kind, key, body, checksum)) == tree(1)
    for row in (
        (kind, key, body, b""),
        (kind, key, body + b"\0", checksum),
        (kind, b"other", body, checksum),
        (1, key, body, checksum),
        (kind, None, body, checksum),
    ):
        with pytest.raises(BadRow):
            read_row(row)
