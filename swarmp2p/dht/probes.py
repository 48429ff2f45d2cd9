"""Whom to ask whether it serves the DHT, beyond those that are asked for something anyway.

A peer enters the routing table only by answering. A new connection is probed with a FIND_NODE, since a client-mode
peer may ask but does not answer. Probes must not breed probes: one to a peer that was not connected makes a
connection there, whose other end may probe as well; in a swarm whose tables are full that went on and on. So peers
that would only become spares are probed now and then, and those of the table only when they have not answered for
long.
"""

from __future__ import annotations

import math
from typing import Final

from ..engine import PeerInfo
from ..identity import PeerId
from .config import DhtConfig
from .routing import RoutingTable

_MAX_CLIENTS: Final = 1_024


class Probes:
    """The probes of one peer that are under way, and the clients that they have shown; bounded by config.max_probes
    and 1,024."""

    def __init__(self, table: RoutingTable, config: DhtConfig) -> None:
        self._table, self._config = table, config
        self._under_way: dict[PeerId, bool] = {}  # and whether the peer was in the table
        self._clients: dict[PeerId, float] = {}  # not probed until then
        self._next_spare = -math.inf

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def fresh_s(self) -> float:
        """For how long after an answer a peer of the table is not probed."""
        return self._config.refresh_interval_s / 2

    def begin(self, peer: PeerId) -> None:
        """A probe is being sent."""
        self._under_way[peer] = peer in self._table

    def ended(self, peer: PeerId) -> bool:
        """A request to a peer is over that nobody waited for. Returns whether it was the probe of a peer that was
        not in the table."""
        return self._under_way.pop(peer, True) is False

    def has_room(self, share: float = 1.0) -> bool:
        """Whether one more may be under way. share: of all the room, that may be taken."""
        return len(self._under_way) < share * self._config.max_probes

    def wants(self, info: PeerInfo, now: float) -> bool:
        """Whether a peer that has just connected should be probed."""
        if self.is_client(info.peer, now) or not self._table.wants(info):
            return False
        if not self._table.has_place_for(info.peer):
            if now < self._next_spare:
                return False
            self._next_spare = now + self._config.spare_probe_s
        return True

    def is_client(self, peer: PeerId, now: float) -> bool:
        """Whether a peer was found not to serve, a while ago at most."""
        return now < self._clients.get(peer, -math.inf)

    def client(self, peer: PeerId, now: float) -> None:
        """A connected peer does not serve: it is not probed again for a while."""
        self._clients.pop(peer, None)
        if len(self._clients) >= _MAX_CLIENTS:
            del self._clients[next(iter(self._clients))]
        self._clients[peer] = now + self._config.client_s

    def pardon(self, peer: PeerId) -> None:
        """A peer says that it serves now."""
        self._clients.pop(peer, None)
