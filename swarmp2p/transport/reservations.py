"""Being reached through relays: a peer that nobody can dial reserves with some of those it is connected to.

    others cannot dial us (reachability.py)   reserve with up to `wanted` direct neighbours that relay, the farthest
                                              away first, those that we dialled before those that dialled us
    a reservation stands                      renewed when three quarters of its time are over; gone with the connection
    one is lost, or too few stand             others are asked; who refused is left alone for a while
    others can dial us again                  none is renewed, and their addresses are told to nobody any more

Addresses through relays are told like all others (own_addresses.py). The first is where we dial the relay ourselves:
that it is there is certain; what it says of itself comes behind.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio
from libp2p.relay.circuit_v2.pb import circuit_pb2 as pb

from ..engine import Address
from ..errors import BadMessage, SwarmError
from ..identity import PeerId, verify
from .addresses import circuit_address, host_and_port, parse_direct
from .circuit_wire import HOP_ID, ask, check_voucher, status_name
from .config import HostConfig, HostStats
from .links import Links
from .muxer import MuxedConnection
from .reachability import scope_of

_ADDRESSES: Final = 2  # of one relay that are told
_MAX_REFUSALS: Final = 1024
_RENEW_AT: Final = 0.75  # of a reservation's time
_SHORTEST_S: Final = 10.0  # a reservation for less is none
_LONGEST_S: Final = 86_400.0  # what a relay says beyond that is not relied on
_PAUSE_S: Final = 1.0  # between two looks at what there is to do


@dataclass(slots=True, eq=False)
class _Reservation:
    """With one relay. since, expires: in s of trio's clock. addresses: of ours, through it."""

    connection: MuxedConnection
    since: float
    expires: float
    addresses: tuple[Address, ...]

    @property
    def renew_at(self) -> float:
        return self.since + _RENEW_AT * (self.expires - self.since)


