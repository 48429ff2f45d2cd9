"""Machines of a laboratory, and the cables between them."""

from __future__ import annotations

import ipaddress
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

ROOT: Final = Path(__file__).resolve().parents[2]
"""Of the checkout: what peers in a laboratory import."""

_HOLD: Final = "ip link set lo up && echo up && exec cat"
_END_S: Final = 10.0  # from SIGTERM to SIGKILL


class LabError(Exception):
    """A command of the laboratory failed; its message is what the command said."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One end of a cable. other: the end that it is plugged into."""

    node: Node
    name: str
    address: str
    other: tuple[Node, str]

    @property
    def ip(self) -> str:
        """The address without its prefix length; none in a segment."""
        return self.address.partition("/")[0]

    def cut(self, *addresses: str) -> None:
        """Nothing passes this cable in either direction until `mend`, and nobody is told so. addresses: only what
        comes from these, or goes there; all when none is given."""
        self.mend()
        node, name = self.other
        _drop(self.node, self.name, "saddr", addresses)
        _drop(node, name, "daddr", addresses)

    def mend(self) -> None:
        """Undo `cut`; harmless where nothing was cut."""
        for node, name in ((self.node, self.name), self.other):
            node.nft(f"table netdev cut_{name}\ndelete table netdev cut_{name}")


def _drop(node: Node, name: str, field: str, addresses: Sequence[str]) -> None:
    rule = f"ip {field} {{ {', '.join(addresses)} }} drop" if addresses else "drop"
    node.nft(
        f"table netdev cut_{name} {{\n chain drops {{\n"
        f'  type filter hook ingress device "{name}" priority 0\n  {rule}\n }}\n}}'
    )


