"""Which TCP ports of an address answer, as seen from a machine of the laboratory.

python -m tests.lab.scan ADDRESS [FIRST LAST]      prints a port a line
"""

from __future__ import annotations

import errno
import select
import socket
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.lab.namespaces import Node

_AT_ONCE: Final = 500
_PATIENCE_S: Final = 2.0  # for those that neither accept nor refuse


def open_ports(node: Node, address: str, first: int = 1, last: int = 65535) -> list[int]:
    """The ports in that range at which `address` accepts connections from `node`: ascending."""
    told = node.run(sys.executable, "-m", "tests.lab.scan", address, str(first), str(last), timeout_s=300.0)
    return [int(line) for line in told.split()]


def _batch(address: str, ports: range) -> list[int]:
    found: list[int] = []
    pending: dict[int, tuple[socket.socket, int]] = {}
    poll = select.poll()
    for port in ports:
        one = socket.socket()
        one.setblocking(False)
        failed = one.connect_ex((address, port))
        if failed == errno.EINPROGRESS:
            pending[one.fileno()] = one, port
            poll.register(one, select.POLLOUT)
            continue
        if not failed:
            found.append(port)
        one.close()
    while pending:
        ready = poll.poll(_PATIENCE_S * 1000)
        if not ready:
            break
        for number, _ in ready:
            one, port = pending.pop(number)
            poll.unregister(one)
            # A machine may connect to itself, from the very port that it tries.
            if not one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) and one.getsockname() != (
                address,
                port,
            ):
                found.append(port)
            one.close()
    for one, _ in pending.values():
        one.close()
    return found


def scan(address: str, first: int = 1, last: int = 65535) -> list[int]:
    """The same from where this runs."""
    starts = range(first, last + 1, _AT_ONCE)
    return [
        port
        for start in starts
        for port in sorted(_batch(address, range(start, min(start + _AT_ONCE, last + 1))))
    ]


def main() -> None:
    """Scan and print."""
    address, first, last = sys.argv[1], *(int(one) for one in sys.argv[2:4])
    for port in scan(address, first, last):
        print(port)


if __name__ == "__main__":
    main()
