"""Connections: who is connected, dialling, accepting.

Concurrent dials to one peer are one dial. Of a peer's addresses the next is tried when the one before failed
or has taken 250 ms (RFC 8305); the first secure connection wins.

Two peers that dial each other at the same moment get two connections. If each closed one at once, both could be
lost; so both stay, both sides open new streams on the one that the peer with the smaller id dialled, and the
other is closed when it has been without streams for a while.

A peer may also be reached through a relay (circuits.py). Its own addresses are tried first, and a connection through
a relay comes behind all others: when a direct one comes about, what is new goes there.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio
from multiaddr.multiaddr import Multiaddr

from ..engine import Address
from ..errors import DialError, PeerMismatch, SwarmError
from ..identity import PeerId
from .addresses import host_and_port, parse_direct, parse_transport
from .config import HostConfig, HostStats
from .connecting import Connector, in_turn
from .muxer import MuxedConnection, MuxedStream
from .pipe import Pipe
from .sources import Sources
from .swarm import LibP2P
from .tcp import TcpListener, TcpPipe, punch_tcp

_MAX_FAILURES: Final = 4096  # peers whose failed dials are remembered
_DIALS_A_HANDSHAKE: Final = 4
"""Dials under way for each handshake that may be: most of those that liars make us begin wait for a silent place, and
cost a socket, but would keep others waiting."""

_MAX_DIALS: Final = 1024  # waiting or under way; a further one fails at once


@dataclass(slots=True, eq=False)
class _Dial:
    """One attempt to reach a peer. Of its result, only the failure is kept here. news: addresses were learnt since."""

    addresses: tuple[Address, ...]
    news: trio.Event = field(default_factory=trio.Event)
    done: trio.Event = field(default_factory=trio.Event)
    failure: DialError | None = None


class Links:
    """The connections of one host.

    To be set before the first connection: on_stream is called with each stream that another peer opens, on_up
    with each new connection, on_down with a peer whose last connection is over. connector: what makes connections.
    """

    on_stream: Callable[[MuxedStream], None]
    on_up: Callable[[MuxedConnection], None]
    on_down: Callable[[PeerId], None]

    def __init__(
        self, me: PeerId, libp2p: LibP2P, config: HostConfig, stats: HostStats, nursery: trio.Nursery
    ) -> None:
        self._nursery = nursery
        self._awaited: dict[tuple[str, int], Callable[[TcpPipe], None]] = {}  # who punch to us, by their ends
        self._me, self._config, self._stats = me, config, stats
        self.connector = Connector(libp2p, config, stats, nursery, lambda stream: self.on_stream(stream))
        self._connections: dict[PeerId, list[MuxedConnection]] = {}
        self._count = 0
        self._dials: dict[PeerId, _Dial] = {}
        self._known: OrderedDict[PeerId, tuple[Address, ...]] = OrderedDict()
        self._failures: OrderedDict[PeerId, tuple[int, float]] = (
            OrderedDict()
        )  # dials in a row, when to try again
        self._protected: dict[PeerId, None] = {}
        self._sources = Sources(config)
        self._handshakes_out = trio.CapacityLimiter(_DIALS_A_HANDSHAKE * config.handshakes)

    # Who is where ---------------------------------------------------------------------------------------------

    def get(self, peer: PeerId) -> MuxedConnection | None:
        """The connection on which new streams to a peer are opened."""
        connections = self._connections.get(peer)
        return connections[0] if connections else None

    @property
    def count(self) -> int:
        """How many connections there are."""
        return self._count

    def protect(self, peer: PeerId, protected: bool) -> None:
        """Do not close connections to a peer because there are too many; or do, again."""
        self._protected.pop(peer, None)
        if protected:
            self._protected[peer] = None
            if len(self._protected) > self._config.low_connections:
                del self._protected[next(iter(self._protected))]

    def is_protected(self, peer: PeerId) -> bool:
        """Whether it is."""
        return peer in self._protected

    def direct(self, peer: PeerId) -> MuxedConnection | None:
        """A connection to a peer that runs through nobody else."""
        connection = self.get(peer)
        return None if connection is None or connection.relay is not None else connection

    def all(self) -> list[MuxedConnection]:
        """Every connection."""
        return [one for connections in self._connections.values() for one in connections]

    def learn(self, peer: PeerId, addresses: Sequence[Address]) -> None:
        """Remember where a peer can be dialled: what was said last comes first."""
        if addresses and peer != self._me:
            known = self._known.get(peer, ())
            merged = dict.fromkeys((*addresses, *known))
            if len(merged) > len(known):
                self._failures.pop(peer, None)
            self._known[peer] = tuple(merged)[: self._config.known_addresses]
            dial = self._dials.get(peer)
            if dial is not None and not set(addresses) <= set(dial.addresses):
                dial.addresses = (*addresses, *dial.addresses)[: 2 * self._config.known_addresses]
                dial.news.set()
            self._known.move_to_end(peer)
            if len(self._known) > self._config.known_peers:
                self._known.popitem(last=False)

    def sweep(self, now: float) -> None:
        """Close second connections that are not used."""
        for connections in list(self._connections.values()):
            for connection in connections[1:]:
                if not connection.session.streams and now - connection.since > self._config.duplicate_s:
                    connection.close()

    def disconnect(self, peer: PeerId) -> None:
        """Close every connection to a peer."""
        for connection in list(self._connections.get(peer, ())):
            connection.close()

    def close(self) -> None:
        """Close every connection."""
        for connection in self.all():
            connection.close()

    # Dialling -------------------------------------------------------------------------------------------------

    async def connect(self, peer: PeerId, addresses: Sequence[Address] = ()) -> MuxedConnection:
        """A connection to a peer: the one that stands, or a new one. Raises DialError, PeerMismatch."""
        self.learn(peer, addresses)
        while True:
            connection = self.get(peer)
            if connection is not None:
                return connection
            dial = self._dials.get(peer)
            if dial is None:
                break
            await dial.done.wait()
            if dial.failure is not None and set(addresses) <= set(dial.addresses):
                failure = dial.failure
                raise type(failure)(failure.address, failure.problem, failure.remedy)
        if peer == self._me:
            raise DialError(str(peer), "that is this peer itself", "dial another one")
        if len(self._dials) >= _MAX_DIALS:
            raise DialError(str(peer), f"{_MAX_DIALS} dials are under way already", "try again later")
        if not addresses and trio.current_time() < self._failures.get(peer, (0, -math.inf))[1]:
            raise DialError(
                str(peer), "it did not answer several times", "try again later, or at another address"
            )
        dial = self._dials[peer] = _Dial(self._known.get(peer, ()))
        try:
            async with self._handshakes_out:
                connection = await self._race(peer, dial)
            self._failures.pop(peer, None)
            return connection
        except DialError as failure:
            dial.failure = failure
            self._stats.failed_dials += 1
            self._failed(peer)
            raise
        finally:
            del self._dials[peer]
            dial.done.set()

    def _failed(self, peer: PeerId) -> None:
        """A dial failed: the third in a row has the next one wait."""
        config = self._config
        failures = self._failures.pop(peer, (0, 0.0))[0] + 1
        extra = failures - config.dials_before_backoff
        wait = min(config.dial_backoff_s * 2.0 ** min(extra, 16), config.max_backoff_s) if extra >= 0 else 0.0
        self._failures[peer] = (failures, trio.current_time() + wait)
        if len(self._failures) > _MAX_FAILURES:
            self._failures.popitem(last=False)

    async def _race(self, peer: PeerId, dial: _Dial) -> MuxedConnection:
        tried: dict[Address, None] = {}

        def untried(most: int) -> list[tuple[Address, Multiaddr]]:
            fresh = [raw for raw in dict.fromkeys(dial.addresses) if raw not in tried]
            targets = [(raw, target) for raw in fresh if (target := parse_transport(raw)) is not None]
            targets = in_turn(targets, most)
            tried.update((raw, None) for raw, _ in targets)
            return targets

        targets = untried(self._config.dial_addresses)
        if not targets:
            raise DialError(
                str(peer), "no address is known for it", "name its address, or ask somebody who knows it"
            )
        won: list[MuxedConnection] = []
        failures: list[DialError] = []
        running = 1  # the loop that starts them

        def one_less() -> None:
            nonlocal running
            running -= 1
            if not running:
                nursery.cancel_scope.cancel()  # nothing more is waited for

        async def attempt_later() -> None:
            """Who named it first may have lied: what others say meanwhile is tried, too."""
            nonlocal running
            while len(tried) < 2 * self._config.dial_addresses:
                await dial.news.wait()
                dial.news = trio.Event()
                for raw, target in untried(2 * self._config.dial_addresses - len(tried)):
                    running += 1
                    nursery.start_soon(attempt, raw, target, trio.Event())

        async def attempt(raw: Address, target: Multiaddr, over: trio.Event) -> None:
            try:
                connection = await self.connector.dial(peer, raw, target)
                if won or not self._keep(connection, is_initiator=True):
                    connection.close()
                else:
                    won.append(connection)
                    nursery.cancel_scope.cancel()
            except DialError as failure:
                failures.append(failure)
            except Exception as surprise:  # noqa: BLE001 - an address that somebody named must not end this peer
                failures.append(DialError(str(target), repr(surprise), "leave this address out"))
            finally:
                over.set()
                one_less()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt_later)
            for raw, target in targets:
                over = trio.Event()
                running += 1
                nursery.start_soon(attempt, raw, target, over)
                with trio.move_on_after(self._config.dial_stagger_s):
                    await over.wait()
            one_less()
        connection = self.get(peer)  # ours, or it dialled us meanwhile
        if connection is not None:
            return connection
        if not failures:
            raise DialError(str(peer), "the connection broke at once", "try again later")
        if len(failures) == 1 or all(isinstance(one, PeerMismatch) for one in failures):
            raise failures[0]
        raise DialError(
            ", ".join(failure.address for failure in failures),
            "; ".join(failure.problem for failure in failures),
            "check that it runs, and that one of these addresses is right",
        )

    def known(self, peer: PeerId) -> tuple[Address, ...]:
        """Where a peer is said to be, what was said last first."""
        return self._known.get(peer, ())

    async def dial_directly(self, peer: PeerId, addresses: Sequence[Address], timeout_s: float) -> bool:
        """Try to get a connection besides the one through a relay; whether a direct one stands."""
        targets = [(raw, target) for raw in addresses if (target := parse_direct(raw)) is not None]

        async def attempt(raw: Address, target: Multiaddr) -> None:
            try:
                connection = await self.connector.dial(peer, raw, target)
            except DialError:
                return
            if self.direct(peer) is not None or not self._keep(connection, is_initiator=True):
                connection.close()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + timeout_s
            for raw, target in targets:
                nursery.start_soon(attempt, raw, target)
        return self.direct(peer) is not None

    async def punch(
        self,
        peer: PeerId,
        addresses: Sequence[Address],
        source: tuple[str, int],
        is_client: bool,
        timeout_s: float,
    ) -> bool:
        """Dial a peer that dials us at the same moment, from one port of ours; whether a direct connection stands.
        is_client: whether this side is the client on what comes of it, whoever dialled."""
        ends = [host_and_port(target) for raw in addresses if (target := parse_direct(raw)) is not None]
        ends = [end for end in dict.fromkeys(ends) if end not in self._awaited]

        async def settle(pipe: TcpPipe) -> None:
            kept = False
            try:
                channel = await self.connector.secure(pipe, peer if is_client else None)
                if channel.peer == peer:
                    connection = await self.connector.mux(channel, is_client)
                    connection.punched = True
                    kept = self.direct(peer) is None and self._keep(connection, is_initiator=is_client)
            except SwarmError:
                pass  # somebody else is there
            finally:
                if not kept:
                    pipe.shut()
            if kept:
                nursery.cancel_scope.cancel()

        async def attempt(end: tuple[str, int]) -> None:
            pipe = await punch_tcp(*end, source)
            if pipe is not None:
                await settle(pipe)

        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + timeout_s
            try:
                for end in ends:
                    self._awaited[end] = lambda pipe: nursery.start_soon(settle, pipe)
                    nursery.start_soon(attempt, end)
                await trio.sleep(timeout_s)
                nursery.cancel_scope.cancel()
            finally:
                for end in ends:
                    del self._awaited[end]
        return self.direct(peer) is not None

    # Accepting ------------------------------------------------------------------------------------------------

    async def serve(self, listener: TcpListener, nursery: trio.Nursery) -> None:
        """Take connections from a listener until it is closed."""
        await listener.serve(self._accept, nursery, self._config.handshakes)

    async def _accept(self, pipe: TcpPipe) -> None:
        taken = self._awaited.get(pipe.get_remote_address())
        if taken is not None:  # the hole was there before our own dial
            taken(pipe)
            return
        host = pipe.get_remote_address()[0]
        if not self._sources.admit(host, trio.current_time()):
            self._stats.refused += 1
            pipe.shut()
            return
        kept = False
        try:
            kept = await self.welcome(pipe)
        finally:
            if not kept:
                self._sources.release(host)

    async def welcome(self, pipe: Pipe, peer: PeerId | None = None) -> bool:
        """Take a connection that came; whether it is kept. The pipe is shut when it is not. peer: who it must be from,
        of one through a relay, which named them."""
        kept = False
        try:
            with trio.move_on_after(self._config.dial_timeout_s):
                channel = await self.connector.secure(pipe, None)
                if peer in (None, channel.peer):
                    connection = await self.connector.mux(channel, is_client=False)
                    kept = self._keep(connection, is_initiator=False)
        except SwarmError:
            pass  # whoever it was spoke another protocol, or left
        finally:
            if not kept:
                pipe.shut()
        return kept

    def _keep(self, connection: MuxedConnection, is_initiator: bool) -> bool:
        """Take a new connection in; False when there are too many, or it is over already."""
        peer = connection.peer
        connections = self._connections.get(peer, [])
        # Identities cost nothing: who comes with many must leave us room to dial those whom we choose.
        most = self._config.max_connections
        if (
            peer == self._me
            or self._count >= (most if is_initiator else most - most // 4)
            or len(connections) >= self._config.max_connections_per_peer
        ):
            return False
        self._count += 1
        self._failures.pop(peer, None)
        smaller_dialled = (self._me < peer) == is_initiator
        connections.insert(0 if smaller_dialled else len(connections), connection)
        connections.sort(key=lambda one: one.relay is not None)  # stable: direct ones first
        for other in connections:
            if other.relay is not None and connections[0].relay is None:
                other.superseded.set()
        self._connections[peer] = connections
        connection.on_closed = self._closed
        if connection.dialled is not None:
            self.learn(peer, (connection.dialled,))
        self.on_up(connection)  # before its first stream can come
        self._nursery.start_soon(connection.run)
        return True

    def _closed(self, connection: MuxedConnection) -> None:
        if connection.dialled is None and connection.relay is None and not connection.punched:
            self._sources.release(connection.remote[0])
        connections = self._connections[connection.peer]
        connections.remove(connection)
        self._count -= 1
        if not connections:
            del self._connections[connection.peer]
            self.on_down(connection.peer)
