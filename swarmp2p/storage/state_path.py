"""What stands at the path of a state file: whether it can be used, whose it is, and the lock beside it."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from ..errors import StateFileError
from .problems import os_error

SCHEMA: Final = 1
APPLICATION: Final = 0x73776D70  # "swmp"
_MAGIC: Final = b"SQLite format 3\0"
_VERSION_AT, _APPLICATION_AT = 60, 68  # in SQLite's header


def checked_path(path: object) -> str:
    """The path as text, its folder made; raises StateFileError for what can be no state file."""
    name = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(name, str) or not name or "\0" in name:
        raise StateFileError(repr(path), "that is no path", "name a file with a str or a Path")
    try:
        Path(name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = os.stat(name)
    except FileNotFoundError:
        if os.path.islink(name):
            raise StateFileError(name, "it is a link to nothing", "remove it, or name another file") from None
        return name
    except OSError as problem:
        raise os_error(name, problem) from None
    if stat.S_ISDIR(status.st_mode):
        raise StateFileError(
            name, "it is a folder", f"name a file in it, such as {os.path.join(name, 'swarm.state')}"
        )
    if not stat.S_ISREG(status.st_mode):
        raise StateFileError(
            name, "it is not a regular file", "name a file, or a path where there is none yet"
        )
    if status.st_uid != os.geteuid():
        raise StateFileError(
            name,
            f"it belongs to user {status.st_uid}, and this process runs as {os.geteuid()}",
            "run as that user, or name another file",
        )
    if os.statvfs(name).f_flag & os.ST_RDONLY:
        raise os_error(name, OSError(errno.EROFS, os.strerror(errno.EROFS)))
    if not os.access(name, os.R_OK | os.W_OK):
        raise StateFileError(
            name, "it cannot be read and written", f"chmod u+rw {name}, or name another file"
        )
    return name


def locked(path: str) -> int:
    """The descriptor of the locked lock file; raises StateFileError when another peer has it."""
    try:
        lock = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as problem:
        raise os_error(path, problem) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        holder = os.pread(lock, 16, 0).decode("ascii", "replace").strip()
        os.close(lock)
        if not isinstance(problem, BlockingIOError):
            raise os_error(path, problem) from None
        raise StateFileError(
            path,
            f"another peer has it open (process {holder or 'unknown'})",
            "stop that one, or give each peer a file of its own",
        ) from None
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    except OSError:
        pass  # a full disk: the lock holds without the number
    return lock


def check_kind(path: str, kind: int = APPLICATION, called: str = "state file") -> None:
    """Raise StateFileError for a file that is not ours, or of a later version. kind: its application id."""
    try:
        with open(path, "rb") as file:
            head = file.read(100)
    except FileNotFoundError:
        return
    except OSError as problem:
        raise os_error(path, problem) from None
    application = int.from_bytes(head[_APPLICATION_AT : _APPLICATION_AT + 4])
    whole = len(head) >= _APPLICATION_AT + 4
    if application != kind and (whole or not head.startswith(_MAGIC[: max(len(head), 1)])) and head:
        what = "a database of another program" if head.startswith(_MAGIC) else f"no {called} of swarmp2p"
        raise StateFileError(
            path,
            f"it is {what}",
            "name another file, or move it away if its contents are not needed; nothing of it was changed",
        )
    version = int.from_bytes(head[_VERSION_AT : _VERSION_AT + 4])
    if whole and head.startswith(_MAGIC) and version > SCHEMA:
        raise StateFileError(
            path,
            f"a later version of swarmp2p wrote it (its format is {version}, this one reads {SCHEMA})",
            "update swarmp2p, name another file, or move it away to begin with an empty one",
        )
