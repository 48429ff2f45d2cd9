"""Jails from this machine's side: what they show of it, and why there can be none. `jail.py` says what a jail is."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..errors import NoJail
from . import cell
from .gpus import CHOSEN, Gpu, gpu_nodes
from .groups import Bounds, Watched, bounds, this_way
from .jail import Jail, System, jail_command, jail_environment
from .limits import lease_sizes
from .seccomp import AUDIT_ARCH, system_call_filter

OLDEST: Final = (0, 8)
"""Version of bubblewrap that has all that jail.py asks of it: --size since 0.7, --disable-userns since 0.8."""

INSTALL: Final = "as root, apt-get install bubblewrap (dnf, pacman, apk and zypper name it so, too)"

_TRY_S: Final = 10.0  # a jail stands after 50 ms
_FIRST_USER: Final = (
    2_000_000_000  # systemd's uids-gids.md: nobody is given those from 1879048192 to 2147483647
)
_USERS: Final = 1 << 26
_ROOTS: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC: Final = (
    "ld.so.cache", "alternatives", "localtime", "timezone", "mime.types",
    "ssl/certs", "ssl/openssl.cnf", "pki/tls/certs", "pki/ca-trust/extracted", "ca-certificates",
)  # fmt: skip
_DRIVER_FILES: Final = (
    "/sys/bus/pci", "/sys/class/drm", "/sys/class/kfd", "/sys/devices/system/cpu", "/sys/devices/system/node",
    "/sys/devices/virtual/kfd", "/sys/module/amdgpu", "/sys/module/nvidia", "/sys/module/nvidia_uvm",
)  # fmt: skip
_TOO_MUCH: Final = (
    "/",
    "/home",
    "/root",
    "/tmp",
    "/var",
    "/run",
    "/etc",
    "/proc",
    "/sys",
    "/dev",
    "/mnt",
    "/media",
)


def this_system(*, as_root: bool | None = None) -> System:
    """What jails show of this machine, for who runs this. Raises NoJail, with the command that enables them."""
    found = shutil.which("bwrap")
    if found is None:
        raise NoJail(f"bubblewrap is not installed; {INSTALL}")
    _check_version(found)
    as_root = os.geteuid() == 0 if as_root is None else as_root
    links: list[tuple[str, str]] = []
    shown: list[str] = []
    for root in _ROOTS:
        if os.path.islink(root):
            links.append((root, os.readlink(root)))
        elif os.path.isdir(root):
            shown.append(root)
    shown += [f"/etc/{name}" for name in _ETC if os.path.exists(f"/etc/{name}")]
    sites = _sites()
    variables = (os.environ.get(name, "") for name in ("LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"))
    wanted = [path for value in variables for path in value.split(":") if path]
    wanted.append(os.environ.get("PYTHONPYCACHEPREFIX", ""))
    for path in (sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix), *sites, *wanted):
        if path and os.path.exists(path):
            shown.append(_checked(os.path.abspath(path)))
    package = Path(__file__).resolve().parents[1]
    searched = [*sites, str(package.parent)]
    outside = [site for site in searched if not _below(site, (sys.prefix, sys.base_prefix))]
    return System(
        bubblewrap=found,
        python=sys.executable,
        package=str(package),
        shown=_uppermost(shown),
        links=tuple(links),
        python_path=tuple(outside),
        as_root=as_root,
    )


def worker_jail(
    *,
    cpus: float,
    memory_bytes: int,
    store_bytes: int,
    leases: int = 1,
    gpus: Collection[Gpu] = (),
    system: System | None = None,
) -> Jail:
    """The jail of one worker, with a user of its own.

    memory_bytes: what its tasks may use, 0 for an even part of the machine's among so many leases. store_bytes: size of
    its object store. gpus: those that it gets. Raises NoJail.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    devices = gpu_nodes(gpus, device_nodes())
    sizes = lease_sizes(memory_bytes, cpus, store_bytes, machine, leases)
    return Jail(
        usable_system() if system is None else system,
        scratch_bytes=sizes.scratch_bytes,
        shared_bytes=sizes.shared_bytes,
        limits=sizes.limits,
        devices=devices,
        groups=tuple(sorted({os.stat(device).st_gid for device in devices} - {0})),
        drivers=_driver_files() if gpus else (),
        user=next_user(),
        system_calls=_system_calls(),
    )


@contextmanager
def in_jail(
    jail: Jail, command: Sequence[str], environment: Mapping[str, str]
) -> Generator[tuple[list[str], dict[str, str], Bounds], None, None]:
    """What `open_tree` runs, with which environment and within which bounds, so that the command runs in the jail;
    for the length of the context, at whose end it has ended. Raises OSError."""
    inside = jail_environment(jail.system, environment)
    if jail.devices:
        inside = {name: value for name, value in inside.items() if name not in CHOSEN}
    with bounds(jail.limits) as made:
        yield made.command(jail_command(jail, command)), {**inside, **made.environment}, made


