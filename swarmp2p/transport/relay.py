"""Relaying for others: the hop side of circuit relay v2.

A peer that nobody can dial keeps a connection to a relay and reserves with it; who wants to reach that peer asks the
relay for a circuit, and the relay joins a stream of either side. What runs over it is encrypted between the two: the
relay sees who talks to whom, when and how much.

    RESERVE    from a direct connection, while there is room          OK, expiry, addresses of the relay, voucher
    CONNECT    the target has a reservation and a direct connection,
               both ends have room                                    stop stream to the target; OK, then its bytes

Each circuit has one stream at either side and holds at most a window and 64 KiB of unread bytes of each direction.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Final

import trio
from libp2p.relay.circuit_v2.pb import circuit_pb2 as pb

from ..engine import Address
from ..errors import BadMessage, SwarmError
from ..identity import Identity, PeerId
from .addresses import host_and_port, parse_direct, with_peer
from .circuit_wire import STOP_ID, ask, hear, peer_of, put_limit, seal_voucher, status_name, tell
from .config import HostConfig, HostStats
from .links import Links
from .muxer import MuxedConnection, MuxedStream
from .pipe import Limit
from .reachability import scope_of
from .relay_slots import Pace, Slots

_MAX_UNSENT_BYTES: Final = 65_536
_MAX_ADDRESSES: Final = 8  # of ours, told with a reservation
_EXPIRY_SLACK_S: Final = 1.0
"""What is told is whole seconds, and must not be later than what holds here."""


class _Refused(Exception):
    """A request that is answered with a status. status: which."""

    def __init__(self, status: pb.Status.ValueType) -> None:
        super().__init__(status)
        self.status = status


class Relay:
    """One host's relaying. addresses: where it can be dialled. reachable: whether others can; only then it serves.

    serving: whether it does, for identify.
    """

    def __init__(
        self,
        identity: Identity,
        links: Links,
        config: HostConfig,
        stats: HostStats,
        addresses: Callable[[], Sequence[Address]],
        reachable: Callable[[], bool],
    ) -> None:
        self._identity, self._links, self._config, self._stats = identity, links, config, stats
        self._addresses, self._reachable = addresses, reachable
        self._slots = Slots(config.relay)
        self._kept: dict[PeerId, MuxedConnection] = {}  # connections of those who reserved: not to be trimmed
        self._pace = Pace(config.relay.bytes_per_s)

    @property
    def serving(self) -> bool:
        """Whether we relay for others."""
        return self._config.relay.serve and self._reachable()

    @property
    def reservations(self) -> int:
        """How many peers can be reached through us."""
        return len(self._slots)

    @property
    def circuits(self) -> int:
        """How many connections run through us."""
        return self._slots.circuits

    def sweep(self, now: float) -> None:
        """Called at intervals: forget reservations that are over."""
        self._slots.sweep(now)
        for peer in [one for one in self._kept if not self._slots.is_reserved(one, now)]:
            self._let_go(peer)

    def on_down(self, peer: PeerId) -> None:
        """The last connection to a peer is over: its reservation is, too."""
        self._slots.release(peer)
        self._let_go(peer)

    async def serve(self, stream: MuxedStream) -> None:
        """Answer one request. Raises BadMessage, trio.BrokenResourceError, trio.TooSlowError."""
        with trio.fail_after(self._config.negotiate_timeout_s):
            request = await hear(stream, pb.HopMessage)
        try:
            if stream.connection.relay is not None or not self.serving:
                raise _Refused(pb.PERMISSION_DENIED)
            if not request.HasField("type") or request.type not in (
                pb.HopMessage.RESERVE,
                pb.HopMessage.CONNECT,
            ):
                raise _Refused(pb.UNEXPECTED_MESSAGE)
            if request.type == pb.HopMessage.RESERVE:
                self._reserve(stream)
            else:
                await self._connect(stream, request)
        except _Refused as refused:
            self._stats.relay[f"refused: {status_name(refused.status)}"] += 1
            tell(stream, pb.HopMessage(type=pb.HopMessage.STATUS, status=refused.status))
            stream.abandon()

    # Reservations ---------------------------------------------------------------------------------------------

    def _reserve(self, stream: MuxedStream) -> None:
        config, connection = self._config.relay, stream.connection
        now = trio.current_time()
        if not self._slots.admits(stream.peer, now) or not self._slots.reserve(
            stream.peer, connection.remote[0], now
        ):
            raise _Refused(pb.RESERVATION_REFUSED)
        self._let_go(stream.peer)
        self._kept[stream.peer] = connection
        connection.in_use += 1
        self._stats.relay["reservations"] += 1
        expires = int(time.time() + config.reservation_s - _EXPIRY_SLACK_S)
        me = self._identity.peer_id
        answer = pb.HopMessage(type=pb.HopMessage.STATUS, status=pb.OK)
        answer.reservation.expire = expires
        answer.reservation.addrs.extend(self._own_addresses(connection))
        answer.reservation.voucher = seal_voucher(me, stream.peer, expires, self._identity.sign)
        put_limit(answer, self._limit)
        tell(stream, answer)
        stream.abandon()

    def _own_addresses(self, connection: MuxedConnection) -> list[bytes]:
        """Where we can be dialled by those at least as far away as who reserves, with /p2p/<us>."""
        least = scope_of(connection.remote[0])
        found = [(one, parse_direct(one)) for one in self._addresses()]
        wide = [
            one for one, target in found if target is not None and scope_of(host_and_port(target)[0]) >= least
        ]
        return [with_peer(one, self._identity.peer_id) for one in wide[:_MAX_ADDRESSES]]

    def _let_go(self, peer: PeerId) -> None:
        connection = self._kept.pop(peer, None)
        if connection is not None:
            connection.in_use -= 1

    # Circuits -------------------------------------------------------------------------------------------------

    @property
    def _limit(self) -> Limit:
        return Limit(self._config.relay.circuit_s, self._config.relay.circuit_bytes)

    async def _connect(self, stream: MuxedStream, request: pb.HopMessage) -> None:
        try:
            target = peer_of(request)
        except BadMessage:
            raise _Refused(pb.MALFORMED_MESSAGE) from None
        now = trio.current_time()
        connection = self._links.direct(target)
        if connection is None or not self._slots.is_reserved(target, now):
            raise _Refused(pb.NO_RESERVATION)
        if target == stream.peer:
            raise _Refused(pb.CONNECTION_FAILED)
        if not self._slots.admits(stream.peer, now) or not self._slots.connect(stream.peer, target):
            raise _Refused(pb.RESOURCE_LIMIT_EXCEEDED)
        other, ended = None, False
        connection.in_use += 1
        stream.connection.in_use += 1
        try:
            other = await self._stop(connection, stream.peer)
            answer = pb.HopMessage(type=pb.HopMessage.STATUS, status=pb.OK)
            put_limit(answer, self._limit)
            tell(stream, answer)
            self._stats.relay["circuits"] += 1
            with trio.move_on_after(self._limit.duration_s or math.inf):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pass_on, stream, other)
                    nursery.start_soon(self._pass_on, other, stream)
                ended = True
        finally:
            self._slots.disconnect(stream.peer, target)
            connection.in_use -= 1
            stream.connection.in_use -= 1
            if other is not None and not ended:
                other.reset()
                stream.reset()

    async def _stop(self, connection: MuxedConnection, source: PeerId) -> MuxedStream:
        """Ask a peer to take a connection; the stream for it. Raises _Refused."""
        stream, taken = connection.open(), False
        try:
            with trio.fail_after(self._config.negotiate_timeout_s):
                wish = pb.StopMessage(type=pb.StopMessage.CONNECT)
                wish.peer.id = bytes(source)
                put_limit(wish, self._limit)
                answer = await ask(stream, STOP_ID, wish)
            taken = answer.type == pb.StopMessage.STATUS and answer.status == pb.OK
        except (SwarmError, trio.BrokenResourceError, trio.TooSlowError):
            pass
        finally:
            if not taken:
                stream.reset()
        if not taken:
            raise _Refused(pb.CONNECTION_FAILED)
        return stream

    async def _pass_on(self, source: MuxedStream, target: MuxedStream) -> None:
        """Hand on what comes, until the end, the limit, or a break of either side, which ends both ways."""
        left = self._limit.data_bytes or None
        try:
            while data := await source.read():
                if left is not None:
                    left -= len(data)
                    if left < 0:
                        self._stats.relay["cut at their limit"] += 1
                        break
                self._stats.relay["bytes"] += len(data)
                target.push(data)
                await target.drained(_MAX_UNSENT_BYTES)
                if target.broken:
                    break
                await trio.sleep(self._pace.spend(len(data), trio.current_time()))
            else:
                target.finish()
                await target.drained()
                return
        except trio.BrokenResourceError:
            pass
        source.reset()
        target.reset()
