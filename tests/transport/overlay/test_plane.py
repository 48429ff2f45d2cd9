"""Two planes with real sockets on loopback addresses: what applications see of the forwarding."""

from __future__ import annotations

import trio

from .planes import WAIT_S, echo, pair


async def test_what_is_sent_comes_back() -> None:
    async with pair() as both:
        await both.serve(echo)
        with trio.fail_after(WAIT_S):
            async with await both.connect() as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some(100) == b"hello"
                await stream.send_eof()
                assert await stream.receive_some(100) == b""
