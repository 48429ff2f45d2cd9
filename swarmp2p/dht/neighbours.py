"""The peers nearest to the own id, whose connections the network should keep when it has too many.

They hold the same records and ask each other most; and a flood of strangers must not push them out.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..engine import PeerInfo, Protect
from ..identity import PeerId


class Neighbours:
    """Who they were when last looked at; at most as many as are given."""

    def __init__(self) -> None:
        self._peers: dict[PeerId, None] = {}

    def __len__(self) -> int:
        return len(self._peers)

    def update(self, nearest: Iterable[PeerInfo]) -> list[Protect]:
        """They are these now: what to tell the network."""
        before, self._peers = self._peers, {info.peer: None for info in nearest}
        return [
            *(Protect(peer, protected=False) for peer in before if peer not in self._peers),
            *(Protect(peer, protected=True) for peer in self._peers if peer not in before),
        ]
