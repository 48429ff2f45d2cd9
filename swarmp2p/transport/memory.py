"""A network inside one trio run, for driver tests and for embedders' own tests.

A `MemorySwitch` stands for the world between the peers; each peer's `MemoryNetwork` is joined to it. A Link
says how long each message takes and which are lost, so trio's autojump clock makes hours pass in no time.
What it promises is what transport/host.py promises:

- The first send to a peer dials it, at an address known from `introduce` or from an earlier PeerUp. Both
  sides then get PeerUp; messages that waited follow. A dial that fails comes back as PeerDown.
- Messages between two peers arrive in order or not at all. A Request arrives with an id of the receiver's
  own; the Reply goes back with the sender's. A reply nobody waits for is dropped.
- A request that does not fit into a queue, or whose reply is malformed, comes back as Undeliverable; what the
  link loses is lost.
- A network whose `run` ends is a crashed peer: the others get PeerDown, and what was under way to it is lost.

With `protocols` every message passes through its encoder and decoder, so that what is tested is what fits
into bytes; a decoder's BadMessage is counted and the message dropped.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Final

import trio

from ..engine import (
    Address,
    Message,
    NetworkEvent,
    PeerDown,
    PeerUp,
    Received,
    Reply,
    Request,
    Speaks,
    Undeliverable,
)
from ..errors import BadMessage, DialError, ProtocolUnsupported, UsageError
from ..identity import PeerId
from ..scopes import TaskStatus
from ..wire import WireProtocol
from .link import Link
from .memory_streams import serve, stream_pair
from .network import Deliver, PeerStream, StreamHandler
from .reachability import Status

_DIAL_TRIES: Final = 3  # a lost SYN is sent again
_DIAL_TIMEOUT_S: Final = 5.0
_SILENCE_S: Final = 10.0  # until a peer notices that the other end is gone when no packet gets through
_MAX_QUEUED: Final = 4096
_MAX_UNANSWERED: Final = 1024


@dataclass(slots=True, eq=False)
class _Connection:
    """One connection. waiting: per side that is not up yet, what it has sent already."""

    waiting: dict[PeerId, list[_Parcel]]
    settled: dict[PeerId, trio.Event]


@dataclass(frozen=True, slots=True)
class _Parcel:
    """A message on its way: as it is, or as the bytes of `protocol`. name: of its protocol. id: the Request's or
    Reply's, else 0. answered: it is a request that expects a reply. reply: it is one."""

    message: Message | None
    body: bytes
    protocol: WireProtocol | None
    name: str
    id: int
    answered: bool
    reply: bool


@dataclass(order=True, slots=True)
class _Entry:
    """Something that reaches one network at `due`; ties keep the order in which they were made."""

    due: float
    number: int
    sender: PeerId = field(compare=False)
    what: PeerUp | PeerDown | Undeliverable | Speaks | _Parcel = field(compare=False)
    connection: _Connection | None = field(compare=False)


class MemorySwitch:
    """What joins memory networks.

    link: the fate of each message. rng: what the link draws from. protocols: to pass messages as bytes; those
    of other protocols pass as they are.
    """

    def __init__(self, link: Link, rng: Random, protocols: Sequence[WireProtocol] = ()) -> None:
        self.link = link
        self._rng = rng
        self._protocols = {protocol.name: protocol for protocol in protocols}
        self._running: dict[PeerId, MemoryNetwork] = {}
        self._joined = 0

    def join(self, peer: PeerId) -> MemoryNetwork:
        """A network for this peer; its address is made up. It can be reached while its `run` runs."""
        self._joined += 1
        return MemoryNetwork(self, peer, _made_up_address(self._joined))

    def protocol(self, message: Message) -> WireProtocol | None:
        """The wire form that a message passes through, if any."""
        return self._protocols.get(message.protocol)

    def running(self, peer: PeerId) -> MemoryNetwork | None:
        """The network of a peer that can be reached now."""
        return self._running.get(peer)

    def start(self, network: MemoryNetwork) -> None:
        """A network can be reached from now on."""
        if network.peer_id in self._running:
            raise UsageError(f"{network.peer_id} runs already; one network per peer can run at a time")
        self._running[network.peer_id] = network

    def stop(self, network: MemoryNetwork) -> None:
        """A network cannot be reached any more."""
        del self._running[network.peer_id]

    def delay(self, source: PeerId, target: PeerId) -> float | None:
        """Draw the fate of one message from the link."""
        return self.link.delay(trio.current_time(), source, target, self._rng)