class Reservations:
    """Those of one host. wanted: whether they are, now. tell: called with our addresses when they change."""

    def __init__(
        self,
        me: PeerId,
        links: Links,
        config: HostConfig,
        stats: HostStats,
        wanted: Callable[[], bool],
        tell: Callable[[tuple[Address, ...]], None],
    ) -> None:
        self._me, self._links, self._config, self._stats = me, links, config, stats
        self._wanted, self._tell = wanted, tell
        self._held: dict[PeerId, _Reservation] = {}
        self._asking: PeerId | None = None
        self._refused: OrderedDict[PeerId, float] = OrderedDict()  # until when they are left alone
        self._news = trio.Event()

    def __contains__(self, peer: PeerId) -> bool:
        """Whether a peer is a relay that may bring us connections."""
        return peer in self._held or peer == self._asking

    @property
    def relays(self) -> tuple[PeerId, ...]:
        """Whom we reserved with."""
        return tuple(self._held)

    def look(self) -> None:
        """Something changed: connections, or whether others can dial us."""
        self._news.set()

    def relays_now(self, peer: PeerId) -> None:
        """A connected peer says that it relays."""
        if self._refused.pop(peer, None) is not None:
            self._news.set()

    async def run(self) -> None:
        """Keep as many as are wanted, until cancelled."""
        while True:
            await self._keep_up()
            with trio.move_on_at(self._next()):
                await self._news.wait()
            self._news = trio.Event()
            await trio.sleep(_PAUSE_S if self._held else 0.0)

    def _next(self) -> float:
        renewals = [one.renew_at for one in self._held.values()]
        # Nobody is left to be asked, or enough are there; those who refused are asked again.
        retry = min(self._refused.values(), default=math.inf) if self._lacks() else math.inf
        return min([*renewals, retry])

    def _lacks(self) -> bool:
        return self._wanted() and len(self._held) < self._config.relay.wanted

    async def _keep_up(self) -> None:
        now = trio.current_time()
        for relay, held in list(self._held.items()):
            if held.connection.closed.is_set() or now >= held.expires or not self._wanted():
                self._drop(relay)
        self._say()
        for relay, held in list(self._held.items()):
            if now >= held.renew_at and relay in self._held:
                await self._reserve(held.connection)
        tried = 0
        while self._lacks() and tried < self._config.relay.candidates:
            candidate = self._candidate()
            if candidate is None:
                break
            tried += 1
            await self._reserve(candidate)
        self._say()

    def _candidate(self) -> MuxedConnection | None:
        """Whom to ask next: a neighbour of ours that was not asked lately."""
        now = trio.current_time()
        found = [
            one
            for one in self._links.all()
            if one.relay is None
            and not one.closed.is_set()
            and one.peer not in self._held
            and self._refused.get(one.peer, -math.inf) <= now
        ]
        found.sort(key=lambda one: (-scope_of(one.remote[0]), one.dialled is None, one.since))
        return found[0] if found else None

    async def _reserve(self, connection: MuxedConnection) -> None:
        """Ask one relay, for the first time or again."""
        relay, now = connection.peer, trio.current_time()
        self._asking = relay
        try:
            expires, addresses = await self._ask(connection)
        except (SwarmError, trio.BrokenResourceError, trio.TooSlowError):
            self._refused[relay] = trio.current_time() + self._config.relay.retry_s
            self._refused.move_to_end(relay)
            if len(self._refused) > _MAX_REFUSALS:
                self._refused.popitem(last=False)
            held = self._held.get(relay)
            if held is not None:  # it may be better off later; until then the old one stands
                held.since = now
            return
        finally:
            self._asking = None
        held = self._held.get(relay)
        if held is not None:
            held.connection.in_use -= 1
        else:
            self._stats.relay["reserved"] += 1
        connection.in_use += 1
        self._refused.pop(relay, None)
        self._held[relay] = _Reservation(connection, now, now + expires, addresses)

    async def _ask(self, connection: MuxedConnection) -> tuple[float, tuple[Address, ...]]:
        """(seconds that it holds, our addresses through the relay). Raises SwarmError and what streams raise."""
        stream = connection.open()
        try:
            with trio.fail_after(self._config.negotiate_timeout_s):
                answer = await ask(stream, HOP_ID, pb.HopMessage(type=pb.HopMessage.RESERVE))
        finally:
            stream.reset()
        if (
            answer.type != pb.HopMessage.STATUS
            or answer.status != pb.OK
            or not answer.HasField("reservation")
        ):
            raise BadMessage(f"relay: no reservation: {status_name(answer.status)}")
        relay, reservation = connection.peer, answer.reservation
        if reservation.voucher and relay.public_key is not None:
            check_voucher(reservation.voucher, relay, self._me, reservation.expire, verify)
        lasts_s = min(reservation.expire - time.time(), _LONGEST_S)
        if lasts_s < _SHORTEST_S:
            raise BadMessage("relay: a reservation that is over already; are both clocks right?")
        return lasts_s, self._addresses(connection, [bytes(one) for one in reservation.addrs[:16]])

    def _addresses(self, connection: MuxedConnection, told: list[bytes]) -> tuple[Address, ...]:
        """Ours through a relay: by where we dialled it, else by what it says of itself."""
        relay, least = connection.peer, scope_of(connection.remote[0])
        found = [] if connection.dialled is None else [connection.dialled]
        for one in told:
            target = parse_direct(one)
            if target is not None and scope_of(host_and_port(target)[0]) >= least:
                found.append(target.to_bytes())
        own = list(dict.fromkeys(found))[:_ADDRESSES]
        return tuple(circuit_address(relay, one) for one in own)

    def _drop(self, relay: PeerId) -> None:
        held = self._held.pop(relay)
        held.connection.in_use -= 1

    def _say(self) -> None:
        self._tell(tuple(one for held in self._held.values() for one in held.addresses))
