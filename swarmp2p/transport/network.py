"""What a driver needs from a transport."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from ..engine import Address, Message, NetworkEvent
from ..identity import PeerId


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

    async def run(self, deliver: Callable[[NetworkEvent], Awaitable[None]]) -> None:
        """Carry messages until cancelled. `deliver` may wait when the driver is behind."""
        ...
