"""Starts the supervisor's command: in control groups and namespaces, with few capabilities, and killed when the
supervisor dies. (Started with it, this takes nothing but the standard library.)"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import time

from .processes import POLL_S

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

KEPT = (0, 1, 3, 4, 5, 6, 7, 10, 14, 18, 23, 24)
"""Capabilities (linux/capability.h) that root keeps in a cell: those by which it uses files and processes as its own
(CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SYS_CHROOT), and what programs ask for that compute
(NET_BIND_SERVICE, IPC_LOCK, SYS_NICE, SYS_RESOURCE). By the others it could leave the network namespace or change it
(SYS_ADMIN, NET_ADMIN, NET_RAW, SYS_PTRACE, SYS_MODULE), or reach into the kernel (SYS_RAWIO, MKNOD, BPF)."""

LAST_CAPABILITY = 63
CAPABILITY_VERSION = 0x20080522  # of capset(2)'s structures: the third, of two words for each set

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Which end the tree when they come to the supervisor."""


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


def prctl(option: int, value: int) -> None:
    """prctl(2). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def write(text: str) -> None:
    """A line for the log; a log that cannot be written is no reason to leave processes behind."""
    try:
        os.write(2, text.encode())
    except OSError:
        pass
