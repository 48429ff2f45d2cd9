"""Two sessions, and a byte stream between them that tests cut, delay and change."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from swarmp2p.transport.overlay.carrier import Carrier
from swarmp2p.transport.overlay.config import SessionConfig
from swarmp2p.transport.overlay.events import (
    Data,
    Dropped,
    Ended,
    Established,
    Event,
    Finished,
    Opened,
    Reset,
)
from swarmp2p.transport.overlay.session import Session

SECRET = bytes(range(32))


@dataclass
class Side:
    """One session with what it told: the test's local connections take everything at once unless `greedy` is off."""

    session: Session
    greedy: bool = True
    carrier: Carrier | None = None
    events: list[Event] = field(default_factory=list)
    opened: list[tuple[int, int]] = field(default_factory=list)
    got: dict[int, bytearray] = field(default_factory=dict)
    finished: list[int] = field(default_factory=list)
    reset: list[int] = field(default_factory=list)
    ended: str | None = None
    dropped: list[str] = field(default_factory=list)

    def take(self, events: list[Event]) -> None:
        for event in events:
            self.events.append(event)
            match event:
                case Data(channel, data):
                    self.got.setdefault(channel, bytearray()).extend(data)
                    if self.greedy:
                        self.session.consumed(channel, len(data))
                case Opened(channel, port):
                    self.opened.append((channel, port))
                case Finished(channel):
                    self.finished.append(channel)
                case Reset(channel):
                    self.reset.append(channel)
                case Ended(reason):
                    self.ended = reason
                case Dropped(carrier, reason):
                    self.dropped.append(reason)
                    if self.carrier is carrier:
                        self.carrier = None
                case Established():
                    pass

    def out(self, most: int, now: float) -> bytes:
        return b"" if self.carrier is None else b"".join(self.carrier.outgoing(most, now))

    def feed(self, data: bytes, now: float) -> None:
        if self.carrier is not None:
            self.take(self.carrier.receive(data, now))


@dataclass
class Pair:
    """An initiator and a responder at one time."""

    config: SessionConfig = field(default_factory=SessionConfig)
    other_config: SessionConfig | None = None
    seed: int = 1
    now: float = 1000.0

    def __post_init__(self) -> None:
        rng = Random(self.seed)
        self.a = Side(Session(SECRET, True, self.now, rng, self.config))
        self.b = Side(Session(SECRET, False, self.now, rng, self.other_config or self.config))

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.a, self.b

    def connect(self) -> None:
        """A new stream between both; nothing has crossed it."""
        for side in self.sides:
            if side.carrier is not None:
                side.session.detach(side.carrier, self.now)
            side.carrier = side.session.attach(self.now)

    def cut(self) -> None:
        for side in self.sides:
            if side.carrier is not None:
                side.session.detach(side.carrier, self.now)
                side.carrier = None

    def settle(self, most: int = 1 << 20) -> None:
        """Carry everything until both sides have nothing to say."""
        while True:
            crossing = self.a.out(most, self.now), self.b.out(most, self.now)
            if not any(crossing):
                return
            self.b.feed(crossing[0], self.now)
            self.a.feed(crossing[1], self.now)


def connected(config: SessionConfig | None = None, seed: int = 1) -> Pair:
    pair = Pair(config or SessionConfig(), seed=seed)
    pair.connect()
    pair.settle()
    return pair
