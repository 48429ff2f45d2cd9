"""py-libp2p's host and its services over our streams.

A stream that comes in for one of its services (ping) is handed to it; `SwarmConnection` and `SwarmStream` are what it
sees of ours. Connections, dialling, listening, identify and the engines' streams do not go through it: a Swarm's dial
waits 250 ms even after it succeeded, and blocks a peer that failed for a minute; its listener keeps a slot of a
limited number for each connection that ever came in; what a stream handler raises ends the whole Swarm; and what it
keeps of a connection takes 13 kB.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, cast

import libp2p.network.swarm
import trio
from dns.resolver import NoResolverConfiguration
from libp2p.abc import IMuxedConn, IMuxedStream
from libp2p.connection_types import ConnectionType
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.host.ping import ID as PING_ID
from libp2p.host.ping import PingService
from libp2p.network.config import RetryConfig
from libp2p.network.stream.net_stream import NetStream, StreamState
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as Noise
from libp2p.stream_muxer.exceptions import (
    MuxedConnUnavailable,
    MuxedStreamClosed,
    MuxedStreamEOF,
    MuxedStreamReset,
)
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr.multiaddr import Multiaddr

from ..identity import Identity
from ..network_key import NetworkKey
from .addresses import to_multiaddr
from .muxer import MuxedConnection, MuxedStream
from .secure import Security
from .yamux import PROTOCOL_ID as YAMUX_ID

_MAX_UNSENT_BYTES: Final = 65_536
_patching: Final = threading.Lock()  # peers may be opened in several threads


class SwarmStream(IMuxedStream):
    """One of our streams as py-libp2p sees it."""

    def __init__(self, stream: MuxedStream, connection: SwarmConnection) -> None:
        self.muxed_conn = connection
        self._stream = stream

    async def read(self, n: int | None = None) -> bytes:
        """What has arrived, at most `n` bytes."""
        try:
            data = await self._stream.read()
        except trio.BrokenResourceError as problem:
            raise MuxedStreamReset(str(problem)) from None
        if not data:
            raise MuxedStreamEOF("the other side sends no more")
        if n is not None and 0 <= n < len(data):
            self._stream.unread(data[n:])
            data = data[:n]
        return data

    async def write(self, data: bytes) -> None:
        """Send, waiting while much is unsent."""
        if self._stream.broken:
            raise MuxedStreamClosed("the stream was reset, or its connection broke")
        self._stream.push(data)
        await self._stream.drained(_MAX_UNSENT_BYTES)

    async def close(self) -> None:
        """Send no more."""
        self._stream.finish()

    async def reset(self) -> None:
        """End both ways at once."""
        self._stream.reset()

    def set_deadline(self, ttl: int) -> None:
        """Not offered; py-libp2p's Yamux does not either."""
        raise NotImplementedError("use trio's timeouts")

    def get_remote_address(self) -> tuple[str, int] | None:
        """(ip, port) of the other side."""
        return self._stream.connection.remote

    async def __aenter__(self) -> SwarmStream:
        return self


class SwarmConnection(IMuxedConn):
    """One of our connections as py-libp2p sees it. Streams that the other side opens are not shown to it."""

    def __init__(self, connection: MuxedConnection, is_initiator: bool) -> None:
        self.peer_id = ID(bytes(connection.peer))
        self.event_started = trio.Event()
        self._connection = connection
        self._is_initiator = is_initiator

    @property
    def is_initiator(self) -> bool:
        """Whether we dialled."""
        return self._is_initiator

    @property
    def is_established(self) -> bool:
        """Whether streams can be opened."""
        return not self._connection.closed.is_set()

    @property
    def is_closed(self) -> bool:
        """Whether the connection is over."""
        return self._connection.closed.is_set()

    async def start(self) -> None:
        """It runs already."""
        self.event_started.set()

    async def close(self) -> None:
        """End the connection."""
        self._connection.close()

    async def open_stream(self) -> SwarmStream:
        """A new stream."""
        return SwarmStream(self._connection.open(), self)

    async def accept_stream(self) -> IMuxedStream:
        """Waits for the end: the host takes the streams that come in."""
        await self._connection.closed.wait()
        raise MuxedConnUnavailable("the connection is over")

    def get_transport_addresses(self) -> list[Multiaddr]:
        """The other side's end of the connection."""
        return [Multiaddr(to_multiaddr(*self._connection.remote))]

    def get_connection_type(self) -> ConnectionType:
        """Nothing between the two sides."""
        return ConnectionType.DIRECT


class LibP2P:
    """py-libp2p's objects for one identity."""

    def __init__(self, identity: Identity, network_key: NetworkKey | None = None) -> None:
        self.keys: KeyPair = create_new_key_pair(identity.seed)
        noise = Noise(self.keys, noise_privkey=create_new_x25519_key_pair().private_key)
        self.security = Security(noise, network_key)
        peerstore = PeerStore()
        peerstore.add_key_pair(ID(bytes(identity.peer_id)), self.keys)

        def make() -> Swarm:
            return Swarm(
                ID(bytes(identity.peer_id)),
                peerstore,
                # for connections that py-libp2p makes by itself (through relays); Noise only, never plaintext
                TransportUpgrader({NOISE_ID: noise}, {TProtocol(YAMUX_ID): Yamux}),
                transports=[],
                retry_config=RetryConfig(max_retries=0),
            )

        try:
            swarm = make()
        except NoResolverConfiguration:
            swarm = _without_names(make)
        self.host = BasicHost(
            swarm,
            default_protocols=cast("OrderedDict[TProtocol, StreamHandlerFn]", OrderedDict()),
            disable_identify_address_discovery=True,
        )
        self.host.get_mux().handlers.clear()  # identify.py answers
        self.host.set_stream_handler(PING_ID, PingService(self.host).handle_ping)

    def serves(self, protocol: str) -> bool:
        """Whether one of py-libp2p's services handles a protocol."""
        return TProtocol(protocol) in self.host.get_mux().handlers

    def services(self) -> list[str]:
        """The protocols of py-libp2p's services."""
        return [str(protocol) for protocol in self.host.get_mux().handlers if protocol]

    async def serve(self, stream: MuxedStream, protocol: str) -> None:
        """Hand a stream to the service that handles its protocol; raises what that raises."""
        handler = self.host.get_mux().handlers[TProtocol(protocol)]
        assert handler is not None
        seen = NetStream(SwarmStream(stream, SwarmConnection(stream.connection, False)), None, None)
        seen.set_protocol(TProtocol(protocol))
        await seen.set_state(StreamState.OPEN)
        await handler(seen)


def _without_names(make: Callable[[], Swarm]) -> Swarm:
    """A Swarm where /etc/resolv.conf is missing, or cannot be opened. Only py-libp2p's own dials, which we never use,
    would look names up in it."""
    names = libp2p.network.swarm.__dict__
    with _patching:
        resolver = names["DNSResolver"]
        names["DNSResolver"] = _NoNames
        try:
            return make()
        finally:
            names["DNSResolver"] = resolver


class _NoNames:
    """Stands where py-libp2p wants a resolver."""


def quiet() -> None:
    """py-libp2p logs each connection that ends as an error; unless somebody asked for its log, it is silent."""
    logger = logging.getLogger("libp2p")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