def _made_up_address(number: int) -> Address:
    """/ip4/127.x.y.z/tcp/4001 in binary form."""
    return b"\x04" + bytes((127, number >> 16 & 0xFF, number >> 8 & 0xFF, number & 0xFF)) + b"\x06\x0f\xa1"


class MemoryNetwork:
    """One peer's side of a MemorySwitch; see transport/network.py for what its methods promise.

    dropped: messages lost here, by cause. refused: protocols that the engine does not serve. record: this peer's
    signed peer record, which others get with their PeerUp; none unless somebody sets it.
    """

    def __init__(self, switch: MemorySwitch, peer: PeerId, address: Address) -> None:
        self._switch = switch
        self._peer = peer
        self._address = address
        self.dropped: Counter[str] = Counter()
        self.refused: dict[str, None] = {}
        self.record = b""
        self._known: dict[PeerId, tuple[Address, ...]] = {}
        self._handlers: dict[str, StreamHandler] = {}
        self._reset()

    def _reset(self) -> None:
        self._numbers = count(1)
        self._agenda: list[_Entry] = []
        self._news = trio.Event()
        self._connections: dict[PeerId, _Connection] = {}
        self._arrival: dict[PeerId, float] = {}  # when the last entry from a peer is due: order is kept
        self._unanswered: OrderedDict[int, tuple[_Connection, int]] = OrderedDict()
        self._nursery: trio.Nursery | None = None

    @property
    def peer_id(self) -> PeerId:
        """The local peer."""
        return self._peer

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The made-up address."""
        return (self._address,)

    async def addresses_other_than(self, known: Sequence[Address]) -> tuple[Address, ...]:
        """It never has others."""
        if self.addresses == tuple(known):
            await trio.sleep_forever()
        return self.addresses

    @property
    def reachability(self) -> Status:
        """Nothing stands between two peers here."""
        return "reachable"

    @property
    def counters(self) -> dict[str, int]:
        """What was dropped."""
        return {f"dropped: {cause}": number for cause, number in self.dropped.items()}

    @property
    def connected(self) -> tuple[PeerId, ...]:
        """Peers with which a connection stands."""
        return tuple(peer for peer, link in self._connections.items() if self._peer not in link.waiting)

    def ip_of(self, peer: PeerId) -> str:
        """All are in one process."""
        return "127.0.0.1" if peer in self.connected else ""

    # What the engine asks for -------------------------------------------------------------------------------

    def introduce(self, peer: PeerId, addresses: Sequence[Address]) -> None:
        """Remember where a peer can be dialled."""
        merged = dict.fromkeys((*addresses, *self._known.get(peer, ())))
        self._known[peer] = tuple(merged)[:8]

    def send(self, to: PeerId, message: Message) -> None:
        """Queue a message, dialling where needed."""
        if self._nursery is None:
            self.dropped["not running"] += 1
            return
        if to == self._peer:
            self.dropped["to itself"] += 1
            return
        parcel = self._pack(to, message)
        if parcel is None:
            self.dropped["late reply"] += 1
            return
        connection = self._connections.get(to) or self._dial(to)
        waiting = connection.waiting.get(self._peer)
        if waiting is None:
            self._transmit(to, connection, parcel)
        elif len(waiting) < _MAX_QUEUED:
            waiting.append(parcel)
        else:
            self._overflow(to, connection, parcel)

    def disconnect(self, peer: PeerId) -> None:
        """Close the connection to a peer; both sides get PeerDown."""
        connection = self._connections.pop(peer, None)
        if connection is not None:
            connection.settled[self._peer].set()
            self._schedule(trio.current_time(), peer, PeerDown(peer), None)
            self._tell_down(peer, connection)

    def protect(self, peer: PeerId, protected: bool) -> None:
        """Connections cost nothing here: all of them are kept."""

    def serve(self, protocol: str, serving: bool) -> None:
        """Serve a protocol, or refuse it; those connected are told."""
        if serving:
            self.refused.pop(protocol, None)
        else:
            self.refused[protocol] = None
        for peer, connection in self._connections.items():
            self._tell(peer, connection, Speaks(self._peer, protocol, serving))

    async def run(
        self, deliver: Deliver, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Carry messages until cancelled; then the peer has crashed, and may run again."""
        self._switch.start(self)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                while True:
                    event = self._unpack(await self._next())
                    if event is not None:
                        deliver(event)
        finally:
            self._switch.stop(self)
            for peer, connection in self._connections.items():
                connection.settled[self._peer].set()
                self._tell_down(peer, connection)
            self._reset()

    # Dialling and streams -----------------------------------------------------------------------------------

    async def dial_peer(self, peer: PeerId, addresses: Sequence[Address] = ()) -> None:
        """Connect to a peer; see PeerNetwork."""
        if self._nursery is None:
            raise UsageError("this network does not run; start it before dialling")
        self.introduce(peer, addresses)
        connection = self._connections.get(peer) or self._dial(peer)
        await connection.settled[self._peer].wait()
        if peer not in self.connected:
            raise DialError(str(peer), "nobody answers at its addresses", "check that the peer runs")

    def set_handler(self, protocol: str, handler: StreamHandler) -> None:
        """Serve a protocol."""
        self._handlers[protocol] = handler

    def remove_handler(self, protocol: str) -> None:
        """Stop serving a protocol."""
        self._handlers.pop(protocol, None)

    async def open_stream(self, peer: PeerId, protocol: str) -> PeerStream:
        """Open a stream. The link delays its opening, not its bytes."""
        await self.dial_peer(peer)
        target = self._switch.running(peer)
        delay = self._switch.delay(self._peer, peer)
        if target is None or delay is None:
            raise DialError(str(peer), "the connection is cut", "try again later")
        await trio.sleep(delay)
        ours, theirs = stream_pair(self._peer, peer, protocol)
        if not target.accept(theirs):
            raise ProtocolUnsupported(f"{peer} does not speak {protocol}; no stream was opened")
        return ours

    def accept(self, stream: PeerStream) -> bool:
        """Another peer opened a stream; whether it is served here."""
        handler = self._handlers.get(stream.protocol)
        if handler is None or self._nursery is None:
            return False
        self._nursery.start_soon(serve, handler, stream)
        return True

    # Connections --------------------------------------------------------------------------------------------

    def _dial(self, to: PeerId) -> _Connection:
        """Begin a connection; its PeerUp, or the PeerDown of a failure, is on its way when this returns."""
        connection = _Connection({self._peer: [], to: []}, {self._peer: trio.Event(), to: trio.Event()})
        self._connections[to] = connection
        now = trio.current_time()
        target = self._switch.running(to)
        if target is None or target.addresses[0] not in self._known.get(to, ()):
            delay = self._switch.delay(self._peer, to)  # refused after a round trip
            failed = now + (_DIAL_TIMEOUT_S if delay is None else 2.0 * delay)
            self._schedule(failed, to, PeerDown(to), connection)
            return connection
        for _ in range(_DIAL_TRIES):
            there, back = self._switch.delay(self._peer, to), self._switch.delay(to, self._peer)
            if there is not None and back is not None:
                target.expect(now + there, self, connection)
                where = target.addresses
                up = PeerUp(to, where, outbound=True, remote=where[0], record=target.record)
                self._schedule(now + there + back, to, up, connection)
                return connection
        self._schedule(now + _DIAL_TIMEOUT_S, to, PeerDown(to), connection)
        return connection

    def expect(self, due: float, source: MemoryNetwork, connection: _Connection) -> None:
        """Another peer's dial arrives at `due`; what waited for a dial of our own goes over it."""
        peer, addresses = source.peer_id, source.addresses
        failing = self._connections.get(peer)
        if failing is not None and self._peer in failing.waiting:  # not of an earlier life of this peer
            connection.waiting[self._peer] = failing.waiting[self._peer]
            connection.settled[self._peer] = failing.settled[self._peer]
        self._connections[peer] = connection
        up = PeerUp(peer, addresses, remote=addresses[0], record=source.record)
        self._schedule(due, peer, up, connection)

    def _tell(self, peer: PeerId, connection: _Connection, fact: Speaks) -> None:
        target, delay = self._switch.running(peer), self._switch.delay(self._peer, peer)
        if target is not None and delay is not None:
            target.schedule(trio.current_time() + delay, self._peer, fact, connection)

    def _tell_down(self, peer: PeerId, connection: _Connection) -> None:
        target = self._switch.running(peer)
        if target is not None:
            delay = self._switch.delay(self._peer, peer)
            due = trio.current_time() + (_SILENCE_S if delay is None else delay)
            target.schedule(due, self._peer, PeerDown(self._peer), connection)

    # Messages -----------------------------------------------------------------------------------------------

    def _pack(self, to: PeerId, message: Message) -> _Parcel | None:
        """The parcel of a message; None for a reply to a request that is not waiting for one."""
        number = 0
        if isinstance(message, Request):
            number = message.id
        elif isinstance(message, Reply):
            connection, number = self._unanswered.pop(message.id, (None, 0))
            if connection is None or self._connections.get(to) is not connection:
                return None
        protocol = self._switch.protocol(message)
        reply = isinstance(message, Reply)
        answered = isinstance(message, Request) and message.expects_reply
        if protocol is None:
            return _Parcel(message, b"", None, message.protocol, number, answered, reply)
        return _Parcel(None, protocol.encode(message), protocol, protocol.name, number, answered, reply)

    def _transmit(self, to: PeerId, connection: _Connection, parcel: _Parcel) -> None:
        target = self._switch.running(to)
        delay = self._switch.delay(self._peer, to)
        if target is None or delay is None:
            self.dropped["lost"] += 1
        elif parcel.name in target.refused and not parcel.reply:
            numbers = (parcel.id,) if parcel.answered else ()
            back = Undeliverable(to, parcel.name, numbers, unsupported=True)
            self._schedule(trio.current_time() + 2.0 * delay, to, back, connection)
        elif not target.schedule(trio.current_time() + delay, self._peer, parcel, connection):
            self._overflow(to, connection, parcel)

    def _overflow(self, to: PeerId, connection: _Connection, parcel: _Parcel) -> None:
        self.dropped["queue full"] += 1
        if parcel.answered:
            failed = Undeliverable(to, parcel.name, (parcel.id,))
            self._schedule(trio.current_time(), to, failed, connection)

    def schedule(
        self,
        due: float,
        sender: PeerId,
        what: PeerUp | PeerDown | Speaks | _Parcel,
        connection: _Connection | None,
    ) -> bool:
        """Something arrives at `due`, or after what the same peer sent before; False when it is dropped."""
        if isinstance(what, _Parcel) and len(self._agenda) >= _MAX_QUEUED:
            return False
        self._schedule(due, sender, what, connection)
        return True

    def _schedule(
        self,
        due: float,
        sender: PeerId,
        what: PeerUp | PeerDown | Undeliverable | Speaks | _Parcel,
        connection: _Connection | None,
    ) -> None:
        due = max(due, self._arrival.get(sender, due))
        self._arrival[sender] = due
        heappush(self._agenda, _Entry(due, next(self._numbers), sender, what, connection))
        self._news.set()

    async def _next(self) -> _Entry:
        while True:
            if not self._agenda:
                await self._news.wait()
            elif self._agenda[0].due > trio.current_time():
                with trio.move_on_at(self._agenda[0].due):
                    await self._news.wait()
            else:
                await trio.lowlevel.checkpoint()
                return heappop(self._agenda)
            if self._news.is_set():
                self._news = trio.Event()

    def _unpack(self, entry: _Entry) -> NetworkEvent | None:
        """The event for the engine, or None when the connection is over that it came on."""
        connection, sender, what = entry.connection, entry.sender, entry.what
        if connection is not None and self._connections.get(sender) is not connection:
            return None
        match what:
            case PeerUp():
                assert connection is not None
                self.introduce(sender, what.addresses)
                connection.settled[self._peer].set()
                for protocol in self.refused:
                    self._tell(sender, connection, Speaks(self._peer, protocol, serving=False))
                for parcel in connection.waiting.pop(self._peer):
                    self._transmit(sender, connection, parcel)
                return what
            case PeerDown():
                if connection is not None:
                    del self._connections[sender]
                    connection.settled[self._peer].set()
                return what
            case Undeliverable() | Speaks():
                return what
            case _Parcel():
                assert connection is not None
                message = self._decode(sender, connection, what)
                if message is not None:
                    return Received(sender, message)
                return Undeliverable(sender, what.name, (what.id,)) if what.reply else None

    def _decode(self, sender: PeerId, connection: _Connection, parcel: _Parcel) -> Message | None:
        number = parcel.id if parcel.reply else next(self._numbers)
        try:
            if parcel.message is not None:
                message = parcel.message
                if isinstance(message, Request | Reply):
                    message = replace(message, id=number)
            else:
                assert parcel.protocol is not None
                decode = parcel.protocol.decode_reply if parcel.reply else parcel.protocol.decode
                assert decode is not None
                message = decode(sender, parcel.body, number)
        except BadMessage:
            self.dropped["bad message"] += 1
            return None
        if isinstance(message, Request) and message.expects_reply:
            self._unanswered[message.id] = (connection, parcel.id)
            if len(self._unanswered) > _MAX_UNANSWERED:
                self._unanswered.popitem(last=False)
        return message
