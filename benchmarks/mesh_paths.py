"""Paths between two machines of a laboratory, a and b: what benchmarks/mesh.py compares."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path as File
from typing import Final

from tests.lab.delay import Delay, delay
from tests.lab.namespaces import Interface, Lab, Node

from .report import SideFailed

PORT: Final = 21000
"""Where the load's server listens, on b."""

OURS: Final = "ours"
_A, _B = "10.8.0.1", "10.8.0.2"
_WG_A, _WG_B = "100.66.0.1", "100.66.0.2"
_OVERLAY_A, _OVERLAY_B = "127.64.0.1", "127.64.0.2"
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Path:
    """A path that stands.

    address: by which the server on b is reached from a. serves: where that server has to listen. carriers: the
    processes that carry, at both ends; none for the kernel's own. cable: between the two machines; proxy: where a delay
    was asked for.
    """

    a: Node
    b: Node
    address: str
    serves: str
    carriers: tuple[int, ...]
    cable: Interface
    proxy: Delay | None = None
    port: int = PORT

    def serve(self) -> subprocess.Popen[bytes]:
        """Start the load's server on b."""
        process = self.b.python("-m", "benchmarks.mesh_load", "serve", self.serves, str(PORT))
        expect(process, "ready", "the load's server")
        return process

    def load(self, what: str, *options: object) -> subprocess.Popen[bytes]:
        """Start one of the load's clients on a, towards the server."""
        return self.a.python(
            "-m", "benchmarks.mesh_load", what, self.address, str(self.port), *map(str, options)
        )

    def measure(self, what: str, *options: object) -> float:
        """What one of the load's clients says in the end."""
        return told(self.load(what, *options))

    def cpu_s(self) -> float:
        """CPU of the carriers so far, with their children."""
        return sum(_cpu_s(pid) for first in self.carriers for pid in tree(first))

    def memory_mb(self) -> float:
        """Resident memory of the larger plane: the process that a peer, here its stand-in, runs for it."""
        return max((_resident_mb(pid) for first in self.carriers for pid in tree(first)[1:]), default=0.0)


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for one in found:
        try:
            for task in File(f"/proc/{one}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:  # it has ended
            continue
    return found


def _cpu_s(pid: int) -> float:
    try:
        fields = File(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _resident_mb(pid: int) -> float:
    try:
        return int(File(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0


@contextmanager
def _machines(serves: str) -> Generator[Path, None, None]:
    with Lab() as lab:
        a, b = lab.node("a"), lab.node("b")
        cable = lab.cable(a, f"{_A}/24", b, f"{_B}/24")
        yield Path(a, b, _B, serves, (), cable)


@contextmanager
def plain(rtt_ms: float | None) -> Generator[Path, None, None]:
    """TCP. rtt_ms: of a proxy in between; None for no proxy, here and in what follows."""
    with _machines("0.0.0.0") as path, ExitStack() as stack:
        if rtt_ms is not None:
            path.proxy = stack.enter_context(delay(path.a, rtt_ms, to=(_B, PORT)))
            path.address, path.port = _A, path.proxy.port
        yield path


# In a process namespace, so that wireguard-go ends with its shell.
_ALONE: Final = ("unshare", "--mount", "--pid", "--fork", "--kill-child")

# A tmpfs over /run, seen by this shell alone, has wireguard-go's control socket: two runs do not meet there.
_WIREGUARD: Final = """
mount -t tmpfs none /run
mkdir -p /run/wireguard
wireguard-go -f wg0 2>/dev/null &
while [ ! -S /run/wireguard/wg0.sock ]; do sleep 0.02; done
read -r key
echo "$key" > /run/key
wg set wg0 private-key /run/key listen-port 51820 peer "$1" allowed-ips "$2/32" endpoint "$3:51820"
ip address add "$4/24" dev wg0
ip link set wg0 up mtu 1420
echo ready
wait
"""


@contextmanager
def wireguard(rtt_ms: float | None) -> Generator[Path, None, None]:
    """wireguard-go at both ends. There is no delay for it: the proxy takes TCP only."""
    assert rtt_ms is None
    with _machines("0.0.0.0") as path:
        secret = [path.a.run("wg", "genkey") for _ in range(2)]
        public = [path.a.run("wg", "pubkey", stdin=one).strip() for one in secret]
        found: list[int] = []
        for node, key, other, inner, outer, own in (
            (path.a, secret[0], public[1], _WG_B, _B, _WG_A),
            (path.b, secret[1], public[0], _WG_A, _A, _WG_B),
        ):
            process = node.start(
                *_ALONE, "sh", "-ec", _WIREGUARD, "sh", other, inner, outer, own, stderr=None
            )
            tell(process, key.strip())
            expect(process, "ready", "wireguard-go")
            found.append(process.pid)
        path.address, path.carriers = _WG_B, tuple(found)
        yield path


@contextmanager
def overlay(rtt_ms: float | None, carrier: str = "tcp") -> Generator[Path, None, None]:
    """Our planes at both ends. carrier: tcp, or a libp2p stream of our own host."""
    with _machines("127.0.0.1") as path, ExitStack() as stack:
        secret = secrets.token_hex(32)
        ends = {
            node: node.python(
                "-m", "benchmarks.mesh_plane", carrier, secret, outer, own, other, json.dumps([PORT]), role
            )
            for node, outer, own, other, role in (
                (path.a, _A, _OVERLAY_A, _OVERLAY_B, "dials"),
                (path.b, _B, _OVERLAY_B, _OVERLAY_A, "waits"),
            )
        }
        said = {node: _read(process) for node, process in ends.items()}
        where = said[path.b]
        if rtt_ms is not None:
            path.proxy = stack.enter_context(delay(path.a, rtt_ms, to=where))
            where = _A, path.proxy.port
        tell(ends[path.a], json.dumps(where))
        tell(ends[path.b], json.dumps(said[path.a]))
        for process in ends.values():
            expect(process, "up", "a plane")
        path.address, path.carriers = _OVERLAY_B, tuple(process.pid for process in ends.values())
        yield path


def libp2p_stream(rtt_ms: float | None) -> AbstractContextManager[Path]:
    """Our planes over a stream of our own libp2p host."""
    return overlay(rtt_ms, "libp2p")


PATHS: Final[Mapping[str, Callable[[float | None], AbstractContextManager[Path]]]] = {
    OURS: overlay,
    "plain": plain,
    "wireguard-go": wireguard,
    "libp2p-stream": libp2p_stream,
}


# Their processes --------------------------------------------------------------------------------------------


def told(process: subprocess.Popen[bytes]) -> float:
    """The number (or truth, as 1 and 0) that a process says next."""
    return float(json.loads(_line(process, "a client of the load")))


def tell(process: subprocess.Popen[bytes], line: str) -> None:
    """Give a process a line of input."""
    assert process.stdin is not None
    process.stdin.write(line.encode() + b"\n")
    process.stdin.flush()


def _line(process: subprocess.Popen[bytes], what: str) -> bytes:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SideFailed(f"{what} ended with status {process.wait()}; its messages are above")
    return line.strip()


def _read(process: subprocess.Popen[bytes]) -> tuple[str, int]:
    host, port = json.loads(_line(process, "a plane"))
    return host, port


def expect(process: subprocess.Popen[bytes], word: str, what: str) -> None:
    """Wait until a process has said a word; raises SideFailed for anything else, or for its end."""
    while (line := _line(process, what)) != word.encode():
        if line:
            raise SideFailed(f"{what} said {line!r} instead of {word}")
