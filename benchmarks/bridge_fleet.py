"""Processes of benchmarks/bridge.py that are asked by JSON lines: peers and drivers; and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .bridge_places import Place
from .mesh_paths import tree
from .report import SideFailed

_END_S: Final = 30.0
_SHM: Final = "/dev/shm/"
_LARGEST: Final = 4


class Asked:
    """A process that answers each line of its input by a JSON object."""

    def __init__(self, what: str, process: subprocess.Popen[bytes]) -> None:
        self._what, self._process = what, process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, line: str | Mapping[str, object]) -> dict[str, Any]:
        """Have it do something, and wait for that. Raises SideFailed."""
        assert self._process.stdin is not None
        text = line if isinstance(line, str) else json.dumps(line)
        try:
            self._process.stdin.write(text.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SideFailed(f"{self._what} ended before it was asked to {text}") from None
        return self.read()

    def read(self) -> dict[str, Any]:
        """What it says next; Ray's warnings, which a driver prints as well, are none of it. Raises SideFailed for an
        error, or for its end."""
        assert self._process.stdout is not None
        while (line := self._process.stdout.readline()) and not line.startswith(b"{"):
            pass
        if not line:
            raise SideFailed(f"{self._what} ended with status {self._process.wait()}; its messages are above")
        told: dict[str, Any] = json.loads(line)
        if "error" in told:
            raise SideFailed(f"{self._what}: {told['error']}")
        return told

    def end(self) -> None:
        """End it in good order."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)


class BridgePeer(Asked):
    """A peer. lend: the fields of its offer; None: it borrows."""

    def __init__(
        self,
        place: Place,
        bootstrap: Sequence[str],
        lend: Mapping[str, object] | None = None,
        directory: Path | None = None,
    ) -> None:
        options = {"listen": f"/ip4/{place.ip}/tcp/0", "bootstrap": list(bootstrap), "lend": lend}
        env = {} if directory is None else {"TMPDIR": str(directory)}
        super().__init__(
            "a borrower" if lend is None else "a lender",
            place.python("-m", "benchmarks.bridge_peer", json.dumps(options), env=env),
        )
        told = self.read()
        self.place, self.id, self.address = place, str(told["peer"]), str(told["address"])

    def borrow(self, workers: int | Sequence[int], idle_s: float = 60.0) -> dict[str, str]:
        """Begin a cluster; its environment."""
        environment: dict[str, str] = self.ask({"do": "borrow", "workers": workers, "idle_s": idle_s})[
            "environment"
        ]
        return environment

    def workers(self) -> list[dict[str, str]]:
        """Workers of its cluster: peer and path."""
        found: list[dict[str, str]] = self.ask({"do": "workers"})["workers"]
        return found

    def events(self) -> list[tuple[float, str, str, str]]:
        """What happened in its cluster: when (as time.monotonic()), what, at which peer, why."""
        return [tuple(each) for each in self.ask({"do": "events"})["events"]]

    def asked(self) -> float:
        """When it asked for its last lease."""
        return max(at for at, kind, _, _ in self.events() if kind == "asked")

    def release(self) -> None:
        """End the cluster."""
        self.ask({"do": "release"})


def start_driver(place: Place, environment: Mapping[str, str]) -> Asked:
    """A driver that is connected."""
    driver = Asked("a driver", place.python("-m", "benchmarks.bridge_driver", env=environment))
    driver.ask("init")
    return driver


# A head's processes -----------------------------------------------------------------------------------------


def gcs_of(pid: int) -> int:
    """The GCS server among the descendants of a borrower."""
    for one in tree(pid):
        if "gcs_server" in _program(one):
            return one
    raise SideFailed("the borrower has no gcs_server")


def head_of(pid: int) -> list[int]:
    """All processes of a borrower's head: what the child of it that has the GCS server consists of."""
    gcs = gcs_of(pid)
    for child in _children(pid):
        family = tree(child)
        if gcs in family:
            return family
    raise SideFailed("the borrower has no gcs_server")


def kill(pids: Sequence[int]) -> None:
    """Kill -9 processes of this benchmark's own."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    except OSError:
        return ""


def _script(pid: int) -> str:
    """What a process runs: of Python, the file or module."""
    with suppress(OSError):
        program, *words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        if "python" in program:
            program = next((word for word in words if not word.startswith("-")), program)
        return Path(program).name
    return "ended"


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


# What a lender holds ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Held:
    """Of a lender, its descendants, and whoever else names its directory on its command line or in its environment, as
    orphans of it do. files: in its directory. shm: files of /dev/shm that they have mapped or open. memory_mb:
    proportional, in 10^6 bytes. largest: of whom most of that is, largest first: program and MB."""

    processes: int
    sockets: int
    descriptors: int
    shm: int
    files: int
    memory_mb: float
    largest: tuple[str, ...]


def held(pid: int, directory: Path) -> Held:
    """What a lender holds now."""
    pids = list(dict.fromkeys(each for one in (pid, *_naming(directory)) for each in tree(one)))
    links = [link for one in pids for link in _links(one)]
    files = sum(1 for _ in directory.rglob("*"))
    memory = sorted(((_memory_mb(one), one) for one in pids), reverse=True)
    return Held(
        processes=len(pids),
        sockets=sum(link.startswith("socket:") for link in links),
        descriptors=len(links),
        shm=len({name for one in pids for name in _shm(one)} | {name for name in links if _SHM in name}),
        files=files,
        memory_mb=sum(mb for mb, _ in memory),
        largest=tuple(f"{_script(one)} {mb:.2f}" for mb, one in memory[:_LARGEST]),
    )


def _naming(directory: Path) -> list[int]:
    """Processes, of whatever parent, that were started with the name of this directory."""
    name, found = os.fsencode(directory), list[int]()
    for each in Path("/proc").iterdir():
        with suppress(OSError):
            if each.name.isdigit() and any(
                name in (each / file).read_bytes() for file in ("cmdline", "environ")
            ):
                found.append(int(each.name))
    return found


def _links(pid: int) -> list[str]:
    found: list[str] = []
    with suppress(OSError):
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.append(os.readlink(each))
    return found


def _shm(pid: int) -> list[str]:
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        return [line.split(maxsplit=5)[5] for line in lines if _SHM in line]
    return []


def _memory_mb(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0
