"""What a secure connection runs on: bytes both ways, written by plain functions that never wait.

tcp.py has one over TCP, circuit_pipe.py one over a stream through a relay. A `Pipe` is also the raw connection that
py-libp2p's Noise handshake runs on.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from libp2p.abc import IRawConnection
from libp2p.connection_types import ConnectionType
from multiaddr.multiaddr import Multiaddr

from ..identity import PeerId
from .addresses import to_multiaddr


@dataclass(frozen=True, slots=True)
class Limit:
    """What a relay allows to one connection through it. duration_s, data_bytes: in each direction; 0 for no limit."""

    duration_s: int = 0
    data_bytes: int = 0


class Pipe(IRawConnection):
    """A connection to somebody who has not proved yet who it is. local: (ip, port) of this end. shares_port: we
    dialled, from a port that we listen on. relay, limit: through whom it runs, where it does, and how much that one
    allows."""

    local: tuple[str, int]
    shares_port = False
    relay: PeerId | None = None
    limit: Limit | None = None

    @property
    @abstractmethod
    def unsent(self) -> int:
        """How many bytes wait for the other side to read; `drain` sends them."""

    @abstractmethod
    def push(self, data: bytes) -> None:
        """Send what can be sent now and keep the rest. A broken connection takes everything and sends nothing:
        who reads from it will notice."""

    @abstractmethod
    async def drain(self) -> None:
        """Send what waits, until nothing does or the connection is closed."""

    @abstractmethod
    async def receive(self) -> bytes:
        """The next bytes; b"" at the end, however it came."""

    @abstractmethod
    def unread(self, data: bytes) -> None:
        """Put bytes back in front of those to be read."""

    @abstractmethod
    def shut(self) -> None:
        """Close the connection; what waits is lost."""

    @abstractmethod
    def get_remote_address(self) -> tuple[str, int]:
        """(ip, port) of the other side; of the relay where there is one."""

    # What py-libp2p's Noise uses ------------------------------------------------------------------------------

    async def read(self, n: int | None = None) -> bytes:
        """At most `n` bytes."""
        data = await self.receive()
        if n is not None and len(data) > n:
            self.unread(data[n:])
            return data[:n]
        return data

    async def write(self, data: bytes) -> None:
        """As `push`."""
        self.push(data)

    async def close(self) -> None:
        """As `shut`."""
        self.shut()

    def get_transport_addresses(self) -> list[Multiaddr]:
        """The other side's end of the connection: where it dialled from, or where it was dialled."""
        return [Multiaddr(to_multiaddr(*self.get_remote_address()))]

    def get_connection_type(self) -> ConnectionType:
        """Nothing between the two sides."""
        return ConnectionType.DIRECT
