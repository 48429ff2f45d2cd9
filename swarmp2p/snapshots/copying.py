"""The files of a cluster's state: read as a crash of the head would leave them, and written on another machine.

GCS writes to RocksDB all the time, several files that belong together. While they are read it is stopped (SIGSTOP, for
the milliseconds that this takes); RocksDB opens what was there as it does after a kill -9. Who GCS is says the lock
that RocksDB holds, so that nobody else is ever stopped. Tables that are complete never change and may be large: they
get a second name meanwhile, and are read afterwards.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import struct
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..errors import UsageError
from ..private_file import replace_private, take_lock
from .form import MAX_CONTENT_BYTES

_SINGLE: Final = ("token", "cluster", "port")  # the last of them says that a cluster is there
_STORAGE: Final = "gcs"
_NOT_NEEDED: Final = ("LOG", "LOCK")  # RocksDB's own log; a name
_TABLE: Final = ".sst"
_FLOCK: Final = "hhqqi4x"  # struct flock: type, whence, start, length, pid
_STOP_S: Final = 1.0  # for all threads to stand still; they need microseconds, unless one waits for a disk
_LOOK_S: Final = 0.0005
_STOPPED: Final = frozenset("TtZX")

Fingerprint = tuple[tuple[str, int, int], ...]
"""Names, sizes and times of change: another one when there may be something new."""


def fingerprint(directory: Path) -> Fingerprint:
    """Of what stands in a cluster's directory now."""
    found = list[tuple[str, int, int]]()
    for name in _names(directory):
        try:
            status = os.stat(directory / name)
        except FileNotFoundError:  # GCS tidies up
            continue
        found.append((name, status.st_size, status.st_mtime_ns))
    return tuple(found)


def read_cluster(directory: Path) -> dict[str, bytes]:
    """Its files, by name. Raises OSError, also when there is too much."""
    files = dict[str, bytes]()
    with tempfile.TemporaryDirectory(prefix="copy-", dir=directory) as aside:
        tables = dict[str, Path]()
        before = fingerprint(directory)
        with _gcs_stands_still(directory) as still:
            for name in _names(directory):
                if name.endswith(_TABLE):
                    tables[name] = Path(aside) / str(len(tables))
                    os.link(directory / name, tables[name])
                else:
                    files[name] = _read(directory / name, MAX_CONTENT_BYTES - sum(map(len, files.values())))
        if not still and fingerprint(directory) != before:
            raise OSError("GCS was being started")
        for name, path in tables.items():
            files[name] = _read(path, MAX_CONTENT_BYTES - sum(map(len, files.values())))
    return files


def holds_cluster(directory: Path) -> bool:
    """Whether there is one to go on with."""
    return (directory / _SINGLE[-1]).exists()


def write_cluster(directory: Path, files: dict[str, bytes]) -> None:
    """Write a cluster where there is none. Raises UsageError when there is, or when it cannot be written: then there
    is none as before."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if directory.stat().st_mode & 0o077:
            raise UsageError(f"{directory} can be read by others: `chmod 700` it. Nothing was restored")
        lock = take_lock(directory / "lock")
        if lock is None:
            raise UsageError(
                f"another process runs the cluster that is kept in {directory}. Nothing was restored"
            )
        try:
            if holds_cluster(directory):
                raise UsageError(f"{directory} holds a cluster already. Nothing was restored")
            shutil.rmtree(directory / _STORAGE, ignore_errors=True)
            wanted = [name for name in files if name.startswith(f"{_STORAGE}/")]
            for name in (*wanted, *(name for name in _SINGLE if name in files)):
                (directory / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                replace_private(directory / name, files[name])
        finally:
            os.close(lock)
    except OSError as problem:
        raise UsageError(
            f"no cluster can be restored to {directory}: {problem}; name another directory"
        ) from None


def _names(directory: Path) -> list[str]:
    names = [name for name in _SINGLE if (directory / name).exists()]
    for folder, _, found in os.walk(directory / _STORAGE):
        inside = os.path.relpath(folder, directory)
        names += [f"{inside}/{name}" for name in found if name.partition(".")[0] not in _NOT_NEEDED]
    return sorted(names)


def _read(path: Path, room: int) -> bytes:
    with open(path, "rb") as file:
        data = file.read(room + 1)
    if len(data) > room:
        raise OSError(f"the cluster has stored more than the {MAX_CONTENT_BYTES >> 20} MiB of a snapshot")
    return data


@contextmanager
def _gcs_stands_still(directory: Path) -> Generator[bool, None, None]:
    """Stop GCS for the length of the context; yields whether one runs. Raises OSError when it cannot be stopped."""
    locks = sorted((directory / _STORAGE).rglob("LOCK"))
    pid = max((_holder(lock) for lock in locks), default=0)
    if pid <= 0:
        yield False
        return
    handle = os.pidfd_open(pid)
    try:
        if pid not in map(_holder, locks):  # it has ended, and the number may be somebody else's
            raise OSError("GCS has just ended")
        signal.pidfd_send_signal(handle, signal.SIGSTOP)
        try:
            _await_stop(pid)
            yield True
        finally:
            signal.pidfd_send_signal(handle, signal.SIGCONT)
    finally:
        os.close(handle)


def _await_stop(pid: int) -> None:
    """Until none of its threads runs. The pid is the one of a pidfd that is open."""
    ends = time.monotonic() + _STOP_S
    while not _stopped(pid):
        if time.monotonic() > ends:
            raise OSError("GCS did not stand still within a second")
        time.sleep(_LOOK_S)


def _stopped(pid: int) -> bool:
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in _STOPPED:
            return False
    return True


def _holder(lock: Path) -> int:
    """The process that holds this lock of RocksDB's (a POSIX record lock); 0 when nobody does, or nobody whom this
    process can see."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return 0 if kind == fcntl.F_UNLCK else pid
