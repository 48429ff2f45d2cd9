"""Folders with the logs of workers, one a lease: the latest are kept, and those of all leases that stand.

Leases come as often as borrowers like, for months. So when a worker ends, the oldest folders go until there are
MOST_FOLDERS at most, with MOST_BYTES together, beside those of leases that stand: neither many of these nor what one of
them prints takes the others' place.

A folder is locked (flock) while its worker runs, so that another lender of this machine that keeps its logs in the same
place leaves it alone; the lock ends with the process. Deleted is only what a lender has made: a log of that name, in a
folder named as a lease's is, which goes when nothing else is in it.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .events import LeaseId

MOST_FOLDERS: Final = 64
MOST_BYTES: Final = 2**30
"""A jail's log has 16 MiB at most, so this counts for workers without one."""

WORKER_LOG: Final = "worker.log"
_NAME_CHARS: Final = 12
_NAME: Final = re.compile(f"[0-9a-f]{{{_NAME_CHARS}}}")


@dataclass(frozen=True, slots=True)
class _Folder:
    path: Path
    changed: float
    size: int


class KeptLogs:
    """Those of one lender. folder: where they are; most, most_bytes: what is kept of leases that are over."""

    def __init__(self, folder: Path, most: int = MOST_FOLDERS, most_bytes: int = MOST_BYTES) -> None:
        self._folder, self._most, self._most_bytes = folder, most, most_bytes
        self._pruning = threading.Lock()  # else one takes what the other looks at for a lease's that stands

    @contextmanager
    def of(self, lease: LeaseId) -> Generator[Path, None, None]:
        """A lease's folder, which stays while the context is open. Raises OSError when it cannot be made."""
        path = self._folder / lease.hex()[:_NAME_CHARS]
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield path
        finally:
            os.close(lock)
            with suppress(OSError):
                path.rmdir()  # of a worker that was never started

    def prune(self) -> None:
        """Delete what is too much, the oldest. What cannot be deleted stays; nothing is raised."""
        with self._pruning:
            self._prune()

    def _prune(self) -> None:
        try:
            found = [folder for path in self._folder.iterdir() if (folder := _look(path)) is not None]
        except OSError:
            return
        count = size = 0
        for folder in sorted(found, key=lambda each: (each.changed, each.path), reverse=True):
            with _not_in_use(folder.path) as descriptor:
                if descriptor is None:
                    continue
                count, size = count + 1, size + folder.size
                if count > self._most or size > self._most_bytes:
                    _delete(folder.path, descriptor)


def _look(path: Path) -> _Folder | None:
    """A folder of ours with a log; None for anything else."""
    if not _NAME.fullmatch(path.name) or path.is_symlink():
        return None
    try:
        status = os.stat(path / WORKER_LOG, follow_symlinks=False)
    except OSError:
        return None
    return _Folder(path, status.st_mtime, status.st_size)


@contextmanager
def _not_in_use(path: Path) -> Generator[int | None, None, None]:
    """The folder's descriptor, locked; None when its lease stands, or it cannot be opened."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None
        else:
            yield lock
    finally:
        os.close(lock)


def _delete(path: Path, descriptor: int) -> None:
    with suppress(OSError):
        os.unlink(WORKER_LOG, dir_fd=descriptor)
        path.rmdir()  # unless somebody has put something else there
