"""TcpPipe: what the system does not take at once is kept, in order, and sent later."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing
from multiaddr.multiaddr import Multiaddr

from swarmp2p.errors import ListenError
from swarmp2p.transport import tcp
from swarmp2p.transport.addresses import to_multiaddr
from swarmp2p.transport.tcp import TcpListener, TcpPipe, dial_tcp


async def pipes() -> tuple[TcpPipe, TcpPipe]:
    listener = TcpListener(Multiaddr("/ip4/127.0.0.1/tcp/0"))
    client = socket.create_connection(listener.bound)
    client.setblocking(False)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    accepted: list[TcpPipe] = []

    async def take(pipe: TcpPipe) -> None:
        accepted.append(pipe)
        listener.shut()

    async with trio.open_nursery() as nursery:
        await listener.serve(take, nursery, 1)
    return TcpPipe(client, True), accepted[0]


async def test_what_does_not_fit_is_kept_and_sent_later() -> None:
    here, there = await pipes()
    sent = b"".join(bytes([number]) * 50_000 for number in range(60))
    for number in range(60):
        here.push(bytes([number]) * 50_000)
    assert 0 < here.unsent < len(sent)
    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.drain)
        while len(received) < len(sent):
            received += await there.receive()
    assert received == sent
    assert here.unsent == 0
    here.shut()
    assert await there.receive() == b""
    there.shut()


async def test_bytes_put_back_come_first() -> None:
    here, there = await pipes()
    here.push(b"hello world")
    assert await there.read(5) == b"hello"
    there.unread(b"hello")
    assert await there.read(5) == b"hello"
    assert await there.receive() == b" world"
    here.shut()
    there.shut()


async def test_a_pipe_that_is_closed_takes_everything_and_wakes_who_waits() -> None:
    here, there = await pipes()
    ends: list[bytes] = []

    async def read() -> None:
        ends.append(await here.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for _ in range(60):
            here.push(bytes(50_000))
        nursery.start_soon(here.drain)
        await trio.testing.wait_all_tasks_blocked()
        here.shut()
    assert ends == [b""]
    assert here.unsent == 0
    here.push(b"more")
    assert here.unsent == 0
    there.shut()
    there.shut()


async def test_a_connection_that_broke_takes_everything_and_ends() -> None:
    here, there = await pipes()
    here.push(b"x")
    there.shut()  # with a byte unread: a reset
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(10):
        here.push(bytes(50_000))
    await here.drain()
    assert await here.receive() == b""
    here.shut()


def nowhere(host: str) -> bool:
    """Whatever the address, it is not of this machine."""
    del host
    return False


async def accept_all(listener: TcpListener, nursery: trio.Nursery) -> list[TcpPipe]:
    """What a listener takes from now on."""
    accepted: list[TcpPipe] = []

    async def take(pipe: TcpPipe) -> None:
        accepted.append(pipe)

    nursery.start_soon(listener.serve, take, nursery, 16)
    return accepted


async def test_a_dial_leaves_from_where_we_listen_and_nobody_else_can_listen_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tcp, "_is_loopback", nowhere)
    ours, theirs = (
        TcpListener(Multiaddr("/ip4/127.0.0.1/tcp/0")),
        TcpListener(Multiaddr("/ip4/127.0.0.2/tcp/0")),
    )
    async with trio.open_nursery() as nursery:
        accepted = await accept_all(theirs, nursery)
        first = await dial_tcp(*theirs.bound, [ours.bound])
        assert (first.local, first.shares_port) == (ours.bound, True)
        again = await dial_tcp(*theirs.bound, [ours.bound])  # these two ends are taken
        assert again.local != ours.bound
        assert not again.shares_port
        with pytest.raises(ListenError):
            TcpListener(Multiaddr(to_multiaddr(*ours.bound)))
        back = await accept_all(ours, nursery)  # listening goes on
        caller = await dial_tcp(*ours.bound)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert [pipe.get_remote_address() for pipe in back] == [caller.local]
        assert first.local in [pipe.get_remote_address() for pipe in accepted]
        for pipe in (first, again, caller, *accepted, *back):
            pipe.shut()
        ours.shut()
        theirs.shut()


async def test_on_loopback_dials_leave_from_anywhere() -> None:
    ours, theirs = (
        TcpListener(Multiaddr("/ip4/127.0.0.1/tcp/0")),
        TcpListener(Multiaddr("/ip4/127.0.0.2/tcp/0")),
    )
    pipe = await dial_tcp(*theirs.bound, [ours.bound])
    assert not pipe.shares_port
    for one in (pipe, ours, theirs):
        one.shut()
