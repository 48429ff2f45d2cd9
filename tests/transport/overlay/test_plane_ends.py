"""The end of a plane, whoever dies first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from swarmp2p.transport.overlay.plane import Ended, PlaneEnded, open_plane

from .planes import WAIT_S, WORKER, Heard, echo, how_it_ends, pair


async def test_a_plane_that_dies_is_told_of_and_everything_asked_of_it_fails() -> None:
    heard = Heard()
    async with open_plane(b"h" * 16, on_event=heard) as plane:
        os.kill(plane.pid, signal.SIGKILL)
        assert await heard.until(Ended) == Ended("SIGKILL")
        with pytest.raises(PlaneEnded, match="SIGKILL"):
            await plane.unlisten(WORKER)


async def test_what_is_asked_while_it_dies_fails() -> None:
    async with open_plane(b"h" * 16) as plane:
        os.kill(plane.pid, signal.SIGSTOP)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                with pytest.raises(PlaneEnded):
                    await plane.stats()

            await wait_all_tasks_blocked()
            os.kill(plane.pid, signal.SIGKILL)


async def test_what_is_asked_while_it_is_closed_fails() -> None:
    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery, open_plane(b"h" * 16) as plane:
            os.kill(plane.pid, signal.SIGSTOP)

            @nursery.start_soon
            async def _() -> None:
                with pytest.raises(PlaneEnded, match="it was closed"):
                    await plane.stats()

            await wait_all_tasks_blocked()


async def test_its_connections_end_with_it() -> None:
    async with pair() as both:
        await both.serve(echo)
        with trio.fail_after(WAIT_S):
            async with await both.connect() as stream:
                await stream.send_all(b"x")
                assert await stream.receive_some(1) == b"x"
                os.kill(both.head.pid, signal.SIGKILL)
                await how_it_ends(stream)


async def test_a_plane_ends_with_the_context() -> None:
    async with open_plane(b"h" * 16) as plane:
        pid = plane.pid
        assert os.path.exists(f"/proc/{pid}")
    assert not os.path.exists(f"/proc/{pid}")


_OPENS_A_PLANE = """
import os, sys, trio
from swarmp2p.transport.overlay.plane import open_plane
async def main():
    async with open_plane(b"h" * 16) as plane:
        {fork}
        print(plane.pid, flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


@pytest.mark.parametrize("fork", ["pass", "os.fork() or os.execvp('sleep', ['sleep', '60'])"])
def test_a_plane_dies_with_the_process_that_opened_it(fork: str) -> None:
    """By SIGKILL, and though a child of that process still holds what it held."""
    program = _OPENS_A_PLANE.format(fork=fork)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as opener:
        assert opener.stdout is not None
        handle = os.pidfd_open(int(opener.stdout.readline()))
        try:
            opener.kill()
            deadline = time.monotonic() + WAIT_S
            while True:
                try:
                    signal.pidfd_send_signal(handle, 0)
                except ProcessLookupError:
                    break
                assert time.monotonic() < deadline
                time.sleep(0.001)
        finally:
            os.close(handle)
            os.killpg(opener.pid, signal.SIGKILL)
