"""The state of one running peer on its way to the disk: `put` in the event loop, the writing in a thread.

    StateChanged --put--> pending: the latest of each id --thread--> one transaction in the file
                              ^                                          |
                              +---- kept, and tried again later <-- it failed
    too many pending --> forgotten; all of the state is asked for when the next try is due

Nothing here ever makes the event loop wait for a disk. What may be lost: to kill -9, what changed in the half
second before it (DhtConfig.state_interval_s) and what the thread was just writing; to a power cut, also the last
transactions.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import trio

from ..dht.events import StateChanged
from ..dht.state import Entry, EntryId, RememberedPeer
from ..engine import PeerInfo
from ..identity import PeerId
from ..scopes import cancel_scope
from .problems import FILE_ERRORS, explain
from .state_file import StateFile
from .status import StorageStatus

MAX_WAITING: Final = 65_536
_RETRY_S: Final = 1.0  # doubled after each failure
_MAX_RETRY_S: Final = 60.0
_CLOSE_S: Final = 10.0  # a disk that hangs must not hold the peer up for longer

_log = logging.getLogger(__name__)


class Storage:
    """Writes a file's changes in a thread of its own.

    need_all: called in that thread when all of the state must come with the next `put`. max_waiting: entries;
    beyond it, they are forgotten, and all of the state is asked for when the file can be written again.
    """

    def __init__(
        self,
        file: StateFile,
        need_all: Callable[[], None],
        *,
        retry_s: float = _RETRY_S,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._file, self._need_all = file, need_all
        self._retry_s, self._max_waiting = retry_s, max_waiting
        self._news = threading.Condition()
        self._pending: dict[EntryId, Entry | None] = {}
        self._whole = False  # whether they are all of the state
        self._lost = file.broken  # whether all of it is needed
        self._writing = 0
        self._closing = False
        self._status = StorageStatus(
            "ok", file.path, restored=len(file.entries), damaged=file.damaged, set_aside=file.set_aside
        )
        self._told_aside = ""
        self._tell_damage()
        self._thread = threading.Thread(target=self._run, name=f"state of {file.path}", daemon=True)
        self._thread.start()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What the file held when it was opened."""
        return self._file.entries

    @property
    def remembered(self) -> tuple[PeerInfo, ...]:
        """The peers among them, those seen last first."""
        peers = [entry for entry in self.entries if isinstance(entry, RememberedPeer)]
        peers.sort(key=lambda peer: -peer.seen)
        return tuple(PeerInfo(peer.peer, peer.addresses) for peer in peers)

    @property
    def status(self) -> StorageStatus:
        """How the file does."""
        return replace(self._status, waiting=len(self._pending) + self._writing)

    def put(self, changed: StateChanged) -> None:
        """Have changes written soon. Never blocks."""
        with self._news:
            if changed.whole:
                self._pending, self._whole, self._lost = dict(changed.changes), True, False
            elif not self._lost:
                self._pending.update(changed.changes)
                if len(self._pending) > self._max_waiting and not self._whole:
                    self._pending, self._lost = {}, True
            self._news.notify()

    def close(self, timeout_s: float = _CLOSE_S) -> None:
        """Write what is waiting, once, and close the file. Blocks for up to `timeout_s` seconds."""
        with self._news:
            self._closing = True
            self._news.notify()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            _log.warning("%s: the disk does not answer; the file is left as it is", self._file.path)

    # In the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        retry_at, wait_s = 0.0, self._retry_s
        try:
            while True:
                closing = self._wait(retry_at)
                try:
                    self._write()
                    retry_at, wait_s = 0.0, self._retry_s
                except (*FILE_ERRORS, OSError) as problem:
                    self._failed(problem)
                    retry_at, wait_s = time.monotonic() + wait_s, min(2 * wait_s, _MAX_RETRY_S)
                if closing:
                    return
        finally:
            self._file.close()

    def _wait(self, retry_at: float) -> bool:
        """Until there is something to write and it may be tried; returns whether this is the last time."""
        asked = False
        with self._news:
            while not self._closing:
                left = retry_at - time.monotonic()
                if left > 0:
                    self._news.wait(left)
                elif self._pending or self._whole:
                    break
                elif not self._lost:
                    self._news.wait()
                elif asked:
                    asked = self._news.wait(_MAX_RETRY_S)  # or ask again
                else:
                    asked = True
                    self._need_all()
            return self._closing

    def _write(self) -> None:
        with self._news:
            changes, whole = self._pending, self._whole
            self._pending, self._whole = {}, False
            self._writing = len(changes)
        if not changes and not whole:
            return
        try:
            self._file.write(changes.items(), whole)
        except BaseException:
            with self._news:
                self._writing = 0
                if not self._whole and not self._lost:
                    changes.update(self._pending)
                    self._pending, self._whole = changes, whole
                    if len(changes) > self._max_waiting:
                        self._pending, self._whole, self._lost = {}, False, True
            raise
        with self._news:
            self._writing = 0
            if self._file.broken and not self._whole:
                self._pending, self._lost = {}, True
        if not self._file.broken:
            self._succeeded(len(changes))
        self._tell_damage()

    def _succeeded(self, count: int) -> None:
        status = self._status
        if status.state == "failing":
            _log.warning("%s is written again, after %.0f s", status.path, time.time() - status.since)
        self._status = replace(
            status, state="ok", problem="", remedy="", since=0.0, written=status.written + count
        )

    def _failed(self, problem: Exception) -> None:
        told, remedy = explain(problem, self._file.path)
        status = self._status
        since = status.since if status.state == "failing" else time.time()
        self._status = replace(status, state="failing", problem=told, remedy=remedy, since=since)
        if status.state != "failing":
            _log.warning(
                "%s cannot be written: %s; the peer goes on from memory; %s", status.path, told, remedy
            )

    def _tell_damage(self) -> None:
        file = self._file
        if file.set_aside != self._told_aside:
            self._told_aside = file.set_aside
            self._status = replace(self._status, set_aside=file.set_aside)
            _log.warning(
                "%s was damaged: it is now %s, and a new one holds what could be read",
                file.path,
                file.set_aside,
            )
        elif file.damaged and not self._status.written:
            _log.warning("%s: %d damaged entries were dropped", file.path, file.damaged)


@asynccontextmanager
async def open_storage(
    path: str | os.PathLike[str] | None, owner: PeerId, need_all: Callable[[], None]
) -> AsyncGenerator[Storage | None, None]:
    """A peer's state file while the context is open; None without a path. need_all: called in trio's thread; a `put`
    with all of the state is to follow. Raises StateFileError."""
    if path is None:
        yield None
        return
    token = trio.lowlevel.current_trio_token()

    def ask() -> None:
        try:
            token.run_sync_soon(need_all)
        except trio.RunFinishedError:
            pass

    file = await trio.to_thread.run_sync(lambda: StateFile.open(path, owner))
    storage = Storage(file, ask)
    try:
        yield storage
    finally:
        with cancel_scope(shield=True):
            await trio.to_thread.run_sync(storage.close)
