"""What stands between one PeerUp and its PeerDown: queues and streams with one peer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeGuard

import trio

from ..engine import Address, Certified, Congested, Located, Message, Request, Speaks, Undeliverable
from ..errors import BadMessage
from ..identity import PeerId
from ..rates import Rates
from ..wire import Exchange, WireProtocol
from .config import HostConfig, HostStats
from .identify import Identified, hear
from .muxer import MuxedConnection, MuxedStream
from .network import Deliver
from .outbox import Outbox, receive_messages
from .replies import Desk, RequestServer
from .requests import RequestPool


class PeerSession:
    """One peer while it is connected, or being dialled because something was sent to it.

    nursery: of its streams; None until a connection stands. Events, in this order: connected (a connection
    stands, or none came about), ready (streams can be served), up (PeerUp was delivered), gone (the last
    connection is over, or none came about), over (PeerDown was delivered; the peer may have a new session).
    """

    def __init__(
        self,
        peer: PeerId,
        config: HostConfig,
        stats: HostStats,
        deliver: Deliver,
        connection: Callable[[], MuxedConnection | None],
        soon: Callable[[Callable[[], None]], None],
        punish: Callable[[PeerId, str], None],
        learn: Callable[[PeerId, Sequence[Address]], None],
    ) -> None:
        self.peer, self.config, self.stats, self.deliver = peer, config, stats, deliver
        self.connection, self.soon = connection, soon
        self.nursery: trio.Nursery | None = None
        self.connected = trio.Event()
        self.ready = trio.Event()
        self.up = trio.Event()
        self.gone = trio.Event()
        self.over = trio.Event()
        self.useful_at = -math.inf  # when it last answered, or something was sent to it, as trio's time
        self.used = False  # the engine sent something: it wants to know when this fails
        self.rate = Rates[None](
            config.messages_per_s, config.messages_burst, 1
        )  # of messages that are no requests
        self.addresses: tuple[Address, ...] = ()  # where the engine knows that it can be dialled
        self._punish, self._learn = punish, learn
        self._outboxes: dict[str, Outbox] = {}
        self._pools: dict[str, RequestPool] = {}
        self._refused: dict[str, None] = {}
        # What the engine knows of what the other side serves: the id, empty for none. Until then, the preferred one.
        self._said: dict[str, str] = {}
        self._pushes = 0
        self._serving: dict[MuxedStream, str] = {}
        self._reading: dict[str, MuxedStream] = {}
        self._failed: dict[str, Undeliverable] = {}  # to be told, by protocol

    def send(self, protocol: WireProtocol, message: Message) -> None:
        """Queue a message that is no reply."""
        self.used = True
        if self.gone.is_set():
            self.drop("going down")  # its PeerDown is on its way
        elif protocol.name in self._refused:
            self.drop("unsupported")
            self.fail(protocol.name, (message.id,) if _wants_reply(message) else (), unsupported=True)
        elif protocol.exchange is Exchange.REQUESTS and _wants_reply(message):
            pool = self._pools.get(protocol.name)
            if pool is None:
                pool = self._pools[protocol.name] = RequestPool(self, protocol)
            pool.put(message.id, protocol.encode(message))
        else:
            outbox = self._outboxes.get(protocol.name)
            if outbox is None:
                outbox = self._outboxes[protocol.name] = Outbox(
                    self, protocol, discard=protocol.exchange is Exchange.REQUESTS
                )
            outbox.put(protocol.encode(message))

    def start(self, nursery: trio.Nursery) -> None:
        """A connection stands: send what waits."""
        self.nursery = nursery
        self.ready.set()
        for outbox in self._outboxes.values():
            outbox.flush()
        for pool in self._pools.values():
            pool.flush()
        if self._failed:
            nursery.start_soon(self._report)

    def end(self) -> None:
        """The last connection is over, or none came about: what waits is lost."""
        if not self.gone.is_set():
            lost = sum(outbox.waiting for outbox in self._outboxes.values())
            self.drop("unreachable", lost + sum(pool.waiting for pool in self._pools.values()))
            for event in (self.connected, self.ready, self.gone):
                event.set()

    async def serve(self, protocol: WireProtocol, stream: MuxedStream, desk: Desk) -> None:
        """Deliver what comes on a stream that the other side opened, until it ends."""
        await self.up.wait()
        if protocol.exchange is Exchange.REQUESTS:
            self._serving[stream] = protocol.name
            try:
                await RequestServer(self, protocol, stream, desk).run()
            finally:
                del self._serving[stream]
            return
        replaced = self._reading.get(protocol.name)
        if replaced is not None and _is_upgrade(replaced, stream):
            pass  # what is under way through the relay is read to its end
        elif replaced is not None:
            replaced.reset()
            outbox = self._outboxes.get(protocol.name)
            if outbox is not None and replaced.connection is not stream.connection:
                # It may have restarted, and its old connection be dead without anybody having noticed.
                outbox.move(stream.connection)
        self._reading[protocol.name] = stream
        await receive_messages(self, protocol, stream)
        if self._reading.get(protocol.name) is stream:
            del self._reading[protocol.name]

    @property
    def asking(self) -> bool:
        """Whether requests to the peer are under way."""
        return any(pool.waiting for pool in self._pools.values())

    def sweep(self, now: float) -> None:
        """Called at intervals: close what is idle, give up what is late."""
        self._pushes = 0
        for outbox in self._outboxes.values():
            outbox.sweep(now)
        for pool in self._pools.values():
            pool.sweep(now)

    def refuse(self, protocol: str) -> None:
        """The other side does not speak a protocol: do not try again before the next connection."""
        self._refused[protocol] = None
        self._said[protocol] = ""

    def stop_serving(self, protocol: str) -> None:
        """End the streams on which the other side asks in a protocol."""
        for stream, name in list(self._serving.items()):
            if name == protocol:
                stream.reset()

    async def identified(self, protocols: Sequence[WireProtocol], said: Identified) -> None:
        """The other side says what it serves. What it lists may be asked for again; what it does not list is left
        to the next stream to find out: some list a protocol only later."""
        await self.up.wait()
        for protocol in protocols:
            agreed = next((known for known in protocol.ids if known in said.protocols), "")
            if agreed:
                self._refused.pop(protocol.name, None)
            self.speaks(protocol, agreed)

    def speaks(self, protocol: WireProtocol, agreed: str) -> None:
        """Tell the engine which of a protocol's ids the other side speaks, unless it knows; empty for none. To be
        called after `up`, from tasks of the host's own."""
        preferred = protocol.ids[0]
        if self._said.get(protocol.name, preferred) != agreed and not self.gone.is_set():
            self._said[protocol.name] = agreed
            told = agreed if agreed != preferred else ""
            self.deliver(Speaks(self.peer, protocol.name, bool(agreed), told))

    def certified(self, said: Identified) -> None:
        """The other side's record came after its PeerUp."""
        if self.config.ask_records and said.record and not self.gone.is_set():
            self.deliver(Certified(self.peer, said.record))

    def located(self, addresses: tuple[Address, ...]) -> None:
        """The other side says where it can be dialled now. That it says nothing does not count."""
        addresses = addresses[: self.config.known_addresses]
        if addresses and addresses != self.addresses and not self.gone.is_set():
            self.addresses = addresses
            self._learn(self.peer, addresses)
            self.deliver(Located(self.peer, addresses))

    async def take_push(self, protocols: Sequence[WireProtocol], stream: MuxedStream) -> Identified | None:
        """The other side says of itself what has changed; returns it."""
        try:
            with trio.fail_after(self.config.negotiate_timeout_s):
                said = await hear(stream)
            stream.abandon()
            self._pushes += 1
            if self._pushes > self.config.max_pushes:
                raise BadMessage(f"{self._pushes} times within {self.config.sweep_s:g} s what has changed")
            if said is not None:
                await self.identified(protocols, said)
                self.certified(said)
                self.located(said.addresses)
            return said
        except BadMessage as problem:
            stream.reset()
            self.offence(str(problem))
        except (trio.BrokenResourceError, trio.TooSlowError):
            stream.reset()
        return None

    def refuses(self, protocol: str) -> bool:
        """Whether the other side does not speak a protocol."""
        return protocol in self._refused

    def fail(self, protocol: str, requests: Sequence[int], *, unsupported: bool = False) -> None:
        """Tell the engine that these requests will not be answered; when the connection is over, PeerDown does."""
        if self.gone.is_set():
            return
        if not self._failed and self.nursery is not None:
            self.nursery.start_soon(self._report)
        before = self._failed.get(protocol)
        if before is not None:
            requests, unsupported = (*before.requests, *requests), before.unsupported or unsupported
        self._failed[protocol] = Undeliverable(self.peer, protocol, tuple(requests), unsupported)

    async def _report(self) -> None:
        await self.up.wait()
        while self._failed:
            self.deliver(self._failed.pop(next(iter(self._failed))))

    def congest(self, protocol: str, congested: bool) -> bool:
        """Tell the engine whether too much waits in a protocol, unless it does not know of the peer; whether it was
        told. To be called from tasks of the host's own, so that nothing overtakes it."""
        if not self.up.is_set() or self.gone.is_set():
            return False
        self.deliver(Congested(self.peer, protocol, congested))
        return True

    def drop(self, cause: str, number: int = 1) -> None:
        """Count lost messages."""
        if number:
            self.stats.dropped[cause] += number

    def offence(self, problem: str) -> None:
        """The other side sent what it should not."""
        self._punish(self.peer, problem)


def _wants_reply(message: Message) -> TypeGuard[Request]:
    return isinstance(message, Request) and message.expects_reply


def _is_upgrade(old: MuxedStream, new: MuxedStream) -> bool:
    """Whether a direct connection takes over from one through a relay."""
    return old.connection.relay is not None and new.connection.relay is None
