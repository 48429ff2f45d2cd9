"""Two planes with real sockets on loopback addresses: what applications see of the forwarding."""

from __future__ import annotations

import os
import socket

import pytest
import trio

from swarmp2p.errors import UsageError
from swarmp2p.transport.overlay.plane import CarrierLost, PlaneRefused

from .planes import WAIT_S, WORKER, abort, echo, free_ports, how_it_ends, pair


async def test_what_is_sent_comes_back() -> None:
    async with pair() as both:
        await both.serve(echo)
        with trio.fail_after(WAIT_S):
            async with await both.connect() as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some(100) == b"hello"
                await stream.send_eof()
                assert await stream.receive_some(100) == b""


async def test_each_direction_ends_by_itself() -> None:
    async def late(stream: trio.SocketStream) -> None:
        """Answers only when everything has come."""
        total = 0
        while data := await stream.receive_some(65536):
            total += len(data)
        await stream.send_all(b"%d" % total)

    async with pair() as both:
        await both.serve(late)
        with trio.fail_after(WAIT_S):
            async with await both.connect() as stream:
                await stream.send_all(bytes(3_000_000))
                await stream.send_eof()
                assert await stream.receive_some(100) == b"3000000"
                assert await stream.receive_some(100) == b""
            await both.idle()


async def test_a_connection_may_be_ended_by_its_server_first() -> None:
    async def brief(stream: trio.SocketStream) -> None:
        await stream.send_all(b"bye")

    async with pair() as both:
        await both.serve(brief)
        with trio.fail_after(WAIT_S):
            async with await both.connect() as stream:
                assert await stream.receive_some(100) == b"bye"
                assert await stream.receive_some(100) == b""
            await both.idle()


@pytest.mark.parametrize("by_server", [False, True])
async def test_a_reset_is_passed_on_as_a_reset(by_server: bool) -> None:
    seen = list[type[object] | None]()
    done = trio.Event()

    async def server(stream: trio.SocketStream) -> None:
        assert await stream.receive_some(1) == b"x"
        if by_server:
            abort(stream)
        else:
            await stream.send_all(b"y")
            seen.append(await how_it_ends(stream))
        done.set()

    async with pair() as both:
        await both.serve(server)
        with trio.fail_after(WAIT_S):
            async with await both.connect() as stream:
                await stream.send_all(b"x")
                if by_server:
                    seen.append(await how_it_ends(stream))
                else:
                    assert await stream.receive_some(1) == b"y"
                    abort(stream)
                await done.wait()
            await both.idle()
    assert seen == [ConnectionResetError]


async def test_a_port_where_nobody_listens_is_a_reset() -> None:
    async with pair() as both:
        with trio.fail_after(WAIT_S):
            async with await both.connect() as stream:
                assert await how_it_ends(stream) is ConnectionResetError
            await both.idle()


async def test_only_ports_that_are_served_are_reached() -> None:
    with free_ports("127.0.0.1", 1) as other:
        async with pair(ports=2) as both:
            await both.serve(echo)
            listener = await trio.open_tcp_listeners(other[0], host="127.0.0.1")
            both.nursery.start_soon(trio.serve_listeners, echo, listener)
            await both.head.listen(WORKER, both.address, other)
            with trio.fail_after(WAIT_S):
                async with await trio.open_tcp_stream(both.address, other[0]) as stream:
                    assert await how_it_ends(stream) is ConnectionResetError
            assert (await both.worker.stats())["unserved"] == 1


async def test_a_stalled_connection_holds_nobody_up() -> None:
    """One of many is never read: the others finish, and the plane keeps a bounded part of what it is sent."""
    release = trio.Event()

    async def server(stream: trio.SocketStream) -> None:
        if await stream.receive_some(1) == b"s":
            await release.wait()
        else:
            await echo(stream)

    async with pair() as both:
        await both.serve(server)
        sent = 0

        async def stall(stream: trio.SocketStream) -> None:
            nonlocal sent
            await stream.send_all(b"s")
            while True:
                await stream.send_all(bytes(65536))
                sent += 65536

        async def one() -> None:
            async with await both.connect() as stream, trio.open_nursery() as nursery:
                data = os.urandom(50_000)
                nursery.start_soon(stream.send_all, b"e" + data)
                back = b""
                while len(back) < len(data):
                    back += await stream.receive_some(65536)
                assert back == data

        with trio.fail_after(WAIT_S):
            async with await both.connect() as stalled, trio.open_nursery() as nursery:
                nursery.start_soon(stall, stalled)
                async with trio.open_nursery() as others:
                    for _ in range(200):
                        others.start_soon(one)
                nursery.cancel_scope.cancel()
        release.set()
        # what the kernel's buffers take (4 + 32 MiB at most here) and a window
        assert sent < 64 << 20


async def test_what_is_refused_says_why_and_leaves_nothing() -> None:
    with free_ports("127.0.0.1", 2) as taken:
        async with pair(establish=False) as both:
            with socket.create_server(("127.0.0.1", taken[1])):
                with pytest.raises(PlaneRefused, match=f"127.0.0.1:{taken[1]}.*in use"):
                    await both.head.listen(WORKER, "127.0.0.1", taken)
            with socket.create_server(("127.0.0.1", taken[0])):
                pass  # it was let go
            with pytest.raises(PlaneRefused, match="1 to 65535"):
                await both.head.serve("127.0.0.1", [0])
            with pytest.raises(UsageError, match="32 bytes"):
                await both.head.session(WORKER, b"short", initiator=True)


async def test_without_a_session_connections_are_reset() -> None:
    async with pair(establish=False) as both:
        with trio.fail_after(WAIT_S):
            await both.refused()


async def test_some_of_a_members_ports_can_be_let_go() -> None:
    async with pair(ports=3) as both:
        await both.serve(echo)
        await both.head.unlisten(WORKER, both.address, both.ports[1:])
        assert (await both.head.stats())["listeners"] == 1
        await both.head.unlisten(WORKER, both.address, both.ports[1:])  # gone already
        await both.worker.unserve(both.ports[:1])
        with trio.fail_after(WAIT_S):
            async with await both.connect() as stream:
                assert await how_it_ends(stream) is ConnectionResetError
        assert (await both.worker.stats())["unserved"] == 1


async def test_listeners_go_with_unlisten_and_drop() -> None:
    async with pair(ports=3) as both:
        assert (await both.head.stats())["listeners"] == 3
        await both.head.unlisten(WORKER)
        assert (await both.head.stats())["listeners"] == 0
        with pytest.raises(OSError, match="all attempts to connect"):
            await both.connect()
        await both.head.listen(WORKER, both.address, both.ports)
        await both.head.listen(WORKER, both.address, both.ports)  # those that stand stay
        await both.serve(echo)
        with trio.fail_after(WAIT_S):
            async with await both.connect() as stream:
                await stream.send_all(b"x")
                assert await stream.receive_some(1) == b"x"
                await both.head.drop(WORKER)
                assert await how_it_ends(stream) is ConnectionResetError
        assert {name: (await both.head.stats())[name] for name in ("partners", "listeners", "forwards")} == {
            "partners": 0,
            "listeners": 0,
            "forwards": 0,
        }
        await both.worker_heard.until(CarrierLost)
