"""Connections through a relay: asking for one, and taking one (circuit v2, "hop" and "stop", the clients' sides)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio
from libp2p.relay.circuit_v2.pb import circuit_pb2 as pb

from ..engine import Address
from ..errors import BadMessage, DialError, ProtocolUnsupported, SwarmError
from ..identity import PeerId
from .circuit_pipe import CircuitPipe
from .circuit_wire import HOP_ID, ask, hear, limit_of, peer_of, status_name, tell
from .config import HostConfig, HostStats
from .links import Links
from .muxer import MuxedConnection, MuxedStream
from .pipe import Pipe

_MAX_DIALS: Final = 64
"""Dials through relays under way; a further one fails at once. Each may wait for a dial to its relay: those must find
room."""

_MAX_TAKEN: Final = 32  # connections through relays being made that came in
_REMEDIES: Final = {
    pb.NO_RESERVATION: "the peer has left that relay: ask somebody who knows it where it is now",
    pb.RESOURCE_LIMIT_EXCEEDED: "try again later, or through another relay",
    pb.PERMISSION_DENIED: "take another relay",
    pb.CONNECTION_FAILED: "try again later: the relay did not reach the peer",
}


class Circuits:
    """Those of one host. expected: whether a peer is a relay that we reserved with: only such may bring us others."""

    def __init__(
        self,
        me: PeerId,
        links: Links,
        config: HostConfig,
        stats: HostStats,
        expected: Callable[[PeerId], bool],
    ) -> None:
        self._me, self._links, self._config, self._stats = me, links, config, stats
        self._expected = expected
        self._dials = self._taken = 0

    async def through(self, peer: PeerId, relay: PeerId, address: Address) -> Pipe:
        """A pipe to a peer through a relay at an address. Raises DialError."""
        text = f"{peer} through {relay}"
        if relay in (self._me, peer):
            raise DialError(text, "that is no relay between the two", "leave this address out")
        if self._dials >= _MAX_DIALS:
            raise DialError(text, f"{_MAX_DIALS} dials through relays are under way", "try again later")
        self._dials += 1
        try:
            connection = self._links.direct(relay)
            if connection is None:
                await self._links.connect(relay, (address,))
                connection = self._links.direct(relay)
            if connection is None:
                raise DialError(
                    text, "the relay can itself only be reached through another", "take another relay"
                )
            return await self._ask(connection, peer, text)
        finally:
            self._dials -= 1

    async def _ask(self, connection: MuxedConnection, peer: PeerId, text: str) -> Pipe:
        stream, done = connection.open(), False
        try:
            with trio.fail_after(self._config.dial_timeout_s):
                wish = pb.HopMessage(type=pb.HopMessage.CONNECT)
                wish.peer.id = bytes(peer)
                answer = await ask(stream, HOP_ID, wish)
            if answer.type != pb.HopMessage.STATUS or answer.status != pb.OK:
                said = status_name(answer.status)
                raise DialError(
                    text, f"the relay says: {said}", _REMEDIES.get(answer.status, "take another relay")
                )
            done = True
            return CircuitPipe(stream, is_initiator=True, limit=limit_of(answer))
        except ProtocolUnsupported:
            raise DialError(text, "that peer does not relay", "take another relay") from None
        except DialError:
            raise
        except (SwarmError, trio.BrokenResourceError, trio.TooSlowError) as problem:
            raise DialError(
                text, f"the relay broke off ({problem or 'no answer'})", "try again later"
            ) from None
        finally:
            if not done:
                stream.reset()

    @property
    def serving(self) -> bool:
        """Always: who reserves nowhere is brought nothing."""
        return True

    async def serve(self, stream: MuxedStream) -> None:
        """A relay brings us a connection. Raises BadMessage, trio.BrokenResourceError, trio.TooSlowError."""
        with trio.fail_after(self._config.negotiate_timeout_s):
            request = await hear(stream, pb.StopMessage)
        if request.type != pb.StopMessage.CONNECT or not request.HasField("type"):
            raise BadMessage("relay: not a connection to be taken")
        source = peer_of(request)
        refused = stream.connection.relay is not None or not self._expected(stream.peer)
        if refused or self._taken >= _MAX_TAKEN or source in (self._me, stream.peer):
            status = pb.PERMISSION_DENIED if refused else pb.CONNECTION_FAILED
            tell(stream, pb.StopMessage(type=pb.StopMessage.STATUS, status=status))
            stream.abandon()
            return
        self._taken += 1
        try:
            tell(stream, pb.StopMessage(type=pb.StopMessage.STATUS, status=pb.OK))
            await self._links.welcome(
                CircuitPipe(stream, is_initiator=False, limit=limit_of(request)), source
            )
        finally:
            self._taken -= 1
