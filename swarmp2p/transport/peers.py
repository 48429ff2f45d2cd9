"""Which peers a host deals with, and when the engine hears that they came and went.

Each peer that is connected, or is dialled because something was sent to it, has one `PeerSession` and one task
that looks after it: it delivers PeerUp, owns the tasks of the peer's streams, and delivers PeerDown when they
are gone. So the engine hears of a peer in this order only: PeerUp, what it sent, PeerDown; and PeerDown alone
when a dial failed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import trio

from ..engine import Address, PeerDown, PeerUp
from ..errors import DialError
from ..identity import PeerId
from ..wire import WireProtocol
from .addresses import to_multiaddr
from .config import HostConfig, HostStats
from .identify import Identified, identify
from .links import Links
from .muxer import MuxedConnection, MuxedStream
from .network import Deliver
from .session import PeerSession
from .trim import Held, least_useful

_log = logging.getLogger(__name__)


class Peers:
    """The sessions of one host while it runs.

    links: who is connected. deliver: to the driver. protocols: of the engines. soon: calls something once, after this
    turn of the loop.

    To be set before the first connection, where somebody needs it: wants says whether a peer that we dialled is to be
    asked who it is, on_said hears what those say whom we dialled.
    """

    def __init__(
        self,
        links: Links,
        config: HostConfig,
        stats: HostStats,
        deliver: Deliver,
        nursery: trio.Nursery,
        protocols: Sequence[WireProtocol],
        soon: Callable[[Callable[[], None]], None],
    ) -> None:
        self._links, self._config, self._stats = links, config, stats
        self._deliver, self._nursery, self._soon = deliver, nursery, soon
        self._protocols = tuple(protocols)
        self._sessions: dict[PeerId, PeerSession] = {}
        self.wants: Callable[[MuxedConnection], bool] = lambda connection: False
        self.on_said: Callable[[MuxedConnection, Identified], None] = lambda connection, said: None

    def session(self, peer: PeerId) -> PeerSession:
        """The session of a peer to which something is sent; a new one dials."""
        return self._sessions.get(peer) or self._begin(peer)

    async def ready(self, peer: PeerId) -> PeerSession | None:
        """The session that a stream which a peer opened belongs to; None when its connection is over."""
        session = self._sessions.get(peer)
        while session is not None and session.gone.is_set():  # of an earlier connection
            await session.over.wait()
            session = self._sessions.get(peer)
        if session is not None:
            await session.ready.wait()
            if session.nursery is not None and not session.gone.is_set():
                return session
        return None

    def sweep(self, now: float) -> None:
        """Close what is idle, give up what is late."""
        for session in list(self._sessions.values()):
            session.sweep(now)
        self._trim(now)

    def _trim(self, now: float) -> None:
        """Close the least useful connections when there are too many."""
        links, config = self._links, self._config
        if links.count <= config.high_connections:
            return
        held: list[Held] = []
        for peer, session in self._sessions.items():
            connection = links.get(peer)
            if connection is not None:
                kept = session.asking or bool(connection.in_use) or links.is_protected(peer)
                inbound = connection.dialled is None
                held.append(Held(peer, connection.since, session.useful_at, inbound, kept))
        low, high, before = config.low_connections, config.high_connections, now - config.grace_s
        for peer in least_useful(held, links.count, high, low, before):
            self._stats.trimmed += 1
            links.disconnect(peer)

    def stop_serving(self, protocol: str) -> None:
        """End the streams on which others ask in a protocol."""
        for session in self._sessions.values():
            session.stop_serving(protocol)

    def take_push(self, session: PeerSession, stream: MuxedStream) -> None:
        """A peer says of itself what has changed."""
        if session.nursery is not None:
            session.nursery.start_soon(self._take_push, session, stream)

    async def _take_push(self, session: PeerSession, stream: MuxedStream) -> None:
        said = await session.take_push(self._protocols, stream)
        if said is not None:
            self.on_said(stream.connection, said)

    def on_up(self, connection: MuxedConnection) -> None:
        """A connection stands."""
        session = self._sessions.get(connection.peer) or self._begin(connection.peer)
        if not session.gone.is_set():
            session.connected.set()

    def on_down(self, peer: PeerId) -> None:
        """The last connection to a peer is over."""
        session = self._sessions.get(peer)
        if session is not None and session.nursery is not None:
            session.end()

    def punish(self, peer: PeerId, problem: str) -> None:
        """A peer sent what it should not; too often, and it is disconnected."""
        _log.info("bad message from %s: %s", peer, problem)
        if self._stats.offence(peer) % self._config.bad_messages == 0:
            self._links.disconnect(peer)

    def _begin(self, peer: PeerId) -> PeerSession:
        session = self._sessions[peer] = self._new_session(peer)
        self._nursery.start_soon(self._look_after, session)
        return session

    def _new_session(self, peer: PeerId) -> PeerSession:
        return PeerSession(
            peer,
            self._config,
            self._stats,
            self._deliver,
            lambda: self._links.get(peer),
            self._soon,
            self.punish,
            self._links.learn,
        )

    async def _look_after(self, session: PeerSession) -> None:
        peer = session.peer
        while True:
            if self._links.get(peer) is None:
                self._nursery.start_soon(self._dial, session)
                await session.connected.wait()
            known = await self._converse(session)
            del self._sessions[peer]
            session.over.set()
            if known or session.used:
                self._deliver(PeerDown(peer))  # and if the engine sends to it at once, another session begins
            if peer in self._sessions or self._links.get(peer) is None:
                return
            session = self._sessions[peer] = self._new_session(peer)  # it came back meanwhile

    async def _dial(self, session: PeerSession) -> None:
        """Dial a peer because something was sent to it; a connection of its own making will do as well."""
        try:
            await self._links.connect(session.peer)
        except DialError as problem:
            if self._links.get(session.peer) is None and not session.connected.is_set():
                _log.debug("%s", problem)
                session.end()
        session.connected.set()

    async def _converse(self, session: PeerSession) -> bool:
        """Carry messages while the peer is connected; whether its PeerUp was delivered."""
        connection = self._links.get(session.peer)
        if connection is None:
            session.end()
            return False
        async with trio.open_nursery() as nursery:
            session.start(nursery)
            try:
                addresses, said = await self._listening_at(connection)
                if not session.gone.is_set():
                    session.addresses = addresses
                    outbound, remote = connection.dialled is not None, to_multiaddr(*connection.remote)
                    record = said.record if said is not None else b""
                    self._deliver(PeerUp(session.peer, addresses, outbound, remote, record))
                    session.up.set()
                    if said is not None:
                        await session.identified(self._protocols, said)
                    elif outbound and (self._config.ask_records or self.wants(connection)):
                        nursery.start_soon(self._ask, session, connection)
                    del record
                    del said  # as long as the connection stands, it is 1 kB
                    await session.gone.wait()
            finally:
                session.nursery = (
                    None  # before it closes: what is sent from now on must not start a task in it
                )
            nursery.cancel_scope.cancel()
        return session.up.is_set()

    async def _ask(self, session: PeerSession, connection: MuxedConnection) -> None:
        """Have a peer that we dialled say who it is."""
        said = await identify(connection, self._config.identify_timeout_s)
        if said is not None:
            self.on_said(connection, said)
            await session.identified(self._protocols, said)
            session.certified(said)

    async def _listening_at(
        self, connection: MuxedConnection
    ) -> tuple[tuple[Address, ...], Identified | None]:
        """Where a peer can be dialled: where we did, or what it says when it dialled us; with that."""
        if connection.dialled is not None:
            return (connection.dialled,), None
        said = await identify(connection, self._config.identify_timeout_s)
        if said is None:
            return (), None
        self._links.learn(connection.peer, said.addresses)
        return said.addresses[: self._config.known_addresses], said
