"""What went wrong with a file, in words that say what to do."""

from __future__ import annotations

import errno
import os
import sqlite3
from typing import Final

from ..descriptors import remedy as advised
from ..errors import StateFileError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


FILE_ERRORS: Final = (sqlite3.Error, OverflowError, UnicodeDecodeError)
"""What using a database file raises. A damaged one may hold lengths that no Python object can have, and SQLite's
messages then quote bytes of it that are no text."""


def is_trouble(problem: Exception) -> bool:
    """Whether the disk is the cause: what could not be done now may be done later."""
    name = _name(problem)
    return name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_BUSY", "SQLITE_NOMEM"))


def is_damage(problem: Exception) -> bool:
    """Whether the file is the cause: it is no database, or one that nobody can use.

    Errors that are neither known trouble nor ours come from statements that always worked, so that what they work on
    must be damaged: a schema that cannot be parsed, text that is no UTF-8.
    """
    return not is_trouble(problem) and not isinstance(
        problem, sqlite3.ProgrammingError | sqlite3.InterfaceError
    )


def explain(problem: Exception, path: str) -> tuple[str, str]:
    """(problem, remedy) of a file that cannot be written for now."""
    folder = os.path.dirname(os.path.abspath(path))
    if isinstance(problem, OSError):
        if problem.errno in _FULL:
            return "no space on the device", f"make room in {folder}; the rest happens by itself"
        advice = advised(problem, f"see to {folder}; the rest happens by itself")
        return (problem.strerror or str(problem)).lower(), advice
    name = _name(problem)
    if name == "SQLITE_FULL":
        return "no space on the device", f"make room in {folder}; the rest happens by itself"
    if name.startswith("SQLITE_IOERR"):
        return (
            f"the disk does not take what is written ({name})",
            f"look at limits (quota, ulimit -f) and at the disk under {folder}; the rest happens by itself",
        )
    if name.startswith("SQLITE_CANTOPEN"):
        return (
            "the file cannot be opened",
            f"see whether {folder} is there and writable, and whether this process may open more files (ulimit -n)",
        )
    if name.startswith("SQLITE_BUSY"):
        return "another program has the file open", "close that program; the rest happens by itself"
    return str(problem) or name, f"see to {folder}; the rest happens by itself"


def os_error(path: str, problem: Exception) -> StateFileError:
    """The error of a file that cannot be opened."""
    if not isinstance(problem, OSError):
        return StateFileError(path, *explain(problem, path))
    remedy = "correct the path, or name a file that this process may write"
    if problem.errno == errno.EROFS:
        remedy = "name a file elsewhere, or mount the file system writable"
    elif problem.errno in (errno.EACCES, errno.EPERM):
        remedy = "run as the owner of its folder, or name a file that this process may write"
    elif problem.errno in _FULL:
        remedy = "make room, or name a file elsewhere"
    return StateFileError(path, (problem.strerror or str(problem)).lower(), advised(problem, remedy))


def _name(problem: Exception) -> str:
    return str(getattr(problem, "sqlite_errorname", ""))
