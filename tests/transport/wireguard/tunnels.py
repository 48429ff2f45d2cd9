"""Members of tunnels in a laboratory: who is where, servers behind them, and who reaches whom."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swarmp2p.transport.wireguard.description import TunnelPeer, interface_name
from swarmp2p.transport.wireguard.keys import WireGuardKey
from tests.lab.namespaces import Lab, Node
from tests.transport.wireguard.member import peers_to_json

UDP_PORT = 51_820
PYTHON = (sys.executable, "-I", "-S", "-c")  # starts in a third of the time

# Says what it is sent, to each who connects: on all addresses, or on 127.0.0.1 as Ray's head does it. An argument of
# several ports has it serve all of them.
SERVE = """
import select, socket, sys, threading
def echo(one):
    with one:
        while data := one.recv(1 << 16):
            one.sendall(data)
def serve(server):
    while True:
        threading.Thread(target=echo, args=[server.accept()[0]], daemon=True).start()
for port in map(int, sys.argv[2:]):
    server = socket.socket(socket.AF_INET6)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind((sys.argv[1], port))
    server.listen(64)
    threading.Thread(target=serve, args=[server], daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""
EVERYWHERE, LOCALHOST = "::", "::ffff:127.0.0.1"

# Sends a line, waits for it to come back, and says so; then the same with each line of its input.
TALK = """
import itertools, socket, sys
try:
    one = socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3]))
except OSError as problem:
    print(type(problem).__name__, flush=True)
    raise SystemExit
with one, one.makefile("rb") as back:
    one.settimeout(20)
    for line in itertools.chain(["hello\\n"], sys.stdin if len(sys.argv) > 4 else ()):
        one.sendall(line.encode())
        print("same" if back.readline() == line.encode() else "other", flush=True)
"""

# Says to which of several places (address:port) a connection can be made, all tried at once.
REACH = """
import socket, sys, threading
def attempt(place):
    address, _, port = place.rpartition(":")
    try:
        socket.create_connection((address, int(port)), 0.5).close()
        sys.stdout.write(place + "\\n")
    except OSError:
        pass
tries = [threading.Thread(target=attempt, args=[place]) for place in sys.argv[1:]]
for one in tries: one.start()
for one in tries: one.join()
"""

# Waits for what never comes; says how that ended.
WAIT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as one:
    one.settimeout(None)
    print("connected", flush=True)
    try:
        one.recv(1)
    except OSError as problem:
        print(type(problem).__name__, flush=True)
"""


@dataclass
class Place:
    """A member: its machine, and what all others have to know of it. enter: what runs a command where its processes
    are, which is not its machine when it has a cell."""

    node: Node
    host: int
    cluster: bytes = field(
        default_factory=lambda: os.urandom(16)
    )  # names differ between runs: sockets are shared
    cell: int = 0
    key: WireGuardKey = field(default_factory=WireGuardKey.generate)

    @property
    def interface(self) -> str:
        return interface_name(self.cluster, bytes([self.host]) * 16)

    @property
    def alias(self) -> str:
        return "127.0.0.1" if self.host == 1 else f"127.64.0.{self.host}"

    @property
    def address(self) -> str:
        return f"100.66.0.{self.host}"

    @property
    def ports(self) -> range:
        return range(20_000 + 100 * self.host, 20_100 + 100 * self.host)

    @property
    def port(self) -> int:
        return self.ports.start

    def as_peer(self, port: int = UDP_PORT) -> TunnelPeer:
        endpoint = (self.node.ip, port) if port else None
        return TunnelPeer(self.key.public, self.address, self.alias, self.ports, endpoint, 1)

    def where(self, *command: str) -> list[str]:
        """What runs a command where its processes are."""
        if not self.cell:
            return self.node.command("setpriv", "--pdeathsig", "KILL", *command)
        return [
            "nsenter",
            f"--net=/proc/{self.cell}/ns/net",
            "--",
            "setpriv",
            "--pdeathsig",
            "KILL",
            *command,
        ]

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(self.where(*command), capture_output=True, text=True, timeout=30, check=False)
        assert not (check and done.returncode), done.stderr
        return done.stdout

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self.where(*command), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self.node.lab.adopt(process)

    def serve(self, *ports: int, address: str = EVERYWHERE) -> None:
        process = self.start(*PYTHON, SERVE, address, *map(str, ports or [self.port]))
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"

    def reached(self, *places: tuple[str, int]) -> list[str]:
        """Where, of these addresses and ports, somebody takes a connection."""
        return self.run(*PYTHON, REACH, *(f"{address}:{port}" for address, port in places)).split()

    def talk(self, address: str, port: int, timeout_s: float = 1.0) -> str:
        """ "same" when somebody answers there; else the error's name."""
        return self.run(*PYTHON, TALK, address, str(port), str(timeout_s)).strip()


def cell(node: Node) -> int:
    """A network namespace as a worker's: of a user namespace of its own, with nothing but its loopback."""
    process = node.start(
        "unshare", "--user", "--map-root-user", "--net", "sh", "-ec", "ip link set lo up; echo up; exec cat"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process.pid


class Member:
    """A `tests.transport.wireguard.member` that has its interface."""

    def __init__(
        self,
        place: Place,
        peers: Sequence[TunnelPeer],
        runtime: Path,
        listen_port: int = UDP_PORT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.place = place
        self.process = place.node.python("-m", "tests.transport.wireguard.member", env=environment)
        plan = {
            "interface": place.interface,
            "address": place.address,
            "alias": place.alias,
            "ports": [place.ports.start, place.ports.stop],
            "listen_port": listen_port,
            "peers": peers_to_json(tuple(peers)),
            "private": place.key.private.hex(),
            "public": place.key.public.hex(),
            "cell": place.cell,
            "runtime": str(runtime),
        }
        self.said = self.ask(plan)
        self.port: int = self.said.get("port", 0)

    def ask(self, what: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what).encode() + b"\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told

    def apply(self, *peers: TunnelPeer) -> list[str]:
        touched: list[str] = self.ask({"apply": peers_to_json(peers)})["touched"]
        return touched

    def up(self, other: Place, within_s: float = 10) -> bool:
        up: bool = self.ask({"wait": other.key.public.hex(), "within_s": within_s})["up"]
        return up

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)


def two(lab: Lab, runtime: Path, *, cells: bool = False) -> tuple[Member, Member]:
    """A head and a worker on two machines with a cable, and the tunnel between them up."""
    a, b = lab.node("head"), lab.node("lender")
    lab.cable(a, "10.8.0.1/24", b, "10.8.0.2/24")
    head, worker = Place(a, 1), Place(b, 2, cell=cell(b) if cells else 0)
    first = Member(head, [worker.as_peer(0)], runtime)
    second = Member(worker, [head.as_peer()], runtime)
    assert second.up(head), second.said
    return first, second


def descendants(pid: int) -> list[int]:
    """A process's children, and theirs."""
    found = list[int]()
    for task in os.listdir(f"/proc/{pid}/task"):
        for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def until(condition: Callable[[], bool]) -> bool:
    """Wait for something that another process does; at most 20 s."""
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()
