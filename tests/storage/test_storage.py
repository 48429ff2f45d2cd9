from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from swarmp2p.dht.events import StateChanged
from swarmp2p.dht.state import HeldValue
from swarmp2p.storage.state_file import Changes, StateFile
from swarmp2p.storage.status import StorageStatus
from swarmp2p.storage.storage import Storage

from .entries import OWNER, as_changes, some_entries

ENTRIES = some_entries(5)


def changed(whole: bool = False) -> StateChanged:
    return StateChanged(tuple(as_changes(ENTRIES)), whole)


def value(number: int, size: int = 1) -> StateChanged:
    entry = HeldValue(b"%d" % number, bytes(size), 1e9)
    return StateChanged(((entry.id, entry),))


def nothing() -> None:
    pass


class Watched(Storage):
    """Tells when a write was tried. They are in `tried`, by success."""

    def __init__(
        self, file: StateFile, need_all: Callable[[], None] = nothing, max_waiting: int = 1000
    ) -> None:
        self.tried: list[bool] = []
        self.news = threading.Condition()
        super().__init__(file, need_all, retry_s=0.01, max_waiting=max_waiting)

    def _succeeded(self, count: int) -> None:
        super()._succeeded(count)
        self._tell(True)

    def _failed(self, problem: Exception) -> None:
        super()._failed(problem)
        self._tell(False)

    def _tell(self, success: bool) -> None:
        with self.news:
            self.tried.append(success)
            self.news.notify()

    def wait_for(self, success: bool, after: int = 0) -> None:
        """Until a write ended so, not counting the first ones."""
        with self.news:
            assert self.news.wait_for(lambda: success in self.tried[after:], 30)


def contents(path: Path) -> set[object]:
    file = StateFile.open(path, OWNER)
    file.close()
    return set(file.entries)


def limit(file: StateFile, pages: int) -> None:
    """Have SQLite refuse to grow beyond so many pages: a disk that is full."""
    connection = file._connection  # pyright: ignore[reportPrivateUsage]
    assert connection is not None
    connection.execute(f"PRAGMA max_page_count={pages}")


def test_what_was_put_is_on_the_disk_after_close(tmp_path: Path) -> None:
    path = tmp_path / "state"
    storage = Storage(StateFile.open(path, OWNER), nothing)
    assert str(storage.status) == "ok"
    storage.put(changed())
    storage.put(StateChanged(((ENTRIES[0].id, None),)))
    storage.close()
    assert storage.status.waiting == 0
    assert storage.status.written in (16, 17)  # in one transaction or two
    assert contents(path) == set(ENTRIES[1:])


def test_a_full_disk_is_told_once_and_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "state"
    file = StateFile.open(path, OWNER)
    storage = Watched(file)
    storage.put(changed())
    storage.wait_for(True)
    limit(file, 1)
    for number in range(20):
        storage.put(value(number, 1000))
    storage.wait_for(False)
    storage.wait_for(False, after=len(storage.tried) + 3)
    status = storage.status
    assert status.state == "failing"
    assert status.waiting == 20
    assert status.since > 1e9
    assert "failing: no space on the device, since 2" in str(status)
    assert f"make room in {tmp_path}" in str(status)
    before = len(storage.tried)
    limit(file, 1 << 20)
    storage.wait_for(True, after=before)
    assert str(storage.status) == "ok"
    storage.close()
    assert len(contents(path)) == len(ENTRIES) + 20
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 2
    assert "no space on the device; the peer goes on from memory" in told[0]
    assert "is written again" in told[1]


def test_when_too_much_waits_all_of_the_state_is_asked_for_once_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "state"
    file = StateFile.open(path, OWNER)
    asked = threading.Event()
    storage = Watched(file, asked.set, max_waiting=30)
    storage.put(changed())
    storage.wait_for(True)
    limit(file, 1)
    for number in range(100):
        storage.put(value(number, 1000))
    assert asked.wait(30), "what was forgotten is never asked for"
    assert storage.status.waiting <= 30
    storage.put(value(5))  # nothing single is taken while all of it is missing
    limit(file, 1 << 20)
    whole = StateChanged((*as_changes(ENTRIES), *value(1).changes), whole=True)
    before = len(storage.tried)
    storage.put(whole)
    storage.wait_for(True, after=before)
    storage.close()
    assert contents(path) == {entry for _, entry in whole.changes}


