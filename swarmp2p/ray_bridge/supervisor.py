"""Runs one command as a tree of processes, and sees to it that the whole tree ends.

A program of its own, started as a file so that it costs 20 ms and imports nothing of swarmp2p:

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

import ctypes
import math
import os
import select
import signal
import struct
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38

KEPT = (0, 1, 3, 4, 5, 6, 7, 10, 14, 18, 23, 24)
"""Capabilities (linux/capability.h) that root keeps in a cell: those by which it uses files and processes as its own
(CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SYS_CHROOT), and what programs ask for that compute
(NET_BIND_SERVICE, IPC_LOCK, SYS_NICE, SYS_RESOURCE). By the others it could leave the network namespace or change it
(SYS_ADMIN, NET_ADMIN, NET_RAW, SYS_PTRACE, SYS_MODULE), or reach into the kernel (SYS_RAWIO, MKNOD, BPF)."""

LAST_CAPABILITY = 63
CAPABILITY_VERSION = 0x20080522  # of capset(2)'s structures: the third, of two words for each set

GRACE_S = 3.0
"""Seconds from the first SIGTERM to SIGKILL. A Ray node that is asked to end does so in 0.2 to 0.4 s."""

POLL_S = 0.02
"""Seconds between two looks at the descendants while the tree ends."""

WATCH_S = 0.25
"""Seconds between two looks at a jail's memory."""

HURRIED_S = 0.04
"""The same once half of the memory is used. What is written at 5 GB/s is 0.2 GB too late then."""

INODE_BYTES = 1024  # in memory: tmpfs's inode, name and extended attributes' list

MAX_LOG_BYTES = 16 << 20

LOG_BYTES = 1 << 16
"""Of a jail's log, taken at a time, POLL_S apart: who prints more waits, and costs no CPU out here."""

PIPE_BYTES = 1 << 20  # most that a pipe holds (pipe(7))
MAX_LINE_BYTES = 1 << 14  # of standard input: `log` and a path of 4096 bytes

GIVE_UP_S = 10.0
"""Seconds of SIGKILL after which what is left cannot be killed (uninterruptible, or another user's)."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Process:
    """One process as /proc showed it. start: clock ticks since boot; with the pid it names a process for ever."""

    __slots__ = ("parent", "pid", "session", "start")

    def __init__(self, pid: int, parent: int, session: int, start: int) -> None:
        self.pid, self.parent, self.session, self.start = pid, parent, session, start


def look(pid: int) -> Process | None:
    """The process with this pid, or None when there is none or only its zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name stands in parentheses and may hold any byte, so count from the last one (proc_pid_stat(5)).
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if not fields or fields[0] in (b"Z", b"X"):
        return None
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]))


def processes() -> dict[int, Process]:
    """Every living process by pid."""
    seen = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in seen if process is not None}


def descendants(of: int) -> list[Process]:
    """The living descendants of a process, parents first."""
    children: dict[int, list[Process]] = {}
    for process in processes().values():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    parents = [of]
    while parents:
        born = [child for parent in parents for child in children.get(parent, ())]
        found += born
        parents = [child.pid for child in born]
    return found


def inside_of(bubblewrap: int, all_of_them: list[Process]) -> list[Process]:
    """Who is in a jail: all but bubblewrap itself and its child, the first process of the pid namespace."""
    first = [process.pid for process in all_of_them if process.parent == bubblewrap]
    return [process for process in all_of_them if process.pid not in (bubblewrap, *first)]


def in_session(session: int) -> list[Process]:
    """The living members of a session. Only descendants of its leader can be in it."""
    return [process for process in processes().values() if process.session == session]


def memory_of(pid: int, exact: bool = False) -> int:
    """Bytes that a process wrote to, in memory or swapped out. What a forked one shares with others counts for each of
    them; exact, which takes as long as it has much, each has its part of it. 0 when it is gone."""
    file_name, fields = (
        ("smaps_rollup", (b"Pss_Anon:", b"SwapPss:")) if exact else ("status", (b"RssAnon:", b"VmSwap:"))
    )
    try:
        with open(f"/proc/{pid}/{file_name}", "rb") as file:
            told = [line.split()[1] for line in file if line.startswith(fields)]
    except PermissionError:  # of root without CAP_SYS_PTRACE; status is everybody's
        return memory_of(pid) if exact else 0
    except OSError:
        return 0
    return sum(int(value) << 10 for value in told)


