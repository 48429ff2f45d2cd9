"""One carrier connection of a session: a byte stream that proves itself, then carries records.

    initiator                                      responder
    first hello (tag, ciphers, epoch, key, proof) ->
                          <- second hello (cipher, key), record (not counted: how many were received)
    record (not counted: how many were received), counted records ... ->
                                                   <- counted records ...

States:  GREETING --hellos exchanged--> PROVING --first record opens--> PRESENT
         each may go to CLOSED: the stream broke, something untrue came, or another took its place

The initiator dials, gives up what it had, and takes the next epoch of the chain for the new connection. The
responder holds on to what it has until a first hello is proven; then it takes nothing more from the old
connection, so that what it says it has received stays true. A first hello is good once: a withheld or repeated
one has an epoch that is over.

Data flows one round trip after the first hello from the initiator, half a one later from the responder.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from .crypto import FIRST_BYTES, SECOND_BYTES, Chain, Direction, Greeting, answer
from .records import ReceiveBuffer, Record, RecordReader, RecordWriter

if TYPE_CHECKING:
    from random import Random

    from .events import Event
    from .session import Session


Seal = Callable[[int, int, bytes, "bytes | memoryview | None", list[bytes], float], int]
Next = Callable[[], Record | None]


def _unproven(
    flags: int, received: int, frames: bytes, body: bytes | memoryview | None, out: list[bytes], now: float
) -> int:
    raise AssertionError("only a proven carrier connection seals")


def _nothing() -> None:
    return None


class CarrierState(Enum):
    GREETING = "greeting"
    PROVING = "proving"
    PRESENT = "present"
    CLOSED = "closed"


class Carrier:
    """Made by `Session.attach`. Read into `buffer()`, say how much with `received`; write what `outgoing` gives.

    seal, next: of its `RecordWriter` and `RecordReader`; before, and once it is closed, nothing comes and nothing
        may go. asked_at: when it began to wait for what the partner answers at once.
    number: which of the session's carrier connections this is, from 1. since: when its state began.
    """

    __slots__ = (
        "_buffer",
        "_greeting",
        "_hello",
        "_reader",
        "_session",
        "asked_at",
        "next",
        "number",
        "seal",
        "since",
        "state",
    )

    def __init__(self, session: Session, number: int, greeting: Greeting | None, now: float) -> None:
        self._session = session
        self._buffer = ReceiveBuffer()
        self._greeting = greeting
        self._hello = b"" if greeting is None else greeting.first
        self._reader: RecordReader | None = None
        self.seal: Seal = _unproven
        self.next: Next = _nothing
        self.number = number
        self.since = self.asked_at = now
        self.state = CarrierState.GREETING

    @property
    def closed(self) -> bool:
        return self.state is CarrierState.CLOSED

    def buffer(self) -> memoryview:
        """Where to read the stream's next bytes into; never empty."""
        return self._buffer.free(0 if self._reader is None else self._reader.needed)

    def received(self, size: int, now: float) -> list[Event]:
        """The stream brought `size` bytes into what `buffer()` gave; what happened, in order.

        Nothing that comes raises. What is untrue ends this connection with `Dropped`, as the last event.
        """
        self._buffer.end += size
        return self._session.bytes_came(self, now)

    def receive(self, data: bytes | memoryview, now: float) -> list[Event]:
        """The same for bytes that lie elsewhere; costs a copy."""
        events: list[Event] = []
        rest = memoryview(data)
        while rest and not self.closed:
            room = self.buffer()
            size = min(len(rest), len(room))
            room[:size] = rest[:size]
            rest = rest[size:]
            events += self.received(size, now)
        return events

    def outgoing(self, most: int, now: float) -> list[bytes]:
        """What to write to the stream now, about `most` bytes: once they are reached no further record begins.

        Ask for little more than the stream takes at once: what is decided late, an urgent message overtakes.
        """
        out: list[bytes] = []
        if self._hello:
            out.append(self._hello)
            self._hello = b""
        if self.state is CarrierState.PRESENT:
            self._session.fill(self, out, most, now)
        return out

    # What follows is for the session.

    def close(self) -> None:
        """Forget keys and what lies here."""
        self.state = CarrierState.CLOSED
        self._hello = b""
        self._reader = self._greeting = None
        self.seal, self.next = _unproven, _nothing
        self._buffer = ReceiveBuffer()

    def greeted(self, now: float) -> bool:
        """The initiator's: whether the second hello has come. Raises Untrue."""
        second = self._buffer.take(SECOND_BYTES)
        if second is None:
            return False
        assert self._greeting is not None
        ours, theirs = self._greeting.answered(second)
        self._greeting = None
        self._begin(ours, theirs, now)
        return True

    def greet(self, chain: Chain, rng: Random, aes: bool, now: float) -> bool:
        """The responder's: whether a first hello has come that is proven. Raises Untrue."""
        first = self._buffer.take(FIRST_BYTES)
        if first is None:
            return False
        self._hello, theirs, ours = answer(chain, first, rng, aes)
        self._begin(ours, theirs, now)
        self.asked_at = now
        return True

    def _begin(self, ours: Direction, theirs: Direction, now: float) -> None:
        config = self._session.config
        self.seal = RecordWriter(ours, config, now).seal
        self._reader = RecordReader(theirs, self._buffer)
        self.next = self._reader.next
        self.state, self.since = CarrierState.PROVING, now

    def say_received(self, received: int, now: float) -> None:
        """The first record of this side: how many counted ones it has taken so far."""
        out = [self._hello]
        self.seal(0, received, b"", None, out, now)
        self._hello = b"".join(out)
