"""WireGuard as one member's carrier: `open_carrier` makes the interface, follows the plan, and says which links stand.

    async with open_carrier(cluster, member, on_event=...) as carrier:
        facts = replace(facts, wireguard_key=carrier.key, wireguard_endpoints=(Endpoint(own_ip, carrier.port),))
        await carrier.settle(own.wireguard_address, own.address, own.block)     # once the head has placed it
        await carrier.follow(plan.wireguard)                                    # after each change of the plan

`on_event` hears LinkUp and LinkLost of each partner, and TunnelLost when there is no interface any more.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from ...errors import WireGuardFailed
from ...scopes import background_nursery
from ..mesh.members import MemberId, PortBlock
from ..mesh.plan import WireGuardPeer
from .description import TunnelPlace, interface_name
from .keys import WireGuardKey
from .leftovers import RUNTIME
from .links import LinkConfig, LinkEvent, LinkLost, Links
from .tunnel import Tunnel, open_tunnel


@dataclass(frozen=True, slots=True)
class TunnelLost:
    """The interface is gone, or could not be changed: no link stands any more."""

    reason: str


CarrierEvent = LinkEvent | TunnelLost


class WireGuardCarrier:
    """One member's interface; made by `open_carrier`. key: public, for others. port: UDP."""

    def __init__(
        self, tunnel: Tunnel, key: bytes, links: Links, on_event: Callable[[CarrierEvent], None]
    ) -> None:
        self.key, self.port, self.kind = key, tunnel.port, tunnel.kind
        self._tunnel, self._links, self._on_event = tunnel, links, on_event
        self._changed = trio.Event()
        self._using = trio.Lock()

    async def settle(self, inside: str, address: str, block: PortBlock) -> None:
        """This member's place: its address in tunnels, and where its Ray node is reached. It never changes."""
        place = TunnelPlace(self._tunnel.interface, inside, address, block.ports)
        if self._tunnel.place != place:
            await self._tunnel.settle(place)

    async def follow(self, peers: Sequence[WireGuardPeer]) -> None:
        """Have links with these members and no others; the plan's `wireguard`. Connections with others are reset.

        Raises WireGuardFailed, after which there is no interface, and UsageError for members that cannot be.
        """
        async with self._using:
            self._links.follow(peers, trio.current_time())
            await self._tunnel.apply(self._links.wanted())
        self._changed.set()

    async def watch(self) -> None:
        """Look at the links again and again, and say what happens to them."""
        try:
            while True:
                self._changed = trio.Event()
                with trio.move_on_after(self._links.look_s):
                    await self._changed.wait()
                await self._look()
        except WireGuardFailed as failed:
            self._on_event(TunnelLost(failed.problem))

    async def tell_loss(self) -> None:
        """Wait for the interface's end."""
        self._on_event(TunnelLost(await self._tunnel.lost()))

    async def _look(self) -> None:
        async with self._using:
            handshakes, received = await self._tunnel.handshakes(), await self._tunnel.received()
            events, turned = self._links.saw(handshakes, received, trio.current_time())
            wanted = self._links.wanted()
            if turned:
                await self._tunnel.apply([peer for peer in wanted if peer.key not in turned])
                await self._tunnel.apply(wanted)
            lost = {event.member for event in events if isinstance(event, LinkLost)}
            if lost:
                await self._tunnel.reset([peer for peer in wanted if self._links.member(peer.key) in lost])
        for event in events:
            self._on_event(event)


@asynccontextmanager
async def open_carrier(
    cluster: bytes,
    member: MemberId,
    *,
    on_event: Callable[[CarrierEvent], None],
    namespace: int = -1,
    listen_port: int = 0,
    config: LinkConfig | None = None,
    runtime: Path = RUNTIME,
) -> AsyncGenerator[WireGuardCarrier, None]:
    """Have a member's interface for the length of the context. Raises WireGuardFailed.

    namespace: descriptor of the network namespace of its cell, -1 for this process's own. on_event: a plain function,
    called in this trio thread; it must not block.
    """
    key, interface = WireGuardKey.generate(), interface_name(cluster, member)
    async with open_tunnel(
        interface, key, listen_port=listen_port, namespace=namespace, runtime=runtime
    ) as tunnel:
        carrier = WireGuardCarrier(tunnel, key.public, Links(config), on_event)
        async with background_nursery() as nursery:
            nursery.start_soon(carrier.watch)
            nursery.start_soon(carrier.tell_loss)
            yield carrier
