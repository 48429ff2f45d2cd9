"""A peer's journal: the leases that it gives and takes, and the processes that it runs for them, in one SQLite file.

    STATE-leases   beside the state file STATE, whose lock is the journal's too: WAL, synchronous NORMAL

What is written is there when the call returns, for whoever comes after a kill -9: nothing is sent that relies on a
lease which the journal does not know. A write is one transaction into the page cache (about 50 us), and no disk is
waited for: a power cut may take the last of it, and with it everything that it was about, for no process outlives one
and leases end by silence.

A disk that takes nothing is told of once and worked around: leases then are as good as without a journal. A damaged
file is set aside, and a new one begins with the rows that could be read.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import Final

import trio

from ..ray_bridge.events import JournalRecord, LeaseId
from ..ray_bridge.ledger import TreeEntry, open_ledger
from ..ray_bridge.orphans import end_orphans
from .database import Form, close, connect, set_aside
from .journal_rows import LEASE, TREE, Row, lease_row, read_row, tree_row
from .problems import FILE_ERRORS, explain, is_trouble, os_error
from .rows import BadRow
from .state_path import check_kind, checked_path

_FORM: Final = Form(
    0x73776D6A,  # "swmj"
    1,
    "CREATE TABLE journal (kind TEXT NOT NULL, key BLOB NOT NULL, body BLOB NOT NULL, checksum BLOB NOT NULL, "
    "PRIMARY KEY (kind, key)) WITHOUT ROWID",
)
SUFFIX: Final = "-leases"
_MAX_ROWS: Final = 1 << 16  # read at most: many times what one machine can run

_log = logging.getLogger(__name__)


def journal_path(state: str | os.PathLike[str]) -> str:
    """Where the journal of a peer with this state file is. (STATE-journal is SQLite's: of a state file that is new it
    deletes that, and it is set aside with one that is damaged.)"""
    return f"{os.fspath(state)}{SUFFIX}"


@dataclass(frozen=True, slots=True)
class Written:
    """What a journal says. damaged: rows that could not be read."""

    trees: tuple[TreeEntry, ...] = ()
    leases: tuple[JournalRecord, ...] = ()
    damaged: int = 0


class Journal:
    """An open journal; `open` it, `close` it at the end. It is a Ledger. Used by one thread at a time.

    found: what it said when it was opened. problem: why it cannot be written for now, "" while it can.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.found = Written()
        self.problem = ""
        self._connection: sqlite3.Connection | None = None
        self._closed = False

    @classmethod
    def open(cls, path: str) -> Journal:
        """Open the journal at `path`, or make one; where the disk has no room for it now, when it has. Raises
        StateFileError when it cannot be one: nothing was changed."""
        name = checked_path(path)
        check_kind(name, _FORM.application, "journal")
        journal = cls(name)
        try:
            journal.found = _written(_select(journal._connected()))
        except (*FILE_ERRORS, OSError) as problem:
            journal._disconnect()
            if isinstance(problem, OSError) or (is_trouble(problem) and os.path.getsize(name)):
                raise os_error(name, problem) from None
            if is_trouble(problem):
                journal._failed(problem)
                return journal
            sound = _readable(name)
            _log.warning("%s was damaged: it is now %s, and a new one was begun", name, set_aside(name))
            journal._put(sound)
            journal.found = _written(sound)
        return journal

    def close(self) -> None:
        """Close the file, its log moved into it."""
        self._closed = True
        self._disconnect()

    # The ledger -------------------------------------------------------------------------------------------------

    def keep_tree(self, entry: TreeEntry) -> None:
        """See Ledger."""
        self._put([tree_row(entry)])

    def drop_tree(self, mark: str) -> None:
        """See Ledger."""
        self._drop(TREE, mark.encode())

    # Leases -----------------------------------------------------------------------------------------------------

    def keep_lease(self, record: JournalRecord) -> None:
        """Add a lease, or replace what is said of it. Does not raise."""
        self._put([lease_row(record)])

    def drop_lease(self, lease: LeaseId) -> None:
        """A lease is over. Does not raise."""
        self._drop(LEASE, lease)

    # ------------------------------------------------------------------------------------------------------------

    def _put(self, rows: Sequence[Row]) -> None:
        self._write("INSERT OR REPLACE INTO journal VALUES (?, ?, ?, ?)", rows)

    def _drop(self, kind: str, key: bytes) -> None:
        self._write("DELETE FROM journal WHERE kind=? AND key=?", [(kind, key)])

    def _write(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        if self._closed:
            return
        try:
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany(statement, rows)
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except (*FILE_ERRORS, OSError) as problem:
            self._failed(problem)
            return
        if self.problem:
            _log.warning("%s is written again", self.path)
            self.problem = ""

    def _failed(self, problem: Exception) -> None:
        told, remedy = explain(problem, self.path)
        if not self.problem:
            _log.warning("%s is not written: %s; leases go on without it; %s", self.path, told, remedy)
        self.problem = told

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connect(self.path, _FORM)
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        close(connection)


@asynccontextmanager
async def open_journal(state: str | os.PathLike[str] | None) -> AsyncGenerator[Journal | None, None]:
    """The journal beside a peer's state file while the context is open, in which all trees of this process are entered
    meanwhile; None without a state file. What a predecessor left running is ended first. Raises StateFileError."""
    if state is None:
        yield None
        return
    path = journal_path(state)
    journal = await trio.to_thread.run_sync(lambda: Journal.open(path))
    try:
        trees = journal.found.trees
        if trees:
            left = await trio.to_thread.run_sync(end_orphans, trees)
            _log.warning("%s: ended %d process trees of an earlier run", path, len(trees) - len(left))
            for entry in trees:
                if entry not in left:
                    journal.drop_tree(entry.mark)
        with open_ledger(journal):
            yield journal
    finally:
        journal.close()


def read_journal(path: str) -> Written:
    """What a journal says now, while its peer runs or not; nothing where there is none. Raises StateFileError."""
    if not os.path.lexists(path):
        return Written()
    check_kind(path, _FORM.application, "journal")
    try:
        with closing(sqlite3.connect(path, timeout=1.0, isolation_level=None)) as connection:
            return _written(_select(connection))
    except FILE_ERRORS as problem:
        raise os_error(path, problem) from None


def _select(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    execute = connection.execute
    if execute("SELECT sql FROM sqlite_schema").fetchall() != [(_FORM.table,)]:
        raise sqlite3.DatabaseError("its table is not what was written")
    return execute(f"SELECT * FROM journal LIMIT {_MAX_ROWS}").fetchall()


def _readable(path: str) -> list[Row]:
    """The sound rows of a damaged file, as far as it can be read."""
    found = list[Row]()
    try:
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
            for row in connection.execute(f"SELECT * FROM journal LIMIT {_MAX_ROWS}"):
                try:
                    read_row(row)
                except BadRow:
                    continue
                found.append(row)
    except FILE_ERRORS:
        pass  # that was it
    return found


def _written(rows: Sequence[tuple[object, ...]]) -> Written:
    trees, leases, damaged = list[TreeEntry](), list[JournalRecord](), 0
    for row in rows:
        try:
            said = read_row(row)
        except BadRow:
            damaged += 1
            continue
        if isinstance(said, TreeEntry):
            trees.append(said)
        else:
            leases.append(said)
    return Written(tuple(trees), tuple(leases), damaged)
