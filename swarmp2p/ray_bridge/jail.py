"""A worker's jail: what bubblewrap (bwrap(1)) is told, as a pure function of what is to be run in which jail.

    from outside to inside                                          who does it
    the cell's network namespace, with the cluster and nothing else   supervisor.py --enter
    pid, mount, ipc, uts, cgroup and user namespaces                  bwrap
    a root directory of few things, all of them read-only             bwrap
    one writable place (/tmp: home, temporary files, Ray's directory)
      and /dev/shm, in memory, each with its size                     bwrap
    an unprivileged user, resource limits, system call filter         inside.py, seccomp.py
    the command

Nothing of the environment comes from here: whoever runs the command line gives it (`jail_environment`), for a command
line is readable by every user of a machine. `jails.py` finds out what this machine has; docs/jail.md says what is kept
from whom by what, and what is not.

Without root, bwrap makes a user namespace in which the lender's user is INSIDE_USER and may do nothing more than
outside. Root runs it without, because the paths that are shown may be below directories that are root's alone; then
inside.py becomes a user that nobody else is.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from .inside import INSIDE_USER, Orders

SCRATCH: Final = "/tmp"
"""The one place that a worker can write to, besides /dev/shm. Gone with the jail, whoever ends it."""

HOME: Final = f"{SCRATCH}/home"
WORK: Final = f"{SCRATCH}/work"
"""Where commands are started."""

NODE: Final = f"{SCRATCH}/ray"
"""For Ray's own directory. Its path is short: a Unix socket's may have 107 bytes, and Ray's part takes 64."""

_PENDING_SIGNALS: Final = 4096
_MESSAGE_BYTES: Final = 1 << 16
"""Queued signals and POSIX message queues: without root, what a worker has counts as its lender's own."""

_TEMPORARY: Final = f"{SCRATCH}/tmp"
_ETC: Final = ("passwd", "group", "hosts", "nsswitch.conf")  # ours, not the lender's
_DROPPED: Final = frozenset(
    {"HOME", "LOGNAME", "OLDPWD", "PATH", "PWD", "PYTHONPATH", "SHELL", "TMPDIR", "USER"}
    | {"DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR"}
)


@dataclass(frozen=True, slots=True)
class System:
    """What each jail of a machine shares.

    bubblewrap: path of bwrap. python: interpreter for inside.py. package: directory of swarmp2p, seen in the jail.
    shown: files and directories that are seen read-only where they are, none below another. links: symbolic links,
    (where, target), as the root directory of a system with a merged /usr has them. python_path: directories of shown
    that Python does not search by itself. as_root: whether root runs it.
    """

    bubblewrap: str
    python: str
    package: str
    shown: tuple[str, ...]
    links: tuple[tuple[str, str], ...] = ()
    python_path: tuple[str, ...] = ()
    as_root: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What the processes of a jail may use together: memory (files in it included), processes and threads, CPUs."""

    memory_bytes: int = 4 << 30
    processes: int = 2048
    cpus: float = 1.0


@dataclass(frozen=True, slots=True)
class Jail:
    """One jail.

    scratch_bytes: size of /tmp. shared_bytes: of /dev/shm, where Ray's object store is. Both are memory, taken as it
    is used. open_files: most for each process. devices: further device nodes, of GPUs; drivers: what else is shown for
    them. user: who a root lender's worker is outside, above 0. groups: that it is in, to which
    devices belong. system_calls: seccomp.py's filter; b"" for none.
    """

    system: System
    scratch_bytes: int = 8 << 30
    shared_bytes: int = 1 << 30
    limits: Limits = Limits()
    open_files: int = 65536
    devices: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    user: int = 2_000_000_000
    groups: tuple[int, ...] = ()
    system_calls: bytes = b""


def jail_command(jail: Jail, command: Sequence[str]) -> list[str]:
    """The command line that runs a command in a jail. Descriptors and the environment pass through it.

    It ends when the command does, with its exit status; whatever else is in the jail is killed then by the kernel, and
    all of it when the one who runs it dies or this is killed. SIGTERM is for the command, not for bwrap (supervisor.py
    --jailed).
    """
    system = jail.system
    line = [system.bubblewrap, "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if system.as_root:
        # For inside.py, until it has become somebody else.
        line += ["--cap-drop", "ALL"]
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            line += ["--cap-add", capability]
    else:
        line += ["--unshare-user", "--uid", str(INSIDE_USER), "--gid", str(INSIDE_USER)]
        line += ["--disable-userns", "--cap-drop", "ALL"]
    line += ["--die-with-parent", "--new-session", "--hostname", "worker"]
    line += ["--proc", "/proc", "--dev", "/dev"]
    line += ["--size", str(jail.shared_bytes), "--perms", "1777", "--tmpfs", "/dev/shm"]
    for parent in _parents(jail.devices):
        line += ["--perms", "0755", "--dir", parent]
    for device in jail.devices:
        line += ["--dev-bind", device, device]
    line += ["--remount-ro", "/dev"]
    line += ["--size", str(jail.scratch_bytes), "--perms", "1777", "--tmpfs", SCRATCH]
    shown = [(path, path) for path in (*system.shown, system.package, *jail.drivers)]
    shown += [(f"{system.package}/ray_bridge/etc/{name}", f"/etc/{name}") for name in _ETC]
    for parent in _parents([where for _, where in shown]):
        line += [
            "--perms",
            "0755",
            "--dir",
            parent,
        ]  # else as the umask has it, which may shut all others out
    for path, where in shown:
        line += ["--ro-bind", path, where]
    for where, target in system.links:
        line += ["--symlink", target, where]
    line += ["--remount-ro", "/", "--chdir", SCRATCH]
    orders: Orders = {
        "user": jail.user if system.as_root else 0,
        "groups": list(jail.groups),
        "limits": {
            "NPROC": jail.limits.processes,
            "NOFILE": jail.open_files,
            "CORE": 1,  # with 0, a program of the machine's that takes dumps by a pipe would get them (core(5))
            "SIGPENDING": _PENDING_SIGNALS,
            "MSGQUEUE": _MESSAGE_BYTES,
            "FSIZE": max(jail.scratch_bytes, jail.shared_bytes),
        },
        "filter": base64.b64encode(jail.system_calls).decode(),
        "work": WORK,
        "directories": [HOME, WORK, _TEMPORARY],
    }
    program = f"{system.package}/ray_bridge/inside.py"
    return [*line, "--", system.python, "-I", "-S", program, json.dumps(orders), *command]


def jail_environment(system: System, environment: Mapping[str, str]) -> dict[str, str]:
    """An environment as it is in a jail: places that are there instead of the lender's."""
    kept = {name: value for name, value in environment.items() if name not in _DROPPED}
    prefix = str(PurePosixPath(system.python).parent)
    found = {
        "HOME": HOME,
        "LOGNAME": "worker",
        "USER": "worker",
        "SHELL": "/bin/sh",
        "TMPDIR": _TEMPORARY,
        "PATH": f"{prefix}:/usr/local/bin:/usr/bin:/bin",
    }
    if system.python_path:
        found["PYTHONPATH"] = ":".join(system.python_path)
    return {**kept, **found}


def _parents(paths: Sequence[str]) -> list[str]:
    """The directories above those paths, uppermost first, without / and what else is there or mounted already."""
    found: dict[str, None] = {}
    for path in paths:
        for parent in reversed(PurePosixPath(path).parents):
            if str(parent) not in ("/", "/dev", "/dev/shm", "/proc", SCRATCH):
                found[str(parent)] = None
    return [parent for parent in found if parent not in paths]
