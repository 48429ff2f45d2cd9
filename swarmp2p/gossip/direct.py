"""Direct peers: connections kept up by agreement (gossipsub 1.1, "Explicit Peering Agreements")."""

from __future__ import annotations

from collections.abc import Container, Iterable

from ..engine import Introduce, NetworkOutput, Send
from ..identity import PeerId
from .config import GossipConfig
from .messages import Rpc


class DirectPeers:
    """Dials the direct peers that are not connected: with the first heartbeat, and then at intervals."""

    __slots__ = ("_config", "_due")

    def __init__(self, config: GossipConfig) -> None:
        self._config = config
        self._due = 0.0

    @property
    def wanted(self) -> bool:
        """Whether there are any."""
        return bool(self._config.direct_peers)

    def dial(self, connected: Container[PeerId], topics: Iterable[str], now: float) -> list[NetworkOutput]:
        """What has them dialled that are not connected, when it is time. A Send dials, so they are greeted with our
        topics; they will be again when the connection stands."""
        out: list[NetworkOutput] = []
        if self.wanted and now >= self._due:
            self._due = now + self._config.direct_connect_s
            greeting = Rpc(subscriptions=tuple((topic, True) for topic in topics))
            for info in self._config.direct_peers:
                if info.peer not in connected:
                    out += (Introduce(info.peer, info.addresses), Send(info.peer, greeting))
        return out
