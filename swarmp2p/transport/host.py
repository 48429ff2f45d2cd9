"""Network over py-libp2p: TCP, Noise, Yamux, identify, ping.

engine messages   session.py -> outbox.py, requests.py, replies.py    queues and streams of one peer
embedders         streams.py                                          streams of their own protocols
both              muxer.py, yamux.py -> secure.py -> tcp.py           one connection, made by connecting.py

peers.py          when the engine hears of a peer           links.py   who is connected, dialling, accepting
reception.py      whom a stream that comes in is for        swarm.py   py-libp2p's host and its services
identify.py       who we are, who they are                  push.py    tells those connected when that changes
reachability.py   whether others can dial us                watch.py, autonat.py   ask them, and tell the engine
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio
from multiaddr.multiaddr import Multiaddr

from ..engine import Address, Message, Reply
from ..errors import BadMessage, DialError, ProtocolUnsupported, UsageError
from ..identity import Identity, PeerId
from ..network_key import NetworkKey
from ..scopes import TaskStatus, background_nursery
from ..wire import WireProtocol
from .addresses import listen_address, split_address
from .autonat import PROTOCOL_ID as AUTONAT_ID
from .autonat import Server
from .circuit_wire import HOP_ID, PUNCH_ID, STOP_ID
from .circuits import Circuits
from .config import HostConfig, HostStats
from .identify import Identified, own_record
from .interfaces import reachable
from .links import Links
from .multistream import NegotiationEnded, propose
from .muxer import MuxedConnection
from .network import Deliver, PeerStream, StreamHandler
from .observed import Mapping
from .own_addresses import Origin, OwnAddresses
from .peers import Peers
from .punch import Puncher
from .push import Pusher
from .reachability import Status
from .reception import Handlers, Reception, Service
from .relay import Relay
from .replies import Desk
from .reservations import Reservations
from .streams import Libp2pStream
from .swarm import LibP2P, quiet
from .tcp import TcpListener
from .upnp import Mapped, UpnpRouter
from .watch import Watch

__all__ = ["Host", "HostConfig", "HostStats", "PeerStream"]


@dataclass(frozen=True, slots=True)
class _Running:
    """What there is of a host while it runs."""

    links: Links
    peers: Peers
    reception: Reception
    desk: Desk
    pusher: Pusher
    watch: Watch
    own: OwnAddresses
    relay: Relay
    reservations: Reservations


class Host:
    """A libp2p host that carries engines' messages and embedders' streams; a PeerNetwork.

    identity: its key. listen: multiaddrs to listen on, /ip4 or /ip6 with /tcp; none to dial only. protocols:
    of the engines' messages. network_key: of a private swarm. stats: what it has counted.

    Raises AddressError for a listen address that cannot be one.
    """

    def __init__(
        self,
        identity: Identity,
        listen: Sequence[Multiaddr | str],
        protocols: Sequence[WireProtocol],
        config: HostConfig | None = None,
        network_key: NetworkKey | None = None,
    ) -> None:
        quiet()
        self.stats = HostStats()
        self._identity, self._peer_id = identity, identity.peer_id
        self._network_key = network_key
        self._listen = [listen_address(address) for address in listen]
        self._config = config or HostConfig()
        self._protocols = {protocol.name: protocol for protocol in protocols}
        self._handlers = Handlers(protocols)
        self._running: _Running | None = None
        self._due: dict[Callable[[], None], None] = {}
        self._work = trio.Event()
        self._moved = trio.Event()

    @property
    def peer_id(self) -> PeerId:
        """The local peer."""
        return self._peer_id

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where others can dial this peer: binary multiaddrs without /p2p, loopback last. Those of every
        interface where it listens on all of them, and where others see it; none before `run` has started."""
        return () if self._running is None else self._running.own.all

    async def addresses_other_than(self, known: Sequence[Address]) -> tuple[Address, ...]:
        """`addresses` as soon as they are no longer these."""
        while self.addresses == tuple(known):
            await self._moved.wait()
        return self.addresses

    @property
    def connected(self) -> tuple[PeerId, ...]:
        """Peers with which a connection stands."""
        return () if self._running is None else tuple({one.peer: None for one in self._running.links.all()})

    def ip_of(self, peer: PeerId) -> str:
        """Where a connected peer is; "" for one behind a relay."""
        connection = None if self._running is None else self._running.links.direct(peer)
        return "" if connection is None else connection.remote[0]

    @property
    def connections(self) -> int:
        """How many connections stand, to however many peers."""
        return 0 if self._running is None else len(self._running.links.all())

    @property
    def reachability(self) -> Status:
        """Whether others can dial this peer: "reachable", "unreachable", or "unknown" as long as nobody said."""
        return "unknown" if self._running is None else self._running.watch.reach.status

    @property
    def candidates(self) -> tuple[Address, ...]:
        """Where others see this peer, by the word of any of them: for somebody who is asked to try it, at most 4."""
        return () if self._running is None else self._running.watch.candidates

    @property
    def mapping(self) -> Mapping:
        """What kind of NAT is between this peer and others: "none", "same" (hole punching may work), "varies"."""
        return "unknown" if self._running is None else self._running.watch.mapping

    @property
    def relays(self) -> tuple[PeerId, ...]:
        """Through whom others reach this peer, where nobody can dial it."""
        return () if self._running is None else self._running.reservations.relays

    def path(self, peer: PeerId) -> PeerId | None:
        """Whom what is sent to a connected peer passes through first: itself, or a relay; None when there is no
        connection."""
        connection = None if self._running is None else self._running.links.get(peer)
        return None if connection is None else connection.relay or peer

    @property
    def reservations(self) -> int:
        """How many peers that nobody can dial are reached through this one."""
        return 0 if self._running is None else self._running.relay.reservations

    @property
    def circuits(self) -> int:
        """How many connections of others run through this peer."""
        return 0 if self._running is None else self._running.relay.circuits

    @property
    def counters(self) -> dict[str, int]:
        """What `stats` holds, as numbers by name."""
        return self.stats.counters()

    # What the driver calls ------------------------------------------------------------------------------------

    def send(self, to: PeerId, message: Message) -> None:
        """Queue a message, dialling where needed."""
        protocol, running = self._protocols[message.protocol], self._running
        if running is None or to == self._peer_id:
            self.stats.dropped["not running" if running is None else "to itself"] += 1
        elif isinstance(message, Reply):
            if not running.desk.reply(message.id, protocol.encode(message)):
                self.stats.dropped["late reply"] += 1
        else:
            running.peers.session(to).send(protocol, message)

    def introduce(self, peer: PeerId, addresses: Sequence[Address]) -> None:
        """Remember where a peer can be dialled; the oldest of 8,192 peers is forgotten."""
        if self._running is not None:
            self._running.links.learn(peer, addresses)

    def disconnect(self, peer: PeerId) -> None:
        """Close every connection to a peer."""
        if self._running is not None:
            self._running.links.disconnect(peer)

    def protect(self, peer: PeerId, protected: bool) -> None:
        """Keep the connections to a peer when there are too many; or do not, any more."""
        if self._running is not None:
            self._running.links.protect(peer, protected)

    def serve(self, protocol: str, serving: bool) -> None:
        """Serve a protocol of the engine's, or refuse it; tell those connected."""
        self._handlers.serve(protocol, serving)
        if self._running is not None and not serving:
            self._running.peers.stop_serving(protocol)
        self._handlers_changed()

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
            self._running = None
            for listener in listeners:
                listener.shut()

    async def _run(
        self, listeners: Sequence[TcpListener], deliver: Deliver, task_status: TaskStatus[None]
    ) -> None:
        libp2p, desk = LibP2P(self._identity, self._network_key), Desk()
        bound = [listener.bound for listener in listeners]
        own = OwnAddresses(reachable(bound))
        async with background_nursery() as nursery:
            links = Links(self.peer_id, libp2p, self._config, self.stats, nursery)
            protocols = self._handlers.protocols
            peers = Peers(links, self._config, self.stats, deliver, nursery, protocols, self._soon)
            watch = Watch(links, self.peer_id, own, self._config, deliver)
            relay = Relay(
                self._identity,
                links,
                self._config,
                self.stats,
                lambda: own.all,
                lambda: watch.reach.reachable,
            )
            reservations = Reservations(
                self.peer_id,
                links,
                self._config,
                self.stats,
                lambda: not watch.reach.reachable,
                partial(own.set, Origin.RELAYED),
            )
            circuits = Circuits(self.peer_id, links, self._config, self.stats, reservations.__contains__)
            puncher = Puncher(
                links,
                self._config,
                self.stats,
                nursery,
                lambda: watch.candidates,
                lambda peer: peers.session(peer).up,
            )
            links.connector.through = circuits.through
            services: dict[str, Service] = {
                AUTONAT_ID: Server(links.connector.can_reach),
                HOP_ID: relay,
                STOP_ID: circuits,
                PUNCH_ID: puncher,
            }
            record = partial(own_record, self._identity)
            reception = Reception(
                self._handlers, libp2p, peers, desk, services, self._config, own, record, nursery
            )

            def on_up(connection: MuxedConnection) -> None:
                watch.on_up(connection)
                peers.on_up(connection)
                reservations.look()
                puncher.on_up(connection)

            def on_down(peer: PeerId) -> None:
                relay.on_down(peer)
                reservations.look()
                peers.on_down(peer)

            def on_said(connection: MuxedConnection, said: Identified) -> None:
                watch.heard(connection, said)
                if HOP_ID in said.protocols:
                    reservations.relays_now(connection.peer)

            def on_reachable() -> None:
                """Whether we relay for others, or are relayed, may have changed."""
                reservations.look()
                self._handlers_changed()

            watch.on_reachable = on_reachable
            links.on_stream, links.on_up, links.on_down = reception.take, on_up, on_down
            links.connector.leave_from = lambda: bound if watch.wants_to_be_seen else ()
            peers.wants, peers.on_said = watch.wants, on_said
            own.on_change.append(self._addresses_changed)
            pusher = Pusher(links, lambda: reception.introduction, self._config)
            running = self._running = _Running(
                links, peers, reception, desk, pusher, watch, own, relay, reservations
            )
            try:
                for listener in listeners:
                    nursery.start_soon(links.serve, listener, nursery)
                nursery.start_soon(self._flush)
                nursery.start_soon(pusher.run)
                watch.tell()
                nursery.start_soon(watch.run)
                nursery.start_soon(reservations.run)
                if self._config.upnp:
                    nursery.start_soon(Mapped(bound, own, UpnpRouter).run)
                nursery.start_soon(self._sweep, running)
                task_status.started()
                await trio.sleep_forever()
            finally:
                links.close()

    # What a whole peer calls beyond that ----------------------------------------------------------------------

    def set_handler(self, protocol: str, handler: StreamHandler) -> None:
        """Serve a protocol of your own: `handler(stream)` runs for each stream that another peer opens.

        The stream is closed when the handler returns, reset when it raises; the handler is cancelled when the
        peer is gone. Raises UsageError for a protocol that the host serves itself.
        """
        self._handlers.add(protocol, handler)
        self._handlers_changed()

    def remove_handler(self, protocol: str) -> None:
        """Stop serving a protocol of your own; streams that are open stay."""
        self._handlers.remove(protocol)
        self._handlers_changed()

    def _addresses_changed(self) -> None:
        self._moved.set()
        self._moved = trio.Event()
        self._handlers_changed()  # they hear of both in one

    def _handlers_changed(self) -> None:
        if self._running is not None:
            self._running.reception.changed()
            self._running.pusher.changed()

    async def dial(self, address: Multiaddr | str) -> PeerId:
        """Connect to the peer at a multiaddr that ends in /p2p/<id>; returns its id. When that peer is connected
        already, the address is only remembered.

        Raises AddressError, PeerMismatch when another peer answers, DialError.
        """
        peer, transport = split_address(address)
        await self.dial_peer(peer, (transport,))
        return peer

    async def dial_peer(self, peer: PeerId, addresses: Sequence[Address] = ()) -> None:
        """Connect to a peer at these addresses, or those known of it; at once when it is connected.

        Raises PeerMismatch when another peer answers, DialError.
        """
        await self._links().connect(peer, addresses)

    async def open_stream(self, peer: PeerId, protocol: str) -> PeerStream:
        """Open a stream, dialling where needed. Raises ProtocolUnsupported, DialError."""
        connection = await self._links().connect(peer)
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

    def _links(self) -> Links:
        if self._running is None:
            raise UsageError("this host does not run; start it before dialling. Nothing was changed")
        return self._running.links

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

    async def _sweep(self, running: _Running) -> None:
        probed = trio.current_time()
        while True:
            await trio.sleep(self._config.sweep_s)
            now = trio.current_time()
            running.peers.sweep(now)
            running.desk.sweep(now - self._config.reply_timeout_s)
            running.links.sweep(now)
            running.relay.sweep(now)
            if now - probed >= self._config.probe_s:
                probed = now
                for connection in running.links.all():
                    connection.probe()
