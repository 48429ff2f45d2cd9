"""Another member, as this plane sees it: the session with it, its carrier, its listeners, the connections forwarded.

    no session -> (session set) -> waiting for a carrier <-> carried -> silent -> (session set) ...

Listeners stand whatever the state. What they accept while there is no session, or a silent one, is reset at once,
so that the application sees its partner gone and not merely slow. While a session waits for its carrier, new
connections are taken and old ones wait: nothing is lost until the session says Silent.

Work comes in rounds (`loop.py`). In each one a partner reads one portion from its carrier, hands out what was in it,
takes from local sockets in turn while little is unsent, and writes. So neither direction, and no connection, can
starve another, and memory is bounded by the channels' credit and by `_MAX_UNSENT_BYTES`.

A short message that is all that a round brought is passed on at once, past queues and marks (`Forward._pass_on`,
`Partner.read_alone`): an echo's four passages through planes then take half the time in Python, 48 instead of 94 us
with the system calls (one process, loopback). Where rounds bring more, they are worth their cost.
"""

from __future__ import annotations

import math
import socket
from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Final, Protocol, assert_never

from .config import SessionConfig
from .connection import STREAM, TCP, Connection
from .control import CarrierLost, CarrierUp, NeedStream, PlaneEvent, Silent
from .dialling import Dialler, Endpoint
from .events import Data, Dropped, Ended, Established, Event, Finished, Opened, Reset
from .forwards import Forward
from .loop import Loop
from .session import Session
from .sockets import Taker

_MAX_UNSENT_BYTES: Final = 524_288
"""Bytes that wait in the session for the carrier before local sockets are read no more: two portions, so that the
carrier never runs dry, and a short message waits behind no more than that."""
_READS_A_ROUND: Final = 4
"""Portions taken from local sockets before the carrier is served again."""
_CONNECTS_A_ROUND: Final = 32
"""Local connections begun for the other side in a round, and sockets waited for at a time. One that it opens and resets
in the same round costs no socket: else a portion of such pairs, 12 bytes each, would keep all others waiting for
seconds."""
_READ_BYTES: Final = 1_048_576
_LEAST_READ_BYTES: Final = 16_384
_MUCH_HELD_BYTES: Final = 1_048_576
_MANY_EVENTS: Final = 4_096
"""Events of one portion, from which on the next one is half as large: a portion of the smallest frames costs 0.3 s.
After fewer, it is larger by the least."""


class Owner(Protocol):
    """What a partner needs of the plane.

    served: the plane's own ports that others may reach, and the address of each. counters: what happened, by name.
    """

    loop: Loop
    served: dict[int, str]
    counters: dict[str, int]

    def tell(self, event: PlaneEvent) -> None:
        """Pass an event on to the peer's process."""
        ...

    def take_socket(self, taker: Taker) -> None:
        """See `SocketSource.take`."""
        ...

    def relieve(self) -> None:
        """Make room, if there is little: a partner's connections hold what local sockets do not take."""
        ...


