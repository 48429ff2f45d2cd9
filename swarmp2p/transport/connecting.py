"""Making one connection: a pipe to an address, directly or through a relay, then Noise, then a multiplexer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio
from multiaddr.multiaddr import Multiaddr

from ..descriptors import remedy
from ..engine import Address
from ..errors import DialError, PeerMismatch, SwarmError
from ..identity import PeerId
from .addresses import host_and_port, is_relayed, split_circuit
from .config import HostConfig, HostStats
from .muxer import MuxedConnection, MuxedStream, mux
from .pipe import Pipe
from .reachability import Scope, scope_of
from .secure import HandshakeFailed, SecureChannel, WrongPeer, secure
from .swarm import LibP2P
from .tcp import TcpPipe, dial_tcp


class Connector:
    """That of one host; what it makes is kept by Links. on_stream: called with each stream that another peer opens.

    leave_from: says from which of our listeners' ends dials leave; none need be named. through: opens a pipe to a peer
    through a relay at an address, and raises DialError; who has none raises that at once.
    """

    leave_from: Callable[[], Sequence[tuple[str, int]]]
    through: Callable[[PeerId, PeerId, Address], Awaitable[Pipe]]

    def __init__(
        self,
        libp2p: LibP2P,
        config: HostConfig,
        stats: HostStats,
        nursery: trio.Nursery,
        on_stream: Callable[[MuxedStream], None],
    ) -> None:
        self._libp2p, self._config, self._stats = libp2p, config, stats
        self._nursery, self._on_stream = nursery, on_stream
        self._control = (config.control_per_s, float(config.control_burst))
        self.leave_from, self.through = lambda: (), _no_relays

    async def can_reach(self, peer: PeerId, target: Multiaddr) -> bool:
        """Whether a peer answers at an address; the connection is closed at once."""
        pipe: TcpPipe | None = None
        try:
            with trio.fail_after(self._config.dial_timeout_s):
                pipe = await dial_tcp(*host_and_port(target))
                await self.secure(pipe, peer)
        except (OSError, SwarmError, trio.TooSlowError):
            return False
        finally:
            if pipe is not None:
                pipe.shut()
        return True

    async def dial(self, peer: PeerId, raw: Address, target: Multiaddr) -> MuxedConnection:
        """Connect to one address; raises DialError. A connection that loses the race is closed by Cancelled."""
        self._stats.dials += 1
        text = f"{target}/p2p/{peer}"
        pipe: Pipe | None = None
        done = False
        try:
            with trio.fail_after(self._config.dial_timeout_s):
                pipe = await self._pipe_to(peer, raw, target, self.leave_from())
                try:
                    channel = await self.secure(pipe, peer)
                except WrongPeer:
                    raise
                except HandshakeFailed:
                    # Two that dialled each other at one moment, from where they listen, meet in one connection that
                    # both of them began: from another port that cannot happen again.
                    if not pipe.shares_port:
                        raise
                    pipe.shut()
                    pipe = await self._pipe_to(peer, raw, target, ())
                    channel = await self.secure(pipe, peer)
                connection = await self.mux(channel, is_client=True)
            connection.dialled = raw
            done = True
            return connection
        except trio.TooSlowError:
            raise DialError(
                text,
                f"no answer within {self._config.dial_timeout_s:g} s",
                "check that the peer runs, and that its port is open",
            ) from None
        except WrongPeer:
            raise PeerMismatch(
                text, "another peer answers there", "ask the peer for its address and id again"
            ) from None
        except OSError as problem:
            raise DialError(
                text,
                (problem.strerror or str(problem) or type(problem).__name__).lower(),
                remedy(problem, "check that the peer runs, and that its address is right"),
            ) from None
        except SwarmError as problem:
            raise DialError(
                text,
                str(problem),
                "check that a libp2p peer with Noise and Yamux listens there, of the same private swarm or none",
            ) from None
        finally:
            if pipe is not None and not done:
                pipe.shut()

    async def _pipe_to(
        self, peer: PeerId, raw: Address, target: Multiaddr, sources: Sequence[tuple[str, int]]
    ) -> Pipe:
        """A pipe to whoever is at an address."""
        if not is_relayed(raw):
            return await dial_tcp(*host_and_port(target), sources)
        relay, transport = split_circuit(raw)
        return await self.through(peer, relay, transport)

    async def secure(self, pipe: Pipe, peer: PeerId | None) -> SecureChannel:
        """Encrypt a pipe: as the client of that peer, or, for None, as the server of whoever it is. Raises
        HandshakeFailed."""
        return await secure(pipe, self._libp2p.security, peer)

    async def mux(self, channel: SecureChannel, is_client: bool) -> MuxedConnection:
        """Put streams over an encrypted pipe. Raises SwarmError."""
        most = self._config.max_streams
        return await mux(channel, is_client, most, self._on_stream, self._nursery, self._control)


def in_turn(targets: Sequence[tuple[Address, Multiaddr]], most: int) -> list[tuple[Address, Multiaddr]]:
    """At most so many of a peer's addresses, in the order in which they are dialled. Loopback helps on this machine
    only, and comes behind the others, whose order stays. Relays come last, and one of them is always tried."""
    direct = [one for one in targets if not is_relayed(one[0])]
    relayed = [one for one in targets if is_relayed(one[0])]
    direct.sort(key=lambda one: scope_of(host_and_port(one[1])[0]) is Scope.MACHINE)
    del direct[most - bool(relayed and most > 1) :]
    return [*direct, *relayed[: most - len(direct)]]


async def _no_relays(peer: PeerId, relay: PeerId, address: Address) -> Pipe:
    raise DialError(
        f"{relay} for {peer}", "this peer does not use relays", "name an address of the peer itself"
    )
