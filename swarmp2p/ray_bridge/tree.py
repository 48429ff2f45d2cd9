"""A command and everything it starts, from trio's side: started, heard, watched, and ended whole.

`supervisor.py` says how a tree ends. This file holds the other end of its leash (its standard input) and of
its status pipe (its standard output), on which a program of ours says in JSON objects, one a line, how far it
has come: `{"gcs": "127.77.0.1:40321"}`, `{"failed": "why"}`. All else that the tree prints goes to its log.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from signal import SIGKILL
from typing import Final, cast

import trio

from ..errors import SwarmError
from . import processes, supervisor
from .groups import Bounds
from .ledger import Entered

TREE_VARIABLE: Final = "SWARMP2P_TREE"
"""Environment variable that marks every process of a tree with 16 random hex digits (Ray's workers wipe it)."""

_LATE_S: Final = supervisor.GIVE_UP_S + 2.0  # beyond the grace, a supervisor that is not done is stuck
_LAST_WORDS_S: Final = 1.0
_MAX_LINE_BYTES: Final = 65536  # a longer status line is dropped
_MAX_SUBJECTS: Final = 64  # subjects remembered; further ones are dropped
_LAST_LINE_BYTES: Final = 4096


class TreeEnded(SwarmError):
    """The tree ended, and nothing of it is left. reason: why, in one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Tree:
    """A running tree; made by `open_tree`, which ends it. Any number of tasks may wait for it."""

    def __init__(
        self,
        process: trio.Process,
        mark: str,
        log_path: Path,
        log: int,
        remove: Sequence[Path],
        jailed: bool = False,
    ) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._input, self._output = process, process.stdin, process.stdout
        self._remove, self._jailed = remove, jailed
        self._log = log  # kept open, so that it can be read when its file has been removed with the tree
        # Ours besides trio's, because the session must be ended before the supervisor is reaped (see `wait`).
        self._handle = os.pidfd_open(process.pid)
        self._status: int | None = None
        self._buffer = b""
        self._told: dict[str, object] = {}
        self._waiting, self._reading, self._telling = trio.Lock(), trio.Lock(), trio.Lock()
        self._asked_to_stop = False
        self.mark, self.log_path = mark, log_path

    @property
    def pid(self) -> int:
        """The supervisor's process id; also the session that the tree began in."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether `wait` has seen the end."""
        return self._status is not None

    @property
    def failed(self) -> bool:
        """Whether it ended, or said that it fails, without having been asked to stop."""
        return "failed" in self._told or (self.ended and not self._asked_to_stop)

    async def told(self, subject: str) -> object:
        """What the tree said about a subject, as soon as it says it. Raises TreeEnded when it ends before."""
        while subject not in self._told:
            async with self._reading:
                if subject not in self._told and not await self._read():
                    break
        if subject not in self._told:
            raise TreeEnded(await self.died())
        return self._told[subject]

    async def wait(self) -> int:
        """Until nothing is left of the tree. Returns its exit status; negative when its supervisor was killed."""
        async with self._waiting:
            if self._status is None:
                await trio.lowlevel.wait_readable(self._handle)
                if _was_killed(self._handle):
                    # Until it is reaped, nobody else can get its pid, hence nobody else its session.
                    await trio.to_thread.run_sync(_clean_up_after, self.pid, self._remove)
                self._status = await self._process.wait()
                os.close(self._handle)
            return self._status

    async def died(self) -> str:
        """Until the tree has ended. Returns why, in one line."""
        status = await self.wait()
        with trio.move_on_after(
            _LAST_WORDS_S
        ):  # all who could write to the pipe are gone, so its end is near
            async with self._reading:
                while await self._read():
                    pass
        if "failed" in self._told:
            return _one_line(str(self._told["failed"]))
        if self._asked_to_stop:
            return "it was told to stop"
        if status < 0:
            return f"its supervisor was killed by signal {-status}"
        last = _last_line(self.log_tail(_LAST_LINE_BYTES))
        return f"it ended with status {status}" + (f": {last}" if last else "")

    async def stop(self, grace_s: float = supervisor.GRACE_S) -> None:
        """End the whole tree: SIGTERM now, SIGKILL after the grace. Returns when nothing of it is left.

        Not cut short by cancellation, and bounded: the grace, and 12 s if something cannot be killed.
        """
        if not self.ended:
            self._asked_to_stop = True
            with _shielded(grace_s + _LATE_S):
                await self._tell(b"stop %.3f" % grace_s)
                await self.wait()
        if not self.ended:
            self._process.kill()
            with _shielded(_LATE_S):
                await self.wait()

    def log_tail(self, limit_bytes: int) -> bytes:
        """The end of the log, also when its file is gone already. Nothing after `close`."""
        if self._log < 0:
            return b""
        return os.pread(self._log, limit_bytes, max(0, os.fstat(self._log).st_size - limit_bytes))

    async def move_log(self, path: Path) -> int | None:
        """Have the log at another path. Returns the descriptor that the tree's processes are to print to; None when
        their supervisor writes it, as a jail's does."""
        log = open_log(path)
        os.close(self._log)
        self._log, self.log_path = log, path
        if not self._jailed:
            return log
        await self._tell(b"log %s" % os.fsencode(path.absolute()).hex().encode())
        return None

    async def close(self) -> None:
        """Let go of the log and the pipes. Without `stop` before, the supervisor takes it for our death."""
        if self._log >= 0:
            os.close(self._log)
            self._log = -1
        with _shielded(_LATE_S):
            await self._input.aclose()
            await self._output.aclose()

    async def _tell(self, line: bytes) -> None:
        """Say something to the supervisor, unless it is ending already. Several may stop a tree at the same moment."""
        async with self._telling:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._input.send_all(line + b"\n")

    async def _read(self) -> bool:
        """Take in one chunk of status lines; False at their end."""
        try:
            chunk = await self._output.receive_some(_MAX_LINE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        lines = (self._buffer + bytes(chunk)).split(b"\n")
        rest = lines.pop()
        self._buffer = rest if len(rest) <= _MAX_LINE_BYTES else b""
        for line in lines:
            self._hear(line)
        return bool(chunk)

    def _hear(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):  # tasks may find the pipe and write what they like
            return
        if isinstance(said, dict):
            for subject, what in cast("dict[str, object]", said).items():
                if len(self._told) < _MAX_SUBJECTS:
                    self._told.setdefault(subject, what)


@asynccontextmanager
async def open_tree(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log_path: Path,
    cwd: Path | None = None,
    remove: Sequence[Path] = (),
    remove_orphaned: Sequence[Path] = (),
    grace_s: float = supervisor.GRACE_S,
    enter: Sequence[int] = (),
    keep: Sequence[int] = (),
    bounds: Bounds | None = None,
) -> AsyncGenerator[Tree, None]:
    """Run a command under a supervisor for the length of the context; nothing of it outlives that, or us.

    environment: all of it, nothing is inherited. log_path: what the tree prints is appended there; a new file
    is readable by nobody else. remove: directories that are deleted once the tree has ended, even when this
    process was killed; remove_orphaned: only when it was. grace_s: from SIGTERM to SIGKILL when the context or this
    process ends. enter: descriptors of the namespaces that the command runs in, see Cell. keep: further descriptors
    that the command inherits. bounds: of a command that makes a jail, see jails.in_jail.
    """
    mark = secrets.token_hex(8)
    arguments = ["--parent", str(os.getpid()), "--grace", str(grace_s)]
    for directory in remove:
        arguments += ["--remove", str(directory)]
    if bounds is not None:
        arguments += ["--jailed", "--memory", str(bounds.memory_bytes)]
        for group in bounds.groups:
            arguments += ["--group", group]
    for directory in remove_orphaned:
        arguments += ["--remove-orphaned", str(directory)]
    log = open_log(log_path)
    # Copies: whoever gave them may close them while the process starts, and their numbers become another's.
    namespaces = [os.dup(namespace) for namespace in enter]
    for namespace in namespaces:
        arguments += ["--enter", str(namespace)]
    entered = Entered(mark, remove)
    try:
        process = await trio.lowlevel.open_process(
            # -I and -S: no user's site, no site-packages, no module beside the file: 20 ms instead of 60
            [sys.executable, "-I", "-S", supervisor.__file__, *arguments, "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**environment, TREE_VARIABLE: mark},
            cwd=cwd,
            start_new_session=True,
            pass_fds=(*namespaces, *keep),
        )
    except BaseException:
        os.close(log)
        entered.over()
        raise
    finally:
        for namespace in namespaces:
            os.close(namespace)
    entered.runs(process.pid)
    tree = Tree(process, mark, log_path, log, remove, jailed=bounds is not None)
    try:
        yield tree
    finally:
        await tree.stop(grace_s)
        await tree.close()
        if tree.ended:
            entered.over()


def open_log(path: Path) -> int:
    """A descriptor of a log; a new file is readable by nobody else."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)


@contextmanager
def _shielded(seconds: float) -> Generator[None, None, None]:
    """Cancelled by nothing but its own timeout. (trio-stubs, which py-libp2p pulls in, know no shield=True.)"""
    with trio.move_on_after(seconds) as scope:
        scope.shield = True
        yield


def _was_killed(handle: int) -> bool:
    """Whether an ended process, not reaped yet, was ended by a signal."""
    ended = os.waitid(os.P_PIDFD, handle, os.WEXITED | os.WNOWAIT)
    return ended is not None and ended.si_code != os.CLD_EXITED


def _clean_up_after(killed: int, remove: Sequence[Path]) -> None:
    """Do a killed supervisor's work, as far as its session goes."""
    deadline = time.monotonic() + supervisor.GIVE_UP_S
    while (left := processes.in_session(killed)) and time.monotonic() < deadline:
        for process in left:
            processes.send_signal(process, SIGKILL)
        time.sleep(processes.POLL_S)
    for directory in remove:
        supervisor.remove(str(directory))


def _last_line(log: bytes) -> str:
    """The last line that says something, cut to 300 characters; "" when there is none."""
    lines = [line for line in log.decode("utf-8", "replace").splitlines() if line.strip()]
    return _one_line(lines[-1]) if lines else ""


def _one_line(said: str) -> str:
    """What a tree said, fit for a terminal: strangers' tasks may have written it. At most 300 characters."""
    return "".join(each if each.isprintable() else " " for each in said.strip()[:300])
