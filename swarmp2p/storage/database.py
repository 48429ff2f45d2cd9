"""A small SQLite file of ours, with one table: opened for its user alone, known as ours from its first byte on, closed,
and set aside when it is damaged."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from .problems import FILE_ERRORS

_KEPT_ASIDE: Final = 3
WAL_PAGES: Final = 256
"""Pages of the log after which it is moved into the file: 1 MiB of the usual ones."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a file is known by. application, schema: ids in its header (SQLite's file format, 1.3). table: the statement
    that makes its table."""

    application: int
    schema: int
    table: str


def connect(path: str, form: Form, *pragmas: str) -> sqlite3.Connection:
    """A connection to the file, which is made when it is missing. pragmas: its own, executed first. Raises OSError and
    FILE_ERRORS."""
    if not os.path.lexists(path):
        # SQLite's own files take this one's mode: who holds which records is nobody else's business.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(
        path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=8
    )
    execute = connection.execute
    try:
        for pragma in (*pragmas, "trusted_schema=OFF", "cell_size_check=ON", "synchronous=NORMAL"):
            execute(f"PRAGMA {pragma}")
        if not execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            # The ids and the table in one transaction, before WAL: no crash leaves a file that is not known as ours.
            execute("BEGIN IMMEDIATE")
            execute(f"PRAGMA application_id={form.application}")
            execute(f"PRAGMA user_version={form.schema}")
            execute(form.table)
            execute("COMMIT")
        execute("PRAGMA journal_mode=WAL")
        execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
    except BaseException:
        connection.close()
        raise
    return connection


def close(connection: sqlite3.Connection | None) -> None:
    """Close a database, if there is one, whatever is wrong with it."""
    if connection is not None:
        try:
            connection.close()
        except FILE_ERRORS:
            pass  # its last checkpoint failed: the log keeps what was committed


def set_aside(path: str) -> str:
    """Rename a damaged file and SQLite's beside it; the newest few are kept."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    target = f"{path}.damaged-{stamp}"
    os.replace(path, target)
    for suffix in ("-wal", "-journal"):
        if os.path.lexists(path + suffix):
            os.replace(path + suffix, target + suffix)
    folder, name = os.path.split(path)
    aside = sorted(
        entry
        for entry in os.listdir(folder or ".")
        if entry.startswith(f"{name}.damaged-") and entry[-4:] != "-wal"
    )
    for old in [entry for entry in aside if not entry.endswith("-journal")][:-_KEPT_ASIDE]:
        for suffix in ("", "-wal", "-journal"):
            Path(folder, old + suffix).unlink(missing_ok=True)
    return target
