"""Peers on the machines of a laboratory: what tests of the whole are made of."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from tests.lab.namespaces import LabError, Node

SWARM_PORT: Final = 4001
PRIVATE: Final = f"/key/swarm/psk/1.0.0/\n/base16/\n{bytes(range(32)).hex()}"
"""The key of a private swarm."""

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
        """End it in good order. Raises LabError when it fails."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if status := self._process.wait(30.0):
            raise LabError(f"{self.node.name}: the peer ended with {status}; see its errors above")

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
    network_key: str | None = None,
    relays: bool = True,
) -> Member:
    """Start a peer that listens on all of a machine's addresses. paths: that it lends by, when not the usual ones.
    network_key: of its private swarm. relays: whether it relays for others, and is reached through relays itself."""
    listen = [f"/ip4/0.0.0.0/tcp/{port}"]
    options: dict[str, object] = {
        "seed": seed,
        "listen": listen,
        "network_key": network_key,
        "relays": relays,
    }
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
import os, select, socket, sys
doors = [(address, int(port)) for address, port in (door.rsplit(":", 1) for door in sys.argv[1:])]
sockets = [socket.create_connection(door, 5) for door in doors for _ in range(2)]
for one in sockets[1::2]:
    one.sendall(os.urandom(4096))
heard = dict.fromkeys(sockets, 0)
listening = list(sockets)
while listening and (ready := select.select(listening, [], [], 2)[0]):
    for one in ready:
        try:
            more = len(one.recv(4096))
        except OSError:
            more = 0
        heard[one] += more
        if not more:
            listening.remove(one)
print(*heard.values())
"""


def heard(node: Node, doors: Sequence[tuple[str, int]]) -> list[int]:
    """How many bytes come from ports that one connects to, until none has come for 2 s: two for each of these addresses
    and ports, where nothing was said and where 4 KiB of nonsense were."""
    told = node.run(sys.executable, "-c", _KNOCK, *(f"{address}:{port}" for address, port in doors))
    return [int(one) for one in told.split()]
