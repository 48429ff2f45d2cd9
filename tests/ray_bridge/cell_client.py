"""Asks a cell for sockets, as a plane does."""

from __future__ import annotations

import socket

from swarmp2p.ray_bridge.cell import MAX_SOCKETS
from swarmp2p.transport.overlay.sockets import receive_descriptors


def sockets_of(link: socket.socket, count: int) -> list[socket.socket]:
    """New sockets of a cell."""
    made: list[socket.socket] = []
    while len(made) < count:
        wanted = min(count - len(made), MAX_SOCKETS)
        link.send(wanted.to_bytes(2, "big"))
        answer, descriptors = receive_descriptors(link, 16, MAX_SOCKETS)
        assert answer == b"s", answer
        assert len(descriptors) == wanted
        made += [socket.socket(fileno=descriptor) for descriptor in descriptors]
    return made


def listening(link: socket.socket, ip: str, port: int) -> socket.socket:
    """A listening socket of a cell."""
    (made,) = sockets_of(link, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((ip, port))
    made.listen(128)
    return made
