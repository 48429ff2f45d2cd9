"""The contract between protocol logic and the world.

An *engine* is a pure state machine: `handle(event, now)` changes its state and returns what is to be done.
It never reads a clock, opens a socket or draws from a global random source. The same engine runs over
libp2p (driver.py) and, thousands at a time, in virtual time (transport/sim.py).

Time. `now` is in float seconds and never decreases. It is anchored to the Unix epoch when a driver starts,
so that absolute expiries compare with it; after that it follows the monotonic clock, and leaps forward when
the machine has slept. Simulations start at 0.

What an engine promises (tests/conformance.py holds each one to it):

1. Same arguments, same seed, same (event, now) list: same outputs.
2. `handle` never blocks, and nothing that a peer can send makes it raise.
3. An early or repeated Tick changes nothing; a due one moves `deadline()` past `now`.
4. Every table, cache and queue stays within its configured bound.

What the runner promises: `now` never decreases; one event at a time; every Send reaches its target, is
lost, or comes back as PeerDown, or as Undeliverable while the connection stands.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from .identity import PeerId

Address = bytes
"""A multiaddr in its binary form, without a trailing /p2p part: what goes over the wire. Engines never look
inside, and never pay for parsing; the API shows `multiaddr.Multiaddr` instead."""


class Message:
    """Base of everything that goes from engine to engine. Subclasses are frozen, slotted dataclasses."""

    __slots__ = ()
    protocol: ClassVar[str]
    """Name of the WireProtocol (wire.py) that carries it, such as "dht"."""


@dataclass(frozen=True, slots=True)
class Request(Message):
    """A message that is answered on the stream it came on.

    id: chosen by the sender's engine and repeated by the reply. It never goes over the wire: the network
        matches replies to requests by their order on a stream, and gives an inbound request an id of its own.
    """

    id: int
    expects_reply: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Reply(Message):
    """The answer to the Request with the same id."""

    id: int


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A peer and where it can be dialled."""

    peer: PeerId
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Received:
    """A decoded message; `sender` is authenticated by the connection."""

    sender: PeerId
    message: Message


@dataclass(frozen=True, slots=True)
class PeerUp:
    """A connection to `peer` stands.

    addresses: where it says it can be dialled, as far as known. outbound: this side dialled it. remote: where the
    connection comes from or goes to, for counting peers of one host; empty when unknown. record: its signed peer
    record (libp2p RFC 0003), as it came, unverified; empty when it sent none.
    """

    peer: PeerId
    addresses: tuple[Address, ...] = ()
    outbound: bool = False
    remote: Address = b""
    record: bytes = b""


@dataclass(frozen=True, slots=True)
class Certified:
    """A connected peer's signed peer record, as it came and unverified, where it came after the PeerUp: because this
    side dialled, or because it is a newer one."""

    peer: PeerId
    record: bytes


@dataclass(frozen=True, slots=True)
class PeerDown:
    """The last connection to `peer` closed, or it could not be reached. Streams and queues to it are gone."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """What was sent to a connected peer in one protocol will not be answered; the connection stands.

    protocol: name of the WireProtocol. requests: ids of the Requests that nobody will answer; may be empty.
    unsupported: because the peer does not speak the protocol, which stays so until the next connection, or a
        Speaks that names it. Otherwise the stream broke twice, or too much waits already.
    """

    peer: PeerId
    protocol: str
    requests: tuple[int, ...] = ()
    unsupported: bool = False


@dataclass(frozen=True, slots=True)
class Speaks:
    """Whether a connected peer serves one of our protocols, as it says: told after its PeerUp when it does not,
    and whenever it says that this has changed. What was not told is not known.

    protocol: name of the WireProtocol. id: which of its ids will be agreed on, where that is not the preferred one.
    """

    peer: PeerId
    protocol: str
    serving: bool
    id: str = ""


@dataclass(frozen=True, slots=True)
class Congested:
    """Whether more waits to leave for a connected peer in one protocol than its connection takes. What is sent
    nevertheless waits, or is dropped when too much does. Told when it changes; a new connection is not congested. Only
    networks that carry bytes tell it, and only of protocols whose messages have no replies.

    protocol: name of the WireProtocol.
    """

    peer: PeerId
    protocol: str
    congested: bool


@dataclass(frozen=True, slots=True)
class Reachable:
    """Whether other peers can dial this one, as far as the network knows; told when that changes. They can until
    it is told."""

    reachable: bool


@dataclass(frozen=True, slots=True)
class Located:
    """Where this peer, or a connected one, says that it can be dialled has changed: a router opened a port for it, or
    a relay takes connections for it. All of its addresses, as it says."""

    peer: PeerId
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """Time moved. Sent when `deadline()` is due; harmless at any other time."""


@dataclass(frozen=True, slots=True)
class Send:
    """Best effort. Dials when there is no connection; failure returns as PeerDown."""

    to: PeerId
    message: Message


@dataclass(frozen=True, slots=True)
class Introduce:
    """Where others say that a peer can be dialled; comes before the first Send to it."""

    peer: PeerId
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close every connection to `peer`."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Serve:
    """Whether this peer serves a protocol, by the name of its WireProtocol; every one from the start. What is not
    served is refused to those who ask, and connected peers are told. Sending in it goes on."""

    protocol: str
    serving: bool


@dataclass(frozen=True, slots=True)
class Protect:
    """Whether the connection to a peer, if there is one, is kept when the network has too many and closes the least
    useful; none is from the start."""

    peer: PeerId
    protected: bool


NetworkEvent = (
    Received | PeerUp | Certified | PeerDown | Undeliverable | Speaks | Congested | Reachable | Located | Tick
)
NetworkOutput = Send | Introduce | Disconnect | Serve | Protect

Command = TypeVar("Command")
Output = TypeVar("Output")


class Engine(ABC, Generic[Command, Output]):
    """A pure protocol state machine; the module's docstring says what it promises."""

    @abstractmethod
    def handle(self, event: NetworkEvent | Command, now: float) -> Sequence[NetworkOutput | Output]:
        """Take one event and return everything that follows from it, in order."""

    @abstractmethod
    def deadline(self) -> float:
        """When the next Tick is wanted, in seconds as `now`; math.inf for never."""
