"""Which of a member's WireGuard links stand, and which of a partner's endpoints is tried. Pure.

    TRYING --keys were agreed on--> UP --nothing came for too long--> SILENT --something came--> UP
       | ^ next endpoint, after `try_s`
       +-+
       | no keys within `give_up_s` (told once; it goes on trying)

A partner may be reached at several endpoints, of which WireGuard knows one at a time. The tunnel has every partner from
the start, also those that have no endpoint and send first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from ..mesh.members import MemberId
from ..mesh.plan import WireGuardPeer
from .description import TunnelPeer


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """Times in seconds.

    try_s: for one endpoint, when there are others. WireGuard's first packet goes at once; one round trip is enough.
    give_up_s: until a link that never came up is told as lost. silent_s: without a packet, of which there is one each
    `keepalive_s`. look_s, look_trying_s: between looks at what WireGuard knows, each of which costs some 5 ms of CPU.
    """

    try_s: float = 2.5
    give_up_s: float = 8.0
    keepalive_s: int = 2
    silent_s: float = 8.0
    look_s: float = 2.0
    look_trying_s: float = 0.1


@dataclass(frozen=True, slots=True)
class LinkUp:
    """Packets go both ways."""

    member: MemberId


@dataclass(frozen=True, slots=True)
class LinkLost:
    """A link did not come up, or is silent. Connections through it were reset. It may come up later."""

    member: MemberId
    reason: str


LinkEvent = LinkUp | LinkLost


class LinkState(Enum):
    """Of one link; see the module."""

    TRYING = auto()
    UP = auto()
    SILENT = auto()


@dataclass(slots=True)
class _Link:
    peer: WireGuardPeer
    began: float  # to try
    turned: float  # to the present endpoint
    turn: int = 0
    state: LinkState = LinkState.TRYING
    told: bool = False
    received: int = 0
    heard: float = 0.0


class Links:
    """All links of one member; at most as many as the plan names."""

    def __init__(self, config: LinkConfig | None = None) -> None:
        self._config = config or LinkConfig()
        self._links: dict[bytes, _Link] = {}

    def follow(self, peers: Sequence[WireGuardPeer], now: float) -> None:
        """These are the partners now. Those that stay keep their state, also when their endpoints changed."""
        links = dict[bytes, _Link]()
        for peer in peers:
            link = self._links.get(peer.key)
            if link is None or replace(link.peer, endpoints=peer.endpoints) != peer:
                link = _Link(peer, now, now)
            link.peer = peer
            links[peer.key] = link
        self._links = links

    def wanted(self) -> tuple[TunnelPeer, ...]:
        """What the tunnel is to have."""
        return tuple(self._as_tunnel_peer(link) for link in self._links.values())

    def state(self, member: MemberId) -> LinkState | None:
        """How a partner's link is; None for who is none."""
        return next((link.state for link in self._links.values() if link.peer.member == member), None)

    def member(self, key: bytes) -> MemberId | None:
        """Whose key it is."""
        link = self._links.get(key)
        return link.peer.member if link is not None else None

    def saw(
        self, handshakes: Mapping[bytes, int], received: Mapping[bytes, int], now: float
    ) -> tuple[list[LinkEvent], list[bytes]]:
        """What WireGuard knows, by key: when keys were agreed on, and bytes received.

        Returns what happened, and the keys of partners whose next endpoint is to be tried: the tunnel must forget them
        before it is given `wanted`, because WireGuard waits 5 s before it tries again with a partner that it knows.
        """
        events, turned = list[LinkEvent](), list[bytes]()
        for key, link in self._links.items():
            if received.get(key, 0) != link.received:
                link.received, link.heard = received.get(key, 0), now
            if link.state is LinkState.TRYING:
                if handshakes.get(key):
                    link.state, link.heard = LinkState.UP, now
                    events.append(LinkUp(link.peer.member))
                    continue
                if now - link.began >= self._config.give_up_s and not link.told:
                    link.told = True
                    events.append(LinkLost(link.peer.member, self._in_vain(link)))
                if now - link.turned >= self._config.try_s and len(link.peer.endpoints) > 1:
                    link.turn, link.turned = link.turn + 1, now
                    turned.append(key)
            elif link.state is LinkState.UP and now - link.heard >= self._config.silent_s:
                link.state = LinkState.SILENT
                reason = f"no WireGuard packet came for {self._config.silent_s:.0f} s"
                events.append(LinkLost(link.peer.member, reason))
            elif link.state is LinkState.SILENT and link.heard == now:
                link.state = LinkState.UP
                events.append(LinkUp(link.peer.member))
        return events, turned

    @property
    def look_s(self) -> float:
        """Seconds until the next look is due."""
        trying = any(link.state is LinkState.TRYING and not link.told for link in self._links.values())
        return self._config.look_trying_s if trying else self._config.look_s

    def _in_vain(self, link: _Link) -> str:
        where = ", ".join(f"{each.ip} port {each.port}" for each in link.peer.endpoints)
        return (
            f"no WireGuard keys were agreed on within {self._config.give_up_s:.0f} s "
            f"({'UDP sent to ' + where if where else 'it was to send first'}); does a firewall let UDP in?"
        )

    def _as_tunnel_peer(self, link: _Link) -> TunnelPeer:
        peer = link.peer
        endpoint = peer.endpoints[link.turn % len(peer.endpoints)] if peer.endpoints else None
        return TunnelPeer(
            key=peer.key,
            address=peer.inside,
            alias=peer.address,
            ports=peer.block.ports,
            endpoint=(endpoint.ip, endpoint.port) if endpoint is not None else None,
            keepalive_s=self._config.keepalive_s,
        )
