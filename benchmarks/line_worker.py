"""Processes that a benchmark gives orders to: a line of JSON for each, and one for each answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from typing import Any, Final

import trio

from .report import ROOT, SideFailed, environment

_LINE_BYTES: Final = 1 << 26
_ANSWER_S: Final = 900.0


class LineWorker:
    """One process, seen from outside."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._rest = b""

    @classmethod
    async def start(cls, module: str, *arguments: str) -> LineWorker:
        """Run a module; it ends when its input does."""
        process: trio.Process = await trio.lowlevel.open_process(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return cls(process)

    async def ask(self, order: object) -> dict[str, Any]:
        """Give it an order, and wait for the answer. Raises SideFailed."""
        assert self._process.stdin is not None
        try:
            await self._process.stdin.send_all(json.dumps(order).encode() + b"\n")
        except trio.BrokenResourceError:
            pass  # it has ended, which the answer will show
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        """Its next line. Raises SideFailed when there is none."""
        assert self._process.stdout is not None
        with trio.move_on_after(_ANSWER_S):
            while b"\n" not in self._rest:
                chunk = await self._process.stdout.receive_some()
                if not chunk or len(self._rest) > _LINE_BYTES:
                    raise SideFailed(
                        "a process of the benchmark ended without an answer; its messages are above"
                    )
                self._rest += chunk
            line, _, self._rest = self._rest.partition(b"\n")
            found: dict[str, Any] = json.loads(line)
            return found
        raise SideFailed(f"a process of the benchmark gave no answer within {_ANSWER_S:g} s")

    def stop(self) -> None:
        """Let it do nothing any more, with its connections open: it reads nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def end(self) -> None:
        """End it at once."""
        self._process.kill()


async def orders() -> AsyncGenerator[dict[str, Any], None]:
    """Within such a process: what it is told, until it should end."""
    stream, rest = trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())), b""
    async for chunk in stream:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield json.loads(line)


def tell(answer: object) -> None:
    """Within such a process: answer."""
    print(json.dumps(answer), flush=True)
