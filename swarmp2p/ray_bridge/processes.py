"""Processes as /proc shows them, and signals that reach no other. For the supervisor too: the standard library only."""

from __future__ import annotations

import os
import signal

POLL_S = 0.02
"""Seconds between two looks at the descendants while the tree ends."""

INODE_BYTES = 1024  # in memory: tmpfs's inode, name and extended attributes' list


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


def all_processes() -> dict[int, Process]:
    """Every living process by pid."""
    seen = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in seen if process is not None}


def descendants(of: int) -> list[Process]:
    """The living descendants of a process, parents first."""
    children: dict[int, list[Process]] = {}
    for process in all_processes().values():
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
    return [process for process in all_processes().values() if process.session == session]


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