def test_a_change_during_a_failed_write_is_newer_than_what_failed(tmp_path: Path) -> None:
    path = tmp_path / "state"
    file = StateFile.open(path, OWNER)
    storage = Watched(file)
    limit(file, 1)
    for number in range(20):
        storage.put(value(number, 1000))
    storage.wait_for(False)
    storage.put(StateChanged(((value(3).changes[0][0], None),)))
    storage.put(value(4, 7))
    storage.wait_for(False, after=len(storage.tried) + 1)
    limit(file, 1 << 20)
    storage.wait_for(True)
    storage.close()
    kept = {entry.key: len(entry.value) for entry in contents(path) if isinstance(entry, HeldValue)}
    assert kept == {b"%d" % n: 7 if n == 4 else 1000 for n in range(20) if n != 3}


def test_a_change_while_a_write_fails_is_newer_than_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    file = StateFile.open(path, OWNER)
    write, failures = file.write, iter([True, False])

    def failing(changes: Changes, whole: bool) -> None:
        if next(failures, False):
            storage.put(value(1, 7))
            raise OSError(28, "No space left on device")
        write(changes, whole)

    monkeypatch.setattr(file, "write", failing)
    storage = Watched(file)
    storage.put(StateChanged((*value(1, 1).changes, *value(2, 2).changes)))
    storage.wait_for(True)
    storage.close()
    kept = {entry.key: len(entry.value) for entry in contents(path) if isinstance(entry, HeldValue)}
    assert kept == {b"1": 7, b"2": 2}


def test_a_file_that_is_removed_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "state"
    storage = Watched(StateFile.open(path, OWNER), lambda: storage.put(changed(whole=True)))
    storage.put(changed())
    storage.wait_for(True)
    path.unlink()
    (tmp_path / "state-wal").unlink()
    storage.put(value(1))
    storage.wait_for(True, after=1)
    storage.close()
    assert contents(path) == set(ENTRIES)


def test_damage_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "state"
    storage = Storage(StateFile.open(path, OWNER), nothing)
    storage.put(changed())
    storage.close()
    path.write_bytes(path.read_bytes().replace(b"value 1", b"value 2"))
    storage = Storage(StateFile.open(path, OWNER), nothing)
    assert (storage.status.damaged, storage.status.restored) == (1, len(ENTRIES) - 1)
    storage.close()
    path.write_bytes(path.read_bytes()[:2000])
    storage = Storage(StateFile.open(path, OWNER), nothing)
    assert ".damaged-" in storage.status.set_aside
    storage.close()
    told = [record.getMessage() for record in caplog.records]
    assert "1 damaged entries were dropped" in told[0]
    assert "was damaged: it is now" in told[1]


def test_off_is_a_status_too() -> None:
    assert str(StorageStatus()) == "off"


_LIMITED = """
    import resource, sys, threading
    from pathlib import Path
    from tests.storage.test_storage import *

    path = Path(sys.argv[1])
    if sys.argv[2] == "new":  # no room for a single page
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    file = StateFile.open(path, OWNER)
    asked = threading.Event()
    storage = Watched(file, asked.set)
    if sys.argv[2] == "old":
        assert set(storage.entries) == set(ENTRIES)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
    else:
        assert asked.wait(30)
        storage.put(changed(whole=True))
    for number in range(100):
        storage.put(value(number, 1000))
    storage.wait_for(False)
    assert storage.status.state == "failing", storage.status
    assert "the disk does not take what is written" in str(storage.status), storage.status
    before = len(storage.tried)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    storage.wait_for(True, after=before)
    storage.put(value(100))
    storage.close()
    assert str(storage.status) == "ok"
"""


@pytest.mark.parametrize("kind", ["new", "old"])
def test_a_limit_on_the_size_of_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "state"
    if kind == "old":
        storage = Storage(StateFile.open(path, OWNER), nothing)
        storage.put(changed())
        storage.close()
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_LIMITED), str(path), kind],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    found = contents(path)
    assert set(ENTRIES) <= found
    assert value(100).changes[0][1] in found
    assert len(found) == len(ENTRIES) + 101