def first_to_go(pid: int) -> int:
    """Who goes first when there is too little memory: Ray gives its workers 1000, and its own processes less."""
    try:
        with open(f"/proc/{pid}/oom_score_adj", "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return -1000


def file_bytes(directory: str) -> int:
    """How much memory a file system in memory takes, with what the kernel keeps of each file; 0 when it is gone."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return 0
    return (found.f_blocks - found.f_bfree) * found.f_frsize + (found.f_files - found.f_ffree) * INODE_BYTES


def enter_groups(groups: list[str]) -> None:
    """Move this process into control groups. Raises OSError."""
    for group in groups:
        with open(f"{group}/cgroup.procs", "w") as file:
            file.write("0")


def leave_group(group: str) -> None:
    """Remove a control group, whose processes have ended."""
    for _ in range(5):
        try:
            os.rmdir(group)
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(POLL_S)  # the last of them is being buried
        else:
            return


def send_signal(process: Process, number: int) -> None:
    """Signal a process unless it has ended; another one that got its pid meanwhile is spared."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        now = look(process.pid)
        if now is not None and now.start == process.start:
            signal.pidfd_send_signal(handle, number)
    except OSError:
        pass  # ended between the two looks, or is another user's
    finally:
        os.close(handle)


def prctl(option: int, value: int) -> None:
    """prctl(2). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


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


def keep_capabilities(kept: tuple[int, ...]) -> None:
    """Give up all capabilities but these, also for what is executed later. Raises OSError."""
    for capability in range(LAST_CAPABILITY + 1):
        if capability not in kept:
            try:
                prctl(PR_CAPBSET_DROP, capability)
            except OSError:
                break  # more than the kernel has; or without CAP_SETPCAP, and then no_new_privs has to do
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("Ii", CAPABILITY_VERSION, 0)
    held = ctypes.create_string_buffer(24)  # effective, permitted and inheritable, of 0-31 and then of 32-63
    if libc.capget(header, held) == 0:
        words = [sum(1 << bit - first for bit in kept if 0 <= bit - first < 32) for first in (0, 32)]
        sets = struct.unpack("6I", held.raw)
        fewer = [sets[0] & words[0], sets[1] & words[0], 0, sets[3] & words[1], sets[4] & words[1], 0]
        if libc.capset(header, struct.pack("6I", *fewer)) == 0:
            return
    number = ctypes.get_errno()
    raise OSError(number, f"capabilities cannot be given up: {os.strerror(number)}")


def enter_namespaces(descriptors: list[int], jailed: bool) -> None:
    """Enter these namespaces, in order, for good. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    for descriptor in descriptors:
        if libc.setns(ctypes.c_int(descriptor), ctypes.c_int(0)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"its namespace cannot be entered: {os.strerror(number)}")
        os.close(descriptor)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if not jailed:
        keep_capabilities(KEPT)  # without root execve(2) takes even those


def start(command: list[str], enter: list[int], groups: list[str], jailed: bool, log: int) -> int:
    """Run a command, inside of the given namespaces, that is killed when this process dies and prints to the
    descriptor `log`. Returns its pid."""
    me = os.getpid()
    # A signal between fork and exec would go to our handler in the child, and be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return pid
    try:
        os.dup2(log, 2)
        enter_groups(groups)
        if enter:
            enter_namespaces(enter, jailed)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # after what may clear it: a change of credentials
        if os.getppid() == me:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGPIPE, *STOP_SIGNALS):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.execvp(command[0], command)
    except OSError as error:
        write(f"cannot run {command[0]}: {error}\n")
    finally:
        os._exit(127)


def write(text: str) -> None:
    """A line for the log; a log that cannot be written is no reason to leave processes behind."""
    try:
        os.write(2, text.encode())
    except OSError:
        pass


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
