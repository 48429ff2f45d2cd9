"""Where carriers come in: what waits, for how long, and who has to go."""

from __future__ import annotations

import os
import resource
import socket
from collections import Counter
from collections.abc import Generator

import pytest

from swarmp2p.transport.overlay.accepting import Acceptor
from swarmp2p.transport.overlay.crypto import FIRST_BYTES, TAG_BYTES
from swarmp2p.transport.overlay.dialling import PROBE, PROBED
from swarmp2p.transport.overlay.doorway import (
    MOST_OF_A_SOURCE,
    MOST_WAITING,
    PATIENCE_S,
    Doorway,
    source_of,
)
from swarmp2p.transport.overlay.loop import Loop

TAG = b"t" * TAG_BYTES
HELLO = TAG + bytes(FIRST_BYTES - TAG_BYTES)


class Bench:
    """A doorway whose sessions a test names. taken: hellos of connections that were claimed."""

    def __init__(self) -> None:
        self.loop, self.acceptor = Loop(), Acceptor()
        self.counters: Counter[str] = Counter()
        self.known: list[bytes] = [TAG]
        self.genuine = True
        self.taken: list[tuple[str, bytes]] = []
        self.doorway = Doorway(self.loop, self.acceptor, self.known.__contains__, self._claim, self.counters)
        self.at = self.doorway.listen(("127.0.0.1", 0))
        self.opened: list[socket.socket] = []

    def _claim(self, sock: socket.socket, kind: str, hello: bytes) -> bool | None:
        if hello[:TAG_BYTES] not in self.known:
            return None
        if self.genuine:
            self.opened.append(sock)
            self.taken.append((kind, hello))
        return self.genuine

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        made = socket.create_connection(self.at, source_address=(source, 0))
        made.settimeout(10)
        self.opened.append(made)
        return made

    def turn(self) -> None:
        """Until nothing happens any more."""
        for _ in range(20):
            self.loop.turn(0.001)

    def close(self) -> None:
        self.doorway.end()
        self.loop.end()
        self.acceptor.end()
        for sock in self.opened:
            sock.close()


@pytest.fixture
def bench() -> Generator[Bench, None, None]:
    made = Bench()
    yield made
    made.close()


def ended(sock: socket.socket) -> bool:
    """Whether the doorway closed a connection."""
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_a_hello_in_pieces_is_read_to_its_end_and_no_further(bench: Bench) -> None:
    sock = bench.connect()
    for piece in (HELLO[:1], HELLO[1:50], HELLO[50:] + b"record"):
        assert not bench.taken
        sock.send(piece)
        bench.turn()
    assert bench.taken == [("tcp", HELLO)]
    assert bench.opened[-1].recv(100) == b"record"


def test_a_stream_begins_with_a_hello_too(bench: Bench) -> None:
    ours, theirs = socket.socketpair()
    bench.opened.append(ours)
    bench.doorway.admit_stream(theirs, b"m" * 16)
    ours.send(HELLO)
    bench.turn()
    assert bench.taken == [("stream", HELLO)]


def test_a_forged_hello_is_closed(bench: Bench) -> None:
    bench.genuine = False
    sock = bench.connect()
    sock.send(HELLO)
    bench.turn()
    assert ended(sock)
    assert bench.counters == {"forged": 1}


def test_a_session_that_is_not_known_yet_is_waited_for(bench: Bench) -> None:
    bench.known.clear()
    sock = bench.connect()
    sock.send(HELLO)
    bench.turn()
    assert not bench.taken
    bench.known.append(TAG)
    bench.doorway.known()
    assert bench.taken == [("tcp", HELLO)]


@pytest.mark.parametrize("said", [b"", HELLO[:-1], b"x" * FIRST_BYTES])
def test_patience_ends(bench: Bench, said: bytes) -> None:
    sock = bench.connect()
    sock.send(said)
    bench.turn()
    assert not ended(sock)
    bench.loop.now += PATIENCE_S + 1
    bench.doorway.wake()
    bench.turn()
    assert ended(sock)
    assert bench.counters.total() == 1


def test_a_source_has_its_share(bench: Bench) -> None:
    socks = [bench.connect() for _ in range(MOST_OF_A_SOURCE + 3)]
    other = bench.connect("127.0.0.2")
    bench.turn()
    assert [ended(sock) for sock in socks] == [False] * MOST_OF_A_SOURCE + [True] * 3
    socks[0].close()
    bench.turn()
    again = bench.connect()
    for sock in (again, other):
        sock.settimeout(10)
        sock.send(HELLO)
    bench.turn()
    assert len(bench.taken) == 2


def test_who_waited_longest_makes_place(bench: Bench) -> None:
    socks = list[socket.socket]()
    for number in range(MOST_WAITING + 2):
        socks.append(bench.connect(f"127.0.1.{number // 10}"))
        bench.loop.turn(0.01)
    bench.turn()
    assert [ended(sock) for sock in socks] == [True] * 2 + [False] * MOST_WAITING
    assert bench.counters["crowded_out"] == 2


def test_a_probe_is_answered_for_sessions_that_we_have_and_a_hello_may_follow(bench: Bench) -> None:
    sock, stranger = bench.connect(), bench.connect()
    sock.send((PROBE + TAG).ljust(FIRST_BYTES, b"\0"))
    stranger.send((PROBE + b"x" * TAG_BYTES).ljust(FIRST_BYTES, b"\0"))
    bench.turn()
    assert sock.recv(10) == PROBED
    assert ended(stranger)
    sock.send(HELLO)
    bench.turn()
    assert bench.taken == [("tcp", HELLO)]


def test_a_probe_is_answered_once_however_many_come(bench: Bench) -> None:
    """Each used to take a level of recursion: some hundreds in one packet ended the plane's process."""
    sock = bench.connect()
    sock.send((PROBE + TAG).ljust(FIRST_BYTES, b"\0") * 2000)
    bench.turn()
    answers = b""
    try:
        while more := sock.recv(100):
            answers += more
    except ConnectionResetError:
        pass  # with unread bytes, closing resets
    assert answers in (PROBED, b"")
    assert bench.counters == {"unknown": 1}


def test_streams_of_one_member_have_their_share(bench: Bench) -> None:
    ours = list[socket.socket]()
    for member in (b"m",) * (MOST_OF_A_SOURCE + 3) + (b"o",):
        near, far = socket.socketpair()
        ours.append(near)
        bench.opened.append(near)
        bench.doorway.admit_stream(far, member * 16)
    bench.turn()
    assert [ended(sock) for sock in ours] == [False] * MOST_OF_A_SOURCE + [True] * 3 + [False]


def test_of_ipv6_a_whole_network_is_one_source(bench: Bench) -> None:
    assert source_of("2001:db8::1") == source_of("2001:db8::ffff:0:1") != source_of("2001:db8:0:1::1")
    assert source_of("fe80::1%lo") == source_of("fe80::2")
    assert source_of("192.0.2.1") == "192.0.2.1"


def test_without_descriptors_connections_are_shed_and_the_loop_rests(bench: Bench) -> None:
    waiting = [bench.connect() for _ in range(3)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    holes = list[int]()
    try:
        while (hole := os.open(os.devnull, os.O_RDONLY)) < highest:
            holes.append(hole)
        holes.append(hole)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hole + 1, hard))
        bench.turn()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for hole in holes:
            os.close(hole)
    assert bench.acceptor.shed == 3
    assert all(ended(sock) for sock in waiting)
    bench.connect().send(HELLO)
    bench.turn()
    assert len(bench.taken) == 1
