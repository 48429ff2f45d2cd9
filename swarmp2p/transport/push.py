"""identify/push: tells those connected when what we say of ourselves changes (libp2p's identify spec).

Peers that heard that we serve the DHT keep us in their tables; they should hear at once that we do not any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from ..errors import SwarmError
from .config import HostConfig
from .identify import PUSH_ID, Introduction
from .links import Links
from .multistream import propose
from .muxer import MuxedConnection

_AT_ONCE: Final = 16  # peers that are being told
_PAUSE_S: Final = 1.0  # between two rounds: changes in between go together


class Pusher:
    """Tells everybody who is connected. introduction: what to say now."""

    def __init__(self, links: Links, introduction: Callable[[], Introduction], config: HostConfig) -> None:
        self._links, self._introduction, self._config = links, introduction, config
        self._news = trio.Event()

    def changed(self) -> None:
        """There is something to say."""
        self._news.set()

    async def run(self) -> None:
        """Tell, until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            room = trio.Semaphore(_AT_ONCE)
            async with trio.open_nursery() as nursery:
                for connection in list(dict.fromkeys(map(self._current, self._links.all()))):
                    if connection is not None:
                        await room.acquire()
                        nursery.start_soon(self._tell, connection, room)
            await trio.sleep(_PAUSE_S)

    def _current(self, connection: MuxedConnection) -> MuxedConnection | None:
        return self._links.get(connection.peer)

    async def _tell(self, connection: MuxedConnection, room: trio.Semaphore) -> None:
        stream = connection.open()
        try:
            with trio.fail_after(self._config.negotiate_timeout_s):
                await propose(stream, [PUSH_ID])
                self._introduction().answer(stream)
                await stream.drained()
        except (SwarmError, trio.BrokenResourceError, trio.TooSlowError):
            stream.reset()  # it does not want to know
        finally:
            stream.abandon()
            room.release()
