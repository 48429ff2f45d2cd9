"""Watches whether others can dial this peer, and tells the engine when that changes (reachability.py decides)."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from ..engine import Address, Reachable
from ..identity import PeerId
from .autonat import ask_around
from .links import Links
from .muxer import MuxedConnection
from .network import Deliver
from .reachability import Reachability


class Watch:
    """The reachability of one running host. me, addresses: who it is and where it listens."""

    def __init__(self, links: Links, me: PeerId, addresses: Sequence[Address], deliver: Deliver) -> None:
        self.reach = Reachability(addresses)
        self._links, self._me, self._addresses, self._deliver = links, me, tuple(addresses), deliver
        self._told = True
        self._news = trio.Event()

    def on_up(self, connection: MuxedConnection) -> None:
        """A new connection."""
        before = (self.reach.reachable, self.reach.ask_at)
        if connection.dialled is None:
            self.reach.dialled_by(connection.remote[0], trio.current_time())
        else:
            self.reach.dialled(connection.remote[0], trio.current_time())
        if (self.reach.reachable, self.reach.ask_at) != before:
            self._news.set()

    def tell(self) -> None:
        """Deliver what the engine does not know yet."""
        if self.reach.reachable != self._told:
            self._told = self.reach.reachable
            self._deliver(Reachable(self._told))

    async def run(self) -> None:
        """Ask and tell, until cancelled."""
        while True:
            with trio.move_on_at(self.reach.ask_at):
                await self._news.wait()
            self._news = trio.Event()
            self.tell()
            if trio.current_time() >= self.reach.ask_at:
                await ask_around(self._links.all(), self.reach, self._me, self._addresses)
                self.reach.asked(trio.current_time())
                self.tell()
