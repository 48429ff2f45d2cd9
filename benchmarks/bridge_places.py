"""Machines for benchmarks/bridge.py: what starts a peer's process there, and where others dial it.

`near` is this machine's loopback. `switched` and `far` are namespaces of their own (root, and the packages nftables and
iproute2), joined by a switch, or by a router that holds all TCP back for a round-trip time.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from tests.lab.delay import delay
from tests.lab.namespaces import Interface, Lab, Node, end, environment

from .report import ROOT

_LOOPBACK: Final = "127.0.0.1"


@dataclass(slots=True)
class Place:
    """A machine. ip: by which others reach it. node: its namespace; None: this machine. cable: what can be cut."""

    ip: str
    started: list[subprocess.Popen[bytes]]
    node: Node | None = None
    cable: Interface | None = None

    def python(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start this Python there, its input and output pipes."""
        options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        if self.node is not None:
            return self.node.python(*arguments, env=env, **options)
        command = [sys.executable, *map(str, arguments)]
        process = cast(
            "subprocess.Popen[bytes]",
            subprocess.Popen(command, cwd=ROOT, env=environment(env), start_new_session=True, **options),
        )
        self.started.append(process)
        return process


@contextmanager
def near(count: int) -> Generator[list[Place], None, None]:
    """So many places on this machine's loopback."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        yield [Place(_LOOPBACK, started) for _ in range(count)]
    finally:
        end(started)


@contextmanager
def switched(count: int) -> Generator[list[Place], None, None]:
    """So many machines at one switch, whose cables can be cut."""
    with Lab() as lab:
        switch, places = lab.segment("switch"), list[Place]()
        for n in range(count):
            node = lab.node(f"machine {n}")
            cable = switch.join(node, f"5.0.0.{n + 1}/24")
            places.append(Place(node.ip, [], node, cable))
        yield places


@contextmanager
def far(count: int, rtt_ms: float) -> Generator[list[Place], None, None]:
    """So many machines around a router, each two a round trip of `rtt_ms` apart."""
    with Lab() as lab, ExitStack() as stack:
        router, places = lab.node("router"), list[Place]()
        router.forward()
        for n in range(count):
            node = lab.node(f"machine {n}")
            lab.cable(node, f"5.0.{n}.2/24", router, f"5.0.{n}.1/24")
            node.route("default", f"5.0.{n}.1")
            places.append(Place(node.ip, [], node))
        stack.enter_context(delay(router, rtt_ms))
        yield places
