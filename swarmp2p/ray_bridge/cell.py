"""A cell: a network namespace that has nothing but `lo`, for one worker. A program of its own:

    python -I -S cell.py SOCKET [--user-namespace]

It makes the namespace and passes out sockets that are inside, until it is ended. SOCKET is the descriptor of a Unix
socket (SOCK_SEQPACKET), over which whoever forwards the worker's connections asks for them:

    request   2 bytes, big-endian: how many new IPv4 TCP sockets are wanted, 1 to 128
    answer    b"s" and the sockets (SCM_RIGHTS), or b"e" and the errno in 2 bytes, big-endian

A socket belongs for ever to the namespace that it was made in, whoever binds, connects or accepts on it later: so one
request serves listeners and connections alike, and nothing waits for this program. Requests are answered in order.

Ray's listeners at wildcard addresses reach nobody there,
and a worker reaches nothing but the listeners that were made in it: not this machine's loopback services, not its
networks, not DNS. Processes enter by /proc/PID/ns/net (`supervisor.py --enter`); an interface may be moved in by it.

On standard output it says `{"cell": PID}` once the cell stands, or `{"failed": "why"}`.

Making a network namespace takes CAP_SYS_ADMIN, which everybody has inside a new user namespace of one's own: that is
the way without root (--user-namespace). The user stays who he is: he is mapped to himself, so that files belong to
whom they did, and programs started inside have no capability (execve(2) takes them from all but root). Only the
standard library is used, so that this starts in 20 ms and takes 8 MB.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1

COUNTS = (("max_inotify_instances", 32), ("max_inotify_watches", 32768))
"""Of what the kernel counts for each user, as much as there may be in a cell (user_namespaces(7)). Without root a
worker counts as its lender, whose own programs would find nothing left: by default there are 128 instances."""

MAX_SOCKETS = 128
"""Of one answer; one message carries 253 descriptors at most (SCM_MAX_FD in Linux)."""

SWITCHES = (
    # file, what it holds where it forbids, the command that allows it
    ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),  # Debian
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    ("user/max_net_namespaces", "0", "sysctl -w user.max_net_namespaces=15000"),
)
"""What an owner may have switched off, in /proc/sys (user_namespaces(7); the second is Ubuntu's since 23.10)."""


def unshare(flags: int) -> None:
    """unshare(2), which Python has from 3.12 on. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(ctypes.c_int(flags)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def make_namespace(user_namespace: bool) -> None:
    """Move this process into a network namespace of its own, with `lo` up. Raises OSError."""
    if user_namespace:
        user, group = os.geteuid(), os.getegid()
        unshare(CLONE_NEWUSER)
        # Without root, groups can be mapped only by who gave up setgroups(2) (user_namespaces(7)).
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            Path(f"/proc/self/{name}").write_text(text)
        for name, most in COUNTS:
            try:
                Path(f"/proc/sys/user/{name}").write_text(str(most))
            except OSError:
                pass  # in a container, where it is read-only: then the user's own bound is all there is
    unshare(CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def explain(problem: OSError, settings: Path = Path("/proc/sys")) -> str:
    """Why there is no namespace, and what allows it."""
    said = f"this machine gives no network namespace to a worker: {problem.strerror or problem}"
    for name, forbidden, remedy in SWITCHES:
        try:
            found = (settings / name).read_text().strip()
        except OSError:
            continue
        if found == forbidden:
            return f"{said}; its owner allows them by `{remedy}`"
    if problem.errno == errno.ENOSPC:
        return (
            f"{said}; there are too many already, raise user.max_user_namespaces and user.max_net_namespaces"
        )
    return (
        f"{said}; run as root with CAP_SYS_ADMIN, or allow user namespaces "
        "(in a container: its seccomp profile must let unshare(2) pass)"
    )


def serve(link: socket.socket) -> None:
    """Make sockets here, as asked, until the other end is closed."""
    while request := link.recv(2):
        made: list[int] = []
        try:
            for _ in range(min(int.from_bytes(request, "big"), MAX_SOCKETS)):
                made.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM).detach())
            link.sendmsg([b"s"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", made))])
        except OSError as problem:  # out of descriptors, or the other end has gone: then recv says so
            try:
                link.send(b"e" + (problem.errno or errno.EMFILE).to_bytes(2, "big"))
            except OSError:
                return
        finally:
            for number in made:
                os.close(number)


def tell(subject: str, what: object) -> None:
    """A status line for the peer; when it does not listen any more, the supervisor is about to end us."""
    try:
        os.write(1, json.dumps({subject: what}).encode() + b"\n")
    except OSError:
        pass


def main(arguments: list[str]) -> int:
    """The program. Returns its exit status: it ends by itself only in failure."""
    with socket.socket(fileno=int(arguments[0])) as link:
        try:
            make_namespace("--user-namespace" in arguments[1:])
        except OSError as problem:
            tell("failed", explain(problem))
            return 1
        tell("cell", os.getpid())
        serve(link)
    while True:  # the namespace is still wanted
        signal.pause()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
