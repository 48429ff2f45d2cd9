"""Short messages that are all that a plane has to do go straight through; in company they take their turns."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack
from random import Random, SystemRandom

import pytest

from swarmp2p.transport.overlay.config import SessionConfig
from swarmp2p.transport.overlay.connection import TCP
from swarmp2p.transport.overlay.control import PlaneEvent
from swarmp2p.transport.overlay.crypto import FIRST_BYTES
from swarmp2p.transport.overlay.loop import Loop
from swarmp2p.transport.overlay.partner import Partner
from swarmp2p.transport.overlay.sockets import OwnSockets, Taker

from .wire import connected


class End:
    """A plane of one partner, in this process, that is turned by hand. It is that partner's owner."""

    def __init__(self, initiator: bool) -> None:
        self.loop = Loop()
        self.served: dict[int, str] = {}
        self.counters: dict[str, int] = Counter()
        self.partner = Partner(self, b"x" * 16)
        self.partner.begin(b"s" * 32, initiator, [], SystemRandom(), SessionConfig())

    def tell(self, event: PlaneEvent) -> None:
        pass

    def take_socket(self, taker: Taker) -> None:
        OwnSockets().take(taker)

    def relieve(self) -> None:
        pass


class Ends:
    """Two planes with a carrier between them, and a server's port at b."""

    def __init__(self, stack: ExitStack, carrier: tuple[socket.socket, socket.socket]) -> None:
        self.a, self.b = End(True), End(False)
        near, far = carrier
        self.server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.port = int(self.server.getsockname()[1])
        self.b.served[self.port] = "127.0.0.1"
        self.a.partner.carry(near, TCP)
        self.a.loop.turn(0.0)
        assert self.b.partner.adopt(far, TCP, far.recv(FIRST_BYTES))
        self.stack = stack
        self.turn(10)

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            for end in (self.a, self.b):
                end.loop.turn(0.0)

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """A forwarded connection: the client's socket and the server's."""
        client, inner = _tcp()
        self.a.partner.accept(inner, self.port)
        self.turn(5)
        served, _ = self.server.accept()
        self.turn(5)
        served.setblocking(False)
        served.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for one in (client, served):
            self.stack.callback(one.close)
        return client, served

    def close(self) -> None:
        for end in (self.a, self.b):
            end.partner.silence()
            end.loop.end()


def _tcp() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection: unlike a Unix socket's, they become writable only after they were not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    for end in (one, other):
        end.setblocking(False)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one, other


def _unix() -> tuple[socket.socket, socket.socket]:
    """Two ends whose buffers have the size that they have: nothing waits for acknowledgements of the kernel's."""
    one, other = socket.socketpair()
    for end in (one, other):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    return one, other


@pytest.fixture(params=[_tcp, _unix])
def ends(request: pytest.FixtureRequest) -> Generator[Ends, None, None]:
    with ExitStack() as stack:
        made = Ends(stack, request.param())
        stack.callback(made.close)
        yield made


@pytest.mark.parametrize("ends", [_tcp], indirect=True)
def test_it_takes_one_round_at_each_plane_and_no_work(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    client, served = ends.connect()
    monkeypatch.setattr(Partner, "work", _no_work)
    for one, other, order in ((client, served, (ends.a, ends.b)), (served, client, (ends.b, ends.a))):
        for message in (b"a", b"b" * 64, b"c" * 5000):
            one.send(message)
            for end in order:
                end.loop.turn(0.0)
            assert other.recv(1 << 16) == message


def test_messages_of_several_connections_come_whole_and_in_order(ends: Ends) -> None:
    rng = Random(7)
    pairs = [pair for _ in range(3) for pair in [ends.connect()]]
    flows = [flow for client, served in pairs for flow in ((client, served), (served, client))]
    sent, got = [bytearray() for _ in flows], [bytearray() for _ in flows]
    for _ in range(600):
        at = rng.randrange(len(flows))
        data = rng.randbytes(rng.choice((1, 64, 3000, 9000, 40_000)))
        try:
            sent[at] += data[: flows[at][0].send(data)]
        except BlockingIOError:
            pass
        for _ in range(rng.randrange(4)):
            rng.choice((ends.a, ends.b)).loop.turn(0.0)
        _read(flows, got)
    for _ in range(4000):
        if got == sent:
            break
        ends.turn()
        _read(flows, got)
    assert got == sent


@pytest.mark.parametrize("ends", [_unix], indirect=True)
def test_what_the_carrier_does_not_take_waits(ends: Ends) -> None:
    client, served = ends.connect()
    sent = bytearray()
    for number in range(400):
        piece = bytes([number % 256]) * 900
        try:
            sent += piece[: client.send(piece)]
        except BlockingIOError:
            assert number > 10  # now the forward is read no more
        ends.a.loop.turn(0.0)  # b does not read
    got = bytearray()
    for _ in range(4000):
        if len(got) == len(sent):
            break
        ends.turn()
        try:
            got += served.recv(1 << 20)
        except BlockingIOError:
            continue
    assert got == sent


def test_an_end_follows_its_last_message(ends: Ends) -> None:
    client, served = ends.connect()
    client.send(b"last words")
    client.shutdown(socket.SHUT_WR)
    ends.turn(5)
    assert served.recv(100) == b"last words"
    assert served.recv(100) == b""
    served.send(b"answer")
    served.close()
    ends.turn(5)
    assert client.recv(100) == b"answer"
    assert client.recv(100) == b""
    assert ends.a.partner.forwards == ends.b.partner.forwards == 0


def test_nothing_overtakes_what_waits() -> None:
    pair = connected()
    session, carrier = pair.a.session, pair.a.carrier
    assert carrier is not None
    one, two = session.open(1, pair.now), session.open(2, pair.now)
    assert one is not None
    assert two is not None
    assert session.send_at_once(carrier, one, b"first", pair.now) is None  # the OPEN waits
    pair.settle()
    session.send(two, b"waits")
    assert session.send_at_once(carrier, one, b"second", pair.now) is None
    pair.settle()
    record = session.send_at_once(carrier, one, b"third", pair.now)
    assert record is not None
    pair.b.feed(record, pair.now)
    assert pair.b.got == {one: b"third", two: b"waits"}
    session.finish(one)
    assert session.send_at_once(carrier, one, b"late", pair.now) is None


def test_it_comes_again_when_the_carrier_breaks() -> None:
    pair = connected()
    channel = pair.a.session.open(1, pair.now)
    assert channel is not None
    pair.settle()
    old = pair.a.carrier
    assert old is not None
    assert pair.a.session.send_at_once(old, channel, b"lost", pair.now) is not None
    pair.connect()
    assert pair.a.session.send_at_once(old, channel, b"x", pair.now) is None
    pair.settle()
    assert pair.b.got == {channel: b"lost"}


def _no_work(partner: Partner) -> None:
    pytest.fail("the message was not passed on at once")


def _read(flows: list[tuple[socket.socket, socket.socket]], got: list[bytearray]) -> None:
    for flow, here in zip(flows, got, strict=True):
        try:
            here += flow[1].recv(1 << 20)
        except BlockingIOError:
            continue
