"""What a partner that has proven itself can make a plane do: bounded work in a round, bounded memory, few sockets."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Generator
from random import Random

import pytest

from swarmp2p.transport.overlay import frames
from swarmp2p.transport.overlay.carrier import CarrierState
from swarmp2p.transport.overlay.config import SessionConfig
from swarmp2p.transport.overlay.connection import STREAM
from swarmp2p.transport.overlay.control import PlaneEvent
from swarmp2p.transport.overlay.crypto import FIRST_BYTES
from swarmp2p.transport.overlay.loop import Loop
from swarmp2p.transport.overlay.partner import Partner, relieve
from swarmp2p.transport.overlay.records import COUNTED
from swarmp2p.transport.overlay.session import Session
from swarmp2p.transport.overlay.sockets import Taker

SECRET = b"s" * 32
PORT = 4711


class Flood:
    """A partner with a carrier to a session whose owner writes what frames it likes. It is the plane's owner, too:
    of the sockets asked for it gives none by itself."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.served = {PORT: "127.0.0.1"}
        self.counters: dict[str, int] = Counter()
        self.told: list[PlaneEvent] = []
        self.takers: list[Taker] = []
        self.most_held = 1 << 30
        self.partner = Partner(self, b"x" * 16)
        self.partner.begin(SECRET, False, [], Random(1), SessionConfig())
        self.session = Session(SECRET, True, time.monotonic(), Random(2))
        self.near, far = socket.socketpair()
        far.setblocking(False)
        self.carrier = self.session.attach(time.monotonic())
        self._say()
        assert self.partner.adopt(far, STREAM, far.recv(FIRST_BYTES))
        for _ in range(3):
            self.turn()
            self.carrier.receive(self.near.recv(1 << 20), time.monotonic())
            self._say()
            if self.carrier.state is CarrierState.PRESENT:
                break
        self.turn()

    def tell(self, event: PlaneEvent) -> None:
        self.told.append(event)

    def take_socket(self, taker: Taker) -> None:
        self.takers.append(taker)

    def relieve(self) -> None:
        relieve([self.partner], self.most_held)

    def turn(self) -> None:
        self.loop.turn(0.0)

    def _say(self) -> None:
        for piece in self.carrier.outgoing(1 << 16, time.monotonic()):
            self.near.sendall(piece)

    def send(self, frame: bytes) -> None:
        """One record with these frames."""
        out: list[bytes] = []
        self.carrier.seal(COUNTED, 0, frame, None, out, time.monotonic())
        self.near.sendall(b"".join(out))
        for _ in range(5):
            self.turn()

    def close(self) -> None:
        self.partner.silence()
        self.turn()
        self.near.close()
        self.loop.end()


@pytest.fixture
def flood() -> Generator[Flood, None, None]:
    made = Flood()
    yield made
    made.close()


def test_a_connection_that_is_opened_and_reset_at_once_costs_no_socket(flood: Flood) -> None:
    number = -1
    for _ in range(50):
        pairs = list[bytes]()
        for _ in range(1000):
            number += 2
            pairs += [frames.open_frame(number, PORT), frames.reset_frame(number)]
        flood.send(b"".join(pairs))
    assert flood.counters["taken"] == 50_000
    assert flood.takers == []
    assert flood.partner.forwards == 0


def test_few_sockets_are_asked_for_at_a_time_and_all_in_the_end(flood: Flood) -> None:
    for first in range(1, 601, 200):
        flood.send(b"".join(frames.open_frame(number, PORT) for number in range(first, first + 200, 2)))
    assert flood.partner.forwards == 300
    given = most = 0
    while flood.takers:
        most = max(most, len(flood.takers))
        flood.takers.pop(0)(socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        given += 1
        flood.turn()
    assert (given, most) == (300, 32)


def test_ports_that_are_not_served_are_refused_by_the_thousand(flood: Flood) -> None:
    for first in range(1, 6001, 2000):
        flood.send(b"".join(frames.open_frame(number, 22) for number in range(first, first + 2000, 2)))
    assert flood.counters["unserved"] == 3000
    assert (flood.takers, flood.partner.forwards) == ([], 0)


def test_small_pieces_wait_joined(flood: Flood) -> None:
    """A window of 2-byte pieces, each kept for itself, took 30 times its size."""
    flood.send(frames.open_frame(1, PORT))
    window = SessionConfig().first_window_bytes
    for _ in range(window // 8192):
        flood.send((frames.data_head(1, 2) + b"ab") * 4096)
    [forward] = flood.partner._forwards.values()  # pyright: ignore[reportPrivateUsage]
    pending = forward._pending  # pyright: ignore[reportPrivateUsage]
    assert pending is not None
    assert b"".join(pending) == b"ab" * (window // 2)
    assert len(pending) <= window // 8192


def test_after_a_portion_of_tiny_frames_the_next_is_smaller(flood: Flood) -> None:
    partner = flood.partner
    flood.send(frames.open_frame(1, PORT))
    before = partner._read_bytes  # pyright: ignore[reportPrivateUsage]
    for _ in range(3):
        flood.send((frames.data_head(1, 1) + b"a") * 6000)
    shrunk = partner._read_bytes  # pyright: ignore[reportPrivateUsage]
    assert shrunk < before // 4
    flood.send(frames.data_head(1, 1) + b"a")
    assert shrunk < partner._read_bytes < before  # pyright: ignore[reportPrivateUsage]


def test_what_nobody_takes_is_bounded_over_all_partners() -> None:
    """Sessions have a bound each, but all members may be one borrower's: the fullest connections go first."""
    floods = [Flood(), Flood()]
    try:
        for flood, channels in zip(floods, (2, 12), strict=True):
            for number in range(1, 2 * channels, 2):
                flood.send(frames.open_frame(number, PORT))
                for _ in range(5):
                    flood.send(frames.data_head(number, 40_000) + b"x" * 40_000)
        little, much = (flood.partner for flood in floods)
        assert (little.held, much.held) == (400_000, 2_400_000)
        relieve([little, much], 2_000_000)
        assert (little.held, much.held) == (400_000, 1_600_000)
        assert much.forwards == 8
        floods[1].most_held = 1_200_000
        floods[1].send(frames.open_frame(25, PORT) + frames.data_head(25, 1) + b"x")
        assert much.held <= 1_200_000
    finally:
        for flood in floods:
            flood.close()
