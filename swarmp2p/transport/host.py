"""Network over py-libp2p: TCP, Noise, Yamux, identify, ping.

    engine messages -> session.py -> outbox.py, requests.py, replies.py   queues and streams of one peer
    embedders       -> streams.py                                         streams of their own protocols
    both            -> muxer.py, yamux.py -> secure.py -> tcp.py          one connection
    links.py        who is connected, dialling, accepting
    swarm.py        py-libp2p's host, which sees all of it

Each connected peer has one task (`_attend`) that delivers its PeerUp, owns the tasks of its streams, and
delivers its PeerDown when they are gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import trio
from libp2p.tools.anyio_service import background_trio_service
from multiaddr.multiaddr import Multiaddr

from ..engine import Address, Message, PeerDown, PeerUp, Reply
from ..errors import BadMessage, DialError, ProtocolUnsupported, UsageError
from ..identity import Identity, PeerId
from ..scopes import TaskStatus, background_nursery
from ..wire import WireProtocol
from .addresses import listen_address, reachable, split_address
from .config import HostConfig, HostStats
from .identify import PROTOCOL_ID as IDENTIFY_ID
from .identify import Introduction, identify
from .links import Links
from .multistream import NegotiationEnded, choose, propose
from .muxer import MuxedConnection, MuxedStream
from .network import Deliver, PeerStream, StreamHandler
from .replies import Desk
from .session import PeerSession
from .streams import Libp2pStream
from .swarm import LibP2P, quiet
from .tcp import TcpListener

__all__ = ["Host", "HostConfig", "HostStats", "PeerStream"]

_log = logging.getLogger(__name__)


class Host:
    """A libp2p host that carries engines' messages and embedders' streams; a PeerNetwork.

    identity: its key. listen: multiaddrs to listen on, /ip4 or /ip6 with /tcp; none to dial only. protocols:
    of the engines' messages. stats: what it has counted.

    Raises AddressError for a listen address that cannot be one.
    """

    def __init__(
        self,
        identity: Identity,
        listen: Sequence[Multiaddr | str],
        protocols: Sequence[WireProtocol],
        config: HostConfig | None = None,
    ) -> None:
        quiet()
        self.stats = HostStats()
        self._identity = identity
        self._listen = [listen_address(address) for address in listen]
        self._config = config or HostConfig()
        self._by_name = {protocol.name: protocol for protocol in protocols}
        self._by_id = {one: protocol for protocol in protocols for one in protocol.ids}
        self._handlers: dict[str, StreamHandler] = {}
        self._addresses: tuple[Address, ...] = ()
        self._introduction: Introduction | None = None
        self._libp2p: LibP2P | None = None
        self._links: Links | None = None
        self._nursery: trio.Nursery | None = None
        self._deliver: Deliver | None = None
        self._sessions: dict[PeerId, PeerSession] = {}
        self._desk = Desk()
        self._due: dict[Callable[[], None], None] = {}
        self._work = trio.Event()

    @property
    def peer_id(self) -> PeerId:
        """The local peer."""
        return self._identity.peer_id

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where others can dial this peer: binary multiaddrs without /p2p, loopback last. Those of every
        interface where it listens on all of them; none before `run` has started."""
        return self._addresses

    @property
    def connected(self) -> tuple[PeerId, ...]:
        """Peers with which a connection stands."""
        return () if self._links is None else tuple({one.peer: None for one in self._links.all()})

    @property
    def connections(self) -> int:
        """How many connections stand, to however many peers."""
        return 0 if self._links is None else len(self._links.all())

    # Network: what the driver calls ---------------------------------------------------------------------------

    def send(self, to: PeerId, message: Message) -> None:
        """Queue a message, dialling where needed."""
        protocol = self._by_name[message.protocol]
        if self._links is None or to == self.peer_id:
            self.stats.dropped["not running" if self._links is None else "to itself"] += 1
        elif isinstance(message, Reply):
            if not self._desk.reply(message.id, protocol.encode(message)):
                self.stats.dropped["late reply"] += 1
        else:
            session = self._sessions.get(to) or self._attend(to)
            if session.gone.is_set():
                session.drop("going down")  # its PeerDown is on its way
            else:
                session.send(protocol, message)

    def introduce(self, peer: PeerId, addresses: Sequence[Address]) -> None:
        """Remember where a peer can be dialled; the oldest of 8,192 peers is forgotten."""
        if self._links is not None:
            self._links.learn(peer, addresses)

    def disconnect(self, peer: PeerId) -> None:
        """Close every connection to a peer."""
        if self._links is not None:
            self._links.disconnect(peer)

    async def run(
        self, deliver: Deliver, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Listen and carry messages until cancelled. Raises ListenError before anything is started."""
        listeners: list[TcpListener] = []
        try:
            for address in self._listen:
                listeners.append(TcpListener(address))
            await self._run(listeners, deliver, task_status)
        finally:
            for listener in listeners:
                listener.shut()
            self._addresses = ()
            self._sessions.clear()
            self._links = self._libp2p = self._nursery = self._deliver = None

    async def _run(
        self, listeners: list[TcpListener], deliver: Deliver, task_status: TaskStatus[None]
    ) -> None:
        self._deliver = deliver
        self._addresses = reachable([listener.bound for listener in listeners])
        libp2p = self._libp2p = LibP2P(self._identity)
        self._introduce_ourselves()
        links = self._links = Links(
            self.peer_id, libp2p, self._config, self.stats, self._on_stream, self._on_up, self._on_down
        )
        async with background_trio_service(libp2p.swarm), background_nursery() as nursery:
            self._nursery = nursery
            try:
                for listener in listeners:
                    libp2p.swarm.listeners[str(listener.get_addrs()[0])] = listener
                    nursery.start_soon(links.serve, listener, nursery)
                nursery.start_soon(self._flush)
                nursery.start_soon(self._sweep)
                task_status.started()
                await trio.sleep_forever()
            finally:
                links.close()

    # Peers ----------------------------------------------------------------------------------------------------

    def _attend(self, peer: PeerId) -> PeerSession:
        """Begin to look after a peer that is connected, or is to be."""
        session = self._sessions[peer] = self._new_session(peer)
        assert self._nursery is not None
        self._nursery.start_soon(self._look_after, session)
        return session

    def _new_session(self, peer: PeerId) -> PeerSession:
        links, deliver = self._links, self._deliver
        assert links is not None
        assert deliver is not None
        return PeerSession(
            peer, self._config, self.stats, deliver, lambda: links.get(peer), self._soon, self._punish
        )

    async def _look_after(self, session: PeerSession) -> None:
        links, deliver, peer = self._links, self._deliver, session.peer
        assert links is not None
        assert deliver is not None
        while True:
            if links.get(peer) is None:
                assert self._nursery is not None
                self._nursery.start_soon(self._dial_for, session)
                await session.connected.wait()
            known = await self._converse(session)
            if known or session.used:
                await deliver(PeerDown(peer))
            del self._sessions[peer]
            session.over.set()
            if links.get(peer) is None:
                return
            session = self._sessions[peer] = self._new_session(peer)  # it came back meanwhile

    async def _dial_for(self, session: PeerSession) -> None:
        """Dial a peer because something was sent to it; a connection of its own making will do as well."""
        assert self._links is not None
        try:
            await self._links.connect(session.peer)
        except DialError as problem:
            if self._links.get(session.peer) is None and not session.connected.is_set():
                _log.debug("%s", problem)
                session.end()
        session.connected.set()

    async def _converse(self, session: PeerSession) -> bool:
        """Carry messages while the peer is connected; whether its PeerUp was delivered."""
        assert self._links is not None
        assert self._deliver is not None
        connection = self._links.get(session.peer)
        if connection is None:
            session.end()
            return False
        async with trio.open_nursery() as nursery:
            session.start(nursery)
            addresses = await self._listening_at(connection)
            if not session.gone.is_set():
                await self._deliver(PeerUp(session.peer, addresses))
                session.up.set()
                await session.gone.wait()
            nursery.cancel_scope.cancel()
        return session.up.is_set()

    async def _listening_at(self, connection: MuxedConnection) -> tuple[Address, ...]:
        """Where a peer can be dialled: where we did, or what it says when it dialled us."""
        if connection.dialled is not None:
            return (connection.dialled,)
        said = await identify(connection, self._config.identify_timeout_s)
        if said is None:
            return ()
        assert self._links is not None
        self._links.learn(connection.peer, said.addresses)
        return said.addresses[: self._config.known_addresses]

    def _on_up(self, connection: MuxedConnection) -> None:
        session = self._sessions.get(connection.peer)
        if session is None:
            session = self._attend(connection.peer)
        if not session.gone.is_set():
            session.connected.set()

    def _on_down(self, peer: PeerId) -> None:
        session = self._sessions.get(peer)
        if session is not None and session.nursery is not None:
            session.end()

    def _punish(self, peer: PeerId, problem: str) -> None:
        """A peer sent what it should not; too often, and it is disconnected."""
        _log.info("bad message from %s: %s", peer, problem)
        if self.stats.offence(peer) % self._config.bad_messages == 0:
            self.disconnect(peer)

    # Streams --------------------------------------------------------------------------------------------------

    def _on_stream(self, stream: MuxedStream) -> None:
        if self._nursery is None:
            stream.reset()
        else:
            self._nursery.start_soon(self._talk, stream)

    async def _talk(self, stream: MuxedStream) -> None:
        """Agree on the protocol of a stream that another peer opened, and hand it to whom it concerns."""
        try:
            with trio.fail_after(self._config.negotiate_timeout_s):
                stream.protocol = await choose(stream, self._serves)
            await self._dispatch(stream)
        except (BadMessage, NegotiationEnded, trio.BrokenResourceError, trio.TooSlowError) as problem:
            stream.reset()
            if isinstance(problem, BadMessage):
                self._punish(stream.peer, str(problem))

    def _serves(self, protocol: str) -> bool:
        return (
            protocol in self._by_id
            or protocol in self._handlers
            or protocol == IDENTIFY_ID
            or (self._libp2p is not None and self._libp2p.serves(protocol))
        )

    async def _dispatch(self, stream: MuxedStream) -> None:
        protocol = self._by_id.get(stream.protocol)
        handler = self._handlers.get(stream.protocol)
        if stream.protocol == IDENTIFY_ID:
            assert self._introduction is not None
            self._introduction.answer(stream)
            return
        if protocol is None and handler is None:
            assert self._libp2p is not None
            await self._serve_for_libp2p(self._libp2p, stream)
            return
        session = self._sessions.get(stream.peer)
        while session is not None and session.gone.is_set():  # of an earlier connection
            await session.over.wait()
            session = self._sessions.get(stream.peer)
        if session is not None:
            await session.ready.wait()
        if session is None or session.nursery is None or session.gone.is_set():
            stream.reset()
        elif protocol is not None:
            session.nursery.start_soon(session.serve, protocol, stream, self._desk)
        elif handler is not None:
            session.nursery.start_soon(_serve, handler, Libp2pStream(stream))

    async def _serve_for_libp2p(self, libp2p: LibP2P, stream: MuxedStream) -> None:
        try:
            await libp2p.serve(stream, stream.protocol)
        except Exception as problem:  # noqa: BLE001 - py-libp2p's services raise what they meet
            _log.debug("py-libp2p's %s: %s", stream.protocol, problem)
            stream.reset()

    def set_handler(self, protocol: str, handler: StreamHandler) -> None:
        """Serve a protocol of your own."""
        if protocol in self._by_id or protocol == IDENTIFY_ID:
            raise UsageError(f"{protocol} is served by the host itself; choose another id")
        self._handlers[protocol] = handler
        self._introduce_ourselves()

    def remove_handler(self, protocol: str) -> None:
        """Stop serving a protocol of your own."""
        self._handlers.pop(protocol, None)
        self._introduce_ourselves()

    async def dial(self, address: Multiaddr | str) -> PeerId:
        """Connect to the peer at a multiaddr that ends in /p2p/<id>; returns its id. When that peer is connected
        already, the address is only remembered.

        Raises AddressError, PeerMismatch when another peer answers, DialError.
        """
        peer, transport = split_address(address)
        await self.dial_peer(peer, (transport,))
        return peer

    async def dial_peer(self, peer: PeerId, addresses: Sequence[Address] = ()) -> None:
        """Connect to a peer at these addresses, or those known of it; at once when it is connected."""
        await self._running().connect(peer, addresses)

    async def open_stream(self, peer: PeerId, protocol: str) -> PeerStream:
        """Open a stream, dialling where needed. Raises ProtocolUnsupported, DialError."""
        connection = await self._running().connect(peer)
        stream = connection.open()
        try:
            with trio.fail_after(self._config.negotiate_timeout_s):
                stream.protocol = await propose(stream, [protocol])
            return Libp2pStream(stream)
        except ProtocolUnsupported:
            raise ProtocolUnsupported(f"{peer} does not speak {protocol}; no stream was opened") from None
        except (BadMessage, NegotiationEnded, trio.BrokenResourceError, trio.TooSlowError) as problem:
            raise DialError(
                str(peer), f"no stream could be opened ({problem or 'no answer'})", "try again"
            ) from None
        finally:
            if not stream.protocol:
                stream.reset()

    def _running(self) -> Links:
        if self._links is None:
            raise UsageError("this host does not run; start it before dialling. Nothing was changed")
        return self._links

    def _introduce_ourselves(self) -> None:
        if self._libp2p is not None:
            services = [str(one) for one in self._libp2p.host.get_mux().get_protocols() if one]
            protocols = [*self._by_id, *self._handlers, IDENTIFY_ID, *services]
            self._introduction = Introduction(
                self._libp2p.keys, self._config.agent, self._addresses, protocols
            )

    # In the background ----------------------------------------------------------------------------------------

    def _soon(self, act: Callable[[], None]) -> None:
        """Call this once, when the tasks that run now have had their turn."""
        self._due[act] = None
        self._work.set()

    async def _flush(self) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            due, self._due = self._due, {}
            for act in due:
                act()

    async def _sweep(self) -> None:
        assert self._links is not None
        probed = trio.current_time()
        while True:
            await trio.sleep(self._config.sweep_s)
            now = trio.current_time()
            for session in list(self._sessions.values()):
                session.sweep(now)
            self._desk.sweep(now - self._config.reply_timeout_s)
            self._links.sweep(now)
            if now - probed >= self._config.probe_s:
                probed = now
                for connection in self._links.all():
                    connection.probe()


async def _serve(handler: StreamHandler, stream: Libp2pStream) -> None:
    """Run an embedder's handler; what it raises ends its own stream and nothing else."""
    try:
        await handler(stream)
        await stream.aclose()
    except trio.BrokenResourceError:
        _log.debug("the other side reset a stream of %s", stream.protocol)
    except Exception:  # noqa: BLE001 - an embedder's bug, whatever it is
        _log.exception("the handler of %s raised; its stream to %s was reset", stream.protocol, stream.peer)
    finally:
        stream.reset()  # nothing happens when it was closed
