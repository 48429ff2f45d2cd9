"""A task of evil intent: what it can do to the network around it, and to get out of it. Also a program of its own:

python -I -S escape.py PID...      says {"said": {"done": [...], "privileges": NoNewPrivs}} on standard output
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from functools import partial

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS = 0x8914
# RTM_NEWROUTE of a blackhole for all addresses: rtmsg, with table 254, protocol static, type blackhole
ROUTE = struct.pack("IHHII8BI", 28, 24, 0x405, 1, 0, socket.AF_INET, 0, 0, 0, 254, 4, 0, 6, 0)


def enter(descriptor: int) -> None:
    """The network namespace that a descriptor names."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if libc.setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)


def take_down(interface: str) -> None:
    """Change an interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", interface.encode(), 0))


def add_route() -> None:
    """Change the routes."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as kernel:
        kernel.send(ROUTE)
        number: int = struct.unpack("i", kernel.recv(4096)[16:20])[0]
        if number:
            raise OSError(-number, "route")


def escapes(outside: Sequence[int]) -> list[str]:
    """What could be done, first as one is and then as root of a user namespace of one's own; the latter for good.

    outside: pids of processes whose network namespace is to be entered.
    """

    def entering(pid: int) -> None:
        enter(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY))

    def entering_process(pid: int) -> None:
        enter(os.pidfd_open(pid))

    def raw() -> None:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()

    def packets() -> None:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()

    tries: list[tuple[str, Callable[[], None]]] = []
    for pid in outside:
        tries.append((f"/proc/{pid}/ns/net", partial(entering, pid)))
        tries.append((f"pidfd {pid}", partial(entering_process, pid)))
    tries += [("raw socket", raw), ("packet socket", packets), ("route", add_route)]
    for _, name in socket.if_nameindex():
        tries.append((f"down {name}", partial(take_down, name)))
    done: list[str] = []
    for root in ("", " as root of a user namespace"):
        if root and ctypes.CDLL(None).unshare(CLONE_NEWUSER):
            break
        for name, attempt in tries:
            with contextlib.suppress(OSError):
                attempt()
                done.append(name + root)
    return done


def main() -> None:
    """The program."""
    done = escapes([int(word) for word in sys.argv[1:]])
    with open("/proc/self/status") as status:
        privileges = status.read().split("NoNewPrivs:")[1].split()[0]
    print(json.dumps({"said": {"done": done, "privileges": privileges}}), flush=True)


if __name__ == "__main__":
    main()
