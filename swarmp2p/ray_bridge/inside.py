"""The first program in a jail: gives up what bubblewrap needed, sets limits and the system call filter, and becomes
the worker. A program of its own:

    python -I -S inside.py '{"user": 0, "groups": [], "limits": {"NPROC": 4096}, "filter": "", "work": "/tmp/work",
        "directories": ["/tmp/work"]}' COMMAND...

user: what a root lender's worker runs as, outside; 0 where bubblewrap was run without root, who then is nobody special
already; groups: that he is in there. limits: names of setrlimit(2) without RLIMIT_, soft and hard alike. filter: a BPF
program for seccomp(2), in base64; "" for none. directories: made for the worker, which owns them; work: the one of them
that the command is started in.

After it the worker has no capability in any user namespace, and no way to get one: no_new_privs is set, and for a root
lender there is a user namespace of its own here, as bubblewrap makes one for everybody else. Only the standard library
is used: it costs 20 ms, and its memory is given back by execve(2).
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import resource
import struct
import sys
from pathlib import Path
from typing import TypedDict

INSIDE_USER = 1000
"""User and group that a worker sees itself as; /etc/passwd of the jail names it."""

CLONE_NEWUSER = 0x10000000
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
LAST_CAPABILITY = 63
CAPABILITY_VERSION = 0x20080522


class Orders(TypedDict):
    """The argument."""

    user: int
    groups: list[int]
    limits: dict[str, int]
    filter: str
    work: str
    directories: list[str]


class Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


LIBC = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> None:
    """Raise OSError when a call has failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def prctl(option: int, value: object) -> int:
    """prctl(2)."""
    zero = ctypes.c_ulong(0)
    second = ctypes.c_ulong(value) if isinstance(value, int) else value
    return int(LIBC.prctl(ctypes.c_int(option), second, zero, zero, zero))


def become(user: int, groups: list[int]) -> None:
    """Be this user from now on, in a user namespace of one's own where the machine gives one. Raises OSError."""
    os.setgroups(groups)
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)  # takes the capabilities, too
    # A process that has changed its user does not own its own files in /proc until it says that it may be looked at.
    checked(prctl(PR_SET_DUMPABLE, 1), "PR_SET_DUMPABLE")
    if LIBC.unshare(ctypes.c_int(CLONE_NEWUSER)) != 0:
        return  # its owner allows them to root alone; then the worker is one more user without any right
    for name, text in (("setgroups", "deny"), ("uid_map", f"{INSIDE_USER} {user} 1"), ("gid_map", "")):
        Path(f"/proc/self/{name}").write_text(text or f"{INSIDE_USER} {user} 1")


def drop_capabilities() -> None:
    """Give up all that are left: a new user namespace gives all of its own to who makes it. Raises OSError."""
    for capability in range(LAST_CAPABILITY + 1):
        if prctl(PR_CAPBSET_DROP, capability) != 0:
            break  # more than the kernel has, or nothing is left to be given up
    header = struct.pack("Ii", CAPABILITY_VERSION, 0)
    checked(LIBC.capset(header, bytes(24)), "capset")


def limit(limits: dict[str, int]) -> None:
    """Set resource limits, as far as they are below what holds already. Raises OSError."""
    for name, most in limits.items():
        kind = int(getattr(resource, f"RLIMIT_{name}"))
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(kind, (most, most))


def load_filter(instructions: bytes) -> None:
    """Have the kernel judge every later system call by this BPF program. Raises OSError."""
    program = Program(len(instructions) // 8, instructions)
    checked(prctl(PR_SET_NO_NEW_PRIVS, 1), "PR_SET_NO_NEW_PRIVS")
    mode = ctypes.c_ulong(SECCOMP_MODE_FILTER)
    checked(LIBC.prctl(ctypes.c_int(PR_SET_SECCOMP), mode, ctypes.byref(program), 0, 0), "seccomp filter")


def main(arguments: list[str]) -> int:
    """The program; it returns only in failure."""
    orders: Orders = json.loads(arguments[0])
    command = arguments[1:]
    try:
        if orders["user"]:
            become(orders["user"], orders["groups"])
        drop_capabilities()
        checked(prctl(PR_SET_NO_NEW_PRIVS, 1), "PR_SET_NO_NEW_PRIVS")
        os.umask(0o077)
        for directory in orders["directories"]:
            Path(directory).mkdir(mode=0o700, exist_ok=True)
        os.chdir(orders["work"])
        limit(orders["limits"])
        if orders["filter"]:
            load_filter(base64.b64decode(orders["filter"]))
        os.execvp(command[0], command)
    except OSError as problem:
        os.write(2, f"the jail cannot run {command[0]}: {problem}\n".encode())
    return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