class Node:
    """A machine: a network namespace. Made by `Lab.node`."""

    def __init__(self, lab: Lab, name: str, holder: subprocess.Popen[str], enter: Sequence[str]) -> None:
        self.lab, self.name = lab, name
        self.interfaces: list[Interface] = []
        self._holder, self._enter = holder, (*enter, f"--net=/proc/{holder.pid}/ns/net", "--")

    def __repr__(self) -> str:
        return f"<Node {self.name}, namespace of process {self._holder.pid}>"

    @property
    def pid(self) -> int:
        """A process in the namespace, for as long as there is a laboratory."""
        return self._holder.pid

    @property
    def ip(self) -> str:
        """The address at its first cable."""
        return self.interfaces[0].ip

    def command(self, *arguments: str | Path) -> list[str]:
        """What runs a command here, in the process that runs it."""
        return [*self._enter, *map(str, arguments)]

    def run(
        self,
        *arguments: str | Path,
        stdin: str = "",
        timeout_s: float = 60.0,
        env: Mapping[str, str] | None = None,
    ) -> str:
        """Run a command here to its end; what it wrote to its output. Raises LabError."""
        try:
            done = subprocess.run(
                self.command("setpriv", "--pdeathsig", "KILL", *arguments),
                input=stdin,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
                cwd=ROOT,
                env=environment(env),
            )
        except subprocess.TimeoutExpired as late:
            raise LabError(
                f"{self.name}: {_short(arguments)} did not end within {timeout_s:g} s: {late.stderr!r}"
            ) from None
        if done.returncode:
            raise LabError(
                f"{self.name}: {_short(arguments)} ended with {done.returncode}: {done.stderr[-4000:]}"
            )
        return done.stdout

    def shell(self, script: str) -> str:
        """Run a shell script here, which ends at its first error."""
        return self.run("sh", "-ec", script)

    def nft(self, rules: str) -> None:
        """Load nftables rules."""
        self.run("nft", "-f", "-", stdin=rules + "\n")

    def start(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start a command here; it is ended with the laboratory. options: Popen's; its input and output are pipes,
        its errors go where this process's go."""
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **options}
        command = self.command("setpriv", "--pdeathsig", "KILL", *arguments)
        process = cast(
            "subprocess.Popen[bytes]", subprocess.Popen(command, cwd=ROOT, env=environment(env), **options)
        )
        return self.lab.adopt(process)

    def python(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """Start this Python with this checkout here: `start`."""
        return self.start(sys.executable, *arguments, **options)

    def route(self, network: str, gateway: str) -> None:
        """Reach a network (default, or a.b.c.d/n) over a gateway."""
        self.run("ip", "route", "replace", network, "via", gateway)

    def forward(self) -> None:
        """Be a router: pass on what is not for this machine."""
        self.shell("echo 1 > /proc/sys/net/ipv4/ip_forward")


class Segment:
    """A switch: everybody who joins reaches everybody. It is a bridge in a namespace of its own. Made by
    `Lab.segment`."""

    def __init__(self, node: Node) -> None:
        self.node = node
        node.shell("ip link add name bridge0 type bridge && ip link set bridge0 up")

    def join(self, node: Node, address: str, gateway: str = "") -> Interface:
        """Plug a machine in. address: a.b.c.d/n. gateway: the machine's way to everything else, if any."""
        interface = self.node.lab.cable(node, address, self.node, "")
        self.node.run("ip", "link", "set", interface.other[1], "master", "bridge0")
        if gateway:
            node.route("default", gateway)
        return interface


class Lab:
    """Machines and cables; a context manager, at whose end there are none."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._first: Node | None = None
        self._interfaces = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self._processes)
        self._stack.close()

    def node(self, name: str) -> Node:
        """A new machine that has only its loopback. name: for people; two may share one."""
        unshare, enter = ["unshare", "--net"], ["nsenter"]
        if os.geteuid():  # all in one user namespace, in which this user is root
            if self._first is None:
                unshare[1:1] = ["--user", "--map-root-user"]
                enter += ["--user", "--preserve-credentials"]
            else:
                enter += [f"--user=/proc/{self._first.pid}/ns/user", "--preserve-credentials"]
                unshare[:0] = [*enter, "--"]
        holder = subprocess.Popen(
            [*unshare, "sh", "-ec", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._stack.callback(_let_go, holder)
        assert holder.stdout is not None
        if holder.stdout.readline() != "up\n":
            raise LabError(f"no namespace for {name}: its holder ended with {holder.wait()}; run as root")
        if os.geteuid() and self._first is None:
            enter[1] = f"--user=/proc/{holder.pid}/ns/user"
        node = Node(self, name, holder, enter)
        if self._first is None:
            self._first = node
        return node

    def segment(self, name: str) -> Segment:
        """A new switch."""
        return Segment(self.node(name))

    def cable(self, a: Node, a_address: str, b: Node, b_address: str) -> Interface:
        """Join two machines by a veth pair; a's end. Addresses: a.b.c.d/n, or nothing for an end without one."""
        self._interfaces += 1
        a_name, b_name = f"v{self._interfaces}a", f"v{self._interfaces}b"
        a.run(
            "ip", "link", "add", "name", a_name, "type", "veth", "peer", "name", b_name, "netns", str(b.pid)
        )
        for node, name, address in ((a, a_name, a_address), (b, b_name, b_address)):
            if address:
                ipaddress.ip_interface(address)
                node.run("ip", "address", "add", address, "dev", name)
            node.run("ip", "link", "set", name, "up")
        ends = Interface(a, a_name, a_address, (b, b_name)), Interface(b, b_name, b_address, (a, a_name))
        a.interfaces.append(ends[0])
        b.interfaces.append(ends[1])
        return ends[0]

    def adopt(self, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        """End a process with the laboratory."""
        self._processes.append(process)
        return process


def _short(arguments: Sequence[str | Path]) -> str:
    return " ".join(map(str, arguments))[:200]


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask all to end (their input does, and SIGTERM), and kill those that do not."""
    for one in processes:
        if one.poll() is None:
            one.send_signal(signal.SIGTERM)
    for one in processes:
        try:
            one.wait(_END_S)
        except subprocess.TimeoutExpired:
            one.kill()
            one.wait()
        for pipe in (one.stdin, one.stdout, one.stderr):
            if pipe is not None:
                pipe.close()


def _let_go(holder: subprocess.Popen[str]) -> None:
    with holder:
        assert holder.stdin is not None
        holder.stdin.close()


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Of processes in a laboratory: they import this checkout, and their output is not held back."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1", **(more or {})}
    found.pop("PYTHONDONTWRITEBYTECODE", None)  # Ray would be compiled anew in each process
    return found
