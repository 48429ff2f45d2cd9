"""Which system calls a jail's processes may make: a BPF program for seccomp(2), as bytes. Pure.

What is refused, although the user in a jail has no capability anyway: calls of which a worker needs none and in which
kernels had their holes (namespaces, mounts, keyrings, BPF, io_uring, tracing, modules, odd sockets), and calls by which
it would get around what else bounds it. Everything else is allowed, for tasks are programs of any kind; but a call that
is newer than this file (LAST) does not exist. What is refused by number fails as it does where it is forbidden
(EPERM); what programs can do without is said not to exist (ENOSYS), so that they take the older way.

The program is a list of instructions of 8 bytes (struct sock_filter): code, jump if true, jump if false, value. Jumps
are counted in instructions from the next one. Kernels since 5.11 work out once which numbers are always allowed.
"""

from __future__ import annotations

import errno
import struct
from typing import Final

AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""Machine, as uname(2) names it, to what the kernel calls the way of calling it (linux/audit.h)."""

LAST: Final = 462
"""mseal(2) of Linux 6.10, the newest call that was considered; numbers from 424 on are those of every machine."""

FORBIDDEN: Final = {
    # name: number on x86_64, on aarch64; -1 where there is none
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "vmsplice": (278, 75),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "lookup_dcookie": (212, 18),
    "iopl": (172, -1),
    "ioperm": (173, -1),
    "modify_ldt": (154, -1),
    "uselib": (134, -1),
    "_sysctl": (156, -1),
    "ustat": (136, -1),
    "sysfs": (139, -1),
}

ABSENT: Final = {
    "clone3": (435, 435),  # takes its flags in memory, where no filter can look; libraries go on to clone
    "io_uring_setup": (425, 425),  # does what other calls do, past this filter
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "memfd_secret": (447, 447),
}

UNCOUNTED: Final = {"memfd_create": (319, 279), "shmget": (29, 194)}
"""Memory that belongs to no process and no directory: absent where no cgroup counts it."""

_CLONE: Final = (56, 220)
_SOCKET: Final = (41, 198)
_SOCKETPAIR: Final = (53, 199)
_IOCTL: Final = (16, 29)
_PERSONALITY: Final = (135, 92)
_SETRLIMIT: Final = (160, 164)
_PRLIMIT: Final = (302, 261)

NAMESPACES: Final = 0x7E020000  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET of linux/sched.h
FAMILIES: Final = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}
NETLINK: Final = 16  # for NETLINK_ROUTE (0) alone, which says what interfaces there are
PROTOCOLS: Final = (0, 1, 6, 17, 58)  # any, ICMP, TCP, UDP, ICMPv6: others load kernel modules, or are raw
TERMINAL: Final = (0x5412, 0x541C)  # TIOCSTI and TIOCLINUX: typing into another's terminal
SAME: Final = (0, 0xFFFFFFFF)  # personality(2): Linux's own, and the question which it is
CORE: Final = (
    4  # RLIMIT_CORE, which inside.py sets: core dumps go to programs of the machine's, outside of all jails
)
X32: Final = 0x40000000  # x86_64's second way of calling, by which numbers would be others

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # linux/bpf_common.h
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000


def system_call_filter(machine: str, counted: bool) -> bytes:
    """The program for a machine, a key of AUDIT_ARCH.

    counted: whether a cgroup counts all memory; otherwise what a watcher could not see does not exist (UNCOUNTED).
    """
    column = 0 if machine == "x86_64" else 1
    lines = [
        _line(_LOAD, _ARCH),
        _line(_EQUAL, AUDIT_ARCH[machine], 1, 0),
        _line(_RETURN, _KILL),
        _line(_LOAD, _NUMBER),
        _line(_AT_LEAST, LAST + 1, 0, 1),  # X32 and above, too
        _fail(errno.ENOSYS),
    ]
    absent = {**ABSENT, **({} if counted else UNCOUNTED)}
    for refused, number in ((FORBIDDEN, errno.EPERM), (absent, errno.ENOSYS)):
        for call in refused.values():
            if call[column] >= 0:
                lines += [_line(_EQUAL, call[column], 0, 1), _fail(number)]
    lines += _when(_CLONE[column], [_argument(0), _line(_ANY_BIT, NAMESPACES, 0, 1), _fail(errno.EPERM)])
    lines += _when(_SOCKETPAIR[column], [_argument(0), _line(_EQUAL, 1, 1, 0), _fail(errno.EAFNOSUPPORT)])
    lines += _when(_SOCKET[column], _socket())
    typing = [line for each in TERMINAL for line in (_line(_EQUAL, each, 0, 1), _fail(errno.EPERM))]
    lines += _when(_IOCTL[column], [_argument(1), *typing])
    lines += _when(
        _PERSONALITY[column],
        [_argument(0), _line(_EQUAL, SAME[0], 2, 0), _line(_EQUAL, SAME[1], 1, 0), _fail(errno.EPERM)],
    )
    lines += _when(_SETRLIMIT[column], [_argument(0), _line(_EQUAL, CORE, 0, 1), _fail(errno.EPERM)])
    new = [
        line
        for half in (_argument(2), _argument(2, 4))
        for line in (half, _line(_EQUAL, 0, 1, 0), _fail(errno.EPERM))
    ]
    lines += _when(_PRLIMIT[column], [_argument(1), _line(_EQUAL, CORE, 0, len(new)), *new])
    return b"".join([*lines, _line(_RETURN, _ALLOW)])


def _socket() -> list[bytes]:
    unix, inet, inet6 = FAMILIES.values()
    protocols = [line for each in PROTOCOLS for line in (_line(_EQUAL, each, 0, 1), _line(_RETURN, _ALLOW))]
    internet = [_argument(2), *protocols, _fail(errno.EPROTONOSUPPORT)]
    netlink = [_argument(2), _line(_EQUAL, 0, 1, 0), _fail(errno.EPROTONOSUPPORT), _line(_RETURN, _ALLOW)]
    return [
        _argument(0),
        _line(_EQUAL, unix, 0, 1),
        _line(_RETURN, _ALLOW),
        _line(_EQUAL, NETLINK, 0, len(netlink)),
        *netlink,
        _line(_EQUAL, inet, 2, 0),
        _line(_EQUAL, inet6, 1, 0),
        _fail(errno.EAFNOSUPPORT),
        *internet,
    ]


def _when(number: int, lines: list[bytes]) -> list[bytes]:
    """These lines for one call; it is allowed at their end."""
    return [_line(_EQUAL, number, 0, len(lines) + 1), *lines, _line(_RETURN, _ALLOW)]


def _argument(index: int, half: int = 0) -> bytes:
    """Load the lower half of an argument, which is all that the kernel takes of an int; half: 4 for the upper one.
    Both machines are little-endian."""
    return _line(_LOAD, _ARGUMENTS + 8 * index + half)


def _fail(number: int) -> bytes:
    return _line(_RETURN, _FAIL | number)


def _line(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)
