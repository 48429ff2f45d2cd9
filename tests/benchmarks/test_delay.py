"""The delaying proxy: everything arrives, in order, and not before its time."""

from __future__ import annotations

import socket

import trio

from benchmarks.delay import delayed, proxy

RTT_MS = 40.0


async def _echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)
    await stream.send_eof()


async def _through(data: bytes) -> tuple[bytes, float, float]:
    """What came back, when the first of it came, and how long one more exchange took; in seconds."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, _echo, listeners)
        port: int = listeners[0].socket.getsockname()[1]
        started = trio.current_time()
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        nursery.start_soon(stream.send_all, data)
        came = bytearray(await stream.receive_some())
        first = trio.current_time() - started
        while len(came) < len(data):
            came += await stream.receive_some()
        started = trio.current_time()
        await stream.send_all(b"!")
        assert await stream.receive_some() == b"!"
        again = trio.current_time() - started
        await stream.aclose()
        nursery.cancel_scope.cancel()
    return bytes(came), first, again


def test_bytes_come_through_in_order_and_not_before_their_time() -> None:
    sent = bytes(range(256)) * 2_000
    with delayed(RTT_MS):
        came, first, again = trio.run(_through, sent)
    assert came == sent
    assert first >= 2 * RTT_MS / 1000  # TCP's handshake, and the way there and back
    assert again >= RTT_MS / 1000


def test_what_is_due_before_the_second_connection_is_made_waits_for_it() -> None:
    """As on a busy machine, where the proxy reads the port and what follows it at once."""
    with proxy(0.001) as port, socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        with socket.create_connection(("127.0.0.1", port)) as ours:
            ours.sendall(server.getsockname()[1].to_bytes(2, "big") + b"hello")
            theirs, _ = server.accept()
            with theirs:
                theirs.settimeout(20)
                assert theirs.recv(5) == b"hello"


def test_without_a_round_trip_time_nothing_is_in_between() -> None:
    with delayed(0.0):
        came, _, _ = trio.run(_through, b"hello")
    assert came == b"hello"