class Partner:
    """See the module. target: the member's id. session: None before the first, and after a silent one."""

    def __init__(self, owner: Owner, target: bytes) -> None:
        self.loop, self.target = owner.loop, target
        self._owner = owner
        self.session: Session | None = None
        self.initiator = False
        self.marked = False
        self.wake_at = math.inf
        self._connections: dict[
            int, Connection
        ] = {}  # by their carriers' numbers; one carries, others want to
        self._present = 0  # number of the one that carries; 0: none
        self._forwards: dict[int, Forward] = {}
        self._runnable: deque[Forward] = deque()
        self._unconnected: dict[int, Forward] = {}  # opened by the other side, and no socket asked for yet
        self._asked = 0  # sockets
        self._read_bytes = _READ_BYTES
        self._dialler = Dialler(self.loop, self._dialled, self._lacking)
        self.sent_bytes = self.received_bytes = 0

    @property
    def tag(self) -> bytes:
        """What names the session in a hello; empty without one."""
        return b"" if self.session is None else self.session.tag

    @property
    def forwards(self) -> int:
        """How many connections are forwarded now."""
        return len(self._forwards)

    @property
    def held(self) -> int:
        """Bytes that came for local sockets, which have not taken them."""
        return 0 if self.session is None else self.session.held

    def shed(self) -> None:
        """Reset the connection that holds most of that."""
        if self.session is not None:
            self._apply(self.session.shed())
            self.mark()

    # Sessions and carriers --------------------------------------------------------------------------------------

    def begin(
        self,
        secret: bytes,
        initiator: bool,
        endpoints: Sequence[Endpoint],
        rng: Random,
        config: SessionConfig,
    ) -> None:
        """Begin a new session; what went over the one before is reset."""
        self.silence()
        self.initiator = initiator
        self.session = Session(secret, initiator, self.loop.now, rng, config)
        if initiator:
            self._dialler.aim(endpoints, self.session.tag)
            self._dialler.start()
        self.mark()
        self._set_wake()

    def aim(self, endpoints: Sequence[Endpoint]) -> None:
        """The initiator's: dial here from the next round on."""
        if self.initiator and self.session is not None:
            self._dialler.move(endpoints)

    def silence(self) -> None:
        """Give the session up: close its carriers and reset every local connection."""
        self._dialler.end()
        connections, self._connections, self._present = self._connections, {}, 0
        for connection in connections.values():
            connection.close()
        self.session = None
        self.wake_at = math.inf
        self._runnable.clear()
        self._unconnected.clear()
        forwards, self._forwards = self._forwards, {}
        for forward in forwards.values():
            forward.abort()

    def carry(self, sock: socket.socket, kind: str) -> None:
        """The initiator's: use a connection as carrier."""
        if self.session is None:
            sock.close()
            return
        self._attach(self.session, sock, kind)

    def adopt(self, sock: socket.socket, kind: str, hello: bytes) -> bool:
        """The responder's: use a connection as carrier if its hello is genuine. Returns whether it was."""
        session = self.session
        if session is None or self.initiator:
            return False
        connection = self._attach(session, sock, kind)
        self._apply(connection.carrier.receive(hello, self.loop.now))
        return True

    def _attach(self, session: Session, sock: socket.socket, kind: str) -> Connection:
        carrier = session.attach(self.loop.now)
        connection = self._connections[carrier.number] = Connection(self, sock, kind, carrier)
        self.mark()
        return connection

    def _dialled(self, sock: socket.socket) -> None:
        self.carry(sock, TCP)

    def _lacking(self) -> None:
        """The dialler's: no endpoint can be reached."""
        present = self._connections.get(self._present)
        if present is not None:
            self._dialler.rest(better=present.kind == STREAM)
        else:
            self._owner.tell(NeedStream(self.target))

    def _broken(self, connection: Connection) -> None:
        """A connection has ended or failed."""
        if self.session is not None and connection.carrier.number in self._connections:
            self.session.detach(connection.carrier, self.loop.now)
            self._gone(connection)

    def _gone(self, connection: Connection) -> None:
        """A connection carries no more: close it, and look for another at once."""
        number = connection.carrier.number
        if self._connections.pop(number, None) is None:
            return
        connection.close()
        carried = number == self._present
        if carried:
            self._present = 0
            self._owner.tell(CarrierLost(self.target))
        if not self.initiator or self._connections:
            return
        if carried or connection.kind == STREAM:
            self._dialler.start()
        else:
            self._dialler.failed()

    def _established(self, number: int) -> None:
        """A connection has become the carrier."""
        connection = self._connections.get(number)
        if connection is None:
            return
        before, self._present = self._connections.get(self._present), number
        if before is not None and before is not connection:
            self._connections.pop(before.carrier.number, None)
            before.close()
        self._dialler.proved()
        if self.initiator:
            self._dialler.rest(better=connection.kind == STREAM)
        self._owner.tell(CarrierUp(self.target, connection.kind))

    # Forwarded connections --------------------------------------------------------------------------------------

    def accept(self, sock: socket.socket, port: int) -> None:
        """A listener's: a local connection to one of the member's ports. The socket is non-blocking."""
        session = self.session
        channel = None if session is None else session.open(port, self.loop.now)
        if channel is None:
            Forward(self, sock, -1).abort()
            self._owner.counters["refused"] += 1
            return
        self._forwards[channel] = Forward(self, sock, channel)
        self._owner.counters["opened"] += 1
        self.mark()

    def queue(self, forward: Forward) -> None:
        """A forward has something to read."""
        forward.queued = True
        self._runnable.append(forward)
        self.mark()

    def consumed(self, forward: Forward, count: int) -> None:
        """A local socket took bytes."""
        if self.session is not None:
            self.session.consumed(forward.channel, count)
            if not self.session.still:
                self.mark()

    def reset(self, forward: Forward) -> None:
        """A local connection broke."""
        self._unconnected.pop(forward.channel, None)
        if self._forwards.pop(forward.channel, None) is not None and self.session is not None:
            self.session.reset(forward.channel)
            self.mark()
        forward.abort()

    def forget(self, forward: Forward) -> None:
        """A connection ended in both directions."""
        self._forwards.pop(forward.channel, None)
        self.mark()

    def _opened(self, channel: int, port: int) -> None:
        """The other side opened a connection to one of our ports."""
        session = self.session
        assert session is not None
        if port not in self._owner.served:
            self._owner.counters["unserved"] += 1
            session.reset(channel)
            return
        self._forwards[channel] = self._unconnected[channel] = Forward(self, None, channel, port)
        self._owner.counters["taken"] += 1

    def _connect_some(self) -> None:
        """Begin to connect what was opened, the earliest first."""
        for _ in range(min(_CONNECTS_A_ROUND - self._asked, len(self._unconnected))):
            self._connect(self._unconnected.pop(next(iter(self._unconnected))))
        if self._unconnected and self._asked < _CONNECTS_A_ROUND:
            self.mark()

    def _connect(self, forward: Forward) -> None:
        channel, address = forward.channel, self._owner.served[forward.port]
        self._asked += 1

        def take(made: socket.socket | int) -> None:
            self._asked -= 1
            if self._unconnected:
                self.mark()
            if self._forwards.get(channel) is not forward:
                if not isinstance(made, int):
                    made.close()
            elif isinstance(made, int):
                self.reset(forward)
            else:
                forward.connect(made, (address, forward.port))

        self._owner.take_socket(take)

    # Rounds -----------------------------------------------------------------------------------------------------

    def mark(self) -> None:
        """Work at the end of this round."""
        if not self.marked:
            self.loop.mark(self)

    def work(self) -> None:
        """The loop's: one portion of everything."""
        session = self.session
        if session is None:
            return
        now = self.loop.now
        for connection in [*self._connections.values()]:
            if connection.readable:
                self._read(connection)
        if self.session is not session:
            return
        self._connect_some()
        more = self._take(session)
        for connection in [*self._connections.values()]:
            if not connection.write(now):
                self._broken(connection)
            elif connection.readable or (more and connection.writable):
                self.mark()
        for channel in session.roomy():
            forward = self._forwards.get(channel)
            if forward is not None:
                forward.room()
        self._set_wake()

    def wake(self) -> None:
        """The loop's: `wake_at` has come."""
        session = self.session
        if session is None:
            self.wake_at = math.inf
            return
        now = self.loop.now
        if self._dialler.wake_at <= now:
            self._dialler.wake()
        self._apply(session.tick(now))
        self.mark()
        self._set_wake()

    def _set_wake(self) -> None:
        session = self.session
        if session is not None:
            self.wake_at = min(session.deadline(), self._dialler.wake_at)

    def idle_carrier(self) -> Connection | None:
        """The connection that carries, if it would take a record now and nobody waits for it."""
        connection = self._connections.get(self._present)
        if connection is None or self.marked or self._runnable or not connection.idle:
            return None
        return connection

    def read_alone(self, connection: Connection) -> bool:
        """The only thing to do is to read from a carrier: do it now. Returns whether nothing is left for a round."""
        if self.marked or self._runnable or len(self._connections) > 1:
            return False
        self._read(connection)
        session = self.session
        return not connection.readable and session is not None and session.still and not self._unconnected

    def _take(self, session: Session) -> bool:
        """Read from local sockets in turn. Returns whether there is more."""
        runnable = self._runnable
        reads = _READS_A_ROUND
        while runnable and reads and session.queued < _MAX_UNSENT_BYTES:
            forward = runnable.popleft()
            forward.queued = False
            reads -= 1
            if forward.read():
                forward.queued = True
                runnable.append(forward)
        return bool(runnable)

    def _read(self, connection: Connection) -> None:
        """Read one portion from a carrier and hand it out."""
        count = connection.read(self._read_bytes)
        if count is None:
            self._broken(connection)
        elif count:
            self.received_bytes += count
            events = connection.carrier.received(count, self.loop.now)
            if len(events) >= _MANY_EVENTS:
                self._read_bytes = max(_LEAST_READ_BYTES, self._read_bytes // 2)
            elif self._read_bytes < _READ_BYTES:
                self._read_bytes += _LEAST_READ_BYTES
            self._apply(events)
            if self.held > _MUCH_HELD_BYTES:
                self._owner.relieve()

    def _apply(self, events: Sequence[Event]) -> None:
        forwards = self._forwards
        for event in events:
            match event:
                case Data(channel, data):
                    forward = forwards.get(channel)
                    if forward is not None:
                        forward.deliver(data)
                case Opened(channel, port):
                    self._opened(channel, port)
                case Finished(channel):
                    forward = forwards.get(channel)
                    if forward is not None:
                        forward.finish()
                case Reset(channel):
                    self._unconnected.pop(channel, None)
                    forward = forwards.pop(channel, None)
                    if forward is not None:
                        forward.abort()
                case Established(carrier):
                    self._established(carrier.number)
                case Dropped(carrier):
                    self._owner.counters["dropped"] += 1
                    connection = self._connections.get(carrier.number)
                    if connection is not None:
                        self._gone(connection)
                case Ended():
                    self.silence()
                    self._owner.tell(Silent(self.target))
                    return
                case _:
                    assert_never(event)


def relieve(partners: Sequence[Partner], most: int) -> None:
    """Have partners hold at most so many bytes together: those who hold most lose their fullest connections."""
    while sum(partner.held for partner in partners) > most:
        max(partners, key=lambda partner: partner.held).shed()
