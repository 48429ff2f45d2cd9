"""A peer of the demo as a separate OS process that speaks JSON lines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import trio

from ..scopes import cancel_scope

_STOP_S: Final = 15.0  # for an orderly end: leases released, Ray trees stopped; after that it is killed


async def lines_of(stream: trio.abc.ReceiveStream) -> AsyncIterator[bytes]:
    """Each line of a stream without its end; what follows the last line's end is left out."""
    buffer = b""
    while chunk := await stream.receive_some(65536):
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            yield line


class PeerProcess:
    """One child. Its stdin is its lifeline: when that closes, for whatever reason, the child ends in good order."""

    def __init__(self, name: str, process: trio.Process, log: Path) -> None:
        self.name, self.log = name, log
        self._process = process

    @classmethod
    async def start(cls, name: str, arguments: Sequence[str], log: Path) -> PeerProcess:
        """Start `python -m arguments`, with its errors in a log file."""
        with log.open("wb") as errors:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # a terminal's Ctrl-C goes to the conductor alone
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """What it says, until it ends. Lines that are no JSON go to its log only."""
        assert self._process.stdout is not None
        async for line in lines_of(self._process.stdout):
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "event" in event:
                yield event

    def kill(self) -> None:
        """SIGKILL, as when a machine dies."""
        self._process.send_signal(signal.SIGKILL)

    async def stop(self) -> int:
        """End it in good order, by force after a while; returns its exit status. Not cut short by cancellation."""
        with cancel_scope(shield=True):
            if self._process.stdin is not None:
                await self._process.stdin.aclose()
            with trio.move_on_after(_STOP_S) as patience:
                await self._process.wait()
            if patience.cancelled_caught:
                self._process.kill()
            return await self._process.wait()
