"""One SQLite file that holds a peer's state, used by one thread at a time.

    path            the database: WAL, synchronous NORMAL, one table of rows (rows.py), schema version, application id
    path-wal        SQLite's log, gone after a clean close
    path-lock       locked (flock) while a peer uses the file; it stays, empty but for that process's number
    path.damaged-*  a file that could not be used, set aside; the three newest are kept

kill -9 loses no transaction that was committed; a power cut may lose the last ones, and leaves the file sound.

A file that is ours but damaged is set aside, and a new one gets all rows of it that can be read and whose checksum
fits. A file that is not ours is never touched: its name is probably a mistake.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing
from typing import Final

from ..dht.state import Entry, EntryId, RememberedPeer
from ..identity import PeerId
from .database import WAL_PAGES, Form, close, connect, set_aside
from .problems import FILE_ERRORS, is_damage, is_trouble, os_error
from .rows import OWNER, BadRow, decode, encode, owner_row, read_owner
from .state_path import APPLICATION, SCHEMA, check_kind, checked_path, locked

_FORM: Final = Form(
    APPLICATION,
    SCHEMA,
    "CREATE TABLE state (kind TEXT NOT NULL, key BLOB NOT NULL, peer BLOB NOT NULL, "
    "body BLOB NOT NULL, checksum BLOB NOT NULL, PRIMARY KEY (kind, key, peer)) WITHOUT ROWID",
)
_MAX_ROWS: Final = 1 << 18  # read at most: several times what the stores may hold
_MAX_BYTES: Final = 1 << 30

Changes = Collection[tuple[EntryId, Entry | None]]


class StateFile:
    """An open file. `open` it, take `entries`, then `write`; `close` at the end.

    entries: what it held when it was opened. damaged: rows that were dropped then, their checksum not fitting.
    set_aside: where a damaged file was moved to, or "". broken: whether all of the state has to be written anew.
    """

    def __init__(self, path: str, owner: PeerId, lock: int, page_bytes: int) -> None:
        self.path = path
        self.entries: tuple[Entry, ...] = ()
        self.damaged = 0
        self.set_aside = ""
        self.broken = False
        self._owner, self._lock, self._page_bytes = owner, lock, page_bytes
        self._connection: sqlite3.Connection | None = None
        self._inode = (0, 0)

    @classmethod
    def open(cls, path: str | os.PathLike[str], owner: PeerId, *, page_bytes: int = 4096) -> StateFile:
        """Open the file at `path`, or make one; damage is repaired, and space that is missing waited for.

        owner: the peer whose state it is. Of another peer's file only the remembered peers are taken over.

        Raises StateFileError when the path cannot be used, when it holds something else, or when another process
        has the file open; nothing was changed then.
        """
        name = checked_path(path)
        lock = locked(name)
        try:
            check_kind(name)
            file = cls(name, owner, lock, page_bytes)
            file._load()
            return file
        except BaseException:
            os.close(lock)
            raise

    def write(self, changes: Changes, whole: bool) -> None:
        """Write changes in one transaction. whole: they replace all that there is.

        Raises sqlite3.Error or OSError; nothing was written then. Where the file itself is gone or damaged, it is
        made anew and `broken` says that all of the state is needed.
        """
        try:
            connection = self._connected()
            if self.broken and not whole:
                return
            self._transaction(connection, changes, whole)
            self.broken = False
        except FILE_ERRORS as problem:
            if not is_damage(problem):
                raise
            self._replace()

    def close(self) -> None:
        """Close the file, its log moved into it, and unlock it."""
        self._disconnect()
        os.close(self._lock)

    # Opening ------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        empty = _is_empty(self.path)
        try:
            rows = self._read(self._connect())
        except FILE_ERRORS as problem:
            if isinstance(problem, sqlite3.Error) and not is_damage(problem):
                if not empty:
                    raise os_error(self.path, problem) from None
                self._disconnect()  # no room for the first page of a new file: `write` tries again
                return
            rows = self._replace()
        except OSError as problem:
            raise os_error(self.path, problem) from None
        owner, entries = _split(rows)
        self.damaged = sum(1 for entry in entries if entry is None)
        sound = [entry for entry in entries if entry is not None]
        if owner not in (None, self._owner):
            sound = [entry for entry in sound if isinstance(entry, RememberedPeer)]
        self.entries = tuple(sound)
        if owner != self._owner or self.damaged or self.set_aside:
            self.broken = True
            try:
                self.write([(entry.id, entry) for entry in sound], whole=True)
            except sqlite3.Error as problem:
                if not is_trouble(problem):
                    raise os_error(self.path, problem) from None

    def _connected(self) -> sqlite3.Connection:
        """The connection; a new one where the file was removed or replaced under it."""
        if self._connection is not None:
            if _inode(self.path) == self._inode:
                return self._connection
            self._disconnect()
            self.broken = True
        return self._connect()

    def _connect(self) -> sqlite3.Connection:
        if _is_empty(self.path):
            self.broken = True
        connection = connect(
            self.path,
            _FORM,
            f"page_size={self._page_bytes}",
            "locking_mode=EXCLUSIVE",  # no shared memory file; the lock file is ours anyway
            f"journal_size_limit={WAL_PAGES * self._page_bytes}",
        )
        self._connection, self._inode = connection, _inode(self.path)
        return connection

    def _read(self, connection: sqlite3.Connection) -> list[tuple[object, ...]]:
        execute = connection.execute
        tables = execute("SELECT sql FROM sqlite_schema").fetchall()
        version = execute("PRAGMA user_version").fetchone()[0]
        if tables != [(_FORM.table,)] or version != SCHEMA:
            raise sqlite3.DatabaseError("its table is not what was written")
        faults = execute("PRAGMA quick_check(1)").fetchone()[0]
        if faults != "ok":
            raise sqlite3.DatabaseError(str(faults))
        execute("BEGIN IMMEDIATE")  # refused where a damaged header makes the file read-only
        execute("ROLLBACK")
        return execute(f"SELECT * FROM state LIMIT {_MAX_ROWS}").fetchall()

    # Damage -------------------------------------------------------------------------------------------------

    def _replace(self) -> list[tuple[object, ...]]:
        """Set the file aside and make a new one; returns the rows that could still be read."""
        self._disconnect()
        rows = _salvage(self.path)
        self.set_aside = set_aside(self.path)
        self.broken = True
        self._connect()
        return rows

    def _transaction(self, connection: sqlite3.Connection, changes: Changes, whole: bool) -> None:
        kept = [encode(entry) for _, entry in changes if entry is not None]
        gone = (
            []
            if whole
            else [(kind, key, bytes(peer)) for (kind, key, peer), entry in changes if entry is None]
        )
        try:
            connection.execute("BEGIN IMMEDIATE")
            if whole:
                connection.execute("DELETE FROM state")
                connection.execute("INSERT INTO state VALUES (?, ?, ?, ?, ?)", owner_row(self._owner))
            connection.executemany("DELETE FROM state WHERE kind=? AND key=? AND peer=?", gone)
            connection.executemany("INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?, ?)", kept)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                try:
                    connection.execute("ROLLBACK")
                except FILE_ERRORS:
                    self._disconnect()  # closing it rolls back
            raise

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        close(connection)


def _split(rows: Sequence[tuple[object, ...]]) -> tuple[PeerId | None, list[Entry | None]]:
    """(owner if it can be read, entries: None for each damaged row)."""
    owner, entries = None, list[Entry | None]()
    for row in rows:
        try:
            if row[0] == OWNER:
                owner = read_owner(row)
            else:
                entries.append(decode(row))
        except BadRow:
            entries.append(None)
    return owner, entries


def _salvage(path: str) -> list[tuple[object, ...]]:
    """What can be read of a damaged file."""
    rows: dict[tuple[object, ...], None] = {}
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            head = file.read(32)
        declared = int.from_bytes(head[16:18]) * int.from_bytes(head[28:32])
        if size < declared < _MAX_BYTES:
            os.truncate(path, declared)  # SQLite reads nothing of a file that lacks its end
        try:
            with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
                connection.execute("PRAGMA locking_mode=EXCLUSIVE")
                for order in ("ASC", "DESC"):  # up to the first fault, and back to the last one
                    _read_until_fault(
                        connection,
                        f"SELECT * FROM state ORDER BY kind {order}, key {order}, peer {order} LIMIT {_MAX_ROWS}",
                        rows,
                    )
        finally:
            os.truncate(path, size)
    except (*FILE_ERRORS, OSError):
        pass  # that was it
    return list(rows)


def _read_until_fault(
    connection: sqlite3.Connection, query: str, rows: dict[tuple[object, ...], None]
) -> None:
    try:
        for row in connection.execute(query):
            rows[row] = None
    except FILE_ERRORS:
        pass


def _is_empty(path: str) -> bool:
    return not os.path.lexists(path) or not os.path.getsize(path)


def _inode(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return (0, 0)
    return (status.st_dev, status.st_ino)
