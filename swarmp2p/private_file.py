"""Files for this user alone: keys, written whole and never over another file, and read without being tricked into
waiting; what is replaced as a whole whenever it changes; locks. What is wrong with one is said by those whose it is
(identity.py, network_key.py)."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from pathlib import Path


def read_private(name: str, most: int) -> tuple[bytes, int] | None:
    """(its first `most` bytes, its permission bits); None for what is no regular file. A key that others than its owner
    may read or write has bits of 0o077. Raises OSError, and ValueError for what cannot be a path."""
    # Without O_NONBLOCK, opening a named pipe would wait for somebody to write to it.
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        return os.read(descriptor, most), stat.S_IMODE(status.st_mode)
    finally:
        os.close(descriptor)


def prepare_private(target: Path) -> tuple[int, str]:
    """(descriptor, path) of a new file beside `target`, for those below. Raises OSError."""
    return tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # makes it 0600


def publish_private(prepared: tuple[int, str], target: Path, contents: bytes) -> None:
    """Write what was prepared and give it its name, all at once. Raises FileExistsError when something has that name,
    which is kept, and OSError; nothing is left of the prepared file then."""
    descriptor, temporary = prepared
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(descriptor)
        os.link(temporary, target)  # unlike rename, link never replaces what is there
    finally:
        os.unlink(temporary)


def replace_private(target: Path, *contents: bytes, durable: bool = True) -> None:
    """Write a file anew, piece after piece: whoever looks finds what was there before, or all of this. durable: whether
    that holds after a power cut, too. Raises OSError; then the file is as it was."""
    descriptor, temporary = prepare_private(target)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(contents)
            if durable:
                file.flush()
                os.fsync(descriptor)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def take_lock(path: Path) -> int | None:
    """Lock a file (flock(2)), which is made when it is missing; None when another process has. Returns a descriptor:
    the lock ends when it, and what was inherited of it, is closed. Raises OSError."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        os.close(lock)
        if isinstance(problem, BlockingIOError):
            return None
        raise
    return lock
