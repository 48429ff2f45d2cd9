"""Control groups and scopes from this machine's side: which way there is to bound a jail, and its use.

A group is a directory that is made before the jail, entered by it, and removed by its supervisor, or by us. Its name
says whose it is (process id and start), so that whoever lends next removes what a killed lender left.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import launch, processes
from .jail import Limits
from .limits import group_files, scope_command

PREFIX: Final = "swarmp2p-"

_NEEDED: Final = ("memory", "pids")  # cpu is taken where it is
_SCOPE_NAMES: Final = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
_TRY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Groups:
    """A way to bound: directories under which groups are made, (controller, directory) each. version: 1 or 2."""

    version: int
    parents: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Scopes:
    """A way to bound: systemd's. user: by the user's own manager."""

    systemd_run: str
    user: bool


@dataclass(frozen=True, slots=True)
class Watched:
    """No way but to look."""


Way = Groups | Scopes | Watched


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one jail is told. groups: directories that it enters. memory_bytes: what its supervisor watches; 0 for
    nothing. scope: who makes its scope, if so. environment: what that takes."""

    limits: Limits
    groups: tuple[str, ...] = ()
    memory_bytes: int = 0
    scope: Scopes | None = None

    def command(self, command: Sequence[str]) -> list[str]:
        """The command within these bounds."""
        if self.scope is None:
            return list(command)
        return scope_command(self.scope.systemd_run, self.scope.user, self.limits, command)

    @property
    def environment(self) -> dict[str, str]:
        """What that command needs besides; jail_environment keeps it from the worker."""
        if self.scope is None:
            return {}
        return {name: os.environ[name] for name in _SCOPE_NAMES if name in os.environ}


@functools.cache
def this_way() -> Way:
    """How this machine bounds jails. Removes what killed lenders left. Takes 0.1 s at most, once a process."""
    found = _groups()
    if found is not None:
        sweep(found)
        return found
    return _scopes() or Watched()


@contextmanager
def bounds(limits: Limits, way: Way | None = None) -> Generator[Bounds, None, None]:
    """Make what bounds one jail, for the length of the context, at whose end the jail has ended. Raises OSError."""
    way = this_way() if way is None else way
    match way:
        case Watched():
            yield Bounds(limits, memory_bytes=limits.memory_bytes)
        case Scopes():
            yield Bounds(limits, scope=way)
        case Groups():
            made: list[str] = []
            try:
                make(way, limits, made)
                yield Bounds(limits, groups=tuple(made))
            finally:
                for directory in made:
                    launch.leave_group(directory)


def make(way: Groups, limits: Limits, made: list[str]) -> None:
    """Make the groups of one jail, which are added to `made` one by one. Raises OSError."""
    name = f"{PREFIX}{_whose(os.getpid())}-{next(_USED)}"
    files = group_files(way.version, limits)
    for controller, parent in way.parents:
        directory = os.path.join(parent, name)
        if directory not in made:
            os.mkdir(directory)
            made.append(directory)
        for file, value in files[controller].items():
            path = Path(directory, file.removesuffix("?"))
            if not file.endswith("?") or path.exists():
                path.write_text(value)


def sweep(way: Groups) -> None:
    """Remove the groups of lenders that are no more. One that has processes stays: a supervisor ends those."""
    for _, parent in way.parents:
        for directory in Path(parent).glob(f"{PREFIX}*"):
            pid, _, rest = directory.name.removeprefix(PREFIX).partition("-")
            if pid.isdigit() and _whose(int(pid)) != f"{pid}-{rest.partition('-')[0]}":
                try:
                    directory.rmdir()
                except OSError:
                    continue


def _whose(pid: int) -> str:
    process = processes.look(pid)
    return f"{pid}-{process.start if process is not None else 'gone'}"


def _groups() -> Groups | None:
    """Where groups can be made, tried out; None where they cannot."""
    own = [line.split(":", 2) for line in _lines("/proc/self/cgroup")]
    mounts = [line.split() for line in _lines("/proc/self/mountinfo")]
    for found in (_first_version(own, mounts), _second_version(own, mounts)):
        if found is not None and _works(found):
            return found
    return None


def _first_version(own: list[list[str]], mounts: list[list[str]]) -> Groups | None:
    """One directory for each controller: this process's own."""
    parents: dict[str, str] = {}
    for _, controllers, path in own:
        for mount in mounts:
            kind, options = mount[mount.index("-") + 1], mount[mount.index("-") + 3].split(",")
            for controller in set(controllers.split(",")) & {*_NEEDED, "cpu"}:
                if kind == "cgroup" and controller in options:
                    below = os.path.relpath(path, mount[3])  # a container sees a part of the hierarchy
                    parents[controller] = os.path.normpath(
                        mount[4] if below.startswith("..") else os.path.join(mount[4], below)
                    )
    if not all(controller in parents for controller in _NEEDED):
        return None
    return Groups(1, tuple(sorted(parents.items())))


def _second_version(own: list[list[str]], mounts: list[list[str]]) -> Groups | None:
    """One directory for all: the parent of this process's own, whose children have the controllers. Where systemd runs,
    groups are its own (its "single-writer rule"), and scopes are made instead."""
    if os.path.isdir("/run/systemd/system"):
        return None
    root = next((mount[4] for mount in mounts if mount[mount.index("-") + 1] == "cgroup2"), None)
    path = next((path for number, _, path in own if number == "0"), None)
    if root is None or path is None:
        return None
    for parent in (os.path.dirname(os.path.normpath(root + path)), root):
        enabled = " ".join(_lines(os.path.join(parent, "cgroup.subtree_control"))).split()
        if parent.startswith(root) and all(controller in enabled for controller in _NEEDED):
            return Groups(2, tuple((name, parent) for name in (*_NEEDED, "cpu") if name in enabled))
    return None


def _works(way: Groups) -> bool:
    """Whether a process can be put into a group of this kind."""
    try:
        with bounds(Limits(64 << 20, 16, 1.0), way) as made:
            entering = (
                "import os, sys\nfor each in sys.argv[1:]: open(each + '/cgroup.procs', 'w').write('0')"
            )
            supervisor_python = [os.path.realpath("/proc/self/exe"), "-I", "-S", "-c", entering, *made.groups]
            return _succeeds(supervisor_python)
    except OSError:
        return False


def _scopes() -> Scopes | None:
    """Whether a manager of systemd makes scopes for this process."""
    found = shutil.which("systemd-run")
    if found is None or not os.path.isdir("/run/systemd/system"):
        return None
    scopes = Scopes(found, os.geteuid() != 0)
    tried = scope_command(found, scopes.user, Limits(64 << 20, 16, 1.0), ["true"])
    return scopes if _succeeds(tried) else None


def _succeeds(command: Sequence[str]) -> bool:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TRY_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


_USED: Final = itertools.count()
