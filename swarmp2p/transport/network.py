"""What a driver, and a whole peer, need from a transport."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import trio
import trio.abc

from ..engine import Address, Message, NetworkEvent
from ..identity import PeerId
from ..scopes import TaskStatus
from .reachability import Status

Deliver = Callable[[NetworkEvent], None]
"""Gives the driver one event, which it handles before this returns. Raises what the engine raises, which is a bug and
ends the peer."""


class PeerStream(trio.abc.HalfCloseableStream):
    """A stream of an embedder's own protocol: bytes both ways, authenticated and encrypted, in order.

    trio's stream rules hold. `receive_some` returns what has arrived, b"" once the other side has closed its
    half; `send_eof` closes ours. A stream that the other side reset, or whose connection broke, raises
    trio.BrokenResourceError; one that was closed here raises trio.ClosedResourceError.
    """

    @property
    @abstractmethod
    def peer(self) -> PeerId:
        """The peer at the other end."""

    @property
    @abstractmethod
    def protocol(self) -> str:
        """The protocol id that was agreed on."""

    def widen(self, window_bytes: int) -> None:
        """Expect much: let the other side have so many bytes under way that were not received here. Nothing happens
        where there is no such limit, or the stream has ended."""

    async def superseded(self) -> None:
        """Wait until a stream opened now would have a better way: a direct one, where this one's is through a relay.
        Returns never where that cannot come."""
        await trio.sleep_forever()

    @abstractmethod
    def reset(self) -> None:
        """End the stream at once, both ways: the other side sees it break instead of an orderly end. Nothing
        happens when it is closed already."""


StreamHandler = Callable[[PeerStream], Awaitable[None]]
"""Serves one stream that another peer opened; the stream is closed when it returns, reset when it raises."""


class Network(Protocol):
    """Carries messages between this peer and others. transport/host.py is one over libp2p, memory.py one for
    tests; embedders may bring their own."""

    @property
    def peer_id(self) -> PeerId:
        """The local peer."""
        ...

    def send(self, to: PeerId, message: Message) -> None:
        """Queue a message; never blocks. When the peer's queue is full it is dropped and counted."""
        ...

    def introduce(self, peer: PeerId, addresses: Sequence[Address]) -> None:
        """Remember where a peer can be dialled."""
        ...

    def disconnect(self, peer: PeerId) -> None:
        """Close every connection to a peer, in the background."""
        ...

    def protect(self, peer: PeerId, protected: bool) -> None:
        """Keep the connections to a peer when there are too many; or do not, any more."""
        ...

    def serve(self, protocol: str, serving: bool) -> None:
        """Serve a protocol of the engine's, by its WireProtocol's name, or refuse it; tell those connected."""
        ...

    async def run(
        self,
        deliver: Deliver,
        *,
        task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Carry messages until cancelled.

        task_status.started() is called once the peer can be reached; sends before that are queued or dropped.
        Raises ListenError when it cannot listen.
        """
        ...


class PeerNetwork(Network, Protocol):
    """What a whole peer (peer.py) needs beyond its driver: own addresses, dialling, streams of its own."""

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where others can dial this peer: binary multiaddrs without /p2p, known once `run` has started."""
        ...

    async def addresses_other_than(self, known: Sequence[Address]) -> tuple[Address, ...]:
        """`addresses` as soon as they are no longer these."""
        ...

    @property
    def reachability(self) -> Status:
        """Whether others can dial this peer, as far as is known."""
        ...

    def ip_of(self, peer: PeerId) -> str:
        """The IP address that a connected peer is at, as the operating system says; "" for one that is reached through
        a relay, or not connected."""
        ...

    @property
    def connected(self) -> tuple[PeerId, ...]:
        """Peers with which a connection stands."""
        ...

    @property
    def counters(self) -> Mapping[str, int]:
        """What was counted so far, such as "sent", "received" and, by cause, "dropped: queue full"."""
        ...

    async def dial_peer(self, peer: PeerId, addresses: Sequence[Address] = ()) -> None:
        """Connect to a peer at these addresses, or those known from `introduce`; at once when connected.

        Raises DialError, or PeerMismatch when another peer answers.
        """
        ...

    def set_handler(self, protocol: str, handler: StreamHandler) -> None:
        """Serve a protocol; replaces the handler before. Raises UsageError for the network's own ids."""
        ...

    def remove_handler(self, protocol: str) -> None:
        """Stop serving a protocol; streams that are open stay."""
        ...

    async def open_stream(self, peer: PeerId, protocol: str) -> PeerStream:
        """Open a stream, dialling where needed. Raises ProtocolUnsupported, DialError."""
        ...
