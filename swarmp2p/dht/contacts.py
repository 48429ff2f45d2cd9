"""Which peers are connected, and what the network has been told about the others."""

from __future__ import annotations

from itertools import islice

from ..engine import Address, Introduce, PeerInfo
from ..identity import PeerId

_MAX_ADDRESSES = 16  # of one peer; as many as a message may bring (wire.py)


class Contacts:
    """Connections as PeerUp and PeerDown tell of them, and introductions made.

    max_connected: bounds both; beyond it the oldest is forgotten, which costs a repeated Introduce at most.
    """

    def __init__(self, max_connected: int) -> None:
        self._max = max_connected
        self._connected: dict[PeerId, tuple[Address, ...]] = {}
        self._introduced: dict[PeerId, tuple[Address, ...]] = {}

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._connected

    def __len__(self) -> int:
        return len(self._connected)

    def up(self, peer: PeerId, addresses: tuple[Address, ...]) -> None:
        """A connection stands; an empty list does not replace what the peer said before."""
        addresses = addresses[:_MAX_ADDRESSES]
        if addresses or peer not in self._connected:
            if len(self._connected) >= self._max and peer not in self._connected:
                del self._connected[next(iter(self._connected))]
            self._connected[peer] = addresses
        self._introduced.pop(peer, None)

    def down(self, peer: PeerId) -> None:
        """The last connection closed, or none could be made; the network may have forgotten the addresses."""
        self._connected.pop(peer, None)
        self._introduced.pop(peer, None)

    def info(self, peer: PeerId) -> PeerInfo | None:
        """A connected peer and where it says it can be dialled, if it says so."""
        addresses = self._connected.get(peer)
        return PeerInfo(peer, addresses) if addresses else None

    def some(self, count: int) -> list[PeerInfo]:
        """The peers that have been connected for longest, with or without addresses."""
        return [PeerInfo(peer, addresses) for peer, addresses in islice(self._connected.items(), count)]

    def introduce(self, info: PeerInfo) -> Introduce | None:
        """What the network must be told before something is sent to a peer; None when it knows."""
        peer, addresses = info.peer, info.addresses
        if peer in self._connected or not addresses or self._introduced.get(peer) == addresses:
            return None
        if len(self._introduced) >= self._max and peer not in self._introduced:
            del self._introduced[next(iter(self._introduced))]
        self._introduced[peer] = addresses
        return Introduce(peer, addresses)
