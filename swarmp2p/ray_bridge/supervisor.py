"""Runs one command as a tree of processes, and sees to it that the whole tree ends.

A program of its own, started as a file so that it costs 20 ms and imports nothing of swarmp2p but the two modules
beside it, processes.py (what it sees and signals) and launch.py (what the command goes through before it begins):

    python -I -S supervisor.py [--parent PID] [--grace SECONDS] [--remove DIRECTORY]... [--enter FD]...
        [--group DIRECTORY]... [--jailed] [--memory BYTES] -- COMMAND...

Ray spreads over a dozen processes that start others, detach and rename themselves. This program is their
*subreaper* (prctl(2)): whoever loses its parent becomes its child, so that "all my descendants" stays exact.
The tree ends when any of these happens:

- the command ends;
- standard input ends (whoever holds the other end has died, were it by SIGKILL) or brings a line
  `stop [SECONDS]`, which also sets the grace;
- the process PID of --parent ends (a fork of it may hold standard input open);
- SIGTERM, SIGINT or SIGHUP arrives.

Then the command gets SIGTERM, for it knows in which order its own processes should go (a Ray head takes 0.2 s
that way, and 2.3 s when all of it is asked at once). When it has ended, or half of the grace is over, every
other descendant gets SIGTERM; those left after the grace get SIGKILL, over and over until none is left; the
directories of --remove are deleted, and those of --remove-orphaned when nobody is left who could use them: the leash or
the parent ended and no `stop` came before; the exit status is the command's (128 + n when signal n ended it). A
process that is no descendant is never touched: a signal goes through a pidfd, after checking that the pid
still names the process that was seen (Linux 5.4 or newer).

With --enter the command runs in other namespaces (a cell, see cell.py), given as descriptors; this program stays
outside. The command can then get no privilege by execve(2), and as root it keeps none that leads out again or changes
the network (KEPT).

With --jailed the command is bubblewrap's (jail.py). It needs all privileges there are until it has made the jail, and
gives them up itself. SIGTERM goes to what it runs, and to everybody else in the jail later: bubblewrap's own two
processes get SIGKILL only, for with the second the kernel kills the whole pid namespace.

With --group the command enters control groups (cgroups(7)), which are removed at the end. With --memory, where there
are none, this program looks again and again at how much memory the tree has, with what is in the file systems of a
jail, and kills those processes that have most as soon as it is more; or all of it when the files alone are too much.

What a jail prints comes to this program through a pipe and goes to the log from here: whoever had the file itself could
reserve the whole disk behind its end (fallocate(2)), or, as the same user, make it a program that is run as its owner
(fchmod(2)). A line `log PATH` on standard input, the path in hex, names the file that counts from then on. It is
emptied when it has grown beyond MAX_LOG_BYTES, and takes 3 MB a second.

If this program itself is killed by SIGKILL, the kernel kills the command (PR_SET_PDEATHSIG), and with it the whole of a
jail. Without one, what the command has started ends as far as it watches its parent; `tree.py` ends the rest of the
session.
"""

from __future__ import annotations

import math
import os
import select
import signal
import sys
import time

if not __package__:  # run as a file, with -I: of swarmp2p there are the modules beside it, and nothing else
    __package__ = "beside"
    sys.modules[__package__] = type(sys)(__package__)
    sys.modules[__package__].__path__ = [os.path.dirname(__file__)]

from .launch import PR_SET_CHILD_SUBREAPER, STOP_SIGNALS, leave_group, prctl, start, write
from .processes import (
    POLL_S,
    Process,
    descendants,
    file_bytes,
    first_to_go,
    inside_of,
    look,
    memory_of,
    send_signal,
)

GRACE_S = 3.0
"""Seconds from the first SIGTERM to SIGKILL. A Ray node that is asked to end does so in 0.2 to 0.4 s."""

WATCH_S = 0.25
"""Seconds between two looks at a jail's memory."""

HURRIED_S = 0.04
"""The same once half of the memory is used. What is written at 5 GB/s is 0.2 GB too late then."""

MAX_LOG_BYTES = 16 << 20

LOG_BYTES = 1 << 16
"""Of a jail's log, taken at a time, POLL_S apart: who prints more waits, and costs no CPU out here."""

PIPE_BYTES = 1 << 20  # most that a pipe holds (pipe(7))
MAX_LINE_BYTES = 1 << 14  # of standard input: `log` and a path of 4096 bytes

GIVE_UP_S = 10.0
"""Seconds of SIGKILL after which what is left cannot be killed (uninterruptible, or another user's)."""


