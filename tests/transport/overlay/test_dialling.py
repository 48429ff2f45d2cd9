"""Who is dialled when, and what a connection must be to be taken."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Generator

import pytest

from swarmp2p.transport.overlay.crypto import FIRST_BYTES
from swarmp2p.transport.overlay.dialling import PROBE, PROBED, Dialler, Endpoint
from swarmp2p.transport.overlay.loop import Loop

from .planes import WAIT_S

TAG = b"t" * 16


class Bench:
    """A dialler, what it said, and places to dial."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.connected: list[socket.socket] = []
        self.lacked = 0
        self.dialler = Dialler(self.loop, self._take, self._lack)
        self.opened: list[socket.socket] = []

    def _take(self, sock: socket.socket) -> None:
        self.opened.append(sock)
        self.connected.append(sock)

    def _lack(self) -> None:
        self.lacked += 1

    def listening(self) -> socket.socket:
        made = socket.create_server(("127.0.0.1", 0))
        self.opened.append(made)
        return made

    def dead(self) -> Endpoint:
        """Where nobody listens."""
        made = socket.socket()
        self.opened.append(made)
        made.bind(("127.0.0.1", 0))
        return endpoint(made)

    def accept(self, listening: socket.socket) -> socket.socket:
        made, _ = listening.accept()
        self.opened.append(made)
        return made

    def until(self, condition: Callable[[], bool]) -> None:
        """Turn the loop, and wake the dialler when it wants."""
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline
            self.loop.turn(min(0.05, max(0.0, self.dialler.wake_at - self.loop.now)))
            if self.dialler.wake_at <= self.loop.now:
                self.dialler.wake()

    def close(self) -> None:
        self.dialler.end()
        self.loop.end()
        for sock in self.opened:
            sock.close()


def endpoint(sock: socket.socket) -> Endpoint:
    host, port = sock.getsockname()
    return host, port


@pytest.fixture
def bench() -> Generator[Bench, None, None]:
    made = Bench()
    yield made
    made.close()


def test_the_first_that_answers_is_taken_and_then_comes_first(bench: Bench) -> None:
    good = bench.listening()
    bench.dialler.aim([bench.dead(), endpoint(good)], TAG)
    bench.dialler.start()
    bench.until(lambda: bool(bench.connected))
    assert bench.connected[0].getpeername() == endpoint(good)
    assert bench.dialler.wake_at == math.inf
    bench.dialler.proved()
    bench.dialler.rest(better=False)
    bench.dialler.start()
    assert bench.dialler._endpoints[0] == endpoint(good)  # pyright: ignore[reportPrivateUsage]
    bench.until(lambda: len(bench.connected) == 2)
    assert bench.lacked == 0


def test_without_an_answer_it_asks_for_a_stream_and_tries_again_ever_more_rarely(bench: Bench) -> None:
    bench.dialler.aim([bench.dead()], TAG)
    bench.dialler.start()
    pauses = []
    for round_ in range(1, 5):
        bench.until(lambda: bench.lacked == round_)  # noqa: B023 - called at once
        pauses.append(bench.dialler.wake_at - bench.loop.now)
    assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.4])


def test_who_moves_is_dialled_there_from_the_next_round_on(bench: Bench) -> None:
    there = bench.listening()
    bench.dialler.aim([bench.dead()], TAG)
    bench.dialler.start()
    bench.until(lambda: bench.lacked == 1)
    bench.dialler.move([endpoint(there)])
    bench.until(lambda: bool(bench.connected))
    assert bench.connected[0].getpeername() == endpoint(there)
    assert bench.lacked == 1


def test_who_could_not_be_dialled_and_moves_is_tried_beside_its_stream(bench: Bench) -> None:
    bench.dialler.aim([], TAG)
    bench.dialler.rest(better=True)
    assert bench.dialler.wake_at == math.inf
    bench.dialler.move([bench.dead()])
    assert bench.dialler.wake_at == pytest.approx(bench.loop.now + 15.0)


def test_without_endpoints_it_asks_at_once(bench: Bench) -> None:
    bench.dialler.aim([], TAG)
    bench.dialler.start()
    assert bench.lacked == 1


def test_one_that_does_not_become_a_carrier_is_not_the_last(bench: Bench) -> None:
    wrong, right = bench.listening(), bench.listening()
    bench.dialler.aim([endpoint(wrong), endpoint(right)], TAG)
    bench.dialler.start()
    bench.until(lambda: len(bench.connected) == 1)
    bench.dialler.failed()
    bench.until(lambda: len(bench.connected) == 2)
    assert bench.connected[1].getpeername() == endpoint(right)
    bench.dialler.failed()
    assert bench.lacked == 1


@pytest.mark.parametrize("answer", [PROBED, b"?", b""])
def test_a_stream_is_given_up_only_for_a_plane(bench: Bench, answer: bytes) -> None:
    """Beside a carrier TCP is tried later, and asks who is there before anything is changed."""
    there = bench.listening()
    bench.dialler.aim([endpoint(there)], TAG)
    bench.dialler.rest(better=True)
    assert bench.dialler.wake_at == pytest.approx(bench.loop.now + 15.0)
    bench.loop.now += 15.0
    bench.dialler.wake()
    asked = bench.accept(there)
    probe = b""
    while len(probe) < FIRST_BYTES:
        bench.loop.turn(0.01)
        asked.setblocking(False)
        try:
            probe += asked.recv(1000)
        except BlockingIOError:
            pass
    assert probe == (PROBE + TAG).ljust(FIRST_BYTES, b"\0")
    assert not bench.connected
    if answer:
        asked.send(answer)
    else:
        asked.close()
    bench.until(lambda: bool(bench.connected or bench.lacked))
    assert bool(bench.connected) == (answer == PROBED)


@pytest.mark.parametrize("where", ["no address", "300.1.1.1", "::1%", "127.0.0.1\0"])
def test_what_cannot_be_dialled_has_failed(bench: Bench, where: str) -> None:
    bench.dialler.aim([(where, 1)], TAG)
    bench.dialler.start()
    bench.until(lambda: bench.lacked == 1)


def test_who_hangs_up_at_once_is_dialled_ever_more_rarely(bench: Bench) -> None:
    """A partner that proves itself and leaves, over and over, costs us a few connections a second."""
    where = bench.listening()
    bench.dialler.aim([endpoint(where)], TAG)
    bench.dialler.start()
    bench.until(lambda: len(bench.connected) == 1)
    pauses = []
    for _ in range(7):
        bench.dialler.proved()
        bench.dialler.rest(better=False)
        bench.dialler.start()
        pauses.append(bench.dialler.wake_at - bench.loop.now)
    assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 0.8, 0.8])
    assert len(bench.connected) == 1
    bench.dialler.wake_at -= 0.8  # as if the pause were over
    bench.loop.now += 0.8
    bench.dialler.wake()
    bench.until(lambda: len(bench.connected) == 2)
    bench.dialler.rest(better=False)
    bench.loop.now += 5
    bench.dialler.start()
    assert bench.dialler.wake_at == bench.loop.now + 5.0  # an attempt is under way, and that is its end
