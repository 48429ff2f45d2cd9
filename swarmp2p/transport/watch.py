"""Watches whether and where others can dial this peer, and tells the engine when that changes (reachability.py and
observed.py decide)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from ..engine import Address, Reachable
from ..identity import PeerId
from .autonat import ask_around
from .config import HostConfig
from .identify import Identified, identify
from .links import Links
from .muxer import MuxedConnection
from .network import Deliver
from .observed import Mapping, Observed
from .own_addresses import Origin, OwnAddresses
from .reachability import Reachability

_ASK_AGAIN_S: Final = 10.0  # after others were asked, when there is another address for them to try
_ASKED_WHAT_THEY_SEE: Final = 8  # of those connected, each time


class Watch:
    """The reachability of one running host. me, own: who it is and where it can be dialled."""

    def __init__(
        self, links: Links, me: PeerId, own: OwnAddresses, config: HostConfig, deliver: Deliver
    ) -> None:
        self.reach = Reachability(own.listening)
        self.observed = Observed(own.listening)
        self._links, self._me, self._own, self._config, self._deliver = links, me, own, config, deliver
        self._told = True
        self.on_reachable: Callable[[], None] = lambda: None  # called when `reach.reachable` has changed
        self._asked: tuple[tuple[Address, ...], float] = (
            (),
            0.0,
        )  # which candidates others were asked to try
        self._news = trio.Event()

    @property
    def mapping(self) -> Mapping:
        """What kind of NAT is between this peer and others."""
        return self.observed.mapping(trio.current_time())

    @property
    def candidates(self) -> tuple[Address, ...]:
        """Where others see us, said by somebody: for those who are asked to dial us, and for nobody else."""
        return self.observed.candidates(trio.current_time())

    @property
    def wants_to_be_seen(self) -> bool:
        """Whether dials should leave from the port that we listen on: it is of use behind a NAT only, and two peers
        that dial each other from there at one moment may miss each other."""
        return self.reach.status != "reachable" and self.mapping != "none"

    def on_up(self, connection: MuxedConnection) -> None:
        """A new connection. One through a relay says nothing, and one that both sides dialled neither."""
        if connection.relay is not None or connection.punched:
            return
        before = (self.reach.reachable, self.reach.ask_at)
        if connection.dialled is None:
            self.reach.dialled_by(connection.remote[0], trio.current_time())
        else:
            self.reach.dialled(connection.remote[0], trio.current_time())
        if (self.reach.reachable, self.reach.ask_at) != before:
            self._news.set()

    def wants(self, connection: MuxedConnection) -> bool:
        """Whether a peer is worth asking where it sees us."""
        now = trio.current_time()
        direct = connection.dialled is not None and connection.relay is None
        return direct and self.observed.wants(connection.remote[0], connection.local, now)

    def heard(self, connection: MuxedConnection, said: Identified) -> None:
        """A connected peer says where it sees us; those that dialled us are not listened to."""
        now = trio.current_time()
        if connection.dialled is None or connection.relay is not None:
            return
        self.observed.saw(connection.remote[0], connection.local, said.observed, now)
        asked, at = self._asked
        if any(one not in asked for one in self.observed.candidates(now)):
            before = self.reach.ask_at
            self.reach.ask_soon(max(now, at + _ASK_AGAIN_S))
            if self.reach.ask_at != before:
                self._news.set()
        self._tell_addresses()

    def tell(self) -> None:
        """Deliver what the engine does not know yet."""
        self._tell_addresses()
        if self.reach.reachable != self._told:
            self._told = self.reach.reachable
            self._deliver(Reachable(self._told))
            self.on_reachable()

    async def run(self) -> None:
        """Ask and tell, until cancelled."""
        while True:
            with trio.move_on_at(self._next()):
                await self._news.wait()
            self._news = trio.Event()
            self.tell()
            if trio.current_time() >= self.reach.ask_at:
                await self._ask_what_they_see()
                tried = self.candidates
                self._asked = (tried, trio.current_time())
                addresses = tuple(dict.fromkeys((*tried, *self._own.all)))
                await ask_around(self._links.all(), self.reach, self._me, addresses, self._reached)
                self.reach.asked(trio.current_time())
                self.tell()

    def _next(self) -> float:
        expires = self.observed.expires_at(trio.current_time())
        return self.reach.ask_at if expires is None else min(self.reach.ask_at, expires)

    def _tell_addresses(self) -> None:
        """What nobody can dial is told to nobody: others would wait for it."""
        said = self.observed.addresses(trio.current_time()) if self.reach.status != "unreachable" else ()
        self._own.set(Origin.OBSERVED, said)

    def _reached(self, connection: MuxedConnection, address: Address) -> None:
        self.observed.reached(connection.remote[0], address)

    async def _ask_what_they_see(self) -> None:
        """Ask those again whose word is getting old."""
        worth = [one for one in self._links.all() if self.wants(one)]

        async def one_of_them(connection: MuxedConnection) -> None:
            said = await identify(connection, self._config.identify_timeout_s)
            if said is not None:
                self.heard(connection, said)

        async with trio.open_nursery() as nursery:
            for connection in worth[:_ASKED_WHAT_THEY_SEE]:
                nursery.start_soon(one_of_them, connection)
