"""What a driver needs from a transport."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import trio

from ..engine import Address, Message, NetworkEvent
from ..identity import PeerId

if TYPE_CHECKING:
    # py-libp2p pulls in the old trio-stubs, which hide trio's own types and lack trio.TaskStatus.
    from trio_typing import TaskStatus

Deliver = Callable[[NetworkEvent], Awaitable[None]]
"""Takes one event to the driver; may wait when the driver is behind."""


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
