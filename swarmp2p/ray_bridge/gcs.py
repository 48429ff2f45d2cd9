"""A cluster's GCS from its borrower's side: the state as it changes, and nodes to be drained.

The program `_gcs.py` does the asking. It is started when something is asked for the first time, and again when it
ends: GCS may have been restarted.
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import trio

from . import _gcs
from .demand import ClusterState, read_state
from .events import LeaseId
from .tree import open_tree

_AGAIN_S: Final = 1.0  # from one program's end to the next one's start
_MAX_LINE_BYTES: Final = 16 * 2**20  # 1,024 nodes and 256 shapes are 1 MiB
_MAX_DRAINS: Final = 1024  # that wait for an answer; further ones are told that there are too many


class Gcs:
    """Asks the GCS at an address; `run` owns the program.

    environment: all that the program finds in its own, the token among it. every_s: how often GCS is asked for its
    state; 0 for never. on_state: called with each state that differs from the one before.
    """

    def __init__(
        self,
        address: Callable[[], str],
        environment: Callable[[], Mapping[str, str]],
        every_s: float = 0.0,
        on_state: Callable[[ClusterState], None] = lambda state: None,
    ) -> None:
        self._address, self._environment = address, environment
        self._every_s, self._on_state = every_s, on_state
        self._stream: trio.SocketStream | None = None
        self._wanted = trio.Event()
        self._up = trio.Event()
        self._answers: dict[str, tuple[trio.Event, list[str]]] = {}
        self._sending = trio.Lock()
        if every_s:
            self._wanted.set()

    async def drain(
        self, lease: LeaseId, *, idle: bool, ends: float = 0.0, why: str, timeout_s: float
    ) -> str:
        """Have Ray give a lease's worker no more work; the program is started if it does not run. Returns why Ray does
        not, "" when it does.

        idle: only if nothing runs there; otherwise it is about to be gone, at `ends` (Unix time, seconds).
        """
        name = lease.hex()
        if len(self._answers) >= _MAX_DRAINS or name in self._answers:
            return "it is being drained already, or too many are"
        said = f"GCS has not answered for {timeout_s:g} s"
        answer = self._answers[name] = (trio.Event(), [])
        try:
            with trio.move_on_after(timeout_s):
                self._wanted.set()
                while self._stream is None:
                    await self._up.wait()
                order = {"drain": name, "idle": idle, "ends": int(ends * 1000), "why": why}
                if await self._send(order):
                    await answer[0].wait()
                said = answer[1][0] if answer[1] else "the program that asks GCS has ended"
        finally:
            del self._answers[name]
        return said

    async def run(self) -> None:
        """Until cancelled."""
        await self._wanted.wait()
        while True:
            with tempfile.TemporaryDirectory(prefix="swarm-gcs-") as directory:
                await self._once(Path(directory))
            await trio.sleep(_AGAIN_S)

    async def _once(self, directory: Path) -> None:
        """One program, from its start to its end."""
        here, there = socket.socketpair()
        with there:
            # -P: modules beside the program (worker, messages) must not hide others' of the same name
            command = [sys.executable, "-P", _gcs.__file__, self._address(), str(there.fileno())]
            async with (
                open_tree(
                    command,
                    environment=self._environment(),
                    log_path=directory / "gcs.log",
                    cwd=directory,
                    keep=(there.fileno(),),
                ),
                trio.SocketStream(trio.socket.from_stdlib_socket(here)) as stream,
            ):
                there.close()
                self._stream = stream
                try:
                    if self._every_s:
                        await self._send({"every": self._every_s})
                    self._up.set()
                    await self._hear(stream)
                finally:
                    self._stream, self._up = None, trio.Event()
                    for done, _ in self._answers.values():
                        done.set()

    async def _send(self, order: Mapping[str, object]) -> bool:
        """False when the program is gone."""
        stream = self._stream
        if stream is None:
            return False
        try:
            async with self._sending:
                await stream.send_all(json.dumps(order).encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    async def _hear(self, stream: trio.SocketStream) -> None:
        buffer = bytearray()
        while True:
            try:
                chunk = await stream.receive_some(65536)
            except trio.BrokenResourceError:
                return
            if not chunk or len(buffer) > _MAX_LINE_BYTES:
                return
            buffer += chunk
            if b"\n" in chunk:
                *lines, rest = bytes(buffer).split(b"\n")
                buffer = bytearray(rest)
                for line in lines:
                    self._take(cast("dict[str, Any]", json.loads(line)))

    def _take(self, said: Mapping[str, Any]) -> None:
        if "drained" in said:
            waiting = self._answers.get(said["drained"])
            if waiting is not None:
                waiting[1].append(said["problem"])
                waiting[0].set()
        if "state" in said:
            self._on_state(read_state(said["state"]))
