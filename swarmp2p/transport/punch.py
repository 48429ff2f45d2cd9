"""From a connection through a relay to a direct one (DCUtR, relay/DCUtR.md in libp2p's specs).

    B, who was reached through a relay                    A, who reached it
      dials A where A says it listens; if that fails, up to three times:
      CONNECT with the addresses others see B at   --->
                                                   <---   CONNECT with those of A
      SYNC, half a round trip before it dials      --->   dials at once
             both dial from the very port that the relay sees: the two SYNs open both NATs for each other, and
             become one TCP connection, on which A is the client

The port is that of the own connection to the relay: a NAT that gives a port the same address whomever it talks to lets
the other side in where the relay saw it. Where a NAT refuses instead of keeping silent, or one SYN comes too early, the
dial is repeated for a while; what is then accepted by a listener of ours counts as well.

Who asks makes us dial. So only addresses at least as far away as the relay are dialled: nobody on the internet has us
try what is in our own network; four of them, a few times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import trio
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch

from ..engine import Address
from ..errors import BadMessage, SwarmError
from ..identity import PeerId
from ..rates import Rates
from .addresses import host_and_port, parse_direct
from .circuit_wire import PUNCH_ID, hear, tell
from .config import HostConfig, HostStats
from .identify import identify
from .links import Links
from .multistream import propose
from .muxer import MuxedConnection, MuxedStream
from .reachability import Scope, scope_of

_MAX_TARGETS: Final = 4
_AT_ONCE: Final = 16  # upgrades under way, on each side
_PER_PEER_S: Final = 0.05  # requests of one peer a second, beyond the first few
_BURST: Final = 6
_MAX_RATES: Final = 1024
_SETTLE_S: Final = 10.0  # until a new connection's other side has said where it is


class Puncher:
    """Those of one host. seen: where others see us when we leave from a port that we listen on (observed.py)."""

    def __init__(
        self,
        links: Links,
        config: HostConfig,
        stats: HostStats,
        nursery: trio.Nursery,
        seen: Callable[[], Sequence[Address]],
        settled: Callable[[PeerId], trio.Event],
    ) -> None:
        self._links, self._config, self._stats, self._nursery = links, config, stats, nursery
        self._seen, self._settled = seen, settled
        self._observed: dict[MuxedConnection, Address] = {}  # by relays, of our connections to them
        self._running = 0
        self._rates = Rates[PeerId](_PER_PEER_S, _BURST, _MAX_RATES)

    @property
    def serving(self) -> bool:
        """Whether it is tried."""
        return self._config.relay.punch

    def on_up(self, connection: MuxedConnection) -> None:
        """A new connection: when it runs through a relay, try to do without."""
        if connection.relay is None or not self.serving or self._running >= _AT_ONCE:
            return
        if self._links.direct(connection.peer) is None:
            self._running += 1
            self._nursery.start_soon(self._upgrade, connection)

    async def serve(self, stream: MuxedStream) -> None:
        """The side that reached the other (A). Raises BadMessage, trio.BrokenResourceError, trio.TooSlowError."""
        connection = stream.connection
        if connection.relay is None or connection.dialled is None:
            raise BadMessage("dcutr: not over a relay, or from the wrong side")
        if not self._rates.admits(stream.peer, trio.current_time()) or self._running >= _AT_ONCE:
            stream.reset()
            return
        self._running += 1
        try:
            with trio.fail_after(self._config.negotiate_timeout_s):
                targets = self._targets(_expect(await hear(stream, HolePunch), HolePunch.CONNECT), connection)
                tell(stream, HolePunch(type=HolePunch.CONNECT, ObsAddrs=self._mine(connection)))
                _expect(await hear(stream, HolePunch), HolePunch.SYNC)
            stream.abandon()
            if targets and self._links.direct(stream.peer) is None:
                await self._open(connection, targets, is_client=True)
        finally:
            self._running -= 1

    # The side that was reached (B) ----------------------------------------------------------------------------

    async def _upgrade(self, connection: MuxedConnection) -> None:
        try:
            await self._look(connection)
            if connection.dialled is None:
                await self._try(connection)
        except (SwarmError, trio.BrokenResourceError, trio.TooSlowError):
            pass  # it stays as it is: through the relay
        finally:
            self._running -= 1

    async def _try(self, connection: MuxedConnection) -> None:
        peer, relay = connection.peer, self._config.relay
        with trio.move_on_after(_SETTLE_S):
            await self._settled(peer).wait()
        known = [one for one in self._links.known(peer) if self._is_target(one, connection)]
        if known and await self._links.dial_directly(peer, known[:_MAX_TARGETS], relay.punch_timeout_s):
            self._stats.relay["dialled after all"] += 1
            return
        for _ in range(relay.punches):
            if connection.closed.is_set() or self._links.direct(peer) is not None:
                return
            if await self._once(connection):
                return
        self._stats.relay["punches failed"] += 1

    async def _once(self, connection: MuxedConnection) -> bool:
        stream = connection.open()
        try:
            with trio.fail_after(self._config.negotiate_timeout_s):
                stream.protocol = await propose(stream, [PUNCH_ID])
                asked = trio.current_time()
                tell(stream, HolePunch(type=HolePunch.CONNECT, ObsAddrs=self._mine(connection)))
                answer = _expect(await hear(stream, HolePunch), HolePunch.CONNECT)
                round_trip_s = trio.current_time() - asked
                targets = self._targets(answer, connection)
                tell(stream, HolePunch(type=HolePunch.SYNC))
            if not targets:
                return False
            await trio.sleep(round_trip_s / 2)
            return await self._open(connection, targets, is_client=False)
        finally:
            stream.abandon()

    # Both -----------------------------------------------------------------------------------------------------

    async def _look(self, connection: MuxedConnection) -> None:
        """Ask the relay where it sees us."""
        carrier = self._carrier(connection)
        if carrier is not None and carrier not in self._observed:
            said = await identify(carrier, self._config.identify_timeout_s)
            for old in [one for one in self._observed if one.closed.is_set()]:
                del self._observed[old]
            if said is not None and said.observed:
                self._observed[carrier] = said.observed

    def _carrier(self, connection: MuxedConnection) -> MuxedConnection | None:
        return None if connection.relay is None else self._links.direct(connection.relay)

    def _mine(self, connection: MuxedConnection) -> list[Address]:
        """Where the other side may dial us."""
        carrier = self._carrier(connection)
        observed = self._observed.get(carrier) if carrier is not None else None
        own = [*([observed] if observed else []), *self._seen()]
        return [one for one in dict.fromkeys(own) if self._is_target(one, connection)][:_MAX_TARGETS]

    def _targets(self, message: HolePunch, connection: MuxedConnection) -> list[Address]:
        """Where the other side is to be dialled."""
        told = [bytes(one) for one in message.ObsAddrs[:16]]
        return [one for one in dict.fromkeys(told) if self._is_target(one, connection)][:_MAX_TARGETS]

    def _is_target(self, address: Address, connection: MuxedConnection) -> bool:
        """Whether it is worth dialling, and nobody is harmed."""
        target = parse_direct(address)
        if target is None:
            return False
        scope = scope_of(host_and_port(target)[0])
        return scope is not Scope.NONE and scope >= scope_of(connection.remote[0])

    async def _open(self, connection: MuxedConnection, targets: Sequence[Address], is_client: bool) -> bool:
        """Dial from where the relay sees us; whether a direct connection stands."""
        carrier = self._carrier(connection)
        if carrier is None:
            return False
        done = await self._links.punch(
            connection.peer, targets, carrier.local, is_client, self._config.relay.punch_timeout_s
        )
        self._stats.relay["punched" if done else "punches that missed"] += 1
        return done


def _expect(message: HolePunch, kind: HolePunch.Type.ValueType) -> HolePunch:
    if not message.HasField("type") or message.type != kind:
        raise BadMessage("dcutr: another message than was due")
    return message