def device_nodes() -> tuple[str, ...]:
    """What is in /dev and, as dri/..., in /dev/dri."""
    found = list(os.listdir("/dev"))
    if os.path.isdir("/dev/dri"):
        found += [f"dri/{name}" for name in os.listdir("/dev/dri")]
    return tuple(sorted(found))


def next_user() -> int:
    """A number for the next root lender's worker: no account has it, nor another worker of this process. Those of
    other processes count from elsewhere, each from where chance has put it: 67 million numbers."""
    return _FIRST_USER + (_BEGIN + next(_USED)) % _USERS


def jail_problem() -> str | None:
    """Why this machine cannot make jails, with the command that enables them; None when it can. Takes 0.1 s, once a
    process where it succeeds."""
    try:
        usable_system()
    except NoJail as problem:
        return problem.reason
    return None


@functools.cache
def usable_system() -> System:
    """This machine's system, of which a jail was made to try it. Raises NoJail."""
    system = this_system()
    jail = Jail(
        system, scratch_bytes=1 << 20, shared_bytes=1 << 20, user=next_user(), system_calls=_system_calls()
    )
    command = jail_command(jail, [system.python, "-I", "-S", "-c", "pass"])
    try:
        tried = subprocess.run(
            command,
            env=jail_environment(system, {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TRY_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise NoJail(f"{system.bubblewrap} cannot be used: {problem}") from None
    if tried.returncode:
        said = (tried.stderr.strip().splitlines() or [f"it ended with status {tried.returncode}"])[-1][:300]
        raise NoJail(f"bubblewrap makes none here ({said}); {_remedy(said)}")
    return system


def _system_calls() -> bytes:
    """The filter for this machine. Raises NoJail."""
    machine = os.uname().machine
    if machine not in AUDIT_ARCH:
        raise NoJail(
            f"this machine is a {machine}, whose system calls nobody has listed; {' and '.join(AUDIT_ARCH)} are"
        )
    return system_call_filter(machine, counted=not isinstance(this_way(), Watched))


def _driver_files() -> tuple[str, ...]:
    """What the drivers of GPUs look up in /sys: buses and processors, not networks or disks."""
    found = [path for path in _DRIVER_FILES if os.path.exists(path)]
    return tuple(found + sorted(map(str, Path("/sys/devices").glob("pci*"))))


def _remedy(said: str) -> str:
    """What to do about bubblewrap's complaint."""
    for name, forbidden, remedy in cell.SWITCHES:
        try:
            found = (Path("/proc/sys") / name).read_text().strip()
        except OSError:
            continue
        if found == forbidden:
            return f"this machine's owner allows them by `{remedy}`"
    if "proc" in said:
        return "in a container, /proc must not be masked (docker run --security-opt systempaths=unconfined)"
    return "in a container, its seccomp profile must let unshare(2) and mount(2) pass; or be root with CAP_SYS_ADMIN"


def _check_version(bubblewrap: str) -> None:
    try:
        told = subprocess.run(
            [bubblewrap, "--version"], capture_output=True, text=True, timeout=_TRY_S, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise NoJail(f"{bubblewrap} cannot be run: {problem}; {INSTALL}") from None
    numbers = re.search(r"(\d+)\.(\d+)", told)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise NoJail(
            f"bubblewrap {oldest} or newer is needed (Debian 12, Ubuntu 24.04), not {told.strip()!r}; {INSTALL}"
        )


def _sites() -> list[str]:
    """Directories that Ray is imported from; [] without Ray."""
    spec = importlib.util.find_spec("ray")
    places: Iterable[str] = () if spec is None else spec.submodule_search_locations or ()
    return list(dict.fromkeys(str(Path(place).absolute().parent) for place in places))


def _checked(path: str) -> str:
    """A path to be shown. Raises NoJail when the lender's own files are below it."""
    home = os.path.expanduser("~")
    if path in _TOO_MUCH or path == home or home.startswith(path.rstrip("/") + "/"):
        raise NoJail(
            f"a jail would show {path}, where Python or its libraries are, to strangers; "
            "lend from a virtual environment of its own: python -m venv DIRECTORY"
        )
    return path


def _below(path: str, directories: Sequence[str]) -> bool:
    return any(path == one or path.startswith(one.rstrip("/") + "/") for one in directories)


def _uppermost(paths: Sequence[str]) -> tuple[str, ...]:
    """Those that are below none of the others, each once."""
    once = list(dict.fromkeys(paths))
    return tuple(path for path in once if not _below(path, [other for other in once if other != path]))


_BEGIN: Final = secrets.randbelow(_USERS)
_USED: Final = itertools.count()