class Supervisor:
    """The command, its tree, and the state of their ending.

    running -> asking the command -> asking all (it ended, or half the grace is over) -> killing -> over
    """

    def __init__(
        self,
        command: list[str],
        grace_s: float,
        parent: int,
        enter: list[int],
        groups: list[str],
        jailed: bool,
        memory_bytes: int,
    ) -> None:
        self.grace_s, self.jailed, self.memory_bytes = grace_s, jailed, memory_bytes
        self.watch_at = time.monotonic() if memory_bytes else math.inf
        self.status: int | None = None
        self.told_to_stop = self.orphaned = False
        self.ask_all_at = self.kill_at = math.inf
        self.asked = set[tuple[int, int]]()
        self.line = b""
        self.wake, wake_write = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(wake_write, False)
        for number in (signal.SIGCHLD, *STOP_SIGNALS):
            signal.signal(number, lambda _number, _frame: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        self.poll = select.poll()
        self.poll.register(self.wake, select.POLLIN)
        self.poll.register(0, select.POLLIN)
        self.parent = open_parent(parent)
        if self.parent is not None:
            self.poll.register(self.parent, select.POLLIN)
        self.log, theirs, self.listen_at = -1, 2, math.inf
        if jailed:
            self.log, theirs = os.pipe()
            os.set_blocking(self.log, False)
            self.poll.register(self.log, select.POLLIN)
        self.child = start(command, enter, groups, jailed, theirs)
        if jailed:
            os.close(theirs)

    def run(self) -> int:
        """Until nothing of the tree is left. Returns the exit status."""
        while True:
            for descriptor, _ in self.poll.poll(self.wait_ms()):
                self.attend(descriptor)
            self.reap()
            if time.monotonic() >= self.listen_at:
                self.listen_at = math.inf
                self.poll.register(self.log, select.POLLIN)
            if time.monotonic() >= self.watch_at:
                self.watch_at = time.monotonic() + self.watch()
            if self.status is not None:
                self.end(self.grace_s)
            if self.kill_at == math.inf:
                continue
            left = descendants(os.getpid())
            if not left:
                self.reap()
                break
            now = time.monotonic()
            if now >= self.kill_at + GIVE_UP_S:
                names = ", ".join(str(process.pid) for process in left)
                write(f"supervisor: these processes cannot be killed: {names}\n")
                break
            if now >= self.kill_at:
                self.signal_all(left, signal.SIGKILL)
            elif now >= self.ask_all_at or self.status is not None:
                self.signal_all(inside_of(self.child, left) if self.jailed else left, signal.SIGTERM)
        for _ in range(PIPE_BYTES // LOG_BYTES if self.jailed else 0):  # its last words
            if not self.copy_log():
                break
        return 1 if self.status is None else self.status

    def wait_ms(self) -> float | None:
        """How long to wait for something to happen."""
        if self.kill_at != math.inf:
            return POLL_S * 1000
        at = min(self.watch_at, self.listen_at)
        return None if at == math.inf else max(at - time.monotonic(), 0) * 1000 + 1

    def copy_log(self) -> bool:
        """Put into the log what the jail has printed. False when there was nothing."""
        try:
            said = os.read(self.log, LOG_BYTES)
        except OSError:
            return False
        try:
            if said and os.fstat(2).st_size > MAX_LOG_BYTES:
                os.ftruncate(2, 0)
            os.write(2, said)
        except OSError:
            pass  # no file, or a full disk
        return bool(said)

    def watch(self) -> float:
        """Keep a jail's memory within bounds. Returns when to do so again, in seconds."""
        inside = inside_of(self.child, descendants(os.getpid()))
        own = {process: memory_of(process.pid) for process in inside}
        if sum(own.values()) > self.memory_bytes / 2:
            own = {process: memory_of(process.pid, exact=True) for process in inside}
        files = 0
        if inside:
            files = sum(file_bytes(f"/proc/{inside[0].pid}/root/{place}") for place in ("tmp", "dev/shm"))
        whole = files + sum(own.values())
        if files > self.memory_bytes:
            write(f"supervisor: files of {files} bytes in the jail are more than it may have, so it ends\n")
            self.end(0.0)
        elif whole > self.memory_bytes:
            left = whole
            order = {process: (first_to_go(process.pid), own[process]) for process in inside}
            for most in sorted(inside, key=lambda process: order[process], reverse=True):
                if (
                    left <= self.memory_bytes
                ):  # as many as it takes: a bomb of small ones grows faster than one a look
                    break
                left -= own[most]
                send_signal(most, signal.SIGKILL)
            write(f"supervisor: {whole} bytes are too many, so those that had {whole - left} are killed\n")
        return HURRIED_S if whole > self.memory_bytes / 2 else WATCH_S

    def attend(self, descriptor: int) -> None:
        """Take in what a readable descriptor has to say."""
        if descriptor == self.wake:
            if any(number in STOP_SIGNALS for number in os.read(self.wake, 512)):
                self.end(self.grace_s)
        elif descriptor == self.parent:
            self.poll.unregister(descriptor)
            self.orphaned = True
            self.end(self.grace_s)
        elif descriptor == self.log:
            self.poll.unregister(descriptor)
            if self.copy_log():
                self.listen_at = time.monotonic() + POLL_S
        else:
            heard = os.read(descriptor, 512)
            if not heard:
                self.poll.unregister(descriptor)
                self.orphaned = self.orphaned or not self.told_to_stop
                self.end(self.grace_s)
            *lines, rest = (self.line + heard).split(b"\n")
            self.line = rest[-MAX_LINE_BYTES:]
            for line in lines:
                self.obey(line.decode("ascii", "replace").split())

    def obey(self, words: list[str]) -> None:
        """`stop`, `stop SECONDS` or `log PATH`; anything else is ignored."""
        if words[:1] == ["log"]:
            self.move_log(words[-1])
        if words[:1] == ["stop"]:
            self.told_to_stop = True
            try:
                grace_s = float(words[1]) if len(words) > 1 else self.grace_s
            except ValueError:
                grace_s = self.grace_s
            self.end(max(grace_s, 0.0))

    def move_log(self, path: str) -> None:
        """Have the log in another file, whose path is given in hex; what cannot be opened changes nothing."""
        try:
            log = os.open(bytes.fromhex(path), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except (OSError, ValueError) as problem:
            write(f"supervisor: the log stays here: {problem}\n")
            return
        os.dup2(log, 2, inheritable=False)
        os.close(log)

    def end(self, grace_s: float) -> None:
        """Begin to end the tree; without any grace nobody is asked first. Asked again, the earlier SIGKILL counts."""
        now = time.monotonic()
        if self.kill_at == math.inf and self.status is None and grace_s > 0:
            command = look(self.child)
            if self.jailed:  # whoever came first; none yet, and then there is nothing to put in order
                inside = inside_of(self.child, descendants(os.getpid()))
                command = min(inside, key=lambda process: (process.start, process.pid), default=command)
            self.signal_all([command] if command is not None else [], signal.SIGTERM)
        self.ask_all_at = min(self.ask_all_at, now + grace_s / 2)
        self.kill_at = min(self.kill_at, now + grace_s)

    def signal_all(self, left: list[Process], number: signal.Signals) -> None:
        """SIGTERM once to each process; SIGKILL until it is gone."""
        for process in left:
            if number == signal.SIGKILL or (process.pid, process.start) not in self.asked:
                self.asked.add((process.pid, process.start))
                send_signal(process, number)

    def reap(self) -> None:
        """Take the exit statuses of the command and of orphans."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.child:
                code = os.waitstatus_to_exitcode(status)
                self.status = code if code >= 0 else 128 - code


def open_parent(pid: int) -> int | None:
    """A descriptor that becomes readable when the parent ends; None when pid is 0 (nobody to watch)."""
    if pid == 0:
        return None
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        raise SystemExit(1) from None
    if os.getppid() != pid:
        raise SystemExit(1)  # it died before we looked, and the pid names somebody else
    return handle


def remove(directory: str) -> None:
    """Delete a directory of ours and all in it. Stragglers of a killed tree may delay it, nothing else."""
    import shutil  # 10 ms that nobody waits for here

    for _ in range(5):
        shutil.rmtree(directory, ignore_errors=True)
        if not os.path.lexists(directory):
            return
        time.sleep(POLL_S)
    write(f"supervisor: cannot remove {directory}\n")


def main(arguments: list[str]) -> int:
    """The program. Returns the exit status."""
    grace_s, parent, enter = GRACE_S, 0, list[int]()
    directories, orphaned, groups = list[str](), list[str](), list[str]()
    jailed, memory_bytes = False, 0
    words = iter(arguments)
    for word in words:
        if word == "--":
            break
        if word == "--jailed":
            jailed = True
            continue
        value = next(words, "")
        if word == "--grace":
            grace_s = float(value)
        elif word == "--parent":
            parent = int(value)
        elif word == "--remove":
            directories.append(value)
        elif word == "--remove-orphaned":
            orphaned.append(value)
        elif word == "--enter":
            enter.append(int(value))
        elif word == "--group":
            groups.append(value)
        elif word == "--memory":
            memory_bytes = int(value)
        else:
            raise SystemExit(
                f"unknown option {word}; usage: supervisor.py [--parent PID] [--grace S] "
                "[--remove DIRECTORY]... [--remove-orphaned DIRECTORY]... [--enter FD]... [--group DIRECTORY]... "
                "[--jailed] [--memory BYTES] -- COMMAND..."
            )
    command = list(words)
    if not command:
        raise SystemExit("no command given; it follows --")
    if os.getsid(0) != os.getpid():
        os.setsid()
    tree: Supervisor | None = None
    try:
        tree = Supervisor(command, grace_s, parent, enter, groups, jailed, memory_bytes)
        return tree.run()
    finally:
        for group in groups:
            leave_group(group)
        for directory in directories + (orphaned if tree is not None and tree.orphaned else []):
            remove(directory)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
