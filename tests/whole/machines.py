"""Peers on the machines of a laboratory: what tests of the whole are made of."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from tests.lab.namespaces import LabError, Node

SWARM_PORT: Final = 4001
MARKER: Final = "a-marker-that-no-cipher-would-print."


class Member:
    """A peer that runs on a machine."""

    def __init__(self, node: Node, options: dict[str, object]) -> None:
        self.node = node
        self._process = node.python("-m", "tests.whole.member", json.dumps(options))
        told = self._read()
        self.id: str = told["peer"]
        self.addresses: list[str] = told["addresses"]

    def ask(self, do: str, **options: object) -> dict[str, Any]:
        """Have it do something, and wait for that. Raises LabError with what it says when it cannot."""
        self.begin(do, **options)
        return self.finish()

    def begin(self, do: str, **options: object) -> None:
        """The first half of `ask`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **options}).encode() + b"\n")
        self._process.stdin.flush()

    def finish(self) -> dict[str, Any]:
        """The second half of `ask`."""
        told = self._read()
        if "error" in told:
            raise LabError(f"{self.node.name}: {told['error']}")
        return told

    def work(self, environment: dict[str, str], probe: Sequence[str] = ()) -> dict[str, Any]:
        """Run the job of work.py beside it, on its cluster. probe: what its tasks look for open ports at."""
        told = self.node.run(
            *(sys.executable, "-m", "tests.whole.work", MARKER),
            env={**environment, "PROBE": " ".join(probe)},
            timeout_s=120.0,
        )
        found: dict[str, Any] = json.loads(told.splitlines()[-1])
        return found

    def end(self) -> None:
        """End it in good order."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30.0)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LabError(
                f"{self.node.name}: the peer ended with {self._process.wait()}; see its errors above"
            )
        found: dict[str, Any] = json.loads(line)
        return found


def member(
    node: Node,
    seed: int,
    bootstrap: Sequence[str] = (),
    lend: int = 0,
    port: int = SWARM_PORT,
    paths: Sequence[str] = (),
) -> Member:
    """Start a peer that listens on all of a machine's addresses. paths: that it lends by, when not the usual ones."""
    options: dict[str, object] = {"seed": seed, "listen": [f"/ip4/0.0.0.0/tcp/{port}"]}
    return Member(node, {**options, "bootstrap": list(bootstrap), "lend": lend, "paths": list(paths)})


def at(one: Member) -> str:
    """Where others dial a peer."""
    return f"/ip4/{one.node.ip}/tcp/{SWARM_PORT}/p2p/{one.id}"


def listening(node: Node) -> dict[int, str]:
    """TCP ports that somebody listens at on a machine, other than on loopback addresses, with the program's name."""
    found: dict[int, str] = {}
    for line in node.run("ss", "-Hltnp").splitlines():
        fields = line.split()
        address, _, port = fields[3].rpartition(":")
        if not address.startswith(("127.", "[::1]", "[::ffff:127.")):
            found[int(port)] = fields[-1]
    return found


_KNOCK: Final = """
import os, socket, sys
one = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
one.settimeout(2)
try:
    if sys.argv[3] == "speak":
        one.sendall(os.urandom(4096))
    heard = one.recv(4096)
except TimeoutError:
    heard = b""
except OSError:
    heard = b""
print(len(heard))
"""


def heard(node: Node, address: str, port: int, speak: bool) -> int:
    """How many bytes come back within 2 s from a port that one connects to. speak: 4 KiB of nonsense to it."""
    return int(
        node.run(sys.executable, "-c", _KNOCK, address, str(port), "speak" if speak else "wait").strip()
    )
