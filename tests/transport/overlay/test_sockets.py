"""Sockets that a cell makes: asked for ahead, in few requests, and what happens when it cannot or has died."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Generator

import pytest
import trio

from swarmp2p.ray_bridge import cell
from swarmp2p.transport.overlay.loop import Loop
from swarmp2p.transport.overlay.plane import PlaneRefused, open_plane
from swarmp2p.transport.overlay.sockets import CellSockets

from .planes import HEAD, WAIT_S, WORKER, Heard, echo, free_ports, own_address


class Taken:
    """Takes sockets, and closes them."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.problems: list[int] = []

    def __call__(self, made: socket.socket | int) -> None:
        if isinstance(made, int):
            self.problems.append(made)
        else:
            self.sockets.append(made)

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def loop() -> Generator[Loop, None, None]:
    made = Loop()
    yield made
    made.end()


@pytest.fixture
def taken() -> Generator[Taken, None, None]:
    made = Taken()
    yield made
    made.close()


def answer(link: socket.socket, requests: list[int]) -> None:
    """A cell: answer what is asked now."""
    link.setblocking(False)
    while True:
        try:
            requests.append(int.from_bytes(link.recv(2), "big"))
        except BlockingIOError:
            return
        made = [socket.socket() for _ in range(requests[-1])]
        socket.send_fds(link, [b"s"], [sock.fileno() for sock in made])
        for sock in made:
            sock.close()


def test_many_sockets_take_few_requests(loop: Loop, taken: Taken) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        source = CellSockets(loop, ours)
        for _ in range(1280):
            source.take(taken)
        requests = list[int]()
        while len(taken.sockets) < 1280:
            answer(theirs, requests)
            loop.turn(1.0)
        assert len(requests) < 20
        assert max(requests) <= 128
        # and a stock is there for connections, which then wait for nobody
        while requests:
            requests.clear()
            answer(theirs, requests)
            loop.turn(0.0)
        source.take(taken)
        assert len(taken.sockets) == 1281
        source.end()


def test_a_cell_that_cannot_or_that_died_is_told(loop: Loop, taken: Taken) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    source = CellSockets(loop, ours)
    source.take(taken)
    with theirs:
        theirs.send(b"e" + errno.EMFILE.to_bytes(2, "big"))
        loop.turn(1.0)
        assert taken.problems == [errno.EMFILE]
        source.take(taken)
    while len(taken.problems) == 1:
        loop.turn(1.0)
    source.take(taken)
    assert taken.problems == [errno.EMFILE, errno.ENETDOWN, errno.ENETDOWN]


async def test_a_plane_listens_and_connects_with_sockets_of_its_cell() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    thread = threading.Thread(target=cell.serve, args=(theirs,), daemon=True)
    thread.start()
    address, heard = own_address(), Heard()
    try:
        with free_ports("127.0.0.1", 1) as ports, free_ports(address, 300) as more:
            async with open_plane(HEAD) as head, open_plane(WORKER, cell=ours, on_event=heard) as worker:
                # both directions go through the cell: what the worker listens at, and what it connects to
                await head.serve("127.0.0.1", ports)
                await worker.serve("127.0.0.1", ports)
                # what is free there may be the one number that is free at the other address too
                others = {*more, *ports}
                await worker.listen(HEAD, address, sorted(others))
                assert (await worker.stats())["listeners"] == len(others)
                await head.session(WORKER, b"s" * 32, initiator=False)
                await worker.session(HEAD, b"s" * 32, initiator=True, endpoints=head.endpoints)
                listeners = await trio.open_tcp_listeners(ports[0], host="127.0.0.1")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.serve_listeners, echo, listeners)
                    with trio.fail_after(WAIT_S):
                        async with await trio.open_tcp_stream(address, ports[0]) as stream:
                            await stream.send_all(b"x")
                            assert await stream.receive_some(1) == b"x"
                    nursery.cancel_scope.cancel()
                ours.shutdown(socket.SHUT_RDWR)  # the cell ends
                with pytest.raises(PlaneRefused, match="Network is down"):
                    await worker.listen(HEAD, own_address(), more[:50])
    finally:
        ours.close()
        thread.join(WAIT_S)
        theirs.close()
